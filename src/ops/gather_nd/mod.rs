//! Picks slices by index tuples. Inputs: x of any type, indices (i32 or i64) whose last axis holds one tuple.
//!
//! The first `batch_dims` axes of both are walked together; a tuple of k numbers names a slice along the next k axes of
//! x. A negative index counts from the end. An index out of range is an error on the host; devices clamp it.

pub(crate) mod cpu;
pub(crate) mod cuda;

use crate::base::{Fact, Result, Shape, Tensor};
use crate::base::tensor::strides_of;
use crate::device::DeviceProps;
use crate::network::ValueId;
use crate::ops::gather_elements::check_indices;
use crate::ops::{
    CpuStep, EvalCx, ImportCx, InferCx, OnnxOp, OpDef, PackCache, Problem, StepProgram, Tactic, TacticOptions, onnx,
};
use crate::{ensure, err, op_home, op_struct};

op_struct! {
    /// Picks slices by index tuples. Inputs: x, indices.
    pub struct GatherND {
        pub batch_dims: i64,
    }
}

op_home!(
    GatherND,
    "GatherND",
    &[onnx("GatherND", 11, import), OnnxOp { domain: "com.microsoft", name: "GatherND", since: 1, import }]
);

/// The numbers of a pick or a scatter by tuples: `batches` times `per_batch` tuples of `sizes.len()` indices, each
/// naming a slice of `inner` elements; `strides` are those of the indexed axes, a batch of x has `batch` elements.
pub struct Tuples {
    pub batches: usize,
    pub per_batch: usize,
    pub sizes: Vec<usize>,
    pub strides: Vec<usize>,
    pub batch: usize,
    pub inner: usize,
}

impl Tuples {
    pub fn new(x: &[usize], indices: &[usize], batch_dims: usize) -> Result<Tuples> {
        let (Some((k, rows)), true) = (indices.split_last(), batch_dims < indices.len()) else {
            return Err(err!(InvalidArgument, "the indices are a scalar, or have no axis after the batches"));
        };
        let end = batch_dims + *k;
        ensure!(end <= x.len(), InvalidArgument, "tuples of {k} indices for data of rank {}", x.len());
        let strides = strides_of(x);
        Ok(Tuples {
            batches: rows[..batch_dims].iter().product(),
            per_batch: rows[batch_dims..].iter().product(),
            sizes: x[batch_dims..end].to_vec(),
            strides: strides[batch_dims..end].to_vec(),
            batch: x[batch_dims..].iter().product(),
            inner: x[end..].iter().product(),
        })
    }

    pub fn n(&self) -> usize {
        self.batches * self.per_batch
    }

    /// Where the slice of tuple `r` begins in x.
    pub fn offset(&self, r: usize, indices: &[i64]) -> Result<usize> {
        let k = self.sizes.len();
        let mut at = r / self.per_batch.max(1) * self.batch;
        for (j, i) in indices[r * k..(r + 1) * k].iter().enumerate() {
            at += crate::ops::gather::resolve(*i, self.sizes[j])? * self.strides[j];
        }
        Ok(at)
    }

    /// True when a tuple names an element of an empty axis.
    pub fn is_from_nothing(&self) -> bool {
        self.n() > 0 && self.sizes.contains(&0)
    }
}

/// The length of one tuple, which decides a rank and so must be a number.
pub fn tuple_len(indices: &Fact) -> Result<usize> {
    let last = indices.shape.last().ok_or_else(|| err!(InvalidArgument, "the indices are a scalar"))?;
    let k = last.as_const().ok_or_else(|| err!(Unsupported, "the last dimension of the indices, {last}, is not a number"))?;
    usize::try_from(k).map_err(|_| err!(InvalidArgument, "tuples of {k} indices"))
}

impl OpDef for GatherND {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Vec<Fact>> {
        cx.arity(2, 2)?;
        check_indices(cx, 1)?;
        let (x, indices) = (cx.input(0)?, cx.input(1)?);
        ensure!(x.rank() >= 1 && indices.rank() >= 1, InvalidArgument, "data {x} and indices {indices} need an axis");
        let k = tuple_len(indices)?;
        let b = usize::try_from(self.batch_dims).unwrap_or(usize::MAX);
        ensure!(
            b < indices.rank() && b < x.rank() && k <= x.rank() - b,
            InvalidArgument,
            "batch_dims {} and tuples of {k} indices for data {x} and indices {indices}",
            self.batch_dims
        );
        let rows = &indices.shape[..indices.rank() - 1];
        let nothing = x.shape[b..b + k].iter().any(|d| d.is(0)) && rows.iter().all(|d| d.as_const().is_some_and(|n| n > 0));
        ensure!(!nothing, InvalidArgument, "indices into an empty axis of {x}");
        let mut shape = Vec::new();
        for (d, n) in x.shape[..b].iter().zip(&indices.shape[..b]) {
            let clash = matches!((d.as_const(), n.as_const()), (Some(d), Some(n)) if d != n);
            ensure!(!clash, InvalidArgument, "the batches of {x} and {indices} differ");
            shape.push(n.clone());
        }
        shape.extend_from_slice(&indices.shape[b..indices.rank() - 1]);
        shape.extend_from_slice(&x.shape[b + k..]);
        Ok(vec![Fact::new(x.dtype, Shape(shape))])
    }

    fn half(&self, _n_inputs: usize) -> Option<(crate::ops::HalfRole, Vec<usize>)> {
        Some((crate::ops::HalfRole::Follows, vec![0]))
    }

    fn eval(&self, cx: &EvalCx<'_>) -> Result<Vec<Tensor>> {
        let (x, indices) = (cx.input(0)?, cx.input(1)?);
        let mut out = cx.output(0)?;
        let t = Tuples::new(x.shape(), indices.shape(), self.batch_dims as usize)?;
        let at = indices.to_i64s();
        let row = t.inner * x.dtype().size();
        let dst = out.bytes_mut();
        for r in 0..t.n() {
            let from = t.offset(r, &at)? * x.dtype().size();
            dst[r * row..(r + 1) * row].copy_from_slice(&x.bytes()[from..from + row]);
        }
        Ok(vec![out])
    }

    fn cpu(&self, p: &Problem, _pack: &dyn PackCache) -> Result<Option<Box<dyn CpuStep>>> {
        cpu::step(self, p)
    }

    fn cuda_tactics(&self, p: &Problem, _dev: &DeviceProps, opt: &TacticOptions) -> Vec<Tactic> {
        cuda::tactics(self, p, opt)
    }

    fn cuda_program(&self, tactic: &Tactic, p: &Problem, dev: &DeviceProps) -> Result<StepProgram> {
        cuda::program(self, tactic, p, dev)
    }
}

fn import(cx: &mut ImportCx<'_>) -> Result<Vec<ValueId>> {
    let (x, indices) = (cx.input(0)?, cx.input(1)?);
    let batch_dims = cx.int("batch_dims", 0)?;
    Ok(vec![cx.add(GatherND { batch_dims }, &[x, indices])?])
}
