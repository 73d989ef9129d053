//! CPU steps of GatherElements and ScatterElements, and what the steps of index tuples share with them. Indices are read
//! when a step runs; a gather clamps one that is out of range, a scatter skips it.

use super::{GatherElements, rows};
use crate::base::dims::normalize_axis;
use crate::base::tensor::{Scalar, strides_of};
use crate::base::{DType, Result};
use crate::device::cpu::{SharedMut, for_each_task};
use crate::ops::scatter_elements::ScatterElements;
use crate::ops::scatter_elements::combine::Combine;
use crate::ops::transpose::strided::View;
use crate::ops::{CpuArgs, CpuStep, Problem};
use std::sync::atomic::AtomicPtr;
use std::sync::atomic::Ordering::Relaxed;

/// Elements of one task.
const TASK: usize = 1 << 14;

/// An operand of i32 or i64 that tasks read.
pub struct Indices {
    ptr: AtomicPtr<u8>,
    n: usize,
    dtype: DType,
}

impl Indices {
    /// # Safety
    /// The address holds `n` integers of this type, which nobody writes while this lives.
    pub unsafe fn new(ptr: *const u8, n: usize, dtype: DType) -> Indices {
        Indices { ptr: AtomicPtr::new(ptr as *mut u8), n, dtype }
    }

    pub fn get(&self, i: usize) -> i64 {
        assert!(i < self.n, "index {i} of {}", self.n);
        let ptr = self.ptr.load(Relaxed);
        // SAFETY: in range by the assertion, of the type by the promise of `new`.
        unsafe {
            match self.dtype {
                DType::I32 => ptr.cast::<i32>().add(i).read_unaligned() as i64,
                _ => ptr.cast::<i64>().add(i).read_unaligned(),
            }
        }
    }
}

/// The index counted from the start, which may still be out of range.
pub fn from_start(i: i64, n: usize) -> i64 {
    if i < 0 { i.saturating_add(n as i64) } else { i }
}

/// Copies one element of 1, 2, 4 or 8 bytes.
fn copy(dst: &mut [u8], src: &[u8]) {
    match (dst, src) {
        ([d], [s]) => *d = *s,
        ([a, b], [c, d]) => (*a, *b) = (*c, *d),
        (dst, src) => dst.copy_from_slice(src),
    }
}

/// Where every index of a walk stands: the flat position and the row of the data that it picks from.
struct Walk {
    view: View,
    axis: usize,
    stride: usize,
    n: usize,
    index_type: DType,
}

impl Walk {
    fn new(axis: i64, p: &Problem) -> Result<Option<Walk>> {
        let (Some(x), Some(indices)) = (p.input(0), p.input(1)) else { return Ok(None) };
        let axis = normalize_axis(axis, x.dims.len())?;
        Ok(Some(Walk {
            view: rows(&x.dims, &indices.dims, axis).collapsed(),
            axis: x.dims[axis],
            stride: strides_of(&x.dims)[axis],
            n: indices.numel(),
            index_type: indices.dtype,
        }))
    }

    /// Calls `f` with positions `begin..end` and their rows.
    fn each(&self, begin: usize, end: usize, mut f: impl FnMut(usize, usize)) {
        let (dims, strides) = (&self.view.dims, &self.view.strides);
        let mut coord = [0usize; crate::base::fact::MAX_RANK];
        let (mut row, mut left) = (0i64, begin);
        for d in (0..dims.len()).rev() {
            coord[d] = left % dims[d];
            left /= dims[d];
            row += coord[d] as i64 * strides[d];
        }
        for at in begin..end {
            f(at, row as usize);
            for d in (0..dims.len()).rev() {
                coord[d] += 1;
                row += strides[d];
                if coord[d] < dims[d] {
                    break;
                }
                row -= coord[d] as i64 * strides[d];
                coord[d] = 0;
            }
        }
    }
}

struct GatherStep {
    walk: Walk,
    size: usize,
    x_bytes: usize,
}

impl CpuStep for GatherStep {
    fn name(&self) -> String {
        "gather_elements".into()
    }

    unsafe fn run(&self, args: &CpuArgs<'_>) {
        let w = &self.walk;
        if w.n == 0 || self.x_bytes == 0 {
            return;
        }
        // SAFETY: the caller gives addresses of the tensors that the step was made for.
        let x = unsafe { std::slice::from_raw_parts(args.inputs[0], self.x_bytes) };
        // SAFETY: as above.
        let index = unsafe { Indices::new(args.inputs[1], w.n, w.index_type) };
        let y = SharedMut(args.outputs[0], w.n * self.size);
        for_each_task(w.n.div_ceil(TASK), |task| {
            w.each(task * TASK, ((task + 1) * TASK).min(w.n), |at, row| {
                let i = from_start(index.get(at), w.axis).clamp(0, w.axis as i64 - 1) as usize;
                let from = (row + i * w.stride) * self.size;
                // SAFETY: each position is written by one task.
                copy(unsafe { y.slice(at * self.size, self.size) }, &x[from..from + self.size]);
            });
        });
    }
}

pub fn step(op: &GatherElements, p: &Problem) -> Result<Option<Box<dyn CpuStep>>> {
    let (Some(walk), Some(x)) = (Walk::new(op.axis, p)?, p.input(0)) else { return Ok(None) };
    Ok(Some(Box::new(GatherStep { walk, size: x.dtype.size(), x_bytes: x.bytes() })))
}

struct ScatterStep {
    walk: Walk,
    dtype: DType,
    x_numel: usize,
    reduction: Combine,
}

impl ScatterStep {
    /// In order, so that the last update stays.
    fn scatter<T: Scalar>(&self, index: &Indices, updates: &[T], y: &mut [T]) {
        let w = &self.walk;
        w.each(0, w.n, |at, row| {
            let i = from_start(index.get(at), w.axis);
            if (0..w.axis as i64).contains(&i) {
                let to = &mut y[row + i as usize * w.stride];
                *to = self.reduction.apply(*to, updates[at]);
            }
        });
    }
}

impl CpuStep for ScatterStep {
    fn name(&self) -> String {
        format!("scatter_elements/{}", self.reduction.name())
    }

    unsafe fn run(&self, args: &CpuArgs<'_>) {
        if self.x_numel == 0 {
            return;
        }
        let n = self.walk.n;
        // SAFETY: the caller gives addresses of the tensors that the step was made for; the output overlaps no input.
        unsafe {
            std::ptr::copy_nonoverlapping(args.inputs[0], args.outputs[0], self.x_numel * self.dtype.size());
            if n > 0 {
                let index = Indices::new(args.inputs[1], n, self.walk.index_type);
                crate::dispatch!(self.dtype, T => self.scatter::<T>(
                    &index,
                    std::slice::from_raw_parts(args.inputs[2].cast(), n),
                    std::slice::from_raw_parts_mut(args.outputs[0].cast(), self.x_numel),
                ));
            }
        }
    }
}

pub fn scatter_step(op: &ScatterElements, p: &Problem) -> Result<Option<Box<dyn CpuStep>>> {
    let (Some(walk), Some(x)) = (Walk::new(op.axis, p)?, p.input(0)) else { return Ok(None) };
    Ok(Some(Box::new(ScatterStep { walk, dtype: x.dtype, x_numel: x.numel(), reduction: op.reduction })))
}
