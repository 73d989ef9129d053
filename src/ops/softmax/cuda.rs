//! CUDA: a warp per row in registers for short rows, a block per row for long ones, a thread per column otherwise.

use super::Softmax;
use crate::base::Result;
use crate::ops::{Arg, KernelSpec, Launch, Problem, StepProgram, Tactic, TacticOptions, TacticSource, blocks};
use crate::{ensure, err};

const WARP: i64 = 0;
const BLOCK: i64 = 1;
const STRIDED: i64 = 2;
/// Longest row that a warp holds.
const WARP_COLS: usize = 2048;
/// Longest row that a warp holds where rows of other lengths may come.
const WARP_COLS_DYNAMIC: usize = 512;

fn spec(op: &Softmax, p: &Problem, mode: i64, threads: usize, vec: usize, max_cols: usize) -> KernelSpec {
    let dtype = p.outputs[0].dtype;
    let k = KernelSpec::new("softmax.cu")
        .define_type("T_IN", dtype)
        .define_type("T_OUT", dtype)
        .define("LOG", op.log as i64)
        .define("MODE", mode)
        .define("THREADS", threads)
        .define("VEC", vec);
    if mode == WARP { k.define("MAX_COLS", max_cols) } else { k }
}

/// `params` of a tactic: mode, threads and longest row of each kernel.
fn tactic(op: &Softmax, p: &Problem, modes: &[(i64, usize, usize, usize)]) -> Tactic {
    let name = modes.iter().map(|(mode, threads, vec, cols)| {
        let mode_name = ["warp", "block", "strided"][*mode as usize];
        format!("{mode_name}{cols}_t{threads}_v{vec}")
    });
    let kind = if op.log { "log_softmax" } else { "softmax" };
    Tactic {
        name: format!("{kind}/{}_{}", name.collect::<Vec<_>>().join("_"), p.outputs[0].dtype),
        source: TacticSource::Kernels,
        kernels: modes.iter().map(|(mode, t, vec, cols)| spec(op, p, *mode, *t, *vec, *cols)).collect(),
        params: modes.iter().flat_map(|(mode, t, vec, cols)| [*mode, *t as i64, *vec as i64, *cols as i64]).collect(),
    }
}

pub fn tactics(op: &Softmax, p: &Problem, opt: &TacticOptions) -> Vec<Tactic> {
    let Some(x) = p.input(0) else { return vec![] };
    let Ok((_, cols, inner)) = op.extents(&x.dims) else { return vec![] };
    let is_row = op.flatten || op.axis == -1 || op.axis == x.dims.len() as i64 - 1;
    if opt.dynamic {
        let modes: &[_] = match is_row {
            true => &[(WARP, 128, 1, WARP_COLS_DYNAMIC), (BLOCK, 256, 1, 0)],
            false => &[(STRIDED, 128, 1, 0)],
        };
        return vec![tactic(op, p, modes)];
    }
    if inner > 1 {
        return vec![tactic(op, p, &[(STRIDED, 128, 1, 0)])];
    }
    let widest = (16 / x.dtype.size()).min(8);
    let vec = (0..4).map(|k| widest >> k).find(|v| *v > 0 && cols % v == 0).unwrap_or(1);
    let mut out = Vec::new();
    if cols <= WARP_COLS {
        let held = cols.max(1).next_multiple_of(32 * vec);
        if held <= WARP_COLS {
            out.push(tactic(op, p, &[(WARP, 128, vec, held)]));
        } else {
            out.push(tactic(op, p, &[(WARP, 128, 1, cols.next_multiple_of(32))]));
        }
    }
    if cols > 256 {
        let at = if cols > 1024 { 0 } else { out.len() };
        out.insert(at, tactic(op, p, &[(BLOCK, if cols >= 4096 { 512 } else { 256 }, vec, 0)]));
    }
    out
}

pub fn program(op: &Softmax, tactic: &Tactic, p: &Problem) -> Result<StepProgram> {
    let x = p.input(0).ok_or_else(|| err!(InvalidArgument, "input 0 is missing"))?;
    let (outer, cols, inner) = op.extents(&x.dims)?;
    let rows = outer * inner;
    if rows * cols == 0 {
        return Ok(StepProgram::default());
    }
    let sound = |k: &[i64]| (32..=1024).contains(&k[1]) && k[2] > 0;
    ensure!(tactic.params.chunks_exact(4).all(sound), CorruptData, "tactic {} has parameters out of range", tactic.name);
    // The first kernel that takes these rows; a strided one takes any.
    let fits = |k: &[i64]| match k[0] {
        WARP => inner == 1 && cols <= k[3] as usize && cols % k[2] as usize == 0,
        BLOCK => inner == 1 && cols % k[2] as usize == 0,
        _ => true,
    };
    let at = tactic.params.chunks_exact(4).position(fits);
    let at = at.ok_or_else(|| err!(InvalidState, "tactic {} does not fit {x}", tactic.name))?;
    let [mode, threads, ..] = tactic.params[4 * at..4 * at + 4] else { unreachable!("chunks of four") };
    let grid = match mode {
        WARP => rows.div_ceil(threads as usize / 32),
        BLOCK => rows,
        _ => rows.div_ceil(threads as usize),
    };
    ensure!(grid <= i32::MAX as usize, Unsupported, "softmax over {rows} rows is more than one launch takes");
    Ok(StepProgram::one(Launch {
        kernel: at,
        grid: [blocks(grid, 1), 1, 1],
        block: [threads as u32, 1, 1],
        smem: 0,
        args: vec![
            Arg::In(0),
            Arg::Out(0),
            Arg::I64(rows as i64),
            Arg::I64(cols as i64),
            Arg::I64(inner as i64),
        ],
    }))
}
