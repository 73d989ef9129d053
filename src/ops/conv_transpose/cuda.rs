//! Transposed convolution on CUDA: the gathering kernel, for every size.

use super::{ConvTranspose, FIRST_EXTRA};
use crate::base::Result;
use crate::device::DeviceProps;
use crate::internal;
use crate::ops::conv::cuda::{DIRECT_THREADS, bias_dims, check_nd, nd_params, plane_strides, striding_grid};
use crate::ops::epilogue::cuda::{CudaEpilogue, Fusion, parts};
use crate::ops::window::ChannelOrder;
use crate::ops::{Arg, DeviceOp, KernelSpec, Launch, Problem, StepProgram, Tactic, TacticOptions, TacticSource};

fn epilogue<'a>(op: &'a ConvTranspose, bias_dims: &'a [usize]) -> CudaEpilogue<'a> {
    CudaEpilogue { program: op.epilogue.as_ref(), first: FIRST_EXTRA, bias_dims }
}

pub(super) fn tactics(op: &ConvTranspose, p: &Problem, dev: &DeviceProps, opt: &TacticOptions) -> Vec<Tactic> {
    let (Some(x), Some(out)) = (p.input(0), p.outputs.first()) else { return Vec::new() };
    let dims = bias_dims(out.dims[1], out.dims.len(), ChannelOrder::First);
    let e = epilogue(op, &dims);
    let inside = plane_strides(&e, p, ChannelOrder::First).is_some();
    let Some(fusion) = e.plan(p, inside, dev, opt) else { return Vec::new() };
    let stored = if matches!(fusion, Fusion::After(_)) { x.dtype } else { out.dtype };
    let spec = KernelSpec::new("conv_transpose.cu")
        .define_type("T_IN", x.dtype)
        .define_type("T_OUT", stored)
        .define_type("T_BIAS", x.dtype)
        .define("HAS_BIAS", p.input(2).is_some() as i64)
        .define("THREADS", DIRECT_THREADS);
    let name = format!("conv_transpose{}", fusion.text());
    let kernels = vec![fusion.define(spec)];
    vec![fusion.complete(Tactic { name, source: TacticSource::Kernels, kernels, params: vec![] })]
}

pub(super) fn program(op: &ConvTranspose, tactic: &Tactic, p: &Problem, dev: &DeviceProps) -> Result<StepProgram> {
    let (Some(x), Some(w), Some(out)) = (p.input(0), p.input(1), p.outputs.first()) else {
        return Err(internal!("a transposed convolution without operands"));
    };
    let g = op.geometry(&x.dims, &w.dims, &out.dims)?;
    check_nd(g.n, g.m, &g.window)?;
    let dims = bias_dims(g.m, out.dims.len(), ChannelOrder::First);
    let e = epilogue(op, &dims);
    let parts = parts(tactic, 0)?;
    let extra = match (plane_strides(&e, p, ChannelOrder::First), parts.code) {
        (Some(x), 1) => x,
        (None, 1) => crate::bail!(Unsupported, "tactic {} does not reach an operand at these shapes", tactic.name),
        _ => Vec::new(),
    };
    let mut step = StepProgram::default();
    let result = match &parts.after {
        Some(_) if out.dtype != x.dtype => {
            step.workspace = (out.numel() * x.dtype.size()).next_multiple_of(256);
            Arg::Work(0)
        }
        _ => Arg::Out(0),
    };
    let bias = if p.input(2).is_some() { Arg::In(2) } else { Arg::Null };
    let mut args = vec![Arg::In(0), Arg::In(1), bias, result.clone(), nd_params(g.n, g.c, g.m, g.group, &g.window)];
    args.extend(e.args(&extra));
    step.ops.push(DeviceOp::Launch(Launch {
        kernel: 0,
        grid: [striding_grid(out.numel(), DIRECT_THREADS, dev), 1, 1],
        block: [DIRECT_THREADS as u32, 1, 1],
        smem: 0,
        args,
    }));
    if let Some(after) = &parts.after {
        e.append_after(&mut step, after, parts.n_kernels, &result, false, p, dev)?;
    }
    Ok(step)
}
