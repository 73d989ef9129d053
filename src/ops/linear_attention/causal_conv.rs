//! Import of CausalConvWithState: the past (or zeros) in front, a depthwise convolution, an activation; the last places
//! are the state.

use crate::base::{Result, Tensor};
use crate::network::ValueId;
use crate::ops::ImportCx;
use crate::ops::concat::Concat;
use crate::ops::conv::Conv;
use crate::ops::pad::{Pad, PadMode};
use crate::ops::pointwise::{Func, Pointwise, Program};
use crate::ops::slice::Slice;
use crate::ops::window::AutoPad;
use crate::{bail, ensure};

pub fn contrib(cx: &mut ImportCx<'_>) -> Result<Vec<ValueId>> {
    for (name, only) in [("ndim", 1), ("state_window", 0), ("channels_last", 0)] {
        let v = cx.int(name, only)?;
        ensure!(v == only, Unsupported, "attribute {name} = {v} is not supported");
    }
    let dilation = cx.int("dilation", 1)?;
    import(cx, dilation)
}

pub fn causal_conv(cx: &mut ImportCx<'_>) -> Result<Vec<ValueId>> {
    import(cx, 1)
}

fn import(cx: &mut ImportCx<'_>, dilation: i64) -> Result<Vec<ValueId>> {
    let (x, w) = (cx.input(0)?, cx.input(1)?);
    let (shape, w_shape) = (cx.shape(x), cx.shape(w));
    ensure!(shape.rank() == 3 && w_shape.rank() == 3, InvalidArgument, "expected rank 3, got {shape} and {w_shape}");
    ensure!(dilation >= 1, InvalidArgument, "attribute dilation is {dilation}");
    let (Some(channels), Some(kernel)) = (w_shape[0].as_const(), w_shape[2].as_const()) else {
        bail!(Unsupported, "a weight of shape {w_shape}: its sizes must be known")
    };
    ensure!(kernel >= 1 && w_shape[1].as_const().is_none_or(|d| d == 1), InvalidArgument, "a weight of shape {w_shape}");
    let state = (kernel - 1).saturating_mul(dilation);
    let padded = match cx.opt(3) {
        Some(past) => cx.add(Concat { axis: 2 }, &[past, x])?,
        None if state == 0 => x,
        None => {
            let pads = cx.constant(Tensor::from_slice(&[6], &[0, 0, state, 0, 0, 0]));
            cx.add(Pad { mode: PadMode::Constant }, &[x, pads])?
        }
    };
    let conv = Conv {
        strides: vec![1],
        pads: vec![0, 0],
        dilations: vec![dilation],
        group: channels,
        auto_pad: AutoPad::NotSet,
        order: Default::default(),
        epilogue: None,
    };
    let mut y = match cx.opt(2) {
        Some(bias) => cx.add(conv, &[padded, w, bias])?,
        None => cx.add(conv, &[padded, w])?,
    };
    match cx.string("activation", "none")?.as_str() {
        "none" => {}
        "silu" | "swish" => {
            let program = Program::single(Func::Silu, &[cx.fact(y).dtype])?;
            y = cx.add(Pointwise { program }, &[y])?;
        }
        name => bail!(InvalidArgument, "activation {name:?} is not none, silu or swish"),
    }
    let (start, end) = if state == 0 { (0, 0) } else { (-state, i64::MAX) };
    let [start, end, axis] = [start, end, 2].map(|v| cx.constant(Tensor::from_slice(&[1], &[v])));
    let last = cx.add(Slice {}, &[padded, start, end, axis])?;
    Ok(vec![y, last])
}
