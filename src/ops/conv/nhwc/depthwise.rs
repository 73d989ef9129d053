//! One filter a channel, by `conv_nhwc_depthwise.cu`.
//!
//! Parameters of a tactic behind its kind: channels of a thread, vectors of channels side by side, threads, rows and columns of
//! a thread's output pixels, whether a window slides in registers, blocks on a multiprocessor.

use super::{DEPTHWISE, extra, finish, own, params, result, spec, unknown_tile, vector};
use crate::base::Result;
use crate::ensure;
use crate::ops::conv::cuda::Context;
use crate::ops::epilogue::cuda::{Fusion, parts};
use crate::ops::window::ChannelOrder;
use crate::ops::{DeviceOp, Launch, StepProgram, Tactic, TacticOptions, TacticSource};

const N_OWN: usize = 7;
/// Static shared memory of filters at most.
const MAX_FILTERS: usize = 32 << 10;
/// Input pixels of a window in registers, and taps of an unrolled filter, at most.
const MAX_WINDOW: usize = 16;
const MAX_TAPS: usize = 49;
const MAX_BLOCKS_Y: usize = 65_535;
const MAX_LANES: usize = 32;

/// Rows and columns of a thread's pixels.
const SHAPES: &[[usize; 2]] = &[[1, 1], [1, 2], [1, 4], [2, 2], [2, 4], [1, 8], [4, 4]];

#[derive(Clone, Copy, Debug, PartialEq)]
struct Tile {
    vec: usize,
    lanes: usize,
    threads: usize,
    rows: usize,
    columns: usize,
    sliding: bool,
    blocks: usize,
}

impl Tile {
    fn params(&self) -> [i64; N_OWN] {
        let v = [self.vec, self.lanes, self.threads, self.rows, self.columns, self.sliding as usize, self.blocks];
        v.map(|v| v as i64)
    }

    fn of_params(v: &[i64; N_OWN]) -> Option<Tile> {
        let [vec, lanes, threads, rows, columns, sliding, blocks] = v.map(|v| usize::try_from(v).unwrap_or(usize::MAX));
        let known = matches!(vec, 1 | 2 | 4 | 8)
            && (1..=MAX_LANES).contains(&lanes)
            && matches!(threads, 128 | 256)
            && SHAPES.contains(&[rows, columns])
            && sliding <= 1
            && (1..=8).contains(&blocks);
        known.then_some(Tile { vec, lanes, threads, rows, columns, sliding: sliding == 1, blocks })
    }

    /// Groups of pixels in an image, and in a row.
    fn groups(&self, cx: &Context<'_>) -> [usize; 2] {
        let [_, p, q] = cx.g.window.output;
        let across = q.div_ceil(self.columns);
        [p.div_ceil(self.rows) * across, across]
    }

    fn chunks(&self, cx: &Context<'_>) -> usize {
        (cx.g.c / self.vec).div_ceil(self.lanes)
    }
}

pub(super) fn takes(cx: &Context<'_>) -> bool {
    let (g, taps) = (&cx.g, cx.g.window.taps());
    g.order == ChannelOrder::Last && g.c == g.group && g.m == g.c && taps * 8 * cx.dtype.size() <= MAX_FILTERS
}

/// A window of this many columns of outputs fits the registers.
fn slides(cx: &Context<'_>, rows: usize, columns: usize) -> bool {
    let w = &cx.g.window;
    let window = (columns - 1) * w.stride[2] + (w.kernel[2] - 1) * w.dilation[2] + 1;
    window <= MAX_WINDOW && w.taps() <= MAX_TAPS && (rows == 1 || w.dilation[1] == 1)
}

pub(super) fn tactics(cx: &Context<'_>, opt: &TacticOptions, fusion: &Fusion) -> Vec<Tactic> {
    let vec = vector(&[cx.g.c]).min(16 / cx.dtype.size());
    let vectors = cx.g.c / vec;
    let mut tiles: Vec<Tile> = Vec::new();
    for [rows, columns] in SHAPES.iter().copied().filter(|[r, c]| slides(cx, *r, *c)) {
        for lanes in lanes(vectors) {
            for threads in [128, 256] {
                tiles.push(Tile { vec, lanes, threads, rows, columns, sliding: true, blocks: 1 });
            }
        }
    }
    if tiles.is_empty() {
        let lanes = lanes(vectors).first().copied().unwrap_or(1);
        tiles.push(Tile { vec, lanes, threads: 128, rows: 1, columns: 1, sliding: false, blocks: 1 });
    }
    tiles.retain(|t| cx.g.window.taps() * t.lanes * t.vec * cx.dtype.size() <= MAX_FILTERS);
    tiles.sort_by(|a, b| cost(cx, a).total_cmp(&cost(cx, b)));
    tiles.truncate(opt.max_candidates().min(if opt.level > TacticOptions::DEFAULT_LEVEL { 24 } else { 6 }));
    tiles.iter().map(|t| tactic(cx, t, fusion)).collect()
}

/// Numbers of vectors side by side that waste little, most preferred first.
fn lanes(vectors: usize) -> Vec<usize> {
    let waste = |l: usize| vectors.div_ceil(l) * l - vectors;
    let mut out = vec![];
    for range in [8..=16, 4..=7, 2..=3] {
        let best = range.rev().filter(|l| *l <= vectors).min_by_key(|l| waste(*l) * 64 / vectors.max(1));
        out.extend(best);
    }
    if out.is_empty() {
        out.push(vectors.clamp(1, MAX_LANES));
    }
    out
}

/// Time in arbitrary units: instructions of a thread times rounds over the chip, for ranking.
fn cost(cx: &Context<'_>, t: &Tile) -> f64 {
    let w = &cx.g.window;
    let items = cx.g.n * t.groups(cx)[0];
    let blocks = items.div_ceil(t.threads / t.lanes) * t.chunks(cx);
    let warps = (blocks * t.threads / 32) as f64;
    let columns = (t.columns - 1) * w.stride[2] + w.kernel[2];
    let inputs = ((t.rows - 1) * w.stride[1] + w.kernel[1]) * columns;
    let work = (inputs * (t.vec + 4) + t.rows * t.columns * t.vec * (w.taps() + 6) + w.taps() * t.rows * t.vec) as f64;
    // A multiprocessor is busy with 16 warps or more; below, latency counts.
    let rounds = (warps / (cx.dev.n_sm.max(1) as f64 * 16.0)).max(0.25);
    let narrow = if t.lanes < 4 { 1.1 } else { 1.0 };
    (rounds * work + 150.0 + columns as f64 * w.kernel[1] as f64 * 4.0) * narrow
}

fn tactic(cx: &Context<'_>, t: &Tile, fusion: &Fusion) -> Tactic {
    let w = &cx.g.window;
    let spec = spec(cx, "conv_nhwc_depthwise.cu", false, fusion)
        .define("FILTER_H", w.kernel[1])
        .define("FILTER_W", w.kernel[2])
        .define("STRIDE_H", w.stride[1])
        .define("STRIDE_W", w.stride[2])
        .define("DIL_H", w.dilation[1])
        .define("DIL_W", w.dilation[2])
        .define("VEC", t.vec)
        .define("LANES", t.lanes)
        .define("THREADS", t.threads)
        .define("ROWS", t.rows)
        .define("COLUMNS", t.columns)
        .define("SLIDING", t.sliding as i64)
        .define("MIN_BLOCKS", t.blocks);
    let form = if t.sliding { "" } else { "_taps" };
    let shape = format!("{}x{}_{}x{}_{}threads", t.rows, t.columns, t.lanes, t.vec, t.threads);
    let name = format!("conv_nhwc_depthwise_{shape}{form}{}", fusion.text());
    let mut params = vec![DEPTHWISE];
    params.extend(t.params());
    fusion.complete(Tactic { name, source: TacticSource::Kernels, kernels: vec![spec], params })
}

pub(super) fn program(cx: &Context<'_>, tactic: &Tactic) -> Result<StepProgram> {
    let parts = parts(tactic, 1 + N_OWN)?;
    let t = Tile::of_params(own(tactic)?).ok_or_else(|| unknown_tile(tactic))?;
    let (g, w) = (&cx.g, &cx.g.window);
    ensure!(takes(cx) && g.c % t.vec == 0, Unsupported, "tactic {} does not take {} channels", tactic.name, g.c);
    let ([_, h, wd], [_, p, q]) = (w.input, w.output);
    let [per_image, across] = t.groups(cx);
    let items = g.n * per_image;
    let sizes = [h, wd, g.c, p, q, w.pad_begin[1], w.pad_begin[2], items, per_image, across];
    let (mut step, y) = result(cx, &parts);
    step.ops.push(DeviceOp::Launch(Launch {
        kernel: 0,
        grid: [t.chunks(cx).max(1) as u32, items.div_ceil(t.threads / t.lanes).clamp(1, MAX_BLOCKS_Y) as u32, 1],
        block: [t.threads as u32, 1, 1],
        smem: 0,
        args: cx.args(&y, params(&sizes, &[per_image, across]), &extra(cx, tactic, &parts)?),
    }));
    finish(cx, &parts, step, &y)
}
