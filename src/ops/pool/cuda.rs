//! Pooling on CUDA: one thread an output, for every size.

use super::{Pool, PoolKind};
use crate::base::Result;
use crate::device::DeviceProps;
use crate::ops::conv::cuda::{check_nd, striding_grid};
use crate::ops::{Arg, KernelSpec, Launch, Problem, StepProgram, Tactic, TacticSource, i64_struct};
use crate::internal;

const THREADS: usize = 256;

pub(super) fn tactics(op: &Pool, p: &Problem) -> Vec<Tactic> {
    let Some(x) = p.input(0) else { return Vec::new() };
    let code = match op.kind {
        PoolKind::Max => "POOL_MAX",
        PoolKind::Average => "POOL_AVERAGE",
        PoolKind::Lp => "POOL_LP",
    };
    let spec = KernelSpec::new("pool.cu")
        .define_type("T_IN", x.dtype)
        .define("OP", code)
        .define("HAS_INDEX", op.indices as i64)
        .define("COLUMN_MAJOR", op.storage_order)
        .define("THREADS", THREADS);
    let name = format!("pool_{}{}", op.kind.name(), if op.indices { "_index" } else { "" });
    vec![Tactic { name, source: TacticSource::Kernels, kernels: vec![spec], params: vec![] }]
}

pub(super) fn program(op: &Pool, p: &Problem, dev: &DeviceProps) -> Result<StepProgram> {
    let (Some(x), Some(y)) = (p.input(0), p.outputs.first()) else {
        return Err(internal!("a pooling without operands"));
    };
    let w = op.window(&x.dims, &y.dims)?;
    check_nd(x.dims[0], x.dims[1], &w)?;
    let lists = [w.input, w.output, w.kernel, w.stride, w.pad_begin, w.pad_end, w.dilation];
    let params = std::iter::once(x.dims[0] * x.dims[1])
        .chain(lists.into_iter().flatten())
        .chain([op.count_include_pad as usize])
        .map(|v| v as i64);
    let index = if op.indices { Arg::Out(1) } else { Arg::Null };
    Ok(StepProgram::one(Launch {
        kernel: 0,
        grid: [striding_grid(y.numel(), THREADS, dev), 1, 1],
        block: [THREADS as u32, 1, 1],
        smem: 0,
        args: vec![Arg::In(0), Arg::Out(0), index, i64_struct(params), Arg::F32(op.p as f32)],
    }))
}
