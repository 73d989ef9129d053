//! CUDA: `rotary.cu`, a thread per element.

use super::{Angles, Rotary};
use crate::base::{DType, Result};
use crate::device::DeviceProps;
use crate::ops::transpose::cuda::{THREADS, grid_1d};
use crate::ops::{Arg, KernelSpec, Launch, Problem, StepProgram, Tactic, TacticSource, i64_struct};

pub fn tactics(op: &Rotary, p: &Problem) -> Vec<Tactic> {
    let dtype = p.outputs[0].dtype;
    let kernel = KernelSpec::new("rotary.cu")
        .define_type("T_X", dtype)
        .define_type("T_POSITION", p.input(3).map_or(DType::I64, |d| d.dtype))
        .define("INTERLEAVED", op.interleaved as i64)
        .define("THREADS", THREADS);
    let form = if op.interleaved { "interleaved" } else { "halves" };
    vec![Tactic {
        name: format!("rotary/{form}_{dtype}"),
        source: TacticSource::Kernels,
        kernels: vec![kernel],
        params: vec![],
    }]
}

pub fn program(op: &Rotary, p: &Problem, dev: &DeviceProps) -> Result<StepProgram> {
    let g = op.geometry(&p.inputs)?;
    let n = p.outputs[0].numel();
    if n == 0 {
        return Ok(StepProgram::default());
    }
    let angles = match g.angles {
        Angles::Rows => 0,
        Angles::Positions => 1,
        Angles::From => 2,
    };
    let is_packed = p.outputs[0].dims.len() == 3;
    let numbers = [n, g.length, g.heads, g.size, g.dim, g.rows, angles, is_packed as usize].map(|v| v as i64);
    let positions = if p.input(3).is_some() { Arg::In(3) } else { Arg::Null };
    let args = vec![Arg::In(0), Arg::In(1), Arg::In(2), positions, Arg::Out(0), i64_struct(numbers)];
    let (grid, block) = (grid_1d(n, THREADS, dev), [THREADS as u32, 1, 1]);
    Ok(StepProgram::one(Launch { kernel: 0, grid, block, smem: 0, args }))
}
