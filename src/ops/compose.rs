//! Small steps that importers of composed operators share: one node each, with types and axes filled in.

use crate::base::{DType, Dim, Result, Tensor};
use crate::network::ValueId;
use crate::ops::ImportCx;
use crate::ops::concat::Concat;
use crate::ops::pointwise::{Func, Pointwise, Program, Reg};
use crate::ops::range::Range;
use crate::ops::reduce::{Reduce, ReduceKind};
use crate::ops::reshape::{Reshape, ReshapeMode};
use crate::ops::shape::Shape;
use crate::ops::transpose::Transpose;
use crate::ensure;

/// One element-wise node over operands that broadcast; `body` gets register i for operand i.
pub fn pointwise(
    cx: &mut ImportCx<'_>,
    inputs: &[ValueId],
    body: impl FnOnce(&mut Program) -> Result<Reg>,
) -> Result<ValueId> {
    let types = inputs.iter().map(|v| cx.graph.fact(*v).dtype).collect();
    let mut p = Program { inputs: types, instrs: vec![], outputs: vec![] };
    let r = body(&mut p)?;
    p.outputs = vec![r];
    cx.add(Pointwise { program: p }, inputs)
}

/// `func(a, b)` with broadcasting.
pub fn binary(cx: &mut ImportCx<'_>, func: Func, a: ValueId, b: ValueId) -> Result<ValueId> {
    pointwise(cx, &[a, b], |p| p.push(func, &[0, 1]))
}

/// The value in another element type; itself when it has it already.
pub fn cast(cx: &mut ImportCx<'_>, v: ValueId, to: DType) -> Result<ValueId> {
    if cx.graph.fact(v).dtype == to {
        return Ok(v);
    }
    pointwise(cx, &[v], |p| p.push_cast(0, to))
}

/// What statistics of a type are computed in: f32 for halves.
pub fn wide(dtype: DType) -> DType {
    if matches!(dtype, DType::F16 | DType::BF16) { DType::F32 } else { dtype }
}

pub fn reduce(cx: &mut ImportCx<'_>, kind: ReduceKind, v: ValueId, axes: &[i64], keepdims: bool) -> Result<ValueId> {
    if axes.is_empty() {
        // An empty list would mean all axes. Over none of them a mean or a sum is the value itself.
        ensure!(matches!(kind, ReduceKind::Mean | ReduceKind::Sum), Internal, "{} over no axes", kind.name());
        return Ok(v);
    }
    cx.add(Reduce::over(kind, axes.to_vec(), keepdims), &[v])
}

/// The axes in another order; the value itself when that is its order.
pub fn transpose(cx: &mut ImportCx<'_>, v: ValueId, perm: &[usize]) -> Result<ValueId> {
    if perm.iter().enumerate().all(|(i, p)| i == *p) {
        return Ok(v);
    }
    cx.add(Transpose { perm: perm.iter().map(|p| *p as i64).collect() }, &[v])
}

/// New axes of size 1 at these places of the result.
pub fn unsqueeze(cx: &mut ImportCx<'_>, v: ValueId, axes: &[i64]) -> Result<ValueId> {
    if axes.is_empty() {
        return Ok(v);
    }
    cx.add(Reshape { mode: ReshapeMode::Unsqueeze, spec: Some(axes.to_vec()), allow_zero: false }, &[v])
}

/// Without these axes, which are of size 1.
pub fn squeeze(cx: &mut ImportCx<'_>, v: ValueId, axes: &[i64]) -> Result<ValueId> {
    if axes.is_empty() {
        return Ok(v);
    }
    cx.add(Reshape { mode: ReshapeMode::Squeeze, spec: Some(axes.to_vec()), allow_zero: false }, &[v])
}

/// A vector operand for axis `axis` of a value of rank `rank`: as [n, 1, ..].
pub fn along(cx: &mut ImportCx<'_>, vector: ValueId, axis: usize, rank: usize) -> Result<ValueId> {
    let axes: Vec<i64> = (1..(rank - axis) as i64).collect();
    unsqueeze(cx, vector, &axes)
}

/// A size of a value, as a vector of one i64.
pub fn size_of(cx: &mut ImportCx<'_>, v: ValueId, axis: usize) -> Result<ValueId> {
    match cx.graph.fact(v).shape[axis].as_const() {
        Some(n) => Ok(cx.constant(Tensor::from_slice(&[1], &[n]))),
        None => cx.add(Shape { start: axis as i64, end: Some(axis as i64 + 1), size: false }, &[v]),
    }
}

/// A new shape in which each dimension is the product of sizes of values, given as (value, axis).
pub fn reshape(cx: &mut ImportCx<'_>, v: ValueId, dims: &[Vec<(ValueId, usize)>]) -> Result<ValueId> {
    let fixed = |cx: &ImportCx<'_>, d: &[(ValueId, usize)]| -> Option<i64> {
        d.iter().try_fold(1i64, |n, (v, a)| n.checked_mul(cx.graph.fact(*v).shape[*a].as_const()?))
    };
    let numbers: Option<Vec<i64>> = dims.iter().map(|d| fixed(cx, d)).collect();
    if let Some(spec) = numbers {
        return cx.add(Reshape::to_shape(spec), &[v]);
    }
    let mut parts = Vec::new();
    for d in dims {
        let mut part = match fixed(cx, d) {
            Some(n) => {
                parts.push(cx.constant(Tensor::from_slice(&[1], &[n])));
                continue;
            }
            None => size_of(cx, d[0].0, d[0].1)?,
        };
        for (v, a) in &d[1..] {
            let size = size_of(cx, *v, *a)?;
            part = binary(cx, Func::Mul, part, size)?;
        }
        parts.push(part);
    }
    let spec = if parts.len() == 1 { parts[0] } else { cx.add(Concat { axis: 0 }, &parts)? };
    cx.add(Reshape { mode: ReshapeMode::Shape, spec: None, allow_zero: true }, &[v, spec])
}

/// The numbers 0, 1, .. below a size of a value, as a vector of i64.
pub fn counting(cx: &mut ImportCx<'_>, v: ValueId, axis: usize) -> Result<ValueId> {
    /// Longest vector that is a constant of the model.
    const MAX_CONST: i64 = 1 << 16;
    if let Some(n) = cx.graph.fact(v).shape[axis].as_const().filter(|n| (0..=MAX_CONST).contains(n)) {
        let numbers: Vec<i64> = (0..n).collect();
        return Ok(cx.constant(Tensor::from_slice(&[numbers.len()], &numbers)));
    }
    let limit = size_of(cx, v, axis)?;
    let limit = squeeze(cx, limit, &[0])?;
    let (zero, one) = (cx.constant(Tensor::scalar(0i64)), cx.constant(Tensor::scalar(1i64)));
    cx.add(Range {}, &[zero, limit, one])
}

/// False when both sizes are numbers that differ.
pub fn may_equal(a: &Dim, b: &Dim) -> bool {
    !matches!((a.as_const(), b.as_const()), (Some(a), Some(b)) if a != b)
}
