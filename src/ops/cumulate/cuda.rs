//! CUDA: `cumulate.cu` with one thread for each row, or one block where rows are few and long.

use super::Cumulate;
use crate::base::Result;
use crate::device::DeviceProps;
use crate::err;
use crate::ops::transpose::cuda::{THREADS, grid_1d};
use crate::ops::{Arg, KernelSpec, Launch, Problem, StepProgram, Tactic, TacticOptions, TacticSource};

fn extents(p: &Problem) -> Result<[usize; 3]> {
    let x = p.input(0).ok_or_else(|| err!(InvalidArgument, "input 0 is missing"))?;
    let axis = p.known(1).ok_or_else(|| err!(InvalidState, "the axis is not known"))?.to_i64s();
    Cumulate::extents(&x.dims, axis.first().copied().unwrap_or(0))
}

pub fn tactics(op: &Cumulate, p: &Problem, _opt: &TacticOptions) -> Vec<Tactic> {
    let Some(x) = p.input(0) else { return vec![] };
    let make = |lanes: usize| {
        let kernel = KernelSpec::new("cumulate.cu")
            .define_type("T_DATA", x.dtype)
            .define("PRODUCT", op.product as i64)
            .define("EXCLUSIVE", op.exclusive as i64)
            .define("REVERSE", op.reverse as i64)
            .define("LANES", lanes)
            .define("THREADS", THREADS);
        let (what, exclusive) = (["sum", "product"][op.product as usize], ["", "_exclusive"][op.exclusive as usize]);
        let reverse = ["", "_reverse"][op.reverse as usize];
        Tactic {
            name: format!("cumulate/{what}{exclusive}{reverse}_{}_lanes{lanes}", x.dtype),
            source: TacticSource::Kernels,
            kernels: vec![kernel],
            params: vec![lanes as i64],
        }
    };
    match extents(p) {
        Ok([outer, length, inner]) if length < 64 || outer * inner > 16 * 1024 => vec![make(1), make(THREADS)],
        _ => vec![make(THREADS), make(1)],
    }
}

pub fn program(tactic: &Tactic, p: &Problem, dev: &DeviceProps) -> Result<StepProgram> {
    let [outer, length, inner] = extents(p)?;
    let lanes = tactic.params.first().map_or(0, |v| *v as usize);
    let rows = outer * inner;
    if rows * length == 0 {
        return Ok(StepProgram::default());
    }
    let mut args = vec![Arg::In(0), Arg::Out(0)];
    args.extend([rows, length, inner].map(|v| Arg::I64(v as i64)));
    let per_block = if lanes == 1 { THREADS } else { 1 };
    let grid = grid_1d(rows, per_block, dev);
    Ok(StepProgram::one(Launch { kernel: 0, grid, block: [THREADS as u32, 1, 1], smem: 0, args }))
}
