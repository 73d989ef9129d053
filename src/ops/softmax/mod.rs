//! Softmax or its logarithm along one axis; `flatten` is the form before opset 13, over all axes from `axis` on.

use crate::base::{Fact, Result, Tensor};
use crate::ops::{EvalCx, InferCx, OpDef};
use crate::{bail, op_home, op_struct};

op_struct! {
    /// Softmax or its logarithm along one axis; `flatten` is the form before opset 13, over all axes from `axis` on.
    pub struct Softmax {
        pub axis: i64,
        pub log: bool,
        pub flatten: bool,
    }
}

op_home!(Softmax, "Softmax", &[]);

impl OpDef for Softmax {
    fn infer(&self, _cx: &InferCx<'_>) -> Result<Vec<Fact>> {
        bail!(Unsupported, "being written")
    }
    fn eval(&self, _cx: &EvalCx<'_>) -> Result<Vec<Tensor>> {
        bail!(Unsupported, "being written")
    }
}
