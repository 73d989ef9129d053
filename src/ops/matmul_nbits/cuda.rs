//! CUDA: `matmul_nbits.cu`, one warp a column of the result, several rows at a time.

use super::{A, BIAS, MatMulNBits, SCALES, ZEROS};
use crate::base::{DType, Result};
use crate::err;
use crate::ops::{Arg, KernelSpec, Launch, Problem, StepProgram, Tactic, TacticSource, blocks};

const THREADS: usize = 256;
/// Rows of a that a warp multiplies with one pass over a column's weights.
const ROWS: usize = 4;
const MAX_GRID_Y: u32 = 65_535;

pub(super) fn tactics(op: &MatMulNBits, p: &Problem) -> Vec<Tactic> {
    let (Some(a), Ok(l)) = (p.input(A), op.layout()) else { return vec![] };
    let zeros = match p.input(ZEROS) {
        None => "ZEROS_DEFAULT",
        Some(z) if z.dtype == DType::U8 => "ZEROS_PACKED",
        Some(_) => "ZEROS_FLOAT",
    };
    let kernel = KernelSpec::new("matmul_nbits.cu")
        .define_type("T_DATA", a.dtype)
        .define("BITS", l.bits)
        .define("BLOCK_SIZE", l.block)
        .define("ZEROS", zeros)
        .define("HAS_BIAS", p.input(BIAS).is_some() as i64)
        .define("ROWS", ROWS)
        .define("THREADS", THREADS);
    let name = format!("matmul_nbits/{}_{}bits_{}", a.dtype, l.bits, l.block);
    vec![Tactic { name, source: TacticSource::Kernels, kernels: vec![kernel], params: vec![] }]
}

pub(super) fn program(op: &MatMulNBits, p: &Problem) -> Result<StepProgram> {
    let l = op.layout()?;
    let a = p.input(A).ok_or_else(|| err!(InvalidArgument, "a product needs two operands"))?;
    let m = a.numel() / l.k;
    if m == 0 {
        return Ok(StepProgram::default());
    }
    let optional = |i: usize| if p.input(i).is_some() { Arg::In(i) } else { Arg::Null };
    let mut args = vec![Arg::In(A), Arg::In(super::B), Arg::In(SCALES), optional(ZEROS), optional(BIAS), Arg::Out(0)];
    args.extend([m, l.n, l.k].map(|v| Arg::I64(v as i64)));
    let grid = [blocks(l.n, THREADS / 32), blocks(m, ROWS).min(MAX_GRID_Y), 1];
    Ok(StepProgram::one(Launch { kernel: 0, grid, block: [THREADS as u32, 1, 1], smem: 0, args }))
}
