//! Transpose, Concat, Gather, Expand, Tile, Shape, Size, fills, Range, DepthToSpace and softmax: import forms by hand.

use super::node::{counting, expect, node};
use sinter::base::{DType, Dim, Fact, Shape, Tensor};
use sinter::network::Graph;
use std::sync::Arc;

fn ints(v: &[i64]) -> Option<Tensor> {
    Some(Tensor::from_slice(&[v.len()], v))
}

#[test]
fn transpose_reverses_without_perm() {
    let x = counting(6, 0.0);
    expect(&node("Transpose", 1).f32(&[2, 3], &x, &[]), &[3, 2], &[0., 3., 1., 4., 2., 5.], 0.0);
    let y = node("Transpose", 13).ints("perm", &[1, 0, 2]).f32(&[1, 2, 3], &x, &[]);
    expect(&y, &[2, 1, 3], &x, 0.0);
    assert!(node("Transpose", 13).ints("perm", &[0, 0]).run(&[Some(Tensor::zeros(DType::F32, &[2, 3]))]).is_err());
}

#[test]
fn concat_joins_and_needs_an_axis() {
    let a = Some(Tensor::from_slice(&[2, 1], &[1.0f32, 2.0]));
    let b = Some(Tensor::from_slice(&[2, 2], &[3.0f32, 4.0, 5.0, 6.0]));
    let y = node("Concat", 13).int("axis", -1).run(&[a.clone(), b.clone()]).unwrap();
    expect(&y[0], &[2, 3], &[1., 3., 4., 2., 5., 6.], 0.0);
    expect(&node("Concat", 1).run(&[a.clone(), b.clone()]).unwrap()[0], &[2, 3], &[1., 3., 4., 2., 5., 6.], 0.0);
    assert!(node("Concat", 13).run(&[a.clone(), b.clone()]).is_err());
    assert!(node("Concat", 13).int("axis", 0).run(&[a, b]).is_err());
}

#[test]
fn gather_counts_from_the_end_and_checks() {
    let x = counting(6, 0.0);
    expect(&node("Gather", 1).int("axis", 1).f32(&[2, 3], &x, &[&[-1, 0]]), &[2, 2], &[2., 0., 5., 3.], 0.0);
    let scalar = Some(Tensor::scalar(1i32));
    let y = node("Gather", 13).run(&[Some(Tensor::from_slice(&[2, 3], &x)), scalar]).unwrap();
    expect(&y[0], &[3], &[3., 4., 5.], 0.0);
    assert!(node("Gather", 13).run(&[Some(Tensor::from_slice(&[2, 3], &x)), ints(&[2])]).is_err());
}

#[test]
fn expand_and_tile() {
    let x = [1.0, 2.0];
    expect(&node("Expand", 13).f32(&[2, 1], &x, &[&[3, 1, 2]]), &[3, 2, 2], &[1., 1., 2., 2., 1., 1., 2., 2., 1., 1., 2., 2.], 0.0);
    expect(&node("Tile", 13).f32(&[1, 2], &x, &[&[2, 2]]), &[2, 4], &[1., 2., 1., 2., 1., 2., 1., 2.], 0.0);
    let (tiles, axis) = (Some(Tensor::scalar(2i64)), Some(Tensor::scalar(0i64)));
    let y = node("Tile", 1).run(&[Some(Tensor::from_slice(&[2], &x)), tiles, axis]).unwrap();
    expect(&y[0], &[4], &[1., 2., 1., 2.], 0.0);
    assert!(node("Tile", 13).run(&[Some(Tensor::from_slice(&[2], &x)), ints(&[-1])]).is_err());
}

#[test]
fn shape_with_a_range_and_size() {
    let x = Some(Tensor::zeros(DType::U8, &[2, 3, 4]));
    assert_eq!(node("Shape", 1).run(&[x.clone()]).unwrap()[0].to_i64s(), [2, 3, 4]);
    assert_eq!(node("Shape", 15).int("start", -2).int("end", -1).run(&[x.clone()]).unwrap()[0].to_i64s(), [3]);
    assert_eq!(node("Shape", 15).int("start", 2).int("end", 1).run(&[x.clone()]).unwrap()[0].shape(), [0]);
    let size = &node("Size", 13).run(&[x]).unwrap()[0];
    assert_eq!((size.shape(), size.to_i64s()), (&[][..], vec![24]));
}

#[test]
fn constants_in_all_forms() {
    let one = |n: super::node::Node| n.run(&[]).unwrap().remove(0);
    let t = Tensor::from_slice(&[2], &[7u8, 8]);
    assert!(one(node("Constant", 1).tensor("value", t.clone())).same(&t));
    assert_eq!(one(node("Constant", 12).float("value_float", 1.5)).to_f32s(), [1.5]);
    assert_eq!(one(node("Constant", 12).floats("value_floats", &[1.5, 2.5])).to_f32s(), [1.5, 2.5]);
    assert_eq!(one(node("Constant", 12).int("value_int", 3)).to_i64s(), [3]);
    assert_eq!(one(node("Constant", 12).ints("value_ints", &[3, 4])).shape(), [2]);
    assert!(node("Constant", 12).string("value_string", "no").run(&[]).is_err());
}

#[test]
fn constant_of_shape_has_a_type() {
    let shape = Some(Tensor::from_slice(&[2], &[2i64, 1]));
    expect(&node("ConstantOfShape", 9).run(&[shape.clone()]).unwrap()[0], &[2, 1], &[0.0, 0.0], 0.0);
    let value = Tensor::from_slice(&[1], &[-3i32]);
    let y = node("ConstantOfShape", 9).tensor("value", value).run(&[shape]).unwrap();
    assert_eq!(y[0].slice::<i32>(), [-3, -3]);
    assert!(node("ConstantOfShape", 9).run(&[ints(&[-1])]).is_err());
}

#[test]
fn range_is_symbolic_where_its_limit_is() {
    let s = |v: i64| Some(Tensor::scalar(v));
    assert_eq!(node("Range", 11).run(&[s(3), s(10), s(3)]).unwrap()[0].to_i64s(), [3, 6, 9]);
    assert_eq!(node("Range", 11).run(&[s(3), s(-2), s(-2)]).unwrap()[0].to_i64s(), [3, 1, -1]);
    let f = |v: f32| Some(Tensor::scalar(v));
    expect(&node("Range", 11).run(&[f(0.0), f(1.0), f(0.25)]).unwrap()[0], &[4], &[0.0, 0.25, 0.5, 0.75], 0.0);
    assert!(node("Range", 11).run(&[s(3), s(10), s(0)]).is_err());
    let mut g = Graph::new("g");
    let x = g.add_input("x", Fact::new(DType::F32, Shape(vec![Dim::sym("n"), 2.into()]))).unwrap();
    let shape = node("Shape", 13).import(&mut g, &[Some(x)]).unwrap()[0];
    let c = |g: &mut Graph, v: i64| Some(g.add_const("c", Arc::new(Tensor::scalar(v))));
    let (zero, one) = (c(&mut g, 0), c(&mut g, 1));
    let n = node("Gather", 13).import(&mut g, &[Some(shape), zero]).unwrap()[0];
    let y = node("Range", 11).import(&mut g, &[zero, Some(n), one]).unwrap()[0];
    assert_eq!(g.fact(y).shape, Shape(vec![Dim::sym("n")]));
}

#[test]
fn depth_to_space_in_both_orders_and_back() {
    let x = counting(8, 0.0);
    let dcr = node("DepthToSpace", 1).int("blocksize", 2).f32(&[1, 8, 1, 1], &x, &[]);
    expect(&dcr, &[1, 2, 2, 2], &[0., 2., 4., 6., 1., 3., 5., 7.], 0.0);
    let crd = node("DepthToSpace", 13).int("blocksize", 2).string("mode", "CRD").f32(&[1, 8, 1, 1], &x, &[]);
    expect(&crd, &[1, 2, 2, 2], &x, 0.0);
    let back = node("SpaceToDepth", 13).int("blocksize", 2).f32(&[1, 2, 2, 2], &dcr.to_f32s(), &[]);
    expect(&back, &[1, 8, 1, 1], &x, 0.0);
    assert!(node("DepthToSpace", 13).int("blocksize", 3).run(&[Some(Tensor::zeros(DType::F32, &[1, 8, 1, 1]))]).is_err());
}

#[test]
fn softmax_before_and_after_opset_13() {
    let x = [0.0, 1.0, 2.0, 3.0];
    let e: Vec<f32> = x.iter().map(|v: &f32| v.exp()).collect();
    let all: f32 = e.iter().sum();
    let flat: Vec<f32> = e.iter().map(|v| v / all).collect();
    expect(&node("Softmax", 11).f32(&[1, 2, 2], &x, &[]), &[1, 2, 2], &flat, 1e-6);
    let rows = [e[0] / (e[0] + e[1]), e[1] / (e[0] + e[1]), e[2] / (e[2] + e[3]), e[3] / (e[2] + e[3])];
    expect(&node("Softmax", 13).f32(&[1, 2, 2], &x, &[]), &[1, 2, 2], &rows, 1e-6);
    let logs: Vec<f32> = rows.iter().map(|v| v.ln()).collect();
    expect(&node("LogSoftmax", 13).int("axis", 2).f32(&[1, 2, 2], &x, &[]), &[1, 2, 2], &logs, 1e-6);
    assert!(node("Softmax", 13).run(&[Some(Tensor::zeros(DType::I32, &[2]))]).is_err());
}
