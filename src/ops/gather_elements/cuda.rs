//! CUDA: `gather_elements.cu`, one thread per index.

use super::{GatherElements, rows};
use crate::base::Result;
use crate::base::dims::normalize_axis;
use crate::base::tensor::strides_of;
use crate::device::DeviceProps;
use crate::ops::transpose::cuda::{MAX_RANK, THREADS, check_index, grid_1d, index64, shape_arg, strides_arg, unit};
use crate::ops::{Arg, KernelSpec, Launch, Problem, StepProgram, Tactic, TacticOptions, TacticSource};
use crate::{ensure, err};

/// Ranks that the walk over indices has: merged axes, or all of them where other shapes may merge fewer.
pub fn walk_rank(merged: usize, rank: usize, opt: &TacticOptions) -> Option<usize> {
    Some(if opt.dynamic { rank.max(1) } else { merged }).filter(|r| *r <= MAX_RANK)
}

pub fn tactics(op: &GatherElements, p: &Problem, opt: &TacticOptions) -> Vec<Tactic> {
    let (Some(x), Some(indices)) = (p.input(0), p.input(1)) else { return vec![] };
    let Ok(axis) = normalize_axis(op.axis, x.dims.len()) else { return vec![] };
    let merged = rows(&x.dims, &indices.dims, axis).collapsed().dims.len();
    let Some(rank) = walk_rank(merged, x.dims.len(), opt) else { return vec![] };
    let wide = index64(indices.numel(), opt);
    let kernel = KernelSpec::new("gather_elements.cu")
        .define("T_UNIT", unit(x.dtype.size()))
        .define_type("T_INDEX", indices.dtype)
        .define("RANK", rank)
        .define("THREADS", THREADS)
        .define("INDEX64", wide);
    vec![Tactic {
        name: format!("gather_elements/{}b_{}_rank{rank}_index{}", 8 * x.dtype.size(), indices.dtype, 32 << wide),
        source: TacticSource::Kernels,
        kernels: vec![kernel],
        params: vec![rank as i64, wide],
    }]
}

pub fn program(op: &GatherElements, tactic: &Tactic, p: &Problem, dev: &DeviceProps) -> Result<StepProgram> {
    let (Some(x), Some(indices)) = (p.input(0), p.input(1)) else {
        return Err(err!(InvalidArgument, "an operand is missing"));
    };
    let [rank, wide] = tactic.params[..] else {
        return Err(err!(CorruptData, "tactic {} has {} parameters instead of 2", tactic.name, tactic.params.len()));
    };
    let n = indices.numel();
    if n == 0 {
        return Ok(StepProgram::default());
    }
    check_index(n, wide)?;
    let axis = normalize_axis(op.axis, x.dims.len())?;
    ensure!(x.dims[axis] > 0, InvalidArgument, "indices into axis {axis}, which is empty");
    let view = rows(&x.dims, &indices.dims, axis).collapsed();
    let rank = rank as usize;
    ensure!(view.dims.len() <= rank && rank <= MAX_RANK, InvalidState, "tactic {} does not fit {indices}", tactic.name);
    Ok(StepProgram::one(Launch {
        kernel: 0,
        grid: grid_1d(n, THREADS, dev),
        block: [THREADS as u32, 1, 1],
        smem: 0,
        args: vec![
            Arg::In(0),
            Arg::In(1),
            Arg::Out(0),
            shape_arg(&view.dims, rank),
            strides_arg(&view.strides, rank),
            Arg::I64(x.dims[axis] as i64),
            Arg::I64(strides_of(&x.dims)[axis] as i64),
            Arg::I64(n as i64),
        ],
    }))
}
