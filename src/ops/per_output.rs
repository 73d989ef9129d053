//! Kernels with one thread an output element: the tactic and the launch that such operators share.

use super::tactic::{Arg, DeviceOp, KernelSpec, Launch, StepProgram, Tactic, TacticSource, blocks};
use crate::base::DType;
use crate::device::DeviceProps;

/// Threads of a block.
pub const THREADS: usize = 256;

/// The only way to run, for every shape. The name is that of the file with the types.
pub fn tactic(name: String, spec: KernelSpec) -> Vec<Tactic> {
    let kernels = vec![spec.define("THREADS", THREADS)];
    vec![Tactic { name, source: TacticSource::Kernels, kernels, params: vec![] }]
}

/// A launch over `n` elements; the kernel strides.
pub fn launch(n: usize, args: Vec<Arg>, dev: &DeviceProps) -> Launch {
    let grid = [blocks(n, THREADS).min(dev.max_grid[0].max(1) as u32), 1, 1];
    Launch { kernel: 0, grid, block: [THREADS as u32, 1, 1], smem: 0, args }
}

/// One launch over `n` elements, nothing when there are none.
pub fn program(n: usize, args: Vec<Arg>, dev: &DeviceProps) -> StepProgram {
    if n == 0 { StepProgram::default() } else { StepProgram::one(launch(n, args, dev)) }
}

/// Output 0 becomes zero.
pub fn zeros(bytes: usize) -> StepProgram {
    StepProgram { ops: vec![DeviceOp::Fill { dst: Arg::Out(0), value: 0, bytes }], ..StepProgram::default() }
}

/// What the elements of a type are added up in by kernels that multiply them with weights.
pub fn weighted_type(dtype: DType) -> &'static str {
    match dtype {
        DType::F32 | DType::F16 | DType::BF16 => "float",
        _ => "double",
    }
}
