//! Epilogues: the scalar program that convolution and matrix product apply to each result while it is at hand.
//!
//! Input 0 of the program is the result (with bias), inputs 1.. are the node's further operands in order. Each further
//! operand broadcasts to the output's shape and never enlarges it. The program's only output is the node's output.

mod cpu;
pub mod cuda;

pub use cpu::{BoundEpilogue, CpuEpilogue};

use crate::base::error::ResultExt;
use crate::base::{DType, Fact, Result, Shape, Tensor};
use crate::ops::pointwise::{Pointwise, Program};
use crate::ops::{EvalCx, InferCx, OpDef};
use crate::{dispatch, ensure};

/// Checks the epilogue's operands, which start at input `first`, and gives the node's output.
pub fn infer(epilogue: Option<&Program>, cx: &InferCx<'_>, first: usize, result: Fact) -> Result<Vec<Fact>> {
    let n_extra = epilogue.map_or(0, |p| p.n_inputs().saturating_sub(1));
    cx.arity(2, first + n_extra)?;
    let Some(p) = epilogue else { return Ok(vec![result]) };
    p.check().with_context(|| "epilogue")?;
    ensure!(p.n_inputs() >= 1 && p.outputs.len() == 1, InvalidArgument, "an epilogue has the result as input 0 and one output");
    ensure!(
        p.inputs[0] == result.dtype,
        InvalidArgument,
        "the epilogue takes {} but the result is {}",
        p.inputs[0],
        result.dtype
    );
    for i in 0..n_extra {
        let f = cx.input(first + i).with_context(|| "epilogue operand")?;
        ensure!(
            f.dtype == p.inputs[1 + i],
            InvalidArgument,
            "input {}: the epilogue expects {}, got {}",
            first + i,
            p.inputs[1 + i],
            f.dtype
        );
        ensure!(
            broadcasts_to(&f.shape, &result.shape),
            InvalidArgument,
            "input {}: shape {} does not broadcast to the result's {}",
            first + i,
            f.shape,
            result.shape
        );
    }
    Ok(vec![Fact::new(p.output_dtype(0), result.shape)])
}

/// True unless the shape is known not to broadcast to `to`.
fn broadcasts_to(shape: &Shape, to: &Shape) -> bool {
    shape.rank() <= to.rank()
        && shape.iter().rev().zip(to.iter().rev()).all(|(a, b)| match (a.as_const(), b.as_const()) {
            (Some(a), Some(b)) => a == b || a == 1,
            _ => true,
        })
}

/// Rounds the result once, to its own type.
pub fn round_to(dtype: DType, shape: &[usize], values: &[f64]) -> Tensor {
    let mut out = Tensor::zeros(dtype, shape);
    dispatch!(dtype, T => {
        for (d, v) in out.slice_mut::<T>().iter_mut().zip(values) {
            *d = crate::base::tensor::convert::<f64, T>(*v);
        }
    });
    out
}

/// Applies the epilogue to a result (bias added already).
pub fn eval(epilogue: Option<&Program>, cx: &EvalCx<'_>, first: usize, result: Tensor) -> Result<Vec<Tensor>> {
    let Some(p) = epilogue else { return Ok(vec![result]) };
    let mut inputs = vec![Some(&result)];
    inputs.extend((1..p.n_inputs()).map(|i| cx.opt(first + i - 1)));
    let outputs = [Fact::new(p.output_dtype(0), result.shape())];
    Pointwise { program: p.clone() }.eval(&EvalCx { inputs: &inputs, outputs: &outputs })
}
