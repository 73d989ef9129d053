//! A tensor of one repeated value. Inputs: shape (host).

use crate::base::{Fact, Result, Tensor};
use crate::ops::{EvalCx, InferCx, OpDef};
use crate::{bail, op_home, op_struct};
use std::sync::Arc;

op_struct! {
    /// A tensor of one repeated value. Inputs: shape (host).
    pub struct Fill {
        pub value: Arc<Tensor>,
    }
}

op_home!(Fill, "Fill", &[]);

impl OpDef for Fill {
    fn infer(&self, _cx: &InferCx<'_>) -> Result<Vec<Fact>> {
        bail!(Unsupported, "being written")
    }
    fn eval(&self, _cx: &EvalCx<'_>) -> Result<Vec<Tensor>> {
        bail!(Unsupported, "being written")
    }
}
