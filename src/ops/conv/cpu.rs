//! Convolution on the CPU: f32 through the convolution core (weights packed once), and a row-wise loop for three
//! spatial axes; f16 and bf16 through f32. f64 is left to the reference, which is parallel.

use super::{Conv, ConvGeometry, FIRST_EXTRA};
use crate::base::{DType, Result};
use crate::device::cpu::conv::{ConvEpilogue, ConvParams, ConvWeights, conv2d};
use crate::device::cpu::{SharedMut, for_each_task};
use crate::internal;
use crate::ops::epilogue::CpuEpilogue;
use crate::ops::window::ChannelOrder;
use crate::ops::{CpuArgs, CpuStep, PackCache, Packed, Problem, in_f32};
use std::sync::Arc;

/// Floats of the smallest window that the core copies.
const MAX_WINDOW: usize = 16 << 20;

pub(super) fn cpu(op: &Conv, p: &Problem, pack: &dyn PackCache) -> Result<Option<Box<dyn CpuStep>>> {
    let (Some(x), Some(w), Some(y)) = (p.input(0), p.input(1), p.outputs.first()) else { return Ok(None) };
    if op.order != ChannelOrder::First {
        // Only rewritten for other devices; the reference, which is parallel, takes it.
        return Ok(None);
    }
    if in_f32::is_half(x.dtype) {
        let epilogue = op.epilogue.as_ref().map(in_f32::program);
        if epilogue == Some(None) {
            return Ok(None);
        }
        let op = Conv { epilogue: epilogue.flatten(), ..op.clone() };
        return in_f32::step(p, pack, |p| cpu(&op, p, pack));
    }
    if x.dtype != DType::F32 {
        return Ok(None);
    }
    let Some(epilogue) = CpuEpilogue::new(op.epilogue.as_ref(), p, FIRST_EXTRA, pack)? else { return Ok(None) };
    let g = op.geometry(&x.dims, &w.dims, &y.dims)?;
    let win = &g.window;
    let plane_only = win.input[0] == 1 && win.output[0] == 1 && win.kernel[0] == 1;
    // The core copies what a block of pixels reads, gaps of the dilation included; a loop over rows reads in place.
    let copied = |i: usize, pixels: usize| {
        let reach = (win.kernel[i] - 1).saturating_mul(win.dilation[i]) / win.stride[i];
        reach.saturating_add(pixels).saturating_mul(win.kernel[i].min(win.stride[i]))
    };
    let window = copied(1, 1).saturating_mul(copied(2, 64)).saturating_mul(g.c / g.group);
    if !plane_only || window > MAX_WINDOW {
        return Ok(Some(Box::new(VolumeConv { g, epilogue })));
    }
    let params = ConvParams {
        batch: g.n,
        c_in: g.c,
        c_out: g.m,
        groups: g.group,
        in_hw: [win.input[1], win.input[2]],
        out_hw: [win.output[1], win.output[2]],
        kernel: [win.kernel[1], win.kernel[2]],
        strides: [win.stride[1], win.stride[2]],
        pads: [win.pad_begin[1], win.pad_begin[2]],
        dilations: [win.dilation[1], win.dilation[2]],
    };
    let weights = match p.known(1) {
        None => None,
        Some(t) => {
            let make = &mut || Arc::new(pack_weights(&params, t.slice::<f32>())) as Packed;
            let packed = pack.get_or_pack("conv2d_weights", make);
            Some(packed.downcast::<ConvWeights>().map_err(|_| internal!("the pack cache mixed up its slots"))?)
        }
    };
    Ok(Some(Box::new(PlaneConv { params, weights, epilogue })))
}

fn pack_weights(p: &ConvParams, w: &[f32]) -> ConvWeights {
    ConvWeights::new(w, p.c_out, p.c_in / p.groups, p.groups, p.kernel)
}

/// One or two spatial axes.
struct PlaneConv {
    params: ConvParams,
    /// `None`: the weights are computed by the network and packed at each run.
    weights: Option<Arc<ConvWeights>>,
    epilogue: CpuEpilogue,
}

impl CpuStep for PlaneConv {
    fn name(&self) -> String {
        format!("conv2d{}", self.epilogue.suffix())
    }

    fn workspace(&self) -> usize {
        self.epilogue.workspace()
    }

    unsafe fn run(&self, args: &CpuArgs<'_>) {
        let p = &self.params;
        let taps = p.kernel[0] * p.kernel[1];
        // SAFETY: the caller's addresses are valid for the shapes that these lengths come from.
        let (x, bias, y, rows) = unsafe {
            (
                floats(args.inputs[0], p.batch * p.c_in * p.in_hw[0] * p.in_hw[1]),
                optional_floats(args.inputs, 2, p.c_out),
                self.epilogue.result(args),
                self.epilogue.bind(args),
            )
        };
        let finish = |_channel: usize, offset: usize, values: &mut [f32]| rows.apply(offset, values);
        let finish: Option<&ConvEpilogue> = if self.epilogue.has_rows() { Some(&finish) } else { None };
        match &self.weights {
            Some(w) => conv2d(p, x, w, bias, y, finish),
            None => {
                // SAFETY: as above.
                let w = unsafe { floats(args.inputs[1], p.c_out * (p.c_in / p.groups) * taps) };
                conv2d(p, x, &pack_weights(p, w), bias, y, finish);
            }
        }
        // SAFETY: the arguments are this step's.
        unsafe { self.epilogue.finish(args) };
    }
}

/// Three spatial axes: each output row is a sum of scaled input rows, one task an output plane.
struct VolumeConv {
    g: ConvGeometry,
    epilogue: CpuEpilogue,
}

impl CpuStep for VolumeConv {
    fn name(&self) -> String {
        format!("conv3d{}", self.epilogue.suffix())
    }

    fn workspace(&self) -> usize {
        self.epilogue.workspace()
    }

    unsafe fn run(&self, args: &CpuArgs<'_>) {
        let g = &self.g;
        let win = &g.window;
        let n_in: usize = win.input.iter().product();
        let cg = g.c / g.group;
        // SAFETY: the caller's addresses are valid for the shapes that these lengths come from.
        let (x, w, bias, y, rows) = unsafe {
            (
                floats(args.inputs[0], g.n * g.c * n_in),
                floats(args.inputs[1], g.m * cg * win.taps()),
                optional_floats(args.inputs, 2, g.m),
                SharedMut::new(self.epilogue.result(args)),
                self.epilogue.bind(args),
            )
        };
        let plane = win.output[1] * win.output[2];
        for_each_task(g.n * g.m * win.output[0], |task| {
            let (image, m, od) = (task / win.output[0] / g.m, task / win.output[0] % g.m, task % win.output[0]);
            let x = &x[(image * g.c + m / (g.m / g.group) * cg) * n_in..];
            let w = &w[m * cg * win.taps()..][..cg * win.taps()];
            // SAFETY: each task has a plane of its own.
            let out = unsafe { y.slice(task * plane, plane) };
            out.fill(bias.map_or(0.0, |b| b[m]));
            if win.output[2] == 0 {
                return;
            }
            for (oh, row) in out.chunks_exact_mut(win.output[2]).enumerate() {
                add_taps(g, x, w, [od, oh], row);
            }
            rows.apply(task * plane, out);
        });
        // SAFETY: the arguments are this step's.
        unsafe { self.epilogue.finish(args) };
    }
}

/// Adds all taps of one output row.
fn add_taps(g: &ConvGeometry, x: &[f32], w: &[f32], at: [usize; 2], row: &mut [f32]) {
    let win = &g.window;
    let [kd, kh, kw] = win.kernel;
    let n_in: usize = win.input.iter().product();
    for c in 0..g.c / g.group {
        for a in 0..kd {
            let Some(id) = win.source(0, at[0], a) else { continue };
            for b in 0..kh {
                let Some(ih) = win.source(1, at[1], b) else { continue };
                let source = &x[c * n_in + (id * win.input[1] + ih) * win.input[2]..][..win.input[2]];
                for e in 0..kw {
                    let v = w[((c * kd + a) * kh + b) * kw + e];
                    let (stride, shift) = (win.stride[2], e * win.dilation[2]);
                    // Output columns whose input column exists.
                    let first = win.pad_begin[2].saturating_sub(shift).div_ceil(stride);
                    let end = (win.input[2] + win.pad_begin[2]).saturating_sub(shift).div_ceil(stride).min(row.len());
                    if first >= end {
                        continue;
                    }
                    let start = first * stride + shift - win.pad_begin[2];
                    let row = &mut row[first..end];
                    if stride == 1 {
                        row.iter_mut().zip(&source[start..]).for_each(|(y, x)| *y += v * x);
                    } else {
                        row.iter_mut().zip(source[start..].iter().step_by(stride)).for_each(|(y, x)| *y += v * x);
                    }
                }
            }
        }
    }
}

/// # Safety
/// The address is valid for `n` floats while the slice is used (and may be anything when `n` is 0).
pub(crate) unsafe fn floats<'a>(address: *const u8, n: usize) -> &'a [f32] {
    if n == 0 {
        return &[];
    }
    // SAFETY: the caller's promise.
    unsafe { std::slice::from_raw_parts(address.cast(), n) }
}

/// # Safety
/// As [`floats`], for operand `i` if it is there.
pub(crate) unsafe fn optional_floats<'a>(inputs: &[*const u8], i: usize, n: usize) -> Option<&'a [f32]> {
    let address = inputs.get(i).copied().filter(|p| !p.is_null())?;
    // SAFETY: the caller's promise.
    Some(unsafe { floats(address, n) })
}
