//! The reference: each row in f64.

use super::{BIAS, Normalize, SCALE, SKIP, SKIP_BIAS, stat_type};
use crate::base::{Result, Tensor};
use crate::ops::EvalCx;
use crate::ops::epilogue::round_to;

pub(super) fn eval(op: &Normalize, cx: &EvalCx<'_>) -> Result<Vec<Tensor>> {
    let x = cx.input(0)?;
    let g = op.geometry(x.shape())?;
    let read = |i: usize| cx.opt(i).map(|t| t.to_f64s());
    let (scale, bias, skip, skip_bias) = (read(SCALE), read(BIAS), read(SKIP), read(SKIP_BIAS));
    let mut v = x.to_f64s();
    if let Some(skip) = skip {
        v.iter_mut().zip(&skip).for_each(|(v, s)| *v += s);
    }
    if let Some(b) = skip_bias {
        v.iter_mut().enumerate().for_each(|(i, v)| *v += b[i % g.cols]);
    }
    let sum = op.sum.then(|| round_to(x.dtype(), x.shape(), &v));
    let (mut means, mut factors) = (Vec::with_capacity(g.rows), Vec::with_capacity(g.rows));
    for r in 0..g.rows {
        let row = &mut v[r * g.cols..(r + 1) * g.cols];
        let n = g.cols as f64;
        let mean = if op.centered { row.iter().sum::<f64>() / n } else { 0.0 };
        let variance = row.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / n;
        let factor = 1.0 / (variance + op.epsilon as f64).sqrt();
        for (c, v) in row.iter_mut().enumerate() {
            let at = r % g.period * g.step + c / g.run;
            *v = (*v - mean) * factor;
            if let Some(s) = &scale {
                *v *= s[at];
            }
            if let Some(b) = &bias {
                *v += b[at];
            }
        }
        means.push(mean);
        factors.push(factor);
    }
    let shape = |i: usize| cx.outputs[i].shape.to_concrete();
    let mut out = vec![round_to(cx.outputs[0].dtype, x.shape(), &v)];
    if op.stats {
        let t = stat_type(x.dtype());
        out.extend([round_to(t, &shape(1)?, &means), round_to(t, &shape(2)?, &factors)]);
    }
    out.extend(sum);
    Ok(out)
}
