//! CPU steps that move elements: a copy through strides, rows from pitch to pitch.

use super::strided::View;
use crate::device::cpu::transpose::{MAX_RANK, copy_strided_bytes};
use crate::device::cpu::{SharedMut, for_each_task};
use crate::ops::{CpuArgs, CpuStep, Problem};

/// Bytes that are worth a task.
pub const TASK_BYTES: usize = 64 << 10;

/// Output 0 is a view of input 0, copied.
pub struct ViewStep {
    name: &'static str,
    size: usize,
    dims: Vec<usize>,
    strides: Vec<isize>,
    offset: usize,
    in_bytes: usize,
    out_bytes: usize,
}

impl ViewStep {
    /// The step of a node whose output 0 is `view` of its input 0; `None` when the view has too many axes.
    pub fn boxed(name: &'static str, p: &Problem, view: &View) -> Option<Box<dyn CpuStep>> {
        let x = p.input(0)?;
        let v = view.collapsed();
        (v.dims.len() <= MAX_RANK).then(|| {
            Box::new(ViewStep {
                name,
                size: x.dtype.size(),
                strides: v.strides.iter().map(|s| *s as isize).collect(),
                offset: v.offset as usize,
                dims: v.dims,
                in_bytes: x.bytes(),
                out_bytes: p.outputs[0].bytes(),
            }) as Box<dyn CpuStep>
        })
    }
}

impl CpuStep for ViewStep {
    fn name(&self) -> String {
        self.name.into()
    }

    unsafe fn run(&self, args: &CpuArgs<'_>) {
        if self.out_bytes == 0 {
            return;
        }
        // SAFETY: the caller gives addresses of the tensors that the step was made for.
        let (x, y) = unsafe {
            (
                std::slice::from_raw_parts(args.inputs[0], self.in_bytes),
                std::slice::from_raw_parts_mut(args.outputs[0], self.out_bytes),
            )
        };
        copy_strided_bytes(self.size, y, &self.dims, x, self.offset, &self.strides);
    }
}

/// Rows of bytes from one pitch to another.
#[derive(Clone, Copy, Debug)]
pub struct Rows {
    pub rows: usize,
    /// Bytes of a row.
    pub len: usize,
    pub from_pitch: usize,
    pub to_pitch: usize,
}

impl Rows {
    /// Copies; in parallel when there is much to do.
    ///
    /// # Safety
    /// Each row lies inside of what the addresses point to, and source and destination do not overlap.
    pub unsafe fn copy(&self, src: *const u8, dst: *mut u8) {
        if self.rows == 0 || self.len == 0 {
            return;
        }
        let src = SharedMut(src as *mut u8, (self.rows - 1) * self.from_pitch + self.len);
        let dst = SharedMut(dst, (self.rows - 1) * self.to_pitch + self.len);
        let piece = self.len.min(TASK_BYTES);
        let pieces = self.len.div_ceil(piece);
        let units = self.rows * pieces;
        let per_task = (TASK_BYTES / piece).clamp(1, units);
        for_each_task(units.div_ceil(per_task), |task| {
            for unit in task * per_task..((task + 1) * per_task).min(units) {
                let (row, at) = (unit / pieces, unit % pieces * piece);
                let n = piece.min(self.len - at);
                // SAFETY: inside by the caller's promise; each unit writes bytes of its own.
                unsafe {
                    dst.slice(row * self.to_pitch + at, n).copy_from_slice(src.slice(row * self.from_pitch + at, n));
                }
            }
        });
    }
}
