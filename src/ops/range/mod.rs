//! The numbers `start`, `start + delta`, .. before `limit`. Inputs: start, limit, delta (one element each, host).

mod cuda;

use crate::base::{Dim, Fact, Result, Tensor};
use crate::network::ValueId;
use crate::ops::shape::{MAX_KNOWN, with_known};
use crate::device::DeviceProps;
use crate::ops::{
    EvalCx, ImportCx, InferCx, OnnxOp, OpDef, Problem, StepProgram, Tactic, TacticOptions, fresh_dim, onnx,
};
use crate::{ensure, op_home, op_struct};

op_struct! {
    /// The numbers from start to before limit. Inputs: start, limit, delta (all host).
    pub struct Range {
    }
}

op_home!(
    Range,
    "Range",
    &[onnx("Range", 11, import), OnnxOp { domain: "com.microsoft", name: "Range", since: 1, import: import_ms }]
);

/// How many numbers there are.
fn count(start: f64, limit: f64, delta: f64) -> Result<i64> {
    ensure!(delta != 0.0, InvalidArgument, "the step of a range is 0");
    let n = ((limit - start) / delta).ceil().max(0.0);
    ensure!(n < 2f64.powi(40), InvalidArgument, "a range from {start} to {limit} by {delta} is too long");
    Ok(n as i64)
}

impl OpDef for Range {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Vec<Fact>> {
        cx.arity(3, 3)?;
        let x = cx.input(0)?;
        for i in 0..3 {
            let f = cx.input(i)?;
            ensure!(
                f.dtype == x.dtype && f.shape.numel().as_const().is_none_or(|n| n == 1),
                InvalidArgument,
                "input {i}: expected one {} element, got {f}",
                x.dtype
            );
        }
        if let (Some(a), Some(b), Some(c)) =
            (cx.input(0)?.as_const(), cx.input(1)?.as_const(), cx.input(2)?.as_const())
        {
            let v = [a, b, c].map(|t| t.to_f64s()[0]);
            let n = count(v[0], v[1], v[2])?;
            let known = if x.dtype.is_int() && n <= MAX_KNOWN as i64 {
                let (start, delta) = (a.to_i64s()[0], c.to_i64s()[0]);
                Some((0..n).map(|i| Dim::from(start.wrapping_add(i.wrapping_mul(delta)))).collect())
            } else {
                None
            };
            return Ok(vec![with_known(Fact::new(x.dtype, [n]), known)]);
        }
        let len = match (cx.dims(0)?.as_deref(), cx.dims(1)?.as_deref(), cx.dims(2)?.as_deref()) {
            (Some([start]), Some([limit]), Some([delta])) => match delta.as_const() {
                // A range that comes from arithmetic on shapes is taken to be not empty.
                Some(1) => limit - start,
                Some(d) if d > 1 => (limit - start).ceil_div(d),
                Some(0) => crate::bail!(InvalidArgument, "the step of a range is 0"),
                _ => fresh_dim("range"),
            },
            _ => fresh_dim("range"),
        };
        // With all three known as numbers the elements are known as well.
        let known = match (cx.ints(0)?.as_deref(), len.as_const(), cx.ints(2)?.as_deref()) {
            (Some([start]), Some(n), Some([delta])) if (0..=MAX_KNOWN as i64).contains(&n) => {
                Some((0..n).map(|i| Dim::from(start.wrapping_add(i.wrapping_mul(*delta)))).collect())
            }
            _ => None,
        };
        let len = match len.as_const() {
            Some(n) => Dim::from(n.max(0)),
            None => len,
        };
        Ok(vec![with_known(Fact::new(x.dtype, vec![len]), known)])
    }

    fn eval(&self, cx: &EvalCx<'_>) -> Result<Vec<Tensor>> {
        let (start, delta) = (cx.input(0)?, cx.input(2)?);
        let n = cx.output(0)?.numel();
        Ok(vec![if start.dtype().is_float() {
            let (s, d) = (start.to_f64s()[0], delta.to_f64s()[0]);
            let v: Vec<f64> = (0..n).map(|i| s + i as f64 * d).collect();
            Tensor::from_slice(&[n], &v).cast(start.dtype())
        } else {
            let (s, d) = (start.to_i64s()[0], delta.to_i64s()[0]);
            let v: Vec<i64> = (0..n as i64).map(|i| s.wrapping_add(i.wrapping_mul(d))).collect();
            Tensor::from_slice(&[n], &v).cast(start.dtype())
        }])
    }

    fn host_inputs(&self) -> Vec<usize> {
        vec![0, 1, 2]
    }

    fn cuda_tactics(&self, p: &Problem, _dev: &DeviceProps, _opt: &TacticOptions) -> Vec<Tactic> {
        cuda::tactics(p)
    }

    fn cuda_program(&self, _tactic: &Tactic, p: &Problem, dev: &DeviceProps) -> Result<StepProgram> {
        cuda::program(p, dev)
    }
}

fn import(cx: &mut ImportCx<'_>) -> Result<Vec<ValueId>> {
    let inputs = [cx.input(0)?, cx.input(1)?, cx.input(2)?];
    Ok(vec![cx.add(Range {}, &inputs)?])
}

/// The form of com.microsoft, where the step may be left out.
fn import_ms(cx: &mut ImportCx<'_>) -> Result<Vec<ValueId>> {
    let (start, limit) = (cx.input(0)?, cx.input(1)?);
    let delta = match cx.opt(2) {
        Some(v) => v,
        None => {
            let dtype = cx.fact(start).dtype;
            cx.constant(Tensor::scalar(1i64).cast(dtype))
        }
    };
    Ok(vec![cx.add(Range {}, &[start, limit, delta])?])
}
