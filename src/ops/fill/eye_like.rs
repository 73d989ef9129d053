//! EyeLike: ones on a diagonal, where the column's number is the row's plus k.

use crate::base::{DType, Result, Tensor};
use crate::network::ValueId;
use crate::ops::ImportCx;
use crate::ops::pointwise::{Func, Pointwise, Program, numbered_type};
use crate::ops::range::Range;
use crate::ops::reshape::{Reshape, ReshapeMode};
use crate::ops::shape::Shape;
use crate::ensure;

pub(super) fn import(cx: &mut ImportCx<'_>) -> Result<Vec<ValueId>> {
    let x = cx.input(0)?;
    let f = cx.fact(x);
    ensure!(f.rank() == 2, InvalidArgument, "EyeLike takes a matrix, got {f}");
    let k = cx.int("k", 0)?;
    let to = cx.attrs.int("dtype")?.map(|code| numbered_type("dtype", code)).transpose()?.unwrap_or(f.dtype);
    ensure!(k.unsigned_abs() <= 1 << 53, InvalidArgument, "attribute k: {k} is no diagonal");
    let (zero, one) = (cx.constant(Tensor::from_slice(&[1], &[0i64])), cx.constant(Tensor::from_slice(&[1], &[1i64])));
    let mut numbers = |axis: i64| {
        let n = cx.add(Shape { start: axis, end: Some(axis + 1), size: false }, &[x])?;
        cx.add(Range {}, &[zero, n, one])
    };
    let (rows, columns) = (numbers(0)?, numbers(1)?);
    let rows = cx.add(Reshape { mode: ReshapeMode::Unsqueeze, spec: Some(vec![1]), allow_zero: false }, &[rows])?;
    let mut p = Program { inputs: vec![DType::I64; 2], instrs: vec![], outputs: vec![] };
    let shift = p.push_const(k as f64, DType::I64)?;
    let at = p.push(Func::Add, &[0, shift])?;
    let hit = p.push(Func::Equal, &[at, 1])?;
    p.outputs = vec![p.push_cast(hit, to)?];
    Ok(vec![cx.add(Pointwise { program: p }, &[rows, columns])?])
}
