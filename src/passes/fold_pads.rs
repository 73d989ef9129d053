//! A `Pad` in front of a window becomes the window's own padding.
//!
//! A convolution pads with zeros; an average that counts padding does too; a maximum pads with minus infinity, and zeros
//! serve as well when nothing below zero comes in. Only spatial axes, only additions, only explicit padding.

use super::query::{const_ints, const_scalar, is_absent, only_reader, pointwise};
use crate::base::Result;
use crate::base::dims::normalize_axis;
use crate::network::{Graph, Node, NodeId, Patch, ValueId};
use crate::ops::Op;
use crate::ops::pad::PadMode;
use crate::ops::pointwise::Func;
use crate::ops::pool::PoolKind;
use crate::ops::window::{AutoPad, ChannelOrder};
use crate::passes::{NodePass, PassCx};
use crate::{bail, ensure};

/// See the module's text.
pub struct FoldPads;

impl NodePass for FoldPads {
    fn name(&self) -> &'static str {
        "fold_pads"
    }

    fn rewrite(&self, g: &Graph, cx: &PassCx<'_>, n: NodeId) -> Result<Option<Patch>> {
        let node = g.node(n);
        if !matches!(node.op, Op::Conv(_) | Op::Pool(_)) {
            return Ok(None);
        }
        let order = match &node.op {
            Op::Conv(c) => c.order,
            Op::Pool(p) => p.order,
            _ => ChannelOrder::First,
        };
        if order.reads_last() {
            return Ok(None);
        }
        let Some(y) = node.inputs[0] else { return Ok(None) };
        let Some((_, pad)) = g.producer(y) else { return Ok(None) };
        let Op::Pad(attrs) = &pad.op else { return Ok(None) };
        // Another reader needs the padded copy anyway; reading it costs no more than padding here.
        if only_reader(g, y) != Some(n) {
            return Ok(None);
        }
        ensure!(attrs.mode == PadMode::Constant, Unsupported, "{:?} pads by {}", pad.name, attrs.mode.name());
        let Some(x) = pad.inputs[0] else { return Ok(None) };
        let rank = g.fact(x).rank();
        let value = match pad.inputs.get(2).copied().flatten() {
            None => 0.0,
            Some(v) => match const_scalar(g, v) {
                Some(v) => v,
                None => bail!(Unsupported, "the value that {:?} pads with is no constant", pad.name),
            },
        };
        let extra = spatial_pads(g, pad, rank)?;
        let op = match &node.op {
            Op::Conv(c) => {
                ensure!(value == 0.0, Unsupported, "{:?} pads with {value}, a convolution with 0", pad.name);
                let mut c = c.clone();
                c.pads = joined(&c.pads, &extra, &mut c.auto_pad)?;
                c.into()
            }
            Op::Pool(p) => {
                let mut p = p.clone();
                let had_padding = p.auto_pad == AutoPad::NotSet && p.pads.iter().any(|p| *p != 0);
                p.pads = joined(&p.pads, &extra, &mut p.auto_pad)?;
                ensure!(!p.ceil_mode, Unsupported, "with ceil_mode the last window depends on the padding");
                check_window(&p.pads, &p.kernel, &p.dilations)?;
                match p.kind {
                    PoolKind::Max => {
                        ensure!(!p.indices, Unsupported, "the indices count the padding");
                        let lowest = value == f64::NEG_INFINITY || value <= f32::MIN as f64;
                        let fits = lowest || (value == 0.0 && is_not_negative(g, x));
                        ensure!(fits, Unsupported, "{:?} pads with {value}, a maximum with -inf", pad.name);
                    }
                    PoolKind::Average => {
                        ensure!(value == 0.0, Unsupported, "{:?} pads with {value}, an average with 0", pad.name);
                        let counted = p.count_include_pad || !had_padding;
                        ensure!(counted, Unsupported, "the average does not count its own padding");
                        p.count_include_pad = true;
                    }
                    PoolKind::Lp => ensure!(value == 0.0, Unsupported, "{:?} pads with {value}", pad.name),
                }
                p.into()
            }
            _ => return Ok(None),
        };
        let mut ins = node.inputs.clone();
        ins[0] = Some(x);
        let mut patch = cx.patch(g, &node.name);
        let new = patch.add_node(g, &node.name, op, &ins)?;
        for (old, new) in node.outputs.iter().zip(new) {
            patch.shunt(*old, new);
        }
        Ok(Some(patch))
    }
}

/// Padding of the spatial axes, begins then ends; refuses anything else.
fn spatial_pads(g: &Graph, pad: &Node, rank: usize) -> Result<Vec<i64>> {
    let Some(pads) = const_ints(g, pad, 1) else { bail!(Unsupported, "the padding of {:?} is not known", pad.name) };
    let axes: Vec<usize> = if is_absent(pad, 3) {
        (0..rank).collect()
    } else {
        let Some(axes) = const_ints(g, pad, 3) else { bail!(Unsupported, "the axes of {:?} are not known", pad.name) };
        axes.iter().map(|a| normalize_axis(*a, rank)).collect::<Result<_>>()?
    };
    ensure!(pads.len() == 2 * axes.len() && rank > 2, Unsupported, "{:?} has {} pads", pad.name, pads.len());
    let n_spatial = rank - 2;
    let mut out = vec![0; 2 * n_spatial];
    for (i, axis) in axes.iter().enumerate() {
        let (begin, end) = (pads[i], pads[i + axes.len()]);
        ensure!(begin >= 0 && end >= 0, Unsupported, "{:?} crops", pad.name);
        match axis.checked_sub(2) {
            Some(s) => {
                out[s] += begin;
                out[s + n_spatial] += end;
            }
            None => ensure!(begin == 0 && end == 0, Unsupported, "{:?} pads the batch or the channels", pad.name),
        }
    }
    Ok(out)
}

fn joined(own: &[i64], extra: &[i64], auto_pad: &mut AutoPad) -> Result<Vec<i64>> {
    match auto_pad {
        AutoPad::NotSet if own.len() == extra.len() => Ok(own.iter().zip(extra).map(|(a, b)| a + b).collect()),
        AutoPad::NotSet if own.is_empty() => Ok(extra.to_vec()),
        AutoPad::Valid => {
            *auto_pad = AutoPad::NotSet;
            Ok(extra.to_vec())
        }
        _ => bail!(Unsupported, "the window pads by {}", auto_pad.name()),
    }
}

/// Each window must hold at least one element of the input.
fn check_window(pads: &[i64], kernel: &[i64], dilations: &[i64]) -> Result<()> {
    for (i, p) in pads.iter().enumerate() {
        let axis = i % kernel.len().max(1);
        let span = (kernel[axis] - 1) * dilations.get(axis).copied().unwrap_or(1) + 1;
        ensure!(*p < span, Unsupported, "padding {p} is as large as the window of {span}");
    }
    Ok(())
}

/// The value comes out of a function that gives nothing below zero.
fn is_not_negative(g: &Graph, x: ValueId) -> bool {
    let Some((_, node)) = g.producer(x) else { return false };
    let Some(p) = pointwise(node) else { return false };
    let Some(last) = (p.outputs[0] as usize).checked_sub(p.n_inputs()).map(|i| &p.instrs[i]) else { return false };
    matches!(last.func, Func::Relu | Func::Sigmoid | Func::Abs | Func::HardSigmoid)
}
