//! Pooling: sizes with rounding up, what padding counts, indices, and the CPU step against the reference.

use super::steps::{check_cpu, eval, infer, random};
use sinter::base::{DType, Tensor};
use sinter::ops::Op;
use sinter::ops::pool::{Pool, PoolKind};
use sinter::ops::window::AutoPad;

#[derive(Clone, Debug)]
pub struct Case {
    pub name: &'static str,
    pub x: Vec<usize>,
    pub op: Pool,
}

fn case(name: &'static str, kind: PoolKind, x: &[usize], kernel: &[i64], f: impl FnOnce(&mut Pool)) -> Case {
    let mut op = Pool {
        kind,
        kernel: kernel.to_vec(),
        strides: vec![],
        pads: vec![],
        dilations: vec![],
        auto_pad: AutoPad::NotSet,
        ceil_mode: false,
        count_include_pad: false,
        p: 2,
        indices: false,
        storage_order: 0,
    };
    f(&mut op);
    Case { name, x: x.to_vec(), op }
}

/// Shared by reference, CPU and CUDA tests.
pub fn cases() -> Vec<Case> {
    use PoolKind::*;
    vec![
        case("max 3x3 stride 2 pad 1", Max, &[2, 5, 11, 13], &[3, 3], |p| (p.strides, p.pads) = (vec![2, 2], vec![1; 4])),
        case("max 2x2 stride 2", Max, &[1, 4, 8, 10], &[2, 2], |p| p.strides = vec![2, 2]),
        case("max rounding up", Max, &[1, 3, 9, 10], &[2, 3], |p| (p.strides, p.ceil_mode) = (vec![2, 2], true)),
        case("max rounding up, window in the end padding", Max, &[1, 2, 3, 5], &[2, 2], |p| {
            (p.strides, p.ceil_mode, p.pads) = (vec![2, 3], true, vec![0, 0, 1, 1]);
        }),
        case("max dilated", Max, &[1, 2, 12, 11], &[3, 2], |p| (p.dilations, p.pads) = (vec![2, 3], vec![1, 0, 2, 1])),
        case("max indices", Max, &[2, 3, 7, 6], &[3, 2], |p| (p.indices, p.strides) = (true, vec![2, 1])),
        case("max indices by columns", Max, &[2, 3, 7, 6], &[2, 2], |p| (p.indices, p.storage_order) = (true, 1)),
        case("max indices in three axes", Max, &[1, 2, 4, 5, 3], &[2, 2, 2], |p| (p.indices, p.storage_order) = (true, 1)),
        case("average", Average, &[1, 3, 9, 8], &[3, 3], |p| p.pads = vec![1, 0, 1, 2]),
        case("average counting padding", Average, &[1, 3, 9, 8], &[3, 3], |p| {
            (p.pads, p.count_include_pad) = (vec![1, 0, 1, 2], true);
        }),
        case("average counting padding, rounding up", Average, &[1, 2, 8, 7], &[3, 4], |p| {
            (p.pads, p.count_include_pad, p.ceil_mode, p.strides) = (vec![1, 1, 1, 0], true, true, vec![3, 2]);
        }),
        case("average dilated", Average, &[1, 2, 10, 9], &[2, 3], |p| (p.dilations, p.strides) = (vec![3, 2], vec![2, 1])),
        case("average SAME_UPPER", Average, &[1, 2, 7, 6], &[3, 2], |p| (p.auto_pad, p.strides) = (AutoPad::SameUpper, vec![2, 2])),
        case("average in one axis", Average, &[2, 3, 17], &[5], |p| p.strides = vec![3]),
        case("average in three axes", Average, &[1, 2, 5, 4, 6], &[2, 2, 3], |p| p.pads = vec![1, 0, 0, 0, 1, 1]),
        case("Lp 2", Lp, &[1, 3, 7, 8], &[2, 3], |p| p.pads = vec![1, 1, 0, 0]),
        case("Lp 3", Lp, &[1, 3, 7, 8], &[2, 3], |p| p.p = 3),
        case("Lp 1", Lp, &[1, 3, 7, 8], &[2, 2], |p| p.p = 1),
        case("no images", Max, &[0, 3, 7, 8], &[2, 2], |_| {}),
    ]
}

#[test]
fn cpu_step_gives_the_references_numbers() {
    for c in cases() {
        let had = check_cpu(c.name, &Op::from(c.op.clone()), &[Some(random(DType::F32, &c.x, 1))], &[], 1e-5);
        assert!(had, "{}: no CPU step", c.name);
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
