//! The shape of x as a vector of i64, from `start` to `end`; with `size` the number of elements as a scalar.
//!
//! Reads no element of x. Its result is known symbolically while building, which is where shape arithmetic starts.

use crate::base::{DType, Dim, Fact, Result, Tensor};
use crate::network::ValueId;
use crate::ops::{EvalCx, ImportCx, InferCx, OpDef, onnx};
use crate::{op_home, op_struct};

op_struct! {
    /// The shape of x as i64 vector, from `start` to `end`; with `size` the number of elements as a scalar.
    pub struct Shape {
        pub start: i64,
        pub end: Option<i64>,
        pub size: bool,
    }
}

op_home!(Shape, "Shape", &[onnx("Shape", 1, import_shape), onnx("Size", 1, import_size)]);

/// The most elements that shape arithmetic follows symbolically.
pub const MAX_KNOWN: usize = 4096;

/// The fact with its elements, where it is an integer value (i32 or i64) of as many elements; as it was otherwise.
pub fn with_known(fact: Fact, elements: Option<Vec<Dim>>) -> Fact {
    match elements {
        Some(d)
            if matches!(fact.dtype, DType::I32 | DType::I64)
                && d.len() <= MAX_KNOWN
                && fact.shape.numel() == Dim::from(d.len()) =>
        {
            fact.with_dims(d)
        }
        _ => fact,
    }
}

impl Shape {
    /// First and last (exclusive) axis that is reported; both are clamped as ONNX has it.
    pub(crate) fn range(&self, rank: usize) -> (usize, usize) {
        let r = rank as i64;
        let clamp = |v: i64| (if v < 0 { v.saturating_add(r) } else { v }).clamp(0, r) as usize;
        let (start, end) = (clamp(self.start), clamp(self.end.unwrap_or(r)));
        (start, end.max(start))
    }
}

impl OpDef for Shape {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Vec<Fact>> {
        cx.arity(1, 1)?;
        let x = cx.input(0)?;
        if self.size {
            return Ok(vec![Fact::of_dims([], vec![x.shape.numel()])]);
        }
        let (start, end) = self.range(x.rank());
        Ok(vec![Fact::of_dims([(end - start) as i64], x.shape[start..end].to_vec())])
    }

    fn eval(&self, cx: &EvalCx<'_>) -> Result<Vec<Tensor>> {
        let x = cx.input(0)?;
        if self.size {
            return Ok(vec![Tensor::scalar(x.numel() as i64)]);
        }
        let (start, end) = self.range(x.rank());
        let dims: Vec<i64> = x.shape()[start..end].iter().map(|d| *d as i64).collect();
        Ok(vec![Tensor::from_slice(&[dims.len()], &dims)])
    }
}

fn import_shape(cx: &mut ImportCx<'_>) -> Result<Vec<ValueId>> {
    let x = cx.input(0)?;
    let start = cx.int("start", 0)?;
    let end = cx.attrs.int("end")?;
    Ok(vec![cx.add(Shape { start, end, size: false }, &[x])?])
}

fn import_size(cx: &mut ImportCx<'_>) -> Result<Vec<ValueId>> {
    let x = cx.input(0)?;
    Ok(vec![cx.add(Shape { start: 0, end: None, size: true }, &[x])?])
}
