//! Writes one element per index along one axis into a copy of x. Inputs: x of any type, indices (i32 or i64), updates.
//!
//! `y[.., indices[.., i, ..], ..] = updates[.., i, ..]`, or joined with what is there by `reduction`. A negative index
//! counts from the end. Updates are applied in order on the host; on a device the one that stays is not defined where two
//! name the same element without a reduction. An index out of range is an error on the host; devices skip it.

pub mod combine;
mod cuda;

use crate::base::dims::normalize_axis;
use crate::base::{Fact, Result, Tensor};
use crate::device::DeviceProps;
use crate::network::ValueId;
use crate::ops::gather_elements::{check_elements, check_indices, for_each_element};
use crate::ops::{
    CpuStep, EvalCx, ImportCx, InferCx, OpDef, PackCache, Problem, StepProgram, Tactic, TacticOptions, onnx,
};
use crate::{ensure, op_home, op_struct};
use combine::{Combine, scatter};

op_struct! {
    /// Writes one element per index along one axis. Inputs: x, indices, updates.
    pub struct ScatterElements {
        pub axis: i64,
        pub reduction: Combine,
    }
}

op_home!(
    ScatterElements,
    "ScatterElements",
    &[onnx("Scatter", 9, import), onnx("ScatterElements", 11, import)]
);

/// Fails when two shapes are known to differ.
pub fn check_same(what: &str, a: &[crate::base::Dim], b: &[crate::base::Dim]) -> Result<()> {
    let clash = a.iter().zip(b).any(|(a, b)| matches!((a.as_const(), b.as_const()), (Some(a), Some(b)) if a != b));
    ensure!(a.len() == b.len() && !clash, InvalidArgument, "{what}: {a:?} and {b:?} differ");
    Ok(())
}

impl OpDef for ScatterElements {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Vec<Fact>> {
        cx.arity(3, 3)?;
        check_indices(cx, 1)?;
        let (x, indices, updates) = (cx.input(0)?, cx.input(1)?, cx.input(2)?);
        self.reduction.check(x.dtype)?;
        ensure!(x.dtype == updates.dtype, InvalidArgument, "updates of type {} for {}", updates.dtype, x.dtype);
        check_same("shapes of indices and updates", &indices.shape, &updates.shape)?;
        check_elements(x, indices, x.shape.axis(self.axis)?)?;
        Ok(vec![Fact::new(x.dtype, x.shape.clone())])
    }

    fn half(&self, _n_inputs: usize) -> Option<(crate::ops::HalfRole, Vec<usize>)> {
        let moves = matches!(self.reduction, Combine::None | Combine::Max | Combine::Min);
        moves.then(|| (crate::ops::HalfRole::Follows, vec![0, 2]))
    }

    fn eval(&self, cx: &EvalCx<'_>) -> Result<Vec<Tensor>> {
        let (x, indices, updates) = (cx.input(0)?, cx.input(1)?, cx.input(2)?);
        let mut out = cx.output(0)?;
        out.bytes_mut().copy_from_slice(x.bytes());
        let mut pairs = Vec::with_capacity(indices.numel());
        let axis = normalize_axis(self.axis, x.rank())?;
        for_each_element(x.shape(), indices, axis, |from, to| pairs.push((to, from)))?;
        crate::dispatch!(x.dtype(), T => scatter::<T>(self.reduction, out.slice_mut(), updates.slice(), &pairs));
        Ok(vec![out])
    }

    fn cpu(&self, p: &Problem, _pack: &dyn PackCache) -> Result<Option<Box<dyn CpuStep>>> {
        crate::ops::gather_elements::cpu::scatter_step(self, p)
    }

    fn cuda_tactics(&self, p: &Problem, _dev: &DeviceProps, opt: &TacticOptions) -> Vec<Tactic> {
        cuda::tactics(self, p, opt)
    }

    fn cuda_program(&self, tactic: &Tactic, p: &Problem, dev: &DeviceProps) -> Result<StepProgram> {
        cuda::program(self, tactic, p, dev)
    }
}

fn import(cx: &mut ImportCx<'_>) -> Result<Vec<ValueId>> {
    let inputs = [cx.input(0)?, cx.input(1)?, cx.input(2)?];
    let axis = cx.int("axis", 0)?;
    let reduction = Combine::import(cx)?;
    Ok(vec![cx.add(ScatterElements { axis, reduction }, &inputs)?])
}
