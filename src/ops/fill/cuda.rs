//! CUDA: `fill.cu`, 16 bytes a store.

use super::Fill;
use crate::base::Result;
use crate::device::DeviceProps;
use crate::ops::transpose::cuda::{THREADS, grid_1d, unit};
use crate::ops::{Arg, KernelSpec, Launch, Problem, StepProgram, Tactic, TacticSource};

/// The element's bytes as the low bytes of 64 bits.
pub fn bits(element: &[u8]) -> i64 {
    let mut b = [0u8; 8];
    b[..element.len()].copy_from_slice(element);
    i64::from_le_bytes(b)
}

pub fn tactics(op: &Fill) -> Vec<Tactic> {
    let size = op.value.dtype().size();
    let kernel = KernelSpec::new("fill.cu")
        .define("T_UNIT", unit(size))
        .define("VEC", 16 / size)
        .define("THREADS", THREADS);
    vec![Tactic {
        name: format!("fill/{}b", 8 * size),
        source: TacticSource::Kernels,
        kernels: vec![kernel],
        params: vec![],
    }]
}

pub fn program(op: &Fill, p: &Problem, dev: &DeviceProps) -> Result<StepProgram> {
    let n = p.outputs[0].numel();
    if n == 0 {
        return Ok(StepProgram::default());
    }
    Ok(StepProgram::one(Launch {
        kernel: 0,
        grid: grid_1d(n, THREADS * (16 / op.value.dtype().size()), dev),
        block: [THREADS as u32, 1, 1],
        smem: 0,
        args: vec![Arg::Out(0), Arg::I64(n as i64), Arg::I64(bits(op.value.bytes()))],
    }))
}
