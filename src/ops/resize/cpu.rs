//! CPU steps: the cores for nearest and linear in f32 along the last two axes, a table-driven loop for everything else.

use super::axis::Taps;
use super::{Resize, ResizeMode};
use crate::base::tensor::{Scalar, convert, strides_of};
use crate::base::{DType, Result};
use crate::device::cpu::resize::{LinearTap, resize_linear, resize_nearest};
use crate::device::cpu::{SharedMut, for_each_task};
use crate::ops::{CpuArgs, CpuStep, Problem};

enum Tables {
    Nearest([Vec<u32>; 2]),
    Linear([Vec<LinearTap>; 2]),
}

/// f32 along the last two axes.
struct PlaneStep {
    planes: usize,
    in_hw: [usize; 2],
    out_hw: [usize; 2],
    tables: Tables,
}

impl CpuStep for PlaneStep {
    fn name(&self) -> String {
        match self.tables {
            Tables::Nearest(_) => "resize_nearest".into(),
            Tables::Linear(_) => "resize_linear".into(),
        }
    }

    unsafe fn run(&self, args: &CpuArgs<'_>) {
        let n = |hw: [usize; 2]| self.planes * hw[0] * hw[1];
        // SAFETY: the caller gives addresses of the tensors that the step was made for.
        let (x, y) = unsafe {
            (
                std::slice::from_raw_parts(args.inputs[0].cast::<f32>(), n(self.in_hw)),
                std::slice::from_raw_parts_mut(args.outputs[0].cast::<f32>(), n(self.out_hw)),
            )
        };
        match &self.tables {
            Tables::Nearest([rows, cols]) => resize_nearest(self.planes, self.in_hw, rows, cols, x, y),
            Tables::Linear([rows, cols]) => resize_linear(self.planes, self.in_hw, rows, cols, x, y),
        }
    }
}

/// Any mode, type and axes: a weighted sum over the taps of every axis.
struct LoopStep {
    mode: ResizeMode,
    extrapolation: f64,
    dtype: DType,
    taps: Vec<Taps>,
    out_dims: Vec<usize>,
    strides: Vec<usize>,
    in_len: usize,
}

impl LoopStep {
    fn sum<T: Scalar>(&self, x: &[T], axis: usize, row: usize, out_strides: &[usize]) -> f64 {
        let Some(t) = self.taps.get(axis) else { return convert::<T, f64>(x[0]) };
        let o = row / out_strides[axis] % self.out_dims[axis];
        let mut sum = 0.0;
        for (at, w) in t.at(o).iter().zip(t.weights(o)) {
            if *w != 0.0 {
                sum += *w as f64 * self.sum(&x[*at as usize * self.strides[axis]..], axis + 1, row, out_strides);
            }
        }
        sum
    }

    /// # Safety
    /// Both addresses hold what the step was made for, as `T`.
    unsafe fn typed<T: Scalar>(&self, args: &CpuArgs<'_>, out_strides: &[usize]) {
        let n: usize = self.out_dims.iter().product();
        // SAFETY: the caller's promise.
        let x = unsafe { std::slice::from_raw_parts(args.inputs[0].cast::<T>(), self.in_len) };
        let y = SharedMut(args.outputs[0].cast::<T>(), n);
        const PART: usize = 4096;
        for_each_task(n.div_ceil(PART), |task| {
            let first = task * PART;
            // SAFETY: each task has a part of its own.
            let part = unsafe { y.slice(first, PART.min(n - first)) };
            for (i, v) in part.iter_mut().enumerate() {
                let at = first + i;
                let position = |k: usize| at / out_strides[k] % self.out_dims[k];
                let inside = (0..self.taps.len()).all(|k| self.taps[k].is_inside(position(k)));
                *v = if !inside {
                    convert::<f64, T>(self.extrapolation)
                } else if self.mode == ResizeMode::Nearest {
                    x[(0..self.taps.len()).map(|k| self.taps[k].at(position(k))[0] as usize * self.strides[k]).sum::<usize>()]
                } else {
                    convert::<f64, T>(self.sum(x, 0, at, out_strides))
                };
            }
        });
    }
}

impl CpuStep for LoopStep {
    fn name(&self) -> String {
        format!("resize_{}_loop", self.mode.name())
    }

    unsafe fn run(&self, args: &CpuArgs<'_>) {
        let mut out_strides = [1usize; MAX_RANK];
        let rank = self.out_dims.len();
        for k in (0..rank.saturating_sub(1)).rev() {
            out_strides[k] = out_strides[k + 1] * self.out_dims[k + 1];
        }
        // SAFETY: the caller gives addresses of the tensors that the step was made for.
        crate::dispatch!(self.dtype, T => unsafe { self.typed::<T>(args, &out_strides[..rank]) });
    }
}

/// Axes that a loop step walks.
const MAX_RANK: usize = 16;

fn linear_taps(t: &Taps) -> Option<Vec<LinearTap>> {
    (0..t.positions.len() / t.n.max(1))
        .map(|o| match (t.at(o), t.weights(o)) {
            ([p], _) => Some(LinearTap { lo: *p, hi: *p, weight: 0.0 }),
            ([lo, hi], [_, w]) => Some(LinearTap { lo: *lo, hi: *hi, weight: *w }),
            _ => None,
        })
        .collect()
}

pub fn step(op: &Resize, p: &Problem) -> Result<Option<Box<dyn CpuStep>>> {
    let Some(x) = p.input(0) else { return Ok(None) };
    let unknown = |i: usize| p.input(i).is_some() && p.known(i).is_none();
    let out = &p.outputs[0];
    let rank = x.dims.len();
    if (1..4).any(unknown) || x.numel() == 0 || out.numel() == 0 || rank > MAX_RANK {
        return Ok(None);
    }
    let known = |i: usize| p.known(i).map(|t| &**t);
    let plan = op.plan_of(&x.dims, known(1), known(2), known(3))?;
    let taps = op.taps(&plan);
    let planar = rank >= 1 && plan[..rank.saturating_sub(2)].iter().all(|a| a.is_identity());
    if x.dtype == DType::F32 && planar && taps.iter().all(|t| t.inside()) {
        // A single axis is an image of one row.
        let hw = |dims: &[usize]| if rank >= 2 { [dims[rank - 2], dims[rank - 1]] } else { [1, dims[0]] };
        let one = Taps::new(op, &super::AxisPlan::identity(1));
        let (rows, cols) = (if rank >= 2 { &taps[rank - 2] } else { &one }, &taps[rank - 1]);
        let tables = match op.mode {
            ResizeMode::Nearest => Some(Tables::Nearest([rows.positions.clone(), cols.positions.clone()])),
            ResizeMode::Linear => linear_taps(rows).zip(linear_taps(cols)).map(|(r, c)| Tables::Linear([r, c])),
            ResizeMode::Cubic => None,
        };
        if let Some(tables) = tables {
            let planes = x.dims[..rank.saturating_sub(2)].iter().product();
            return Ok(Some(Box::new(PlaneStep { planes, in_hw: hw(&x.dims), out_hw: hw(&out.dims), tables })));
        }
    }
    Ok(Some(Box::new(LoopStep {
        mode: op.mode,
        extrapolation: op.extrapolation_value as f64,
        dtype: x.dtype,
        taps,
        out_dims: out.dims.clone(),
        strides: strides_of(&x.dims),
        in_len: x.numel(),
    })))
}
