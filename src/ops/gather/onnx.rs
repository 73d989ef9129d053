//! Import of Gather, and of what is made of positions: ArrayFeatureExtractor, OneHot, Hardmax.

use super::Gather;
use crate::base::{Attrs, DType, Result, Tensor};
use crate::ensure;
use crate::network::ValueId;
use crate::ops::range::Range;
use crate::ops::reshape::{Reshape, ReshapeMode};
use crate::ops::{ImportCx, OnnxOp, onnx};

pub const TABLE: &[OnnxOp] = &[
    onnx("Gather", 1, gather),
    onnx("OneHot", 9, one_hot),
    onnx("Hardmax", 1, hardmax_1),
    onnx("Hardmax", 13, hardmax),
    OnnxOp { domain: "ai.onnx.ml", name: "ArrayFeatureExtractor", since: 1, import: array_feature_extractor },
];

/// Opset whose operators these are made of.
const OPSET: i64 = 18;

fn gather(cx: &mut ImportCx<'_>) -> Result<Vec<ValueId>> {
    let (x, indices) = (cx.input(0)?, cx.input(1)?);
    let axis = cx.int("axis", 0)?;
    Ok(vec![cx.add(Gather { axis }, &[x, indices])?])
}

fn call(cx: &mut ImportCx<'_>, op: &str, inputs: &[ValueId]) -> Result<ValueId> {
    cx.call1(op, OPSET, &Attrs::new(), inputs)
}

fn cast(cx: &mut ImportCx<'_>, v: ValueId, to: DType) -> Result<ValueId> {
    let mut attrs = Attrs::new();
    attrs.set("to", &(crate::onnx::tensor::onnx_code_of(to) as i64));
    cx.call1("Cast", OPSET, &attrs, &[v])
}

fn unsqueeze(cx: &mut ImportCx<'_>, v: ValueId, axes: Vec<i64>) -> Result<ValueId> {
    cx.add(Reshape { mode: ReshapeMode::Unsqueeze, spec: Some(axes), allow_zero: false }, &[v])
}

/// The positions 0 .. n along `axis` of a tensor of this rank, all other axes being 1.
fn positions(cx: &mut ImportCx<'_>, n: ValueId, axis: usize, rank: usize) -> Result<ValueId> {
    let (zero, one) = (cx.constant(Tensor::scalar(0i64)), cx.constant(Tensor::scalar(1i64)));
    let v = cx.add(Range {}, &[zero, n, one])?;
    let axes: Vec<i64> = (0..rank as i64).filter(|a| *a != axis as i64).collect();
    if axes.is_empty() { Ok(v) } else { unsqueeze(cx, v, axes) }
}

/// Where the position along the new axis equals the index, counted from the end when negative.
fn one_hot(cx: &mut ImportCx<'_>) -> Result<Vec<ValueId>> {
    let (indices, depth, values) = (cx.input(0)?, cx.input(1)?, cx.input(2)?);
    let rank = cx.shape(indices).rank() + 1;
    let axis = crate::base::dims::normalize_axis(cx.int("axis", -1)?, rank)?;
    ensure!(cx.shape(values).rank() == 1, InvalidArgument, "expected two values, got {}", cx.fact(values));
    let indices = cast(cx, indices, DType::I64)?;
    let depth = cast(cx, depth, DType::I64)?;
    let depth = cx.add(Reshape::to_shape(vec![]), &[depth])?;
    let zero = cx.constant(Tensor::scalar(0i64));
    let one = cx.constant(Tensor::scalar(1i64));
    let negative = call(cx, "Less", &[indices, zero])?;
    let from_end = call(cx, "Add", &[indices, depth])?;
    let indices = call(cx, "Where", &[negative, from_end, indices])?;
    let indices = unsqueeze(cx, indices, vec![axis as i64])?;
    let at = positions(cx, depth, axis, rank)?;
    let hot = call(cx, "Equal", &[indices, at])?;
    let off = cx.add(Gather { axis: 0 }, &[values, zero])?;
    let on = cx.add(Gather { axis: 0 }, &[values, one])?;
    Ok(vec![call(cx, "Where", &[hot, on, off])?])
}

/// 1 at the first of the largest elements along an axis, 0 elsewhere.
fn first_max(cx: &mut ImportCx<'_>, x: ValueId, axis: i64) -> Result<ValueId> {
    let (shape, dtype) = (cx.shape(x), cx.fact(x).dtype);
    let axis = shape.axis(axis)?;
    let mut attrs = Attrs::new();
    attrs.set("axis", &(axis as i64));
    // One element more at the end, which wins only where there is no other: the axis may turn out to be empty.
    let rank = shape.rank();
    let end: Vec<i64> = (0..2 * rank).map(|i| (i == rank + axis) as i64).collect();
    let pads = cx.constant(Tensor::from_slice(&[2 * rank], &end));
    let lowest = cx.constant(Tensor::scalar(f64::NEG_INFINITY).cast(dtype));
    let longer = cx.call1("Pad", OPSET, &Attrs::new(), &[x, pads, lowest])?;
    let best = cx.call1("ArgMax", OPSET, &attrs, &[longer])?;
    let sizes = call(cx, "Shape", &[x])?;
    let which = cx.constant(Tensor::scalar(axis as i64));
    let n = cx.add(Gather { axis: 0 }, &[sizes, which])?;
    let at = positions(cx, n, axis, shape.rank())?;
    let hot = call(cx, "Equal", &[best, at])?;
    cast(cx, hot, dtype)
}

fn hardmax(cx: &mut ImportCx<'_>) -> Result<Vec<ValueId>> {
    let x = cx.input(0)?;
    let axis = cx.int("axis", -1)?;
    Ok(vec![first_max(cx, x, axis)?])
}

/// Before opset 13 all axes from `axis` on count as one.
fn hardmax_1(cx: &mut ImportCx<'_>) -> Result<Vec<ValueId>> {
    let x = cx.input(0)?;
    let axis = cx.int("axis", 1)?;
    let flat = Reshape { mode: ReshapeMode::Flatten, spec: Some(vec![axis]), allow_zero: false };
    let rows = cx.add(flat, &[x])?;
    let y = first_max(cx, rows, 1)?;
    let shape = call(cx, "Shape", &[x])?;
    let back = Reshape { mode: ReshapeMode::Shape, spec: None, allow_zero: true };
    Ok(vec![cx.add(back, &[y, shape])?])
}

fn array_feature_extractor(cx: &mut ImportCx<'_>) -> Result<Vec<ValueId>> {
    let (mut x, indices) = (cx.input(0)?, cx.input(1)?);
    if cx.shape(x).rank() == 1 {
        x = unsqueeze(cx, x, vec![0])?;
    }
    let indices = cx.add(Reshape::to_shape(vec![-1]), &[indices])?;
    Ok(vec![cx.add(Gather { axis: -1 }, &[x, indices])?])
}
