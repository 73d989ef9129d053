//! CPU step: one row of bytes per index. Indices are read when the step runs; one out of range is clamped.

use super::Gather;
use crate::base::dims::normalize_axis;
use crate::base::{DType, Result};
use crate::device::cpu::{SharedMut, for_each_task};
use crate::ops::transpose::cpu::TASK_BYTES;
use crate::ops::{CpuArgs, CpuStep, Problem};

struct GatherStep {
    outer: usize,
    axis: usize,
    n_index: usize,
    /// Bytes of one picked row.
    row: usize,
    index_type: DType,
}

impl CpuStep for GatherStep {
    fn name(&self) -> String {
        "gather".into()
    }

    unsafe fn run(&self, args: &CpuArgs<'_>) {
        let units = self.outer * self.n_index;
        if units == 0 || self.row == 0 || self.axis == 0 {
            return;
        }
        // SAFETY: the caller gives addresses of the tensors that the step was made for.
        let x = unsafe { std::slice::from_raw_parts(args.inputs[0], self.outer * self.axis * self.row) };
        let y = SharedMut(args.outputs[0], units * self.row);
        let indices = SharedMut(args.inputs[1] as *mut u8, self.n_index * self.index_type.size());
        let index = |k: usize| -> usize {
            let size = self.index_type.size();
            // SAFETY: only read, and by nobody written while the step runs.
            let bytes = unsafe { indices.slice(k * size, size) };
            let i = match bytes {
                [a, b, c, d] => i32::from_ne_bytes([*a, *b, *c, *d]) as i64,
                [a, b, c, d, e, f, g, h] => i64::from_ne_bytes([*a, *b, *c, *d, *e, *f, *g, *h]),
                _ => 0,
            };
            let n = self.axis as i64;
            (if i < 0 { i.saturating_add(n) } else { i }).clamp(0, n - 1) as usize
        };
        let per_task = (TASK_BYTES / self.row).clamp(1, units);
        for_each_task(units.div_ceil(per_task), |task| {
            for unit in task * per_task..((task + 1) * per_task).min(units) {
                let from = (unit / self.n_index * self.axis + index(unit % self.n_index)) * self.row;
                // SAFETY: each unit has a row of its own.
                unsafe { y.slice(unit * self.row, self.row) }.copy_from_slice(&x[from..from + self.row]);
            }
        });
    }
}

pub fn step(op: &Gather, p: &Problem) -> Result<Option<Box<dyn CpuStep>>> {
    let (Some(x), Some(indices)) = (p.input(0), p.input(1)) else { return Ok(None) };
    let axis = normalize_axis(op.axis, x.dims.len())?;
    Ok(Some(Box::new(GatherStep {
        outer: x.dims[..axis].iter().product(),
        axis: x.dims[axis],
        n_index: indices.numel(),
        row: x.dims[axis + 1..].iter().product::<usize>() * x.dtype.size(),
        index_type: indices.dtype,
    })))
}
