//! Import of Pad: attributes before opset 11, operands from there on, axes from 18, `wrap` from 19.

use super::{Pad, PadMode};
use crate::base::{DType, Result, Tensor};
use crate::network::ValueId;
use crate::ops::reshape::Reshape;
use crate::ops::{ImportCx, OnnxOp, onnx};
use crate::{ensure, err};

pub const TABLE: &[OnnxOp] = &[
    onnx("Pad", 1, pad_1),
    onnx("Pad", 11, pad_11),
    OnnxOp { domain: "com.microsoft", name: "Pad", since: 1, import: contrib_pad },
];

/// As the standard's, but the pads may also be a matrix of one row.
fn contrib_pad(cx: &mut ImportCx<'_>) -> Result<Vec<ValueId>> {
    let pads = cx.input(1)?;
    if cx.shape(pads).rank() == 2 {
        cx.inputs[1] = Some(cx.add(Reshape::to_shape(vec![-1]), &[pads])?);
    }
    pad_11(cx)
}

fn mode(cx: &ImportCx<'_>) -> Result<PadMode> {
    let mode = cx.string("mode", "constant")?;
    PadMode::from_name(&mode).ok_or_else(|| {
        err!(InvalidArgument, "attribute mode: expected constant, edge, reflect or wrap, got {mode:?}")
    })
}

fn pad_1(cx: &mut ImportCx<'_>) -> Result<Vec<ValueId>> {
    let x = cx.input(0)?;
    let mode = mode(cx)?;
    let value = cx.float("value", 0.0)?;
    // Opset 1 called the attribute "paddings".
    let pads = match cx.ints("pads")? {
        Some(p) => Some(p),
        None => cx.ints("paddings")?,
    };
    let pads = pads.ok_or_else(|| err!(InvalidArgument, "attribute pads is missing"))?;
    let pads = cx.constant(Tensor::from_slice(&[pads.len()], &pads));
    let mut inputs = vec![x, pads];
    if value != 0.0 {
        let dtype = cx.fact(x).dtype;
        inputs.push(cx.constant(Tensor::scalar(value).cast(dtype)));
    }
    Ok(vec![cx.add(Pad { mode }, &inputs)?])
}

fn pad_11(cx: &mut ImportCx<'_>) -> Result<Vec<ValueId>> {
    let (x, pads) = (cx.input(0)?, cx.input(1)?);
    let mode = mode(cx)?;
    let mut value = cx.opt(2);
    if let Some(t) = value.and_then(|v| cx.as_const(v)) {
        // Some exporters leave an empty tensor where they mean no value.
        if t.numel() == 0 {
            value = None;
        } else {
            let dtype = cx.fact(x).dtype;
            ensure!(
                t.dtype() == dtype || t.dtype() == DType::F32,
                InvalidArgument,
                "input 2: the value is {} where x is {dtype}",
                t.dtype()
            );
            if t.dtype() != dtype {
                value = Some(cx.constant(t.cast(dtype)));
            }
        }
    }
    let mut inputs = vec![Some(x), Some(pads), value, cx.opt(3)];
    while inputs.last() == Some(&None) {
        inputs.pop();
    }
    Ok(vec![cx.add_opt(Pad { mode }, &inputs)?])
}
