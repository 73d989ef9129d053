//! Broadcasts to a shape. Inputs: x, shape (host).

use crate::base::{Fact, Result, Tensor};
use crate::ops::{EvalCx, InferCx, OpDef};
use crate::{bail, op_home, op_struct};

op_struct! {
    /// Broadcasts to a shape. Inputs: x, shape (host).
    pub struct Expand {
    }
}

op_home!(Expand, "Expand", &[]);

impl OpDef for Expand {
    fn infer(&self, _cx: &InferCx<'_>) -> Result<Vec<Fact>> {
        bail!(Unsupported, "being written")
    }
    fn eval(&self, _cx: &EvalCx<'_>) -> Result<Vec<Tensor>> {
        bail!(Unsupported, "being written")
    }
}
