//! Import of NegativeLogLikelihoodLoss and SoftmaxCrossEntropyLoss.
//!
//! The score of the target class is picked by comparing class numbers and adding: one pass over the scores, which the
//! softmax has read anyway. A target that is no class picks nothing; one that is `ignore_index` does so on purpose.

use super::Softmax;
use crate::base::{DType, Result};
use crate::network::ValueId;
use crate::ops::ImportCx;
use crate::ops::compose::{along, binary, cast, counting, may_equal, pointwise, reduce, squeeze, unsqueeze, wide};
use crate::ops::pointwise::Func;
use crate::ops::reduce::ReduceKind;
use crate::{bail, ensure};

pub(super) fn negative_log_likelihood(cx: &mut ImportCx<'_>) -> Result<Vec<ValueId>> {
    let x = cx.input(0)?;
    Ok(vec![loss(cx, x)?])
}

pub(super) fn softmax_cross_entropy(cx: &mut ImportCx<'_>) -> Result<Vec<ValueId>> {
    let x = cx.input(0)?;
    let log = cx.add(Softmax { axis: 1, log: true, flatten: false }, &[x])?;
    Ok(vec![loss(cx, log)?, log])
}

/// The loss for logarithms of probabilities [n, classes, ..], operand 1 the targets [n, ..], operand 2 weights [classes].
fn loss(cx: &mut ImportCx<'_>, x: ValueId) -> Result<ValueId> {
    let (target, weight) = (cx.input(1)?, cx.opt(2));
    let ignored = cx.attrs.int("ignore_index")?;
    let mean = match cx.string("reduction", "mean")?.as_str() {
        "none" => None,
        "sum" => Some(false),
        "mean" => Some(true),
        r => bail!(InvalidArgument, "attribute reduction: expected none, sum or mean, got {r:?}"),
    };
    let (xf, tf) = (cx.fact(x), cx.fact(target));
    ensure!(xf.rank() >= 2 && tf.rank() + 1 == xf.rank(), InvalidArgument, "targets {tf} do not belong to scores {xf}");
    ensure!(matches!(tf.dtype, DType::I32 | DType::I64), InvalidArgument, "targets must be i32 or i64, got {tf}");
    let places = std::iter::once(&xf.shape[0]).chain(&xf.shape[2..]);
    ensure!(
        places.zip(tf.shape.iter()).all(|(a, b)| may_equal(a, b)),
        InvalidArgument,
        "targets {tf} do not belong to scores {xf}"
    );
    let w = wide(xf.dtype);
    let class = counting(cx, x, 1)?;
    let class = along(cx, class, 1, xf.rank())?;
    let wanted = cast(cx, target, DType::I64)?;
    let wanted = unsqueeze(cx, wanted, &[1])?;
    let mut inputs = vec![x, class, wanted];
    if let Some(v) = weight {
        let f = cx.fact(v);
        ensure!(f.rank() == 1 && may_equal(&f.shape[0], &xf.shape[1]), InvalidArgument, "weights {f} for scores {xf}");
        let v = cast(cx, v, w)?;
        inputs.push(along(cx, v, 1, xf.rank())?);
    }
    let picks = |p: &mut crate::ops::pointwise::Program| {
        let is_class = p.push(Func::Equal, &[1, 2])?;
        let Some(i) = ignored else { return Ok(is_class) };
        let i = p.push_const(i as f64, DType::I64)?;
        let is_ignored = p.push(Func::Equal, &[2, i])?;
        let counts = p.push(Func::Not, &[is_ignored])?;
        p.push(Func::And, &[is_class, counts])
    };
    let picked = pointwise(cx, &inputs, |p| {
        let pick = picks(p)?;
        let mut v = p.push_cast(0, w)?;
        if inputs.len() == 4 {
            v = p.push(Func::Mul, &[v, 3])?;
        }
        let v = p.push(Func::Neg, &[v])?;
        let zero = p.push_const(0.0, w)?;
        p.push(Func::Select, &[pick, v, zero])
    })?;
    let each = reduce(cx, ReduceKind::Sum, picked, &[1], false)?;
    let Some(mean) = mean else { return cast(cx, each, xf.dtype) };
    let all: Vec<i64> = (0..tf.rank() as i64).collect();
    // Without weights that differ the mean is that of the elements themselves.
    if mean && weight.is_none() && ignored.is_none() {
        let y = reduce(cx, ReduceKind::Mean, each, &all, false)?;
        return cast(cx, y, xf.dtype);
    }
    let total = reduce(cx, ReduceKind::Sum, each, &all, false)?;
    if !mean {
        return cast(cx, total, xf.dtype);
    }
    let weights = match inputs.get(3).copied() {
        Some(weight) => {
            // The scores take no part, but give the place of the classes.
            let used = pointwise(cx, &[weight, class, wanted], |p| {
                let pick = picks(p)?;
                let zero = p.push_const(0.0, w)?;
                p.push(Func::Select, &[pick, 0, zero])
            })?;
            reduce(cx, ReduceKind::Sum, used, &[1], true)?
        }
        None => pointwise(cx, &[wanted], |p| {
            let i = p.push_const(ignored.unwrap_or(0) as f64, DType::I64)?;
            let is_ignored = p.push(Func::Equal, &[0, i])?;
            let counts = p.push(Func::Not, &[is_ignored])?;
            p.push_cast(counts, w)
        })?,
    };
    let weights = squeeze(cx, weights, &[1])?;
    let weights = reduce(cx, ReduceKind::Sum, weights, &all, false)?;
    let y = binary(cx, Func::Div, total, weights)?;
    cast(cx, y, xf.dtype)
}
