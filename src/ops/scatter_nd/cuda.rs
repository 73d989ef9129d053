//! CUDA: a copy of x, then `scatter_nd.cu`: one thread per update, or one per position in a slice.
//!
//! Where the order of updates shows (sums and products that round) one thread per position walks all slices in order,
//! which is deterministic; with many slices one thread per update and atomic joins are offered first.

use super::ScatterND;
use crate::base::Result;
use crate::device::DeviceProps;
use crate::ops::gather_nd::Tuples;
use crate::ops::gather_nd::cuda::tuple_arg;
use crate::ops::scatter_elements::combine::Combine;
use crate::ops::transpose::cuda::{MAX_RANK, THREADS, grid_1d};
use crate::ops::{Arg, DeviceOp, KernelSpec, Launch, Problem, StepProgram, Tactic, TacticOptions, TacticSource};
use crate::{ensure, err};

const EACH: i64 = 0;
const COLUMN: i64 = 1;
/// More slices than this are only walked by one thread where slices are long.
const MANY: usize = 256;

fn tuples(p: &Problem) -> Result<Tuples> {
    let (Some(x), Some(indices)) = (p.input(0), p.input(1)) else {
        return Err(err!(InvalidArgument, "an operand is missing"));
    };
    Tuples::new(&x.dims, &indices.dims, 0)
}

pub fn tactics(op: &ScatterND, p: &Problem, _opt: &TacticOptions) -> Vec<Tactic> {
    let (Ok(t), Some(x), Some(indices)) = (tuples(p), p.input(0), p.input(1)) else { return vec![] };
    if t.sizes.len() > MAX_RANK {
        return vec![];
    }
    let make = |mode: i64| {
        let kernel = KernelSpec::new("scatter_nd.cu")
            .define("MODE", mode)
            .define_type("T_INDEX", indices.dtype)
            .define("THREADS", THREADS);
        let how = ["each", "column"][mode as usize];
        Tactic {
            name: format!("scatter_nd/{}_{how}_{}_{}", op.reduction.name(), x.dtype, indices.dtype),
            source: TacticSource::Kernels,
            kernels: vec![op.reduction.define(kernel, x.dtype)],
            params: vec![mode],
        }
    };
    match op.reduction {
        Combine::None => vec![make(EACH)],
        kind if kind.commutes(x.dtype) || (t.n() > MANY && t.inner < 4096) => vec![make(EACH), make(COLUMN)],
        _ => vec![make(COLUMN), make(EACH)],
    }
}

pub fn program(tactic: &Tactic, p: &Problem, dev: &DeviceProps) -> Result<StepProgram> {
    let t = tuples(p)?;
    let x = p.input(0).ok_or_else(|| err!(InvalidArgument, "input 0 is missing"))?;
    let [mode] = tactic.params[..] else {
        return Err(err!(CorruptData, "tactic {} has {} parameters instead of 1", tactic.name, tactic.params.len()));
    };
    if x.numel() == 0 {
        return Ok(StepProgram::default());
    }
    let mut ops = vec![DeviceOp::Copy { dst: Arg::Out(0), src: Arg::In(0), bytes: x.bytes() }];
    if t.n() * t.inner == 0 {
        return Ok(StepProgram { ops, workspace: 0 });
    }
    ensure!(t.sizes.len() <= MAX_RANK, InvalidState, "tactic {} does not fit {x}", tactic.name);
    let (threads, count) = if mode == COLUMN { (t.inner, t.n()) } else { (t.n() * t.inner, 1) };
    ops.push(DeviceOp::Launch(Launch {
        kernel: 0,
        grid: grid_1d(threads, THREADS, dev),
        block: [THREADS as u32, 1, 1],
        smem: 0,
        args: vec![
            Arg::In(1),
            Arg::In(2),
            Arg::Out(0),
            tuple_arg(&t, 1),
            Arg::I64(count as i64),
            Arg::I64(threads as i64),
        ],
    }));
    Ok(StepProgram { ops, workspace: 0 })
}
