//! Convolutions over few channels, as the first layer of a network is, by `conv_nhwc_first.cu`.
//!
//! The kernel reads planes. An input with its channels last is one plane of rows of w*c elements under filters of rows of
//! s*c, with stride and padding times c. Parameters of a tactic behind its kind: those of [`Tile`], channels of a store, elements
//! of a filter row as it is multiplied.

use super::{FIRST, extra, finish, own, params, result, spec, unknown_tile, vector};
use crate::base::{DType, Result};
use crate::ensure;
use crate::ops::conv::cuda::Context;
use crate::ops::epilogue::cuda::{Fusion, parts};
use crate::ops::window::ChannelOrder;
use crate::ops::{DeviceOp, Launch, StepProgram, Tactic, TacticOptions, TacticSource};

const N_OWN: usize = 8;
/// Length of a padded sum at most: beyond, the implicit product serves better.
const MAX_K: usize = 288;
/// Input channels at most, where they stand last.
const MAX_CHANNELS_LAST: usize = 4;
const MAX_TILES: usize = 1 << 30;

/// Rows of 16*q pixels and channels of a block, channels of a warp, warps, fragments that a warp multiplies at once.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Tile {
    h: usize,
    q: usize,
    n: usize,
    warp_n: usize,
    warps: usize,
    fragments: usize,
}

const fn tile(h: usize, q: usize, n: usize, warp_n: usize, warps: usize, fragments: usize) -> Tile {
    Tile { h, q, n, warp_n, warps, fragments }
}

const TILES: &[Tile] = &[
    tile(8, 1, 64, 32, 4, 4),
    tile(8, 1, 64, 32, 4, 2),
    tile(8, 1, 64, 16, 8, 4),
    tile(8, 2, 64, 32, 4, 2),
    tile(4, 1, 64, 32, 4, 2),
    tile(16, 1, 64, 32, 8, 2),
    tile(4, 1, 32, 32, 4, 1),
    tile(8, 1, 32, 32, 4, 2),
    tile(16, 1, 32, 32, 4, 2),
    tile(8, 2, 32, 32, 4, 2),
    tile(4, 1, 16, 16, 4, 1),
    tile(8, 1, 16, 16, 4, 2),
    tile(16, 1, 16, 16, 4, 4),
    tile(8, 2, 16, 16, 4, 4),
];

/// The problem as the kernel sees it.
struct Planes {
    planes: usize,
    /// Width of input and filter, stride and padding along it.
    w: usize,
    filter_w: usize,
    stride_w: usize,
    pad_w: usize,
}

impl Planes {
    fn of(cx: &Context<'_>) -> Planes {
        let (g, w) = (&cx.g, &cx.g.window);
        let times = if g.order == ChannelOrder::Last { g.c } else { 1 };
        Planes {
            planes: g.c / times.max(1),
            w: w.input[2] * times,
            filter_w: w.kernel[2] * times,
            stride_w: w.stride[2] * times,
            pad_w: w.pad_begin[2] * times,
        }
    }

    /// Columns between the first aligned one of a tile and the first that it reads.
    fn shift(&self) -> usize {
        self.pad_w.wrapping_neg() % 8
    }

    /// Taps that a filter row starts late, so that pairs of taps stay aligned.
    fn lead(&self) -> usize {
        self.shift() % 2
    }
}

/// Sizes in shared memory, as the kernel adds them up.
fn smem(cx: &Context<'_>, t: &Tile, pitch: usize) -> usize {
    let (w, v) = (&cx.g.window, Planes::of(cx));
    let steps = (v.planes * w.kernel[1] * pitch).div_ceil(16);
    let input_h = (t.h - 1) * w.stride[1] + (w.kernel[1] - 1) * w.dilation[1] + 1;
    let input_w = ((16 * t.q - 1) * v.stride_w + pitch + 6).next_multiple_of(8);
    2 * (t.n * (16 * steps + 8) + 2 * v.planes * input_h * input_w) + 4 * t.warps * 16 * (t.warp_n + 8)
}

fn takes(cx: &Context<'_>) -> bool {
    let (g, w) = (&cx.g, &cx.g.window);
    let half = matches!(cx.dtype, DType::F16 | DType::BF16);
    let few = g.order == ChannelOrder::FirstToLast || g.c <= MAX_CHANNELS_LAST;
    let size = |v: usize| v < 1 << 15;
    half && cx.dev.sm >= 80
        && g.group == 1
        && g.c > 0
        && few
        && w.dilation[2] == 1
        && [w.kernel, w.stride, w.dilation].iter().flatten().all(|v| size(*v))
        && g.c * w.kernel[1] * w.kernel[2] <= MAX_K
}

pub(super) fn tactics(cx: &Context<'_>, opt: &TacticOptions, fusion: &Fusion) -> Vec<Tactic> {
    if !takes(cx) {
        return Vec::new();
    }
    let v = Planes::of(cx);
    // Where padding follows from the shapes, room for either kind.
    let lead = if opt.dynamic { 1 } else { v.lead() };
    let pitch = (v.filter_w + lead).next_multiple_of(2);
    if v.planes * cx.g.window.kernel[1] * pitch > MAX_K {
        return Vec::new();
    }
    let wide = if cx.g.m > 32 { 64 } else { cx.g.m.next_multiple_of(16).min(32) };
    let mut tiles: Vec<Tile> = TILES
        .iter()
        .filter(|t| t.n == wide || (t.n == 32 && wide == 64))
        .filter(|t| smem(cx, t, pitch) <= cx.dev.max_smem_per_block as usize)
        .copied()
        .collect();
    tiles.sort_by(|a, b| cost(cx, a).total_cmp(&cost(cx, b)));
    tiles.truncate(opt.max_candidates().min(if opt.level > TacticOptions::DEFAULT_LEVEL { 12 } else { 6 }));
    tiles.iter().map(|t| tactic(cx, t, pitch, fusion)).collect()
}

fn tiles_of(cx: &Context<'_>, t: &Tile) -> [usize; 2] {
    let [_, p, q] = cx.g.window.output;
    [p.div_ceil(t.h), q.div_ceil(16 * t.q)]
}

/// Blocks on a multiprocessor: by shared memory, and as a guess by registers.
fn blocks(cx: &Context<'_>, t: &Tile, pitch: usize) -> usize {
    let by_memory = cx.dev.max_smem_per_block as usize / smem(cx, t, pitch);
    by_memory.min(if t.warps > 4 { 1 } else { 3 }).max(1)
}

/// Time in arbitrary units: rounds over the chip, each the filters once and its tiles.
fn cost(cx: &Context<'_>, t: &Tile) -> f64 {
    let [down, across] = tiles_of(cx, t);
    let across_n = cx.g.m.div_ceil(t.n);
    let tiles = (cx.g.n * down * across * across_n) as f64;
    let pixels = (t.h * t.q * 16 * t.n) as f64;
    let rounds = (tiles / (cx.dev.n_sm.max(1) as f64 * if t.warps > 4 { 1.0 } else { 2.0 })).max(0.5).ceil();
    rounds * (pixels + 1500.0) + (t.n * 60) as f64
}

fn tactic(cx: &Context<'_>, t: &Tile, pitch: usize, fusion: &Fusion) -> Tactic {
    let (w, v) = (&cx.g.window, Planes::of(cx));
    let vec_y = vector(&[cx.g.m]);
    let spec = spec(cx, "conv_nhwc_first.cu", false, fusion)
        .define("PLANES", v.planes)
        .define("FILTER_H", w.kernel[1])
        .define("FILTER_W", v.filter_w)
        .define("STRIDE_H", w.stride[1])
        .define("STRIDE_W", v.stride_w)
        .define("DIL_H", w.dilation[1])
        .define("TAP_PITCH", pitch)
        .define("TILE_H", t.h)
        .define("TILE_Q", t.q)
        .define("BLOCK_N", t.n)
        .define("WARP_N", t.warp_n)
        .define("WARPS", t.warps)
        .define("FRAGMENTS", t.fragments)
        .define("VEC_Y", vec_y);
    let own = [t.h, t.q, t.n, t.warp_n, t.warps, t.fragments, vec_y, pitch];
    let shape = format!("{}x{}x{}_{}x{}_{}", t.h, 16 * t.q, t.n, t.warp_n, t.warps, t.fragments);
    let name = format!("conv_nhwc_first_{shape}{}", fusion.text());
    let params = std::iter::once(FIRST).chain(own.map(|v| v as i64)).collect();
    fusion.complete(Tactic { name, source: TacticSource::Kernels, kernels: vec![spec], params })
}

pub(super) fn program(cx: &Context<'_>, tactic: &Tactic) -> Result<StepProgram> {
    let parts = parts(tactic, 1 + N_OWN)?;
    let own: &[i64; N_OWN] = own(tactic)?;
    let [h, q, n, warp_n, warps, fragments, vec_y, pitch] = own.map(|v| usize::try_from(v).unwrap_or(usize::MAX));
    let t = tile(h, q, n, warp_n, warps, fragments);
    ensure!(TILES.contains(&t) && matches!(vec_y, 1 | 2 | 4 | 8) && pitch <= MAX_K, CorruptData, "{}", unknown_tile(tactic).message);
    let (g, w, v) = (&cx.g, &cx.g.window, Planes::of(cx));
    let fits = takes(cx) && v.filter_w + v.lead() <= pitch && g.m % vec_y == 0;
    ensure!(fits, Unsupported, "tactic {} does not take filters of {:?}", tactic.name, w.kernel);
    let smem = smem(cx, &t, pitch);
    ensure!(smem <= cx.dev.max_smem_per_block as usize, Unsupported, "tactic {} needs {smem} bytes", tactic.name);
    let ([_, p, q], [down, across]) = (w.output, tiles_of(cx, &t));
    let tiles = g.n * down * across;
    ensure!(tiles < MAX_TILES, Unsupported, "a convolution of {tiles} tiles is too large for one launch");
    let sizes = [g.n, w.input[1], v.w, g.m, p, q, w.pad_begin[1], v.pad_w, v.shift(), v.lead(), tiles, down, across];
    let (mut step, y) = result(cx, &parts);
    let grid = tiles.clamp(1, cx.dev.n_sm.max(1) as usize * blocks(cx, &t, pitch));
    step.ops.push(DeviceOp::Launch(Launch {
        kernel: 0,
        grid: [grid as u32, g.m.div_ceil(t.n).max(1) as u32, 1],
        block: [32 * t.warps as u32, 1, 1],
        smem: smem as u32,
        args: cx.args(&y, params(&sizes, &[down * across, across]), &extra(cx, tactic, &parts)?),
    }));
    finish(cx, &parts, step, &y)
}
