//! Convolution: shapes, messages, the reference against numbers worked out by hand, and the CPU step against it.

use super::product_cases::conv::{case, cases, epilogues, operands};
use super::steps::{Packs, assert_close, check_cpu, cpu, eval, infer, random};
use sinter::base::{DType, Dim, Fact, Shape, Tensor};
use sinter::ops::conv::Conv;
use sinter::ops::pointwise::{Func, Program};
use sinter::ops::transpose::Transpose;
use sinter::ops::window::ChannelOrder;
use sinter::ops::{InferCx, Op, OpDef};

/// Sums of up to a few hundred f32 products.
const TOLERANCE: f64 = 1e-4;

#[test]
fn cpu_step_gives_the_references_numbers() {
    for c in cases() {
        for with_bias in [false, true] {
            let had = check_cpu(c.name, &Op::from(c.op.clone()), &operands(&c, with_bias), &[1], TOLERANCE);
            assert!(had || c.op.order != ChannelOrder::First, "{}: no CPU step", c.name);
        }
    }
}

#[test]
fn cpu_step_applies_every_kind_of_epilogue() {
    for c in cases() {
        let inputs = operands(&c, true);
        let out = infer(&Op::from(c.op.clone()), &inputs).unwrap()[0].shape.concrete().unwrap();
        for (name, program, shapes) in epilogues(&out) {
            let mut op = c.op.clone();
            op.epilogue = Some(program);
            let mut inputs = inputs.clone();
            inputs.extend(shapes.iter().enumerate().map(|(i, s)| Some(random(DType::F32, s, 10 + i as u64))));
            let what = format!("{} with {name}", c.name);
            // f16 results may round to either neighbour.
            let tolerance = if name == "to f16" { 2e-3 } else { TOLERANCE };
            let had = check_cpu(&what, &Op::from(op), &inputs, &[1], tolerance);
            assert!(had || c.op.order != ChannelOrder::First, "{what}: no CPU step");
        }
    }
}

#[test]
fn weights_are_packed_once_for_all_shapes() {
    let packs = Packs::default();
    let op = Op::from(cases()[0].op.clone());
    for size in [8, 9, 30] {
        let inputs = [Some(random(DType::F32, &[1, 3, size, size], 1)), Some(random(DType::F32, &[4, 3, 3, 3], 2)), None];
        let got = cpu(&op, &inputs, &[1], &packs).unwrap().expect("f32 has a step");
        assert_close("packed", &got[0], &eval(&op, &inputs).unwrap()[0], TOLERANCE);
    }
    assert_eq!(*packs.n_made.borrow(), 1);
}

#[test]
fn reference_by_hand() {
    let c = case("", &[1, 1, 3, 3], &[1, 1, 2, 2], |_| {});
    let x = Tensor::from_slice(&[1, 1, 3, 3], &[1f32, 2., 3., 4., 5., 6., 7., 8., 9.]);
    let w = Tensor::from_slice(&[1, 1, 2, 2], &[1f32, 10., 100., 1000.]);
    let b = Tensor::from_slice(&[1], &[0.5f32]);
    let y = eval(&Op::from(c.op), &[Some(x), Some(w), Some(b)]).unwrap();
    assert_eq!(y[0].slice::<f32>(), &[5421.5, 6532.5, 8754.5, 9865.5]);
}

fn transposed(x: &Tensor, perm: Vec<i64>) -> Tensor {
    eval(&Op::from(Transpose { perm }), &[Some(x.clone())]).unwrap().swap_remove(0)
}

fn to_last(rank: usize) -> Vec<i64> {
    std::iter::once(0).chain(2..rank as i64).chain([1]).collect()
}

fn to_first(rank: usize) -> Vec<i64> {
    [0, rank as i64 - 1].into_iter().chain(1..rank as i64 - 1).collect()
}

#[test]
fn every_order_of_channels_gives_the_same_numbers() {
    let mut n = 0;
    for c in cases().into_iter().filter(|c| c.op.order != ChannelOrder::First) {
        let inputs = operands(&c, true);
        let got = eval(&Op::from(c.op.clone()), &inputs).unwrap().swap_remove(0);
        let mut first = inputs.clone();
        if c.op.order == ChannelOrder::Last {
            for t in first[..2].iter_mut().flatten() {
                *t = transposed(t, to_first(c.x.len()));
            }
        }
        let op = Conv { order: ChannelOrder::First, ..c.op.clone() };
        let want = eval(&Op::from(op), &first).unwrap().swap_remove(0);
        assert_close(c.name, &got, &transposed(&want, to_last(c.x.len())), 1e-6);
        n += 1;
    }
    assert!(n > 10);
}

#[test]
fn an_operator_without_an_order_has_channels_first() {
    let op = Op::from(cases()[0].op.clone());
    assert!(!op.attrs().0.contains_key("order"));
    let last = cases().into_iter().find(|c| c.op.order == ChannelOrder::Last).unwrap();
    let attrs = Op::from(last.op).attrs();
    let Op::Conv(back) = Op::from_attrs(2, &attrs).unwrap() else { panic!("a convolution") };
    assert_eq!(back.order, ChannelOrder::Last);
}

#[test]
fn half_precision_rounds_once() {
    // 4096 products of 1 x 1: a running f16 sum would stop at 2048.
    let c = case("", &[1, 4096, 1], &[1, 4096, 1], |_| {});
    let ones = Tensor::from_slice(&[1, 4096, 1], &vec![half::f16::ONE; 4096]);
    let y = eval(&Op::from(c.op), &[Some(ones.clone()), Some(ones), None]).unwrap();
    assert_eq!((y[0].dtype(), y[0].to_f32s()), (DType::F16, vec![4096.0]));
}

#[test]
fn shapes_stay_symbolic() {
    let c = case("", &[], &[], |c| (c.strides, c.pads) = (vec![2, 2], vec![1; 4]));
    let x = Fact::new(DType::F32, Shape(vec!["n".into(), 3.into(), "h".into(), 64.into()]));
    let w = Fact::new(DType::F32, Shape::from([8, 3, 3, 3]));
    let y = c.op.infer(&InferCx::new(&[Some(&x), Some(&w)])).unwrap();
    let half = (Dim::sym("h") + -1).floor_div(&Dim::Const(2)).unwrap() + 1;
    assert_eq!(y[0].shape, Shape(vec!["n".into(), 8.into(), half, 32.into()]));
}

#[test]
fn messages_say_what_was_expected() {
    let fails = |x: &[usize], w: &[usize], extra: &[&[usize]], f: &dyn Fn(&mut Conv)| {
        let c = case("", x, w, |c| f(c));
        let mut inputs = vec![Some(random(DType::F32, x, 1)), Some(random(DType::F32, w, 1))];
        inputs.extend(extra.iter().map(|s| Some(random(DType::F32, s, 1))));
        infer(&Op::from(c.op), &inputs).unwrap_err().to_string()
    };
    let text = fails(&[1, 3, 8, 8], &[4, 64, 3, 3], &[], &|_| {});
    assert!(text.contains("expected 64 channels (weight dim 1 x group = 64 x 1), got 3"), "{text}");
    let text = fails(&[1, 4, 8, 8], &[3, 2, 3, 3], &[], &|c| c.group = 2);
    assert!(text.contains("3 output channels are no multiple of group 2"), "{text}");
    let text = fails(&[1, 3, 8, 8], &[4, 3, 3, 3], &[&[5]], &|_| {});
    assert!(text.contains("expected bias [4], got [5]"), "{text}");
    let text = fails(&[1, 3, 1, 8], &[4, 3, 3, 3], &[], &|_| {});
    assert!(text.contains("a window of 3 elements does not fit an input of 1"), "{text}");
    let text = fails(&[1, 3, 8, 8], &[4, 3, 3, 3], &[], &|c| c.strides = vec![1]);
    assert!(text.contains("strides: expected 2 numbers for 2 spatial axes, got 1"), "{text}");
    let text = fails(&[1, 3, 8, 8], &[4, 3, 3, 3], &[&[4], &[2, 4, 6, 6]], &|c| {
        c.epilogue = Some(Program::single(Func::Add, &[DType::F32, DType::F32]).unwrap());
    });
    assert!(text.contains("input 3: shape [2,4,6,6] does not broadcast to the result's [1,4,6,6]"), "{text}");
}

#[test]
fn attributes_survive_storing() {
    let mut op = cases()[4].op.clone();
    op.epilogue = Some(Program::single(Func::Relu, &[DType::F32]).unwrap());
    let op = Op::from(op);
    let back = Op::from_attrs(op.id(), &op.attrs()).unwrap();
    assert_eq!(format!("{}", back.attrs()), format!("{}", op.attrs()));
}
