//! Import of DeformConv: columns, then a convolution by 1x1 whose channels are the taps.

use super::DeformColumns;
use crate::base::Result;
use crate::network::ValueId;
use crate::ops::conv::{Conv, check_kernel_shape, window_attrs};
use crate::ops::reshape::Reshape;
use crate::ops::window::{AutoPad, kernel_sizes};
use crate::ops::{ImportCx, OnnxOp, onnx};
use crate::{ensure, err};

pub(super) const TABLE: &[OnnxOp] = &[onnx("DeformConv", 19, deform_conv)];

fn deform_conv(cx: &mut ImportCx<'_>) -> Result<Vec<ValueId>> {
    let (x, w, offset) = (cx.input(0)?, cx.input(1)?, cx.input(2)?);
    let (bias, mask) = (cx.opt(3), cx.opt(4));
    let weight = cx.fact(w);
    ensure!(weight.rank() >= 3, InvalidArgument, "input 1: expected [m, c/group, kernel..], got {}", weight.shape);
    let kernel = kernel_sizes(&weight)?;
    check_kernel_shape(cx, &kernel)?;
    let a = window_attrs(cx, kernel.len())?;
    let group = cx.int("group", 1)?;
    let taps = kernel.iter().try_fold(1i64, |n, k| n.checked_mul(*k));
    let channels = weight.shape[1].as_const().zip(taps).and_then(|(c, t)| c.checked_mul(t));
    let columns_of_group = channels
        .ok_or_else(|| err!(Unsupported, "input 1: channels and kernel must be numbers, got {}", weight.shape))?;
    if let (Some(c), Some(cg)) = (cx.shape(x).get(1).and_then(|d| d.as_const()), weight.shape[1].as_const()) {
        ensure!(
            group >= 1 && c == cg.saturating_mul(group),
            InvalidArgument,
            "input 0: expected {cg} channels in each of {group} groups, got {c}"
        );
    }
    let op = DeformColumns {
        kernel: kernel.clone(),
        strides: a.strides,
        pads: a.pads,
        dilations: a.dilations,
        groups: cx.int("offset_group", 1)?,
    };
    let inputs = [Some(x), Some(offset), mask];
    let columns = cx.add_opt(op, &inputs[..if mask.is_some() { 3 } else { 2 }])?;
    // The weight [m, c/group, kernel..] as [m, c/group * taps, 1..].
    let ones = std::iter::repeat_n(1, kernel.len());
    let m = weight.shape[0].as_const().unwrap_or(-1);
    let w = cx.add(Reshape::to_shape([m, columns_of_group].into_iter().chain(ones).collect()), &[w])?;
    let op = Conv {
        strides: vec![],
        pads: vec![],
        dilations: vec![],
        group,
        auto_pad: AutoPad::NotSet,
        order: Default::default(),
        epilogue: None,
    };
    let inputs = [Some(columns), Some(w), bias];
    let y = cx.add_opt(op, &inputs[..if bias.is_some() { 3 } else { 2 }])?;
    Ok(vec![y])
}
