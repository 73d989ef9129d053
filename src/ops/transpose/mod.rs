//! Permutes axes: output axis i is input axis perm[i].

use crate::base::{Fact, Result, Tensor};
use crate::ops::{EvalCx, InferCx, OpDef};
use crate::{bail, op_home, op_struct};

op_struct! {
    /// Permutes axes: output axis i is input axis perm[i].
    pub struct Transpose {
        pub perm: Vec<i64>,
    }
}

op_home!(Transpose, "Transpose", &[]);

impl OpDef for Transpose {
    fn infer(&self, _cx: &InferCx<'_>) -> Result<Vec<Fact>> {
        bail!(Unsupported, "being written")
    }
    fn eval(&self, _cx: &EvalCx<'_>) -> Result<Vec<Tensor>> {
        bail!(Unsupported, "being written")
    }
}
