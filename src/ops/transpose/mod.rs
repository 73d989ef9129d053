//! Permutes axes: output axis i is input axis `perm[i]`. Input: x of any type.
//!
//! [`strided`] holds the copy through strides that this and several other operators are made of.

pub(crate) mod cpu;
pub(crate) mod cuda;
pub mod strided;
mod tiles;

use crate::base::dims::normalize_axis;
use crate::base::{Fact, Result, Shape, Tensor};
use crate::ops::shape::with_known;
use crate::device::DeviceProps;
use crate::device::cpu::transpose::{MAX_RANK, copy_strided_bytes};
use crate::ops::{HalfRole, CpuStep, EvalCx, ImportCx, InferCx, OpDef, PackCache, Problem, StepProgram, Tactic, TacticOptions, onnx};
use crate::network::ValueId;
use crate::{ensure, op_home, op_struct};
use cpu::ViewStep;
use strided::View;

op_struct! {
    /// Permutes axes: output axis i is input axis perm[i].
    pub struct Transpose {
        pub perm: Vec<i64>,
    }
}

op_home!(Transpose, "Transpose", &[onnx("Transpose", 1, import)]);

impl Transpose {
    /// The permutation as indices; fails unless each axis stands in it once.
    pub fn perm(&self, rank: usize) -> Result<Vec<usize>> {
        ensure!(
            self.perm.len() == rank,
            InvalidArgument,
            "perm has {} entries for an input of rank {rank}",
            self.perm.len()
        );
        let perm = self.perm.iter().map(|a| normalize_axis(*a, rank)).collect::<Result<Vec<_>>>()?;
        let mut seen = perm.clone();
        seen.sort_unstable();
        ensure!(
            seen.iter().enumerate().all(|(i, a)| i == *a),
            InvalidArgument,
            "perm {:?} does not name each axis once",
            self.perm
        );
        Ok(perm)
    }

    /// The copy for an input of these dimensions.
    pub fn view(&self, dims: &[usize]) -> Result<View> {
        Ok(View::dense(dims).permuted(&self.perm(dims.len())?))
    }
}

/// The tensor with its axes in another order, by all threads: for weights that are brought into the order of a kernel.
pub(crate) fn transposed(x: &Tensor, perm: &[usize]) -> Result<Tensor> {
    let op = Transpose { perm: perm.iter().map(|p| *p as i64).collect() };
    let view = op.view(x.shape())?;
    let mut out = Tensor::zeros(x.dtype(), &view.dims);
    let (size, v) = (x.dtype().size(), view.collapsed());
    let is_aligned = x.bytes().as_ptr().addr() % size == 0 && out.bytes_mut().as_ptr().addr() % size == 0;
    if is_aligned && v.dims.len() <= MAX_RANK && x.numel() > 0 {
        let strides: Vec<isize> = v.strides.iter().map(|s| *s as isize).collect();
        copy_strided_bytes(size, out.bytes_mut(), &v.dims, x.bytes(), v.offset as usize, &strides);
    } else {
        view.copy(x, &mut out);
    }
    Ok(out)
}

impl OpDef for Transpose {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Vec<Fact>> {
        cx.arity(1, 1)?;
        let x = cx.input(0)?;
        let perm = self.perm(x.rank())?;
        let shape = Shape(perm.iter().map(|p| x.shape[*p].clone()).collect());
        let known = if x.rank() < 2 { x.as_dims() } else { None };
        Ok(vec![with_known(Fact::new(x.dtype, shape), known)])
    }

    fn half(&self, _n_inputs: usize) -> Option<(HalfRole, Vec<usize>)> {
        Some((HalfRole::Follows, vec![0]))
    }

    fn eval(&self, cx: &EvalCx<'_>) -> Result<Vec<Tensor>> {
        let x = cx.input(0)?;
        let mut out = cx.output(0)?;
        self.view(x.shape())?.copy(x, &mut out);
        Ok(vec![out])
    }

    fn cpu(&self, p: &Problem, _pack: &dyn PackCache) -> Result<Option<Box<dyn CpuStep>>> {
        let Some(x) = p.input(0) else { return Ok(None) };
        Ok(ViewStep::boxed("transpose", p, &self.view(&x.dims)?))
    }

    fn cuda_tactics(&self, p: &Problem, _dev: &DeviceProps, opt: &TacticOptions) -> Vec<Tactic> {
        let (Some(x), Some(view)) = (p.input(0), p.input(0).and_then(|x| self.view(&x.dims).ok())) else { return vec![] };
        let mut out = cuda::tactics(&view, x.dtype.size(), opt);
        // Sizes that are not fixed leave the form alone when it is the permutation's own.
        let any = self.view(&vec![2; x.dims.len()]).ok();
        if let (true, Some(t)) = (opt.dynamic, any.and_then(|v| tiles::tactic(&v, x.dtype.size()))) {
            out.insert(0, t);
        }
        out
    }

    fn cuda_program(&self, tactic: &Tactic, p: &Problem, dev: &DeviceProps) -> Result<StepProgram> {
        let (Some(x), Some(view)) = (p.input(0), p.input(0).and_then(|x| self.view(&x.dims).ok())) else {
            return Err(crate::err!(InvalidState, "an operand of a transpose is not known"));
        };
        cuda::program(tactic, &view, x.dtype.size(), dev)
    }
}

fn import(cx: &mut ImportCx<'_>) -> Result<Vec<ValueId>> {
    let x = cx.input(0)?;
    let rank = cx.shape(x).rank() as i64;
    let perm = cx.ints("perm")?.unwrap_or_else(|| (0..rank).rev().collect());
    Ok(vec![cx.add(Transpose { perm }, &[x])?])
}
