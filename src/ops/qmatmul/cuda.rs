//! CUDA: `qgemm.cu`, one kernel for every size. Up to four batch dimensions.

use super::QMatMul;
use crate::base::Result;
use crate::device::DeviceProps;
use crate::ops::requant::{self, Spread};
use crate::ops::{Arg, KernelSpec, Launch, Problem, StepProgram, Tactic, TacticSource, blocks, i64_struct};
use crate::{ensure, err};

const TILE: usize = 64;
const THREADS: u32 = 256;
const MAX_BATCH: usize = 4;
/// Blocks along the second and third axis of a grid.
const MAX_GRID_YZ: u32 = 65_535;

pub(super) fn tactics(op: &QMatMul, p: &Problem) -> Vec<Tactic> {
    let (Some(a), Some(b), Some(y)) = (p.input(0), p.input(1), p.outputs.first()) else { return vec![] };
    if y.dims.len() > MAX_BATCH + 2 {
        return vec![];
    }
    let (bias, zero) = requant::cuda_types(p);
    let needs = |i: usize| !requant::is_known_zero(p, i) as i64;
    let kernel = KernelSpec::new("qgemm.cu")
        .define_type("T_A", a.dtype)
        .define_type("T_B", b.dtype)
        .define_type("T_BIAS", bias)
        .define_type("T_ZERO", zero)
        .define("OUT", op.out.define())
        .define("TRANS_A", op.trans_a as i64)
        .define("TRANS_B", op.trans_b as i64)
        .define("A_SUMS", needs(requant::W_ZERO))
        .define("B_SUMS", needs(requant::X_ZERO));
    let name = format!("qgemm/{}_{}_{}", a.dtype, b.dtype, op.out.name());
    vec![Tactic { name, source: TacticSource::Kernels, kernels: vec![kernel], params: vec![] }]
}

pub(super) fn program(op: &QMatMul, p: &Problem, dev: &DeviceProps) -> Result<StepProgram> {
    let (Some(a), Some(b), Some(y)) = (p.input(0), p.input(1), p.outputs.first()) else {
        return Err(err!(InvalidArgument, "a product needs two operands"));
    };
    let g = op.geometry(&a.dims, &b.dims, &y.dims);
    ensure!(g.batch.len() <= MAX_BATCH, Unsupported, "a batch of {} dimensions", g.batch.len());
    if y.numel() == 0 {
        return Ok(StepProgram::default());
    }
    let mut numbers = vec![g.m, g.n, g.k];
    let lead = MAX_BATCH - g.batch.len();
    let pad = |values: &[usize], fill: usize| -> Vec<usize> {
        std::iter::repeat_n(fill, lead).chain(values.iter().copied()).collect()
    };
    numbers.extend(pad(&g.batch, 1));
    let mut spread = |batch: Vec<usize>, row: usize, col: usize| {
        let filled = if batch.is_empty() { vec![0; MAX_BATCH] } else { batch };
        numbers.extend(filled);
        numbers.extend([row, col]);
    };
    let matrices = |steps: &[usize], size: usize| pad(&steps.iter().map(|s| s * size).collect::<Vec<_>>(), 0);
    let a_lies = if op.trans_a { (1, g.m) } else { (g.k, 1) };
    let b_lies = if op.trans_b { (1, g.k) } else { (g.n, 1) };
    spread(matrices(&g.a_steps, g.m * g.k), a_lies.0, a_lies.1);
    spread(matrices(&g.b_steps, g.k * g.n), b_lies.0, b_lies.1);
    for i in requant::X_ZERO..requant::N_INPUTS {
        let s = p.input(i).map_or_else(Spread::default, |d| Spread::new(&d.dims, &y.dims));
        let batch = if s.batch.is_empty() { vec![] } else { pad(&s.batch, 0) };
        spread(batch, s.row, s.col);
    }
    let optional = |i: usize| if p.input(i).is_some() { Arg::In(i) } else { Arg::Null };
    let mut args = vec![Arg::In(0), Arg::In(1)];
    args.extend((requant::X_ZERO..requant::N_INPUTS).map(optional));
    args.extend([Arg::Out(0), i64_struct(numbers.into_iter().map(|v| v as i64)), Arg::F32(op.alpha)]);
    let rows = blocks(g.m, TILE);
    ensure!(rows <= MAX_GRID_YZ, Unsupported, "{} rows are too many for one launch", g.m);
    let grid = [blocks(g.n, TILE).min(dev.max_grid[0]), rows, blocks(g.n_batch(), 1).min(MAX_GRID_YZ)];
    Ok(StepProgram::one(Launch { kernel: 0, grid, block: [THREADS, 1, 1], smem: 0, args }))
}
