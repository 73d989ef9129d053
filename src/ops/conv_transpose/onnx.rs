//! Import of ConvTranspose.

use super::ConvTranspose;
use crate::base::Result;
use crate::ensure;
use crate::network::ValueId;
use crate::ops::conv::{check_kernel_shape, window_attrs};
use crate::ops::window::kernel_sizes;
use crate::ops::{ImportCx, OnnxOp, onnx};

pub(super) const TABLE: &[OnnxOp] = &[onnx("ConvTranspose", 1, conv_transpose)];

fn conv_transpose(cx: &mut ImportCx<'_>) -> Result<Vec<ValueId>> {
    let kernel = kernel_sizes(&cx.fact(cx.input(1)?))?;
    check_kernel_shape(cx, &kernel)?;
    let n = kernel.len();
    let a = window_attrs(cx, n)?;
    let output_shape = match cx.ints("output_shape")? {
        None => None,
        Some(s) if s.is_empty() => None,
        Some(s) => {
            // Some exporters give batch and channels too.
            ensure!(
                s.len() == n || s.len() == n + 2,
                InvalidArgument,
                "attribute output_shape: expected {n} numbers, got {}",
                s.len()
            );
            Some(s[s.len() - n..].to_vec())
        }
    };
    let op = ConvTranspose {
        strides: a.strides,
        pads: a.pads,
        dilations: a.dilations,
        group: cx.int("group", 1)?,
        auto_pad: a.auto_pad,
        output_padding: cx.ints("output_padding")?.unwrap_or_default(),
        output_shape,
        epilogue: None,
    };
    let inputs = [Some(cx.input(0)?), Some(cx.input(1)?), cx.opt(2)];
    let n = if inputs[2].is_some() { 3 } else { 2 };
    Ok(vec![cx.add_opt(op, &inputs[..n])?])
}
