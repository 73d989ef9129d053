//! N-D convolution with an epilogue. Inputs: x [n,c,spatial..], w [m,c/group,kernel..], optional bias [m], then the epilogue's further operands.

use crate::ops::pointwise::Program;
use crate::ops::window::AutoPad;
use crate::base::{Fact, Result, Tensor};
use crate::ops::{EvalCx, InferCx, OpDef};
use crate::{bail, op_home, op_struct};

op_struct! {
    /// N-D convolution with an epilogue. Inputs: x [n,c,spatial..], w [m,c/group,kernel..], optional bias [m], then the epilogue's further operands.
    pub struct Conv {
        pub strides: Vec<i64>,
        pub pads: Vec<i64>,
        pub dilations: Vec<i64>,
        pub group: i64,
        pub auto_pad: AutoPad,
        pub epilogue: Option<Program>,
    }
}

op_home!(Conv, "Conv", &[]);

impl OpDef for Conv {
    fn infer(&self, _cx: &InferCx<'_>) -> Result<Vec<Fact>> {
        bail!(Unsupported, "being written")
    }
    fn eval(&self, _cx: &EvalCx<'_>) -> Result<Vec<Tensor>> {
        bail!(Unsupported, "being written")
    }
}
