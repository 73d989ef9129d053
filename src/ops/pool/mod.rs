//! Max, average or Lp pooling over windows. Inputs: x [n,c,spatial..].

use crate::ops::window::AutoPad;
use crate::base::{Fact, Result, Tensor};
use crate::ops::{EvalCx, InferCx, OpDef};
use crate::{attr_enum, bail, op_home, op_struct};

attr_enum! {
    /// What a window gives.
    pub enum PoolKind { Max = "max", Average = "average", Lp = "lp" }
}

op_struct! {
    /// Max, average or Lp pooling over windows. Inputs: x [n,c,spatial..].
    pub struct Pool {
        pub kind: PoolKind,
        pub kernel: Vec<i64>,
        pub strides: Vec<i64>,
        pub pads: Vec<i64>,
        pub dilations: Vec<i64>,
        pub auto_pad: AutoPad,
        pub ceil_mode: bool,
        pub count_include_pad: bool,
        pub p: i64,
        pub indices: bool,
        pub storage_order: i64,
    }
}

op_home!(Pool, "Pool", &[]);

impl OpDef for Pool {
    fn infer(&self, _cx: &InferCx<'_>) -> Result<Vec<Fact>> {
        bail!(Unsupported, "being written")
    }
    fn eval(&self, _cx: &EvalCx<'_>) -> Result<Vec<Tensor>> {
        bail!(Unsupported, "being written")
    }
}
