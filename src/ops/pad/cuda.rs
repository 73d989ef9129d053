//! CUDA: `pad.cu`, one thread an output element. Pads and value are numbers of the launch.

use super::{Pad, PadMode, resolve};
use crate::base::Result;
use crate::base::tensor::strides_of;
use crate::device::DeviceProps;
use crate::ops::fill::cuda::bits;
use crate::ops::transpose::cuda::{MAX_RANK, THREADS, check_index, filled, grid_1d, index64, shape_arg, unit};
use crate::ops::{Arg, KernelSpec, Launch, Problem, StepProgram, Tactic, TacticOptions, TacticSource, i64_struct};
use crate::{ensure, err};

pub fn tactics(op: &Pad, p: &Problem, opt: &TacticOptions) -> Vec<Tactic> {
    let out = &p.outputs[0];
    if out.dims.len() > MAX_RANK {
        return vec![];
    }
    let mode = match op.mode {
        PadMode::Constant => 0,
        PadMode::Edge => 1,
        PadMode::Reflect => 2,
        PadMode::Wrap => 3,
    };
    let (rank, wide) = (out.dims.len().max(1), index64(out.numel(), opt));
    let kernel = KernelSpec::new("pad.cu")
        .define("T_UNIT", unit(out.dtype.size()))
        .define("MODE", mode)
        .define("RANK", rank)
        .define("THREADS", THREADS)
        .define("INDEX64", wide);
    vec![Tactic {
        name: format!("pad/{}_{}b_rank{rank}_index{}", op.mode.name(), 8 * out.dtype.size(), 32 << wide),
        source: TacticSource::Kernels,
        kernels: vec![kernel],
        params: vec![rank as i64, wide],
    }]
}

pub fn program(tactic: &Tactic, p: &Problem, dev: &DeviceProps) -> Result<StepProgram> {
    let (Some(x), Some(pads)) = (p.input(0), p.known(1)) else {
        return Err(err!(InvalidState, "the pads are not known"));
    };
    let axes = p.known(3).map(|t| t.to_i64s());
    ensure!(p.input(3).is_none() || axes.is_some(), InvalidState, "the axes of the pads are not known");
    let value = match (p.input(2), p.known(2)) {
        (Some(d), Some(v)) if d.numel() == 1 => bits(v.bytes()),
        (Some(d), None) if d.numel() == 1 => return Err(err!(InvalidState, "the value of the pads is not known")),
        _ => 0,
    };
    let pads = resolve(x.dims.len(), &pads.to_i64s(), axes.as_deref())?;
    let out = &p.outputs[0];
    let [rank, wide] = tactic.params[..] else {
        return Err(err!(CorruptData, "tactic {} has {} parameters instead of 2", tactic.name, tactic.params.len()));
    };
    let rank = rank as usize;
    ensure!(out.dims.len() <= rank && rank <= MAX_RANK, InvalidState, "tactic {} does not fit {out}", tactic.name);
    let n = out.numel();
    if n == 0 {
        return Ok(StepProgram::default());
    }
    check_index(n, wide)?;
    let strides = strides_of(&x.dims);
    let mut words = [0i64; 4 * MAX_RANK];
    let mut put = |at: usize, values: Vec<i64>, fill: i64| {
        words[at * MAX_RANK..at * MAX_RANK + rank].copy_from_slice(&filled(&values, rank, fill));
    };
    put(0, x.dims.iter().map(|d| *d as i64).collect(), 1);
    put(1, pads.iter().map(|p| p.begin).collect(), 0);
    put(2, pads.iter().map(|p| p.end).collect(), 0);
    put(3, strides.iter().map(|s| *s as i64).collect(), 0);
    Ok(StepProgram::one(Launch {
        kernel: 0,
        grid: grid_1d(n, THREADS, dev),
        block: [THREADS as u32, 1, 1],
        smem: 0,
        args: vec![Arg::In(0), Arg::Out(0), shape_arg(&out.dims, rank), i64_struct(words), Arg::I64(value)],
    }))
}
