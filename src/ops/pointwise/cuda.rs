//! CUDA tactics of programs: one generated kernel, flat where every operand has the output's order or is one number,
//! strided elsewhere.
//!
//! A tactic holds variants of its kernel, best first; at concrete shapes the first one that fits is launched. A static
//! problem has one variant. A dynamic one also has strided variants of the output's full rank, with and without vectors,
//! of which the last fits every shape.

use super::codegen;
use super::layout::{Access, Layout};
use super::program::Program;
use crate::base::Result;
use crate::device::DeviceProps;
use crate::ops::tactic::blocks;
use crate::ops::{
    Arg, DeviceOp, KernelSpec, Launch, Problem, StepProgram, Tactic, TacticOptions, TacticSource, i64_struct,
};
use crate::{ensure, err};

const THREADS: usize = 256;
const MAX_RANK: usize = 8;
/// Blocks per multiprocessor beyond which threads take further elements instead.
const BLOCKS_PER_SM: usize = 32;
/// Flat indices from here on need 64 bits.
const LIMIT_32: usize = 1 << 31;

/// One kernel of a tactic. The numbers are stored in the tactic's parameters in this order.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Variant {
    strided: bool,
    vec: usize,
    /// Flat: inputs that are one number. Strided: inputs that are contiguous along the innermost dimension.
    mask: u32,
    /// Strided only.
    rank: usize,
    wide_index: bool,
}

const N_PARAMS: usize = 5;

impl Variant {
    fn params(&self) -> [i64; N_PARAMS] {
        [self.strided as i64, self.vec as i64, self.mask as i64, self.rank as i64, self.wide_index as i64]
    }

    fn from_params(p: &[i64]) -> Option<Variant> {
        let ok = (1..=16).contains(&p[1]) && (0..1 << codegen::MAX_INPUTS).contains(&p[2]) && (0..=8).contains(&p[3]);
        ok.then_some(Variant {
            strided: p[0] != 0,
            vec: p[1] as usize,
            mask: p[2] as u32,
            rank: p[3] as usize,
            wide_index: p[4] != 0,
        })
    }

    fn spec(&self, generated: &str) -> KernelSpec {
        let spec = KernelSpec { generated: generated.into(), ..KernelSpec::new("pointwise.cu") }
            .define("THREADS", THREADS)
            .define("VEC", self.vec)
            .define("MODE", self.strided as u32);
        if !self.strided {
            return spec.define("SCALAR_MASK", self.mask);
        }
        spec.define("RANK", self.rank).define("INDEX64", self.wide_index as u32).define("INNER_MASK", self.mask)
    }

    /// Whether this kernel computes a problem that lies so.
    fn fits(&self, l: &Layout) -> bool {
        if !self.strided {
            return l.inputs.iter().enumerate().all(|(i, a)| match (self.mask >> i & 1 == 1, a) {
                (true, a) => *a == Access::Number,
                (false, a) => *a == Access::Full || l.numel == 1,
            });
        }
        let vectors = self.vec == 1 || (!l.dims.is_empty() && l.row() % self.vec == 0 && inner_mask(l) == self.mask);
        l.dims.len() <= self.rank
            && l.dims.iter().all(|d| *d < LIMIT_32)
            && (self.wide_index || l.numel < LIMIT_32)
            && vectors
    }
}

/// Inputs that are contiguous along the innermost dimension.
fn inner_mask(l: &Layout) -> u32 {
    (0..l.inputs.len()).filter(|i| l.strides(*i).last() == Some(&1)).fold(0, |m, i| m | 1 << i)
}

/// The largest vector of at most `most` elements that rows can be cut into.
fn row_vec(l: &Layout, most: usize) -> usize {
    let mut vec = most;
    while vec > 1 && l.row() % vec != 0 {
        vec /= 2;
    }
    vec
}

/// Variants for a problem, with vectors of at most `most` elements.
fn variants(p: &Program, problem: &Problem, l: &Layout, most: usize, dynamic: bool) -> Vec<Variant> {
    let is_flat = l.inputs.iter().all(|a| !matches!(a, Access::Strided(_)));
    let vec = row_vec(l, most);
    let wide_index = l.numel >= LIMIT_32;
    let mut out = Vec::new();
    if is_flat {
        let mask = (0..p.n_inputs()).filter(|i| l.inputs[*i] == Access::Number && l.numel > 1).fold(0, |m, i| m | 1 << i);
        out.push(Variant { strided: false, vec: most, mask, rank: 0, wide_index: true });
    } else {
        let mask = if vec > 1 { inner_mask(l) } else { 0 };
        out.push(Variant { strided: true, vec, mask, rank: l.dims.len(), wide_index });
    }
    if dynamic {
        let rank = problem.outputs[0].dims.len().clamp(1, MAX_RANK);
        if vec > 1 && !l.dims.is_empty() {
            out.push(Variant { strided: true, vec, mask: inner_mask(l), rank, wide_index });
        }
        out.push(Variant { strided: true, vec: 1, mask: 0, rank, wide_index });
    }
    out.retain(|v| v.rank <= MAX_RANK);
    out.dedup();
    out
}

pub(super) fn tactics(p: &Program, problem: &Problem, opt: &TacticOptions) -> Vec<Tactic> {
    let (Some(text), Some(l)) = (codegen::body(p), Layout::new(p.n_inputs(), problem)) else { return Vec::new() };
    let sizes = || p.inputs.iter().copied().chain((0..p.outputs.len()).map(|k| p.output_dtype(k))).map(|d| d.size());
    let (widest, narrowest) = (sizes().max().unwrap_or(4), sizes().min().unwrap_or(4));
    // 16 bytes of the widest type, then of the narrowest as far as the kernel's limit of 64 bytes allows.
    let mut vecs = vec![16 / widest, (16 / narrowest).min(64 / widest)];
    vecs.dedup();
    let mut tactics: Vec<Tactic> = Vec::new();
    for most in vecs {
        let variants = variants(p, problem, &l, most, opt.dynamic);
        let Some(first) = variants.first().filter(|v| v.fits(&l)) else { continue };
        let mode = if first.strided { "strided" } else { "flat" };
        let name = format!("pointwise_{mode}_vec{}", first.vec);
        if tactics.iter().any(|t| t.name == name) {
            continue;
        }
        tactics.push(Tactic {
            name,
            source: TacticSource::Kernels,
            kernels: variants.iter().map(|v| v.spec(&text)).collect(),
            params: variants.iter().flat_map(|v| v.params()).collect(),
        });
    }
    tactics
}

pub(super) fn launches(p: &Program, tactic: &Tactic, problem: &Problem, dev: &DeviceProps) -> Result<StepProgram> {
    let l = Layout::new(p.n_inputs(), problem).ok_or_else(|| err!(InvalidArgument, "an operand is missing"))?;
    if l.numel == 0 {
        return Ok(StepProgram::default());
    }
    if p.is_identity() && l.inputs[0] == Access::Full {
        let copy = DeviceOp::Copy { dst: Arg::Out(0), src: Arg::In(0), bytes: problem.outputs[0].bytes() };
        return Ok(StepProgram { ops: vec![copy], workspace: 0 });
    }
    let variants: Option<Vec<Variant>> = tactic.params.chunks_exact(N_PARAMS).map(Variant::from_params).collect();
    let variants = variants.filter(|v| v.len() <= tactic.kernels.len());
    let variants = variants.ok_or_else(|| err!(CorruptData, "tactic {} has not the parameters that it needs", tactic.name))?;
    let chosen = variants.iter().position(|v| v.fits(&l));
    let Some(kernel) = chosen else {
        return Err(err!(
            Unsupported,
            "tactic {} of {} has no kernel for the output {}: it was built for other shapes",
            tactic.name,
            p.label(),
            problem.outputs[0]
        ));
    };
    let v = variants[kernel];
    let mut args: Vec<Arg> = (0..p.n_inputs()).map(Arg::In).collect();
    args.extend((0..p.outputs.len()).map(Arg::Out));
    if v.strided {
        args.push(shape_struct(&l.dims, v.rank)?);
        args.push(strides_struct(&l, v.rank));
    } else {
        args.push(Arg::I64(l.numel as i64));
    }
    let grid = (blocks(l.numel, THREADS * v.vec) as usize).min((dev.n_sm as usize).max(1) * BLOCKS_PER_SM);
    let launch = Launch { kernel, grid: [grid as u32, 1, 1], block: [THREADS as u32, 1, 1], smem: 0, args };
    Ok(StepProgram::one(launch))
}

/// `Shape` of `kernels/common/index.cuh`: dimensions aligned to the end of `rank`, with their divisors.
fn shape_struct(dims: &[usize], rank: usize) -> Result<Arg> {
    ensure!(dims.len() <= rank && rank <= MAX_RANK, Internal, "{dims:?} has more than {rank} dimensions");
    let mut values = [[0u32; MAX_RANK]; 3];
    for d in 0..MAX_RANK {
        let at = (d + dims.len()).checked_sub(rank).filter(|at| *at < dims.len());
        let size = at.map_or(1, |at| dims[at]) as u64;
        let shift = 64 - size.saturating_sub(1).leading_zeros();
        values[0][d] = size as u32;
        values[1][d] = ((((1u64 << shift) - size) << 32) / size + 1) as u32;
        values[2][d] = shift;
    }
    Ok(Arg::Bytes(values.iter().flatten().flat_map(|v| v.to_ne_bytes()).collect()))
}

/// `InputStrides` of `kernels/pointwise.cu`.
fn strides_struct(l: &Layout, rank: usize) -> Arg {
    let mut values = vec![0i64; MAX_RANK * l.inputs.len().max(1)];
    for i in 0..l.inputs.len() {
        for (d, s) in l.strides(i).iter().enumerate() {
            values[i * MAX_RANK + rank - l.dims.len() + d] = *s as i64;
        }
    }
    i64_struct(values)
}
