//! CUDA: `gather_nd.cu`, in the widest unit that a slice divides into.

use super::{GatherND, Tuples};
use crate::base::Result;
use crate::device::DeviceProps;
use crate::ops::transpose::cuda::{MAX_RANK, THREADS, grid_1d, unit, widest};
use crate::ops::{Arg, KernelSpec, Launch, Problem, StepProgram, Tactic, TacticOptions, TacticSource, i64_struct};
use crate::{ensure, err};

/// The by-value `Tuple` of `common/tuple.cuh`; strides and extents are counted in units of `per_unit` elements.
pub fn tuple_arg(t: &Tuples, per_unit: usize) -> Arg {
    let mut words = [0i64; 2 * MAX_RANK + 4];
    for (j, (size, stride)) in t.sizes.iter().zip(&t.strides).enumerate() {
        words[j] = *size as i64;
        words[MAX_RANK + j] = (*stride / per_unit) as i64;
    }
    let rest = [t.sizes.len(), t.per_batch, t.batch / per_unit, t.inner / per_unit];
    for (w, v) in words[2 * MAX_RANK..].iter_mut().zip(rest) {
        *w = v as i64;
    }
    i64_struct(words)
}

fn tuples(op: &GatherND, p: &Problem) -> Result<(Tuples, usize)> {
    let (Some(x), Some(indices)) = (p.input(0), p.input(1)) else {
        return Err(err!(InvalidArgument, "an operand is missing"));
    };
    Ok((Tuples::new(&x.dims, &indices.dims, op.batch_dims as usize)?, x.dtype.size()))
}

pub fn tactics(op: &GatherND, p: &Problem, opt: &TacticOptions) -> Vec<Tactic> {
    let (Ok((t, size)), Some(indices)) = (tuples(op, p), p.input(1)) else { return vec![] };
    if t.sizes.len() > MAX_RANK {
        return vec![];
    }
    let bytes = if opt.dynamic { size } else { widest([t.inner * size]) };
    let kernel = KernelSpec::new("gather_nd.cu")
        .define("T_UNIT", unit(bytes))
        .define_type("T_INDEX", indices.dtype)
        .define("THREADS", THREADS);
    vec![Tactic {
        name: format!("gather_nd/{}b_{}", 8 * bytes, indices.dtype),
        source: TacticSource::Kernels,
        kernels: vec![kernel],
        params: vec![bytes as i64],
    }]
}

pub fn program(op: &GatherND, tactic: &Tactic, p: &Problem, dev: &DeviceProps) -> Result<StepProgram> {
    let (t, size) = tuples(op, p)?;
    let bytes = tactic.params.first().map_or(0, |b| *b as usize);
    ensure!(
        bytes >= size && t.inner * size % bytes == 0 && t.sizes.len() <= MAX_RANK,
        InvalidState,
        "tactic {} does not fit slices of {} bytes",
        tactic.name,
        t.inner * size
    );
    let n = t.n() * (t.inner * size / bytes);
    if n == 0 {
        return Ok(StepProgram::default());
    }
    ensure!(!t.is_from_nothing(), InvalidArgument, "indices into an empty axis");
    Ok(StepProgram::one(Launch {
        kernel: 0,
        grid: grid_1d(n, THREADS, dev),
        block: [THREADS as u32, 1, 1],
        smem: 0,
        args: vec![Arg::In(0), Arg::In(1), Arg::Out(0), tuple_arg(&t, bytes / size), Arg::I64(n as i64)],
    }))
}
