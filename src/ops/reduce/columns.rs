//! CUDA: `reduce_columns.cu`, for neighbouring axes with others behind them: the means of channels that lie last.
//!
//! Parameters of a tactic: [`MARK`], elements of a vector, whether rows are split over blocks, threads of a block.

use super::{Reduce, ReduceKind};
use crate::base::{DType, Result};
use crate::device::DeviceProps;
use crate::ops::epilogue::cuda::accumulator;
use crate::ops::{Arg, DeviceOp, KernelSpec, Launch, Problem, StepProgram, Tactic, TacticSource, i64_struct};
use crate::{ensure, err};

/// First parameter, which is no number of lanes.
pub const MARK: i64 = -1;
const THREADS: usize = 256;
/// Threads of a block where there are few blocks.
const MANY_THREADS: usize = 1024;
/// Bytes of one access at most.
const VECTOR: usize = 16;
/// Neighbouring columns of a block, in vectors: a line of memory; at least a sector, at most many lines.
const ACROSS: usize = 8;
const MIN_ACROSS: usize = 2;
const MAX_ACROSS: usize = 64;
/// Rows that a thread reads at once.
const AT_ONCE: usize = 4;
/// Rows that are worth a block of their own.
const MIN_ROWS: usize = 128;
const MAX_SPLITS: usize = 64;

/// The input as [outer, rows, inner] when the reduced axes are neighbours.
fn extents(dims: &[usize], axes: &[usize]) -> Option<[usize; 3]> {
    let (first, last) = (*axes.first()?, *axes.last()?);
    let product = |d: &[usize]| d.iter().product::<usize>();
    (last - first + 1 == axes.len())
        .then(|| [product(&dims[..first]), product(&dims[first..=last]), product(&dims[last + 1..])])
}

fn takes(op: &Reduce, dtype: DType) -> bool {
    use ReduceKind::*;
    dtype.is_float() && matches!(op.kind, Sum | Mean | Max | Min | Prod | SumSquare | L1 | L2)
}

/// Vectors of a row, blocks along them, and blocks that share the rows of one.
fn shape([outer, rows, inner]: [usize; 3], vec: usize, threads: usize, dev: &DeviceProps) -> (usize, usize, usize) {
    let vectors = inner / vec;
    let mut across = vectors.next_power_of_two().clamp(1, ACROSS);
    let n_blocks = |across: usize| vectors.div_ceil(across) * outer;
    let (processors, deep) = (dev.n_sm as usize, |across: usize| rows > AT_ONCE * (threads / across));
    // Few blocks: more of them, as long as threads have rows enough. Many: fewer that share less.
    while threads == MANY_THREADS && across > MIN_ACROSS && deep(across) && n_blocks(across) < processors {
        across /= 2;
    }
    while threads == THREADS && across < MAX_ACROSS && !deep(across) && n_blocks(2 * across) >= 2 * processors {
        across *= 2;
    }
    let blocks = vectors.div_ceil(across);
    let free = (2 * dev.n_sm as usize).max(1) / (blocks * outer).max(1);
    (across, blocks, free.min(rows / MIN_ROWS).clamp(1, MAX_SPLITS))
}

fn tactic(op: &Reduce, dtype: DType, out: DType, vec: usize, split: bool, threads: usize) -> Tactic {
    let spec = |from: DType, to: DType, stage: i64, vec: usize| {
        KernelSpec::new("reduce_columns.cu")
            .define_type("T_IN", from)
            .define_type("T_OUT", to)
            .define("OP", format!("REDUCE_{}", op.kind.name().to_uppercase()))
            .define("STAGE", stage)
            .define("VEC", vec)
            .define("THREADS", threads)
    };
    let sum = accumulator(dtype);
    let kernels = match split {
        true => vec![spec(dtype, sum, 1, vec), spec(sum, out, 2, narrow(vec, sum))],
        false => vec![spec(dtype, out, 0, vec)],
    };
    let split_text = if split { "_split" } else { "" };
    let name = format!("reduce_columns/{}_{dtype}_v{vec}_t{threads}{split_text}", op.kind.name());
    Tactic { name, source: TacticSource::Kernels, kernels, params: vec![MARK, vec as i64, split as i64, threads as i64] }
}

/// Elements of a vector of accumulators, a divisor of `vec`.
fn narrow(vec: usize, sum: DType) -> usize {
    vec.min(VECTOR / sum.size())
}

/// The tactics for this reduction, best first.
pub fn tactics(op: &Reduce, axes: &[usize], p: &Problem, dev: &DeviceProps) -> Vec<Tactic> {
    let (Some(x), Some(y)) = (p.input(0), p.outputs.first()) else { return vec![] };
    let Some(e @ [_, rows, inner]) = extents(&x.dims, axes) else { return vec![] };
    if !takes(op, x.dtype) || inner < ACROSS || rows < 2 {
        return vec![];
    }
    let mut vec = VECTOR / x.dtype.size();
    while inner % vec != 0 {
        vec /= 2;
    }
    let mut out = vec![tactic(op, x.dtype, y.dtype, vec, false, THREADS)];
    let (across, blocks, splits) = shape(e, vec, THREADS, dev);
    if splits > 1 {
        out.insert(0, tactic(op, x.dtype, y.dtype, vec, true, THREADS));
    }
    // Accumulators of 1024 threads fit the shared memory of a block.
    let fits = MANY_THREADS * vec * accumulator(x.dtype).size() <= 48 << 10;
    if fits && blocks * e[0] < dev.n_sm as usize && rows > AT_ONCE * (THREADS / across) {
        out.insert(0, tactic(op, x.dtype, y.dtype, vec, false, MANY_THREADS));
    }
    out
}

/// The launches of one of [`tactics`].
pub fn program(op: &Reduce, axes: &[usize], tactic: &Tactic, p: &Problem, dev: &DeviceProps) -> Result<StepProgram> {
    let (Some(x), Some(y)) = (p.input(0), p.outputs.first()) else {
        return Err(err!(InvalidArgument, "input 0 is missing"));
    };
    let [MARK, vec, split @ (0 | 1), threads] = tactic.params[..] else {
        return Err(err!(CorruptData, "tactic {} has not the parameters that it needs", tactic.name));
    };
    ensure!(
        [THREADS, MANY_THREADS].contains(&(threads as usize)) && matches!(vec, 1 | 2 | 4 | 8) && vec as usize * x.dtype.size() <= VECTOR && tactic.kernels.len() == 1 + split as usize,
        CorruptData,
        "tactic {} has no vectors that are known",
        tactic.name
    );
    let (vec, threads) = (vec as usize, threads as usize);
    let Some(e @ [outer, rows, inner]) = extents(&x.dims, axes) else {
        return Err(err!(InvalidState, "tactic {} takes neighbouring axes", tactic.name));
    };
    if y.numel() == 0 {
        return Ok(StepProgram::default());
    }
    ensure!(
        takes(op, x.dtype) && inner % vec == 0,
        Unsupported,
        "{inner} columns are not whole vectors of tactic {}",
        tactic.name
    );
    let (across, _, splits) = shape(e, vec, threads, dev);
    let splits = if split == 1 { splits } else { 1 };
    let launch = |kernel: usize, [outer, rows, inner]: [usize; 3], vec: usize, across: usize, splits: usize, x: Arg, y: Arg| {
        let params = [outer, rows, inner, e[1]].map(|v| v as i64);
        DeviceOp::Launch(Launch {
            kernel,
            grid: [crate::ops::blocks(inner / vec, across), splits as u32, outer.clamp(1, 65_535) as u32],
            block: [across as u32, (threads / across) as u32, 1],
            smem: 0,
            args: vec![x, y, i64_struct(params)],
        })
    };
    if split != 1 {
        return Ok(StepProgram { ops: vec![launch(0, e, vec, across, 1, Arg::In(0), Arg::Out(0))], workspace: 0 });
    }
    // The parts [splits, outer * inner] are columns again; those of one block hold few rows.
    let sum = accumulator(x.dtype);
    let parts = launch(0, [outer, rows, inner], vec, across, splits, Arg::In(0), Arg::Work(0));
    let whole = launch(1, [1, splits, outer * inner], narrow(vec, sum), 32, 1, Arg::Work(0), Arg::Out(0));
    Ok(StepProgram { ops: vec![parts, whole], workspace: splits * outer * inner * sum.size() })
}
