//! `fuse_pointwise` and `fuse_epilogue`.

use super::*;
use sinter::passes::{FuseEpilogue, FusePointwise};

#[test]
fn a_chain_becomes_one_node_named_after_its_members() {
    let mut b = Build::new();
    let (x, c) = (b.x(&[2, 3, 4]), b.c(&[3, 1]));
    let a = b.pw("add1", Func::Add, &[x, c]);
    let r = b.pw("relu1", Func::Relu, &[a]);
    let y = b.pw("mul1", Func::Mul, &[r, r]);
    let g = run1(&b.out(y), FusePointwise);
    assert_eq!(names(&g), ["add1 + relu1 + mul1"]);
    assert_eq!(the(&g, "Pointwise").inputs.len(), 2);
}

#[test]
fn a_producer_is_not_computed_again_for_every_element_of_a_broadcast() {
    let mut b = Build::new();
    let (x, s) = (b.x(&[2, 3, 4]), b.x(&[3, 1]));
    let e = b.pw("exp", Func::Exp, &[s]);
    let y = b.pw("mul", Func::Mul, &[x, e]);
    assert_eq!(run1(&b.out(y), FusePointwise).n_nodes(), 2);
}

#[test]
fn a_value_read_by_two_nodes_or_by_the_user_is_kept() {
    let mut b = Build::new();
    let x = b.x(&[4]);
    let e = b.pw("exp", Func::Exp, &[x]);
    b.g.add_output("e", e).unwrap();
    let y = b.pw("neg", Func::Neg, &[e]);
    assert_eq!(run1(&b.out(y), FusePointwise).n_nodes(), 2);
    let mut b = Build::new();
    let (x, w) = (b.x(&[4, 4]), b.c(&[4, 4]));
    let e = b.pw("exp", Func::Exp, &[x]);
    let n = b.pw("neg", Func::Neg, &[e]);
    let m = b.node("mm", matmul(), &[e, w]);
    let y = b.pw("add", Func::Add, &[n, m]);
    let g = run1(&b.out(y), FusePointwise);
    assert_eq!(names(&g), ["exp", "mm", "neg + add"]);
}

#[test]
fn a_conversion_goes_into_each_of_its_readers() {
    let mut b = Build::new();
    let x = b.g.add_input("x", Fact::new(DType::F16, Shape::from([4, 4]))).unwrap();
    let f = b.cast("widen", DType::F32, x);
    let (p, q) = (b.pw("exp", Func::Exp, &[f]), b.pw("neg", Func::Neg, &[f]));
    let y = b.node("mm", matmul(), &[p, q]);
    let g = run1(&b.out(y), FusePointwise);
    assert_eq!(count(&g, "Pointwise"), 2);
    assert!(!names(&g).contains(&"widen".to_string()));
}

#[test]
fn programs_stay_within_their_limits() {
    let mut b = Build::new();
    let mut v = b.x(&[4]);
    for i in 0..12 {
        let x = b.x(&[4]);
        v = b.pw(&format!("add{i}"), Func::Add, &[v, x]);
    }
    for i in 0..80 {
        v = b.pw(&format!("tanh{i}"), Func::Tanh, &[v]);
    }
    let (g, report) = run(&b.out(v), vec![Box::new(FusePointwise)]);
    assert!(g.n_nodes() >= 3);
    for n in g.node_ids() {
        let node = g.node(n);
        let Op::Pointwise(p) = &node.op else { panic!() };
        assert!(p.program.n_inputs() <= 10 && p.program.instrs.len() <= 60);
        assert!(node.name.len() <= 256);
    }
    assert!(report.refusals.iter().any(|r| r.contains("operands, more than 10")), "{:?}", report.refusals);
}

#[test]
fn an_epilogue_takes_bias_activation_residual_and_conversion() {
    let mut b = Build::new();
    let (x, res) = (b.x(&[2, 3, 5, 5]), b.x(&[2, 4, 5, 5]));
    let c = b.conv("conv1", x, 4, 3, conv2d(1));
    let shift = b.c(&[4, 1, 1]);
    let a = b.pw("add1", Func::Add, &[c, shift]);
    let r = b.pw("relu1", Func::Relu, &[a]);
    let two = b.num(2.0);
    let d = b.pw("double", Func::Mul, &[two, r]);
    let s = b.pw("sum", Func::Add, &[res, d]);
    let y = b.cast("half", DType::F16, s);
    let g = b.out(y);
    let mut fused = g.clone();
    let list: Vec<Box<dyn Pass>> = vec![Box::new(FuseEpilogue)];
    run_list(&mut fused, &list, &PassOptions::default(), 1).unwrap();
    assert_eq!(names(&fused), ["conv1 + add1 + relu1 + double + sum + half"]);
    // x, w, no bias, shift, residual; the scalar is in the program.
    assert_eq!(the(&fused, "Conv").inputs.len(), 5);
    assert!(the(&fused, "Conv").inputs[2].is_none());
    assert_same(&g, &fused, 2e-3);
}

#[test]
fn a_result_that_is_squared_by_its_reader_is_one_operand() {
    let mut b = Build::new();
    let (x, w) = (b.x(&[3, 4]), b.c(&[4, 5]));
    let m = b.node("mm", matmul(), &[x, w]);
    let y = b.pw("square", Func::Mul, &[m, m]);
    let g = run1(&b.out(y), FuseEpilogue);
    assert_eq!(names(&g), ["mm + square"]);
    assert_eq!(the(&g, "MatMul").inputs.len(), 2);
}

#[test]
fn an_epilogue_never_enlarges_or_retypes_a_product() {
    let mut b = Build::new();
    let (x, w, big) = (b.x(&[3, 4]), b.c(&[4, 5]), b.x(&[2, 3, 5]));
    let m = b.node("mm", matmul(), &[x, w]);
    let y = b.pw("add", Func::Add, &[m, big]);
    refused(&b.out(y), FuseEpilogue, "broadcasts the result to another shape");
    let mut b = Build::new();
    let (x, w) = (b.x(&[3, 4]), b.c(&[4, 5]));
    let m = b.node("mm", matmul(), &[x, w]);
    let zero = b.num(0.0);
    let y = b.pw("positive", Func::Greater, &[m, zero]);
    refused(&b.out(y), FuseEpilogue, "not a floating-point type");
}

#[test]
fn symbolic_batches_fuse_too() {
    let mut b = Build::new();
    let x = b.input("x", &["n".into(), 4.into()]);
    let w = b.c(&[4, 5]);
    let m = b.node("mm", matmul(), &[x, w]);
    let r = b.pw("relu", Func::Relu, &[m]);
    let y = b.pw("tanh", Func::Tanh, &[r]);
    let g = b.out(y);
    assert_eq!(names(&run1(&g, FuseEpilogue)), ["mm + relu + tanh"]);
    assert_eq!(names(&run1(&g, FusePointwise)), ["mm", "relu + tanh"]);
}
