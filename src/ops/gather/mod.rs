//! Picks along one axis by index. Inputs: x, indices.

use crate::base::{Fact, Result, Tensor};
use crate::ops::{EvalCx, InferCx, OpDef};
use crate::{bail, op_home, op_struct};

op_struct! {
    /// Picks along one axis by index. Inputs: x, indices.
    pub struct Gather {
        pub axis: i64,
    }
}

op_home!(Gather, "Gather", &[]);

impl OpDef for Gather {
    fn infer(&self, _cx: &InferCx<'_>) -> Result<Vec<Fact>> {
        bail!(Unsupported, "being written")
    }
    fn eval(&self, _cx: &EvalCx<'_>) -> Result<Vec<Tensor>> {
        bail!(Unsupported, "being written")
    }
}
