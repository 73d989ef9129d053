//! Reduction over axes. Inputs: x, optional axes (host).

use crate::base::{Fact, Result, Tensor};
use crate::ops::{EvalCx, InferCx, OpDef};
use crate::{attr_enum, bail, op_home, op_struct};

attr_enum! {
    /// What a reduction computes.
    pub enum ReduceKind { Sum = "sum", Mean = "mean", Max = "max", Min = "min", Prod = "prod", SumSquare = "sum_square", L1 = "l1", L2 = "l2", LogSum = "log_sum", LogSumExp = "log_sum_exp", ArgMax = "arg_max", ArgMin = "arg_min" }
}

op_struct! {
    /// Reduction over axes. Inputs: x, optional axes (host).
    pub struct Reduce {
        pub kind: ReduceKind,
        pub axes: Option<Vec<i64>>,
        pub keepdims: bool,
        pub noop_with_empty_axes: bool,
        pub select_last_index: bool,
    }
}

op_home!(Reduce, "Reduce", &[]);

impl OpDef for Reduce {
    fn infer(&self, _cx: &InferCx<'_>) -> Result<Vec<Fact>> {
        bail!(Unsupported, "being written")
    }
    fn eval(&self, _cx: &EvalCx<'_>) -> Result<Vec<Tensor>> {
        bail!(Unsupported, "being written")
    }
}
