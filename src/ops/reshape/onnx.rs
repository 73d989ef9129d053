//! Import of Reshape, Squeeze, Unsqueeze, Flatten, Identity and Dropout.

use super::{Reshape, ReshapeMode};
use crate::base::{DType, Dim, Result, Tensor};
use crate::network::ValueId;
use crate::ops::fill::Fill;
use crate::ops::shape::Shape;
use crate::ops::{ImportCx, OnnxOp, onnx};
use crate::ensure;
use std::sync::Arc;

pub const TABLE: &[OnnxOp] = &[
    onnx("Reshape", 1, reshape_1),
    onnx("Reshape", 5, reshape_5),
    onnx("Squeeze", 1, squeeze),
    onnx("Unsqueeze", 1, unsqueeze),
    onnx("Flatten", 1, flatten),
    onnx("Identity", 1, identity),
    OnnxOp { domain: "com.microsoft", name: "ExpandDims", since: 1, import: expand_dims },
    onnx("Dropout", 1, dropout_1),
    onnx("Dropout", 7, dropout_7),
    onnx("Dropout", 12, dropout_12),
];

/// The integers of an optional operand, as a spec when they are numbers now and as the operand itself otherwise.
fn operand_spec(cx: &ImportCx<'_>, i: usize) -> (Option<Vec<i64>>, Option<ValueId>) {
    let Some(v) = cx.opt(i) else { return (None, None) };
    let numbers = cx.fact(v).as_dims().and_then(|d| d.iter().map(Dim::as_const).collect());
    match numbers {
        Some(spec) => (Some(spec), None),
        None => (None, Some(v)),
    }
}

fn add(
    cx: &mut ImportCx<'_>,
    mode: ReshapeMode,
    spec: Option<Vec<i64>>,
    operand: Option<ValueId>,
    allow_zero: bool,
) -> Result<Vec<ValueId>> {
    let x = cx.input(0)?;
    let op = Reshape { mode, spec, allow_zero };
    let inputs: Vec<ValueId> = std::iter::once(x).chain(operand).collect();
    Ok(vec![cx.add(op, &inputs)?])
}

fn reshape_1(cx: &mut ImportCx<'_>) -> Result<Vec<ValueId>> {
    let spec = cx.ints("shape")?;
    ensure!(spec.is_some(), InvalidArgument, "attribute shape is missing");
    add(cx, ReshapeMode::Shape, spec, None, false)
}

fn reshape_5(cx: &mut ImportCx<'_>) -> Result<Vec<ValueId>> {
    let allow_zero = cx.flag("allowzero", false)?;
    cx.input(1)?;
    let (spec, operand) = operand_spec(cx, 1);
    add(cx, ReshapeMode::Shape, spec, operand, allow_zero)
}

fn squeeze(cx: &mut ImportCx<'_>) -> Result<Vec<ValueId>> {
    // The axes are an attribute before opset 13 and an operand from there on.
    let (spec, operand) = match cx.ints("axes")? {
        Some(axes) => (Some(axes), None),
        None => operand_spec(cx, 1),
    };
    add(cx, ReshapeMode::Squeeze, spec, operand, false)
}

fn unsqueeze(cx: &mut ImportCx<'_>) -> Result<Vec<ValueId>> {
    let (spec, operand) = match cx.ints("axes")? {
        Some(axes) => (Some(axes), None),
        None => operand_spec(cx, 1),
    };
    ensure!(spec.is_some() || operand.is_some(), InvalidArgument, "unsqueeze needs axes");
    add(cx, ReshapeMode::Unsqueeze, spec, operand, false)
}

fn flatten(cx: &mut ImportCx<'_>) -> Result<Vec<ValueId>> {
    let axis = cx.int("axis", 1)?;
    add(cx, ReshapeMode::Flatten, Some(vec![axis]), None, false)
}

fn identity(cx: &mut ImportCx<'_>) -> Result<Vec<ValueId>> {
    add(cx, ReshapeMode::Identity, None, None, false)
}

/// com.microsoft's Unsqueeze of one axis, which is a scalar.
fn expand_dims(cx: &mut ImportCx<'_>) -> Result<Vec<ValueId>> {
    let (x, axis) = (cx.input(0)?, cx.input(1)?);
    if let Ok(axes) = cx.const_ints(1) {
        return add(cx, ReshapeMode::Unsqueeze, Some(axes), None, false);
    }
    let axis = cx.add(Reshape::to_shape(vec![1]), &[axis])?;
    let op = Reshape { mode: ReshapeMode::Unsqueeze, spec: None, allow_zero: false };
    Ok(vec![cx.add(op, &[x, axis])?])
}

/// While inferring, dropout passes its input on; the mask, where a model reads it, keeps everything.
fn dropout(cx: &mut ImportCx<'_>, mask: Option<DType>) -> Result<Vec<ValueId>> {
    let x = cx.input(0)?;
    let mut out = identity(cx)?;
    if cx.n_outputs > 1 {
        let dtype = mask.unwrap_or(cx.fact(x).dtype);
        let value = Arc::new(Tensor::scalar(true).cast(dtype));
        let shape = cx.add(Shape { start: 0, end: None, size: false }, &[x])?;
        out.push(cx.add(Fill { value }, &[shape])?);
    }
    Ok(out)
}

fn dropout_1(cx: &mut ImportCx<'_>) -> Result<Vec<ValueId>> {
    cx.float("ratio", 0.5)?;
    cx.int("is_test", 0)?;
    dropout(cx, None)
}

fn dropout_7(cx: &mut ImportCx<'_>) -> Result<Vec<ValueId>> {
    cx.float("ratio", 0.5)?;
    let mask = if cx.opset >= 10 { Some(DType::Bool) } else { None };
    dropout(cx, mask)
}

fn dropout_12(cx: &mut ImportCx<'_>) -> Result<Vec<ValueId>> {
    cx.int("seed", 0)?;
    if let Some(v) = cx.opt(2) {
        let off = cx.as_const(v).is_some_and(|mode| mode.to_i64s().iter().all(|v| *v == 0));
        if !off {
            return crate::ops::random::dropout(cx, v);
        }
    }
    dropout(cx, Some(DType::Bool))
}
