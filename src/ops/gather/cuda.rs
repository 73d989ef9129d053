//! CUDA: `gather.cu`, in the widest unit that a picked row divides into.

use super::Gather;
use crate::base::Result;
use crate::base::dims::normalize_axis;
use crate::device::DeviceProps;
use crate::ops::transpose::cuda::{THREADS, grid_1d, unit, widest};
use crate::ops::{Arg, KernelSpec, Launch, Problem, StepProgram, Tactic, TacticOptions, TacticSource};
use crate::{ensure, err};

/// [outer, axis, n_index, bytes of a row].
fn extents(op: &Gather, p: &Problem) -> Result<[usize; 4]> {
    let (Some(x), Some(indices)) = (p.input(0), p.input(1)) else {
        return Err(err!(InvalidArgument, "gather needs x and indices"));
    };
    let axis = normalize_axis(op.axis, x.dims.len())?;
    let row = x.dims[axis + 1..].iter().product::<usize>() * x.dtype.size();
    Ok([x.dims[..axis].iter().product(), x.dims[axis], indices.numel(), row])
}

pub fn tactics(op: &Gather, p: &Problem, opt: &TacticOptions) -> Vec<Tactic> {
    let (Ok([.., row]), Some(x), Some(indices)) = (extents(op, p), p.input(0), p.input(1)) else { return vec![] };
    let bytes = if opt.dynamic { x.dtype.size() } else { widest([row]) };
    let kernel = KernelSpec::new("gather.cu")
        .define("T_UNIT", unit(bytes))
        .define_type("T_INDEX", indices.dtype)
        .define("THREADS", THREADS);
    vec![Tactic {
        name: format!("gather/{}b_{}", 8 * bytes, indices.dtype),
        source: TacticSource::Kernels,
        kernels: vec![kernel],
        params: vec![bytes as i64],
    }]
}

pub fn program(op: &Gather, tactic: &Tactic, p: &Problem, dev: &DeviceProps) -> Result<StepProgram> {
    let [outer, axis, n_index, row] = extents(op, p)?;
    let bytes = tactic.params.first().map_or(0, |b| *b as usize);
    ensure!(bytes > 0 && row % bytes == 0, InvalidState, "tactic {} does not fit rows of {row} bytes", tactic.name);
    let inner = row / bytes;
    let n = outer * n_index * inner;
    if n == 0 {
        return Ok(StepProgram::default());
    }
    ensure!(axis > 0, InvalidArgument, "gather of {n_index} elements from an empty axis");
    let numbers = [outer, axis, n_index, inner].map(|v| Arg::I64(v as i64));
    let mut args = vec![Arg::In(0), Arg::In(1), Arg::Out(0)];
    args.extend(numbers);
    let grid = grid_1d(n, THREADS, dev);
    Ok(StepProgram::one(Launch { kernel: 0, grid, block: [THREADS as u32, 1, 1], smem: 0, args }))
}
