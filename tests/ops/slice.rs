//! Slice and Split: import forms, negative steps, symbolic bounds.

use super::node::{counting, expect, node};
use sinter::base::{DType, Dim, Fact, Shape, Tensor};
use sinter::network::Graph;
use std::sync::Arc;

#[test]
fn attributes_and_operands() {
    let x = counting(12, 0.0);
    let want = [5., 6., 9., 10.];
    let y = node("Slice", 1).ints("starts", &[1, 1]).ints("ends", &[3, -1]).f32(&[3, 4], &x, &[]);
    expect(&y, &[2, 2], &want, 0.0);
    let y = node("Slice", 9).ints("axes", &[1]).ints("starts", &[3]).ints("ends", &[100]).f32(&[3, 4], &x, &[]);
    expect(&y, &[3, 1], &[3., 7., 11.], 0.0);
    expect(&node("Slice", 10).f32(&[3, 4], &x, &[&[1, 1], &[3, -1]]), &[2, 2], &want, 0.0);
}

#[test]
fn negative_steps_run_backwards() {
    let x = counting(6, 0.0);
    let y = node("Slice", 13).f32(&[6], &x, &[&[-1], &[i64::MIN], &[0], &[-2]]);
    expect(&y, &[3], &[5., 3., 1.], 0.0);
    let y = node("Slice", 13).f32(&[2, 3], &x, &[&[10], &[0], &[-1], &[-1]]);
    expect(&y, &[2, 2], &[2., 1., 5., 4.], 0.0);
    let x = Some(Tensor::from_slice(&[6], &x));
    let ints = |v: i64| Some(Tensor::from_slice(&[1], &[v]));
    assert!(node("Slice", 13).run(&[x, ints(0), ints(3), ints(0), ints(0)]).is_err());
}

#[test]
fn split_in_all_forms() {
    let x = Some(Tensor::from_slice(&[5], &counting(5, 0.0)));
    let six = Some(Tensor::from_slice(&[6], &counting(6, 0.0)));
    let parts = |y: Vec<Tensor>| y.iter().map(|t| t.to_f32s()).collect::<Vec<_>>();
    let want = vec![vec![0., 1.], vec![2., 3., 4.]];
    assert_eq!(parts(node("Split", 2).ints("split", &[2, 3]).outputs(2).run(&[x.clone()]).unwrap()), want);
    let sizes = Some(Tensor::from_slice(&[2], &[2i64, 3]));
    assert_eq!(parts(node("Split", 13).outputs(2).run(&[x.clone(), sizes]).unwrap()), want);
    let uneven = parts(node("Split", 18).int("num_outputs", 2).outputs(2).run(&[x.clone()]).unwrap());
    assert_eq!(uneven, vec![vec![0., 1., 2.], vec![3., 4.]]);
    let equal = parts(node("Split", 11).outputs(3).run(&[six]).unwrap());
    assert_eq!(equal, vec![vec![0., 1.], vec![2., 3.], vec![4., 5.]]);
    assert!(node("Split", 11).outputs(2).run(&[x.clone()]).is_err());
    assert!(node("Split", 11).ints("split", &[2, 2]).outputs(2).run(&[x]).is_err());
}

#[test]
fn a_symbolic_end_gives_a_symbolic_length() {
    let mut g = Graph::new("g");
    let s = Dim::sym("s");
    let ids = g.add_input("ids", Fact::new(DType::I64, Shape(vec![1.into(), s.clone()]))).unwrap();
    let table = g.add_input("table", Fact::new(DType::F32, [1, 512, 8])).unwrap();
    let ints = |g: &mut Graph, v: &[i64]| Some(g.add_const("c", Arc::new(Tensor::from_slice(&[v.len()], v))));
    let end = node("Shape", 15).int("start", 1).import(&mut g, &[Some(ids)]).unwrap()[0];
    let (zero, one) = (ints(&mut g, &[0]), ints(&mut g, &[1]));
    let y = node("Slice", 13).import(&mut g, &[Some(table), zero, Some(end), one]).unwrap()[0];
    assert_eq!(g.fact(y).shape, Shape(vec![1.into(), s, 8.into()]));
}
