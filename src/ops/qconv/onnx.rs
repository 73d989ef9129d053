//! Import of ConvInteger and QLinearConv, and of QLinearConv and NhwcConv of com.microsoft.

use super::QConv;
use crate::base::{Attrs, Result};
use crate::network::ValueId;
use crate::ops::conv::{check_kernel_shape, resolve_auto_pad, window_attrs};
use crate::ops::qmatmul::{as_f32, move_channels};
use crate::ops::requant::{self, QOut};
use crate::ops::window::kernel_sizes;
use crate::ops::{ImportCx, OnnxOp, onnx};
use crate::ensure;

type Imported = Result<Vec<ValueId>>;

pub(super) const TABLE: &[OnnxOp] = &[
    onnx("ConvInteger", 10, conv_integer),
    onnx("QLinearConv", 10, qlinear_conv),
    OnnxOp { domain: "com.microsoft", name: "QLinearConv", since: 1, import: qlinear_conv },
    OnnxOp { domain: "com.microsoft", name: "NhwcConv", since: 1, import: nhwc_conv },
];

fn add(cx: &mut ImportCx<'_>, out: QOut, inputs: [Option<ValueId>; requant::N_INPUTS]) -> Result<ValueId> {
    let (Some(x), Some(w)) = (inputs[0], inputs[1]) else {
        crate::bail!(InvalidArgument, "a convolution needs two operands")
    };
    let (x, w) = (cx.fact(x), cx.fact(w));
    let kernel = kernel_sizes(&w)?;
    check_kernel_shape(cx, &kernel)?;
    let mut a = window_attrs(cx, kernel.len())?;
    ensure!(x.rank() == w.rank(), InvalidArgument, "input ranks differ: {} and {}", x.shape, w.shape);
    resolve_auto_pad(&mut a, &kernel, &x.shape)?;
    let op = QConv {
        strides: a.strides,
        pads: a.pads,
        dilations: a.dilations,
        group: cx.int("group", 1)?,
        auto_pad: a.auto_pad,
        out,
    };
    let n = inputs.iter().rposition(|v| v.is_some()).map_or(0, |i| i + 1);
    cx.add_opt(op, &inputs[..n])
}

fn conv_integer(cx: &mut ImportCx<'_>) -> Imported {
    let mut inputs = [None; requant::N_INPUTS];
    inputs[..4].copy_from_slice(&[Some(cx.input(0)?), Some(cx.input(1)?), cx.opt(2), cx.opt(3)]);
    Ok(vec![add(cx, QOut::I32, inputs)?])
}

fn qlinear_conv(cx: &mut ImportCx<'_>) -> Imported {
    let mut v: Vec<ValueId> = (0..8).map(|i| cx.input(i)).collect::<Result<_>>()?;
    let bias = cx.opt(8);
    // An attribute of com.microsoft's form only.
    let last = cx.flag("channels_last", false)?;
    if last {
        v[0] = move_channels(cx, v[0], false)?;
    }
    for i in [1, 4, 6] {
        v[i] = as_f32(cx, v[i])?;
    }
    let y = add(cx, QOut::Quantized, [Some(v[0]), Some(v[3]), Some(v[2]), Some(v[5]), bias, Some(v[1]), Some(v[4]), Some(v[6]), Some(v[7])])?;
    Ok(vec![if last { move_channels(cx, y, true)? } else { y }])
}

/// Conv with channels last in x and y; the weight is as Conv's.
fn nhwc_conv(cx: &mut ImportCx<'_>) -> Imported {
    let (x, w, b) = (cx.input(0)?, cx.input(1)?, cx.opt(2));
    let x = move_channels(cx, x, false)?;
    let mut attrs = Attrs::new();
    for name in ["kernel_shape", "strides", "pads", "dilations"] {
        if let Some(v) = cx.ints(name)? {
            attrs.set(name, &v);
        }
    }
    attrs.set("auto_pad", &cx.string("auto_pad", "NOTSET")?);
    attrs.set("group", &cx.int("group", 1)?);
    let y = cx.call("Conv", 11, &attrs, &[Some(x), Some(w), b], 1)?;
    Ok(vec![move_channels(cx, y[0], true)?])
}
