//! Batched matrix product `alpha * op(a) op(b)` with numpy broadcasting of batch dimensions and an epilogue. Inputs: a, b, optional bias [n], then the epilogue's further operands.

use crate::ops::pointwise::Program;
use crate::base::{Fact, Result, Tensor};
use crate::ops::{EvalCx, InferCx, OpDef};
use crate::{bail, op_home, op_struct};

op_struct! {
    /// Batched matrix product `alpha * op(a) op(b)` with numpy broadcasting of batch dimensions and an epilogue. Inputs: a, b, optional bias [n], then the epilogue's further operands.
    pub struct MatMul {
        pub trans_a: bool,
        pub trans_b: bool,
        pub alpha: f32,
        pub epilogue: Option<Program>,
    }
}

op_home!(MatMul, "MatMul", &[]);

impl OpDef for MatMul {
    fn infer(&self, _cx: &InferCx<'_>) -> Result<Vec<Fact>> {
        bail!(Unsupported, "being written")
    }
    fn eval(&self, _cx: &EvalCx<'_>) -> Result<Vec<Tensor>> {
        bail!(Unsupported, "being written")
    }
}
