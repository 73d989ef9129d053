//! CUDA: `cache_update.cu`, in the widest unit that a row divides into.

use super::{CacheUpdate, Geometry};
use crate::base::Result;
use crate::device::DeviceProps;
use crate::ops::transpose::cuda::{THREADS, grid_1d, unit, widest};
use crate::ops::{Arg, KernelSpec, Launch, Problem, StepProgram, Tactic, TacticOptions, TacticSource, i64_struct};
use crate::ensure;

pub fn tactics(op: &CacheUpdate, p: &Problem, opt: &TacticOptions) -> Vec<Tactic> {
    let (Ok(g), Some(starts)) = (Geometry::new(op, &p.inputs, &p.outputs[0]), p.input(2)) else { return vec![] };
    let bytes = if opt.dynamic { p.outputs[0].dtype.size() } else { widest([g.row]) };
    let kernel = KernelSpec::new("cache_update.cu")
        .define("T_UNIT", unit(bytes))
        .define_type("T_START", starts.dtype)
        .define("THREADS", THREADS);
    vec![Tactic {
        name: format!("cache_update/{}b_{}", 8 * bytes, starts.dtype),
        source: TacticSource::Kernels,
        kernels: vec![kernel],
        params: vec![bytes as i64],
    }]
}

pub fn program(op: &CacheUpdate, tactic: &Tactic, p: &Problem, dev: &DeviceProps) -> Result<StepProgram> {
    let g = Geometry::new(op, &p.inputs, &p.outputs[0])?;
    let bytes = tactic.params.first().map_or(0, |b| *b as usize);
    ensure!(bytes > 0 && g.row % bytes == 0, InvalidState, "tactic {} does not fit rows of {} bytes", tactic.name, g.row);
    let row = g.row / bytes;
    let n = g.batch * g.heads * g.out * row;
    if n == 0 {
        return Ok(StepProgram::default());
    }
    let [sb, sh, ss] = g.strides;
    let numbers = [n, g.heads, g.past, g.new, g.out, row, sb, sh, ss, g.one_start as usize].map(|v| v as i64);
    let past = if p.input(0).is_some() { Arg::In(0) } else { Arg::Null };
    let args = vec![past, Arg::In(1), Arg::In(2), Arg::Out(0), i64_struct(numbers)];
    let (grid, block) = (grid_1d(n, THREADS, dev), [THREADS as u32, 1, 1]);
    Ok(StepProgram::one(Launch { kernel: 0, grid, block, smem: 0, args }))
}
