//! Transposed convolution on the CPU, f32: the core for one and two spatial axes (weights packed once), a loop that
//! spreads input rows for three; f16 and bf16 through f32. f64 is left to the reference, which is parallel.

use super::{ConvTranspose, ConvTransposeGeometry, FIRST_EXTRA};
use crate::base::{DType, Result};
use crate::device::cpu::conv::ConvEpilogue;
use crate::device::cpu::conv_transpose::{ConvTransposeParams, ConvTransposeWeights, conv_transpose2d};
use crate::device::cpu::{SharedMut, for_each_task};
use crate::internal;
use crate::ops::conv::{floats, optional_floats};
use crate::ops::epilogue::CpuEpilogue;
use crate::ops::{CpuArgs, CpuStep, PackCache, Packed, Problem, in_f32};
use std::sync::Arc;

pub(super) fn cpu(op: &ConvTranspose, p: &Problem, pack: &dyn PackCache) -> Result<Option<Box<dyn CpuStep>>> {
    let (Some(x), Some(w), Some(y)) = (p.input(0), p.input(1), p.outputs.first()) else { return Ok(None) };
    if in_f32::is_half(x.dtype) {
        let epilogue = op.epilogue.as_ref().map(in_f32::program);
        if epilogue == Some(None) {
            return Ok(None);
        }
        let op = ConvTranspose { epilogue: epilogue.flatten(), ..op.clone() };
        return in_f32::step(p, pack, |p| cpu(&op, p, pack));
    }
    if x.dtype != DType::F32 {
        return Ok(None);
    }
    let Some(epilogue) = CpuEpilogue::new(op.epilogue.as_ref(), p, FIRST_EXTRA, pack)? else { return Ok(None) };
    let g = op.geometry(&x.dims, &w.dims, &y.dims)?;
    let win = &g.window;
    let plane_only = win.input[0] == 1 && win.output[0] == 1 && win.kernel[0] == 1 && win.pad_begin[0] == 0;
    if !plane_only {
        return Ok(Some(Box::new(Volume { g, epilogue })));
    }
    let params = ConvTransposeParams {
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
            let packed = pack.get_or_pack("conv_transpose2d_weights", make);
            Some(packed.downcast::<ConvTransposeWeights>().map_err(|_| internal!("the pack cache mixed up its slots"))?)
        }
    };
    Ok(Some(Box::new(Plane { params, weights, epilogue })))
}

fn pack_weights(p: &ConvTransposeParams, w: &[f32]) -> ConvTransposeWeights {
    ConvTransposeWeights::new(w, p.c_in, p.c_out / p.groups, p.groups, p.kernel)
}

/// One or two spatial axes.
struct Plane {
    params: ConvTransposeParams,
    /// `None`: the weights are computed by the network and packed at each run.
    weights: Option<Arc<ConvTransposeWeights>>,
    epilogue: CpuEpilogue,
}

impl CpuStep for Plane {
    fn name(&self) -> String {
        format!("conv_transpose2d{}", self.epilogue.suffix())
    }

    fn workspace(&self) -> usize {
        self.epilogue.workspace()
    }

    unsafe fn run(&self, args: &CpuArgs<'_>) {
        let p = &self.params;
        // SAFETY: the caller's addresses are valid for the shapes that these lengths come from.
        let (x, w, bias, y, rows) = unsafe {
            (
                floats(args.inputs[0], p.batch * p.c_in * p.in_hw[0] * p.in_hw[1]),
                floats(args.inputs[1], p.c_in * (p.c_out / p.groups) * p.kernel[0] * p.kernel[1]),
                optional_floats(args.inputs, 2, p.c_out),
                self.epilogue.result(args),
                self.epilogue.bind(args),
            )
        };
        let finish = |_channel: usize, offset: usize, values: &mut [f32]| rows.apply(offset, values);
        let finish: Option<&ConvEpilogue> = if self.epilogue.has_rows() { Some(&finish) } else { None };
        match &self.weights {
            Some(packed) => conv_transpose2d(p, x, packed, bias, y, finish),
            None => conv_transpose2d(p, x, &pack_weights(p, w), bias, y, finish),
        }
        // SAFETY: the arguments are this step's.
        unsafe { self.epilogue.finish(args) };
    }
}

/// Three spatial axes: one task an output channel of an image.
struct Volume {
    g: ConvTransposeGeometry,
    epilogue: CpuEpilogue,
}

impl CpuStep for Volume {
    fn name(&self) -> String {
        format!("conv_transpose3d{}", self.epilogue.suffix())
    }

    fn workspace(&self) -> usize {
        self.epilogue.workspace()
    }

    unsafe fn run(&self, args: &CpuArgs<'_>) {
        let g = &self.g;
        let (cg, mg) = (g.c / g.group, g.m / g.group);
        let n_in: usize = g.window.input.iter().product();
        let n_out: usize = g.window.output.iter().product();
        let taps = g.window.taps();
        // SAFETY: the caller's addresses are valid for the shapes that these lengths come from.
        let (x, w, bias, y, rows) = unsafe {
            (
                floats(args.inputs[0], g.n * g.c * n_in),
                floats(args.inputs[1], g.c * mg * taps),
                optional_floats(args.inputs, 2, g.m),
                SharedMut::new(self.epilogue.result(args)),
                self.epilogue.bind(args),
            )
        };
        for_each_task(g.n * g.m, |task| {
            let (image, m) = (task / g.m, task % g.m);
            let first = m / mg * cg;
            // SAFETY: each task has a channel of its own.
            let out = unsafe { y.slice(task * n_out, n_out) };
            out.fill(bias.map_or(0.0, |b| b[m]));
            for c in first..first + cg {
                let x = &x[(image * g.c + c) * n_in..][..n_in];
                let w = &w[(c * mg + m % mg) * taps..][..taps];
                spread(g, x, w, out);
            }
            rows.apply(task * n_out, out);
        });
        // SAFETY: the arguments are this step's.
        unsafe { self.epilogue.finish(args) };
    }
}

/// Adds one input channel times its taps to one output channel.
fn spread(g: &ConvTransposeGeometry, x: &[f32], w: &[f32], out: &mut [f32]) {
    let win = &g.window;
    let [_, in_h, in_w] = win.input;
    let [_, kh, kw] = win.kernel;
    let target = |axis: usize, i: usize, k: usize| {
        (i * win.stride[axis] + k * win.dilation[axis])
            .checked_sub(win.pad_begin[axis])
            .filter(|o| *o < win.output[axis])
    };
    if in_w == 0 {
        return;
    }
    for (row, values) in x.chunks_exact(in_w).enumerate() {
        for (tap, v) in w.iter().enumerate() {
            let Some(od) = target(0, row / in_h, tap / (kh * kw)) else { continue };
            let Some(oh) = target(1, row % in_h, tap / kw % kh) else { continue };
            let out = &mut out[(od * win.output[1] + oh) * win.output[2]..][..win.output[2]];
            for (iw, x) in values.iter().enumerate() {
                if let Some(ow) = target(2, iw, tap % kw) {
                    out[ow] += v * x;
                }
            }
        }
    }
}
