//! Ranges along axes. Inputs: x, starts, ends, optional axes, optional steps (all host).

use crate::base::{Fact, Result, Tensor};
use crate::ops::{EvalCx, InferCx, OpDef};
use crate::{bail, op_home, op_struct};

op_struct! {
    /// Ranges along axes. Inputs: x, starts, ends, optional axes, optional steps (all host).
    pub struct Slice {
    }
}

op_home!(Slice, "Slice", &[]);

impl OpDef for Slice {
    fn infer(&self, _cx: &InferCx<'_>) -> Result<Vec<Fact>> {
        bail!(Unsupported, "being written")
    }
    fn eval(&self, _cx: &EvalCx<'_>) -> Result<Vec<Tensor>> {
        bail!(Unsupported, "being written")
    }
}
