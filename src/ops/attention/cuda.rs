//! CUDA: `attention_tile.cu` (a tile of queries a block) and `attention_row.cu` (a query a block, for few queries and for
//! scores as an output). Both take any size; a tactic for changing shapes has both and chooses at each shape.

use super::eval::lowest;
use super::{Attention, Causal, Geometry, LENGTHS, MASK, OFFSETS, SINKS, Scores};
use crate::base::{DType, Result};
use crate::ops::{
    Arg, KernelSpec, Launch, Problem, StepProgram, Tactic, TacticOptions, TacticSource, cuda_type, i64_struct,
};
use crate::ensure;

const TILE: i64 = 0;
const ROW: i64 = 1;
const WARPS: usize = 4;
/// Queries from which on a tile pays.
const TILE_FROM: usize = 8;

fn acc(dtype: DType) -> DType {
    if dtype == DType::F64 { DType::F64 } else { DType::F32 }
}

fn float(dtype: DType, v: f64) -> Arg {
    if dtype == DType::F64 { Arg::F64(v) } else { Arg::F32(v as f32) }
}

fn spec(op: &Attention, p: &Problem, g: &Geometry, mode: i64, rows: usize, cols: usize) -> KernelSpec {
    let int = |i: usize| p.input(i).map_or(DType::I32, |d| d.dtype);
    let mask = p.input(MASK).map_or(g.dtype, |d| d.dtype);
    let k = KernelSpec::new(if mode == TILE { "attention_tile.cu" } else { "attention_row.cu" })
        .define_type("T_X", g.dtype)
        .define_type("T_ACC", acc(g.dtype))
        .define_type("T_MASK", mask)
        .define("T_LENGTH", cuda_type(int(LENGTHS)))
        .define("T_OFFSET", cuda_type(int(OFFSETS)))
        .define("WARPS", WARPS)
        .define("V_COLS", cols);
    match mode {
        TILE => k.define("ROWS", rows),
        _ => k.define("SCORES", Scores::ALL.iter().position(|s| *s == op.scores).unwrap_or(0)),
    }
}

/// Columns of v that a block takes.
fn columns(v_size: usize, most: usize) -> usize {
    v_size.clamp(1, most).next_multiple_of(32).next_power_of_two().min(most)
}

pub fn tactics(op: &Attention, p: &Problem, opt: &TacticOptions) -> Vec<Tactic> {
    let Ok(g) = Geometry::new(op, p) else { return vec![] };
    let wide = g.dtype == DType::F64;
    // (mode, queries of a warp, columns of v)
    let tile = (TILE, if wide { 4 } else { 8 }, columns(g.v_size, if wide { 64 } else { 128 }));
    let row = (ROW, 1, columns(g.v_size, 256));
    let tactic = |parts: &[(i64, usize, usize)]| {
        let name = parts.iter().map(|(mode, rows, cols)| match *mode {
            TILE => format!("tile{}x{cols}", rows * WARPS),
            _ => format!("row{cols}"),
        });
        Tactic {
            name: format!("attention/{}_{}", name.collect::<Vec<_>>().join("_"), g.dtype),
            source: TacticSource::Kernels,
            kernels: parts.iter().map(|(mode, rows, cols)| spec(op, p, &g, *mode, *rows, *cols)).collect(),
            params: parts.iter().flat_map(|(mode, rows, cols)| [*mode, *rows as i64, *cols as i64]).collect(),
        }
    };
    if op.scores != Scores::None {
        return vec![tactic(&[row])];
    }
    if opt.dynamic {
        return vec![tactic(&[tile, row])];
    }
    match g.q_len {
        0..TILE_FROM => vec![tactic(&[row])],
        _ => vec![tactic(&[tile]), tactic(&[row])],
    }
}

pub fn program(op: &Attention, tactic: &Tactic, p: &Problem) -> Result<StepProgram> {
    let g = Geometry::new(op, p)?;
    let kernels: Vec<&[i64]> = tactic.params.chunks_exact(3).collect();
    let sound = |k: &&[i64]| (1..=64).contains(&k[1]) && (32..=256).contains(&k[2]);
    ensure!(
        !kernels.is_empty() && kernels.len() == tactic.kernels.len() && kernels.iter().all(sound),
        CorruptData,
        "tactic {} has parameters out of range",
        tactic.name
    );
    let has_scores = op.scores != Scores::None;
    if p.outputs.iter().all(|o| o.numel() == 0) {
        return Ok(StepProgram::default());
    }
    let wanted = if g.q_len < TILE_FROM || has_scores { ROW } else { TILE };
    let at = kernels.iter().position(|k| k[0] == wanted).unwrap_or(0);
    let [mode, rows, cols] = kernels[at] else { unreachable!("chunks of three") };
    let (rows, cols) = (*rows as usize, *cols as usize);
    let n_chunks = g.v_size.div_ceil(cols).max(1);
    let n_tiles = g.q_len.div_ceil(if *mode == TILE { rows * WARPS } else { 1 });
    let grid = g.batch as u128 * g.q_heads as u128 * n_tiles as u128 * n_chunks as u128;
    ensure!(grid <= i32::MAX as u128, Unsupported, "attention over {} queries is more than one launch takes", g.q_len);
    let mask = g.mask.map_or(([0; 4], 0), |m| (m.strides, m.n_keys));
    let causal = Causal::ALL.iter().position(|c| *c == op.causal).unwrap_or(0);
    let sizes = [g.q_heads, g.group(), g.q_len, g.kv_len, g.size, g.v_size];
    let strides = [g.q, g.k, g.v, g.y].concat();
    let numbers = sizes.into_iter().chain(strides).chain(mask.0).chain([mask.1, causal]).map(|v| v as i64);
    let numbers = numbers.chain([op.window, !g.shared_offset as i64, op.smooth as i64]);
    let given = |i: usize| if p.input(i).is_some() { Arg::In(i) } else { Arg::Null };
    let mut args = vec![Arg::In(0), Arg::In(1), Arg::In(2)];
    args.extend([MASK, LENGTHS, OFFSETS, SINKS].map(given));
    args.push(Arg::Out(0));
    if *mode == ROW {
        args.push(if has_scores { Arg::Out(1) } else { Arg::Null });
    }
    args.push(i64_struct(numbers));
    let ty = acc(g.dtype);
    args.extend([float(ty, op.scale_for(g.size)), float(ty, op.softcap as f64), float(ty, lowest(g.dtype))]);
    if *mode == TILE {
        args.push(Arg::I64(n_tiles as i64));
    }
    args.push(Arg::I64(n_chunks as i64));
    Ok(StepProgram::one(Launch {
        kernel: at,
        grid: [grid as u32, 1, 1],
        block: [32 * WARPS as u32, 1, 1],
        smem: 0,
        args,
    }))
}
