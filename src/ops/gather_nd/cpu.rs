//! CPU steps of GatherND and ScatterND. Indices are read when a step runs; a gather clamps one that is out of range, a
//! scatter skips it.

use super::{GatherND, Tuples};
use crate::base::tensor::Scalar;
use crate::base::{DType, Result};
use crate::device::cpu::{SharedMut, for_each_task};
use crate::ops::gather_elements::cpu::{Indices, from_start};
use crate::ops::scatter_elements::combine::Combine;
use crate::ops::scatter_nd::ScatterND;
use crate::ops::transpose::cpu::TASK_BYTES;
use crate::ops::{CpuArgs, CpuStep, Problem};

impl Tuples {
    /// Where the slice of tuple `r` begins, with indices clamped into range, and whether they were in it.
    fn clamped(&self, r: usize, indices: &Indices) -> (usize, bool) {
        let k = self.sizes.len();
        let (mut at, mut inside) = (r / self.per_batch.max(1) * self.batch, true);
        for (j, (size, stride)) in self.sizes.iter().zip(&self.strides).enumerate() {
            let i = from_start(indices.get(r * k + j), *size);
            inside &= (0..*size as i64).contains(&i);
            at += i.clamp(0, (*size as i64 - 1).max(0)) as usize * stride;
        }
        (at, inside)
    }

    fn n_indices(&self) -> usize {
        self.n() * self.sizes.len()
    }
}

struct GatherStep {
    tuples: Tuples,
    size: usize,
    x_bytes: usize,
    index_type: DType,
}

impl CpuStep for GatherStep {
    fn name(&self) -> String {
        "gather_nd".into()
    }

    unsafe fn run(&self, args: &CpuArgs<'_>) {
        let (t, row) = (&self.tuples, self.tuples.inner * self.size);
        if t.n() == 0 || row == 0 || self.x_bytes == 0 {
            return;
        }
        // SAFETY: the caller gives addresses of the tensors that the step was made for.
        let x = unsafe { std::slice::from_raw_parts(args.inputs[0], self.x_bytes) };
        // SAFETY: as above.
        let index = unsafe { Indices::new(args.inputs[1], t.n_indices(), self.index_type) };
        let y = SharedMut(args.outputs[0], t.n() * row);
        let per_task = (TASK_BYTES / row).clamp(1, t.n());
        for_each_task(t.n().div_ceil(per_task), |task| {
            for r in task * per_task..((task + 1) * per_task).min(t.n()) {
                let from = t.clamped(r, &index).0 * self.size;
                // SAFETY: each slice is written by one task.
                unsafe { y.slice(r * row, row) }.copy_from_slice(&x[from..from + row]);
            }
        });
    }
}

pub fn step(op: &GatherND, p: &Problem) -> Result<Option<Box<dyn CpuStep>>> {
    let (Some(x), Some(indices)) = (p.input(0), p.input(1)) else { return Ok(None) };
    let tuples = Tuples::new(&x.dims, &indices.dims, op.batch_dims as usize)?;
    Ok(Some(Box::new(GatherStep { tuples, size: x.dtype.size(), x_bytes: x.bytes(), index_type: indices.dtype })))
}

struct ScatterStep {
    tuples: Tuples,
    dtype: DType,
    x_numel: usize,
    index_type: DType,
    reduction: Combine,
}

impl ScatterStep {
    /// In order, so that the last update stays.
    fn scatter<T: Scalar>(&self, index: &Indices, updates: &[T], y: &mut [T]) {
        let (t, inner) = (&self.tuples, self.tuples.inner);
        for r in 0..t.n() {
            let (at, inside) = t.clamped(r, index);
            if !inside {
                continue;
            }
            let (to, from) = (&mut y[at..at + inner], &updates[r * inner..(r + 1) * inner]);
            match self.reduction {
                Combine::None => to.copy_from_slice(from),
                kind => to.iter_mut().zip(from).for_each(|(to, from)| *to = kind.apply(*to, *from)),
            }
        }
    }
}

impl CpuStep for ScatterStep {
    fn name(&self) -> String {
        format!("scatter_nd/{}", self.reduction.name())
    }

    unsafe fn run(&self, args: &CpuArgs<'_>) {
        if self.x_numel == 0 {
            return;
        }
        let n = self.tuples.n() * self.tuples.inner;
        // SAFETY: the caller gives addresses of the tensors that the step was made for; the output overlaps no input.
        unsafe {
            std::ptr::copy_nonoverlapping(args.inputs[0], args.outputs[0], self.x_numel * self.dtype.size());
            if n > 0 {
                let index = Indices::new(args.inputs[1], self.tuples.n_indices(), self.index_type);
                crate::dispatch!(self.dtype, T => self.scatter::<T>(
                    &index,
                    std::slice::from_raw_parts(args.inputs[2].cast(), n),
                    std::slice::from_raw_parts_mut(args.outputs[0].cast(), self.x_numel),
                ));
            }
        }
    }
}

pub fn scatter_step(op: &ScatterND, p: &Problem) -> Result<Option<Box<dyn CpuStep>>> {
    let (Some(x), Some(indices)) = (p.input(0), p.input(1)) else { return Ok(None) };
    Ok(Some(Box::new(ScatterStep {
        tuples: Tuples::new(&x.dims, &indices.dims, 0)?,
        dtype: x.dtype,
        x_numel: x.numel(),
        index_type: indices.dtype,
        reduction: op.reduction,
    })))
}
