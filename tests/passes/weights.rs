//! `fold_scale_after` and `fold_scale_before`.

use super::*;
use sinter::ops::conv_transpose::ConvTranspose;
use sinter::passes::{FoldScaleAfter, FoldScaleBefore, FoldScaleIntoAlpha, TurnWeights};

fn batch_norm(b: &mut Build, x: ValueId, channels: usize) -> ValueId {
    let shape = [channels, 1, 1];
    let (s, t) = (b.c(&shape), b.c(&shape));
    let m = b.pw("bn_mul", Func::Mul, &[x, s]);
    b.pw("bn_add", Func::Add, &[m, t])
}

#[test]
fn a_batch_normalization_disappears_into_a_grouped_convolution() {
    let mut b = Build::new();
    let x = b.x(&[2, 6, 5, 5]);
    let c = b.conv("conv", x, 9, 3, Conv { group: 3, ..conv2d(1) });
    let y = batch_norm(&mut b, c, 9);
    let g = run1(&b.out(y), FoldScaleAfter);
    assert_eq!(names(&g), ["conv"]);
    assert_eq!(the(&g, "Conv").inputs.len(), 3);
}

#[test]
fn scale_and_bias_fold_into_a_transposed_convolution_with_groups() {
    let mut b = Build::new();
    let x = b.x(&[1, 4, 5, 5]);
    let (w, bias) = (b.c(&[4, 3, 2, 2]), b.c(&[6]));
    let op = ConvTranspose {
        strides: vec![2, 2],
        pads: vec![0; 4],
        dilations: vec![1, 1],
        group: 2,
        auto_pad: AutoPad::NotSet,
        output_padding: vec![0, 0],
        output_shape: None,
        epilogue: None,
    };
    let c = b.node("up", op, &[x, w, bias]);
    let y = batch_norm(&mut b, c, 6);
    assert_eq!(names(&run1(&b.out(y), FoldScaleAfter)), ["up"]);
}

#[test]
fn quotients_and_differences_count_as_scale_and_shift() {
    let mut b = Build::new();
    let x = b.x(&[1, 3, 4, 4]);
    let c = b.conv("conv", x, 2, 1, conv2d(0));
    let (mean, dev) = (b.c(&[1, 2, 1, 1]), b.k(Tensor::from_slice(&[2, 1, 1], &[0.5f32, 3.0])));
    let s = b.pw("sub", Func::Sub, &[mean, c]);
    let y = b.pw("div", Func::Div, &[s, dev]);
    assert_eq!(names(&run1(&b.out(y), FoldScaleAfter)), ["conv"]);
}

#[test]
fn a_product_takes_bias_scale_and_alpha() {
    for trans_b in [false, true] {
        let mut b = Build::new();
        let (x, w) = (b.x(&[2, 3, 4]), b.c(&if trans_b { [5, 4] } else { [4, 5] }));
        let m = b.node("mm", MatMul { trans_b, ..matmul() }, &[x, w]);
        let (bias, scale, half) = (b.c(&[5]), b.c(&[1, 1, 5]), b.num(0.5));
        let p = b.pw("add", Func::Add, &[m, bias]);
        let q = b.pw("scale", Func::Mul, &[p, scale]);
        let y = b.pw("half", Func::Mul, &[q, half]);
        let g = run1(&b.out(y), FoldScaleAfter);
        assert_eq!(names(&g), ["mm"]);
        let Op::MatMul(m) = &the(&g, "MatMul").op else { unreachable!() };
        assert_eq!(m.alpha, 0.5);
    }
}

#[test]
fn a_product_of_two_inputs_takes_a_bias_and_scalars_only() {
    let mut b = Build::new();
    let (x, z) = (b.x(&[2, 3, 4]), b.x(&[2, 4, 5]));
    let half = b.num(0.5);
    let q = b.pw("scale_q", Func::Mul, &[x, half]);
    let m = b.node("mm", matmul(), &[q, z]);
    let bias = b.c(&[5]);
    let y = b.pw("add", Func::Add, &[m, bias]);
    let g = run(&b.out(y), vec![Box::new(FoldScaleAfter), Box::new(FoldScaleIntoAlpha)]).0;
    assert_eq!(names(&g), ["mm"]);

    let mut b = Build::new();
    let (x, z) = (b.x(&[3, 4]), b.x(&[4, 5]));
    let m = b.node("mm", matmul(), &[x, z]);
    let s = b.c(&[5]);
    let y = b.pw("scale", Func::Mul, &[m, s]);
    refused(&b.out(y), FoldScaleAfter, "the weights are no constant");
}

#[test]
fn a_scale_along_the_wrong_axis_is_left() {
    let mut b = Build::new();
    let x = b.x(&[1, 3, 4, 4]);
    let c = b.conv("conv", x, 4, 1, conv2d(0));
    let s = b.c(&[4]);
    let y = b.pw("mul", Func::Mul, &[c, s]);
    assert_eq!(run1(&b.out(y), FoldScaleAfter).n_nodes(), 2);
}

#[test]
fn normalization_in_front_folds_where_no_zeros_are_mixed_in() {
    let build = |pad: i64, group: i64| {
        let mut b = Build::new();
        let x = b.x(&[2, 4, 5, 5]);
        let y = batch_norm(&mut b, x, 4);
        let c = b.conv("conv", y, 6, 3, Conv { group, ..conv2d(pad) });
        b.out(c)
    };
    for group in [1, 2] {
        assert_eq!(names(&run1(&build(0, group), FoldScaleBefore)), ["conv"]);
    }
    refused(&build(1, 1), FoldScaleBefore, "in front of zero padding");
}

#[test]
fn a_scale_alone_folds_in_front_of_padding() {
    let mut b = Build::new();
    let x = b.x(&[2, 4, 5, 5]);
    let s = b.c(&[4, 1, 1]);
    let y = b.pw("mul", Func::Mul, &[x, s]);
    let c = b.conv("conv", y, 6, 3, conv2d(1));
    assert_eq!(names(&run1(&b.out(c), FoldScaleBefore)), ["conv"]);
}

#[test]
fn gamma_and_beta_fold_into_the_product_behind_a_norm() {
    let mut b = Build::new();
    let x = b.x(&[2, 3, 4]);
    let (gamma, beta, w, bias) = (b.c(&[4]), b.c(&[4]), b.c(&[4, 5]), b.c(&[5]));
    let p = b.pw("gamma", Func::Mul, &[x, gamma]);
    let q = b.pw("beta", Func::Add, &[p, beta]);
    let y = b.node("mm", MatMul { alpha: 2.0, ..matmul() }, &[q, w, bias]);
    assert_eq!(names(&run1(&b.out(y), FoldScaleBefore)), ["mm"]);
}

#[test]
fn a_scaled_value_with_another_reader_stays() {
    let mut b = Build::new();
    let x = b.x(&[2, 4, 5, 5]);
    let s = b.c(&[4, 1, 1]);
    let y = b.pw("mul", Func::Mul, &[x, s]);
    let c = b.conv("conv", y, 4, 3, conv2d(1));
    let z = b.pw("sum", Func::Add, &[c, y]);
    assert_eq!(run1(&b.out(z), FoldScaleBefore).n_nodes(), 3);
}

#[test]
fn folds_that_overflow_are_refused() {
    let mut b = Build::new();
    let x = b.x(&[1, 2, 3, 3]);
    let w = b.k(Tensor::from_slice(&[1, 2, 1, 1], &[1e30f32, 1.0]));
    let c = b.node("conv", conv2d(0), &[x, w]);
    let s = b.num(1e30);
    let y = b.pw("mul", Func::Mul, &[c, s]);
    refused(&b.out(y), FoldScaleAfter, "the weights are not finite");
}

/// Runs [`TurnWeights`] for a device on a copy, and checks that numbers stay.
fn turned(g: &Graph, target: Target) -> (Graph, Report) {
    let mut after = g.clone();
    let report = run_list(&mut after, &[Box::new(TurnWeights) as Box<dyn Pass>], &PassOptions::new(target), 4).unwrap();
    after.verify().unwrap();
    assert_same(g, &after, 1e-6);
    (after, report)
}

/// `y = x w (+ x w)`, in f16.
fn half_product(k: usize, n: usize, twice: bool) -> Graph {
    let mut b = Build::new();
    let x = b.x(&[3, k]);
    let x = b.cast("half", DType::F16, x);
    let w = b.rng.tensor(&[k, n]).cast(DType::F16);
    let w = b.k(w);
    let mut y = b.node("product", matmul(), &[x, w]);
    if twice {
        let z = b.node("again", matmul(), &[x, w]);
        y = b.pw("sum", Func::Add, &[y, z]);
    }
    let y = b.cast("single", DType::F32, y);
    b.out(y)
}

fn lies_by_k(g: &Graph) -> bool {
    let Op::MatMul(op) = &the(g, "MatMul").op else { panic!("a product") };
    op.trans_b
}

#[test]
fn weights_of_products_are_turned_for_hopper() {
    let hopper = Target::Cuda { sm: 90 };
    for (k, n) in [(8, 5), (72, 40), (64, 100)] {
        assert!(lies_by_k(&turned(&half_product(k, n, false), hopper).0));
    }
    assert!(!lies_by_k(&turned(&half_product(12, 16, false), hopper).0), "rows of 24 bytes");
    for target in [Target::Cpu, Target::Portable, Target::Cuda { sm: 80 }] {
        assert!(!lies_by_k(&turned(&half_product(16, 16, false), target).0));
    }
    let (_, report) = turned(&half_product(16, 16, true), hopper);
    assert!(report.refusals.iter().any(|r| r.contains("other readers")), "{:?}", report.refusals);
}
