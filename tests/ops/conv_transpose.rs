//! Transposed convolution: sizes, the reference against the adjoint of a convolution, and the CPU step.

use super::product_cases::conv::epilogues;
use super::product_cases::conv_transpose::{Case, case, cases, operands};
use super::steps::{check_cpu, eval, infer, random};
use sinter::base::{DType, Tensor};
use sinter::ops::Op;
use sinter::ops::conv::Conv;
use sinter::ops::window::AutoPad;

/// Sums of up to a few hundred f32 products.
const TOLERANCE: f64 = 1e-4;

#[test]
fn cpu_step_gives_the_references_numbers() {
    for c in cases() {
        for with_bias in [false, true] {
            let had = check_cpu(c.name, &Op::from(c.op.clone()), &operands(&c, with_bias), &[1], TOLERANCE);
            assert!(had, "{}: no CPU step", c.name);
        }
    }
}

#[test]
fn cpu_step_applies_every_kind_of_epilogue() {
    for c in cases() {
        let inputs = operands(&c, true);
        let out = infer(&Op::from(c.op.clone()), &inputs).unwrap()[0].shape.concrete().unwrap();
        for (name, program, shapes) in epilogues(&out) {
            let mut op = c.op.clone();
            op.epilogue = Some(program);
            let mut inputs = inputs.clone();
            inputs.extend(shapes.iter().enumerate().map(|(i, s)| Some(random(DType::F32, s, 10 + i as u64))));
            let what = format!("{} with {name}", c.name);
            let tolerance = if name == "to f16" { 2e-3 } else { TOLERANCE };
            assert!(check_cpu(&what, &Op::from(op), &inputs, &[1], tolerance), "{what}: no CPU step");
        }
    }
}

/// <conv(u), x> = <u, conv_transpose(x)> for every u and x, when both have the same numbers.
#[test]
fn reference_is_the_adjoint_of_convolution() {
    let op = |strides: &[i64], pads: &[i64], group| {
        let t = case("", &[], &[], |c| (c.strides, c.pads, c.group) = (strides.to_vec(), pads.to_vec(), group)).op;
        let c = Conv {
            strides: strides.to_vec(),
            pads: pads.to_vec(),
            dilations: vec![],
            group,
            auto_pad: AutoPad::NotSet,
            order: Default::default(),
            epilogue: None,
        };
        (Op::from(c), Op::from(t))
    };
    // Sizes for which no input is left over at the end of a stride.
    for (strides, pads, group) in [([1, 1], [0, 0, 0, 0], 1), ([2, 3], [1, 1, 1, 2], 1), ([2, 3], [1, 0, 1, 0], 2)] {
        let (conv, transposed) = op(&strides, &pads, group);
        let w = random(DType::F32, &[4, 6 / group as usize, 3, 4], 5);
        let x = random(DType::F32, &[2, 4, 5, 4], 6);
        let back = eval(&transposed, &[Some(x.clone()), Some(w.clone()), None]).unwrap().remove(0);
        let u = random(DType::F32, back.shape(), 7);
        let forth = eval(&conv, &[Some(u.clone()), Some(w), None]).unwrap().remove(0);
        assert_eq!(forth.shape(), x.shape());
        let dot = |a: &Tensor, b: &Tensor| a.to_f64s().iter().zip(b.to_f64s()).map(|(a, b)| a * b).sum::<f64>();
        assert!((dot(&forth, &x) - dot(&u, &back)).abs() < 1e-3);
    }
}

#[test]
fn sizes_follow_the_rules() {
    let size = |c: &Case| infer(&Op::from(c.op.clone()), &operands(c, false)).unwrap()[0].shape.concrete().unwrap();
    let by_name = |name: &str| size(cases().iter().find(|c| c.name == name).unwrap());
    assert_eq!(by_name("plain"), [1, 6, 7, 6]);
    assert_eq!(by_name("output padding"), [1, 3, 10, 18]);
    assert_eq!(by_name("SAME_UPPER"), [1, 3, 10, 12]);
    assert_eq!(by_name("output shape"), [1, 3, 10, 8]);
    assert_eq!(by_name("groups"), [2, 12, 7, 10]);
}
