//! `promote_half` and `lower_precision`.

use super::*;
use sinter::ops::pool::{Pool, PoolKind};
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
    // Channels come last in the middle, and back at the output.
    assert_eq!(names(&g)[1..], ["conv1 + relu1", "pool", "conv2 + sum + sum/to_f32", "sum/to_first"], "{g}");
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
    // In, two products, their product, out.
    assert_eq!(g.n_nodes(), 5, "{g}");
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
