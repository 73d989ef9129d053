//! CUDA: `range.cu`, for ranges that are too long to be made with the shapes.

use crate::base::Result;
use crate::device::DeviceProps;
use crate::err;
use crate::ops::transpose::cuda::{THREADS, grid_1d};
use crate::ops::{Arg, KernelSpec, Launch, Problem, StepProgram, Tactic, TacticSource};

pub fn tactics(p: &Problem) -> Vec<Tactic> {
    let dtype = p.outputs[0].dtype;
    let kernel = KernelSpec::new("range.cu")
        .define_type("T_OUT", dtype)
        .define("FLOAT", dtype.is_float() as i64)
        .define("THREADS", THREADS);
    vec![Tactic {
        name: format!("range/{dtype}"),
        source: TacticSource::Kernels,
        kernels: vec![kernel],
        params: vec![],
    }]
}

pub fn program(p: &Problem, dev: &DeviceProps) -> Result<StepProgram> {
    let n = p.outputs[0].numel();
    let (Some(start), Some(delta)) = (p.known(0), p.known(2)) else {
        return Err(err!(InvalidState, "start and step of a range are not known"));
    };
    if n == 0 {
        return Ok(StepProgram::default());
    }
    let number = |t: &crate::base::Tensor| match t.dtype().is_float() {
        true => Arg::F64(t.to_f64s()[0]),
        false => Arg::I64(t.to_i64s()[0]),
    };
    Ok(StepProgram::one(Launch {
        kernel: 0,
        grid: grid_1d(n, THREADS, dev),
        block: [THREADS as u32, 1, 1],
        smem: 0,
        args: vec![Arg::Out(0), Arg::I64(n as i64), number(start), number(delta)],
    }))
}
