//! Import of the ten Reduce operators (axes as attribute, later as operand) and of ArgMax and ArgMin.

use super::{Reduce, ReduceKind};
use crate::base::{Dim, Result};
use crate::internal;
use crate::network::ValueId;
use crate::ops::{ImportCx, OnnxOp, onnx};

pub const TABLE: &[OnnxOp] = &[
    onnx("ReduceSum", 1, reduce),
    onnx("ReduceMean", 1, reduce),
    onnx("ReduceMax", 1, reduce),
    onnx("ReduceMin", 1, reduce),
    onnx("ReduceProd", 1, reduce),
    onnx("ReduceSumSquare", 1, reduce),
    onnx("ReduceL1", 1, reduce),
    onnx("ReduceL2", 1, reduce),
    onnx("ReduceLogSum", 1, reduce),
    onnx("ReduceLogSumExp", 1, reduce),
    onnx("ArgMax", 1, arg),
    onnx("ArgMin", 1, arg),
    OnnxOp { domain: "com.microsoft", name: "CDist", since: 1, import: super::cdist::cdist },
];

/// Opset in which the axes became an operand: 13 for ReduceSum and 18 for the others. Reading both forms covers all.
fn reduce(cx: &mut ImportCx<'_>) -> Result<Vec<ValueId>> {
    let kind = match cx.op_type {
        "ReduceSum" => ReduceKind::Sum,
        "ReduceMean" => ReduceKind::Mean,
        "ReduceMax" => ReduceKind::Max,
        "ReduceMin" => ReduceKind::Min,
        "ReduceProd" => ReduceKind::Prod,
        "ReduceSumSquare" => ReduceKind::SumSquare,
        "ReduceL1" => ReduceKind::L1,
        "ReduceL2" => ReduceKind::L2,
        "ReduceLogSum" => ReduceKind::LogSum,
        "ReduceLogSumExp" => ReduceKind::LogSumExp,
        other => return Err(internal!("{other} is not a reduction")),
    };
    let x = cx.input(0)?;
    let keepdims = cx.flag("keepdims", true)?;
    let noop_with_empty_axes = cx.flag("noop_with_empty_axes", false)?;
    let mut axes = cx.ints("axes")?;
    let mut inputs = vec![x];
    if let Some(v) = cx.opt(1) {
        match cx.fact(v).as_dims().and_then(|d| d.iter().map(Dim::as_const).collect()) {
            Some(numbers) => axes = Some(numbers),
            None => inputs.push(v),
        }
    }
    let op = Reduce { kind, axes, keepdims, noop_with_empty_axes, select_last_index: false };
    Ok(vec![cx.add(op, &inputs)?])
}

fn arg(cx: &mut ImportCx<'_>) -> Result<Vec<ValueId>> {
    let x = cx.input(0)?;
    let kind = if cx.op_type == "ArgMax" { ReduceKind::ArgMax } else { ReduceKind::ArgMin };
    let op = Reduce {
        kind,
        axes: Some(vec![cx.int("axis", 0)?]),
        keepdims: cx.flag("keepdims", true)?,
        noop_with_empty_axes: false,
        select_last_index: cx.flag("select_last_index", false)?,
    };
    Ok(vec![cx.add(op, &[x])?])
}
