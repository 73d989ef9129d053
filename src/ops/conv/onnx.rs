//! Import of Conv, and of FusedConv of com.microsoft.

use super::Conv;
use crate::base::{Result, Shape};
use crate::network::ValueId;
use crate::ops::pointwise::{Func, Program};
use crate::ops::window::{AutoPad, Axis, Windows, kernel_sizes};
use crate::ops::{ImportCx, OnnxOp, onnx};
use crate::{bail, ensure, err};

pub(super) const TABLE: &[OnnxOp] = &[
    onnx("Conv", 1, conv),
    OnnxOp { domain: "com.microsoft", name: "FusedConv", since: 1, import: fused_conv },
];

/// Window attributes as convolution and pooling share them, lists filled up to `n` spatial axes.
pub(crate) struct WindowAttrs {
    pub strides: Vec<i64>,
    pub pads: Vec<i64>,
    pub dilations: Vec<i64>,
    pub auto_pad: AutoPad,
}

/// Reads strides, pads, dilations and auto_pad.
pub(crate) fn window_attrs(cx: &ImportCx<'_>, n: usize) -> Result<WindowAttrs> {
    let name = cx.string("auto_pad", "NOTSET")?;
    let auto_pad = AutoPad::from_name(&name).ok_or_else(|| err!(InvalidArgument, "auto_pad {name:?} is not known"))?;
    let list = |name: &str, len: usize, default: i64| -> Result<Vec<i64>> {
        let v = cx.ints(name)?.unwrap_or_default();
        ensure!(
            v.is_empty() || v.len() == len,
            InvalidArgument,
            "attribute {name}: expected {len} numbers, got {}",
            v.len()
        );
        Ok(if v.is_empty() { vec![default; len] } else { v })
    };
    Ok(WindowAttrs {
        strides: list("strides", n, 1)?,
        pads: list("pads", 2 * n, 0)?,
        dilations: list("dilations", n, 1)?,
        auto_pad,
    })
}

/// Replaces `auto_pad` by explicit pads where they do not depend on a dimension that is still open.
pub(crate) fn resolve_auto_pad(a: &mut WindowAttrs, kernel: &[i64], input: &Shape) -> Result<()> {
    if a.auto_pad == AutoPad::NotSet {
        return Ok(());
    }
    let n = kernel.len();
    let axes = Windows {
        strides: &a.strides,
        pads: &[],
        dilations: &a.dilations,
        auto_pad: a.auto_pad,
        ceil_mode: false,
    }
    .axes(kernel)?;
    let mut pads = vec![0; 2 * n];
    for (i, axis) in axes.iter().enumerate() {
        let Some((begin, end)) = fixed_pads(axis, input[2 + i].as_const())? else { return Ok(()) };
        (pads[i], pads[n + i]) = (begin, end);
    }
    (a.pads, a.auto_pad) = (pads, AutoPad::NotSet);
    Ok(())
}

fn fixed_pads(axis: &Axis, input: Option<i64>) -> Result<Option<(i64, i64)>> {
    // With stride 1 the padding of SAME is one less than the window for every input; VALID pads nothing.
    let size = match input {
        Some(v) => v,
        None if axis.stride == 1 || axis.auto_pad == AutoPad::Valid => axis.span(),
        None => return Ok(None),
    };
    let out = axis.output(&size.into())?.as_const().unwrap_or(0);
    Ok(Some(axis.pads(size, out)))
}

/// Fails when a `kernel_shape` attribute disagrees with the weight.
pub(crate) fn check_kernel_shape(cx: &ImportCx<'_>, kernel: &[i64]) -> Result<()> {
    if let Some(k) = cx.ints("kernel_shape")? {
        ensure!(
            k == kernel,
            InvalidArgument,
            "attribute kernel_shape is {k:?} but the weight's kernel is {kernel:?}"
        );
    }
    Ok(())
}

fn conv(cx: &mut ImportCx<'_>) -> Result<Vec<ValueId>> {
    let op = conv_op(cx)?;
    let inputs = [Some(cx.input(0)?), Some(cx.input(1)?), cx.opt(2)];
    let n = if inputs[2].is_some() { 3 } else { 2 };
    Ok(vec![cx.add_opt(op, &inputs[..n])?])
}

fn conv_op(cx: &ImportCx<'_>) -> Result<Conv> {
    let (x, w) = (cx.fact(cx.input(0)?), cx.fact(cx.input(1)?));
    let kernel = kernel_sizes(&w)?;
    check_kernel_shape(cx, &kernel)?;
    let mut a = window_attrs(cx, kernel.len())?;
    ensure!(x.rank() == w.rank(), InvalidArgument, "input ranks differ: {} and {}", x.shape, w.shape);
    resolve_auto_pad(&mut a, &kernel, &x.shape)?;
    Ok(Conv {
        strides: a.strides,
        pads: a.pads,
        dilations: a.dilations,
        group: cx.int("group", 1)?,
        auto_pad: a.auto_pad,
        order: Default::default(),
        epilogue: None,
    })
}

/// Y = activation(conv(X, W) + B + Z).
fn fused_conv(cx: &mut ImportCx<'_>) -> Result<Vec<ValueId>> {
    let mut op = conv_op(cx)?;
    let dtype = cx.fact(cx.input(0)?).dtype;
    let z = cx.opt(3);
    let mut p = Program::identity(dtype);
    let mut r = 0;
    if z.is_some() {
        p = Program::single(Func::Add, &[dtype, dtype])?;
        r = p.outputs[0];
    }
    let name = cx.string("activation", "")?;
    let params = cx.attrs.floats("activation_params")?.unwrap_or_default();
    let (func, defaults): (Option<Func>, &[f64]) = match name.as_str() {
        "" => (None, &[]),
        "Relu" => (Some(Func::Relu), &[]),
        "Sigmoid" => (Some(Func::Sigmoid), &[]),
        "Tanh" => (Some(Func::Tanh), &[]),
        "LeakyRelu" => (Some(Func::LeakyRelu), &[0.01]),
        "Clip" => (Some(Func::Clip), &[f32::MIN as f64, f32::MAX as f64]),
        "HardSigmoid" => (Some(Func::HardSigmoid), &[0.2, 0.5]),
        "HardSwish" => (Some(Func::HardSwish), &[]),
        other => bail!(Unsupported, "activation {other:?} is not known"),
    };
    if let Some(func) = func {
        let mut args = vec![r];
        for (i, d) in defaults.iter().enumerate() {
            args.push(p.push_const(params.get(i).map_or(*d, |v| *v as f64), dtype)?);
        }
        p.outputs = vec![p.push(func, &args)?];
    }
    if !p.is_identity() {
        op.epilogue = Some(p);
    }
    let mut inputs = vec![Some(cx.input(0)?), Some(cx.input(1)?), cx.opt(2)];
    inputs.extend(z.map(Some));
    Ok(vec![cx.add_opt(op, &inputs)?])
}
