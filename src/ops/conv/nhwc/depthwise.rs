//! One filter a channel, by `conv_nhwc_depthwise_mma.cu` (half types, from sm_80, of whole vectors) or
//! `conv_nhwc_depthwise.cu`.
//!
//! Parameters of a tactic behind its kind: channels of a thread, vectors of channels side by side, threads, rows and columns of
//! a thread's output pixels, the form, blocks on a multiprocessor.

use super::{DEPTHWISE, extra, finish, own, params, result, spec, unknown_tile, vector};
use crate::base::{DType, Result};
use crate::ensure;
use crate::ops::conv::cuda::Context;
use crate::ops::epilogue::cuda::{Fusion, parts};
use crate::ops::window::ChannelOrder;
use crate::ops::{DeviceOp, Launch, StepProgram, Tactic, TacticOptions, TacticSource};

const N_OWN: usize = 7;
/// Static shared memory of filters at most, which lie there in f32.
const MAX_FILTERS: usize = 32 << 10;
/// Shared memory of one tap's fragments.
const FRAGMENTS: usize = 128;
/// Input pixels of a window in registers, and taps of an unrolled filter, at most.
const MAX_WINDOW: usize = 16;
const MAX_TAPS: usize = 49;
const MAX_BLOCKS_Y: usize = 65_535;
const MAX_LANES: usize = 32;

/// One tap after the other, all taps of a window that slides in registers, or fragments of tensor cores.
const TAPS: usize = 0;
const SLIDING: usize = 1;
const MMA: usize = 2;

/// Rows and columns of a thread's pixels.
const SHAPES: &[[usize; 2]] = &[[1, 1], [1, 2], [1, 4], [2, 2], [2, 4], [4, 2]];
/// Form, rows and columns of a thread, threads and blocks on a multiprocessor of what won on an H200 where there is much to
/// do, best first, and where there is little. With four blocks there are fewer registers for each thread and more threads that
/// wait for memory.
const MANY: &[(usize, usize, usize, usize, usize)] = &[
    (SLIDING, 2, 2, 128, 4),
    (MMA, 4, 2, 128, 4),
    (SLIDING, 2, 4, 128, 1),
    (SLIDING, 1, 4, 128, 4),
    (MMA, 4, 2, 128, 1),
    (SLIDING, 2, 2, 128, 1),
];
const FEW: &[(usize, usize, usize, usize, usize)] = &[
    (SLIDING, 1, 1, 64, 1),
    (SLIDING, 1, 1, 128, 1),
    (SLIDING, 1, 2, 64, 1),
    (SLIDING, 1, 2, 128, 1),
];
/// Candidates below the highest levels.
const OFFERED: usize = 6;

#[derive(Clone, Copy, Debug, PartialEq)]
struct Tile {
    vec: usize,
    lanes: usize,
    threads: usize,
    rows: usize,
    columns: usize,
    form: usize,
    blocks: usize,
}

impl Tile {
    fn params(&self) -> [i64; N_OWN] {
        let v = [self.vec, self.lanes, self.threads, self.rows, self.columns, self.form, self.blocks];
        v.map(|v| v as i64)
    }

    fn of_params(v: &[i64; N_OWN]) -> Option<Tile> {
        let [vec, lanes, threads, rows, columns, form, blocks] = v.map(|v| usize::try_from(v).unwrap_or(usize::MAX));
        let known = matches!(vec, 1 | 2 | 4 | 8)
            && (1..=MAX_LANES).contains(&lanes)
            && matches!(threads, 32 | 64 | 128 | 256)
            && lanes <= threads
            && SHAPES.contains(&[rows, columns])
            && (form <= SLIDING || (form == MMA && vec == 8 && matches!(lanes, 1 | 2 | 4) && columns % 2 == 0))
            && (1..=8).contains(&blocks);
        known.then_some(Tile { vec, lanes, threads, rows, columns, form, blocks })
    }

    /// Threads of a block along pixels.
    fn pixels(&self) -> usize {
        self.threads / self.lanes
    }

    /// Shared memory of the filters.
    fn smem(&self, taps: usize) -> usize {
        if self.form == MMA { taps * FRAGMENTS } else { taps * self.lanes * self.vec * 4 }
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
    g.order == ChannelOrder::Last && g.c == g.group && g.m == g.c && taps * 8 * 4 <= MAX_FILTERS
}

/// A window of this many columns of outputs fits the registers.
fn slides(cx: &Context<'_>, rows: usize, columns: usize) -> bool {
    let w = &cx.g.window;
    let window = (columns - 1) * w.stride[2] + (w.kernel[2] - 1) * w.dilation[2] + 1;
    window <= MAX_WINDOW && w.taps() <= MAX_TAPS && (rows == 1 || w.dilation[1] == 1)
}

/// Fragments of tensor cores take half types, whole vectors and windows that registers hold.
fn has_fragments(cx: &Context<'_>) -> bool {
    matches!(cx.dtype, DType::F16 | DType::BF16) && cx.dev.sm >= 80 && cx.g.c % 8 == 0
}

pub(super) fn tactics(cx: &Context<'_>, opt: &TacticOptions, fusion: &Fusion) -> Vec<Tactic> {
    let taps = cx.g.window.taps();
    let vec = vector(&[cx.g.c]).min(16 / cx.dtype.size());
    let vectors = cx.g.c / vec;
    let tile = |(form, rows, columns, threads, blocks)| {
        let lanes = wasting_least(vectors, if form == MMA { &[1, 2, 4] } else { &[1, 2, 3, 4] });
        Tile { vec, lanes, threads, rows, columns, form, blocks }
    };
    let warps = cx.p.outputs[0].numel() / vec / 32;
    let few = warps < 64 * cx.dev.n_sm as usize;
    let (first, then) = if few { (FEW, MANY) } else { (MANY, FEW) };
    let mut tiles: Vec<Tile> = first
        .iter()
        .chain(then)
        .map(|t| tile(*t))
        .filter(|t| slides(cx, t.rows, t.columns) && (t.form != MMA || has_fragments(cx)) && t.smem(taps) <= MAX_FILTERS)
        .collect();
    if tiles.is_empty() {
        let one = Tile { vec, lanes: 1, threads: 128, rows: 1, columns: 1, form: TAPS, blocks: 1 };
        let two = Tile { lanes: wasting_least(vectors, &[1, 2]), ..one };
        tiles.push(if two.smem(taps) <= MAX_FILTERS { two } else { one });
    }
    let most = if opt.level > TacticOptions::DEFAULT_LEVEL { tiles.len() } else { OFFERED };
    tiles.truncate(opt.max_candidates().min(most));
    tiles.iter().map(|t| tactic(cx, t, fusion)).collect()
}

/// The largest of these numbers of vectors side by side, unless another wastes fewer lanes.
fn wasting_least(vectors: usize, of: &[usize]) -> usize {
    let used = |l: usize| vectors.next_multiple_of(l);
    of.iter().copied().min_by_key(|l| (used(*l), std::cmp::Reverse(*l))).unwrap_or(1)
}

fn tactic(cx: &Context<'_>, t: &Tile, fusion: &Fusion) -> Tactic {
    let w = &cx.g.window;
    let file = if t.form == MMA { "conv_nhwc_depthwise_mma.cu" } else { "conv_nhwc_depthwise.cu" };
    let spec = spec(cx, file, false, fusion)
        .define("FILTER_H", w.kernel[1])
        .define("FILTER_W", w.kernel[2])
        .define("STRIDE_H", w.stride[1])
        .define("STRIDE_W", w.stride[2])
        .define("DIL_H", w.dilation[1])
        .define("DIL_W", w.dilation[2])
        .define("LANES", t.lanes)
        .define("ROWS", t.rows)
        .define("COLUMNS", t.columns)
        .define("MIN_BLOCKS", t.blocks);
    let spec = match t.form {
        MMA => spec.define("WARPS", t.threads / 32),
        form => spec.define("VEC", t.vec).define("THREADS", t.threads).define("SLIDING", (form == SLIDING) as i64),
    };
    let form = match t.form {
        MMA => "_mma_sm80",
        SLIDING => "",
        _ => "_taps",
    };
    let shape = format!("{}x{}_{}x{}_{}threads_{}", t.rows, t.columns, t.lanes, t.vec, t.threads, t.blocks);
    let name = format!("conv_nhwc_depthwise{form}_{shape}{}", fusion.text());
    let mut params = vec![DEPTHWISE];
    params.extend(t.params());
    fusion.complete(Tactic { name, source: TacticSource::Kernels, kernels: vec![spec], params })
}

pub(super) fn program(cx: &Context<'_>, tactic: &Tactic) -> Result<StepProgram> {
    let parts = parts(tactic, 1 + N_OWN)?;
    let t = Tile::of_params(own(tactic)?).ok_or_else(|| unknown_tile(tactic))?;
    let (g, w) = (&cx.g, &cx.g.window);
    let fits = takes(cx) && g.c % t.vec == 0 && (t.form != MMA || has_fragments(cx));
    ensure!(fits, Unsupported, "tactic {} does not take {} channels", tactic.name, g.c);
    let ([_, h, wd], [_, p, q]) = (w.input, w.output);
    let [per_image, across] = t.groups(cx);
    let items = g.n * per_image;
    let sizes = [h, wd, g.c, p, q, w.pad_begin[1], w.pad_begin[2], items, per_image, across];
    let (mut step, y) = result(cx, &parts);
    step.ops.push(DeviceOp::Launch(Launch {
        kernel: 0,
        grid: [t.chunks(cx).max(1) as u32, items.div_ceil(t.pixels()).clamp(1, MAX_BLOCKS_Y) as u32, 1],
        block: [t.threads as u32, 1, 1],
        smem: 0,
        args: cx.args(&y, params(&sizes, &[per_image, across]), &extra(cx, tactic, &parts)?),
    }));
    finish(cx, &parts, step, &y)
}
