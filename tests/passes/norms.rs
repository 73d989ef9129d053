//! `recognize_norms` and `recognize_reductions`.

use super::*;
use sinter::ops::normalize::{Affine, Normalize};
use sinter::ops::reduce::{Reduce, ReduceKind};
use sinter::ops::reshape::Reshape;
use sinter::ops::softmax::Softmax;
use sinter::passes::{FuseSkipNorm, RecognizeNorms, RecognizeReductions, run_portable};

fn mean(b: &mut Build, x: ValueId, axes: &[i64]) -> ValueId {
    b.node("mean", Reduce::over(ReduceKind::Mean, axes.to_vec(), true), &[x])
}

/// How exporters write the quotient.
#[derive(Clone, Copy, Debug)]
enum Quotient {
    Div,
    Reciprocal,
    OneOver,
    Power,
}

/// A normalization of `x` by parts, with scale and bias.
fn spelled(b: &mut Build, x: ValueId, centered: bool, axes: &[i64], how: Quotient, params: Option<usize>) -> ValueId {
    let d = if centered {
        let m = mean(b, x, axes);
        b.pw("deviation", Func::Sub, &[x, m])
    } else {
        x
    };
    let two = b.num(2.0);
    let square = if centered { b.pw("square", Func::Pow, &[d, two]) } else { b.pw("square", Func::Mul, &[d, d]) };
    let v = mean(b, square, axes);
    let tiny = b.num(1e-3);
    let above = b.pw("above", Func::Add, &[v, tiny]);
    let mut y = match how {
        Quotient::Div => {
            let r = b.pw("root", Func::Sqrt, &[above]);
            b.pw("quotient", Func::Div, &[d, r])
        }
        Quotient::Reciprocal => {
            let r = b.pw("root", Func::Sqrt, &[above]);
            let r = b.pw("inverse", Func::Reciprocal, &[r]);
            b.pw("quotient", Func::Mul, &[d, r])
        }
        Quotient::OneOver => {
            let one = b.num(1.0);
            let r = b.pw("root", Func::Sqrt, &[above]);
            let r = b.pw("inverse", Func::Div, &[one, r]);
            b.pw("quotient", Func::Mul, &[r, d])
        }
        Quotient::Power => {
            let p = b.num(-0.5);
            let r = b.pw("inverse", Func::Pow, &[above, p]);
            b.pw("quotient", Func::Mul, &[d, r])
        }
    };
    if let Some(n) = params {
        let (scale, bias) = (b.c(&[n]), b.c(&[n]));
        y = b.pw("scale", Func::Mul, &[y, scale]);
        y = b.pw("bias", Func::Add, &[bias, y]);
    }
    y
}

fn norm(g: &Graph) -> &Normalize {
    let Op::Normalize(op) = &the(g, "Normalize").op else { unreachable!() };
    op
}

#[test]
fn every_spelling_of_a_row_normalization_is_found() {
    for centered in [true, false] {
        for how in [Quotient::Div, Quotient::Reciprocal, Quotient::OneOver, Quotient::Power] {
            let mut b = Build::new();
            let x = b.x(&[3, 5, 8]);
            let y = spelled(&mut b, x, centered, &[-1], how, Some(8));
            let before = b.out(y);
            let mut g = before.clone();
            run_portable(&mut g, &PassOptions::new(Target::Portable)).unwrap();
            assert_eq!(g.n_nodes(), 1, "{centered} {how:?}: {g}");
            assert_eq!(the(&g, "Normalize").name, "quotient + scale + bias");
            let op = norm(&g);
            assert_eq!((op.axis, op.centered, op.epsilon), (2, centered, 1e-3));
            assert_same(&before, &g, 1e-5);
        }
    }
}

#[test]
fn several_last_axes_are_one_row() {
    let mut b = Build::new();
    let x = b.x(&[3, 5, 8]);
    let y = spelled(&mut b, x, true, &[1, 2], Quotient::Div, None);
    let before = b.out(y);
    let mut g = before.clone();
    run_portable(&mut g, &PassOptions::new(Target::Portable)).unwrap();
    assert_eq!((g.n_nodes(), norm(&g).axis), (1, 1), "{g}");
    assert_same(&before, &g, 1e-5);
}

#[test]
fn a_normalization_of_middle_axes_is_refused() {
    let mut b = Build::new();
    let x = b.x(&[3, 5, 8]);
    let y = spelled(&mut b, x, true, &[1], Quotient::Div, None);
    let mut g = b.out(y);
    let list: Vec<Box<dyn Pass>> = vec![Box::new(sinter::passes::SimplifyPointwise), Box::new(RecognizeNorms)];
    let report = run_list(&mut g, &list, &PassOptions::new(Target::Portable), 2).unwrap();
    assert!(report.refusals.iter().any(|r| r.contains("axes [1] of a normalization are not the last of 3")), "{:?}", report.refusals);
}

#[test]
fn a_variance_of_other_rows_is_no_normalization() {
    let mut b = Build::new();
    let (x, z) = (b.x(&[3, 8]), b.x(&[3, 8]));
    let square = b.pw("square", Func::Mul, &[z, z]);
    let v = mean(&mut b, square, &[-1]);
    let r = b.pw("root", Func::Sqrt, &[v]);
    let y = b.pw("quotient", Func::Div, &[x, r]);
    let g = run1(&b.out(y), RecognizeNorms);
    assert!(g.order().unwrap().into_iter().all(|n| g.node(n).op.name() != "Normalize"), "{g}");
}

#[test]
fn a_residual_sum_is_no_bias() {
    let mut b = Build::new();
    let (x, z) = (b.x(&[3, 8]), b.x(&[3, 8]));
    let n = b.node("norm", Normalize::rows(-1, true, 1e-3), &[x]);
    let y = b.pw("sum", Func::Add, &[n, z]);
    let g = run1(&b.out(y), RecognizeNorms);
    assert_eq!(names(&g), ["norm", "sum"]);
}

#[test]
fn a_half_row_is_read_as_it_is() {
    let mut b = Build::new();
    let x = b.g.add_input("x", Fact::new(DType::F16, sinter::base::Shape::from(&[3, 8][..]))).unwrap();
    let wide = b.cast("wide", DType::F32, x);
    let n = b.node("norm", Normalize::rows(-1, false, 1e-3), &[wide]);
    let narrow = b.cast("narrow", DType::F16, n);
    let scale = b.c(&[8]);
    let scale = b.cast("scale16", DType::F16, scale);
    let y = b.pw("scale", Func::Mul, &[narrow, scale]);
    let before = b.out(y);
    let mut g = before.clone();
    let list: Vec<Box<dyn Pass>> = vec![Box::new(RecognizeNorms)];
    run_list(&mut g, &list, &PassOptions::new(Target::Portable), 2).unwrap();
    assert_eq!(names(&g), ["scale16", "norm + narrow + scale"], "{g}");
    // One rounding to f16 less.
    assert_same(&before, &g, 2e-3);
}

#[test]
fn instances_between_reshapes_are_groups_of_channels() {
    let mut b = Build::new();
    let x = b.x(&[2, 6, 4, 5]);
    let cut = b.node("cut", Reshape::to_shape(vec![2, 3, 40]), &[x]);
    let (ones, zeros) = (b.k(Tensor::from_slice(&[3], &[1f32; 3])), b.k(Tensor::from_slice(&[3], &[0f32; 3])));
    let instance = Normalize { affine: Affine::Channel, ..Normalize::rows(2, true, 1e-3) };
    let n = b.node("instance", instance, &[cut, ones, zeros]);
    let back = b.node("back", Reshape::to_shape(vec![2, 6, 4, 5]), &[n]);
    let (scale, bias) = (b.c(&[6, 1, 1]), b.c(&[6, 1, 1]));
    let s = b.pw("scale", Func::Mul, &[back, scale]);
    let y = b.pw("bias", Func::Add, &[s, bias]);
    let before = b.out(y);
    let g = run1(&before, RecognizeNorms);
    assert_eq!(names(&g), ["instance + scale + bias"], "{g}");
    assert_eq!((norm(&g).groups, norm(&g).affine), (3, Affine::Channel));
    assert_same(&before, &g, 1e-5);
}

#[test]
fn groups_with_a_scale_of_their_own_are_refused() {
    let mut b = Build::new();
    let x = b.x(&[2, 6, 4]);
    let cut = b.node("cut", Reshape::to_shape(vec![2, 3, 8]), &[x]);
    let (scale, bias) = (b.c(&[3]), b.c(&[3]));
    let instance = Normalize { affine: Affine::Channel, ..Normalize::rows(2, true, 1e-3) };
    let n = b.node("instance", instance, &[cut, scale, bias]);
    let y = b.node("back", Reshape::to_shape(vec![2, 6, 4]), &[n]);
    let mut g = b.out(y);
    let list: Vec<Box<dyn Pass>> = vec![Box::new(RecognizeNorms)];
    let report = run_list(&mut g, &list, &PassOptions::new(Target::Portable), 1).unwrap();
    assert!(report.refusals[0].contains("each group has a scale and a bias of its own"), "{:?}", report.refusals);
}

fn reduced(b: &mut Build, x: ValueId, kind: ReduceKind) -> ValueId {
    b.node("sum", Reduce::over(kind, vec![-1], true), &[x])
}

#[test]
fn sums_that_are_spelled_out_become_one_reduction() {
    let spelled: [(&[Func], &[Func], ReduceKind); 5] = [
        (&[Func::Mul], &[], ReduceKind::SumSquare),
        (&[Func::Mul], &[Func::Sqrt], ReduceKind::L2),
        (&[Func::Abs], &[], ReduceKind::L1),
        (&[Func::Abs, Func::Sqrt], &[Func::Log], ReduceKind::LogSum),
        (&[Func::Exp], &[Func::Log], ReduceKind::LogSumExp),
    ];
    for (first, last, kind) in spelled {
        let mut b = Build::new();
        let mut v = b.x(&[3, 8]);
        for f in first {
            let ins = if *f == Func::Mul { vec![v, v] } else { vec![v] };
            v = b.pw("f", *f, &ins);
        }
        v = reduced(&mut b, v, ReduceKind::Sum);
        for f in last {
            v = b.pw("g", *f, &[v]);
        }
        let before = b.out(v);
        let g = run1(&before, RecognizeReductions);
        let Op::Reduce(op) = &the(&g, "Reduce").op else { unreachable!() };
        assert_eq!(op.kind, kind, "{g}");
        assert_same(&before, &g, 1e-5);
    }
}

#[test]
fn a_square_with_another_reader_is_refused() {
    let mut b = Build::new();
    let x = b.x(&[3, 8]);
    let s = b.pw("square", Func::Mul, &[x, x]);
    let r = reduced(&mut b, s, ReduceKind::Sum);
    let y = b.pw("quotient", Func::Div, &[s, r]);
    let mut g = b.out(y);
    let list: Vec<Box<dyn Pass>> = vec![Box::new(RecognizeReductions)];
    let report = run_list(&mut g, &list, &PassOptions::new(Target::Portable), 1).unwrap();
    assert!(report.refusals[0].contains("what \"square\" gives has other readers"), "{:?}", report.refusals);
}

#[test]
fn the_logarithm_of_a_softmax_is_one_node() {
    let mut b = Build::new();
    let x = b.x(&[3, 8]);
    let s = b.node("softmax", Softmax { axis: -1, log: false, flatten: false }, &[x]);
    let y = b.pw("log", Func::Log, &[s]);
    let before = b.out(y);
    let g = run1(&before, RecognizeReductions);
    assert_eq!(names(&g), ["softmax + log"]);
    assert_same(&before, &g, 1e-5);
}

fn skip(b: &mut Build) -> (ValueId, ValueId) {
    let (x, z) = (b.x(&[3, 8]), b.x(&[3, 8]));
    let sum = b.pw("sum", Func::Add, &[x, z]);
    let (scale, bias) = (b.c(&[8]), b.c(&[8]));
    let y = b.node("norm", Normalize::rows(-1, true, 1e-3), &[sum, scale, bias]);
    (sum, y)
}

#[test]
fn a_residual_sum_is_computed_by_the_normalization() {
    let mut b = Build::new();
    let (_, y) = skip(&mut b);
    let before = b.out(y);
    let g = run1(&before, FuseSkipNorm);
    assert_eq!(names(&g), ["sum + norm"]);
    assert!(!norm(&g).sum);
    assert_same(&before, &g, 1e-5);
}

#[test]
fn a_residual_sum_with_other_readers_is_given_out_too() {
    let mut b = Build::new();
    let (sum, y) = skip(&mut b);
    let z = b.pw("exp", Func::Exp, &[sum]);
    b.g.add_output("stream", sum).unwrap();
    b.g.add_output("z", z).unwrap();
    let before = b.out(y);
    let g = run1(&before, FuseSkipNorm);
    assert_eq!(names(&g), ["sum + norm", "exp"]);
    assert!(norm(&g).sum);
    assert_same(&before, &g, 1e-5);
}

#[test]
fn a_sum_behind_another_element_wise_node_is_refused() {
    let mut b = Build::new();
    let (x, z) = (b.x(&[3, 8]), b.x(&[3, 8]));
    let e = b.pw("exp", Func::Exp, &[x]);
    let sum = b.pw("sum", Func::Add, &[e, z]);
    let y = b.node("norm", Normalize::rows(-1, true, 1e-3), &[sum]);
    let mut g = b.out(y);
    let list: Vec<Box<dyn Pass>> = vec![Box::new(FuseSkipNorm)];
    let report = run_list(&mut g, &list, &PassOptions::new(Target::Portable), 1).unwrap();
    assert!(report.refusals[0].contains("\"sum\" is fused with \"exp\" in front of it instead"), "{:?}", report.refusals);
}
