//! Coordinates of the elements that are not zero, in row-major order, as [rank, count] of i64. Input: x of any type.
//!
//! The count depends on the data. A scalar counts as a vector of one element.

pub(crate) mod cuda;
mod onnx;

use crate::base::tensor::Number;
use crate::base::{DType, Dim, Fact, Result, Tensor};
use crate::device::DeviceProps;
use crate::ops::{EvalCx, InferCx, OpDef, Problem, StepProgram, Tactic, TacticOptions, fresh_dim};
use crate::{ensure, op_home, op_struct};

op_struct! {
    /// Coordinates of the elements that are not zero. Inputs: x.
    pub struct NonZero {
    }
}

op_home!(NonZero, "NonZero", onnx::TABLE);

impl OpDef for NonZero {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Vec<Fact>> {
        cx.arity(1, 1)?;
        let x = cx.input(0)?;
        let plain = x.dtype.is_float() || x.dtype.is_int() || x.dtype == DType::Bool;
        ensure!(plain, Unsupported, "non-zero elements of {} are not supported", x.dtype);
        Ok(vec![Fact::new(DType::I64, vec![Dim::from(x.rank().max(1)), fresh_dim("nonzero")])])
    }

    fn eval(&self, cx: &EvalCx<'_>) -> Result<Vec<Tensor>> {
        use crate::base::tensor::Scalar;
        let x = cx.input(0)?;
        let mut found: Vec<usize> = Vec::new();
        crate::dispatch!(x.dtype(), T => for (i, v) in x.slice::<T>().iter().enumerate() {
            let zero = match v.to_number() {
                Number::Float(v) => v == 0.0,
                Number::Int(v) => v == 0,
                Number::Uint(v) => v == 0,
            };
            if !zero {
                found.push(i);
            }
        });
        let dims = if x.rank() == 0 { vec![1] } else { x.shape().to_vec() };
        let mut out = vec![0i64; dims.len() * found.len()];
        for (k, i) in found.iter().enumerate() {
            let mut at = *i;
            for d in (0..dims.len()).rev() {
                out[d * found.len() + k] = (at % dims[d]) as i64;
                at /= dims[d];
            }
        }
        Ok(vec![Tensor::from_slice(&[dims.len(), found.len()], &out)])
    }

    fn is_data_dependent(&self) -> bool {
        true
    }

    fn count_program(&self, tactic: &Tactic, p: &Problem, dev: &DeviceProps) -> Result<StepProgram> {
        cuda::count_program(tactic, p, dev)
    }

    fn counted_shapes(&self, p: &Problem, counts: &[i64]) -> Result<Vec<Vec<usize>>> {
        let rank = p.input(0).map_or(0, |x| x.dims.len()).max(1);
        Ok(vec![vec![rank, counts.first().map_or(0, |n| *n as usize)]])
    }

    fn cuda_tactics(&self, p: &Problem, _dev: &DeviceProps, _opt: &TacticOptions) -> Vec<Tactic> {
        cuda::tactics(p)
    }

    fn cuda_program(&self, tactic: &Tactic, p: &Problem, dev: &DeviceProps) -> Result<StepProgram> {
        cuda::program(tactic, p, dev)
    }
}
