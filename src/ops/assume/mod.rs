//! Passes a value on as long as a condition holds. Inputs: x, condition (bool, one element, host).
//!
//! The importer puts it behind a branch that it chose because the other one would give a value of another rank: the
//! condition of such branches follows from shapes, so it is checked when shapes are set and costs nothing after.

use crate::base::{DType, Fact, Result, Tensor};
use crate::ops::branch::condition_of;
use crate::ops::{EvalCx, InferCx, OpDef};
use crate::{ensure, op_home, op_struct};

op_struct! {
    /// Passes x on while the condition is `holds`. Inputs: x, condition (host).
    pub struct Assume {
        pub holds: bool,
        /// What was chosen, for the error.
        pub what: String,
    }
}

op_home!(Assume, "Assume", &[]);

impl Assume {
    fn check(&self, condition: &Tensor) -> Result<()> {
        ensure!(
            condition_of(condition)? == self.holds,
            Unsupported,
            "{} is not possible: a result would have another rank than the one that the network was built for",
            self.what
        );
        Ok(())
    }
}

impl OpDef for Assume {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Vec<Fact>> {
        cx.arity(2, 2)?;
        let (x, c) = (cx.input(0)?, cx.input(1)?);
        ensure!(c.dtype == DType::Bool, InvalidArgument, "the condition is {c}, not bool");
        if let Some(t) = c.as_const() {
            self.check(t)?;
        }
        Ok(vec![x.clone()])
    }

    fn eval(&self, cx: &EvalCx<'_>) -> Result<Vec<Tensor>> {
        self.check(cx.input(1)?)?;
        Ok(vec![cx.input(0)?.clone()])
    }

    fn host_inputs(&self) -> Vec<usize> {
        vec![1]
    }

    fn is_view(&self) -> bool {
        true
    }
}
