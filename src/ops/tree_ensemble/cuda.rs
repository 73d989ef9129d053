//! CUDA: `tree_ensemble.cu`. A thread finds the leaf of a row in a tree, then a warp adds up a target of a row; with very
//! many rows one thread does a row.

use super::*;
use crate::err;
use crate::ops::transpose::cuda::{THREADS, grid_1d};
use crate::ops::{Arg, DeviceOp, KernelSpec, Launch, TacticSource};

/// Leaves that are held between the two launches.
const HELD: usize = 1 << 24;

pub fn tactics(op: &TreeEnsemble, p: &Problem) -> Vec<Tactic> {
    let Some(x) = p.input(X) else { return vec![] };
    let kernel = |mode: i64| {
        KernelSpec::new("tree_ensemble.cu")
            .define_type("T_IN", x.dtype)
            .define("MODE", mode)
            .define("AGGREGATE", op.aggregate as i64)
            .define("THREADS", THREADS)
    };
    vec![Tactic {
        name: format!("trees/{}_{}", op.aggregate.name(), x.dtype),
        source: TacticSource::Kernels,
        kernels: (0..3).map(kernel).collect(),
        params: vec![],
    }]
}

pub fn program(op: &TreeEnsemble, p: &Problem, dev: &DeviceProps) -> Result<StepProgram> {
    let (Some(x), Some(roots), Some(nodes), Some(weights)) = (p.input(X), p.input(ROOTS), p.input(NODES), p.input(WEIGHTS)) else {
        return Err(err!(InvalidArgument, "an operand of the trees is missing"));
    };
    let (rows, features, n_trees, n_targets) = (x.dims[0], x.dims[1], roots.numel(), op.n_targets as usize);
    if rows * n_targets == 0 {
        return Ok(StepProgram::default());
    }
    let sizes = [rows, features, n_trees, n_targets, nodes.dims[0], weights.numel()].map(|v| Arg::I64(v as i64));
    let held = rows.saturating_mul(n_trees);
    let launch = |kernel: usize, n: usize, work: Arg| {
        let mut args: Vec<Arg> = (0..6).map(Arg::In).collect();
        args.extend([Arg::Out(0), work]);
        args.extend(sizes.clone());
        DeviceOp::Launch(Launch { kernel, grid: grid_1d(n, THREADS, dev), block: [THREADS as u32, 1, 1], smem: 0, args })
    };
    if held > HELD {
        return Ok(StepProgram { ops: vec![launch(2, rows, Arg::Null)], workspace: 0 });
    }
    let mut ops = Vec::new();
    if held > 0 {
        ops.push(launch(0, held, Arg::Work(0)));
    }
    ops.push(launch(1, rows.saturating_mul(n_targets).saturating_mul(32), Arg::Work(0)));
    Ok(StepProgram { ops, workspace: (4 * held).max(4) })
}
