//! Tiles of `kernels/common/sm90_tile.cuh`: the table, what a tile needs, and how long it is expected to take.
//!
//! Products and convolutions share them. The time is a model that was fitted to measurements on an H200; it seeds a short
//! list that is timed. Over the convolutions of ResNet-50 its best guess loses 3 to 7%, its short list nothing that was seen;
//! where sums are long and tiles few it underrates splitting, so the best of each number of splits is on the list.

use crate::base::DType;
use crate::device::DeviceProps;
use crate::ops::{KernelSpec, TacticOptions};
use std::sync::LazyLock;

/// Parameters of `kernels/common/sm90_tile.cuh`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Config {
    pub m: i64,
    pub n: i64,
    /// Blocks of 128 bytes in a step along k.
    pub k: i64,
    pub stages: i64,
    /// Warpgroups that multiply.
    pub groups: i64,
    pub pingpong: bool,
    /// Blocks that share a multiprocessor.
    pub blocks: i64,
    /// Blocks of a cluster that share b.
    pub cluster: i64,
    /// Blocks of a cluster that share the sums of a tile.
    pub split: i64,
    /// Buffers that results leave through, for each warpgroup.
    pub epi_bufs: i64,
    /// Registers of a multiplying thread; 0: the kernel's own number.
    pub regs: i64,
}

/// Row tiles that are walked before the next column of tiles.
pub(crate) const GROUP_M: i64 = 8;
/// Tiles of a launch at most.
pub(crate) const MAX_TILES: i64 = 1 << 28;
/// Shared memory of a block, and of a multiprocessor; each block takes a KiB more than it asks for.
const BLOCK_SMEM: i64 = 232_448;
const SM_SMEM: i64 = 233_472;

const BASE: Config =
    Config { m: 128, n: 128, k: 1, stages: 0, groups: 2, pingpong: false, blocks: 1, cluster: 1, split: 1, epi_bufs: 2, regs: 0 };

const fn tile(m: i64, n: i64, groups: i64) -> Config {
    Config { m, n, groups, ..BASE }
}

const fn pingpong(m: i64, n: i64) -> Config {
    Config { m, n, pingpong: true, ..BASE }
}

/// Tiles without their number of stages.
fn shapes() -> Vec<Config> {
    let mut all = vec![
        tile(128, 256, 2),
        Config { cluster: 2, ..tile(128, 256, 2) },
        Config { regs: 240, ..tile(256, 128, 2) },
        Config { regs: 240, cluster: 2, ..tile(256, 128, 2) },
        tile(192, 128, 3),
        Config { cluster: 2, ..tile(192, 128, 3) },
        tile(192, 192, 3),
        tile(128, 192, 2),
        tile(256, 64, 2),
        tile(192, 64, 3),
        tile(192, 96, 3),
        tile(64, 256, 1),
        // 128 sums of a thread, and an epilogue.
        Config { regs: 240, ..pingpong(128, 128) },
        Config { regs: 240, cluster: 2, ..pingpong(128, 128) },
        pingpong(128, 64),
        pingpong(64, 128),
        pingpong(64, 256),
        Config { cluster: 2, ..tile(128, 128, 2) },
        Config { blocks: 3, ..tile(64, 128, 1) },
        Config { blocks: 3, ..tile(64, 64, 1) },
        Config { blocks: 2, ..tile(128, 64, 1) },
    ];
    for t in [tile(64, 32, 1), tile(64, 64, 1), tile(64, 96, 1), tile(64, 128, 1), tile(128, 64, 2), tile(128, 96, 2), tile(128, 128, 2)] {
        for k in [1, 2] {
            for split in [1, 2, 4, 8] {
                all.push(Config { k, split, ..t });
            }
            for cluster in [2, 4] {
                if t.m == 64 && t.n >= 64 && t.n % 64 == 0 {
                    all.push(Config { k, cluster, ..t });
                }
            }
        }
    }
    all
}

/// Every tile that is offered, with as many stages as fit.
static CONFIGS: LazyLock<Vec<Config>> = LazyLock::new(|| {
    let fit = |c: Config| {
        let most = if c.k == 2 { 4 } else { 8 };
        (2..=most).rev().map(|stages| Config { stages, ..c }).find(|c| c.is_valid())
    };
    shapes().into_iter().filter_map(fit).collect()
});

/// The sizes that a tile's time follows from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    /// Rows and columns of one matrix of the output.
    pub m: i64,
    pub n: i64,
    /// Steps of 128 bytes along k.
    pub steps: i64,
    /// Matrices.
    pub batch: i64,
    /// Bytes of all operands and the output together.
    pub bytes: f64,
    /// The epilogue reads an operand of the output's size.
    pub residual: bool,
}

impl Config {
    /// Part of a tactic's name.
    pub fn name(&self) -> String {
        let mut s = format!("{}x{}x{}_{}stages", self.m, self.n, self.k * 64, self.stages);
        let mut add = |on: bool, text: String| {
            if on {
                s.push_str(&text);
            }
        };
        add(self.pingpong, "_pingpong".into());
        add(self.blocks > 1, format!("_{}blocks", self.blocks));
        add(self.cluster > 1, format!("_cluster{}", self.cluster));
        add(self.split > 1, format!("_split{}", self.split));
        add(self.epi_bufs != 2, format!("_{}buffers", self.epi_bufs));
        add(self.regs > 0, format!("_{}regs", self.regs));
        s
    }

    /// Numbers that a tactic stores.
    pub fn params(&self) -> [i64; 5] {
        let flags = self.groups | (self.pingpong as i64) << 4 | self.blocks << 8 | self.cluster << 12 | self.split << 16;
        [self.m, self.n, self.k, self.stages, flags | self.epi_bufs << 20 | self.regs << 24]
    }

    /// The tile of [`Self::params`].
    pub fn of_params(params: &[i64]) -> Option<Config> {
        CONFIGS.iter().find(|c| c.params() == params).copied()
    }

    pub fn threads(&self) -> i64 {
        if self.regs > 0 { 128 * (self.groups + 1) } else { 32 * (4 * self.groups + 1) }
    }

    /// Rows of one warpgroup.
    fn rows(&self) -> i64 {
        if self.pingpong { self.m } else { self.m / self.groups }
    }

    /// Bytes along a row of a stored block, and how many columns these are.
    pub fn stored_block(&self, out: DType) -> (i64, i64) {
        let size = out.size() as i64;
        let columns = if size == 4 || self.n % 64 != 0 { 32 } else { 64 };
        (columns * size, columns)
    }

    /// Dynamic shared memory, as `sm90_tile.cuh` adds it up.
    pub fn smem(&self, out: DType) -> i64 {
        let ring = self.stages * (self.m + self.n) * self.k * 128;
        let buffers = self.groups * self.epi_bufs;
        let epilogue = if self.split > 1 { self.m * self.n * 4 } else { buffers * 64 * self.stored_block(out).0 };
        1024 + ring + epilogue + 8 * (2 * self.stages + buffers)
    }

    fn is_valid(&self) -> bool {
        let largest = self.smem(DType::F32).max(self.smem(DType::F16));
        let accumulators = self.rows() / 64 * self.n / 2;
        let registers = if self.groups >= 3 { 96 } else { 192 };
        self.n / 8 % self.split == 0
            && self.n % (8 * self.cluster) == 0
            && largest <= BLOCK_SMEM
            && self.blocks * (largest + 1024) <= SM_SMEM && accumulators <= registers
    }

    /// What operands must lie like: b with neighbours along n comes in boxes of 64 columns.
    pub fn takes(&self, trans_b: bool) -> bool {
        trans_b || (self.n % 64 == 0 && 64 % (8 * self.cluster) == 0)
    }

    /// Tiles along the rows (of a whole cluster) and columns.
    pub fn tiles(&self, s: &Sizes) -> (i64, i64) {
        let rows = self.m * self.cluster;
        ((s.m + rows - 1) / rows, (s.n + self.n - 1) / self.n)
    }

    /// Blocks of a launch.
    pub fn grid(&self, s: &Sizes, dev: &DeviceProps) -> i64 {
        let (m, n) = self.tiles(s);
        let tiles = m * n * s.batch;
        if self.split > 1 {
            return tiles * self.split;
        }
        (dev.n_sm.max(1) as i64 * self.blocks / self.cluster).max(1).min(tiles) * self.cluster
    }

    /// Blocks of clusters that run at the same time: a cluster lies inside of one part of the chip, whose number of
    /// multiprocessors it need not divide (on an H200 clusters of four left more than four multiprocessors idle).
    fn at_once(&self, dev: &DeviceProps) -> f64 {
        let share = match self.cluster * self.split {
            1 => 1.0,
            2..4 => 0.98,
            4..8 => 0.9,
            _ => 0.8,
        };
        (dev.n_sm.max(1) as f64 * share).floor().max(1.0)
    }

    /// Time in microseconds by the fitted model. Its clocks are those of a 128-byte step along k, of the tensor cores and
    /// of loads from the second-level cache, and of storing a tile.
    pub fn micros(&self, s: &Sizes, dev: &DeviceProps) -> f64 {
        let sms = if self.split > 1 || self.cluster > 2 { self.at_once(dev) } else { dev.n_sm.max(1) as f64 };
        let (m, n) = (self.m as f64, self.n as f64);
        let (blocks, split) = (self.blocks as f64, self.split as f64);
        let (tiles_m, tiles_n) = self.tiles(s);
        let units = (tiles_m * self.cluster * tiles_n * s.batch) as f64 * split;
        let rounds = (units / (sms * blocks)).ceil();
        let live = blocks.min((units / sms).ceil());
        let k_blocks = self.k as f64;
        // One warpgroup of 64 rows waits; of two that share a tile one multiplies meanwhile.
        let waits = self.rows() == 64 && (self.groups != 2 || self.pingpong);
        let narrow = if waits { 0.316 * 64.0 / n } else { 0.0 };
        // Three warpgroups, large tiles and taking turns hide what one of 64 rows waits for.
        let hidden = match (self.groups, self.m * self.n) {
            (3.., _) => 0.8,
            (_, 32768..) => 0.95,
            _ if self.pingpong => 0.9,
            _ => 1.0,
        };
        let tensor = m * n / 32.0 / 0.617 * (1.0 + narrow) * hidden;
        let load = (m + n) * 128.0 / 57.7;
        // A load takes about 1500 clocks from when its stage is free.
        let step = (tensor.max(load) * live).max(51.0).max(1500.0 / (self.stages * self.k) as f64);
        let main = ((s.steps as f64 / k_blocks).ceil() / split).ceil() * k_blocks * step;
        let store = 2.0 * m * n * if s.residual { 2.0 } else { 1.0 } / 202.0 * live;
        let clocks = if self.pingpong || live > 1.0 {
            rounds * main + store + (rounds * (store - main)).max(0.0) / 2.0
        } else {
            let hidden = 0.46 * store.min(self.stages as f64 * k_blocks * load);
            rounds * (main + store) - (rounds - 1.0) * hidden
        };
        // Blocks that share a tile do not go on to another: each round is as good as a launch.
        let splitting = if self.split > 1 { 0.86 + 0.13 * split + 2.4 * (rounds - 1.0) } else { 0.0 };
        let sharing = if self.cluster > 1 { 0.04 } else { 0.0 };
        // Long steps pay for narrow tiles only.
        let long = if self.k == 1 { 0.0 } else if self.n <= 64 { -0.05 } else { 0.1 };
        // Blocks that share a multiprocessor have few stages, which is of no use where each has one of its own.
        let alone = if blocks > live { 0.1 } else { 0.0 };
        // Where memory is the limit, what keeps the multiprocessors less busy comes first.
        let busy = clocks / 1750.0;
        busy.max(s.bytes / 3.63e6) + 2.4 + splitting + sharing + long + alone + 0.05 * busy
    }

    /// Defines of the tile.
    pub fn define(&self, spec: KernelSpec, dtype: DType, out: DType) -> KernelSpec {
        spec.define_type("T_IN", dtype)
            .define_type("T_OUT", out)
            .define("TILE_M", self.m)
            .define("TILE_N", self.n)
            .define("TILE_K", self.k * 128 / dtype.size() as i64)
            .define("STAGES", self.stages)
            .define("WARPGROUPS", self.groups)
            .define("PINGPONG", self.pingpong as i64)
            .define("MIN_BLOCKS", self.blocks)
            .define("CLUSTER", self.cluster)
            .define("SPLIT_K", self.split)
            .define("EPI_BUFS", self.epi_bufs)
            .define("CONSUMER_REGS", self.regs)
    }
}

/// Tiles to offer, best guess first: as many as the level has timed, and the best of each number of splits.
pub(crate) fn ranked(s: &Sizes, fits: impl Fn(&Config) -> bool, dev: &DeviceProps, opt: &TacticOptions) -> Vec<Config> {
    // Tiles that fill the chip gain nothing from more blocks for each, and a block has two steps of a sum.
    let splits = |c: &Config| {
        let (m, n) = c.tiles(s);
        let blocks = (m as f64) * (n * s.batch * c.split) as f64;
        c.split == 1 || (s.steps >= 2 * c.split * c.k && blocks <= c.at_once(dev))
    };
    let mut all: Vec<(f64, Config)> =
        CONFIGS.iter().filter(|c| fits(c) && (opt.level > 3 || splits(c))).map(|c| (c.micros(s, dev), *c)).collect();
    all.sort_by(|a, b| a.0.total_cmp(&b.0));
    let n = match opt.level {
        0 => 1,
        1 => 2,
        2 => 4,
        3 => 6,
        4 => 16,
        _ => usize::MAX,
    };
    let best = all.first().map_or(0.0, |(t, _)| *t);
    // Longer steps, clusters, registers and blocks beside each other change a tile's time by little: one of each tile is on a
    // short list.
    let kind = |c: &Config| (c.m, c.n, c.split, c.pingpong);
    let mut list: Vec<(f64, Config)> = Vec::new();
    let mut rest = Vec::new();
    for (t, c) in all {
        let is_new = opt.level > 3 || list.iter().all(|(_, o)| kind(o) != kind(&c));
        if list.len() < n && is_new { list.push((t, c)) } else { rest.push((t, c)) }
    }
    if opt.level >= 2 {
        for split in [1, 2, 4, 8] {
            let missing = !list.iter().any(|(_, c)| c.split == split);
            // What the model has at more than twice the time is no matter of its error.
            let found = rest.iter().position(|(t, c)| c.split == split && *t < 2.0 * best).filter(|_| missing);
            list.extend(found.map(|i| rest.remove(i)));
        }
    }
    list.into_iter().map(|(_, c)| c).collect()
}

#[cfg(test)]
pub(crate) fn configs() -> &'static [Config] {
    &CONFIGS
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_tile_fits_its_device_and_has_a_name() {
        let dev = DeviceProps::example_h200();
        for c in configs() {
            for out in [DType::F16, DType::F32] {
                assert!((c.smem(out) + 1024) * c.blocks <= 233_472, "{}: {} bytes", c.name(), c.smem(out));
                assert!(c.smem(out) <= dev.max_smem_per_block as i64, "{}: {} bytes", c.name(), c.smem(out));
            }
            assert_eq!(Config::of_params(&c.params()), Some(*c));
            assert!(c.m <= 256 && c.n <= 256, "{}: boxes have 256 rows at most", c.name());
            assert!(c.stages >= 2 && c.threads() <= 1024, "{}", c.name());
            assert!(c.n % (8 * c.cluster) == 0 && c.n / 8 % c.split == 0, "{}: parts of whole 8 columns", c.name());
        }
        let names: HashSet<String> = configs().iter().map(Config::name).collect();
        assert_eq!(names.len(), configs().len());
    }

    fn sizes(m: i64, n: i64, k: i64) -> Sizes {
        Sizes { m, n, steps: (k + 63) / 64, batch: 1, bytes: 2.0 * (m * k + k * n + m * n) as f64, residual: false }
    }

    #[test]
    fn the_ranking_follows_the_measurements() {
        let dev = DeviceProps::example_h200();
        let list = |m, n, k| ranked(&sizes(m, n, k), |_| true, &dev, &TacticOptions::default());
        // Few rows want small tiles that fill the chip, large products the largest.
        assert!(list(197, 768, 768)[0].m * list(197, 768, 768)[0].n <= 64 * 64);
        assert!(list(8192, 8192, 8192)[0].m * list(8192, 8192, 8192)[0].n >= 128 * 128);
        // Long sums of few tiles are split, at least as one of those that are timed.
        assert!(list(197, 768, 3072).iter().any(|c| c.split > 1));
        assert!(list(12288, 1024, 1024).iter().all(|c| c.split == 1));
    }

    #[test]
    fn the_level_decides_how_many_are_offered() {
        let dev = DeviceProps::example_h200();
        let n = |level| ranked(&sizes(384, 1024, 4096), |_| true, &dev, &TacticOptions { level, ..TacticOptions::default() }).len();
        assert_eq!((n(0), n(1)), (1, 2));
        assert!((6..=9).contains(&n(3)) && n(5) == configs().len());
    }
}
