//! Writes slices by index tuples into a copy of x. Inputs: x of any type, indices (i32 or i64), updates.
//!
//! The last axis of the indices holds one tuple of k numbers, which names a slice along the first k axes of x; `reduction`
//! says how an update joins what is there. A negative index counts from the end. Updates are applied in order on the
//! host; on a device the one that stays is not defined where two name the same slice without a reduction. An index out
//! of range is an error on the host; devices skip it.

mod cuda;

use crate::base::{Fact, Result, Tensor};
use crate::device::DeviceProps;
use crate::network::ValueId;
use crate::ops::gather_elements::check_indices;
use crate::ops::gather_nd::{Tuples, tuple_len};
use crate::ops::scatter_elements::check_same;
use crate::ops::scatter_elements::combine::{Combine, scatter};
use crate::ops::{
    CpuStep, EvalCx, ImportCx, InferCx, OpDef, PackCache, Problem, StepProgram, Tactic, TacticOptions, onnx,
};
use crate::{ensure, op_home, op_struct};

op_struct! {
    /// Writes slices by index tuples. Inputs: x, indices, updates.
    pub struct ScatterND {
        pub reduction: Combine,
    }
}

op_home!(ScatterND, "ScatterND", &[onnx("ScatterND", 11, import)]);

/// Fails when the updates are not one slice of x for each tuple.
fn check_tuples(x: &Fact, indices: &Fact, updates: &Fact) -> Result<()> {
    let k = tuple_len(indices)?;
    ensure!(k <= x.rank(), InvalidArgument, "tuples of {k} indices for data of rank {}", x.rank());
    let rows = &indices.shape[..indices.rank() - 1];
    let mut want = rows.to_vec();
    want.extend_from_slice(&x.shape[k..]);
    check_same("shapes of slices and updates", &want, &updates.shape)?;
    let nothing = x.shape[..k].iter().any(|d| d.is(0)) && rows.iter().all(|d| d.as_const().is_some_and(|n| n > 0));
    ensure!(!nothing, InvalidArgument, "indices into an empty axis of {x}");
    Ok(())
}

impl OpDef for ScatterND {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Vec<Fact>> {
        cx.arity(3, 3)?;
        check_indices(cx, 1)?;
        let (x, indices, updates) = (cx.input(0)?, cx.input(1)?, cx.input(2)?);
        self.reduction.check(x.dtype)?;
        ensure!(x.dtype == updates.dtype, InvalidArgument, "updates of type {} for {}", updates.dtype, x.dtype);
        ensure!(indices.rank() >= 1, InvalidArgument, "the indices are a scalar");
        // Over symbols the length of a tuple may be open, since the result has x's shape; a device gets numbers.
        if indices.shape[indices.rank() - 1].as_const().is_some() {
            check_tuples(x, indices, updates)?;
        }
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
        let t = Tuples::new(x.shape(), indices.shape(), 0)?;
        let at = indices.to_i64s();
        ensure!(updates.numel() == t.n() * t.inner, InvalidArgument, "{} updates", updates.numel());
        for r in 0..t.n() {
            let to = t.offset(r, &at)?;
            if self.reduction == Combine::None {
                let row = t.inner * x.dtype().size();
                let from = &updates.bytes()[r * row..(r + 1) * row];
                let to = to * x.dtype().size();
                out.bytes_mut()[to..to + row].copy_from_slice(from);
                continue;
            }
            let pairs: Vec<(usize, usize)> = (0..t.inner).map(|i| (to + i, r * t.inner + i)).collect();
            crate::dispatch!(x.dtype(), T => scatter::<T>(self.reduction, out.slice_mut(), updates.slice(), &pairs));
        }
        Ok(vec![out])
    }

    fn cpu(&self, p: &Problem, _pack: &dyn PackCache) -> Result<Option<Box<dyn CpuStep>>> {
        crate::ops::gather_nd::cpu::scatter_step(self, p)
    }

    fn cuda_tactics(&self, p: &Problem, _dev: &DeviceProps, opt: &TacticOptions) -> Vec<Tactic> {
        cuda::tactics(self, p, opt)
    }

    fn cuda_program(&self, tactic: &Tactic, p: &Problem, dev: &DeviceProps) -> Result<StepProgram> {
        cuda::program(tactic, p, dev)
    }
}

fn import(cx: &mut ImportCx<'_>) -> Result<Vec<ValueId>> {
    let inputs = [cx.input(0)?, cx.input(1)?, cx.input(2)?];
    let reduction = Combine::import(cx)?;
    Ok(vec![cx.add(ScatterND { reduction }, &inputs)?])
}
