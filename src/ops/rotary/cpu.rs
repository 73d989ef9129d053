//! CPU step for f32: one place of one batch entry, with all its heads, per unit of work.

use super::{Geometry, Rotary};
use crate::base::{DType, Result};
use crate::device::cpu::{SharedMut, for_each_task};
use crate::ops::{CpuArgs, CpuStep, Problem};

/// Elements that are worth a task.
const TASK_ELEMENTS: usize = 16 << 10;

struct RotaryStep {
    interleaved: bool,
    g: Geometry,
    /// Type of the positions.
    positions: Option<DType>,
    n_positions: usize,
}

/// # Safety
/// The address holds `n` elements of `T` for as long as the slice lives.
unsafe fn slice<'a, T>(args: &CpuArgs<'a>, i: usize, n: usize) -> &'a [T] {
    // SAFETY: the caller's promise; an empty tensor may have any address.
    if n == 0 { &[] } else { unsafe { std::slice::from_raw_parts(args.inputs[i].cast::<T>(), n) } }
}

impl CpuStep for RotaryStep {
    fn name(&self) -> String {
        "rotary".into()
    }

    unsafe fn run(&self, args: &CpuArgs<'_>) {
        let g = &self.g;
        let (places, n) = (g.batch * g.length, g.batch * g.length * g.heads * g.size);
        let half = g.dim / 2;
        if n == 0 {
            return;
        }
        // SAFETY: the caller gives addresses of the tensors that the step was made for.
        let (x, cos, sin) = unsafe { (slice::<f32>(args, 0, n), slice::<f32>(args, 1, g.rows * half), slice::<f32>(args, 2, g.rows * half)) };
        // SAFETY: as above; at most one of the two is not empty.
        let (narrow, wide) = unsafe {
            let count = |t: DType| if self.positions == Some(t) { self.n_positions } else { 0 };
            (slice::<i32>(args, 3, count(DType::I32)), slice::<i64>(args, 3, count(DType::I64)))
        };
        let position = |i: usize| narrow.get(i).map(|v| *v as i64).or(wide.get(i).copied()).unwrap_or(0);
        let y = SharedMut(args.outputs[0].cast::<f32>(), n);
        let per_task = (TASK_ELEMENTS / (g.heads * g.size)).clamp(1, places);
        for_each_task(places.div_ceil(per_task), |task| {
            for place in task * per_task..((task + 1) * per_task).min(places) {
                let (b, s) = (place / g.length, place % g.length);
                let row = g.row(b, s, position).clamp(0, g.rows.saturating_sub(1) as i64) as usize;
                let turned = if g.rows == 0 { 0 } else { half };
                let (cos, sin) = (&cos[row * turned..][..turned], &sin[row * turned..][..turned]);
                for h in 0..g.heads {
                    let at = b * g.strides[0] + s * g.strides[1] + h * g.strides[2];
                    let x = &x[at..at + g.size];
                    // SAFETY: each place has heads of its own.
                    let y = unsafe { y.slice(at, g.size) };
                    y[g.dim..].copy_from_slice(&x[g.dim..]);
                    if self.interleaved {
                        let pairs = x[..2 * turned].chunks_exact(2).zip(y.chunks_exact_mut(2));
                        for ((x, y), (c, s)) in pairs.zip(cos.iter().zip(sin)) {
                            (y[0], y[1]) = (c * x[0] - s * x[1], s * x[0] + c * x[1]);
                        }
                        continue;
                    }
                    let (re, im) = (&x[..turned], &x[half..half + turned]);
                    let (y_re, y_im) = y[..g.dim].split_at_mut(half);
                    for i in 0..turned {
                        y_re[i] = cos[i] * re[i] - sin[i] * im[i];
                        y_im[i] = sin[i] * re[i] + cos[i] * im[i];
                    }
                }
            }
        });
    }
}

pub fn step(op: &Rotary, p: &Problem) -> Result<Option<Box<dyn CpuStep>>> {
    let g = op.geometry(&p.inputs)?;
    if p.outputs[0].dtype != DType::F32 {
        return Ok(None);
    }
    let positions = p.input(3).map(|d| d.dtype);
    let n_positions = p.input(3).map_or(0, |d| d.numel());
    Ok(Some(Box::new(RotaryStep { interleaved: op.interleaved, g, positions, n_positions })))
}
