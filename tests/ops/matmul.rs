//! Matrix products: broadcasting, transposes, integers, messages, and the CPU step against the reference.

use super::product_cases::conv::epilogues;
use super::product_cases::matmul::{cases, operands};
use super::steps::{Packs, check_cpu, cpu, eval, infer, random};
use sinter::base::{DType, Fact, Shape, Tensor};
use sinter::ops::matmul::MatMul;
use sinter::ops::{InferCx, Op, OpDef};

/// Sums of up to a thousand f32 products.
const TOLERANCE: f64 = 1e-4;

#[test]
fn cpu_step_gives_the_references_numbers() {
    for c in cases() {
        for with_bias in [false, true] {
            for known in [0, 1] {
                let had = check_cpu(c.name, &Op::from(c.op.clone()), &operands(&c, with_bias), &[known], TOLERANCE);
                assert!(had, "{}: no CPU step", c.name);
            }
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
            let had = check_cpu(&what, &Op::from(op), &inputs, &[1], tolerance);
            assert!(had, "{what}: no CPU step");
        }
    }
}

#[test]
fn weights_are_packed_once_for_all_shapes() {
    let packs = Packs::default();
    let op = Op::from(cases()[0].op.clone());
    for m in [1, 2, 40] {
        let inputs = [Some(random(DType::F32, &[m, 16], 1)), Some(random(DType::F32, &[16, 9], 2)), None];
        cpu(&op, &inputs, &[1], &packs).unwrap().expect("f32 has a step");
    }
    assert_eq!(*packs.n_made.borrow(), 1);
}

#[test]
fn integers_are_exact() {
    let op = Op::from(cases()[0].op.clone());
    // Beyond 2^53, where a float would round.
    let a = Tensor::from_slice(&[1, 2], &[(1i64 << 60) + 1, 3]);
    let b = Tensor::from_slice(&[2, 1], &[1i64, 5]);
    assert_eq!(eval(&op, &[Some(a), Some(b), None]).unwrap()[0].slice::<i64>(), &[(1i64 << 60) + 16]);
    let a = Tensor::from_slice(&[1, 1], &[u32::MAX]);
    let b = Tensor::from_slice(&[1, 1], &[2u32]);
    let bias = Tensor::from_slice(&[1], &[3u32]);
    assert_eq!(eval(&op, &[Some(a), Some(b), Some(bias)]).unwrap()[0].slice::<u32>(), &[1]);
}

#[test]
fn reference_by_hand() {
    let a = Tensor::from_slice(&[2, 2], &[1f32, 2., 3., 4.]);
    let b = Tensor::from_slice(&[2, 2], &[10f32, 20., 30., 40.]);
    let run = |trans_a, trans_b, alpha| {
        let op = Op::from(MatMul { trans_a, trans_b, alpha, epilogue: None });
        eval(&op, &[Some(a.clone()), Some(b.clone()), None]).unwrap()[0].to_f32s()
    };
    assert_eq!(run(false, false, 1.0), [70., 100., 150., 220.]);
    assert_eq!(run(true, false, 1.0), [100., 140., 140., 200.]);
    assert_eq!(run(false, true, 0.5), [25., 55., 55., 125.]);
}

#[test]
fn shapes_stay_symbolic() {
    let op = MatMul { trans_a: false, trans_b: true, alpha: 1.0, epilogue: None };
    let a = Fact::new(DType::F32, Shape(vec!["b".into(), 12.into(), "t".into(), 64.into()]));
    let b = Fact::new(DType::F32, Shape(vec!["b".into(), 12.into(), "s".into(), 64.into()]));
    let y = op.infer(&InferCx::new(&[Some(&a), Some(&b)])).unwrap();
    assert_eq!(y[0].shape.to_string(), "[b,12,t,s]");
}

#[test]
fn messages_say_what_was_expected() {
    let fails = |a: &[usize], b: &[usize], dtype: DType, alpha: f32| {
        let op = Op::from(MatMul { trans_a: false, trans_b: true, alpha, epilogue: None });
        infer(&op, &[Some(random(dtype, a, 1)), Some(random(dtype, b, 1))]).unwrap_err().to_string()
    };
    let text = fails(&[2, 3], &[4, 5], DType::F32, 1.0);
    assert!(text.contains("inner dimensions differ: 3 of [2,3] and 5 of [4,5] transposed"), "{text}");
    let text = fails(&[3], &[4, 3], DType::F32, 1.0);
    assert!(text.contains("input 0: expected rank 2 or more, got [3]"), "{text}");
    let text = fails(&[2, 3], &[4, 3], DType::I8, 1.0);
    assert!(text.contains("got i8"), "{text}");
    let text = fails(&[2, 3], &[4, 3], DType::I32, 2.0);
    assert!(text.contains("a product of i32 cannot be scaled by 2"), "{text}");
    let text = fails(&[2, 5, 3], &[3, 4, 3], DType::F32, 1.0);
    assert!(text.contains("dimensions 2 and 3 do not broadcast"), "{text}");
}
