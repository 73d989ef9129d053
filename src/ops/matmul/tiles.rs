//! Tiles of the kernels for products, and how they rank.

use super::gemm::DeviceGemm;
use crate::base::DType;
use crate::device::DeviceProps;
use crate::ops::epilogue::cuda::accumulator;

pub(super) const MMA: i64 = 0;
pub(super) const SIMT: i64 = 1;
pub(super) const LIBRARY: i64 = 2;
pub(super) const WGMMA: i64 = 3;
pub(super) const SKINNY: i64 = 4;

const MAX_SPLITS: i64 = 32;
/// Bytes of partial sums at most.
const MAX_PARTS: i64 = 64 << 20;

/// A tile of a kernel. For few rows `x` is the number of warps. For tensor cores `x`, `y`, `z` are warps along m and n and stages; else outputs of a thread along m
/// and n and elements of a load.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Tile {
    pub algo: i64,
    pub m: i64,
    pub n: i64,
    pub k: i64,
    pub x: i64,
    pub y: i64,
    pub z: i64,
    /// Share of the peak that a multiprocessor reaches with it, for ranking.
    pub quality: f64,
}

const fn mma(m: i64, n: i64, k: i64, x: i64, y: i64, z: i64, quality: f64) -> Tile {
    Tile { algo: MMA, m, n, k, x, y, z, quality }
}

const fn simt(m: i64, n: i64, k: i64, x: i64, y: i64, z: i64, quality: f64) -> Tile {
    Tile { algo: SIMT, m, n, k, x, y, z, quality }
}

pub(super) const MMA_TILES: &[Tile] = &[
    mma(128, 256, 32, 2, 4, 3, 1.0),
    mma(256, 128, 32, 4, 2, 3, 1.0),
    mma(128, 128, 32, 2, 4, 4, 0.95),
    mma(64, 128, 64, 2, 2, 4, 0.8),
    mma(128, 64, 64, 2, 2, 4, 0.8),
    mma(64, 64, 64, 2, 2, 3, 0.65),
    mma(32, 64, 64, 2, 2, 3, 0.45),
    mma(64, 32, 64, 2, 2, 3, 0.45),
    mma(32, 32, 64, 2, 2, 3, 0.3),
];

pub(super) const SIMT_TILES: &[Tile] = &[
    simt(128, 128, 8, 8, 8, 4, 1.0),
    simt(128, 64, 16, 8, 4, 4, 0.85),
    simt(64, 64, 16, 4, 4, 4, 0.7),
    simt(32, 32, 32, 2, 4, 4, 0.4),
    simt(16, 64, 16, 1, 4, 1, 0.3),
];

const fn skinny(m: i64, n: i64, warps: i64) -> Tile {
    Tile { algo: SKINNY, m, n, k: 32, x: warps, y: 1, z: 1, quality: 1.0 }
}

/// For few rows: all warps of a block share k.
pub(super) const SKINNY_TILES: &[Tile] = &[
    skinny(8, 8, 8),
    skinny(8, 8, 16),
    skinny(8, 8, 32),
    skinny(8, 16, 4),
    skinny(8, 16, 8),
    skinny(8, 16, 16),
    skinny(8, 16, 32),
    skinny(8, 32, 8),
    skinny(8, 32, 16),
    skinny(16, 8, 16),
    skinny(16, 8, 32),
    skinny(16, 16, 8),
    skinny(16, 16, 16),
    skinny(16, 16, 32),
    skinny(16, 32, 8),
    skinny(16, 32, 16),
    skinny(32, 16, 8),
    skinny(32, 16, 16),
];
/// Rows up to which these are worth a try.
const SKINNY_ROWS: i64 = 32;
/// Elements of weights from which on memory is the limit.
const LARGE_WEIGHTS: i64 = 1 << 22;
/// Tiles for few rows that are offered.
const SKINNY_OFFERED: usize = 3;

/// Tiles for a product with few rows, best guess first.
pub(super) fn skinny_tiles(g: &DeviceGemm, dev: &DeviceProps) -> Vec<Tile> {
    let typed = matches!(g.dtype, DType::F16 | DType::BF16) && dev.sm >= 80;
    if !typed || g.trans_a || g.m > SKINNY_ROWS || g.m < 1 || g.k < 1 {
        return Vec::new();
    }
    let rows = [8, 16, 32].into_iter().find(|r| g.m <= *r).unwrap_or(SKINNY_ROWS);
    // Where reading weights is what takes the time, small blocks keep more loads under way.
    let is_large = g.n.saturating_mul(g.k) > LARGE_WEIGHTS;
    let most_warps = if is_large { 8 } else { (g.k / 32).max(8) };
    let fits = |t: &&Tile| t.m == rows && (g.trans_b || t.n >= 16) && t.x <= most_warps;
    let mut list: Vec<Tile> = SKINNY_TILES.iter().filter(fits).copied().collect();
    // Rounds of blocks over the chip (2048 threads on a multiprocessor), each as long as its steps along k and the sum over
    // warps at the end; wide blocks read more in a step.
    let cost = |t: &Tile| {
        let at_once = (dev.n_sm.max(1) as i64 * (2048 / t.threads()).min(8)) as f64;
        let rounds = (t.tiles(g) as f64 / at_once).ceil();
        let steps = (g.k as f64 / (32 * t.x) as f64).ceil();
        rounds * (6.0 + 0.3 * t.x as f64 + steps * (1.0 + t.n as f64 / 16.0))
    };
    list.sort_by(|a, b| cost(a).total_cmp(&cost(b)));
    list.truncate(SKINNY_OFFERED);
    list
}

/// Takes what tensor maps cannot say, beside a kernel of `wgmma.rs`; the second one in f32.
pub(super) const WGMMA_TWIN: Tile = mma(64, 64, 64, 2, 2, 3, 0.65);
pub(super) const WGMMA_TWIN_F32: Tile = simt(64, 64, 16, 4, 4, 4, 0.7);

/// Takes every problem on every device.
pub(super) const GENERIC: Tile = simt(16, 16, 16, 1, 1, 1, 0.1);

impl Tile {
    pub fn threads(&self) -> i64 {
        match self.algo {
            MMA => 32 * self.x * self.y,
            SKINNY => 32 * self.x,
            _ => (self.m / self.x) * (self.n / self.y),
        }
    }

    /// Dynamic shared memory.
    pub fn smem(&self, g: &DeviceGemm) -> i64 {
        if self.algo != MMA {
            return 0;
        }
        let a = if g.trans_a { self.k * (self.m + 8) } else { self.m * (self.k + 8) };
        let b = if g.trans_b { self.n * (self.k + 8) } else { self.k * (self.n + 8) };
        2 * self.z * (a + b)
    }

    /// Static shared memory of a scalar tile, for the kernel's own limit of 48 KiB.
    pub fn static_smem(&self, dtype: DType) -> i64 {
        // Integers are summed in 64 bits.
        let size = if dtype.is_float() { accumulator(dtype).size() as i64 } else { 8 };
        2 * self.k * (self.m + self.n + 2 * (16 / size)) * size
    }

    /// Elements of the widest load that the kernel takes with this tile and type.
    pub fn vector(&self, dtype: DType) -> i64 {
        let t = self.threads();
        let fits = |v: i64| {
            v * dtype.size() as i64 <= 16
                && self.m * self.k % (t * v) == 0
                && self.n * self.k % (t * v) == 0
                && self.k % v == 0
        };
        [8, 4, 2].into_iter().find(|v| *v <= self.z.max(1) * 2 && fits(*v)).unwrap_or(1)
    }

    pub fn tiles(&self, g: &DeviceGemm) -> i64 {
        ((g.m + self.m - 1) / self.m)
            .saturating_mul((g.n + self.n - 1) / self.n)
            .saturating_mul(g.batch.iter().product())
    }

    /// Splits of k that fill the chip.
    pub fn splits(&self, g: &DeviceGemm, dev: &DeviceProps) -> i64 {
        let total = (g.batch.iter().product::<i64>()).saturating_mul(g.m).saturating_mul(g.n).max(1);
        let by_memory = MAX_PARTS / total.saturating_mul(accumulator(g.dtype).size() as i64);
        // Each split sums several tiles of k.
        let by_k = g.k / (4 * self.k);
        (2 * dev.n_sm as i64 / self.tiles(g).max(1)).min(by_k).min(by_memory).clamp(1, MAX_SPLITS)
    }

    /// Time in arbitrary units: rounds over the chip, each as long as a tile takes.
    pub fn cost(&self, g: &DeviceGemm, dev: &DeviceProps) -> f64 {
        let rounds = (self.tiles(g) as f64 / dev.n_sm.max(1) as f64).ceil();
        rounds * (self.m * self.n) as f64 / self.quality
    }

    pub fn name(&self) -> String {
        if self.algo == SKINNY {
            return format!("gemm_skinny_sm80_{}x{}_{}warps", self.m, self.n, self.x);
        }
        let kind = if self.algo == MMA { "mma_sm80" } else { "simt" };
        format!("gemm_{kind}_{}x{}x{}_{}x{}x{}", self.m, self.n, self.k, self.x, self.y, self.z)
    }
}
