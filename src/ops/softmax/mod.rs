//! Softmax or its logarithm along one axis. Input: x of a floating-point type, rank at least 1.
//!
//! `flatten` is the form before opset 13: all axes from `axis` on are one. A row of nothing but -inf gives NaN.

mod cpu;
mod cuda;
mod loss;

use crate::base::{Fact, Result, Tensor};
use crate::network::ValueId;
use crate::device::DeviceProps;
use crate::ops::{HalfRole, CpuStep, EvalCx, ImportCx, InferCx, OpDef, PackCache, Problem, StepProgram, Tactic, TacticOptions, OnnxOp, onnx};
use crate::{ensure, op_home, op_struct};

op_struct! {
    /// Softmax or its logarithm along one axis; `flatten` is the form before opset 13, over all axes from `axis` on.
    pub struct Softmax {
        pub axis: i64,
        pub log: bool,
        pub flatten: bool,
    }
}

op_home!(
    Softmax,
    "Softmax",
    &[
        onnx("Softmax", 1, import_1),
        onnx("Softmax", 13, import_13),
        onnx("LogSoftmax", 1, import_1),
        onnx("LogSoftmax", 13, import_13),
        onnx("NegativeLogLikelihoodLoss", 12, loss::negative_log_likelihood),
        onnx("SoftmaxCrossEntropyLoss", 12, loss::softmax_cross_entropy),
        OnnxOp { domain: "com.microsoft", name: "BiasSoftmax", since: 1, import: bias_softmax },
    ]
);

impl Softmax {
    /// The input as [outer, length, inner]: element (o, i, k) stands at `(o * length + i) * inner + k`.
    pub fn extents(&self, dims: &[usize]) -> Result<(usize, usize, usize)> {
        let axis = self.axis(dims.len())?;
        let outer = dims[..axis].iter().product();
        Ok(match self.flatten {
            true => (outer, dims[axis..].iter().product(), 1),
            false => (outer, dims[axis], dims[axis + 1..].iter().product()),
        })
    }

    fn axis(&self, rank: usize) -> Result<usize> {
        // The flattening form allows axis == rank: rows of one element.
        if self.flatten && self.axis == rank as i64 {
            return Ok(rank);
        }
        crate::base::dims::normalize_axis(self.axis, rank)
    }
}

impl OpDef for Softmax {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Vec<Fact>> {
        cx.arity(1, 1)?;
        cx.float(0)?;
        let x = cx.input(0)?;
        ensure!(x.rank() >= 1, InvalidArgument, "softmax of a scalar has no axis");
        self.axis(x.rank())?;
        Ok(vec![Fact::new(x.dtype, x.shape.clone())])
    }

    fn half(&self, _n_inputs: usize) -> Option<(HalfRole, Vec<usize>)> {
        Some((HalfRole::Follows, vec![0]))
    }

    fn eval(&self, cx: &EvalCx<'_>) -> Result<Vec<Tensor>> {
        let x = cx.input(0)?;
        let (outer, length, inner) = self.extents(x.shape())?;
        let v = x.to_f64s();
        let mut out = vec![0.0f64; v.len()];
        for o in 0..outer {
            for k in 0..inner {
                let at = |i: usize| (o * length + i) * inner + k;
                let max = (0..length).map(|i| v[at(i)]).fold(f64::NEG_INFINITY, f64::max);
                let sum: f64 = (0..length).map(|i| (v[at(i)] - max).exp()).sum();
                for i in 0..length {
                    let shifted = v[at(i)] - max;
                    out[at(i)] = if self.log { shifted - sum.ln() } else { shifted.exp() / sum };
                }
            }
        }
        Ok(vec![Tensor::from_slice(x.shape(), &out).cast(x.dtype())])
    }

    fn flops(&self, p: &Problem) -> f64 {
        5.0 * p.outputs[0].numel() as f64
    }

    fn cpu(&self, p: &Problem, _pack: &dyn PackCache) -> Result<Option<Box<dyn CpuStep>>> {
        cpu::step(self, p)
    }

    fn cuda_tactics(&self, p: &Problem, dev: &DeviceProps, opt: &TacticOptions) -> Vec<Tactic> {
        cuda::tactics(self, p, dev, opt)
    }

    fn cuda_program(&self, tactic: &Tactic, p: &Problem, _dev: &DeviceProps) -> Result<StepProgram> {
        cuda::program(self, tactic, p)
    }
}

fn import_1(cx: &mut ImportCx<'_>) -> Result<Vec<ValueId>> {
    let x = cx.input(0)?;
    let rank = cx.shape(x).rank() as i64;
    let axis = cx.int("axis", 1)?;
    // Along the last axis both forms are the same.
    let flatten = axis != -1 && axis != rank - 1;
    let log = cx.op_type == "LogSoftmax";
    Ok(vec![cx.add(Softmax { axis, log, flatten }, &[x])?])
}

fn import_13(cx: &mut ImportCx<'_>) -> Result<Vec<ValueId>> {
    let x = cx.input(0)?;
    let axis = cx.int("axis", -1)?;
    let log = cx.op_type == "LogSoftmax";
    Ok(vec![cx.add(Softmax { axis, log, flatten: false }, &[x])?])
}

/// BiasSoftmax of com.microsoft: softmax of x + bias over all axes from `axis` on. How the bias repeats is in its shape.
fn bias_softmax(cx: &mut ImportCx<'_>) -> Result<Vec<ValueId>> {
    let (x, bias) = (cx.input(0)?, cx.input(1)?);
    let axis = cx.int("axis", 1)?;
    cx.int("is_inner_broadcast", 0)?;
    let sum = crate::ops::compose::binary(cx, crate::ops::pointwise::Func::Add, x, bias)?;
    ensure!(cx.shape(sum).rank() == cx.shape(x).rank(), InvalidArgument, "the bias does not repeat to x");
    Ok(vec![cx.add(Softmax { axis, log: false, flatten: true }, &[sum])?])
}
