//! `fold_constants`, `refresh_facts` and `simplify_shapes`.

use super::*;
use sinter::ops::concat::Concat;
use sinter::ops::expand::Expand;
use sinter::ops::fill::Fill;
use sinter::ops::gather::Gather;
use sinter::ops::pad::{Pad, PadMode};
use sinter::ops::reshape::{Reshape, ReshapeMode};
use sinter::ops::shape::Shape as ShapeOf;
use sinter::ops::slice::Slice;
use sinter::passes::{FoldConstants, RefreshFacts, SimplifyShapes, run_portable};

fn reshape(spec: Option<&[i64]>) -> Reshape {
    Reshape { mode: ReshapeMode::Shape, spec: spec.map(|s| s.to_vec()), allow_zero: false }
}

fn shape_of() -> ShapeOf {
    ShapeOf { start: 0, end: None, size: false }
}

#[test]
fn what_does_not_depend_on_inputs_is_computed_once() {
    let mut b = Build::new();
    let (x, p, q) = (b.x(&[3, 4]), b.c(&[3, 4]), b.c(&[4]));
    let s = b.pw("s", Func::Add, &[p, q]);
    let e = b.pw("e", Func::Exp, &[s]);
    let y = b.pw("y", Func::Mul, &[x, e]);
    assert_eq!(names(&run1(&b.out(y), FoldConstants)), ["y"]);
}

#[test]
fn a_constant_output_keeps_its_node() {
    let mut b = Build::new();
    let p = b.c(&[3]);
    let e = b.pw("e", Func::Exp, &[p]);
    let y = b.pw("y", Func::Neg, &[e]);
    assert_eq!(names(&run1(&b.out(y), FoldConstants)), ["y"]);
}

#[test]
fn large_fills_stay_unless_they_are_weights() {
    let build = |as_weight: bool| {
        let mut b = Build::new();
        let dims = b.ints(&[200, 200]);
        let f = b.node("fill", Fill { value: Arc::new(Tensor::scalar(0.5f32)) }, &[dims]);
        let x = b.x(&[200, 200]);
        let y = if as_weight { b.node("mm", matmul(), &[x, f]) } else { b.pw("add", Func::Add, &[x, f]) };
        b.out(y)
    };
    refused(&build(false), FoldConstants, "much larger than");
    assert_eq!(names(&run1(&build(true), FoldConstants)), ["mm"]);
}

#[test]
fn shapes_that_are_numbers_fold_and_symbols_become_specs() {
    // reshape(x, concat(shape(x)[0:1], [-1])): flatten as exporters write it.
    let build = |n: Dim| {
        let mut b = Build::new();
        let x = b.input("x", &[n, 3.into(), 4.into()]);
        let s = b.node("shape", shape_of(), &[x]);
        let zero = b.ints(&[0]);
        let n = b.node("gather", Gather { axis: 0 }, &[s, zero]);
        let rest = b.ints(&[-1]);
        let target = b.node("concat", Concat { axis: 0 }, &[n, rest]);
        let r = b.node("flatten", reshape(None), &[x, target]);
        let y = b.pw("y", Func::Relu, &[r]);
        b.out(y)
    };
    for n in [Dim::from(2), Dim::sym("n")] {
        let mut g = build(n);
        let before = g.clone();
        run_portable(&mut g, &PassOptions::default()).unwrap();
        assert_same(&before, &g, 0.0);
        assert_eq!(names(&g), ["flatten", "y"], "{g}");
        assert_eq!(the(&g, "Reshape").inputs.len(), 1);
    }
}

#[test]
fn facts_catch_up_with_constants() {
    let mut b = Build::new();
    let x = b.x(&[6]);
    // Float arithmetic that inference does not follow: sqrt(9) = 3 rows.
    let nine = b.k(Tensor::from_slice(&[1], &[9f32]));
    let root = b.pw("sqrt", Func::Sqrt, &[nine]);
    let rows = b.cast("rows", DType::I64, root);
    let two = b.ints(&[2]);
    let target = b.node("target", Concat { axis: 0 }, &[rows, two]);
    let r = b.node("reshape", reshape(None), &[x, target]);
    let y = b.pw("y", Func::Relu, &[r]);
    let g = run(&b.out(y), vec![Box::new(FoldConstants), Box::new(RefreshFacts)]).0;
    assert!(g.fact(g.output("y").unwrap()).shape.is_concrete());
}

#[test]
fn nodes_that_change_nothing_go() {
    let mut b = Build::new();
    let x = b.input("x", &["n".into(), 3.into(), 4.into()]);
    let v = b.pw("start", Func::Relu, &[x]);
    let v = b.node("reshape", reshape(Some(&[0, 3, 4])), &[v]);
    let zeros = b.ints(&[0; 6]);
    let v = b.node("pad", Pad { mode: PadMode::Constant }, &[v, zeros]);
    let (starts, ends, axes) = (b.ints(&[0]), b.ints(&[i64::MAX]), b.ints(&[1]));
    let v = b.node("slice", Slice {}, &[v, starts, ends, axes]);
    let v = b.node("concat", Concat { axis: 1 }, &[v]);
    let s = b.node("shape", shape_of(), &[x]);
    let v = b.node("expand", Expand {}, &[v, s]);
    let y = b.pw("end", Func::Tanh, &[v]);
    let g = run1(&b.out(y), SimplifyShapes);
    assert_eq!(names(&g), ["start", "end"]);
}

#[test]
fn a_slice_that_reverses_stays() {
    let mut b = Build::new();
    let x = b.x(&[4]);
    let (starts, ends, axes, steps) = (b.ints(&[-1]), b.ints(&[i64::MIN]), b.ints(&[0]), b.ints(&[-1]));
    let v = b.node("reverse", Slice {}, &[x, starts, ends, axes, steps]);
    let y = b.pw("y", Func::Relu, &[v]);
    assert_eq!(run1(&b.out(y), SimplifyShapes).n_nodes(), 2);
}

#[test]
fn reshapes_in_a_row_are_one() {
    let mut b = Build::new();
    let x = b.input("x", &["n".into(), 3.into(), 4.into()]);
    let v = b.node("a", reshape(Some(&[-1, 12])), &[x]);
    let v = b.node("b", reshape(Some(&[0, 2, 6])), &[v]);
    let y = b.pw("y", Func::Relu, &[v]);
    let g = run1(&b.out(y), SimplifyShapes);
    assert_eq!(names(&g), ["b", "y"]);
}

#[test]
fn an_expand_that_broadcasting_does_anyway_goes() {
    let mut b = Build::new();
    let (x, s) = (b.x(&[2, 3, 4]), b.x(&[3, 1]));
    let dims = b.ints(&[2, 3, 4]);
    let e = b.node("expand", Expand {}, &[s, dims]);
    let y = b.pw("mul", Func::Mul, &[x, e]);
    assert_eq!(names(&run1(&b.out(y), SimplifyShapes)), ["mul"]);
    let mut b = Build::new();
    let (x, s) = (b.x(&[3, 4]), b.x(&[3, 1]));
    let dims = b.ints(&[2, 3, 4]);
    let e = b.node("expand", Expand {}, &[s, dims]);
    let y = b.pw("mul", Func::Mul, &[x, e]);
    assert_eq!(run1(&b.out(y), SimplifyShapes).n_nodes(), 2);
}
