//! Import of MaxPool, AveragePool, LpPool and their global forms.

use super::{Pool, PoolKind};
use crate::base::{Attrs, Result, Tensor};
use crate::network::ValueId;
use crate::ops::conv::{resolve_auto_pad, window_attrs};
use crate::ops::reduce::{Reduce, ReduceKind};
use crate::ops::transpose::Transpose;
use crate::ops::window::AutoPad;
use crate::ops::{ImportCx, OnnxOp, onnx};
use crate::{ensure, err};

pub(super) const TABLE: &[OnnxOp] = &[
    onnx("MaxPool", 1, max_pool),
    onnx("AveragePool", 1, average_pool),
    onnx("LpPool", 1, lp_pool),
    onnx("GlobalMaxPool", 1, |cx| global(cx, ReduceKind::Max)),
    onnx("GlobalAveragePool", 1, |cx| global(cx, ReduceKind::Mean)),
    onnx("GlobalLpPool", 1, global_lp),
    OnnxOp { domain: "com.microsoft", name: "NhwcMaxPool", since: 1, import: nhwc_max_pool },
];

/// The attributes that all three kinds share.
fn pool_op(cx: &ImportCx<'_>, kind: PoolKind) -> Result<Pool> {
    let kernel =
        cx.ints("kernel_shape")?.ok_or_else(|| err!(InvalidArgument, "attribute kernel_shape is missing"))?;
    let x = cx.shape(cx.input(0)?);
    ensure!(
        x.rank() == kernel.len() + 2,
        InvalidArgument,
        "kernel_shape {kernel:?} has not one number for each spatial axis of {x}"
    );
    let mut a = window_attrs(cx, kernel.len())?;
    let ceil_mode = cx.flag("ceil_mode", false)?;
    // SAME has a rule of its own for sizes; the rounding is not looked at.
    let rounds = matches!(a.auto_pad, AutoPad::NotSet | AutoPad::Valid);
    resolve_auto_pad(&mut a, &kernel, &x)?;
    Ok(Pool {
        kind,
        kernel,
        strides: a.strides,
        pads: a.pads,
        dilations: a.dilations,
        auto_pad: a.auto_pad,
        ceil_mode: ceil_mode && rounds,
        count_include_pad: false,
        p: 2,
        indices: false,
        storage_order: 0,
        order: Default::default(),
    })
}

fn max_pool(cx: &mut ImportCx<'_>) -> Result<Vec<ValueId>> {
    let mut op = pool_op(cx, PoolKind::Max)?;
    op.storage_order = cx.int("storage_order", 0)?;
    op.indices = cx.n_outputs > 1;
    let x = cx.input(0)?;
    cx.add_multi(op, &[Some(x)])
}

/// Channels last: between two transposes.
fn nhwc_max_pool(cx: &mut ImportCx<'_>) -> Result<Vec<ValueId>> {
    let x = cx.input(0)?;
    let rank = cx.shape(x).rank() as i64;
    ensure!(rank >= 3, InvalidArgument, "input 0: expected [n, spatial.., c], got {}", cx.shape(x));
    let to: Vec<i64> = [0, rank - 1].into_iter().chain(1..rank - 1).collect();
    let back: Vec<i64> = std::iter::once(0).chain(2..rank).chain([1]).collect();
    let x = cx.add(Transpose { perm: to }, &[x])?;
    cx.inputs[0] = Some(x);
    let op = pool_op(cx, PoolKind::Max)?;
    let y = cx.add(op, &[x])?;
    Ok(vec![cx.add(Transpose { perm: back }, &[y])?])
}

fn average_pool(cx: &mut ImportCx<'_>) -> Result<Vec<ValueId>> {
    let mut op = pool_op(cx, PoolKind::Average)?;
    op.count_include_pad = cx.flag("count_include_pad", false)?;
    let x = cx.input(0)?;
    Ok(vec![cx.add(op, &[x])?])
}

/// The exponent; a float in opset 1.
fn exponent(cx: &ImportCx<'_>) -> Result<i64> {
    if cx.opset >= 2 {
        return cx.int("p", 2);
    }
    let p = cx.float("p", 2.0)?;
    ensure!(p.fract() == 0.0 && (1.0..1e6).contains(&p), Unsupported, "p = {p} is no whole number from 1");
    Ok(p as i64)
}

fn lp_pool(cx: &mut ImportCx<'_>) -> Result<Vec<ValueId>> {
    let mut op = pool_op(cx, PoolKind::Lp)?;
    op.p = exponent(cx)?;
    let x = cx.input(0)?;
    Ok(vec![cx.add(op, &[x])?])
}

/// One window over all spatial axes is a reduction.
fn global(cx: &mut ImportCx<'_>, kind: ReduceKind) -> Result<Vec<ValueId>> {
    let x = cx.input(0)?;
    let rank = cx.shape(x).rank();
    ensure!(rank >= 3, InvalidArgument, "input 0: expected [n, c, spatial..], got {}", cx.shape(x));
    let op = Reduce {
        kind,
        axes: Some((2..rank as i64).collect()),
        keepdims: true,
        noop_with_empty_axes: false,
        select_last_index: false,
    };
    Ok(vec![cx.add(op, &[x])?])
}

/// `(sum |x|^p)^(1/p)` spelled out, for windows whose size is not known yet.
fn global_lp_of_any_size(cx: &mut ImportCx<'_>, x: ValueId, p: i64) -> Result<Vec<ValueId>> {
    let dtype = cx.fact(x).dtype;
    let none = Attrs::new();
    let number = |v: f64| Tensor::scalar(v).cast(dtype);
    let exponent = cx.constant(number(p as f64));
    let root = cx.constant(number(1.0 / p as f64));
    let size = cx.call1("Abs", 13, &none, &[x])?;
    let power = cx.call1("Pow", 15, &none, &[size, exponent])?;
    cx.inputs[0] = Some(power);
    let sum = global(cx, ReduceKind::Sum)?;
    Ok(vec![cx.call1("Pow", 15, &none, &[sum[0], root])?])
}

fn global_lp(cx: &mut ImportCx<'_>) -> Result<Vec<ValueId>> {
    let p = exponent(cx)?;
    match p {
        1 => return global(cx, ReduceKind::L1),
        2 => return global(cx, ReduceKind::L2),
        _ => {}
    }
    let x = cx.input(0)?;
    let Some(kernel) = cx.shape(x).iter().skip(2).map(|d| d.as_const()).collect::<Option<Vec<i64>>>() else {
        return global_lp_of_any_size(cx, x, p);
    };
    let op = Pool {
        kind: PoolKind::Lp,
        kernel,
        strides: vec![],
        pads: vec![],
        dilations: vec![],
        auto_pad: AutoPad::NotSet,
        ceil_mode: false,
        count_include_pad: false,
        p,
        indices: false,
        storage_order: 0,
        order: Default::default(),
    };
    Ok(vec![cx.add(op, &[x])?])
}
