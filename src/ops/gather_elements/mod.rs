//! Picks one element per index along one axis. Inputs: x of any type, indices (i32 or i64) of x's rank.
//!
//! `y[.., i, ..] = x[.., indices[.., i, ..], ..]`. A negative index counts from the end. The indices may have fewer rows
//! than x along the other axes. An index out of range is an error on the host; devices clamp it, since they cannot report.

pub(crate) mod cpu;
pub(crate) mod cuda;

use crate::base::dims::normalize_axis;
use crate::base::tensor::strides_of;
use crate::base::{DType, Fact, Result, Tensor};
use crate::device::DeviceProps;
use crate::network::ValueId;
use crate::ops::transpose::strided::View;
use crate::ops::{
    CpuStep, EvalCx, ImportCx, InferCx, OpDef, PackCache, Problem, StepProgram, Tactic, TacticOptions, onnx,
};
use crate::{ensure, op_home, op_struct};

op_struct! {
    /// Picks one element per index along one axis. Inputs: x, indices.
    pub struct GatherElements {
        pub axis: i64,
    }
}

op_home!(GatherElements, "GatherElements", &[onnx("GatherElements", 11, import)]);

/// Fails unless input `i` holds indices: i32 or i64.
pub fn check_indices(cx: &InferCx<'_>, i: usize) -> Result<()> {
    let t = cx.input(i)?.dtype;
    ensure!(matches!(t, DType::I32 | DType::I64), InvalidArgument, "input {i}: indices must be i32 or i64, got {t}");
    Ok(())
}

/// Fails unless the indices fit `x`: the same rank, and along every axis but `axis` no more of them than x has.
pub fn check_elements(x: &Fact, indices: &Fact, axis: usize) -> Result<()> {
    ensure!(
        x.rank() == indices.rank(),
        InvalidArgument,
        "the indices have rank {}, the data {}",
        indices.rank(),
        x.rank()
    );
    for (k, (d, n)) in x.shape.iter().zip(indices.shape.iter()).enumerate() {
        let (Some(d), Some(n)) = (d.as_const(), n.as_const()) else { continue };
        ensure!(k == axis || n <= d, InvalidArgument, "axis {k}: {n} indices for {d} elements");
        ensure!(k != axis || d > 0 || indices.shape.numel().is(0), InvalidArgument, "indices into axis {k}, which is empty");
    }
    Ok(())
}

/// For every index in order, where its element's row begins in a dense tensor of dimensions `dims`: coordinates of
/// the indices, but 0 along the axis.
pub fn rows(dims: &[usize], indices: &[usize], axis: usize) -> View {
    let mut strides: Vec<i64> = strides_of(dims).into_iter().map(|s| s as i64).collect();
    strides[axis] = 0;
    View { dims: indices.to_vec(), strides, offset: 0 }
}

/// Calls `f` with the position of each index and the element of `dims` that it names.
pub fn for_each_element(
    dims: &[usize],
    indices: &Tensor,
    axis: usize,
    mut f: impl FnMut(usize, usize),
) -> Result<()> {
    let at = indices.to_i64s();
    let view = rows(dims, indices.shape(), axis).collapsed();
    let stride = strides_of(dims)[axis];
    let mut problem = Ok(());
    crate::ops::transpose::strided::for_each_index(&view.dims, |k, index| {
        let row: i64 = index.iter().zip(&view.strides).map(|(i, s)| *i as i64 * s).sum();
        match crate::ops::gather::resolve(at[k], dims[axis]) {
            Ok(i) => f(k, row as usize + i * stride),
            Err(e) => problem = Err(e),
        }
    });
    problem
}

impl OpDef for GatherElements {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Vec<Fact>> {
        cx.arity(2, 2)?;
        check_indices(cx, 1)?;
        let (x, indices) = (cx.input(0)?, cx.input(1)?);
        let axis = x.shape.axis(self.axis)?;
        check_elements(x, indices, axis)?;
        Ok(vec![Fact::new(x.dtype, indices.shape.clone())])
    }

    fn half(&self, _n_inputs: usize) -> Option<(crate::ops::HalfRole, Vec<usize>)> {
        Some((crate::ops::HalfRole::Follows, vec![0]))
    }

    fn eval(&self, cx: &EvalCx<'_>) -> Result<Vec<Tensor>> {
        let (x, indices) = (cx.input(0)?, cx.input(1)?);
        let mut out = cx.output(0)?;
        let axis = normalize_axis(self.axis, x.rank())?;
        let size = x.dtype().size();
        let (src, dst) = (x.bytes(), out.bytes_mut());
        for_each_element(x.shape(), indices, axis, |to, from| {
            dst[to * size..(to + 1) * size].copy_from_slice(&src[from * size..(from + 1) * size]);
        })?;
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
    let axis = cx.int("axis", 0)?;
    Ok(vec![cx.add(GatherElements { axis }, &[x, indices])?])
}
