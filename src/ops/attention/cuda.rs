//! CUDA: `attention_wgmma_sm90.cu` (`wgmma.rs`) and `attention_mma_sm80.cu` (`mma.rs`), tensor cores, for f16 and bf16, `attention_tile.cu` (a tile of queries a block)
//! and `attention_row.cu` (a query a block, for few queries and for scores as an output). The last two take any size; a
//! tactic for changing shapes has them behind its own kernel and chooses at each shape.

use super::eval::lowest;
use super::{mma, wgmma};
use super::{Attention, Causal, Geometry, LENGTHS, MASK, OFFSETS, SINKS, Scores};
use crate::base::{DType, Result};
use crate::device::DeviceProps;
use crate::ops::{
    Arg, KernelSpec, Launch, Problem, StepProgram, Tactic, TacticOptions, TacticSource, cuda_type, i64_struct,
};
use crate::{bail, ensure};

const TILE: i64 = 0;
const ROW: i64 = 1;
const MMA: i64 = 2;
const WGMMA: i64 = 3;
/// Variants of the fast kernel that are timed.
const OFFERED: usize = 4;
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

/// A kernel of a tactic, for the shapes that it serves.
#[derive(Clone, Copy, Debug)]
enum Part {
    /// Queries of a warp, columns of v.
    Tile(usize, usize),
    Row(usize),
    Mma(mma::Variant),
    Wgmma(wgmma::Variant),
}

/// Parameters of a part: its mode and the kernel's own.
const N_PARAMS: usize = 1 + mma::N_PARAMS;

impl Part {
    fn name(&self) -> String {
        match self {
            Part::Tile(rows, cols) => format!("tile{}x{cols}", rows * WARPS),
            Part::Row(cols) => format!("row{cols}"),
            Part::Mma(v) => v.name(),
            Part::Wgmma(v) => v.name(),
        }
    }

    fn specs(&self, op: &Attention, p: &Problem, g: &Geometry) -> Vec<KernelSpec> {
        match self {
            Part::Tile(rows, cols) => vec![spec(op, p, g, TILE, *rows, *cols)],
            Part::Row(cols) => vec![spec(op, p, g, ROW, 1, *cols)],
            Part::Mma(v) => v.specs(op, p, g),
            Part::Wgmma(v) => vec![v.spec(op, p, g)],
        }
    }

    fn params(&self) -> [i64; N_PARAMS] {
        let mut all = [0; N_PARAMS];
        match self {
            Part::Tile(rows, cols) => all[..3].copy_from_slice(&[TILE, *rows as i64, *cols as i64]),
            Part::Row(cols) => all[..3].copy_from_slice(&[ROW, 1, *cols as i64]),
            Part::Mma(v) => {
                all[0] = MMA;
                all[1..].copy_from_slice(&v.params());
            }
            Part::Wgmma(v) => {
                all[0] = WGMMA;
                all[1..][..wgmma::N_PARAMS].copy_from_slice(&v.params());
            }
        }
        all
    }

    fn of_params(params: &[i64]) -> Option<Part> {
        let (rows, cols) = (params[1], params[2]);
        let sound = (1..=64).contains(&rows) && (32..=256).contains(&cols);
        match params[0] {
            TILE if sound => Some(Part::Tile(rows as usize, cols as usize)),
            ROW if sound => Some(Part::Row(cols as usize)),
            MMA => mma::Variant::of_params(&params[1..]).map(Part::Mma),
            WGMMA => wgmma::Variant::of_params(&params[1..][..wgmma::N_PARAMS]).map(Part::Wgmma),
            _ => None,
        }
    }

    /// Whether the part may run the problem, and is meant for it.
    fn serves(&self, op: &Attention, p: &Problem, g: &Geometry) -> bool {
        let has_scores = op.scores != Scores::None;
        match self {
            Part::Mma(v) => !has_scores && v.serves(op, g),
            Part::Wgmma(v) => !has_scores && v.serves(op, p, g),
            Part::Tile(..) => !has_scores && g.q_len >= TILE_FROM,
            Part::Row(_) => true,
        }
    }

    fn n_kernels(&self) -> usize {
        match self {
            Part::Mma(v) => v.n_kernels(),
            _ => 1,
        }
    }
}

pub fn tactics(op: &Attention, p: &Problem, dev: &DeviceProps, opt: &TacticOptions) -> Vec<Tactic> {
    let Ok(g) = Geometry::new(op, p) else { return vec![] };
    let wide = g.dtype == DType::F64;
    let tile = Part::Tile(if wide { 4 } else { 8 }, columns(g.v_size, if wide { 64 } else { 128 }));
    let row = Part::Row(columns(g.v_size, 256));
    let tactic = |parts: &[Part]| {
        let names: Vec<String> = parts.iter().map(Part::name).collect();
        Tactic {
            name: format!("attention/{}_{}", names.join("_"), g.dtype),
            source: TacticSource::Kernels,
            kernels: parts.iter().flat_map(|part| part.specs(op, p, &g)).collect(),
            params: parts.iter().flat_map(|part| part.params()).collect(),
        }
    };
    if op.scores != Scores::None {
        return vec![tactic(&[row])];
    }
    let any: Vec<Part> = mma::variants(op, &g, dev).into_iter().take(OFFERED).map(Part::Mma).collect();
    let hopper: Vec<Part> = wgmma::variants(op, p, &g, dev).into_iter().map(Part::Wgmma).collect();
    // Behind the chosen kernel, for other shapes: one that takes other strides, then those that take anything.
    let general: Vec<Part> = any.first().copied().into_iter().chain([tile, row]).collect();
    let mut list: Vec<Tactic> = Vec::new();
    for part in hopper.iter().chain(&any).take(opt.max_candidates()) {
        let rest = if matches!(part, Part::Mma(_)) { &general[1..] } else { &general[..] };
        let parts: Vec<Part> = std::iter::once(*part).chain(rest.iter().copied()).collect();
        list.push(tactic(if opt.dynamic { &parts } else { &parts[..1] }));
    }
    if !list.is_empty() {
        return list;
    }
    if opt.dynamic {
        return vec![tactic(&[tile, row])];
    }
    if g.q_len >= TILE_FROM {
        list.push(tactic(&[tile]));
    }
    list.push(tactic(&[row]));
    list
}

pub fn program(op: &Attention, tactic: &Tactic, p: &Problem, dev: &DeviceProps) -> Result<StepProgram> {
    let g = Geometry::new(op, p)?;
    let parts: Option<Vec<Part>> = tactic.params.chunks(N_PARAMS).map(|c| if c.len() == N_PARAMS { Part::of_params(c) } else { None }).collect();
    let parts = parts.filter(|parts| !parts.is_empty() && parts.iter().map(Part::n_kernels).sum::<usize>() == tactic.kernels.len());
    let Some(parts) = parts else { bail!(CorruptData, "tactic {} has parameters out of range", tactic.name) };
    if p.outputs.iter().all(|o| o.numel() == 0) {
        return Ok(StepProgram::default());
    }
    // A tile alone serves few queries too; scores as an output need the kernel that writes them.
    let is_last = |part: &&Part| op.scores == Scores::None && matches!(part, Part::Tile(..));
    let chosen = parts.iter().find(|part| part.serves(op, p, &g)).or_else(|| parts.iter().find(is_last));
    let Some(part) = chosen else { bail!(Unsupported, "tactic {} does not serve operands of these sizes", tactic.name) };
    let at = parts.iter().take_while(|other| !std::ptr::eq(*other, part)).map(Part::n_kernels).sum();

    let given = |i: usize| if p.input(i).is_some() { Arg::In(i) } else { Arg::Null };
    let mut args = g.sources.map(Arg::In).to_vec();
    args.extend([MASK, LENGTHS, OFFSETS, SINKS].map(given));
    args.push(Arg::Out(0));
    let mask = g.mask.map_or(([0; 4], g.kv_len), |m| (m.strides, m.n_keys));
    let causal = Causal::ALL.iter().position(|c| *c == op.causal).unwrap_or(0);
    let sizes = [g.q_heads, g.group(), g.q_len, g.kv_len, g.size, g.v_size];
    let strides = [g.firsts, g.q, g.k, g.v, g.y].concat();
    let numbers = sizes.into_iter().chain(strides).chain(mask.0).chain([mask.1, causal]).map(|v| v as i64);
    let numbers = i64_struct(numbers.chain([op.window, !g.shared_offset as i64, op.smooth as i64]));
    let (mode, rows, cols) = match part {
        Part::Mma(v) => return Ok(v.program(op, &g, dev, at, args, numbers)),
        Part::Wgmma(v) => return Ok(v.program(op, &g, dev, at, &args, numbers)),
        Part::Tile(rows, cols) => (TILE, rows * WARPS, *cols),
        Part::Row(cols) => (ROW, 1, *cols),
    };
    let n_chunks = g.v_size.div_ceil(cols).max(1);
    let n_tiles = g.q_len.div_ceil(rows);
    let grid = g.batch as u128 * g.q_heads as u128 * n_tiles as u128 * n_chunks as u128;
    ensure!(grid <= i32::MAX as u128, Unsupported, "attention over {} queries is more than one launch takes", g.q_len);
    if mode == ROW {
        args.push(if op.scores != Scores::None { Arg::Out(1) } else { Arg::Null });
    }
    args.push(numbers);
    let ty = acc(g.dtype);
    args.extend([float(ty, op.scale_for(g.size)), float(ty, op.softcap as f64), float(ty, lowest(g.dtype))]);
    if mode == TILE {
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
