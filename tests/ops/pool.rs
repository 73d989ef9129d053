//! Pooling: sizes with rounding up, what padding counts, indices, and the CPU step against the reference.

use super::product_cases::pool::{Case, case, cases};
use super::steps::{check_cpu, eval, infer, random};
use sinter::base::{DType, Tensor};
use sinter::ops::Op;
use sinter::ops::window::ChannelOrder;
use sinter::ops::pool::PoolKind;

#[test]
fn cpu_step_gives_the_references_numbers() {
    for c in cases() {
        let had = check_cpu(c.name, &Op::from(c.op.clone()), &[Some(random(DType::F32, &c.x, 1))], &[], 1e-5);
        assert!(had || c.op.order != ChannelOrder::First, "{}: no CPU step", c.name);
    }
}

fn run(c: &Case, x: Tensor) -> Vec<Tensor> {
    eval(&Op::from(c.op.clone()), &[Some(x)]).unwrap()
}

#[test]
fn windows_beyond_the_padding_do_not_count() {
    let x = Tensor::from_slice(&[1, 1, 4], &[1f32, 2., 3., 4.]);
    let mut c = case("", PoolKind::Average, &[1, 1, 4], &[3], |p| {
        (p.strides, p.ceil_mode, p.pads, p.count_include_pad) = (vec![3], true, vec![1, 0], true);
    });
    // Windows start at -1 and 2; the last one hangs over the end, which is not padding.
    assert_eq!(run(&c, x.clone())[0].to_f32s(), [1.0, 3.5]);
    c.op.count_include_pad = false;
    assert_eq!(run(&c, x)[0].to_f32s(), [1.5, 3.5]);
}

#[test]
fn rounding_up_adds_no_window_that_starts_in_the_end_padding() {
    let c = &cases()[3];
    let y = infer(&Op::from(c.op.clone()), &[Some(random(DType::F32, &c.x, 1))]).unwrap();
    // (3 + 1 - 2) / 2 + 1 = 2; (5 + 1 - 2) / 3 rounded up + 1 = 3, whose last window starts at 6 > 4.
    assert_eq!(y[0].shape.to_string(), "[1,2,2,2]");
}

#[test]
fn the_first_of_equals_and_a_nan_win() {
    let x = Tensor::from_slice(&[1, 1, 5], &[2f32, 2., f32::NAN, 5., 1.]);
    let c = case("", PoolKind::Max, &[1, 1, 5], &[2], |p| p.indices = true);
    let y = run(&c, x);
    let v = y[0].to_f32s();
    assert!(v[0] == 2.0 && v[1].is_nan() && v[2].is_nan() && v[3] == 5.0);
    assert_eq!(y[1].to_i64s(), [0, 2, 2, 3]);
}

#[test]
fn integers_pool_by_maximum_only() {
    let x = Tensor::from_slice(&[1, 1, 4], &[-128i8, -3, 7, 127]);
    let c = case("", PoolKind::Max, &[1, 1, 4], &[2], |p| p.pads = vec![1, 0]);
    assert_eq!(run(&c, x.clone())[0].to_i64s(), [-128, -3, 7, 127]);
    let c = case("", PoolKind::Average, &[1, 1, 4], &[2], |_| {});
    let text = infer(&Op::from(c.op), &[Some(x)]).unwrap_err().to_string();
    assert!(text.contains("average pooling does not take i8"), "{text}");
}

#[test]
fn indices_by_columns_count_the_first_axis_first() {
    let x = Tensor::from_slice(&[1, 1, 2, 3], &[0f32, 1., 2., 3., 4., 5.]);
    let c = case("", PoolKind::Max, &[1, 1, 2, 3], &[2, 2], |p| (p.indices, p.storage_order) = (true, 1));
    // (row 1, column 1) and (1, 2) of a 2 x 3 plane.
    assert_eq!(run(&c, x)[1].to_i64s(), [3, 5]);
}
