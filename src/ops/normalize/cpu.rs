//! CPU steps: vectorized rows for f32, a plain loop for f64. Halves are computed in f32 there; mixed types are left to
//! the reference.

use super::{BIAS, Normalize, Rows, SCALE, SKIP, SKIP_BIAS};
use crate::base::{DType, Result};
use crate::device::cpu::rows::{NormRows, norm_rows};
use crate::device::cpu::{SharedMut, for_each_task};
use crate::ops::{CpuArgs, CpuStep, Problem};

struct NormalizeStep {
    g: Rows,
    centered: bool,
    epsilon: f32,
    /// Elements of the operand, where it is there.
    operands: [Option<usize>; 5],
    stats: bool,
    sum: bool,
    dtype: DType,
}

impl NormalizeStep {
    /// # Safety
    /// The addresses hold what the step was made for, as `T`.
    unsafe fn operand<'a, T>(&self, args: &CpuArgs<'a>, i: usize) -> Option<&'a [T]> {
        let n = self.operands[i]?;
        // SAFETY: the caller's promise.
        Some(unsafe { std::slice::from_raw_parts(args.inputs[i].cast::<T>(), n) })
    }

    /// # Safety
    /// As `operand`.
    unsafe fn outputs<T>(&self, args: &CpuArgs<'_>) -> [Option<SharedMut<T>>; 4] {
        let (n, rows) = (self.g.rows * self.g.cols, self.g.rows);
        let at = |i: usize, n: usize| Some(SharedMut(args.outputs[i].cast::<T>(), n));
        let (mean, factor) = if self.stats { (at(1, rows), at(2, rows)) } else { (None, None) };
        let sum = if self.sum { at(1 + 2 * self.stats as usize, n) } else { None };
        [at(0, n), mean, factor, sum]
    }

    /// # Safety
    /// As `run`, for f64.
    unsafe fn doubles(&self, args: &CpuArgs<'_>) {
        // SAFETY: the caller's promise.
        let ([x, scale, bias, skip, skip_bias], [y, mean, factor, sum]) =
            unsafe { ([0, 1, 2, 3, 4].map(|i| self.operand::<f64>(args, i)), self.outputs::<f64>(args)) };
        let (Some(x), Some(y), g) = (x, y, self.g) else { return };
        for_each_task(g.rows, |r| {
            let from = r * g.cols;
            // SAFETY: each task has a row of its own.
            let y = unsafe { y.slice(from, g.cols) };
            y.copy_from_slice(&x[from..from + g.cols]);
            if let Some(s) = skip {
                y.iter_mut().zip(&s[from..]).for_each(|(y, s)| *y += s);
            }
            if let Some(b) = skip_bias {
                y.iter_mut().zip(b).for_each(|(y, b)| *y += b);
            }
            if let Some(sum) = &sum {
                // SAFETY: as above.
                unsafe { sum.slice(from, g.cols) }.copy_from_slice(y);
            }
            let n = g.cols as f64;
            let m = if self.centered { y.iter().sum::<f64>() / n } else { 0.0 };
            let variance = y.iter().map(|v| (v - m) * (v - m)).sum::<f64>() / n;
            let f = 1.0 / (variance + self.epsilon as f64).sqrt();
            for (c, y) in y.iter_mut().enumerate() {
                let at = r % g.period * g.step + c / g.run;
                *y = (*y - m) * f * scale.map_or(1.0, |s| s[at]) + bias.map_or(0.0, |b| b[at]);
            }
            for (out, v) in [(&mean, m), (&factor, f)] {
                if let Some(out) = out {
                    // SAFETY: as above.
                    let out = unsafe { out.slice(r, 1) };
                    out[0] = v;
                }
            }
        });
    }
}

impl CpuStep for NormalizeStep {
    fn name(&self) -> String {
        format!("normalize_{}x{}", self.g.rows, self.g.cols)
    }

    unsafe fn run(&self, args: &CpuArgs<'_>) {
        if self.dtype == DType::F64 {
            // SAFETY: the caller's promise.
            return unsafe { self.doubles(args) };
        }
        // SAFETY: the caller gives addresses of the tensors that the step was made for.
        let ([x, scale, bias, skip, skip_bias], [y, mean, factor, sum]) =
            unsafe { ([0, 1, 2, 3, 4].map(|i| self.operand::<f32>(args, i)), self.outputs::<f32>(args)) };
        let (Some(x), Some(y), g) = (x, y, self.g) else { return };
        let norm = NormRows {
            rows: g.rows,
            cols: g.cols,
            period: g.period,
            step: g.step,
            run: g.run,
            scale,
            bias,
            skip,
            skip_bias,
            epsilon: self.epsilon,
            is_centered: self.centered,
        };
        norm_rows(&norm, x, y, mean.zip(factor), sum);
    }
}

pub(super) fn step(op: &Normalize, p: &Problem) -> Result<Option<Box<dyn CpuStep>>> {
    let Some(x) = p.input(0) else { return Ok(None) };
    let same = p.inputs.iter().flatten().all(|d| d.dtype == x.dtype);
    if !same || !matches!(x.dtype, DType::F32 | DType::F64) {
        return Ok(None);
    }
    let operand = |i: usize| p.input(i).map(|d| d.numel());
    let operands = [operand(0), operand(SCALE), operand(BIAS), operand(SKIP), operand(SKIP_BIAS)];
    Ok(Some(Box::new(NormalizeStep {
        g: op.geometry(&x.dims)?,
        centered: op.centered,
        epsilon: op.epsilon,
        operands,
        stats: op.stats,
        sum: op.sum,
        dtype: x.dtype,
    })))
}
