//! Joins along one axis.

use crate::base::{Fact, Result, Tensor};
use crate::ops::{EvalCx, InferCx, OpDef};
use crate::{bail, op_home, op_struct};

op_struct! {
    /// Joins along one axis.
    pub struct Concat {
        pub axis: i64,
    }
}

op_home!(Concat, "Concat", &[]);

impl OpDef for Concat {
    fn infer(&self, _cx: &InferCx<'_>) -> Result<Vec<Fact>> {
        bail!(Unsupported, "being written")
    }
    fn eval(&self, _cx: &EvalCx<'_>) -> Result<Vec<Tensor>> {
        bail!(Unsupported, "being written")
    }
}
