//! Writes rows into a cache along one axis, at a position of each batch element. Inputs: cache, update, optional write
//! indices [batch] (i64; 0 without).
//!
//! The result is the cache with `update`'s row s at position `write[b] + s`, modulo the cache's size in the circular
//! mode. A position out of range is an error on the host; devices skip it.

mod cuda;

use crate::base::{Fact, Result, Tensor};
use crate::device::DeviceProps;
use crate::network::ValueId;
use crate::ops::gather_elements::check_indices;
use crate::ops::scatter_elements::check_same;
use crate::ops::{EvalCx, ImportCx, InferCx, OpDef, Problem, StepProgram, Tactic, TacticOptions, onnx};
use crate::{bail, ensure, err, op_home, op_struct};

op_struct! {
    /// Writes rows into a cache along one axis. Inputs: cache, update, optional write indices.
    pub struct TensorScatter {
        pub axis: i64,
        pub circular: bool,
    }
}

op_home!(TensorScatter, "TensorScatter", &[onnx("TensorScatter", 24, import)]);

/// The cache as [batch, per_batch, length, inner] and the number of rows of the update.
pub struct Extents {
    pub batch: usize,
    pub per_batch: usize,
    pub length: usize,
    pub rows: usize,
    pub inner: usize,
}

impl TensorScatter {
    pub fn extents(&self, cache: &[usize], update: &[usize]) -> Result<Extents> {
        let axis = crate::base::dims::normalize_axis(self.axis, cache.len())?;
        ensure!(axis > 0, InvalidArgument, "axis 0 is the batch, which is not written along");
        Ok(Extents {
            batch: cache[0],
            per_batch: cache[1..axis].iter().product(),
            length: cache[axis],
            rows: update[axis],
            inner: cache[axis + 1..].iter().product(),
        })
    }
}

impl OpDef for TensorScatter {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Vec<Fact>> {
        cx.arity(2, 3)?;
        let (x, update) = (cx.input(0)?, cx.input(1)?);
        ensure!(x.dtype == update.dtype, InvalidArgument, "an update of type {} for {}", update.dtype, x.dtype);
        let axis = x.shape.axis(self.axis)?;
        ensure!(axis > 0, InvalidArgument, "axis 0 is the batch, which is not written along");
        ensure!(x.rank() == update.rank(), InvalidArgument, "an update {update} for a cache {x}");
        check_same("batches of cache and update", &x.shape[..axis], &update.shape[..axis])?;
        check_same("rows of cache and update", &x.shape[axis + 1..], &update.shape[axis + 1..])?;
        if let (Some(d), Some(n)) = (x.shape[axis].as_const(), update.shape[axis].as_const()) {
            ensure!(n <= d, InvalidArgument, "an update of {n} rows for a cache of {d}");
        }
        if cx.opt(2).is_some() {
            check_indices(cx, 2)?;
            check_same("the batch and the number of write indices", &x.shape[..1], &cx.input(2)?.shape)?;
        }
        Ok(vec![Fact::new(x.dtype, x.shape.clone())])
    }

    fn half(&self, _n_inputs: usize) -> Option<(crate::ops::HalfRole, Vec<usize>)> {
        Some((crate::ops::HalfRole::Follows, vec![0, 1]))
    }

    fn eval(&self, cx: &EvalCx<'_>) -> Result<Vec<Tensor>> {
        let (x, update) = (cx.input(0)?, cx.input(1)?);
        let mut out = cx.output(0)?;
        out.bytes_mut().copy_from_slice(x.bytes());
        let e = self.extents(x.shape(), update.shape())?;
        let write = cx.opt(2).map_or(vec![0; e.batch], |t| t.to_i64s());
        let row = e.inner * x.dtype().size();
        let (src, dst) = (update.bytes(), out.bytes_mut());
        for o in 0..e.batch * e.per_batch {
            let start = write[o / e.per_batch];
            ensure!(start >= 0, InvalidArgument, "write index {start} is negative");
            for s in 0..e.rows {
                let mut at = start as usize + s;
                if self.circular {
                    at %= e.length;
                }
                ensure!(at < e.length, InvalidArgument, "row {at} of a cache of {}", e.length);
                let (to, from) = ((o * e.length + at) * row, (o * e.rows + s) * row);
                dst[to..to + row].copy_from_slice(&src[from..from + row]);
            }
        }
        Ok(vec![out])
    }

    fn cuda_tactics(&self, p: &Problem, _dev: &DeviceProps, opt: &TacticOptions) -> Vec<Tactic> {
        cuda::tactics(self, p, opt)
    }

    fn cuda_program(&self, tactic: &Tactic, p: &Problem, dev: &DeviceProps) -> Result<StepProgram> {
        cuda::program(self, tactic, p, dev)
    }
}

fn import(cx: &mut ImportCx<'_>) -> Result<Vec<ValueId>> {
    let mut inputs = vec![Some(cx.input(0)?), Some(cx.input(1)?)];
    inputs.extend(cx.opt(2).map(Some));
    let axis = cx.int("axis", -2)?;
    let circular = match cx.string("mode", "linear")?.as_str() {
        "linear" => false,
        "circular" => true,
        m => bail!(InvalidArgument, "attribute mode: expected linear or circular, got {m:?}"),
    };
    Ok(vec![cx.add_opt(TensorScatter { axis, circular }, &inputs)?])
}

/// Operands that a program needs.
fn operands(p: &Problem) -> Result<[&crate::ops::TensorDesc; 2]> {
    match (p.input(0), p.input(1)) {
        (Some(x), Some(u)) => Ok([x, u]),
        _ => Err(err!(InvalidArgument, "an operand is missing")),
    }
}
