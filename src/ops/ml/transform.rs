//! `post_transform`: what happens to the scores of a row in the end.

use super::{attrs, call, pointwise};
use crate::base::{Attrs, Result};
use crate::err;
use crate::network::ValueId;
use crate::ops::ImportCx;
use crate::ops::pointwise::Func;

/// How scores are transformed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transform {
    None,
    Softmax,
    Logistic,
    /// Softmax that leaves scores of zero at zero (NaN where all are).
    SoftmaxZero,
    /// The inverse of the normal distribution.
    Probit,
}

impl Transform {
    /// Reads the attribute as a string.
    pub fn from_attr(cx: &ImportCx<'_>) -> Result<Transform> {
        let name = cx.string("post_transform", "NONE")?;
        Ok(match name.as_str() {
            "NONE" => Transform::None,
            "SOFTMAX" => Transform::Softmax,
            "LOGISTIC" => Transform::Logistic,
            "SOFTMAX_ZERO" => Transform::SoftmaxZero,
            "PROBIT" => Transform::Probit,
            _ => return Err(err!(Unsupported, "post_transform {name:?} is not known")),
        })
    }

    /// Transforms each row. A single score is no distribution: only the probit applies to it.
    pub fn apply(self, cx: &mut ImportCx<'_>, scores: ValueId) -> Result<ValueId> {
        let is_single = cx.shape(scores)[1].is(1);
        match self {
            Transform::Probit => probit(cx, scores),
            _ if is_single => Ok(scores),
            Transform::None => Ok(scores),
            Transform::Softmax => cx.call1("Softmax", 13, &attrs(&[("axis", 1)]), &[scores]),
            Transform::Logistic => call(cx, "Sigmoid", &[scores]),
            Transform::SoftmaxZero => softmax_zero(cx, scores),
        }
    }
}

/// Maximum or sum of each row, as [rows, 1].
fn reduce(cx: &mut ImportCx<'_>, op: &str, v: ValueId) -> Result<ValueId> {
    let mut a = Attrs::new();
    a.set("axes", &vec![1i64]);
    a.set("keepdims", &1i64);
    cx.call1(op, 11, &a, &[v])
}

fn softmax_zero(cx: &mut ImportCx<'_>, scores: ValueId) -> Result<ValueId> {
    let dtype = cx.fact(scores).dtype;
    let max = reduce(cx, "ReduceMax", scores)?;
    // What counts: e^(score - max), and nothing for a score of zero.
    let parts = pointwise(cx, &[scores, max], |p| {
        let (tiny, zero) = (p.push_const(1e-7, dtype)?, p.push_const(0.0, dtype)?);
        let size = p.push(Func::Abs, &[0])?;
        let counts = p.push(Func::Greater, &[size, tiny])?;
        let shifted = p.push(Func::Sub, &[0, 1])?;
        let e = p.push(Func::Exp, &[shifted])?;
        p.push(Func::Select, &[counts, e, zero])
    })?;
    let sum = reduce(cx, "ReduceSum", parts)?;
    call(cx, "Div", &[parts, sum])
}

/// sqrt(2) erf^-1(2 p - 1), with the approximation of Winitzki that ONNX Runtime has.
fn probit(cx: &mut ImportCx<'_>, scores: ValueId) -> Result<ValueId> {
    let dtype = cx.fact(scores).dtype;
    pointwise(cx, &[scores], |p| {
        let mut number = |v: f64| p.push_const(v, dtype);
        let (zero, one, two) = (number(0.0)?, number(1.0)?, number(2.0)?);
        let (sqrt_2, minus) = (number(std::f64::consts::SQRT_2)?, number(-1.0)?);
        // Its numbers, pi to five places included.
        let (a, half, b) = (number(2.0 / (3.14159 * 0.147))?, number(0.5)?, number(1.0 / 0.147)?);
        let twice = p.push(Func::Mul, &[0, two])?;
        let x = p.push(Func::Sub, &[twice, one])?;
        let (below, above) = (p.push(Func::Sub, &[one, x])?, p.push(Func::Add, &[one, x])?);
        let product = p.push(Func::Mul, &[below, above])?;
        let log = p.push(Func::Log, &[product])?;
        let half_log = p.push(Func::Mul, &[half, log])?;
        let v = p.push(Func::Add, &[a, half_log])?;
        let v2 = p.push(Func::Mul, &[b, log])?;
        let square = p.push(Func::Mul, &[v, v])?;
        let inside = p.push(Func::Sub, &[square, v2])?;
        let root = p.push(Func::Sqrt, &[inside])?;
        let v3 = p.push(Func::Sub, &[root, v])?;
        let size = p.push(Func::Sqrt, &[v3])?;
        let negative = p.push(Func::Less, &[x, zero])?;
        let sign = p.push(Func::Select, &[negative, minus, one])?;
        let signed = p.push(Func::Mul, &[sign, size])?;
        p.push(Func::Mul, &[signed, sqrt_2])
    })
}
