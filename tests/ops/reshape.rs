//! Reshape, Squeeze, Unsqueeze, Flatten, Identity, Dropout: import forms and shape chains that stay symbolic.

use super::node::{counting, expect, node};
use sinter::base::{DType, Dim, Fact, Shape, Tensor};
use sinter::network::Graph;
use std::sync::Arc;

#[test]
fn reshape_by_attribute_and_by_operand() {
    let x = counting(12, 0.0);
    expect(&node("Reshape", 1).ints("shape", &[4, -1]).f32(&[2, 6], &x, &[]), &[4, 3], &x, 0.0);
    expect(&node("Reshape", 5).f32(&[2, 6], &x, &[&[0, 3, -1]]), &[2, 3, 2], &x, 0.0);
    expect(&node("Reshape", 14).int("allowzero", 1).f32(&[0, 6], &[], &[&[3, 0]]), &[3, 0], &[], 0.0);
    assert!(node("Reshape", 14).run(&[Some(Tensor::zeros(DType::F32, &[2, 6])), ints(&[5, -1])]).is_err());
}

fn ints(v: &[i64]) -> Option<Tensor> {
    Some(Tensor::from_slice(&[v.len()], v))
}

#[test]
fn squeeze_and_unsqueeze_in_both_forms() {
    let x = counting(6, 0.0);
    expect(&node("Squeeze", 1).ints("axes", &[0]).f32(&[1, 6, 1], &x, &[]), &[6, 1], &x, 0.0);
    expect(&node("Squeeze", 13).f32(&[1, 6, 1], &x, &[&[-1]]), &[1, 6], &x, 0.0);
    expect(&node("Squeeze", 13).f32(&[1, 6, 1], &x, &[]), &[6], &x, 0.0);
    expect(&node("Unsqueeze", 11).ints("axes", &[0, 2]).f32(&[6], &x, &[]), &[1, 6, 1], &x, 0.0);
    expect(&node("Unsqueeze", 13).f32(&[6], &x, &[&[-1]]), &[6, 1], &x, 0.0);
    assert!(node("Unsqueeze", 13).run(&[Some(Tensor::zeros(DType::F32, &[2]))]).is_err());
}

#[test]
fn flatten_and_identity() {
    let x = counting(24, 0.0);
    expect(&node("Flatten", 9).f32(&[2, 3, 4], &x, &[]), &[2, 12], &x, 0.0);
    expect(&node("Flatten", 11).int("axis", -1).f32(&[2, 3, 4], &x, &[]), &[6, 4], &x, 0.0);
    expect(&node("Identity", 1).f32(&[2, 3, 4], &x, &[]), &[2, 3, 4], &x, 0.0);
}

#[test]
fn dropout_passes_on_and_masks_nothing() {
    let x = Some(Tensor::from_slice(&[2], &[3.0f32, 4.0]));
    let y = node("Dropout", 7).float("ratio", 0.3).outputs(2).run(&[x.clone()]).unwrap();
    expect(&y[0], &[2], &[3.0, 4.0], 0.0);
    assert_eq!(y[1].dtype(), DType::F32);
    let ratio = Some(Tensor::scalar(0.3f32));
    let off = Some(Tensor::scalar(false));
    let y = node("Dropout", 13).outputs(2).run(&[x.clone(), ratio.clone(), off]).unwrap();
    assert_eq!(y[1].slice::<bool>(), [true, true]);
    // In training mode an element is dropped, or kept and scaled up, and the mask says which.
    let on = Some(Tensor::scalar(true));
    let y = node("Dropout", 13).int("seed", 5).outputs(2).run(&[x, ratio, on]).unwrap();
    for ((v, kept), x) in y[0].to_f32s().iter().zip(y[1].slice::<bool>()).zip([3.0f32, 4.0]) {
        assert!((v - if *kept { x / 0.7 } else { 0.0 }).abs() < 1e-5, "{y:?}");
    }
}

/// What exporters write to merge and split heads: the shape is taken apart and put together again.
#[test]
fn a_shape_chain_stays_symbolic() {
    let mut g = Graph::new("g");
    let (b, s) = (Dim::sym("b"), Dim::sym("s"));
    let x = g.add_input("x", Fact::new(DType::F32, Shape(vec![b.clone(), s.clone(), 64.into()]))).unwrap();
    let c = |g: &mut Graph, v: &[i64]| Some(g.add_const("c", Arc::new(Tensor::from_slice(&[v.len()], v))));
    let scalar = |g: &mut Graph, v: i64| Some(g.add_const("c", Arc::new(Tensor::scalar(v))));
    let shape = node("Shape", 13).import(&mut g, &[Some(x)]).unwrap()[0];
    let pick = |g: &mut Graph, i: i64| {
        let at = scalar(g, i);
        let d = node("Gather", 13).int("axis", 0).import(g, &[Some(shape), at]).unwrap()[0];
        let zero = c(g, &[0]);
        Some(node("Unsqueeze", 13).import(g, &[Some(d), zero]).unwrap()[0])
    };
    let parts = [pick(&mut g, 0), pick(&mut g, -2), c(&mut g, &[4]), c(&mut g, &[-1])];
    let to = node("Concat", 13).int("axis", 0).import(&mut g, &parts).unwrap()[0];
    let y = node("Reshape", 13).import(&mut g, &[Some(x), Some(to)]).unwrap()[0];
    assert_eq!(g.fact(y).shape, Shape(vec![b.clone(), s.clone(), 4.into(), 16.into()]));
    // And back by a slice of the shape.
    let (zero, two) = (c(&mut g, &[0]), c(&mut g, &[2]));
    let front = node("Slice", 10).import(&mut g, &[Some(shape), zero, two]).unwrap()[0];
    let rest = c(&mut g, &[-1]);
    let to = node("Concat", 13).int("axis", 0).import(&mut g, &[Some(front), rest]).unwrap()[0];
    let z = node("Reshape", 13).import(&mut g, &[Some(y), Some(to)]).unwrap()[0];
    assert_eq!(g.fact(z).shape, Shape(vec![b, s, 64.into()]));
    g.verify().unwrap();
}

#[test]
fn a_shape_that_depends_on_data_keeps_its_rank() {
    let mut g = Graph::new("g");
    let x = g.add_input("x", Fact::new(DType::F32, [6])).unwrap();
    let to = g.add_input("to", Fact::new(DType::I64, [3])).unwrap();
    let y = node("Reshape", 13).import(&mut g, &[Some(x), Some(to)]).unwrap()[0];
    assert_eq!(g.fact(y).rank(), 3);
    g.add_output("y", y).unwrap();
    let fed = [
        ("x".to_string(), Arc::new(Tensor::from_slice(&[6], &counting(6, 0.0)))),
        ("to".to_string(), Arc::new(Tensor::from_slice(&[3], &[1i64, -1, 3]))),
    ];
    assert_eq!(g.eval(&fed.into()).unwrap()[0].shape(), [1, 2, 3]);
}
