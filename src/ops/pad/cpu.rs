//! CPU step: which input position each output position shows is tabled per axis when the step is made; rows are copied
//! as runs where the table is one.

use super::{Pad, resolve};
use crate::base::Result;
use crate::base::tensor::strides_of;
use crate::device::cpu::{SharedMut, for_each_task};
use crate::ops::transpose::cpu::TASK_BYTES;
use crate::ops::{CpuArgs, CpuStep, Problem};

/// Table entry of a position that shows the constant.
const OUTSIDE: usize = usize::MAX;

/// Where the constant comes from.
enum Value {
    Zero,
    Known(Vec<u8>),
    /// Input 2, read when the step runs.
    Operand,
}

struct PadStep {
    size: usize,
    /// Byte offset of each output position, per axis; `OUTSIDE` shows the constant.
    tables: Vec<Vec<usize>>,
    /// Output positions of the last axis that are a run of the input: first and last (exclusive).
    run: (usize, usize),
    rows: usize,
    in_bytes: usize,
    value: Value,
}

impl PadStep {
    /// Byte offset of an output row in the input.
    fn row_offset(&self, mut row: usize) -> usize {
        let mut at = 0;
        for table in self.tables[..self.tables.len() - 1].iter().rev() {
            let o = table[row % table.len()];
            row /= table.len();
            if o == OUTSIDE {
                return OUTSIDE;
            }
            at += o;
        }
        at
    }

    fn fill_row(&self, x: &[u8], value: &[u8], row: usize, y: &mut [u8]) {
        let size = self.size;
        let table = &self.tables[self.tables.len() - 1];
        let base = self.row_offset(row);
        if base == OUTSIDE {
            y.chunks_exact_mut(size).for_each(|c| c.copy_from_slice(value));
            return;
        }
        let (first, last) = self.run;
        let mut single = |o: usize| {
            let element = match table[o] {
                OUTSIDE => value,
                at => &x[base + at..base + at + size],
            };
            y[o * size..(o + 1) * size].copy_from_slice(element);
        };
        (0..first).for_each(&mut single);
        (last..table.len()).for_each(&mut single);
        if first < last {
            let from = base + table[first];
            y[first * size..last * size].copy_from_slice(&x[from..from + (last - first) * size]);
        }
    }
}

impl CpuStep for PadStep {
    fn name(&self) -> String {
        "pad".into()
    }

    unsafe fn run(&self, args: &CpuArgs<'_>) {
        let len = self.tables[self.tables.len() - 1].len() * self.size;
        if self.rows == 0 || len == 0 {
            return;
        }
        let zero = [0u8; 8];
        // SAFETY: the caller gives addresses of the tensors that the step was made for.
        let (x, value) = unsafe {
            let value = match &self.value {
                Value::Zero => &zero[..self.size],
                Value::Known(v) => v.as_slice(),
                Value::Operand => std::slice::from_raw_parts(args.inputs[2], self.size),
            };
            (if self.in_bytes == 0 { &[] } else { std::slice::from_raw_parts(args.inputs[0], self.in_bytes) }, value)
        };
        let y = SharedMut(args.outputs[0], self.rows * len);
        let per_task = (TASK_BYTES / len).clamp(1, self.rows);
        for_each_task(self.rows.div_ceil(per_task), |task| {
            for row in task * per_task..((task + 1) * per_task).min(self.rows) {
                // SAFETY: each row belongs to one task.
                self.fill_row(x, value, row, unsafe { y.slice(row * len, len) });
            }
        });
    }
}

pub fn step(op: &Pad, p: &Problem) -> Result<Option<Box<dyn CpuStep>>> {
    let (Some(x), Some(pads)) = (p.input(0), p.known(1)) else { return Ok(None) };
    if p.input(3).is_some() && p.known(3).is_none() {
        return Ok(None);
    }
    let axes = p.known(3).map(|t| t.to_i64s());
    let pads = resolve(x.dims.len(), &pads.to_i64s(), axes.as_deref())?;
    let size = x.dtype.size();
    let strides = strides_of(&x.dims);
    let out = &p.outputs[0];
    let mut tables: Vec<Vec<usize>> = (0..x.dims.len())
        .map(|k| {
            let source = |o| op.mode.source(o, x.dims[k], pads[k]).map_or(OUTSIDE, |i| i * strides[k] * size);
            (0..out.dims[k]).map(source).collect()
        })
        .collect();
    // A scalar is one row of one element.
    if tables.is_empty() {
        tables.push(vec![0]);
    }
    let last = tables.last().expect("just made");
    let n_in = x.dims.last().copied().unwrap_or(1) as i64;
    let pad = pads.last().copied().unwrap_or(super::AxisPad { begin: 0, end: 0 });
    let first = pad.begin.clamp(0, last.len() as i64) as usize;
    let inside = n_in + pad.begin.min(0) + pad.end.min(0);
    let run = (first, (first + inside.max(0) as usize).min(last.len()));
    let rows = tables[..tables.len() - 1].iter().map(|t| t.len()).product();
    let value = match (p.input(2), p.known(2)) {
        (Some(d), Some(v)) if d.numel() == 1 => Value::Known(v.bytes().to_vec()),
        (Some(d), None) if d.numel() == 1 => Value::Operand,
        _ => Value::Zero,
    };
    Ok(Some(Box::new(PadStep { size, run, rows, in_bytes: x.bytes(), value, tables })))
}
