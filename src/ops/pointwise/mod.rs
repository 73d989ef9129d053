//! Element-wise computation with numpy broadcasting: every element-wise operator of ONNX, alone or fused.

mod func;
mod program;

pub use func::Func;
pub use program::{Instr, Program, Reg};

use crate::base::{Fact, Result, Tensor};
use crate::ops::{EvalCx, InferCx, OpDef};
use crate::{bail, op_home, op_struct};

op_struct! {
    /// One program applied to each element of its broadcast inputs; as many outputs as the program has.
    pub struct Pointwise {
        pub program: Program,
    }
}

op_home!(Pointwise, "Pointwise", &[]);

impl OpDef for Pointwise {
    fn infer(&self, _cx: &InferCx<'_>) -> Result<Vec<Fact>> {
        bail!(Unsupported, "being written")
    }
    fn eval(&self, _cx: &EvalCx<'_>) -> Result<Vec<Tensor>> {
        bail!(Unsupported, "being written")
    }
}
