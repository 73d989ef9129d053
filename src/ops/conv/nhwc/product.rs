//! Convolutions with channels last as an implicit product, by `conv_nhwc_mma.cu`: any channels, groups and windows.
//!
//! Groups of few channels are joined: several of them are one group of a block, whose filters stand on a diagonal. Parameters of
//! a tactic behind its kind: those of [`Tile`], elements of a load of x and of w, channels of a store, groups joined in one,
//! whether the sum is split over blocks, and whether there is a second kernel that loads x element by element.

use super::{PRODUCT, extra, finish, own, params, result, spec, unknown_tile, vector};
use crate::base::{DType, Result};
use crate::ensure;
use crate::ops::conv::cuda::Context;
use crate::ops::epilogue::cuda::{Fusion, parts};
use crate::ops::matmul::gemm::{finish_launch, finish_spec};
use crate::ops::window::ChannelOrder;
use crate::ops::{Arg, DeviceOp, KernelSpec, Launch, StepProgram, Tactic, TacticOptions, TacticSource};

const N_OWN: usize = 12;
const MAX_SPLITS: usize = 16;
/// Bytes of partial sums at most.
const MAX_PARTS: usize = 64 << 20;
/// Channels that a joined group should have.
const JOINED: usize = 16;
const MAX_STEP: usize = 1 << 24;

/// Pixels, channels and k of a block, warps along the first two, stages of the ring.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Tile {
    m: usize,
    n: usize,
    k: usize,
    warps_m: usize,
    warps_n: usize,
    stages: usize,
    /// Share of the peak, for ranking.
    quality: f64,
}

const fn tile(m: usize, n: usize, k: usize, warps_m: usize, warps_n: usize, stages: usize, quality: f64) -> Tile {
    Tile { m, n, k, warps_m, warps_n, stages, quality }
}

const TILES: &[Tile] = &[
    tile(128, 128, 32, 2, 4, 4, 1.0),
    tile(128, 64, 32, 4, 2, 4, 0.85),
    tile(64, 128, 32, 2, 2, 4, 0.8),
    tile(64, 64, 64, 2, 2, 3, 0.7),
    tile(128, 32, 32, 4, 1, 4, 0.65),
    tile(64, 32, 64, 2, 2, 3, 0.5),
    tile(32, 32, 64, 2, 2, 3, 0.35),
    tile(32, 64, 64, 1, 4, 4, 0.45),
    tile(16, 64, 64, 1, 4, 4, 0.3),
    tile(128, 16, 32, 4, 1, 4, 0.4),
    tile(64, 16, 64, 4, 1, 3, 0.35),
];

impl Tile {
    fn threads(&self) -> usize {
        32 * self.warps_m * self.warps_n
    }

    fn smem(&self) -> usize {
        let ring = 2 * self.stages * (self.m + self.n) * (self.k + 8);
        let out = 4 * self.warps_m * self.warps_n * 16 * (self.n / self.warps_n + 8);
        ring.max(out) + 16 * self.m
    }
}

/// The problem as blocks see it.
struct Groups {
    /// Groups of the convolution in one of a block.
    joined: usize,
    n: usize,
    /// Channels of one.
    c: usize,
    m: usize,
    k_total: usize,
}

impl Groups {
    fn of(cx: &Context<'_>, joined: usize) -> Groups {
        let g = &cx.g;
        let c = g.c / g.group * joined;
        Groups { joined, n: g.group / joined, c, m: g.m / g.group * joined, k_total: c * g.window.taps() }
    }

    /// Joined where that fills a fragment.
    fn best(cx: &Context<'_>) -> Groups {
        let g = &cx.g;
        let (c, m) = (g.c / g.group, g.m / g.group);
        let enough = |j: usize| c * j >= JOINED && m * j >= JOINED;
        let joined = (1..=g.group)
            .filter(|j| g.group % j == 0 && (c * j).max(m * j) <= 4 * JOINED)
            .find(|j| enough(*j))
            .filter(|_| g.order == ChannelOrder::Last);
        Groups::of(cx, joined.unwrap_or(1))
    }

    fn blocks_n(&self, t: &Tile) -> usize {
        self.m.div_ceil(t.n)
    }
}

/// Elements of loads of x and of w, and channels of a store.
fn vectors(cx: &Context<'_>, groups: &Groups) -> [usize; 3] {
    let (g, w) = (&cx.g, &cx.g.window);
    let a = match g.order {
        ChannelOrder::Last => vector(&[groups.c]),
        _ if w.dilation[2] > 1 => 1,
        _ => vector(&[w.kernel[2], w.stride[2], w.pad_begin[2], w.input[2]]),
    };
    let b = if groups.joined > 1 { vector(&[g.c / g.group]) } else { vector(&[groups.k_total]) };
    [a, b, vector(&[groups.m])]
}

fn pixels(cx: &Context<'_>) -> usize {
    cx.g.n * cx.g.window.output.iter().product::<usize>()
}

fn takes(cx: &Context<'_>) -> bool {
    let (g, w) = (&cx.g, &cx.g.window);
    let small = |v: usize| v < MAX_STEP;
    matches!(cx.dtype, DType::F16 | DType::BF16)
        && cx.dev.sm >= 80
        && g.c > 0
        && small(g.c / g.group * w.taps())
        && (1..3).all(|i| small((w.kernel[i] - 1) * w.dilation[i]) && small(w.input[i] + w.pad_begin[i]))
}

fn tiles_of(groups: &Groups, t: &Tile, cx: &Context<'_>) -> usize {
    groups.blocks_n(t) * groups.n * pixels(cx).div_ceil(t.m)
}

/// Parts of the sum that fill the chip.
fn splits(groups: &Groups, t: &Tile, cx: &Context<'_>) -> usize {
    let total = pixels(cx) * cx.g.m;
    let by_memory = MAX_PARTS / (4 * total.max(1));
    let by_k = groups.k_total / (4 * t.k);
    (2 * cx.dev.n_sm as usize / tiles_of(groups, t, cx).max(1)).min(by_k).min(by_memory).clamp(1, MAX_SPLITS)
}

/// Time in arbitrary units: rounds over the chip, each a tile's products and a fixed part.
fn cost(groups: &Groups, t: &Tile, splits: usize, cx: &Context<'_>) -> f64 {
    let blocks = (tiles_of(groups, t, cx) * splits) as f64;
    let rounds = (blocks / cx.dev.n_sm.max(1) as f64).ceil();
    let k = (groups.k_total.div_ceil(splits)).next_multiple_of(t.k) as f64;
    let parts = if splits > 1 { 200_000.0 } else { 0.0 };
    rounds * ((t.m * t.n) as f64 / t.quality * (k + 32.0) + 30_000.0) + parts
}

/// The best tiles, and the best one that splits its sums; few where other kernels come first.
pub(super) fn tactics(cx: &Context<'_>, opt: &TacticOptions, fusion: &Fusion, few: bool) -> Vec<Tactic> {
    if !takes(cx) || cx.is_product() {
        return Vec::new();
    }
    let groups = Groups::best(cx);
    let mut tiles: Vec<Tile> =
        TILES.iter().filter(|t| t.smem() <= cx.dev.max_smem_per_block as usize).copied().collect();
    tiles.sort_by(|a, b| cost(&groups, a, 1, cx).total_cmp(&cost(&groups, b, 1, cx)));
    let split = |t: &Tile| splits(&groups, t, cx);
    let split_cost = |t: &Tile| cost(&groups, t, split(t), cx);
    let best_split = tiles.iter().filter(|t| split(t) > 1).min_by(|a, b| split_cost(a).total_cmp(&split_cost(b))).copied();
    let most = if opt.level > TacticOptions::DEFAULT_LEVEL { TILES.len() } else { 4 };
    tiles.truncate(if few { 1 } else { most });
    let mut out: Vec<Tactic> = tiles.iter().map(|t| tactic(cx, &groups, t, false, opt, fusion)).collect();
    if let (Some(s), Some(t)) = (best_split, tiles.first()) {
        if split_cost(&s) < cost(&groups, t, 1, cx) {
            out.insert(1, tactic(cx, &groups, &s, true, opt, fusion));
        }
    }
    out
}

fn kernel(cx: &Context<'_>, groups: &Groups, t: &Tile, vectors: [usize; 3], split: bool, fusion: &Fusion) -> KernelSpec {
    let [a, b, y] = vectors;
    spec(cx, "conv_nhwc_mma.cu", split, fusion)
        .define("BLOCK_M", t.m)
        .define("BLOCK_N", t.n)
        .define("BLOCK_K", t.k)
        .define("WARPS_M", t.warps_m)
        .define("WARPS_N", t.warps_n)
        .define("STAGES", t.stages)
        .define("VEC_A", a)
        .define("VEC_B", b)
        .define("VEC_Y", y)
        .define("X_FIRST", (cx.g.order == ChannelOrder::FirstToLast) as i64)
        .define("JOINED", (groups.joined > 1) as i64)
}

fn tactic(cx: &Context<'_>, groups: &Groups, t: &Tile, split: bool, opt: &TacticOptions, fusion: &Fusion) -> Tactic {
    let vectors = vectors(cx, groups);
    let [a, b, y] = vectors;
    let mut kernels = vec![kernel(cx, groups, t, vectors, split, fusion)];
    // The width of x and its padding may change.
    let twin = opt.dynamic && cx.g.order == ChannelOrder::FirstToLast && a > 1;
    if twin {
        kernels.push(kernel(cx, groups, t, [1, b, y], split, fusion));
    }
    if split {
        kernels.push(finish_spec(cx.dtype, cx.stored(fusion), cx.has_bias, 2, fusion));
    }
    let own = [
        t.m, t.n, t.k, t.warps_m, t.warps_n, t.stages, a, b, y, groups.joined, split as usize, twin as usize,
    ];
    let joined = if groups.joined > 1 { format!("_{}groups", groups.joined) } else { String::new() };
    let narrow = if a.min(b) < 8 { format!("_{a}x{b}elements") } else { String::new() };
    let form = if split { "_split" } else { "" };
    let shape = format!("{}x{}x{}_{}x{}x{}", t.m, t.n, t.k, t.warps_m, t.warps_n, t.stages);
    let name = format!("conv_nhwc_mma_{shape}{narrow}{joined}{form}{}", fusion.text());
    let params = std::iter::once(PRODUCT).chain(own.map(|v| v as i64)).collect();
    fusion.complete(Tactic { name, source: TacticSource::Kernels, kernels, params })
}

pub(super) fn program(cx: &Context<'_>, tactic: &Tactic) -> Result<StepProgram> {
    let parts = parts(tactic, 1 + N_OWN)?;
    let own: &[i64; N_OWN] = own(tactic)?;
    let own = own.map(|v| usize::try_from(v).unwrap_or(usize::MAX));
    let [m, n, k, warps_m, warps_n, stages, a, b, y, joined, split, twin] = own;
    let t = tile(m, n, k, warps_m, warps_n, stages, 1.0);
    let known = TILES.iter().any(|k| Tile { quality: 1.0, ..*k } == t) && split <= 1 && twin <= 1;
    let vector = |v: usize| matches!(v, 1 | 2 | 4 | 8);
    ensure!(known && vector(a) && vector(b) && vector(y), CorruptData, "{}", unknown_tile(tactic).message);
    let g = &cx.g;
    let fits = takes(cx) && joined >= 1 && g.group % joined == 0 && (joined == 1 || g.order == ChannelOrder::Last);
    ensure!(fits, Unsupported, "tactic {} does not take {} groups of {} channels", tactic.name, g.group, g.c / g.group);
    let groups = Groups::of(cx, joined);
    let [has_a, has_b, has_y] = vectors(cx, &groups);
    ensure!(has_b >= b && has_y >= y, Unsupported, "tactic {} needs rows of whole vectors", tactic.name);
    ensure!(has_a >= a || twin == 1, Unsupported, "tactic {} needs pixels of whole vectors", tactic.name);
    let kernel = (has_a < a) as usize;
    let grid = tiles_of(&groups, &t, cx);
    ensure!(grid <= i32::MAX as usize, Unsupported, "a convolution of {grid} tiles is too large for one launch");
    let splits = if split == 1 { splits(&groups, &t, cx) } else { 1 };

    let (mut step, y) = result(cx, &parts);
    let extra = extra(cx, tactic, &parts)?;
    let part = Arg::Work(step.workspace);
    let mut args = cx.args(if split == 1 { &part } else { &y }, sizes(cx, &groups, &t), &if split == 1 { vec![] } else { extra.clone() });
    if split == 1 {
        // Bias and operands are added to the sum of the parts.
        args[2] = Arg::Null;
    }
    step.ops.push(DeviceOp::Launch(Launch {
        kernel,
        grid: [grid.max(1) as u32, splits as u32, 1],
        block: [t.threads() as u32, 1, 1],
        smem: t.smem() as u32,
        args,
    }));
    if split == 1 {
        step.workspace += splits * pixels(cx) * g.m * 4;
        let bias = if cx.has_bias { Arg::In(2) } else { Arg::Null };
        let mut args = vec![part, bias, y.clone()];
        let by_row: Vec<[i64; 5]> = extra.iter().map(|s| [s[0], s[2], s[1], 0, 0]).collect();
        args.extend(cx.e.args(&by_row));
        let shape = [g.n, pixels(cx) / g.n.max(1), g.m, 1, 1];
        let launch = finish_launch(parts.last_kernel(tactic)?, shape, splits as i64, args, cx.dev)?;
        step.ops.push(DeviceOp::Launch(launch));
    }
    finish(cx, &parts, step, &y)
}

/// MmaParams.
fn sizes(cx: &Context<'_>, groups: &Groups, t: &Tile) -> Arg {
    let (g, w) = (&cx.g, &cx.g.window);
    let ([_, h, wd], [_, p, q], [_, r, s]) = (w.input, w.output, w.kernel);
    let (single_c, single_m) = (g.c / g.group, g.m / g.group);
    let sizes = [
        g.n, h, wd, g.c, g.m, p, q, groups.n, groups.c, groups.m, single_c, single_m, groups.k_total, r * s, s, w.stride[1],
        w.stride[2], w.pad_begin[1], w.pad_begin[2], w.dilation[1], w.dilation[2], pixels(cx), groups.blocks_n(t),
    ];
    let inner = if g.order == ChannelOrder::FirstToLast { r * s } else { groups.c };
    params(&sizes, &[p * q, q, inner, s, groups.blocks_n(t), groups.n, single_c, single_m])
}
