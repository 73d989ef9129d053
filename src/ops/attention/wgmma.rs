//! Attention by `attention_wgmma_sm90.cu`: Hopper's tensor cores, fed by tensor maps, for many queries.
//!
//! A block takes 64 queries a warpgroup and goes through all tiles that fall to it, while its producer loads ahead. Heads of
//! 64 or 128 elements; keys that only data bounds (`lengths`) are left to the other kernels, since what lies behind them may
//! be no numbers.

use super::{Attention, Causal, Geometry, LENGTHS, MASK, OFFSETS, SINKS};
use crate::base::DType;
use crate::device::DeviceProps;
use crate::ops::tactic::{Swizzle, TensorMap};
use crate::ops::{Arg, KernelSpec, Launch, Problem, StepProgram, cuda_type, i32_struct};

/// One way to run the problem.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Variant {
    /// Warpgroups that multiply.
    groups: usize,
    keys: usize,
    stages: usize,
    q_bufs: usize,
    /// Blocks that share a multiprocessor.
    blocks: usize,
    /// Elements of a head.
    size: usize,
}

const fn variant(size: usize, groups: usize, keys: usize, stages: usize, q_bufs: usize, blocks: usize) -> Variant {
    Variant { groups, keys, stages, q_bufs, blocks, size }
}

/// What is offered.
const VARIANTS: &[Variant] = &[
    variant(64, 3, 128, 2, 2, 1),
    variant(64, 2, 128, 2, 2, 1),
    variant(64, 1, 128, 2, 2, 2),
    variant(64, 1, 64, 3, 2, 3),
    variant(128, 2, 128, 2, 1, 1),
    variant(128, 2, 64, 3, 2, 1),
    variant(128, 1, 64, 2, 2, 1),
];

/// Numbers of a variant among the tactic's parameters.
pub(super) const N_PARAMS: usize = 6;

impl Variant {
    pub fn params(&self) -> [i64; N_PARAMS] {
        [self.size, self.groups, self.keys, self.stages, self.q_bufs, self.blocks].map(|v| v as i64)
    }

    /// The variant of [`Self::params`].
    pub fn of_params(params: &[i64]) -> Option<Variant> {
        VARIANTS.iter().find(|v| v.params() == params).copied()
    }

    pub fn name(&self) -> String {
        let blocks = if self.blocks > 1 { format!("_{}blocks", self.blocks) } else { String::new() };
        format!("wgmma{}x{}_{}keys_{}stages{blocks}", self.rows(), self.size, self.keys, self.stages)
    }

    fn rows(&self) -> usize {
        64 * self.groups
    }

    /// Dynamic shared memory, as the kernel adds it up.
    fn smem(&self) -> usize {
        let (q, kv) = (self.rows() * self.size * 2, self.keys * self.size * 2);
        1024 + self.q_bufs * q + self.stages * 2 * kv + 16 * (self.q_bufs + 2 * self.stages)
    }

    /// Whether the kernel takes the problem's sizes, strides and factors.
    pub fn serves(&self, op: &Attention, p: &Problem, g: &Geometry) -> bool {
        let scale = op.scale_for(g.size) as f32;
        let strides = [g.q, g.k, g.v, g.y].concat();
        let items = g.batch as u128 * g.q_heads as u128 * g.q_len.div_ceil(self.rows()) as u128;
        p.input(LENGTHS).is_none()
            && [g.size, g.v_size] == [self.size; 2]
            && [g.batch, g.q_heads, g.q_len, g.kv_len].iter().all(|n| (1..1 << 30).contains(n))
            && strides.iter().all(|s| s % 8 == 0 && *s < 1 << 38)
            && g.firsts.iter().all(|f| f % self.size == 0 && f / self.size < 1 << 20)
            && items < 1 << 30
            && scale.is_finite()
            && scale > 0.0
    }

    pub fn spec(&self, op: &Attention, p: &Problem, g: &Geometry) -> KernelSpec {
        let mask = p.input(MASK).map_or(g.dtype, |d| d.dtype);
        KernelSpec::new("attention_wgmma_sm90.cu")
            .define_type("T_X", g.dtype)
            .define_type("T_MASK", mask)
            .define("T_OFFSET", cuda_type(p.input(OFFSETS).map_or(DType::I32, |d| d.dtype)))
            .define("SIZE", self.size)
            .define("GROUPS", self.groups)
            .define("KEYS", self.keys)
            .define("STAGES", self.stages)
            .define("Q_BUFS", self.q_bufs)
            .define("MIN_BLOCKS", self.blocks)
            .define("HAS_MASK", (p.input(MASK).is_some() || op.causal == Causal::Lowest) as i64)
            .define("HAS_CAP", (op.softcap > 0.0) as i64)
    }

    /// The launch; `common` holds the arguments that all attention kernels begin with, `numbers` is their struct.
    pub fn program(&self, op: &Attention, g: &Geometry, dev: &DeviceProps, kernel: usize, common: &[Arg], numbers: Arg) -> StepProgram {
        let map = |base: &Arg, len: usize, heads: usize, [b, h, s]: [usize; 3], rows: usize| {
            Arg::TensorMap(Box::new(TensorMap {
                base: base.clone(),
                dtype: g.dtype,
                dims: [self.size, len, heads, g.batch].map(|d| d as u64).to_vec(),
                strides_bytes: [s, h, b].map(|s| 2 * s as u64).to_vec(),
                tile: vec![64, rows as u32, 1, 1],
                swizzle: Swizzle::Bytes128,
                im2col: None,
            }))
        };
        let at = g.firsts.map(|f| f / self.size);
        let n_tiles = g.q_len.div_ceil(self.rows());
        let items = n_tiles * g.q_heads * g.batch;
        let args = vec![
            map(&common[0], g.q_len, at[0] + g.q_heads, g.q, self.rows()),
            map(&common[1], g.kv_len, at[1] + g.kv_heads, g.k, self.keys),
            map(&common[2], g.kv_len, at[2] + g.kv_heads, g.v, self.keys),
            map(&common[SINKS + 1], g.q_len, g.q_heads, g.y, 64),
            common[MASK].clone(),
            common[OFFSETS].clone(),
            common[SINKS].clone(),
            numbers,
            i32_struct(at.map(|a| a as i32)),
            Arg::F32(op.scale_for(g.size) as f32),
            Arg::F32(op.softcap),
            Arg::I32(n_tiles as i32),
            Arg::I32(g.batch as i32),
        ];
        StepProgram::one(Launch {
            kernel,
            grid: [items.min(dev.n_sm.max(1) as usize * self.blocks) as u32, 1, 1],
            block: [128 * (self.groups as u32 + 1), 1, 1],
            smem: self.smem() as u32,
            args,
        })
    }
}

/// The variants for a problem, best guess first.
pub(super) fn variants(op: &Attention, p: &Problem, g: &Geometry, dev: &DeviceProps) -> Vec<Variant> {
    let is_hopper = dev.sm == 90 && matches!(g.dtype, DType::F16 | DType::BF16);
    let tiles = g.batch * g.q_heads * g.q_len.div_ceil(64);
    if !is_hopper || g.q_len < 48 || tiles < 24 {
        return vec![];
    }
    let fits = |v: &&Variant| v.serves(op, p, g) && v.smem() * v.blocks <= dev.max_smem_per_block as usize;
    let mut found: Vec<Variant> = VARIANTS.iter().filter(fits).copied().collect();
    found.sort_by(|a, b| a.micros(g, dev).total_cmp(&b.micros(g, dev)));
    found
}

impl Variant {
    /// A guess of the time in microseconds: rounds of tiles, each with steps and a beginning and an end, as measured for
    /// heads of 64 on an H200.
    fn micros(&self, g: &Geometry, dev: &DeviceProps) -> f64 {
        let items = (g.batch * g.q_heads * g.q_len.div_ceil(self.rows())) as f64;
        let rounds = (items / (dev.n_sm.max(1) as usize * self.blocks) as f64).ceil();
        let (step, around) = match self.groups {
            1 => (0.79, 1.34),
            2 => (0.8, 2.3),
            _ => (1.25, 2.5),
        };
        // Blocks that share a multiprocessor slow each other down, but not in what they wait for.
        let share = if self.blocks > 1 { 0.6 * self.blocks as f64 } else { 1.0 };
        rounds * share * (g.kv_len.div_ceil(self.keys) as f64 * step * self.keys as f64 / 128.0 * self.size as f64 / 64.0 + around)
    }
}
