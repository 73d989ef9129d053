//! Products by `gemm_wgmma_sm90.cu`: Hopper's tensor cores, fed by tensor maps.
//!
//! For f16 and bf16 whose rows are whole 16-byte pieces; the batch is folded into the rows. Edges need no care, so one
//! kernel serves every size. Where shapes may change after the build, the tactic carries an `mma.sync` kernel for those
//! that tensor maps cannot say. Which tiles are offered is decided by a model of the time that was fitted to measurements
//! on an H200.

use super::gemm::DeviceGemm;
use crate::base::{DType, Result};
use crate::device::DeviceProps;
use crate::ops::tactic::{Swizzle, TensorMap};
use crate::ops::{Arg, KernelSpec, Launch, i32_struct};
use crate::ensure;

/// Parameters of `kernels/common/sm90_tile.cuh`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Config {
    pub m: i64,
    pub n: i64,
    pub k: i64,
    stages: i64,
    groups: i64,
    pingpong: bool,
    /// Blocks that share a multiprocessor.
    blocks: i64,
}

const fn shared(m: i64, n: i64, k: i64, stages: i64, groups: i64) -> Config {
    Config { m, n, k, stages, groups, pingpong: false, blocks: 1 }
}

const fn pingpong(m: i64, n: i64, k: i64, stages: i64) -> Config {
    Config { m, n, k, stages, groups: 2, pingpong: true, blocks: 1 }
}

const fn many(m: i64, n: i64, stages: i64, blocks: i64) -> Config {
    Config { m, n, k: 64, stages, groups: 1, pingpong: false, blocks }
}

const CONFIGS: &[Config] = &[
    shared(128, 256, 64, 4, 2),
    shared(192, 128, 64, 4, 3),
    shared(128, 128, 64, 6, 2),
    shared(128, 96, 64, 6, 2),
    shared(192, 64, 64, 5, 3),
    shared(128, 64, 64, 8, 2),
    shared(64, 128, 64, 8, 1),
    shared(64, 128, 128, 4, 1),
    shared(64, 64, 64, 8, 1),
    shared(64, 64, 128, 4, 1),
    shared(64, 32, 64, 8, 1),
    shared(64, 32, 128, 4, 1),
    pingpong(128, 128, 64, 6),
    pingpong(128, 64, 64, 6),
    many(64, 128, 2, 3),
    many(64, 64, 3, 3),
    many(128, 64, 3, 2),
];

/// Configurations that are offered.
const OFFERED: usize = 3;
/// Buffers that results leave through, for each warpgroup.
const EPI_BUFS: i64 = 2;
/// Row tiles that are walked before the next column of tiles.
const GROUP_M: i64 = 8;
const MAX_TILES: i64 = 1 << 28;

impl Config {
    pub fn name(&self) -> String {
        let turns = if self.pingpong { "_pingpong" } else { "" };
        let blocks = if self.blocks > 1 { format!("_{}blocks", self.blocks) } else { String::new() };
        format!("gemm_wgmma_sm90_{}x{}x{}_{}stages{turns}{blocks}", self.m, self.n, self.k, self.stages)
    }

    /// Numbers stored in a tactic behind its algorithm: m, n, k and three more.
    pub fn params(&self) -> [i64; 6] {
        [self.m, self.n, self.k, self.stages, self.pingpong as i64, self.blocks]
    }

    /// The configuration of [`Self::params`].
    pub fn of_params(params: &[i64]) -> Option<Config> {
        CONFIGS.iter().find(|c| c.params() == params).copied()
    }

    fn threads(&self) -> i64 {
        32 * (4 * self.groups + 1)
    }

    /// Columns of one stored block.
    fn epi_cols(&self) -> i64 {
        if self.n % 64 == 0 { 64 } else { 32 }
    }

    /// Dynamic shared memory, as `sm90_tile.cuh` adds it up.
    fn smem(&self) -> i64 {
        let ring = self.stages * (self.m + self.n) * self.k * 2;
        1024 + ring + self.groups * EPI_BUFS * 64 * self.epi_cols() * 2 + 16 * self.stages
    }

    fn tiles_m(&self, g: &DeviceGemm) -> i64 {
        (g.m + self.m - 1) / self.m
    }

    fn tiles_n(&self, g: &DeviceGemm) -> i64 {
        (g.n + self.n - 1) / self.n
    }

    /// Time in microseconds by the fitted model. Its clocks are those of a 64-wide step along k, of the tensor cores and
    /// of loads from the second-level cache, and of storing a tile.
    fn micros(&self, g: &DeviceGemm, dev: &DeviceProps) -> f64 {
        let sms = dev.n_sm.max(1) as f64;
        let (m, n) = (self.m as f64, self.n as f64);
        let blocks = self.blocks as f64;
        let tiles = (self.tiles_m(g) * self.tiles_n(g)) as f64;
        let rounds = (tiles / (sms * blocks)).ceil();
        let live = blocks.min((tiles / sms).ceil());
        let k_blocks = (self.k / 64) as f64;
        let steps = ((g.k + 63) / 64) as f64;
        let rows_of_a_group = if self.pingpong { self.m } else { self.m / self.groups };
        let narrow = if rows_of_a_group == 64 { 0.316 * 64.0 / n } else { 0.0 };
        let tensor = m * n / 32.0 / 0.617 * (1.0 + narrow);
        let load = (m + n) * 128.0 / 57.7;
        let step = (tensor.max(load) * live).max(51.0);
        let main = (steps / k_blocks).ceil() * k_blocks * step;
        let store = 2.0 * m * n / 202.0 * live;
        let clocks = if self.pingpong || live > 1.0 {
            rounds * main + store + (rounds * (store - main)).max(0.0) / 2.0
        } else {
            let hidden = 0.46 * store.min(self.stages as f64 * k_blocks * load);
            rounds * (main + store) - (rounds - 1.0) * hidden
        };
        let bytes = 2.0 * (g.m * g.k + g.n * g.k + g.m * g.n) as f64;
        (clocks / 1750.0).max(bytes / 3.63e6) + 2.4
    }
}

/// Whether the kernel takes this product, whatever the configuration.
pub(super) fn takes(g: &DeviceGemm, dev: &DeviceProps) -> bool {
    dev.sm == 90
        && matches!(g.dtype, DType::F16 | DType::BF16)
        && g.batch == [1; 3]
        && !g.trans_a
        && g.k > 0
        && g.k % 8 == 0
        && g.n % 8 == 0
}

/// Configurations to offer, best guess first.
pub(super) fn configs(g: &DeviceGemm, out: DType, dev: &DeviceProps) -> Vec<Config> {
    if !takes(g, dev) || !matches!(out, DType::F16 | DType::BF16) {
        return Vec::new();
    }
    let mut list: Vec<Config> = CONFIGS
        .iter()
        // A box of [k, n] is 64 columns wide.
        .filter(|c| g.trans_b || c.n % 64 == 0)
        .filter(|c| c.smem() <= dev.max_smem_per_block as i64)
        .copied()
        .collect();
    list.sort_by(|a, b| a.micros(g, dev).total_cmp(&b.micros(g, dev)));
    list.truncate(OFFERED);
    list
}

/// The kernel without its epilogue.
pub(super) fn spec(c: &Config, g: &DeviceGemm, out: DType) -> KernelSpec {
    KernelSpec::new("gemm_wgmma_sm90.cu")
        .define_type("T_IN", g.dtype)
        .define_type("T_OUT", out)
        .define_type("T_BIAS", g.dtype)
        .define("TILE_M", c.m)
        .define("TILE_N", c.n)
        .define("TILE_K", c.k)
        .define("STAGES", c.stages)
        .define("WARPGROUPS", c.groups)
        .define("PINGPONG", c.pingpong as i64)
        .define("MIN_BLOCKS", c.blocks)
        .define("EPI_BUFS", EPI_BUFS)
        .define("TRANS_B", g.trans_b as i64)
        .define("HAS_BIAS", g.bias.is_some() as i64)
        .define("BIAS_ROWS", g.bias_rows as i64)
}

/// The launch of kernel 0 for a product that it [`takes`]; `epilogue` are the last five arguments.
pub(super) fn launch(
    c: &Config,
    g: &DeviceGemm,
    out: DType,
    result: &Arg,
    epilogue: Vec<Arg>,
    dev: &DeviceProps,
) -> Result<Launch> {
    let (tiles_m, tiles_n) = (c.tiles_m(g), c.tiles_n(g));
    let tiles = tiles_m.saturating_mul(tiles_n);
    ensure!((1..=MAX_TILES).contains(&tiles), Unsupported, "a product of {tiles} tiles is too large for one launch");
    let (m, n, k) = (g.m as u64, g.n as u64, g.k as u64);
    let map = |base: &Arg, dtype, rows, columns, tile: [i64; 2], swizzle| {
        TensorMap::matrix(base.clone(), dtype, rows, columns, tile.map(|v| v as u32), swizzle)
    };
    let wide = Swizzle::Bytes128;
    let b = match g.trans_b {
        true => map(&g.b, g.dtype, n, k, [c.n, 64], wide),
        false => map(&g.b, g.dtype, k, n, [64, 64], wide),
    };
    let stored = if c.epi_cols() == 64 { wide } else { Swizzle::Bytes64 };
    let params = [g.m, g.n, (g.k + c.k - 1) / c.k, tiles_m, tiles_n, GROUP_M];
    let mut args = vec![
        map(&g.a, g.dtype, m, k, [c.m, 64], wide),
        b,
        map(result, out, m, n, [64, c.epi_cols()], stored),
        g.bias.clone().unwrap_or(Arg::Null),
        i32_struct(params.map(|v| v as i32)),
        Arg::F32(g.alpha),
    ];
    args.extend(epilogue);
    let grid = tiles.min(dev.n_sm.max(1) as i64 * c.blocks);
    Ok(Launch { kernel: 0, grid: [grid as u32, 1, 1], block: [c.threads() as u32, 1, 1], smem: c.smem() as u32, args })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::cuda::{kernel_cache, nvrtc};
    use std::collections::HashSet;

    fn product(m: i64, n: i64, k: i64, dtype: DType, trans_b: bool) -> DeviceGemm {
        DeviceGemm {
            dtype,
            m,
            n,
            k,
            trans_a: false,
            trans_b,
            batch: [1; 3],
            stride_a: [0; 3],
            stride_b: [0; 3],
            alpha: 1.0,
            a: Arg::In(0),
            b: Arg::In(1),
            bias: Some(Arg::In(2)),
            bias_rows: false,
            extra: None,
        }
    }

    #[test]
    fn every_configuration_fits_its_device_and_has_a_name() {
        let dev = DeviceProps::example_h200();
        for c in CONFIGS {
            assert!((c.smem() + 1024) * c.blocks <= 233_472, "{}: {} bytes", c.name(), c.smem());
            assert!(c.smem() <= dev.max_smem_per_block as i64, "{}: {} bytes", c.name(), c.smem());
            assert_eq!(Config::of_params(&c.params()), Some(*c));
            assert!(c.m <= 256 && c.n <= 256, "{}: boxes have 256 rows at most", c.name());
        }
        let names: HashSet<String> = CONFIGS.iter().map(Config::name).collect();
        assert_eq!(names.len(), CONFIGS.len());
    }

    #[test]
    fn the_ranking_follows_the_measurements() {
        let dev = DeviceProps::example_h200();
        let first = |m, n, k| {
            let c = configs(&product(m, n, k, DType::F16, true), DType::F16, &dev)[0];
            (c.m * c.n, c.pingpong)
        };
        // Few rows want small tiles that fill the chip, large products the largest.
        assert!(first(197, 768, 768).0 <= 64 * 64);
        assert!(first(8192, 8192, 8192).0 >= 128 * 128);
        assert!(first(1, 1000, 2048).0 <= 64 * 64);
    }

    /// Needs NVRTC, no GPU.
    #[test]
    fn every_configuration_compiles() {
        if let Err(e) = nvrtc::is_present() {
            return eprintln!("SKIPPED: Hopper products are not compiled: {e}");
        }
        let mut specs = Vec::new();
        for dtype in [DType::F16, DType::BF16] {
            for trans_b in [true, false] {
                for c in CONFIGS.iter().filter(|c| trans_b || c.n % 64 == 0) {
                    specs.push(spec(c, &product(64, 64, 64, dtype, trans_b), dtype).define("EPILOGUE", 0));
                }
            }
        }
        for (spec, r) in specs.iter().zip(kernel_cache::compile_each(&specs, "sm_90a", 2)) {
            assert!(r.is_ok(), "{spec:?}: {}", r.err().map(|e| e.to_string()).unwrap_or_default());
        }
    }
}
