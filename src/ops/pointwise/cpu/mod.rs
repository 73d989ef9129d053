//! The CPU step of a program: cuts the output into blocks, finds each operand's part, and interprets.
//!
//! Dimensions are merged as far as every operand allows. Then an operand is *full* (the output's layout), a *number*, or
//! *strided*. With rows of some length, a block is a piece of one row, for which a strided operand is either a contiguous
//! piece or a number. With short rows, a block spans several of them and strided operands are copied out first (once, when
//! every block sees the same elements). Blocks are dealt out to a fixed number of tasks with scratch memory of their own.

mod block;
mod f32;
mod row;
mod typed;

pub use row::{RowOperand, RowProgram};

use super::Program;
use super::layout::{Access, Layout};
use crate::device::cpu::{self, Isa};
use crate::ops::{CpuArgs, CpuStep, Problem};
use block::{Blocks, Operand};

/// Elements of a block: a few registers of them fit in the first-level cache.
const BLOCK: usize = 1024;
/// From this length on a row is cut by itself.
const LONG_ROW: usize = 192;
/// Element operations that are worth a task.
const TASK_WORK: usize = 64 << 10;
const MAX_RANK: usize = 16;

struct Input {
    access: Access,
    /// Strided along the innermost merged dimension alone.
    inner_only: bool,
    size: usize,
    /// Offset of its gathered elements in a task's scratch; unused unless rows are short.
    buffer: usize,
}

struct Step {
    blocks: Blocks,
    label: String,
    inputs: Vec<Input>,
    output_sizes: Vec<usize>,
    /// Merged dimensions.
    dims: Vec<usize>,
    numel: usize,
    /// Elements of a full block.
    len: usize,
    /// Blocks of one row, or 0 when a block is any run of elements.
    per_row: usize,
    n_units: usize,
    n_tasks: usize,
    task_bytes: usize,
    isa: Isa,
}

/// The step for these shapes, unless the program is too large for the interpreter.
pub(super) fn step(p: &Program, problem: &Problem) -> Option<Box<dyn CpuStep>> {
    let blocks = Blocks::new(p, false)?;
    let layout = Layout::new(p.n_inputs(), problem)?;
    if layout.dims.len() > MAX_RANK {
        return None;
    }
    let (numel, row) = (layout.numel, layout.row());
    let any_strided = layout.inputs.iter().any(|a| matches!(a, Access::Strided(_)));
    let (len, per_row, n_units) = match any_strided {
        false => (BLOCK, 0, numel.div_ceil(BLOCK)),
        true if row >= LONG_ROW => {
            let pieces = row.div_ceil(BLOCK);
            (row.div_ceil(pieces).next_multiple_of(16), pieces, numel / row.max(1) * pieces)
        }
        // Whole rows, so that a vector along the row is the same in every block.
        true => {
            let len = BLOCK / row.max(1) * row.max(1);
            (len, 0, numel.div_ceil(len))
        }
    };
    let mut task_bytes = blocks.scratch_bytes(len);
    let gathers = per_row == 0;
    let mut inputs = Vec::new();
    for (access, d) in layout.inputs.into_iter().zip(&p.inputs) {
        let buffer = task_bytes;
        let mut inner_only = false;
        if let Access::Strided(strides) = &access {
            inner_only = strides[..strides.len() - 1].iter().all(|s| *s == 0);
            task_bytes += if gathers { (len * d.size()).next_multiple_of(64) } else { 0 };
        }
        inputs.push(Input { access, inner_only, size: d.size(), buffer });
    }
    let work = numel.saturating_mul(1 + p.instrs.len());
    let n_tasks = (work / TASK_WORK).clamp(1, 2 * cpu::n_threads()).min(n_units.max(1));
    Some(Box::new(Step {
        blocks,
        label: p.label(),
        inputs,
        output_sizes: (0..p.outputs.len()).map(|i| p.output_dtype(i).size()).collect(),
        dims: layout.dims,
        numel,
        len,
        per_row,
        n_units,
        n_tasks,
        task_bytes: task_bytes.next_multiple_of(64),
        isa: Isa::detect(),
    }))
}

impl Step {
    /// Offset of the element at `flat` (a multiple of what lies inside `upto`) in a strided operand.
    fn offset(&self, strides: &[usize], flat: usize) -> usize {
        let (mut rest, mut offset) = (flat, 0);
        for d in (0..self.dims.len()).rev() {
            offset += rest % self.dims[d] * strides[d];
            rest /= self.dims[d];
        }
        offset
    }

    /// Copies elements `start .. start + n` of the broadcast operand to `dst`.
    ///
    /// # Safety
    /// `src` is the operand, `dst` has room for `n` elements of `size` bytes.
    unsafe fn gather(&self, strides: &[usize], src: *const u8, size: usize, start: usize, n: usize, dst: *mut u8) {
        let row = self.dims[self.dims.len() - 1];
        let inner = strides[strides.len() - 1];
        let mut at = 0;
        while at < n {
            let flat = start + at;
            let run = (row - flat % row).min(n - at);
            // SAFETY: both stay inside the operand and the buffer.
            unsafe {
                let from = src.add(self.offset(strides, flat) * size);
                let to = dst.add(at * size);
                match (inner, size) {
                    (1, _) => std::ptr::copy_nonoverlapping(from, to, run * size),
                    (_, 1) => std::slice::from_raw_parts_mut(to, run).fill(from.read()),
                    (_, 2) => std::slice::from_raw_parts_mut(to.cast::<u16>(), run).fill(from.cast::<u16>().read()),
                    (_, 4) => std::slice::from_raw_parts_mut(to.cast::<u32>(), run).fill(from.cast::<u32>().read()),
                    _ => std::slice::from_raw_parts_mut(to.cast::<u64>(), run).fill(from.cast::<u64>().read()),
                }
            }
            at += run;
        }
    }

    /// # Safety
    /// As for `CpuStep::run`; no other task has the same number.
    unsafe fn task(&self, index: usize, args: &Addresses<'_>) {
        let units = index * self.n_units / self.n_tasks..(index + 1) * self.n_units / self.n_tasks;
        // SAFETY: the workspace has this many bytes for each task.
        let scratch = unsafe { args.0.work.add(index * self.task_bytes) };
        let mut operands = [Operand { ptr: std::ptr::null(), single: true }; 64];
        let mut outputs = [std::ptr::null_mut(); 16];
        let row = self.dims.last().copied().unwrap_or(1);
        for (turn, unit) in units.enumerate() {
            let (start, n) = match self.per_row {
                0 => (unit * self.len, self.len.min(self.numel - unit * self.len)),
                pieces => {
                    let within = unit % pieces * self.len;
                    (unit / pieces * row + within, self.len.min(row.saturating_sub(within)))
                }
            };
            if n == 0 {
                continue;
            }
            for (i, input) in self.inputs.iter().enumerate() {
                let base = args.0.inputs[i];
                // SAFETY: offsets stay inside the operands and the task's scratch memory.
                operands[i] = unsafe {
                    match &input.access {
                        Access::Full => Operand { ptr: base.add(start * input.size), single: false },
                        Access::Number => Operand { ptr: base, single: true },
                        Access::Strided(strides) if self.per_row > 0 => {
                            let ptr = base.add(self.offset(strides, start) * input.size);
                            Operand { ptr, single: strides[strides.len() - 1] == 0 }
                        }
                        Access::Strided(strides) => {
                            let buffer = scratch.add(input.buffer);
                            if turn == 0 || !input.inner_only {
                                self.gather(strides, base, input.size, start, n, buffer);
                            }
                            Operand { ptr: buffer, single: false }
                        }
                    }
                };
            }
            for (k, size) in self.output_sizes.iter().enumerate() {
                // SAFETY: inside the output.
                outputs[k] = unsafe { args.0.outputs[k].add(start * size) };
            }
            let (ins, outs) = (&operands[..self.inputs.len()], &outputs[..self.output_sizes.len()]);
            // SAFETY: operands and outputs hold `n` elements; the scratch was sized for `len`.
            unsafe { self.blocks.run(self.isa, n, self.len, ins, scratch, outs) };
        }
    }
}

/// The addresses of a run, shared by its tasks.
struct Addresses<'a>(&'a CpuArgs<'a>);

// SAFETY: tasks read inputs and write parts of the outputs and of the workspace that are theirs alone.
unsafe impl Sync for Addresses<'_> {}

impl CpuStep for Step {
    fn name(&self) -> String {
        format!("pointwise_{}", self.label)
    }

    fn workspace(&self) -> usize {
        self.n_tasks * self.task_bytes
    }

    unsafe fn run(&self, args: &CpuArgs<'_>) {
        if self.numel == 0 {
            return;
        }
        let addresses = Addresses(args);
        let addresses = &addresses;
        // SAFETY: the caller's promise; task numbers differ.
        cpu::for_each_task(self.n_tasks, |i| unsafe { self.task(i, addresses) });
    }
}
