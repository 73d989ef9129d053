//! `recognize_activations` and `simplify_pointwise`.

use super::*;
use sinter::passes::{RecognizeActivations, SimplifyPointwise};

#[test]
fn silu_behind_a_convolution_is_found_though_its_input_is_read_twice() {
    let mut b = Build::new();
    let x = b.x(&[1, 3, 5, 5]);
    let c = b.conv("conv", x, 4, 3, conv2d(1));
    let s = b.pw("sigmoid", Func::Sigmoid, &[c]);
    let y = b.pw("mul", Func::Mul, &[c, s]);
    let g = run1(&b.out(y), RecognizeActivations);
    assert_eq!(names(&g), ["conv", "mul"]);
    let Op::Pointwise(p) = &the(&g, "Pointwise").op else { unreachable!() };
    assert_eq!(p.program.as_single(), Some(Func::Silu));
}

#[test]
fn gelu_of_five_nodes_becomes_one() {
    let mut b = Build::new();
    let x = b.x(&[2, 8]);
    let [root2, one, half] = [1.4142135, 1.0, 0.5].map(|v| b.num(v));
    let d = b.pw("div", Func::Div, &[x, root2]);
    let e = b.pw("erf", Func::Erf, &[d]);
    let a = b.pw("add", Func::Add, &[e, one]);
    let m = b.pw("mul", Func::Mul, &[x, a]);
    let y = b.pw("half", Func::Mul, &[m, half]);
    let g = run1(&b.out(y), RecognizeActivations);
    let Op::Pointwise(p) = &the(&g, "Pointwise").op else { unreachable!() };
    assert_eq!(p.program.as_single(), Some(Func::GeluErf));
}

#[test]
fn an_activation_with_a_part_that_is_an_output_stays() {
    let mut b = Build::new();
    let x = b.x(&[2, 8]);
    let s = b.pw("sigmoid", Func::Sigmoid, &[x]);
    let y = b.pw("mul", Func::Mul, &[x, s]);
    b.g.add_output("s", s).unwrap();
    let g = run1(&b.out(y), RecognizeActivations);
    assert_eq!(g.n_nodes(), 2);
}

#[test]
fn scalars_move_into_programs_and_identities_go() {
    let mut b = Build::new();
    let x = b.x(&[2, 3]);
    let one = b.num(1.0);
    let same = b.pw("times_one", Func::Mul, &[x, one]);
    let two = b.k(Tensor::from_slice(&[1], &[2f32]));
    let y = b.pw("double", Func::Mul, &[same, two]);
    let g = run1(&b.out(y), SimplifyPointwise);
    assert_eq!(names(&g), ["double"]);
    assert_eq!(the(&g, "Pointwise").inputs.len(), 1);
}

#[test]
fn a_scalar_that_gives_the_result_its_rank_stays_an_operand() {
    let mut b = Build::new();
    let x = b.x(&[3]);
    let two = b.k(Tensor::from_slice(&[1, 1], &[2f32]));
    let y = b.pw("double", Func::Mul, &[x, two]);
    let g = run1(&b.out(y), SimplifyPointwise);
    assert_eq!(the(&g, "Pointwise").inputs.len(), 2);
}

#[test]
fn an_output_keeps_a_node_of_its_own() {
    let mut b = Build::new();
    let x = b.x(&[2, 3]);
    let one = b.num(1.0);
    let y = b.pw("times_one", Func::Mul, &[x, one]);
    let g = run1(&b.out(y), SimplifyPointwise);
    assert_eq!(g.n_nodes(), 1);
}
