//! Reductions: import forms, axes as attribute and as operand, integer and empty inputs, shape arithmetic.

use super::node::{expect, node};
use sinter::base::{DType, Dim, Fact, Shape, Tensor};
use sinter::network::Graph;
use sinter::ops::reduce::{Reduce, ReduceKind};
use sinter::ops::shape::Shape as ShapeOp;

const X: [f32; 6] = [0.5, 1.5, 2.0, 0.25, 3.0, 1.0];

#[test]
fn every_kind_along_the_last_axis() {
    for (op, want) in [
        ("ReduceSum", [4.0, 4.25]),
        ("ReduceMean", [1.3333334, 1.4166666]),
        ("ReduceMax", [2.0, 3.0]),
        ("ReduceMin", [0.5, 0.25]),
        ("ReduceProd", [1.5, 0.75]),
        ("ReduceL1", [4.0, 4.25]),
        ("ReduceL2", [2.5495098, 3.1721444]),
        ("ReduceLogSum", [1.3862944, 1.446919]),
        ("ReduceLogSumExp", [2.6041307, 3.1817074]),
        ("ReduceSumSquare", [6.5, 10.0625]),
    ] {
        let by_attribute = node(op, 11).ints("axes", &[-1]).int("keepdims", 0).f32(&[2, 3], &X, &[]);
        expect(&by_attribute, &[2], &want, 1e-6);
        let by_operand = node(op, 18).f32(&[2, 3], &X, &[&[1]]);
        expect(&by_operand, &[2, 1], &want, 1e-6);
    }
}

#[test]
fn no_axes_mean_all_or_none() {
    expect(&node("ReduceSum", 13).int("keepdims", 0).f32(&[2, 3], &X, &[]), &[], &[8.25], 1e-6);
    expect(&node("ReduceSum", 13).f32(&[2, 3], &X, &[&[]]), &[1, 1], &[8.25], 1e-6);
    let noop = node("ReduceSum", 13).int("noop_with_empty_axes", 1);
    expect(&noop.f32(&[2, 3], &X, &[&[]]), &[2, 3], &X, 0.0);
    let squares = node("ReduceSumSquare", 18).int("noop_with_empty_axes", 1).f32(&[2], &[3.0, -2.0], &[]);
    expect(&squares, &[2], &[9.0, 4.0], 0.0);
}

#[test]
fn positions_of_the_extreme() {
    let x = [1.0, 3.0, 3.0, 2.0, 2.0, 0.0];
    let y = node("ArgMax", 13).int("axis", -1).f32(&[2, 3], &x, &[]);
    assert_eq!((y.dtype(), y.shape(), y.to_i64s()), (DType::I64, &[2, 1][..], vec![1, 0]));
    let y = node("ArgMax", 13).int("axis", 1).int("select_last_index", 1).int("keepdims", 0).f32(&[2, 3], &x, &[]);
    assert_eq!((y.shape(), y.to_i64s()), (&[2][..], vec![2, 1]));
    let y = node("ArgMin", 1).f32(&[2, 3], &x, &[]);
    assert_eq!((y.shape(), y.to_i64s()), (&[1, 3][..], vec![0, 1, 1]));
    let nan = node("ArgMax", 13).f32(&[3], &[1.0, f32::NAN, f32::INFINITY], &[]);
    assert_eq!(nan.to_i64s(), [1]);
}

#[test]
fn integers_wrap_and_means_truncate() {
    let x = Some(Tensor::from_slice(&[3], &[200u8, 100, 1]));
    assert_eq!(node("ReduceSum", 11).run(&[x.clone()]).unwrap()[0].to_i64s(), [45]);
    assert_eq!(node("ReduceMean", 11).run(&[x]).unwrap()[0].to_i64s(), [100]);
    let x = Some(Tensor::from_slice(&[2], &[-3i64, -4]));
    assert_eq!(node("ReduceMean", 11).run(&[x]).unwrap()[0].to_i64s(), [-3]);
    let big = Some(Tensor::from_slice(&[2], &[u64::MAX, 1]));
    assert_eq!(node("ReduceMax", 11).run(&[big]).unwrap()[0].slice::<u64>(), [u64::MAX]);
}

#[test]
fn an_empty_axis_gives_the_neutral_element() {
    let of = |op: &'static str| node(op, 18).int("keepdims", 0).f32(&[2, 0], &[], &[&[1]]).to_f32s();
    assert_eq!(of("ReduceSum"), [0.0; 2]);
    assert_eq!(of("ReduceProd"), [1.0; 2]);
    assert_eq!(of("ReduceMax"), [f32::NEG_INFINITY; 2]);
    assert_eq!(of("ReduceMin"), [f32::INFINITY; 2]);
    let refused = node("ArgMax", 13).int("axis", 1).run(&[Some(Tensor::zeros(DType::F32, &[2, 0]))]);
    assert!(refused.unwrap_err().to_string().contains("empty"));
}

#[test]
fn nan_wins_over_every_number() {
    let y = node("ReduceMax", 18).int("keepdims", 0).f32(&[3], &[1.0, f32::NAN, 2.0], &[]);
    assert!(y.to_f32s()[0].is_nan());
}

#[test]
fn the_product_of_a_shape_is_symbolic() {
    let mut g = Graph::new("g");
    let n = Dim::sym("n");
    let x = g.add_input("x", Fact::new(DType::F32, Shape(vec![n.clone(), 3.into(), &n + 1]))).unwrap();
    let shape = g.add_node("s", ShapeOp { start: 0, end: None, size: false }.into(), &[Some(x)]).unwrap()[0];
    let prod = g.add_node("p", Reduce::over(ReduceKind::Prod, vec![0], false).into(), &[Some(shape)]).unwrap()[0];
    assert_eq!(g.fact(prod).as_dims().unwrap(), [&(&n * 3) * &(&n + 1)]);
    let max = g.add_node("m", Reduce::over(ReduceKind::Max, vec![0], true).into(), &[Some(shape)]).unwrap()[0];
    assert_eq!(g.fact(max).shape, Shape::from([1]));
    assert_eq!(g.fact(max).as_dims().unwrap()[0].eval(&[("n".into(), 5)].into()).unwrap(), 6);
}
