//! Pooling on the CPU, f32: the core for maximum and average in one or two axes, a plain loop over planes for the rest
//! (Lp, indices, three axes). f16 and bf16 go through f32. Other types are left to
//! the reference.

use super::{Pool, PoolKind};
use crate::base::{DType, Result};
use crate::device::cpu::pool::{Divisor, PoolParams, average_pool2d, max_pool2d};
use crate::device::cpu::{SharedMut, for_each_task};
use crate::ops::conv::floats;
use crate::ops::window::{ChannelOrder, Window3};
use crate::ops::{CpuArgs, CpuStep, PackCache, Problem, in_f32};

/// Floats of a padded row.
const MAX_ROW: usize = 16 << 20;

pub(super) fn cpu(op: &Pool, p: &Problem, pack: &dyn PackCache) -> Result<Option<Box<dyn CpuStep>>> {
    let (Some(x), Some(y)) = (p.input(0), p.outputs.first()) else { return Ok(None) };
    if op.order != ChannelOrder::First {
        // Only rewritten for other devices; the reference takes it.
        return Ok(None);
    }
    if in_f32::is_half(x.dtype) {
        return in_f32::step(p, pack, |p| cpu(op, p, pack));
    }
    if x.dtype != DType::F32 {
        return Ok(None);
    }
    let win = op.window(&x.dims, &y.dims)?;
    let planes = x.dims[0] * x.dims[1];
    let plane_only = win.input[0] == 1 && win.output[0] == 1 && win.kernel[0] == 1;
    // The core holds a whole padded row.
    let row = win.pad_begin[2].saturating_add(win.input[2]).max(win.output[2].saturating_mul(win.stride[2]));
    let row = row.saturating_add(win.kernel[2].saturating_mul(win.dilation[2]));
    if !plane_only || row > MAX_ROW || op.indices || op.kind == PoolKind::Lp {
        return Ok(Some(Box::new(Planes { op: op.clone(), win, planes })));
    }
    let pair = |v: [usize; 3]| [v[1], v[2]];
    let params = PoolParams {
        planes,
        in_hw: pair(win.input),
        out_hw: pair(win.output),
        kernel: pair(win.kernel),
        strides: pair(win.stride),
        pads: pair(win.pad_begin),
        pads_end: pair(win.pad_end),
        dilations: pair(win.dilation),
    };
    let divisor = match op.kind {
        PoolKind::Max => None,
        _ if op.count_include_pad => Some(Divisor::Padded),
        _ => Some(Divisor::Valid),
    };
    Ok(Some(Box::new(Pool2d { params, divisor })))
}

struct Pool2d {
    params: PoolParams,
    /// `None`: the maximum.
    divisor: Option<Divisor>,
}

impl CpuStep for Pool2d {
    fn name(&self) -> String {
        if self.divisor.is_some() { "average_pool2d".into() } else { "max_pool2d".into() }
    }

    unsafe fn run(&self, args: &CpuArgs<'_>) {
        let p = &self.params;
        // SAFETY: the caller's addresses are valid for the shapes that these lengths come from.
        let (x, y) = unsafe {
            (
                floats(args.inputs[0], p.planes * p.in_hw[0] * p.in_hw[1]),
                elements::<f32>(args.outputs[0], p.planes * p.out_hw[0] * p.out_hw[1]),
            )
        };
        match self.divisor {
            None => max_pool2d(p, x, y),
            Some(divisor) => average_pool2d(p, divisor, x, y),
        }
    }
}

/// # Safety
/// The address is valid for `n` elements, which nothing else refers to while the slice is used.
unsafe fn elements<'a, T>(address: *mut u8, n: usize) -> &'a mut [T] {
    if n == 0 {
        return &mut [];
    }
    // SAFETY: the caller's promise.
    unsafe { std::slice::from_raw_parts_mut(address.cast(), n) }
}

/// Window by window, one task a plane.
struct Planes {
    op: Pool,
    win: Window3,
    planes: usize,
}

impl CpuStep for Planes {
    fn name(&self) -> String {
        format!("{}_pool_planes", self.op.kind.name())
    }

    unsafe fn run(&self, args: &CpuArgs<'_>) {
        let (n_in, n_out) = (self.win.input.iter().product::<usize>(), self.win.output.iter().product::<usize>());
        // SAFETY: the caller's addresses are valid for the shapes that these lengths come from.
        let (x, y, at) = unsafe {
            (
                floats(args.inputs[0], self.planes * n_in),
                SharedMut::new(elements::<f32>(args.outputs[0], self.planes * n_out)),
                self.op.indices.then(|| SharedMut::new(elements::<i64>(args.outputs[1], self.planes * n_out))),
            )
        };
        for_each_task(self.planes, |plane| {
            // SAFETY: each task has a plane of its own.
            let (y, at) = unsafe { (y.slice(plane * n_out, n_out), at.as_ref().map(|a| a.slice(plane * n_out, n_out))) };
            let x = &x[plane * n_in..][..n_in];
            match self.op.kind {
                PoolKind::Max => self.max(plane, x, y, at),
                _ => self.sum(x, y),
            }
        });
    }
}

impl Planes {
    fn max(&self, plane: usize, x: &[f32], y: &mut [f32], mut at: Option<&mut [i64]>) {
        let mut i = 0;
        self.win.for_each_output(|o| {
            let (mut best, mut place) = (f32::NEG_INFINITY, usize::MAX);
            self.win.for_each_tap(o, |t| {
                let v = x[t];
                if place == usize::MAX || v > best || (v.is_nan() && !best.is_nan()) {
                    (best, place) = (v, t);
                }
            });
            y[i] = best;
            if let Some(at) = &mut at {
                at[i] = self.op.index(&self.win, plane, place);
            }
            i += 1;
        });
    }

    fn sum(&self, x: &[f32], y: &mut [f32]) {
        let (mut i, p) = (0, self.op.p as i32);
        self.win.for_each_output(|o| {
            let (mut sum, mut count) = (0f32, 0);
            self.win.for_each_tap(o, |t| {
                sum += match (self.op.kind, p) {
                    (PoolKind::Lp, 1) => x[t].abs(),
                    (PoolKind::Lp, 2) => x[t] * x[t],
                    (PoolKind::Lp, _) => x[t].abs().powi(p),
                    _ => x[t],
                };
                count += 1;
            });
            y[i] = match (self.op.kind, p) {
                (PoolKind::Lp, 1) => sum,
                (PoolKind::Lp, 2) => sum.sqrt(),
                (PoolKind::Lp, _) => sum.powf(1.0 / p as f32),
                _ if self.op.count_include_pad => sum / self.win.padded_taps(o).max(1) as f32,
                _ => sum / count.max(1) as f32,
            };
            i += 1;
        });
    }
}
