//! The shape of x as i64 vector, from `start` to `end`; with `size` the number of elements as a scalar.

use crate::base::{Fact, Result, Tensor};
use crate::ops::{EvalCx, InferCx, OpDef};
use crate::{bail, op_home, op_struct};

op_struct! {
    /// The shape of x as i64 vector, from `start` to `end`; with `size` the number of elements as a scalar.
    pub struct Shape {
        pub start: i64,
        pub end: Option<i64>,
        pub size: bool,
    }
}

op_home!(Shape, "Shape", &[]);

impl OpDef for Shape {
    fn infer(&self, _cx: &InferCx<'_>) -> Result<Vec<Fact>> {
        bail!(Unsupported, "being written")
    }
    fn eval(&self, _cx: &EvalCx<'_>) -> Result<Vec<Tensor>> {
        bail!(Unsupported, "being written")
    }
}
