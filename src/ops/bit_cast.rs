//! The same bits under another element type of the same size. Input: x.
//!
//! The result is x's memory. Types under 8 bits have a byte for each element, so only those with the same form may be
//! exchanged: `u4` and `f4e2m1`. The importer converts between the others.

use crate::base::{DType, Fact, Result, Tensor};
use crate::ops::{EvalCx, InferCx, OpDef};
use crate::{ensure, op_home, op_struct};

op_struct! {
    /// The same bits under another element type. Inputs: x.
    pub struct BitCast {
        pub to: DType,
    }
}

op_home!(BitCast, "BitCast", &[]);

impl OpDef for BitCast {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Vec<Fact>> {
        cx.arity(1, 1)?;
        let x = cx.input(0)?;
        let is_code = |d: DType| matches!(d, DType::U4 | DType::F4E2M1);
        let (from, to) = (x.dtype, self.to);
        let same_form = from.bits() == to.bits() && (from.bits() >= 8 || is_code(from) && is_code(to));
        ensure!(same_form && to != DType::Bool, InvalidArgument, "the bits of {from} are not taken as {to}");
        Ok(vec![Fact::new(to, x.shape.clone())])
    }

    fn eval(&self, cx: &EvalCx<'_>) -> Result<Vec<Tensor>> {
        let x = cx.input(0)?;
        Ok(vec![Tensor::from_bytes(self.to, x.shape(), x.bytes())?])
    }

    fn is_view(&self) -> bool {
        true
    }

    fn in_place(&self, i: usize) -> bool {
        i == 0
    }
}
