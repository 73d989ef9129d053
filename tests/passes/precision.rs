//! `promote_half` and `lower_precision`.

use super::*;
use sinter::ops::normalize::Normalize;
use sinter::ops::pool::{Pool, PoolKind};
use sinter::ops::reduce::{Reduce, ReduceKind};
use sinter::ops::softmax::Softmax;
use sinter::passes::{LowerPrecision, run_target};

const CUDA: PassOptions = PassOptions {
    target: Target::Cuda { sm: 90 },
    fp16: true,
    skip: vec![],
    stop_after: None,
    verify: true,
};

fn dtypes(g: &Graph, op: &str) -> Vec<DType> {
    let nodes = g.order().unwrap().into_iter().map(|n| g.node(n)).filter(|n| n.op.name() == op);
    nodes.map(|n| g.fact(n.inputs[0].unwrap()).dtype).collect()
}

#[test]
fn half_networks_are_computed_in_f32_for_the_cpu() {
    let mut b = Build::new();
    let x = b.g.add_input("x", Fact::new(DType::F16, Shape(vec!["n".into(), 3.into(), 5.into(), 5.into()]))).unwrap();
    let w = b.rng.tensor(&[4, 3, 3, 3]).cast(DType::F16);
    let w = b.k(w);
    let c = b.node("conv", conv2d(1), &[x, w]);
    let r = b.pw("relu", Func::Relu, &[c]);
    let f = b.cast("f32", DType::F32, r);
    let e = b.pw("exp", Func::Exp, &[f]);
    let h = b.cast("f16", DType::F16, e);
    let y = b.pw("tanh", Func::Tanh, &[h]);
    let before = b.out(y);
    let mut g = before.clone();
    run_target(&mut g, &PassOptions::new(Target::Cpu)).unwrap();
    assert_eq!(dtypes(&g, "Conv"), [DType::F32]);
    // The conversion in, and one fused chain as the convolution's epilogue, back to f16 at its end.
    assert_eq!(g.n_nodes(), 2, "{g}");
    assert_eq!(g.fact(g.output("y").unwrap()).dtype, DType::F16);
    assert_same(&before, &g, F16_ROUNDING);
}

#[test]
fn a_convolutional_network_runs_in_f16_between_two_conversions() {
    let mut b = Build::new();
    let x = b.input("x", &["n".into(), 3.into(), 8.into(), 8.into()]);
    let c = b.conv("conv1", x, 4, 3, conv2d(1));
    let r = b.pw("relu1", Func::Relu, &[c]);
    let max = Pool {
        kind: PoolKind::Max,
        kernel: vec![2, 2],
        strides: vec![2, 2],
        pads: vec![0; 4],
        dilations: vec![1, 1],
        auto_pad: AutoPad::NotSet,
        ceil_mode: false,
        count_include_pad: false,
        p: 2,
        indices: false,
        storage_order: 0,
        order: Default::default(),
    };
    let p = b.node("pool", max, &[r]);
    let c = b.conv("conv2", p, 4, 3, conv2d(1));
    let y = b.pw("sum", Func::Add, &[c, p]);
    let before = b.out(y);
    let mut g = before.clone();
    run_target(&mut g, &CUDA).unwrap();
    // Channels come last in the middle, and back at the output; the sum in front of it is computed from what the product
    // accumulated.
    assert_eq!(names(&g)[1..], ["conv1 + relu1", "pool", "conv2 + conv2/to_f32 + sum", "sum/to_first"], "{g}");
    assert_eq!(dtypes(&g, "Conv"), [DType::F16, DType::F16]);
    assert_eq!(dtypes(&g, "Pool"), [DType::F16]);
    assert_eq!(g.fact(g.output("y").unwrap()).dtype, DType::F32);
    assert_same(&before, &g, F16_ROUNDING);
}

#[test]
fn sensitive_functions_stay_in_f32() {
    let mut b = Build::new();
    let (x, w) = (b.x(&[4, 8]), b.c(&[8, 8]));
    let m = b.node("mm1", matmul(), &[x, w]);
    let e = b.pw("exp", Func::Exp, &[m]);
    let w = b.c(&[8, 8]);
    let m = b.node("mm2", matmul(), &[e, w]);
    let y = b.node("softmax", Softmax { axis: -1, log: false, flatten: false }, &[m]);
    let before = b.out(y);
    let mut g = before.clone();
    let list: Vec<Box<dyn Pass>> = vec![Box::new(LowerPrecision)];
    run_list(&mut g, &list, &CUDA, 1).unwrap();
    assert_eq!(dtypes(&g, "MatMul"), [DType::F16, DType::F16]);
    assert_eq!(dtypes(&g, "Softmax"), [DType::F16]);
    let exp = g.order().unwrap().into_iter().find(|n| g.node(*n).name == "exp").unwrap();
    assert_eq!(g.fact(g.node(exp).outputs[0]).dtype, DType::F32);
    assert_same(&before, &g, F16_ROUNDING);
}

#[test]
fn weights_beyond_f16_keep_their_product_in_f32() {
    let mut b = Build::new();
    let x = b.x(&[2, 2]);
    let w = b.k(Tensor::from_slice(&[2, 2], &[1f32, 2.0, 7e4, 4.0]));
    let y = b.node("mm", matmul(), &[x, w]);
    let mut g = b.out(y);
    let list: Vec<Box<dyn Pass>> = vec![Box::new(LowerPrecision)];
    let report = run_list(&mut g, &list, &CUDA, 1).unwrap();
    assert_eq!(dtypes(&g, "MatMul"), [DType::F32]);
    assert!(report.refusals[0].starts_with("lower_precision: refused at node \"mm\": a constant reaches 7e4"), "{:?}", report.refusals);
}

#[test]
fn one_conversion_serves_all_readers() {
    let mut b = Build::new();
    let (x, w, v) = (b.x(&[4, 8]), b.c(&[8, 8]), b.c(&[8, 8]));
    let (p, q) = (b.node("p", matmul(), &[x, w]), b.node("q", matmul(), &[x, v]));
    let y = b.pw("mul", Func::Mul, &[p, q]);
    let mut g = b.out(y);
    let list: Vec<Box<dyn Pass>> = vec![Box::new(LowerPrecision)];
    run_list(&mut g, &list, &CUDA, 1).unwrap();
    // In, two products, each back to f32, their product in front of the output.
    assert_eq!(g.n_nodes(), 6, "{g}");
}

#[test]
fn an_f32_network_is_left_alone_where_nobody_asked() {
    let mut b = Build::new();
    let (x, w) = (b.x(&[4, 8]), b.c(&[8, 8]));
    let y = b.node("mm", matmul(), &[x, w]);
    let before = b.out(y);
    for options in [PassOptions::new(Target::Cpu), PassOptions::new(Target::Cuda { sm: 90 })] {
        let mut g = before.clone();
        run_target(&mut g, &options).unwrap();
        assert_eq!(g.to_string(), before.to_string());
    }
}

#[test]
fn what_leads_into_a_logarithm_stays_in_f32_with_its_products() {
    let mut b = Build::new();
    let (x, w) = (b.x(&[4, 8]), b.c(&[8, 8]));
    let m = b.node("front", matmul(), &[x, w]);
    let square = b.pw("square", Func::Mul, &[m, m]);
    let sum = b.node("sum", Reduce::over(ReduceKind::Sum, vec![-1], true), &[square]);
    let tiny = b.num(1e-10);
    let above = b.pw("above", Func::Add, &[sum, tiny]);
    let log = b.pw("log", Func::Log, &[above]);
    let shifted = b.pw("shifted", Func::Sub, &[log, x]);
    let v = b.c(&[8, 8]);
    let m = b.node("behind", matmul(), &[shifted, v]);
    let y = b.pw("tanh", Func::Tanh, &[m]);
    let before = b.out(y);
    let mut g = before.clone();
    let report = run_list(&mut g, &[Box::new(LowerPrecision) as Box<dyn Pass>], &CUDA, 1).unwrap();
    assert_eq!(dtypes(&g, "MatMul"), [DType::F32, DType::F16]);
    assert!(report.refusals[0].contains("\"front\": its result goes into a logarithm"), "{:?}", report.refusals);
    assert_same(&before, &g, F16_ROUNDING);
}

#[test]
fn an_activation_ends_the_way_into_a_logarithm() {
    let mut b = Build::new();
    let (x, w) = (b.x(&[4, 8]), b.c(&[8, 8]));
    let m = b.node("mm", matmul(), &[x, w]);
    let s = b.pw("sigmoid", Func::Sigmoid, &[m]);
    let y = b.pw("log", Func::Log, &[s]);
    let mut g = b.out(y);
    run_list(&mut g, &[Box::new(LowerPrecision) as Box<dyn Pass>], &CUDA, 1).unwrap();
    assert_eq!(dtypes(&g, "MatMul"), [DType::F16]);
}

/// A block as in BERT: embeddings, normalization, product, sum with what went around it, normalization, product.
#[test]
fn a_residual_stream_is_f16_from_the_first_normalization_on() {
    let mut b = Build::new();
    let table = b.c(&[10, 8]);
    let at = b.k(Tensor::from_slice(&[4], &[3i64, 1, 4, 1]));
    let x = b.x(&[4, 8]);
    let embedded = b.node("embed", sinter::ops::gather::Gather { axis: 0 }, &[table, at]);
    let sum = b.pw("embeddings", Func::Add, &[embedded, x]);
    let mut stream = sum;
    for i in 0..2 {
        let (scale, bias, w) = (b.c(&[8]), b.c(&[8]), b.c(&[8, 8]));
        let n = b.node(&format!("norm{i}"), Normalize::rows(-1, true, 1e-5), &[stream, scale, bias]);
        let m = b.node(&format!("mm{i}"), matmul(), &[n, w]);
        stream = b.pw(&format!("add{i}"), Func::Add, &[m, n]);
    }
    let w = b.c(&[8, 8]);
    let y = b.node("last", matmul(), &[stream, w]);
    let before = b.out(y);
    let mut g = before.clone();
    run_list(&mut g, &[Box::new(LowerPrecision) as Box<dyn Pass>], &CUDA, 1).unwrap();
    assert_eq!(dtypes(&g, "MatMul"), [DType::F16; 3], "{g}");
    // The first reads f32 and gives f16, the second is f16 throughout.
    assert_eq!(dtypes(&g, "Normalize"), [DType::F32, DType::F16], "{g}");
    let add = g.order().unwrap().into_iter().find(|n| g.node(*n).name == "add0").unwrap();
    assert_eq!(g.fact(g.node(add).outputs[0]).dtype, DType::F16, "{g}");
    assert_same(&before, &g, F16_ROUNDING);
}

#[test]
fn a_sum_with_an_input_of_any_size_stays_in_f32() {
    let mut b = Build::new();
    let (x, z, w, v) = (b.x(&[4, 8]), b.x(&[4, 8]), b.c(&[8, 8]), b.c(&[8, 8]));
    let m = b.node("mm", matmul(), &[x, w]);
    let s = b.pw("add", Func::Add, &[m, z]);
    let y = b.node("last", matmul(), &[s, v]);
    let mut g = b.out(y);
    run_list(&mut g, &[Box::new(LowerPrecision) as Box<dyn Pass>], &CUDA, 1).unwrap();
    let add = g.order().unwrap().into_iter().find(|n| g.node(*n).name == "add").unwrap();
    assert_eq!(g.fact(g.node(add).outputs[0]).dtype, DType::F32, "{g}");
}
