//! Attention by `attention_mma_sm80.cu`: tensor cores, a tile of queries a block.
//!
//! A variant says how many queries a block takes and how many of its warps share them and divide the keys: few queries a
//! block give more blocks. Where there are few queries against many keys, blocks divide the keys too and
//! `attention_join.cu` puts their parts together. Rows of a tile are queries of one head, or of all heads that share keys.

use super::{Attention, Causal, Geometry, LENGTHS, MASK, OFFSETS, SINKS};
use crate::base::DType;
use crate::device::DeviceProps;
use crate::ops::{Arg, DeviceOp, KernelSpec, Launch, Problem, StepProgram, cuda_type};

/// Warps along queries, 16-row tiles of a warp, warps along keys, keys of a warp's step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Tile {
    warps_m: usize,
    m_tiles: usize,
    warps_n: usize,
    keys: usize,
}

const fn tile(warps_m: usize, m_tiles: usize, warps_n: usize, keys: usize) -> Tile {
    Tile { warps_m, m_tiles, warps_n, keys }
}

/// What is offered, from many queries a block to few.
const TILES: &[Tile] = &[
    tile(4, 2, 1, 64),
    tile(8, 1, 1, 64),
    tile(4, 1, 1, 64),
    tile(2, 1, 2, 64),
    tile(2, 1, 4, 32),
    tile(1, 1, 4, 64),
    tile(1, 1, 4, 32),
    tile(1, 1, 8, 32),
];

/// Numbers of a variant among the tactic's parameters.
pub(super) const N_PARAMS: usize = 8;
/// Keys from which on blocks may divide them, and pieces at most.
const SPLIT_FROM: usize = 256;
const MAX_SPLITS: usize = 128;
/// Rows of a block of the joining kernel.
const JOIN_WARPS: usize = 4;
/// Accumulators of a lane that leave room for the rest.
const MAX_TILE_SIZE: usize = 128;

/// One way to run the problem.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Variant {
    tile: Tile,
    /// Rows are the queries of all heads that share one of k and v.
    pack: bool,
    /// Blocks may divide the keys.
    split: bool,
    /// Elements of a head, rounded up to 16.
    size: usize,
    v_size: usize,
}

impl Tile {
    fn rows(&self) -> usize {
        16 * self.m_tiles * self.warps_m
    }

    fn threads(&self) -> usize {
        32 * self.warps_m * self.warps_n
    }

    fn tile_keys(&self) -> usize {
        self.keys * self.warps_n
    }
}

impl Variant {
    pub fn params(&self) -> [i64; N_PARAMS] {
        let t = &self.tile;
        let sizes = [t.warps_m, t.m_tiles, t.warps_n, t.keys, self.pack as usize, self.split as usize, self.size, self.v_size];
        sizes.map(|v| v as i64)
    }

    /// The variant of [`Self::params`].
    pub fn of_params(params: &[i64]) -> Option<Variant> {
        let [m, tiles, n, keys, pack, split, size, v_size] = *<&[i64; N_PARAMS]>::try_from(params).ok()?;
        let is = |t: &&Tile| [t.warps_m, t.m_tiles, t.warps_n, t.keys].map(|v| v as i64) == [m, tiles, n, keys];
        let sound = |v: i64| (16..=256).contains(&v) && v % 16 == 0;
        let tile = *TILES.iter().find(is)?;
        (sound(size) && sound(v_size)).then_some(Variant {
            tile,
            pack: pack != 0,
            split: split != 0,
            size: size as usize,
            v_size: v_size as usize,
        })
    }

    pub fn name(&self) -> String {
        let t = &self.tile;
        let pack = if self.pack { "_heads" } else { "" };
        let split = if self.split { "_split" } else { "" };
        format!("mma{}x{}_{}warps_{}keys{pack}{split}", t.rows(), self.size, t.warps_m * t.warps_n, t.tile_keys())
    }

    /// Dynamic shared memory, as the kernel adds it up.
    fn smem(&self) -> usize {
        let (t, k, v) = (&self.tile, self.size + 8, self.v_size + 8);
        let tiles = 2 * (t.rows() * k + 2 * t.tile_keys() * (k + v));
        tiles.max(4 * t.warps_n * t.rows() * (v + 2))
    }

    /// Whether the kernel takes the problem's sizes, strides and factors.
    pub fn serves(&self, op: &Attention, g: &Geometry) -> bool {
        let fits = |size: usize, padded: usize| size > 0 && size % 8 == 0 && size.next_multiple_of(16) == padded;
        let strides = [g.q, g.k, g.v, g.y].concat();
        let scale = op.scale_for(g.size) as f32;
        let rows = g.q_len as u128 * g.q_heads as u128 * g.batch as u128;
        fits(g.size, self.size)
            && fits(g.v_size, self.v_size)
            && strides.iter().chain(&g.firsts).all(|s| s % 8 == 0)
            && scale.is_finite()
            && scale > 0.0
            && rows <= 1 << 30
            && g.kv_len <= 1 << 30
    }

    pub fn specs(&self, op: &Attention, p: &Problem, g: &Geometry) -> Vec<KernelSpec> {
        let int = |i: usize| p.input(i).map_or(DType::I32, |d| d.dtype);
        let mask = p.input(MASK).map_or(g.dtype, |d| d.dtype);
        let t = &self.tile;
        let mut specs = vec![
            KernelSpec::new("attention_mma_sm80.cu")
                .define_type("T_X", g.dtype)
                .define_type("T_MASK", mask)
                .define("T_LENGTH", cuda_type(int(LENGTHS)))
                .define("T_OFFSET", cuda_type(int(OFFSETS)))
                .define("SIZE", self.size)
                .define("V_SIZE", self.v_size)
                .define("WARPS_M", t.warps_m)
                .define("M_TILES", t.m_tiles)
                .define("WARPS_N", t.warps_n)
                .define("KEYS", t.keys)
                .define("HAS_MASK", (p.input(MASK).is_some() || op.causal == Causal::Lowest) as i64)
                .define("HAS_CAP", (op.softcap > 0.0) as i64)
                .define("PACK", self.pack as i64),
        ];
        if self.split {
            let join = KernelSpec::new("attention_join.cu").define_type("T_X", g.dtype);
            specs.push(join.define("V_SIZE", self.v_size).define("WARPS", JOIN_WARPS));
        }
        specs
    }

    pub fn n_kernels(&self) -> usize {
        1 + self.split as usize
    }

    /// Heads whose queries are rows of one tile.
    fn share(&self, g: &Geometry) -> usize {
        if self.pack { g.group() } else { 1 }
    }

    /// Blocks of one piece of the keys.
    fn blocks(&self, g: &Geometry) -> usize {
        let share = self.share(g);
        g.batch * (g.q_heads / share) * (g.q_len * share).div_ceil(self.tile.rows()).max(1)
    }

    /// The launches; `first_kernel` is the index of the variant's kernels, `common` the arguments that all attention
    /// kernels begin with, `numbers` their struct.
    pub fn program(&self, op: &Attention, g: &Geometry, dev: &DeviceProps, first_kernel: usize, common: Vec<Arg>, numbers: Arg) -> StepProgram {
        let (t, share) = (&self.tile, self.share(g));
        let rows = g.q_len * share;
        let n_tiles = rows.div_ceil(t.rows());
        let blocks = self.blocks(g);
        let mut splits = 1;
        if self.split {
            // Two rounds of blocks, of two steps each at least.
            let wanted = (2 * dev.n_sm as usize).div_ceil(blocks);
            splits = wanted.min(g.kv_len.div_ceil(2 * t.tile_keys())).clamp(1, MAX_SPLITS);
        }
        let scale = op.scale_for(g.size) as f32;
        let sinks = common[SINKS].clone();
        let y = common[SINKS + 1].clone();
        let parts = if splits > 1 { Arg::Work(0) } else { Arg::Null };
        let mut args = common;
        args.extend([numbers.clone(), Arg::F32(scale), Arg::F32(op.softcap)]);
        args.extend([Arg::I32(n_tiles as i32), Arg::I32(splits as i32), parts.clone()]);
        let mut step = StepProgram::one(Launch {
            kernel: first_kernel,
            grid: [(blocks * splits) as u32, 1, 1],
            block: [t.threads() as u32, 1, 1],
            smem: self.smem() as u32,
            args,
        });
        if splits > 1 {
            let n = g.batch * g.q_heads * g.q_len;
            step.workspace = n * splits * (self.v_size + 2) * 4;
            step.ops.push(DeviceOp::Launch(Launch {
                kernel: first_kernel + 1,
                grid: [n.div_ceil(JOIN_WARPS) as u32, 1, 1],
                block: [32 * JOIN_WARPS as u32, 1, 1],
                smem: 0,
                args: vec![parts, sinks, y, numbers, Arg::I32(share as i32), Arg::I32(splits as i32), Arg::I64(n as i64)],
            }));
        }
        step
    }
}

/// The variants for a problem, best guess first.
pub(super) fn variants(op: &Attention, g: &Geometry, dev: &DeviceProps) -> Vec<Variant> {
    if dev.sm < 80 || !matches!(g.dtype, DType::F16 | DType::BF16) || g.size == 0 || g.v_size == 0 {
        return vec![];
    }
    let (size, v_size) = (g.size.next_multiple_of(16), g.v_size.next_multiple_of(16));
    let pack = g.group() > 1 && g.q_len < 16;
    let share = if pack { g.group() } else { 1 };
    let mut found: Vec<(f64, Variant)> = Vec::new();
    for t in TILES {
        for split in [false, true] {
            let v = Variant { tile: *t, pack, split, size, v_size };
            let fits = v.smem() <= dev.max_smem_per_block as usize && t.m_tiles * size.max(v_size) <= MAX_TILE_SIZE.max(size);
            let is_few = v.blocks(g) < dev.n_sm as usize && g.kv_len >= SPLIT_FROM;
            if fits && v.serves(op, g) && (!split || is_few) {
                found.push((v.cost(g, dev, share), v));
            }
        }
    }
    found.sort_by(|a, b| a.0.total_cmp(&b.0));
    found.into_iter().map(|(_, v)| v).collect()
}

impl Variant {
    /// A guess of the time, in clocks of a multiprocessor.
    fn cost(&self, g: &Geometry, dev: &DeviceProps, share: usize) -> f64 {
        let t = &self.tile;
        let sms = dev.n_sm.max(1) as f64;
        let blocks = self.blocks(g) as f64;
        let mut steps = g.kv_len.div_ceil(t.tile_keys()) as f64;
        let mut live = blocks;
        let mut extra = 0.0;
        if self.split {
            let splits = (2.0 * sms / blocks).ceil().min((steps / 2.0).ceil()).max(1.0);
            (live, steps, extra) = (blocks * splits, (steps / splits).ceil(), 4000.0 + 40.0 * splits);
        }
        // A step: products of a multiprocessor at half its peak, and what its warps wait for.
        let filled = t.rows().min((g.q_len * share).next_multiple_of(16)) as f64;
        let work = filled * t.tile_keys() as f64 * (self.size + self.v_size) as f64 / 512.0;
        let resident = (live / sms).ceil().min((227_000.0 / self.smem() as f64).floor().max(1.0)).min(4.0);
        let latency = 700.0 + 3.0 * t.keys as f64 * t.m_tiles as f64;
        let rounds = (live / (sms * resident)).ceil();
        extra + rounds * (steps * (work * resident).max(latency) + 1500.0 + 100.0 * t.warps_n as f64)
    }
}
