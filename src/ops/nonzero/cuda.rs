//! CUDA: chunks are counted, the counts summed, and then each chunk writes where its elements belong.

use crate::base::fact::MAX_RANK;
use crate::base::Result;
use crate::device::DeviceProps;
use crate::err;
use crate::ops::transpose::cuda::{THREADS, grid_1d};
use crate::ops::{
    Arg, DeviceOp, KernelSpec, Launch, Problem, StepProgram, Tactic, TacticSource, TensorDesc, i64_struct,
};

/// Elements of one count.
const CHUNK: usize = 8 * THREADS;

/// The kernel that sums counts, and its launch over the `n` numbers at `counts`.
pub fn scan_kernel() -> KernelSpec {
    KernelSpec::new("scan_counts.cu").define("THREADS", 1024)
}

pub fn scan(kernel: usize, counts: Arg, total: Arg, n: usize) -> DeviceOp {
    let args = vec![counts, total, Arg::I64(n as i64)];
    DeviceOp::Launch(Launch { kernel, grid: [1, 1, 1], block: [1024, 1, 1], smem: 0, args })
}

pub fn tactics(p: &Problem) -> Vec<Tactic> {
    let Some(x) = p.input(0) else { return vec![] };
    let kernel = |file: &str| {
        KernelSpec::new(file).define_type("T_DATA", x.dtype).define("CHUNK", CHUNK).define("THREADS", THREADS)
    };
    vec![Tactic {
        name: format!("nonzero/{}", x.dtype),
        source: TacticSource::Kernels,
        kernels: vec![kernel("nonzero_count.cu"), scan_kernel(), kernel("nonzero_write.cu")],
        params: vec![],
    }]
}

fn input(p: &Problem) -> Result<&TensorDesc> {
    p.input(0).ok_or_else(|| err!(InvalidArgument, "input 0 is missing"))
}

/// Scratch: a count for each chunk, and room for an address where there is none.
fn workspace(x: &TensorDesc) -> usize {
    8 * x.numel().div_ceil(CHUNK).max(1)
}

pub fn count_program(_tactic: &Tactic, p: &Problem, dev: &DeviceProps) -> Result<StepProgram> {
    let x = input(p)?;
    let n = x.numel();
    let mut ops = Vec::new();
    if n > 0 {
        let args = vec![Arg::In(0), Arg::Work(0), Arg::I64(n as i64)];
        let grid = grid_1d(n, CHUNK, dev);
        ops.push(DeviceOp::Launch(Launch { kernel: 0, grid, block: [THREADS as u32, 1, 1], smem: 0, args }));
    }
    ops.push(scan(1, Arg::Work(0), Arg::Count(0), n.div_ceil(CHUNK)));
    Ok(StepProgram { ops, workspace: workspace(x) })
}

pub fn program(_tactic: &Tactic, p: &Problem, dev: &DeviceProps) -> Result<StepProgram> {
    let x = input(p)?;
    let (n, total) = (x.numel(), p.outputs[0].dims[1]);
    if n == 0 || total == 0 {
        return Ok(StepProgram { ops: vec![], workspace: workspace(x) });
    }
    let mut dims = [1i64; MAX_RANK];
    for (to, d) in dims.iter_mut().zip(&x.dims) {
        *to = *d as i64;
    }
    let mut args = vec![Arg::In(0), Arg::Work(0), Arg::Out(0), i64_struct(dims)];
    args.extend([x.dims.len().max(1), total, n].map(|v| Arg::I64(v as i64)));
    let grid = grid_1d(n, CHUNK, dev);
    let launch = Launch { kernel: 2, grid, block: [THREADS as u32, 1, 1], smem: 0, args };
    Ok(StepProgram { ops: vec![DeviceOp::Launch(launch)], workspace: workspace(x) })
}
