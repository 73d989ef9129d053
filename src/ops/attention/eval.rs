//! Reference attention: one query of one head at a time, in f64.

use super::{Attention, Causal, Geometry, LENGTHS, MASK, OFFSETS, SINKS, Scores};
use crate::base::{DType, Result, Tensor};
use crate::ops::{EvalCx, Problem, TensorDesc};

/// The least finite number of the type that scores of operands of this type are in.
pub(super) fn lowest(dtype: DType) -> f64 {
    if dtype == DType::F64 { f64::MIN } else { f32::MIN as f64 }
}

/// The problem of tensors.
fn problem(cx: &EvalCx<'_>) -> Result<Problem> {
    let desc = |t: &Tensor| TensorDesc { dtype: t.dtype(), dims: t.shape().to_vec() };
    let outputs = cx.outputs.iter().map(|f| Ok(TensorDesc { dtype: f.dtype, dims: f.shape.to_concrete()? }));
    Ok(Problem {
        inputs: cx.inputs.iter().map(|t| t.map(desc)).collect(),
        outputs: outputs.collect::<Result<_>>()?,
        known: vec![None; cx.inputs.len()],
    })
}

pub(super) fn eval(op: &Attention, cx: &EvalCx<'_>) -> Result<Vec<Tensor>> {
    let p = problem(cx)?;
    let g = Geometry::new(op, &p)?;
    for out in &p.outputs {
        crate::base::tensor::checked_bytes(DType::F64, &out.dims)?;
    }
    let data = (0..3).map(|i| Ok(cx.opt(i).map(|t| t.to_f64s()).unwrap_or_default())).collect::<Result<Vec<_>>>()?;
    let [q, k, v] = [0, 1, 2].map(|i| data[g.sources[i]].get(g.firsts[i]..).unwrap_or(&[]));
    let mask = cx.opt(MASK).map(|t| t.to_f64s());
    let lengths = cx.opt(LENGTHS).map(|t| t.to_i64s());
    let offsets = cx.opt(OFFSETS).map(|t| t.to_i64s());
    let sinks = cx.opt(SINKS).map(|t| t.to_f64s());
    let (scale, cap) = (op.scale_for(g.size), op.softcap as f64);
    let lowest = lowest(g.dtype);
    let mut y = vec![0.0; p.outputs[0].numel()];
    let mut scores = vec![0.0; p.outputs.get(1).map_or(0, TensorDesc::numel)];
    let mut s = vec![0.0f64; g.kv_len];
    for unit in 0..g.batch * g.q_heads * g.q_len {
        let (b, h, i) = (unit / g.q_len / g.q_heads, unit / g.q_len % g.q_heads, unit % g.q_len);
        let at = |t: [usize; 3], h: usize, i: usize| b * t[0] + h * t[1] + i * t[2];
        let (row, kv_head) = (at(g.q, h, i), h / g.group());
        let offset = offsets.as_ref().map_or(0, |o| o[if g.shared_offset { 0 } else { b }]);
        let seen = g.keys(op, i, lengths.as_ref().map(|l| l[b]), offset);
        let mut show = |s: &[f64], want: Scores| {
            if op.scores == want {
                scores[unit * g.kv_len..(unit + 1) * g.kv_len].copy_from_slice(s);
            }
        };
        for (j, s) in s.iter_mut().enumerate() {
            let key = at(g.k, kv_head, j);
            *s = scale * (0..g.size).fold(0.0, |a, c| a + q[row + c] * k[key + c]);
        }
        show(&s, Scores::Raw);
        if cap > 0.0 {
            s.iter_mut().for_each(|s| *s = cap * (*s / cap).tanh());
        }
        show(&s, Scores::Capped);
        for (j, s) in s.iter_mut().enumerate() {
            let masked = g.mask.map(|m| {
                let here = b * m.strides[0] + h * m.strides[1] + i * m.strides[2] + j * m.strides[3];
                match &mask {
                    Some(_) if j >= m.n_keys => f64::NEG_INFINITY,
                    Some(v) if m.is_bool => if v[here] != 0.0 { 0.0 } else { f64::NEG_INFINITY },
                    Some(v) => v[here],
                    None => 0.0,
                }
            });
            let later = op.causal == Causal::Lowest && j as i64 > offset.saturating_add(i as i64);
            *s = match seen.contains(&j) {
                true if later => *s + lowest,
                true => *s + masked.unwrap_or(0.0),
                false => f64::NEG_INFINITY,
            };
        }
        show(&s, Scores::Masked);
        let sink = sinks.as_ref().map(|s| s[h]).or(op.smooth.then_some(0.0));
        let max = s.iter().copied().chain(sink).fold(f64::NEG_INFINITY, f64::max);
        let weight = |s: f64| if s == f64::NEG_INFINITY { 0.0 } else { (s - max).exp() };
        let sum: f64 = s.iter().copied().chain(sink).map(weight).sum();
        s.iter_mut().for_each(|s| *s = if sum == 0.0 { 0.0 } else { weight(*s) / sum });
        show(&s, Scores::Softmax);
        for c in 0..g.v_size {
            // A key without weight does not take part, whatever its value is.
            let terms = s.iter().enumerate().filter(|(_, s)| **s != 0.0);
            y[at(g.y, h, i) + c] = terms.fold(0.0, |a, (j, s)| a + s * v[at(g.v, kv_head, j) + c]);
        }
    }
    let outputs = [y, scores];
    Ok(p.outputs.iter().zip(outputs).map(|(d, v)| Tensor::from_slice(&d.dims, &v).cast(d.dtype)).collect())
}
