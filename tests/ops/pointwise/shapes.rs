//! Shape inference, and shape arithmetic that stays symbolic.

use sinter::base::{DType, Dim, Fact, Result, Shape, Tensor};
use sinter::ops::pointwise::{Func, Pointwise, Program};
use sinter::ops::{InferCx, OpDef};
use std::sync::Arc;

fn infer(text: &str, inputs: &[&Fact]) -> Result<Vec<Fact>> {
    let op = Pointwise { program: Program::parse(text).unwrap() };
    op.infer(&InferCx::new(&inputs.iter().map(|f| Some(*f)).collect::<Vec<_>>()))
}

fn vector(dims: Vec<Dim>) -> Fact {
    Fact::of_dims([dims.len() as i64], dims)
}

fn constant<T: sinter::base::dtype::Element>(data: &[T]) -> Fact {
    Fact::of_const(Arc::new(Tensor::from_slice(&[data.len()], data)))
}

fn known(f: &Fact) -> String {
    f.as_dims().map_or("unknown".into(), |d| d.iter().map(|d| d.to_string()).collect::<Vec<_>>().join(" "))
}

#[test]
fn outputs_have_the_broadcast_shape_and_the_programs_types() {
    let a = Fact::new(DType::F32, Shape(vec!["n".into(), 1.into(), 4.into()]));
    let b = Fact::new(DType::F32, Shape::from([3, 1]));
    let out = infer("f32,f32;less(0,1):bool;add(0,1):f32;>2,3", &[&a, &b]).unwrap();
    assert_eq!(format!("{} {}", out[0], out[1]), "bool[n,3,4] f32[n,3,4]");
}

#[test]
fn refusals_name_the_input() {
    let a = Fact::new(DType::F32, Shape::from([2]));
    let b = Fact::new(DType::F32, Shape::from([3]));
    let e = infer("f32,f32;add(0,1):f32;>2", &[&a, &b]).unwrap_err().to_string();
    assert!(e.contains("input 1") && e.contains("do not broadcast"), "{e}");
    let e = infer("f16,f32;cast(0):f32;add(2,1):f32;>3", &[&a, &b]).unwrap_err().to_string();
    assert!(e.contains("input 0: expected f16, got f32[2]"), "{e}");
    assert!(infer("f32,f32;add(0,1):f32;>2", &[&a]).is_err());
    assert!(Program::single(Func::Add, &[DType::Bool, DType::Bool]).unwrap_err().to_string().contains("bool"));
    assert!(Program::single(Func::Exp, &[DType::I32]).is_err());
}

#[test]
fn integer_arithmetic_on_sizes() {
    let n = Dim::sym("n");
    let v = vector(vec![n.clone(), 6.into()]);
    let two = constant(&[2i64]);
    let run = |op: &str| known(&infer(&format!("i64,i64;{op}(0,1):i64;>2"), &[&v, &two]).unwrap()[0]);
    assert_eq!(run("add"), "(n+2) 8");
    assert_eq!(run("sub"), "(n+-2) 4");
    assert_eq!(run("mul"), "2*n 12");
    assert_eq!(run("div"), "floor(n/2) 3");
    assert_eq!(run("max"), "max(n,2) 6");
    assert_eq!(run("min"), "min(n,2) 2");
    let zero = constant(&[0i64]);
    assert_eq!(known(&infer("i64,i64;max(0,1):i64;>2", &[&v, &zero]).unwrap()[0]), "n 6");
    // A size may not be what a narrow type holds; i32 is taken to hold it.
    assert_eq!(known(&infer("i64;cast(0):i32;neg(1):i32;>2", &[&v]).unwrap()[0]), "-1*n -6");
    assert_eq!(known(&infer("i64;cast(0):i8;>1", &[&v]).unwrap()[0]), "unknown");
}

#[test]
fn division_truncates_whatever_the_sign_will_be() {
    let n = Dim::sym("n");
    let v = vector(vec![&n - 3]);
    let two = constant(&[2i64]);
    let out = infer("i64,i64;div(0,1):i64;>2", &[&v, &two]).unwrap().remove(0);
    let d = out.as_dims().unwrap().remove(0);
    for (value, want) in [(0, -1), (1, -1), (2, 0), (3, 0), (4, 0), (5, 1), (8, 2)] {
        assert_eq!(d.eval(&[("n".into(), value)].into()).unwrap(), want, "({value} - 3) / 2");
    }
}

#[test]
fn comparisons_decide_where_they_can() {
    let n = Dim::sym("n");
    let v = vector(vec![n.clone(), Dim::from(-1i64), &n + 1]);
    let minus_one = constant(&[-1i64]);
    let eq = infer("i64,i64;equal(0,1):bool;>2", &[&v, &minus_one]).unwrap().remove(0);
    assert_eq!((known(&eq).as_str(), eq.dtype), ("0 1 0", DType::Bool));
    // The -1 of a requested shape is replaced, as exporters of Expand do.
    let ones = constant(&[1i64, 1, 1]);
    let p = "i64,i64,i64;equal(0,1):bool;select(3,2,0):i64;>4";
    assert_eq!(known(&infer(p, &[&v, &minus_one, &ones]).unwrap()[0]), "n 1 (n+1)");
    let zero = constant(&[0i64]);
    assert_eq!(known(&infer("i64,i64;greater(0,1):bool;>2", &[&v, &zero]).unwrap()[0]), "unknown");
    let last = vector(vec![&n + 1]);
    assert_eq!(known(&infer("i64,i64;greater(0,1):bool;>2", &[&last, &zero]).unwrap()[0]), "1");
    assert_eq!(known(&infer("i64;cast(0):bool;not(1):bool;>2", &[&last]).unwrap()[0]), "0");
}

#[test]
fn sizes_go_through_floats_and_back() {
    let n = Dim::sym("n");
    let v = vector(vec![n.clone(), 7.into()]);
    let scale = |s: f32| constant(&[s]);
    let p = "i64,f32;cast(0):f32;mul(2,1):f32;floor(3):f32;cast(4):i64;>5";
    assert_eq!(known(&infer(p, &[&v, &scale(2.0)]).unwrap()[0]), "2*n 14");
    assert_eq!(known(&infer(p, &[&v, &scale(0.5)]).unwrap()[0]), "floor(n/2) 3");
    assert_eq!(known(&infer(p, &[&v, &scale(1.5)]).unwrap()[0]), "floor(3*n/2) 10");
    // 0.1 is no such fraction: nothing is guessed.
    assert_eq!(known(&infer(p, &[&v, &scale(0.1)]).unwrap()[0]), "unknown");
    let up = "i64,f32;cast(0):f32;div(2,1):f32;ceil(3):f32;cast(4):i64;>5";
    let out = infer(up, &[&v, &scale(4.0)]).unwrap().remove(0);
    assert_eq!(out.as_dims().unwrap()[0].eval(&[("n".into(), 9)].into()).unwrap(), 3);
}

#[test]
fn numbers_are_computed_at_once() {
    let out = infer("f32,f32;add(0,1):f32;>2", &[&constant(&[1.5f32, 2.0]), &constant(&[1.0f32])]).unwrap();
    assert_eq!(out[0].as_const().unwrap().to_f32s(), [2.5, 3.0]);
    let v = vector(vec![3.into(), 4.into()]);
    let out = infer("i64,i64;mul(0,1):i64;>2", &[&v, &constant(&[2i64])]).unwrap();
    assert_eq!(known(&out[0]), "6 8");
}
