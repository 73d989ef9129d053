//! N-D transposed convolution. Inputs: x [n,c,spatial..], w [c,m/group,kernel..], optional bias [m], then the epilogue's further operands.

use crate::ops::pointwise::Program;
use crate::ops::window::AutoPad;
use crate::base::{Fact, Result, Tensor};
use crate::ops::{EvalCx, InferCx, OpDef};
use crate::{bail, op_home, op_struct};

op_struct! {
    /// N-D transposed convolution. Inputs: x [n,c,spatial..], w [c,m/group,kernel..], optional bias [m], then the epilogue's further operands.
    pub struct ConvTranspose {
        pub strides: Vec<i64>,
        pub pads: Vec<i64>,
        pub dilations: Vec<i64>,
        pub group: i64,
        pub auto_pad: AutoPad,
        pub output_padding: Vec<i64>,
        pub output_shape: Option<Vec<i64>>,
        pub epilogue: Option<Program>,
    }
}

op_home!(ConvTranspose, "ConvTranspose", &[]);

impl OpDef for ConvTranspose {
    fn infer(&self, _cx: &InferCx<'_>) -> Result<Vec<Fact>> {
        bail!(Unsupported, "being written")
    }
    fn eval(&self, _cx: &EvalCx<'_>) -> Result<Vec<Tensor>> {
        bail!(Unsupported, "being written")
    }
}
