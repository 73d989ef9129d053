//! The reference: each group of elements is gathered and folded, floats in f64 and integers exactly.

use super::{Reduce, ReduceKind};
use crate::base::tensor::strides_of;
use crate::base::{DType, Result, Tensor};
use crate::ensure;
use crate::ops::transpose::strided::for_each_index;

/// Reduces `axes` (sorted); `shape` is that of the output, with or without the reduced axes.
pub fn reduce(op: &Reduce, x: &Tensor, axes: &[usize], shape: &[usize]) -> Result<Tensor> {
    let strides = strides_of(x.shape());
    let kept: Vec<usize> = (0..x.rank()).filter(|i| !axes.contains(i)).collect();
    let sizes = |which: &[usize]| which.iter().map(|i| x.shape()[*i]).collect::<Vec<_>>();
    let (kept_dims, axes_dims) = (sizes(&kept), sizes(axes));
    let offset = |index: &[usize], which: &[usize]| -> usize {
        index.iter().zip(which).map(|(i, a)| i * strides[*a]).sum()
    };
    let mut inside = Vec::new();
    for_each_index(&axes_dims, |_, i| inside.push(offset(i, axes)));
    let mut bases = Vec::new();
    for_each_index(&kept_dims, |_, i| bases.push(offset(i, &kept)));
    if op.kind.is_arg() {
        ensure!(bases.is_empty() || !inside.is_empty(), InvalidArgument, "{} of no elements", op.kind.name());
    }
    let groups = bases.iter().map(|b| inside.iter().map(move |i| b + i));
    if x.dtype().is_float() {
        let v = x.to_f64s();
        let picked = groups.map(|g| g.map(|i| v[i]).collect::<Vec<f64>>());
        if op.kind.is_arg() {
            let above = |a: f64, b: f64| a > b || (a.is_nan() && !b.is_nan());
            let below = |a: f64, b: f64| a < b || (a.is_nan() && !b.is_nan());
            let out: Vec<i64> = picked.map(|g| position(op, &g, above, below)).collect();
            return Ok(Tensor::from_slice(shape, &out));
        }
        let out: Vec<f64> = picked.map(|g| fold_floats(op.kind, &g)).collect();
        return Ok(Tensor::from_slice(shape, &out).cast(x.dtype()));
    }
    let v: Vec<i128> = match x.dtype() {
        DType::U64 => x.slice::<u64>().iter().map(|v| *v as i128).collect(),
        _ => x.to_i64s().into_iter().map(|v| v as i128).collect(),
    };
    let picked = groups.map(|g| g.map(|i| v[i]).collect::<Vec<i128>>());
    if op.kind.is_arg() {
        let out: Vec<i64> = picked.map(|g| position(op, &g, |a, b| a > b, |a, b| a < b)).collect();
        return Ok(Tensor::from_slice(shape, &out));
    }
    if matches!(op.kind, ReduceKind::L2 | ReduceKind::LogSum | ReduceKind::LogSumExp) {
        // Roots and logarithms are computed as floats, then truncated and saturated as a cast does.
        let out: Vec<f64> =
            picked.map(|g| fold_floats(op.kind, &g.iter().map(|x| *x as f64).collect::<Vec<_>>())).collect();
        return Ok(Tensor::from_slice(shape, &out).cast(x.dtype()));
    }
    let limits = limits(x.dtype());
    // Truncation to 64 bits and then to the type is how integers wrap.
    let out: Vec<i64> = picked.map(|g| fold_ints(op.kind, &g, limits) as i64).collect();
    Ok(Tensor::from_slice(shape, &out).cast(x.dtype()))
}

/// Where the extreme element stands; NaN counts as more extreme than any number.
fn position<T: Copy>(op: &Reduce, v: &[T], greater: fn(T, T) -> bool, less: fn(T, T) -> bool) -> i64 {
    let better = if op.kind == ReduceKind::ArgMax { greater } else { less };
    let mut best = 0;
    for i in 1..v.len() {
        let replace = match op.select_last_index {
            false => better(v[i], v[best]),
            true => !better(v[best], v[i]),
        };
        if replace {
            best = i;
        }
    }
    best as i64
}

fn fold_floats(kind: ReduceKind, v: &[f64]) -> f64 {
    use ReduceKind::*;
    let sum = |f: fn(f64) -> f64| v.iter().map(|x| f(*x)).sum::<f64>();
    let extreme = |start: f64, f: fn(f64, f64) -> f64| {
        v.iter().fold(start, |a, b| if a.is_nan() || b.is_nan() { f64::NAN } else { f(a, *b) })
    };
    match kind {
        Sum => sum(|x| x),
        Mean => sum(|x| x) / v.len() as f64,
        Max => extreme(f64::NEG_INFINITY, f64::max),
        Min => extreme(f64::INFINITY, f64::min),
        Prod => v.iter().product(),
        SumSquare => sum(|x| x * x),
        L1 => sum(f64::abs),
        L2 => sum(|x| x * x).sqrt(),
        LogSum => sum(|x| x).ln(),
        LogSumExp => {
            let max = extreme(f64::NEG_INFINITY, f64::max);
            // An infinite maximum would give inf - inf below.
            if max.is_infinite() { max } else { v.iter().map(|x| (x - max).exp()).sum::<f64>().ln() + max }
        }
        ArgMax | ArgMin => unreachable!("positions are found elsewhere"),
    }
}

/// Smallest and largest value of an integer type.
fn limits(dtype: DType) -> (i128, i128) {
    match dtype {
        DType::Bool => (0, 1),
        DType::U64 => (0, u64::MAX as i128),
        d => {
            let bits = 8 * d.size() as u32;
            if d.is_signed() { (-(1i128 << (bits - 1)), (1i128 << (bits - 1)) - 1) } else { (0, (1i128 << bits) - 1) }
        }
    }
}

fn fold_ints(kind: ReduceKind, v: &[i128], (min, max): (i128, i128)) -> i128 {
    use ReduceKind::*;
    let sum = |f: fn(i128) -> i128| v.iter().fold(0i128, |a, b| a.wrapping_add(f(*b)));
    match kind {
        Sum => sum(|x| x),
        Mean if v.is_empty() => 0,
        Mean => sum(|x| x) / v.len() as i128,
        Max => v.iter().copied().max().unwrap_or(min),
        Min => v.iter().copied().min().unwrap_or(max),
        Prod => v.iter().fold(1i128, |a, b| a.wrapping_mul(*b)),
        SumSquare => sum(|x| x.wrapping_mul(x)),
        L1 => sum(|x| x.wrapping_abs()),
        L2 | LogSum | LogSumExp | ArgMax | ArgMin => unreachable!("these are computed elsewhere"),
    }
}
