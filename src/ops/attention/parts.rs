//! Small graph pieces that the importers of this home are made of.

use crate::base::{DType, Result, Tensor};
use crate::network::ValueId;
use crate::ops::ImportCx;
use crate::ops::concat::Concat;
use crate::ops::pointwise::{Func, Pointwise, Program, Reg};
use crate::ops::reshape::{Reshape, ReshapeMode};
use crate::ops::shape::Shape;
use crate::ops::slice::Slice;
use crate::ops::transpose::Transpose;

pub fn dtype(cx: &ImportCx<'_>, v: ValueId) -> DType {
    cx.graph.fact(v).dtype
}

pub fn rank(cx: &ImportCx<'_>, v: ValueId) -> usize {
    cx.graph.fact(v).rank()
}

/// The shape, 0 copies a dimension and -1 takes what is left.
pub fn reshape(cx: &mut ImportCx<'_>, x: ValueId, spec: &[i64]) -> Result<ValueId> {
    let op = Reshape { mode: ReshapeMode::Shape, spec: Some(spec.to_vec()), allow_zero: false };
    cx.add(op, &[x])
}

pub fn unsqueeze(cx: &mut ImportCx<'_>, x: ValueId, axes: &[i64]) -> Result<ValueId> {
    cx.add(Reshape { mode: ReshapeMode::Unsqueeze, spec: Some(axes.to_vec()), allow_zero: false }, &[x])
}

pub fn squeeze(cx: &mut ImportCx<'_>, x: ValueId, axis: i64) -> Result<ValueId> {
    cx.add(Reshape { mode: ReshapeMode::Squeeze, spec: Some(vec![axis]), allow_zero: false }, &[x])
}

/// [batch, length, heads * size] as [batch, heads, length, size].
pub fn split_heads(cx: &mut ImportCx<'_>, x: ValueId, heads: i64) -> Result<ValueId> {
    let x = reshape(cx, x, &[0, 0, heads, -1])?;
    cx.add(Transpose { perm: vec![0, 2, 1, 3] }, &[x])
}

pub fn concat(cx: &mut ImportCx<'_>, axis: i64, parts: &[ValueId]) -> Result<ValueId> {
    cx.add(Concat { axis }, parts)
}

pub fn ints(cx: &mut ImportCx<'_>, v: &[i64]) -> ValueId {
    cx.constant(Tensor::from_slice(&[v.len()], v))
}

/// `x[.., start:end, ..]` along one axis.
pub fn slice(cx: &mut ImportCx<'_>, x: ValueId, axis: i64, start: i64, end: i64) -> Result<ValueId> {
    let [s, e, a] = [start, end, axis].map(|v| ints(cx, &[v]));
    cx.add(Slice {}, &[x, s, e, a])
}

/// Entry `at` of an axis, which goes.
pub fn pick(cx: &mut ImportCx<'_>, x: ValueId, axis: i64, at: i64) -> Result<ValueId> {
    let x = slice(cx, x, axis, at, at + 1)?;
    squeeze(cx, x, axis)
}

/// Two tensors as one, along a new first axis.
pub fn stack(cx: &mut ImportCx<'_>, a: ValueId, b: ValueId) -> Result<ValueId> {
    let (a, b) = (unsqueeze(cx, a, &[0])?, unsqueeze(cx, b, &[0])?);
    concat(cx, 0, &[a, b])
}

/// One dimension of a value as a vector of one i64.
pub fn dim(cx: &mut ImportCx<'_>, x: ValueId, axis: i64) -> Result<ValueId> {
    cx.add(Shape { start: axis, end: Some(axis + 1), size: false }, &[x])
}

/// One element-wise node; `body` gets the registers of the inputs by number.
pub fn pointwise(
    cx: &mut ImportCx<'_>,
    inputs: &[ValueId],
    body: impl FnOnce(&mut Program) -> Result<Reg>,
) -> Result<ValueId> {
    let types = inputs.iter().map(|v| dtype(cx, *v)).collect();
    let mut program = Program { inputs: types, instrs: vec![], outputs: vec![] };
    let r = body(&mut program)?;
    program.outputs = vec![r];
    cx.add(Pointwise { program }, inputs)
}

pub fn cast(cx: &mut ImportCx<'_>, x: ValueId, to: DType) -> Result<ValueId> {
    if dtype(cx, x) == to { Ok(x) } else { pointwise(cx, &[x], |p| p.push_cast(0, to)) }
}

pub fn add(cx: &mut ImportCx<'_>, a: ValueId, b: ValueId) -> Result<ValueId> {
    pointwise(cx, &[a, b], |p| p.push(Func::Add, &[0, 1]))
}

/// `0, 1, ..` up to before a vector of one i64.
pub fn count_to(cx: &mut ImportCx<'_>, n: ValueId) -> Result<ValueId> {
    let (zero, one) = (ints(cx, &[0]), ints(cx, &[1]));
    cx.add(crate::ops::range::Range {}, &[zero, n, one])
}
