//! CUDA: a copy of the cache, then `tensor_scatter.cu` in the widest unit that a row divides into.

use super::{TensorScatter, operands};
use crate::base::Result;
use crate::device::DeviceProps;
use crate::ensure;
use crate::ops::transpose::cuda::{THREADS, grid_1d, unit, widest};
use crate::ops::{Arg, DeviceOp, KernelSpec, Launch, Problem, StepProgram, Tactic, TacticOptions, TacticSource};

pub fn tactics(op: &TensorScatter, p: &Problem, opt: &TacticOptions) -> Vec<Tactic> {
    let Ok([x, update]) = operands(p) else { return vec![] };
    let Ok(e) = op.extents(&x.dims, &update.dims) else { return vec![] };
    let size = x.dtype.size();
    let bytes = if opt.dynamic { size } else { widest([e.inner * size]) };
    let index = p.input(2).map_or(crate::base::DType::I64, |d| d.dtype);
    let kernel = KernelSpec::new("tensor_scatter.cu")
        .define("T_UNIT", unit(bytes))
        .define_type("T_INDEX", index)
        .define("CIRCULAR", op.circular as i64)
        .define("THREADS", THREADS);
    vec![Tactic {
        name: format!("tensor_scatter/{}b_{index}{}", 8 * bytes, if op.circular { "_circular" } else { "" }),
        source: TacticSource::Kernels,
        kernels: vec![kernel],
        params: vec![bytes as i64],
    }]
}

pub fn program(op: &TensorScatter, tactic: &Tactic, p: &Problem, dev: &DeviceProps) -> Result<StepProgram> {
    let [x, update] = operands(p)?;
    let e = op.extents(&x.dims, &update.dims)?;
    let bytes = tactic.params.first().map_or(0, |b| *b as usize);
    let row = e.inner * x.dtype.size();
    ensure!(bytes > 0 && row % bytes == 0, InvalidState, "tactic {} does not fit rows of {row} bytes", tactic.name);
    if x.numel() == 0 {
        return Ok(StepProgram::default());
    }
    let mut ops = vec![DeviceOp::Copy { dst: Arg::Out(0), src: Arg::In(0), bytes: x.bytes() }];
    let inner = row / bytes;
    let n = e.batch * e.per_batch * e.rows * inner;
    if n > 0 {
        let mut args = vec![Arg::In(1), if p.input(2).is_some() { Arg::In(2) } else { Arg::Null }, Arg::Out(0)];
        args.extend([e.per_batch, e.length, e.rows, inner, n].map(|v| Arg::I64(v as i64)));
        let grid = grid_1d(n, THREADS, dev);
        ops.push(DeviceOp::Launch(Launch { kernel: 0, grid, block: [THREADS as u32, 1, 1], smem: 0, args }));
    }
    Ok(StepProgram { ops, workspace: 0 })
}
