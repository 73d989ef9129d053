//! Pad: import forms, modes against the ONNX reference, crops, symbolic shapes.

use super::node::{expect, node};
use sinter::base::{DType, Dim, Fact, Shape, Tensor};
use sinter::network::Graph;

const X: [f32; 6] = [1., 2., 3., 4., 5., 6.];

fn ints(v: &[i64]) -> Option<Tensor> {
    Some(Tensor::from_slice(&[v.len()], v))
}

#[test]
fn modes_follow_the_reference() {
    let pads: &[i64] = &[1, 2, 0, 1];
    let of = |mode: &str| node("Pad", 19).string("mode", mode).f32(&[2, 3], &X, &[pads]);
    let reflect = [6., 5., 4., 5., 6., 5., 3., 2., 1., 2., 3., 2., 6., 5., 4., 5., 6., 5.];
    expect(&of("reflect"), &[3, 6], &reflect, 0.0);
    let edge = [1., 1., 1., 2., 3., 3., 1., 1., 1., 2., 3., 3., 4., 4., 4., 5., 6., 6.];
    expect(&of("edge"), &[3, 6], &edge, 0.0);
    let wrap = [5., 6., 4., 5., 6., 4., 2., 3., 1., 2., 3., 1., 5., 6., 4., 5., 6., 4.];
    expect(&of("wrap"), &[3, 6], &wrap, 0.0);
    let constant = [0., 0., 0., 0., 0., 0., 0., 0., 1., 2., 3., 0., 0., 0., 4., 5., 6., 0.];
    expect(&of("constant"), &[3, 6], &constant, 0.0);
}

#[test]
fn attributes_before_opset_11_and_operands_after() {
    let want = [9., 1., 2., 3., 9., 4., 5., 6.];
    let y = node("Pad", 2).ints("pads", &[0, 1, 0, 0]).float("value", 9.0).f32(&[2, 3], &X, &[]);
    expect(&y, &[2, 4], &want, 0.0);
    let x = Some(Tensor::from_slice(&[2, 3], &X));
    let nine = Some(Tensor::scalar(9.0f32));
    let y = node("Pad", 11).run(&[x.clone(), ints(&[0, 1, 0, 0]), nine.clone()]).unwrap();
    expect(&y[0], &[2, 4], &want, 0.0);
    let y = node("Pad", 18).run(&[x, ints(&[1, 0]), nine, ints(&[-1])]).unwrap();
    expect(&y[0], &[2, 4], &want, 0.0);
}

#[test]
fn negative_pads_crop_before_the_rest_repeats() {
    expect(&node("Pad", 13).f32(&[2, 3], &X, &[&[0, -1, 0, 1]]), &[2, 3], &[2., 3., 0., 5., 6., 0.], 0.0);
    let y = node("Pad", 13).string("mode", "edge").f32(&[2, 3], &X, &[&[0, -1, 0, 1]]);
    expect(&y, &[2, 3], &[2., 3., 3., 5., 6., 6.], 0.0);
    assert!(node("Pad", 13).run(&[Some(Tensor::from_slice(&[2, 3], &X)), ints(&[0, -2, 0, -2])]).is_err());
    assert!(node("Pad", 13).run(&[Some(Tensor::from_slice(&[2, 3], &X)), ints(&[0, 1])]).is_err());
}

#[test]
fn symbolic_sizes_grow() {
    let mut g = Graph::new("g");
    let n = Dim::sym("n");
    let x = g.add_input("x", Fact::new(DType::F16, Shape(vec![n.clone(), 3.into()]))).unwrap();
    let pads = g.add_const("p", std::sync::Arc::new(ints(&[1, 0, 2, -1]).unwrap()));
    let y = node("Pad", 11).import(&mut g, &[Some(x), Some(pads)]).unwrap();
    assert_eq!(g.fact(y[0]).shape, Shape(vec![&n + 3, 2.into()]));
}
