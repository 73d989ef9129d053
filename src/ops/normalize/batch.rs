//! Batch normalization in training mode: the batch's own statistics, and the running ones updated.

use crate::base::Result;
use crate::network::ValueId;
use crate::ops::ImportCx;
use crate::ops::compose::{along, binary, cast, pointwise, reduce, squeeze, wide};
use crate::ops::pointwise::Func;
use crate::ops::reduce::ReduceKind;

/// What training takes besides x.
pub(crate) struct Training {
    pub scale: ValueId,
    pub bias: ValueId,
    pub running_mean: ValueId,
    pub running_var: ValueId,
    pub epsilon: f64,
    pub momentum: f64,
    /// False: statistics for each place of a sample instead of each channel.
    pub spatial: bool,
}

/// Values of y, running mean, running variance, mean, variance. The variance is that of the population.
pub(crate) fn train(cx: &mut ImportCx<'_>, x: ValueId, t: &Training) -> Result<Vec<ValueId>> {
    let (rank, dtype) = (cx.shape(x).rank(), cx.fact(x).dtype);
    let axes: Vec<i64> = (0..rank as i64).filter(|a| if t.spatial { *a != 1 } else { *a == 0 }).collect();
    let w = wide(dtype);
    let v = cast(cx, x, w)?;
    let mean = reduce(cx, ReduceKind::Mean, v, &axes, true)?;
    let d = binary(cx, Func::Sub, v, mean)?;
    let squares = binary(cx, Func::Mul, d, d)?;
    let var = reduce(cx, ReduceKind::Mean, squares, &axes, true)?;
    let spread = |cx: &mut ImportCx<'_>, v: ValueId| -> Result<ValueId> {
        let v = cast(cx, v, w)?;
        if t.spatial { along(cx, v, 1, rank) } else { Ok(v) }
    };
    let (scale, bias) = (spread(cx, t.scale)?, spread(cx, t.bias)?);
    let y = pointwise(cx, &[d, var, scale, bias], |p| {
        let eps = p.push_const(t.epsilon, w)?;
        let var = p.push(Func::Add, &[1, eps])?;
        let deviation = p.push(Func::Sqrt, &[var])?;
        let unit = p.push(Func::Div, &[0, deviation])?;
        let scaled = p.push(Func::Mul, &[unit, 2])?;
        let y = p.push(Func::Add, &[scaled, 3])?;
        p.push_cast(y, dtype)
    })?;
    let (mean, var) = (squeeze(cx, mean, &axes)?, squeeze(cx, var, &axes)?);
    let mut out = vec![y];
    for (running, now) in [(t.running_mean, mean), (t.running_var, var)] {
        let kept = cx.fact(running).dtype;
        let running = cast(cx, running, w)?;
        out.push(pointwise(cx, &[running, now], |p| {
            let (a, b) = (p.push_const(t.momentum, w)?, p.push_const(1.0 - t.momentum, w)?);
            let old = p.push(Func::Mul, &[0, a])?;
            let new = p.push(Func::Mul, &[1, b])?;
            let sum = p.push(Func::Add, &[old, new])?;
            p.push_cast(sum, kept)
        })?);
    }
    for (running, now) in [(t.running_mean, mean), (t.running_var, var)] {
        let kept = cx.fact(running).dtype;
        out.push(cast(cx, now, kept)?);
    }
    Ok(out)
}
