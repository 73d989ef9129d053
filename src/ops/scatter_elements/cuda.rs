//! CUDA: a copy of x, then `scatter_elements.cu`: one thread per update, or one per column of updates.
//!
//! Where the order of updates shows (sums and products that round) a thread walks one column in order, which is
//! deterministic; with few long columns one thread per update and atomic joins are offered first.

use super::ScatterElements;
use super::combine::Combine;
use crate::base::Result;
use crate::base::dims::normalize_axis;
use crate::base::tensor::strides_of;
use crate::device::DeviceProps;
use crate::ops::gather_elements::rows;
use crate::ops::transpose::cuda::{MAX_RANK, THREADS, check_index, grid_1d, index64, shape_arg, strides_arg};
use crate::ops::{Arg, DeviceOp, KernelSpec, Launch, Problem, StepProgram, Tactic, TacticOptions, TacticSource};
use crate::{ensure, err};

/// One thread per update: stores, or atomic joins.
const EACH: i64 = 0;
/// One thread per column, which is walked in order.
const COLUMN: i64 = 1;

/// A column longer than this is only walked by one thread where there are many.
pub const LONG: usize = 256;

pub fn tactics(op: &ScatterElements, p: &Problem, opt: &TacticOptions) -> Vec<Tactic> {
    let (Some(x), Some(indices)) = (p.input(0), p.input(1)) else { return vec![] };
    let Ok(axis) = normalize_axis(op.axis, x.dims.len()) else { return vec![] };
    let rank = x.dims.len();
    if rank > MAX_RANK {
        return vec![];
    }
    let wide = index64(indices.numel(), opt);
    let make = |mode: i64| {
        let kernel = KernelSpec::new("scatter_elements.cu")
            .define("MODE", mode)
            .define_type("T_INDEX", indices.dtype)
            .define("RANK", rank)
            .define("THREADS", THREADS)
            .define("INDEX64", wide);
        let kind = op.reduction.name();
        let how = ["each", "column"][mode as usize];
        Tactic {
            name: format!("scatter_elements/{kind}_{how}_{}_{}_rank{rank}_index{}", x.dtype, indices.dtype, 32 << wide),
            source: TacticSource::Kernels,
            kernels: vec![op.reduction.define(kernel, x.dtype)],
            params: vec![mode, rank as i64, wide],
        }
    };
    let long = indices.dims[axis] > LONG && indices.numel() / indices.dims[axis].max(1) < 4096;
    match op.reduction {
        Combine::None => vec![make(EACH)],
        kind if kind.commutes(x.dtype) || long => vec![make(EACH), make(COLUMN)],
        _ => vec![make(COLUMN), make(EACH)],
    }
}

pub fn program(op: &ScatterElements, tactic: &Tactic, p: &Problem, dev: &DeviceProps) -> Result<StepProgram> {
    let (Some(x), Some(indices)) = (p.input(0), p.input(1)) else {
        return Err(err!(InvalidArgument, "an operand is missing"));
    };
    let [mode, rank, wide] = tactic.params[..] else {
        return Err(err!(CorruptData, "tactic {} has {} parameters instead of 3", tactic.name, tactic.params.len()));
    };
    if x.numel() == 0 {
        return Ok(StepProgram::default());
    }
    let mut ops = vec![DeviceOp::Copy { dst: Arg::Out(0), src: Arg::In(0), bytes: x.bytes() }];
    let n = indices.numel();
    if n == 0 {
        return Ok(StepProgram { ops, workspace: 0 });
    }
    check_index(n, wide)?;
    let axis = normalize_axis(op.axis, x.dims.len())?;
    let rank = rank as usize;
    ensure!(x.dims.len() == rank && rank <= MAX_RANK, InvalidState, "tactic {} does not fit {x}", tactic.name);
    // The walk goes over all indices, or over the first of each column.
    let mut view = rows(&x.dims, &indices.dims, axis);
    let count = if mode == COLUMN { indices.dims[axis] } else { 1 };
    if mode == COLUMN {
        view.dims[axis] = 1;
    }
    let from: Vec<i64> = strides_of(&indices.dims).into_iter().map(|s| s as i64).collect();
    let n_threads = view.numel();
    ops.push(DeviceOp::Launch(Launch {
        kernel: 0,
        grid: grid_1d(n_threads, THREADS, dev),
        block: [THREADS as u32, 1, 1],
        smem: 0,
        args: vec![
            Arg::In(1),
            Arg::In(2),
            Arg::Out(0),
            shape_arg(&view.dims, rank),
            strides_arg(&view.strides, rank),
            strides_arg(&from, rank),
            Arg::I64(x.dims[axis] as i64),
            Arg::I64(strides_of(&x.dims)[axis] as i64),
            Arg::I64(from[axis]),
            Arg::I64(count as i64),
            Arg::I64(n_threads as i64),
        ],
    }));
    Ok(StepProgram { ops, workspace: 0 })
}
