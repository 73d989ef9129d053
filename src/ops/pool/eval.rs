//! Reference pooling: visits each window's elements in row-major order.

use super::{Pool, PoolKind};
use crate::base::dtype::Element;
use crate::base::{DType, Result, Tensor};
use crate::dispatch;
use crate::internal;
use crate::ops::window::Window3;
use crate::ops::{EvalCx, epilogue};

pub(super) fn eval(op: &Pool, cx: &EvalCx<'_>) -> Result<Vec<Tensor>> {
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
        for_each_output(&win, |at| {
            let (mut sum, mut count) = (0.0, 0);
            for_each_tap(&win, at, |i| {
                sum += if op.kind == PoolKind::Lp { src[i].abs().powi(op.p as i32) } else { src[i] };
                count += 1;
            });
            out.push(match op.kind {
                PoolKind::Lp => sum.powf(1.0 / op.p as f64),
                _ if op.count_include_pad => sum / padded_taps(&win, at).max(1) as f64,
                _ => sum / count.max(1) as f64,
            });
        });
    }
    Ok(vec![epilogue::round_to(x.dtype(), &shape, &out)])
}

fn for_each_output(win: &Window3, mut f: impl FnMut([usize; 3])) {
    for d in 0..win.output[0] {
        for h in 0..win.output[1] {
            for w in 0..win.output[2] {
                f([d, h, w]);
            }
        }
    }
}

/// Calls `f` with the index inside the plane of each element that the window of output `at` covers.
fn for_each_tap(win: &Window3, at: [usize; 3], mut f: impl FnMut(usize)) {
    for a in 0..win.kernel[0] {
        let Some(d) = win.source(0, at[0], a) else { continue };
        for b in 0..win.kernel[1] {
            let Some(h) = win.source(1, at[1], b) else { continue };
            for c in 0..win.kernel[2] {
                let Some(w) = win.source(2, at[2], c) else { continue };
                f((d * win.input[1] + h) * win.input[2] + w);
            }
        }
    }
}

/// Elements of the window that lie inside input and padding: a window may reach beyond when sizes are rounded up.
fn padded_taps(win: &Window3, at: [usize; 3]) -> usize {
    (0..3)
        .map(|i| {
            let room = win.pad_begin[i] + win.input[i] + win.pad_end[i];
            (0..win.kernel[i]).filter(|k| at[i] * win.stride[i] + k * win.dilation[i] < room).count()
        })
        .product()
}

fn max(op: &Pool, x: &Tensor, shape: &[usize], win: &Window3, planes: usize) -> Result<Vec<Tensor>> {
    let (y, at) = dispatch!(x.dtype(), T => max_of::<T>(x, win, planes)?);
    let mut out = vec![y.reshaped(shape)?];
    if op.indices {
        let [d, h, w] = win.input;
        let n_in = d * h * w;
        let index = |i: usize| match i.checked_sub(1) {
            None => -1,
            Some(i) if op.storage_order == 0 => i as i64,
            Some(i) => {
                let (plane, i) = (i / n_in, i % n_in);
                (plane * n_in + i / (h * w) + i / w % h * d + i % w * d * h) as i64
            }
        };
        out.push(Tensor::from_slice(shape, &at.into_iter().map(index).collect::<Vec<i64>>()));
    }
    Ok(out)
}

/// The maxima, flat, and one more than the index of each in the whole input; 0 for an empty window.
fn max_of<T: Element + PartialOrd>(x: &Tensor, win: &Window3, planes: usize) -> Result<(Tensor, Vec<usize>)> {
    let n_in: usize = win.input.iter().product();
    let xs = x.slice::<T>();
    let lowest = lowest(x.dtype()).ok_or_else(|| internal!("max pooling of {} passed infer", x.dtype()))?;
    let lowest = lowest.slice::<T>()[0];
    let (mut values, mut places) = (Vec::new(), Vec::new());
    for plane in 0..planes {
        let src = &xs[plane * n_in..][..n_in];
        for_each_output(win, |at| {
            let (mut best, mut place) = (lowest, 0);
            for_each_tap(win, at, |i| {
                // A NaN is the only value that does not equal itself; the first one stays.
                #[expect(clippy::eq_op, reason = "true for NaN only")]
                let takes = place == 0 || src[i] > best || (src[i] != src[i] && best == best);
                if takes {
                    (best, place) = (src[i], plane * n_in + i + 1);
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
