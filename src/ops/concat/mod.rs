//! Joins along one axis. Inputs: one or more tensors of one type and rank that agree but for that axis.

mod cpu;
mod cuda;

use crate::base::{Dim, Fact, Result, Tensor};
use crate::network::ValueId;
use crate::ops::shape::with_known;
use crate::device::DeviceProps;
use crate::ops::{HalfRole, CpuStep, EvalCx, ImportCx, InferCx, OpDef, PackCache, Problem, StepProgram, Tactic, TacticOptions, onnx};
use crate::{ensure, op_home, op_struct};

op_struct! {
    /// Joins along one axis.
    pub struct Concat {
        pub axis: i64,
    }
}

op_home!(Concat, "Concat", &[onnx("Concat", 1, import_1), onnx("Concat", 4, import)]);

impl OpDef for Concat {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Vec<Fact>> {
        let n = cx.n_inputs();
        cx.arity(1, usize::MAX)?;
        let first = cx.input(0)?;
        let axis = first.shape.axis(self.axis)?;
        let mut shape = first.shape.clone();
        let mut known = first.as_dims();
        for i in 1..n {
            let x = cx.input(i)?;
            ensure!(x.dtype == first.dtype, InvalidArgument, "input {i} is {}, input 0 {}", x.dtype, first.dtype);
            cx.rank(i, shape.rank())?;
            for k in 0..shape.rank() {
                let (a, b) = (&shape[k], &x.shape[k]);
                if k == axis {
                    shape.0[k] = a + b;
                    continue;
                }
                match (a.as_const(), b.as_const()) {
                    (Some(p), Some(q)) => ensure!(
                        p == q,
                        InvalidArgument,
                        "input {i} of shape {} does not fit input 0 of shape {} outside of axis {axis}",
                        x.shape,
                        first.shape
                    ),
                    (None, Some(q)) => shape.0[k] = Dim::from(q),
                    _ => {}
                }
            }
            known = match (known, x.as_dims()) {
                (Some(mut a), Some(b)) => {
                    a.extend(b);
                    Some(a)
                }
                _ => None,
            };
        }
        // Only of vectors are the joined elements those of one input after the other.
        let known = known.filter(|_| shape.rank() == 1);
        Ok(vec![with_known(Fact::new(first.dtype, shape), known)])
    }

    fn half(&self, n_inputs: usize) -> Option<(HalfRole, Vec<usize>)> {
        Some((HalfRole::Follows, (0..n_inputs).collect()))
    }

    fn eval(&self, cx: &EvalCx<'_>) -> Result<Vec<Tensor>> {
        let mut out = cx.output(0)?;
        let axis = crate::base::dims::normalize_axis(self.axis, out.rank())?;
        let outer: usize = out.shape()[..axis].iter().product();
        let row = |t: &Tensor| t.shape()[axis..].iter().product::<usize>() * t.dtype().size();
        let out_row = row(&out);
        let mut at = 0;
        for i in 0..cx.inputs.len() {
            let x = cx.input(i)?;
            let len = row(x);
            for r in 0..outer {
                let to = r * out_row + at;
                out.bytes_mut()[to..to + len].copy_from_slice(&x.bytes()[r * len..(r + 1) * len]);
            }
            at += len;
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

fn add(cx: &mut ImportCx<'_>, axis: i64) -> Result<Vec<ValueId>> {
    let inputs = (0..cx.inputs.len()).map(|i| cx.input(i)).collect::<Result<Vec<_>>>()?;
    Ok(vec![cx.add(Concat { axis }, &inputs)?])
}

fn import_1(cx: &mut ImportCx<'_>) -> Result<Vec<ValueId>> {
    let axis = cx.int("axis", 1)?;
    add(cx, axis)
}

fn import(cx: &mut ImportCx<'_>) -> Result<Vec<ValueId>> {
    match cx.attrs.int("axis")? {
        Some(axis) => add(cx, axis),
        None => crate::bail!(InvalidArgument, "attribute axis is missing"),
    }
}
