//! Reference pooling: visits each window's elements in row-major order.

use super::{Pool, PoolKind};
use crate::base::dtype::Element;
use crate::base::{DType, Fact, Result, Tensor};
use crate::dispatch;
use crate::internal;
use crate::ops::transpose::Transpose;
use crate::ops::window::{ChannelOrder, Window3};
use crate::ops::{EvalCx, InferCx, OpDef, epilogue};

pub(super) fn eval(op: &Pool, cx: &EvalCx<'_>) -> Result<Vec<Tensor>> {
    if op.order == ChannelOrder::Last {
        return eval_last(op, cx);
    }
    let x = cx.input(0)?;
    let shape = cx.outputs[0].shape.to_concrete()?;
    crate::base::tensor::checked_bytes(DType::F64, &shape)?;
    let win = op.window(x.shape(), &shape)?;
    let planes = shape[0] * shape[1];
    if op.kind == PoolKind::Max {
        return max(op, x, &shape, &win, planes);
    }
    let xs = x.to_f64s();
    let n_in: usize = win.input.iter().product();
    let mut out = Vec::with_capacity(shape.iter().product());
    for plane in 0..planes {
        let src = &xs[plane * n_in..][..n_in];
        win.for_each_output(|at| {
            let (mut sum, mut count) = (0.0, 0);
            win.for_each_tap(at, |i| {
                sum += if op.kind == PoolKind::Lp { src[i].abs().powi(op.p as i32) } else { src[i] };
                count += 1;
            });
            out.push(match op.kind {
                PoolKind::Lp => sum.powf(1.0 / op.p as f64),
                _ if op.count_include_pad => sum / win.padded_taps(at).max(1) as f64,
                _ => sum / count.max(1) as f64,
            });
        });
    }
    Ok(vec![epilogue::round_to(x.dtype(), &shape, &out)])
}

/// Channels last: transposed, pooled, and transposed back.
fn eval_last(op: &Pool, cx: &EvalCx<'_>) -> Result<Vec<Tensor>> {
    let rank = cx.outputs[0].rank() as i64;
    let transposed = |x: &Tensor, perm: Vec<i64>| -> Result<Tensor> {
        let t = Transpose { perm };
        let outputs = t.infer(&InferCx::new(&[Some(&Fact::new(x.dtype(), x.shape()))]))?;
        let mut y = t.eval(&EvalCx { inputs: &[Some(x)], outputs: &outputs })?;
        Ok(y.swap_remove(0))
    };
    let first = transposed(cx.input(0)?, [0, rank - 1].into_iter().chain(1..rank - 1).collect())?;
    let op = Pool { order: ChannelOrder::First, ..op.clone() };
    let outputs = op.infer(&InferCx::new(&[Some(&Fact::new(first.dtype(), first.shape()))]))?;
    let y = eval(&op, &EvalCx { inputs: &[Some(&first)], outputs: &outputs })?;
    Ok(vec![transposed(&y[0], std::iter::once(0).chain(2..rank).chain([1]).collect())?])
}

fn max(op: &Pool, x: &Tensor, shape: &[usize], win: &Window3, planes: usize) -> Result<Vec<Tensor>> {
    let (y, at) = dispatch!(x.dtype(), T => max_of::<T>(x, win, planes)?);
    let mut out = vec![y.reshaped(shape)?];
    if op.indices {
        let per_plane = win.output.iter().product::<usize>().max(1);
        let index = |(i, place): (usize, usize)| op.index(win, i / per_plane, place);
        out.push(Tensor::from_slice(shape, &at.into_iter().enumerate().map(index).collect::<Vec<i64>>()));
    }
    Ok(out)
}

/// The maxima, flat, and the place of each inside its plane; `usize::MAX` for an empty window.
fn max_of<T: Element + PartialOrd>(x: &Tensor, win: &Window3, planes: usize) -> Result<(Tensor, Vec<usize>)> {
    let n_in: usize = win.input.iter().product();
    let xs = x.slice::<T>();
    let lowest = lowest(x.dtype()).ok_or_else(|| internal!("max pooling of {} passed infer", x.dtype()))?;
    let lowest = lowest.slice::<T>()[0];
    let (mut values, mut places) = (Vec::new(), Vec::new());
    for plane in 0..planes {
        let src = &xs[plane * n_in..][..n_in];
        win.for_each_output(|at| {
            let (mut best, mut place) = (lowest, usize::MAX);
            win.for_each_tap(at, |i| {
                // A NaN is the only value that does not equal itself; the first one stays.
                #[expect(clippy::eq_op, reason = "true for NaN only")]
                let takes = place == usize::MAX || src[i] > best || (src[i] != src[i] && best == best);
                if takes {
                    (best, place) = (src[i], i);
                }
            });
            values.push(best);
            places.push(place);
        });
    }
    Ok((Tensor::from_slice(&[values.len()], &values), places))
}

/// The lowest value of a type: minus infinity for floats.
fn lowest(dtype: DType) -> Option<Tensor> {
    Some(match dtype {
        d if d.is_float() => Tensor::scalar(f64::NEG_INFINITY).cast(d),
        DType::I8 => Tensor::scalar(i8::MIN),
        DType::I16 => Tensor::scalar(i16::MIN),
        DType::I32 => Tensor::scalar(i32::MIN),
        DType::I64 => Tensor::scalar(i64::MIN),
        d if d.is_int() => Tensor::zeros(d, &[]),
        _ => return None,
    })
}
