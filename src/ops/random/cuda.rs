//! CUDA: `random.cu`, one generator call for each number.

use super::Random;
use crate::base::Result;
use crate::device::DeviceProps;
use crate::ops::transpose::cuda::{THREADS, grid_1d};
use crate::ops::{Arg, KernelSpec, Launch, Problem, StepProgram, Tactic, TacticSource};

pub fn tactics(op: &Random) -> Vec<Tactic> {
    let kernel = KernelSpec::new("random.cu")
        .define_type("T_OUT", op.dtype)
        .define("NORMAL", op.normal as i64)
        .define("FRESH", op.seed.is_none() as i64)
        .define("THREADS", THREADS);
    let (kind, fresh) = (if op.normal { "normal" } else { "uniform" }, if op.seed.is_none() { "_fresh" } else { "" });
    vec![Tactic {
        name: format!("random/{kind}_{}{fresh}", op.dtype),
        source: TacticSource::Kernels,
        kernels: vec![kernel],
        params: vec![],
    }]
}

pub fn program(op: &Random, p: &Problem, dev: &DeviceProps) -> Result<StepProgram> {
    let n = p.outputs[0].numel();
    if n == 0 {
        return Ok(StepProgram::default());
    }
    let key = op.key().map_or(op.salt, |k| k as i64);
    Ok(StepProgram::one(Launch {
        kernel: 0,
        grid: grid_1d(n, THREADS, dev),
        block: [THREADS as u32, 1, 1],
        smem: 0,
        args: vec![Arg::Out(0), Arg::I64(n as i64), Arg::F64(op.low as f64), Arg::F64(op.span as f64), Arg::I64(key)],
    }))
}
