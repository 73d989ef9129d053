//! Picks along one axis by index. Inputs: x of any type, indices (i32 or i64) of any rank.
//!
//! The output has x's shape with the axis replaced by the shape of the indices. A negative index counts from the end.
//! An index out of range is an error on the host; devices clamp it, since they cannot report.

mod cpu;
mod cuda;
mod onnx;

use crate::base::{DType, Fact, Result, Shape, Tensor};
use crate::ops::shape::with_known;
use crate::device::DeviceProps;
use crate::ops::{HalfRole, CpuStep, EvalCx, InferCx, OpDef, PackCache, Problem, StepProgram, Tactic, TacticOptions};
use crate::{ensure, op_home, op_struct};

op_struct! {
    /// Picks along one axis by index. Inputs: x, indices.
    pub struct Gather {
        pub axis: i64,
    }
}

op_home!(Gather, "Gather", onnx::TABLE);

/// The index in `[0, size)` that `index` in `[-size, size)` stands for.
pub fn resolve(index: i64, size: usize) -> Result<usize> {
    let n = size as i64;
    ensure!((-n..n).contains(&index), InvalidArgument, "index {index} is outside [{}, {n})", -n);
    Ok((if index < 0 { index + n } else { index }) as usize)
}

impl OpDef for Gather {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Vec<Fact>> {
        cx.arity(2, 2)?;
        let (x, indices) = (cx.input(0)?, cx.input(1)?);
        ensure!(
            matches!(indices.dtype, DType::I32 | DType::I64),
            InvalidArgument,
            "indices must be i32 or i64, got {}",
            indices.dtype
        );
        let axis = x.shape.axis(self.axis)?;
        let mut shape = x.shape[..axis].to_vec();
        shape.extend_from_slice(&indices.shape);
        shape.extend_from_slice(&x.shape[axis + 1..]);
        let known = match (x.as_dims(), cx.ints(1)?) {
            (Some(d), Some(at)) if x.rank() == 1 => {
                let picked = at.iter().map(|i| resolve(*i, d.len()).map(|i| d[i].clone()));
                Some(picked.collect::<Result<Vec<_>>>()?)
            }
            _ => None,
        };
        Ok(vec![with_known(Fact::new(x.dtype, Shape(shape)), known)])
    }

    fn half(&self, _n_inputs: usize) -> Option<(HalfRole, Vec<usize>)> {
        Some((HalfRole::Follows, vec![0]))
    }

    fn eval(&self, cx: &EvalCx<'_>) -> Result<Vec<Tensor>> {
        let (x, indices) = (cx.input(0)?, cx.ints(1)?);
        let mut out = cx.output(0)?;
        let axis = crate::base::dims::normalize_axis(self.axis, x.rank())?;
        let outer: usize = x.shape()[..axis].iter().product();
        let size = x.shape()[axis];
        let row = x.shape()[axis + 1..].iter().product::<usize>() * x.dtype().size();
        let indices = indices.into_iter().map(|i| resolve(i, size)).collect::<Result<Vec<_>>>()?;
        let dst = out.bytes_mut();
        for o in 0..outer {
            for (k, i) in indices.iter().enumerate() {
                let (to, from) = ((o * indices.len() + k) * row, (o * size + i) * row);
                dst[to..to + row].copy_from_slice(&x.bytes()[from..from + row]);
            }
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
