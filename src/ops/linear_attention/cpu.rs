//! CPU step for f32: one head of one batch entry a task, its state in the output.

use super::{BETA, DECAY, Geometry, LinearAttention, PAST};
use crate::base::{DType, Result};
use crate::device::cpu::{SharedMut, for_each_task};
use crate::ops::{CpuArgs, CpuStep, Problem};

struct LinearStep {
    g: Geometry,
    scale: f32,
    has_past: bool,
}

impl LinearStep {
    fn head(&self, unit: usize, x: [&[f32]; 5], state: &mut [f32], y: SharedMut<f32>) {
        let g = &self.g;
        let [q, k, v, decay, beta] = x;
        let (b, h) = (unit / g.kv_heads, unit % g.kv_heads);
        let n_out = g.out_heads();
        let (per_kv, per_q) = (n_out / g.kv_heads, n_out / g.q_heads);
        let first = h * per_kv;
        for t in 0..g.length {
            let place = b * g.length + t;
            let k = &k[(place * g.kv_heads + h) * g.key..][..g.key];
            let v = &v[(place * g.kv_heads + h) * g.value..][..g.value];
            // SAFETY: this task alone owns the outputs of its head.
            let out = unsafe { y.slice((place * n_out + first) * g.value, per_kv * g.value) };
            let u = &mut out[..g.value];
            u.fill(0.0);
            for (i, row) in state.chunks_exact_mut(g.value).enumerate() {
                if g.decay > 0 {
                    let at = (place * g.kv_heads + h) * g.decay + if g.decay == 1 { 0 } else { i };
                    let factor = decay[at].exp();
                    row.iter_mut().for_each(|s| *s *= factor);
                }
                if g.beta > 0 {
                    u.iter_mut().zip(&*row).for_each(|(u, s)| *u += k[i] * s);
                }
            }
            let rate = if g.beta > 0 { beta[place * g.beta + if g.beta == 1 { 0 } else { h }] } else { 1.0 };
            u.iter_mut().zip(v).for_each(|(u, v)| *u = rate * (v - *u));
            for (i, row) in state.chunks_exact_mut(g.value).enumerate() {
                row.iter_mut().zip(&*u).for_each(|(s, u)| *s += k[i] * u);
            }
            for (o, out) in out.chunks_exact_mut(g.value).enumerate() {
                let q = &q[(place * g.q_heads + (first + o) / per_q) * g.key..][..g.key];
                out.fill(0.0);
                for (row, q) in state.chunks_exact(g.value).zip(q) {
                    out.iter_mut().zip(row).for_each(|(y, s)| *y += self.scale * q * s);
                }
            }
        }
    }
}

impl CpuStep for LinearStep {
    fn name(&self) -> String {
        "linear_attention".into()
    }

    unsafe fn run(&self, args: &CpuArgs<'_>) {
        let g = &self.g;
        let places = g.batch * g.length;
        let floats = |i: usize, n: usize| match n {
            0 => &[][..],
            // SAFETY: the caller gives addresses of the tensors that the step was made for.
            n => unsafe { std::slice::from_raw_parts(args.inputs[i].cast::<f32>(), n) },
        };
        let (kv, part) = (places * g.kv_heads, g.key * g.value);
        let (q, k, v) = (floats(0, places * g.q_heads * g.key), floats(1, kv * g.key), floats(2, kv * g.value));
        let (decay, beta) = (floats(DECAY, kv * g.decay), floats(BETA, places * g.beta));
        let units = g.batch * g.kv_heads;
        let past = floats(PAST, if self.has_past { units * part } else { 0 });
        let y = SharedMut(args.outputs[0].cast::<f32>(), places * g.out_heads() * g.value);
        let states = SharedMut(args.outputs[1].cast::<f32>(), units * part);
        if g.value == 0 {
            return;
        }
        for_each_task(units, |unit| {
            // SAFETY: each head has a state of its own.
            let state = unsafe { states.slice(unit * part, part) };
            match self.has_past {
                true => state.copy_from_slice(&past[unit * part..(unit + 1) * part]),
                false => state.fill(0.0),
            }
            self.head(unit, [q, k, v, decay, beta], state, y);
        });
    }
}

pub fn step(op: &LinearAttention, p: &Problem) -> Result<Option<Box<dyn CpuStep>>> {
    let g = op.geometry(&p.inputs)?;
    if p.outputs.iter().any(|o| o.dtype != DType::F32) {
        return Ok(None);
    }
    let has_past = p.input(PAST).is_some();
    Ok(Some(Box::new(LinearStep { g, scale: op.scale_for(g.key) as f32, has_past })))
}
