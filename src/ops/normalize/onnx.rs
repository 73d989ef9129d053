//! Import of layer, root-mean-square, instance, group, mean-variance and Lp normalization.

use super::{Affine, Normalize};
use crate::base::{DType, Dim, Result};
use crate::network::ValueId;
use crate::ops::compose::{binary, cast, pointwise, reduce, transpose, unsqueeze, wide};
use crate::ops::pointwise::Func;
use crate::ops::reduce::ReduceKind;
use crate::ops::{ImportCx, OnnxOp, onnx};
use crate::{bail, ensure, err};

const fn contrib(name: &'static str, import: fn(&mut ImportCx<'_>) -> Result<Vec<ValueId>>) -> OnnxOp {
    OnnxOp { domain: "com.microsoft", name, since: 1, import }
}

pub(super) const TABLE: &[OnnxOp] = &[
    // Before opset 17 it is an operator of ONNX Runtime, which registers it in both domains.
    onnx("LayerNormalization", 1, |cx| layer(cx, true)),
    contrib("LayerNormalization", |cx| layer(cx, true)),
    onnx("RMSNormalization", 23, |cx| layer(cx, false)),
    onnx("SimplifiedLayerNormalization", 1, |cx| layer(cx, false)),
    contrib("SimplifiedLayerNormalization", |cx| layer(cx, false)),
    contrib("SkipLayerNormalization", super::skip::skip_layer),
    contrib("SkipSimplifiedLayerNormalization", super::skip::skip_layer),
    contrib("EmbedLayerNormalization", super::skip::embed_layer),
    onnx("InstanceNormalization", 1, instance),
    onnx("GroupNormalization", 18, |cx| group(cx, Affine::Group)),
    onnx("GroupNormalization", 21, |cx| group(cx, Affine::Channel)),
    contrib("GroupNorm", |cx| contrib_group(cx, false)),
    contrib("SkipGroupNorm", |cx| contrib_group(cx, true)),
    onnx("MeanVarianceNormalization", 9, mean_variance),
    onnx("LpNormalization", 1, lp),
    onnx("LRN", 1, super::local::import),
];

/// Scale and bias as operands of one row each, when their shape is that of a row.
fn is_row(row: &[Dim], param: &[Dim]) -> bool {
    let ones = param.iter().take_while(|d| d.is(1)).count().min(param.len().saturating_sub(row.len()));
    let param = &param[ones..];
    // A size that is a number other than 1 broadcasts to nothing but itself.
    param.len() == row.len()
        && param.iter().zip(row).all(|(p, r)| p == r || (p.as_const().is_some_and(|n| n != 1) && r.as_const().is_none()))
}

/// LayerNormalization, RMSNormalization and their old names. The third output is the inverse deviation, which is the
/// second one where nothing is centered.
fn layer(cx: &mut ImportCx<'_>, centered: bool) -> Result<Vec<ValueId>> {
    let (x, scale, bias) = (cx.input(0)?, cx.input(1)?, if centered { cx.opt(2) } else { None });
    let axis = cx.int("axis", -1)?;
    let mut op = Normalize::rows(axis, centered, cx.float("epsilon", 1e-5)?);
    let stash = stash_type(cx)?;
    op.stats = cx.n_outputs > 1;
    let shape = cx.shape(x);
    ensure!(shape.rank() >= 1, InvalidArgument, "normalization of a scalar");
    let first = shape.axis(axis)?;
    let row = &shape[first..];
    let rows = is_row(row, &cx.shape(scale)) && bias.is_none_or(|b| is_row(row, &cx.shape(b)));
    let mut out = match rows {
        true => cx.add_multi(op, &[Some(x), Some(scale), bias])?,
        false => {
            let mut out = cx.add_multi(op, &[Some(x)])?;
            let to = cx.fact(scale).dtype;
            let normal = cast(cx, out[0], to)?;
            let inputs: Vec<ValueId> = [normal, scale].into_iter().chain(bias).collect();
            out[0] = pointwise(cx, &inputs, |p| {
                let scaled = p.push(Func::Mul, &[0, 1])?;
                if inputs.len() == 3 { p.push(Func::Add, &[scaled, 2]) } else { Ok(scaled) }
            })?;
            ensure!(
                cx.shape(out[0]).rank() == shape.rank(),
                InvalidArgument,
                "scale {} or bias does not broadcast to x {shape}",
                cx.shape(scale)
            );
            out
        }
    };
    for v in out.iter_mut().skip(1) {
        *v = cast(cx, *v, stash)?;
    }
    if !centered && out.len() == 3 {
        out.remove(1);
    }
    Ok(out)
}

/// The type of the statistics that are given out.
pub(super) fn stash_type(cx: &ImportCx<'_>) -> Result<DType> {
    Ok(match cx.int("stash_type", 1)? {
        1 => DType::F32,
        10 => DType::F16,
        11 => DType::F64,
        16 => DType::BF16,
        v => bail!(Unsupported, "attribute stash_type: expected a floating-point type, got {v}"),
    })
}

fn instance(cx: &mut ImportCx<'_>) -> Result<Vec<ValueId>> {
    if cx.opset < 6 {
        cx.ints("consumed_inputs")?;
    }
    let (x, scale, bias) = (cx.input(0)?, cx.input(1)?, cx.input(2)?);
    let mut op = Normalize::rows(2, true, cx.float("epsilon", 1e-5)?);
    op.affine = Affine::Channel;
    Ok(vec![cx.add(op, &[x, scale, bias])?])
}

fn group_op(cx: &ImportCx<'_>, attribute: &str, affine: Affine) -> Result<Normalize> {
    let groups = cx.attrs.int(attribute)?.ok_or_else(|| err!(InvalidArgument, "attribute {attribute} is missing"))?;
    ensure!(groups >= 1, InvalidArgument, "attribute {attribute}: {groups} groups");
    let epsilon = cx.float("epsilon", 1e-5)?;
    Ok(Normalize { axis: 0, groups, affine, centered: true, epsilon, stats: false, sum: false })
}

fn group(cx: &mut ImportCx<'_>, affine: Affine) -> Result<Vec<ValueId>> {
    let (x, scale, bias) = (cx.input(0)?, cx.input(1)?, cx.input(2)?);
    let op = group_op(cx, "num_groups", affine)?;
    stash_type(cx)?;
    Ok(vec![cx.add(op, &[x, scale, bias])?])
}

/// GroupNorm and SkipGroupNorm of com.microsoft: channels last, with SiLU where `activation` is 1. The second output of the
/// latter is the sum that was normalized.
fn contrib_group(cx: &mut ImportCx<'_>, skips: bool) -> Result<Vec<ValueId>> {
    let (mut x, scale, bias) = (cx.input(0)?, cx.input(1)?, cx.input(2)?);
    let op = group_op(cx, "groups", Affine::Channel)?;
    let last = cx.flag("channels_last", true)?;
    let activation = cx.flag("activation", false)?;
    let (rank, dtype) = (cx.shape(x).rank(), cx.fact(x).dtype);
    ensure!(rank >= 2, InvalidArgument, "x: expected rank 2 or more, got {}", cx.shape(x));
    let mut sum = None;
    if skips {
        let mut skip = cx.input(3)?;
        if cx.shape(skip).rank() == 2 && rank > 2 {
            let inner: Vec<i64> = (1..rank as i64 - 1).collect();
            skip = unsqueeze(cx, skip, &inner)?;
        }
        let inputs: Vec<ValueId> = [x, skip].into_iter().chain(cx.opt(4)).collect();
        x = pointwise(cx, &inputs, |p| {
            let s = p.push(Func::Add, &[0, 1])?;
            if inputs.len() == 3 { p.push(Func::Add, &[s, 2]) } else { Ok(s) }
        })?;
        sum = Some(x);
    }
    let to_first: Vec<usize> = [0, rank - 1].into_iter().chain(1..rank - 1).collect();
    let to_last: Vec<usize> = [0].into_iter().chain(2..rank).chain([1]).collect();
    let mut y = if last && rank > 2 { transpose(cx, x, &to_first)? } else { x };
    y = cx.add(op, &[y, scale, bias])?;
    if activation || cx.fact(y).dtype != dtype {
        y = pointwise(cx, &[y], |p| {
            let v = if activation { p.push(Func::Silu, &[0])? } else { 0 };
            p.push_cast(v, dtype)
        })?;
    }
    if last && rank > 2 {
        y = transpose(cx, y, &to_last)?;
    }
    Ok([y].into_iter().chain(sum).collect())
}

/// (x - mean) / (deviation + 1e-9) over any axes.
fn mean_variance(cx: &mut ImportCx<'_>) -> Result<Vec<ValueId>> {
    let x = cx.input(0)?;
    let axes = cx.ints("axes")?.unwrap_or_else(|| vec![0, 2, 3]);
    let dtype = cx.fact(x).dtype;
    ensure!(dtype.is_float(), Unsupported, "MeanVarianceNormalization does not take {dtype}");
    let v = cast(cx, x, wide(dtype))?;
    let mean = reduce(cx, ReduceKind::Mean, v, &axes, true)?;
    let d = binary(cx, Func::Sub, v, mean)?;
    let squares = binary(cx, Func::Mul, d, d)?;
    let variance = reduce(cx, ReduceKind::Mean, squares, &axes, true)?;
    let y = pointwise(cx, &[d, variance], |p| {
        let deviation = p.push(Func::Sqrt, &[1])?;
        let tiny = p.push_const(1e-9, wide(dtype))?;
        let below = p.push(Func::Add, &[deviation, tiny])?;
        let y = p.push(Func::Div, &[0, below])?;
        p.push_cast(y, dtype)
    })?;
    Ok(vec![y])
}

/// x / |x| along one axis, 0 where that norm is 0.
fn lp(cx: &mut ImportCx<'_>) -> Result<Vec<ValueId>> {
    let x = cx.input(0)?;
    let kind = match cx.int("p", 2)? {
        1 => ReduceKind::L1,
        2 => ReduceKind::L2,
        p => bail!(InvalidArgument, "attribute p: expected 1 or 2, got {p}"),
    };
    let axis = cx.int("axis", -1)?;
    let dtype = cx.fact(x).dtype;
    ensure!(dtype.is_float(), Unsupported, "LpNormalization does not take {dtype}");
    let v = cast(cx, x, wide(dtype))?;
    let norm = reduce(cx, kind, v, &[axis], true)?;
    let y = pointwise(cx, &[v, norm], |p| {
        let zero = p.push_const(0.0, wide(dtype))?;
        let is_zero = p.push(Func::Equal, &[1, zero])?;
        let q = p.push(Func::Div, &[0, 1])?;
        let y = p.push(Func::Select, &[is_zero, zero, q])?;
        p.push_cast(y, dtype)
    })?;
    Ok(vec![y])
}
