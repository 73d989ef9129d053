//! The same elements under another shape: Reshape, Squeeze, Unsqueeze, Flatten, Identity. Inputs: x, optional shape or axes (host).

use crate::base::{Fact, Result, Tensor};
use crate::ops::{EvalCx, InferCx, OpDef};
use crate::{attr_enum, bail, op_home, op_struct};

attr_enum! {
    /// How `spec` (or input 1) is read.
    pub enum ReshapeMode { Shape = "shape", Squeeze = "squeeze", Unsqueeze = "unsqueeze", Flatten = "flatten", Identity = "identity" }
}

op_struct! {
    /// The same elements under another shape: Reshape, Squeeze, Unsqueeze, Flatten, Identity. Inputs: x, optional shape or axes (host).
    pub struct Reshape {
        pub mode: ReshapeMode,
        pub spec: Option<Vec<i64>>,
        pub allow_zero: bool,
    }
}

op_home!(Reshape, "Reshape", &[]);

impl OpDef for Reshape {
    fn infer(&self, _cx: &InferCx<'_>) -> Result<Vec<Fact>> {
        bail!(Unsupported, "being written")
    }
    fn eval(&self, _cx: &EvalCx<'_>) -> Result<Vec<Tensor>> {
        bail!(Unsupported, "being written")
    }
}
