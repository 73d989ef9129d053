//! Import of TreeEnsembleClassifier. What the operator's text leaves open for two classes follows ONNX Runtime: with
//! weights for one class only, the sum decides between the first label and the second.

use super::builder::RawTrees;
use super::onnx::{add, numbers, read, rows};
use super::*;
use crate::network::ValueId;
use crate::ops::ImportCx;
use crate::ops::ml::{self, Transform};
use std::collections::BTreeSet;

/// What the weights say before anything runs.
struct Weights {
    /// Classes that some leaf has a weight for.
    classes: BTreeSet<i64>,
    all_positive: bool,
}

fn weights(raw: &RawTrees) -> Weights {
    let all = || raw.leaves.iter().flatten();
    Weights { classes: all().map(|w| w.0).collect(), all_positive: all().all(|w| w.1 >= 0.0) }
}

pub(super) fn import(cx: &mut ImportCx<'_>) -> Result<Vec<ValueId>> {
    let labels = ml::labels(cx, "classlabels_int64s")?;
    let raw = read(cx, "class")?;
    let transform = Transform::from_attr(cx)?;
    let base = numbers(cx, "base_values")?.unwrap_or_default();
    let n = labels.len();
    let known = weights(&raw);
    let fits = base.is_empty() || base.len() == n || (n == 2 && base.len() == 1);
    ensure!(fits, InvalidArgument, "{} base values for {n} classes", base.len());
    let x = rows(cx)?;
    let raw = add(cx, x, raw, n as i64, TreeAggregate::Sum)?;
    let raw = ml::cast(cx, raw, DType::F32)?;
    match n {
        1 => {
            let sum = if base.is_empty() { raw } else { ml::add_row(cx, raw, &base)? };
            let y = ml::threshold_labels(cx, sum, 0.0, [0, 1])?;
            // A single score is no distribution: only the element-wise probit applies.
            let z = if transform == Transform::Probit { transform.apply(cx, sum)? } else { sum };
            Ok(vec![y, z])
        }
        2 => binary(cx, raw, &known, &base, [labels[0], labels[1]], transform),
        _ => {
            let scores = if base.is_empty() { raw } else { ml::add_row(cx, raw, &base)? };
            // A class without any score cannot win.
            let mut ranked = scores;
            if base.is_empty() && !known.classes.is_empty() && known.classes.len() < n {
                let floor: Vec<f64> =
                    (0..n as i64).map(|c| if known.classes.contains(&c) { 0.0 } else { f64::NEG_INFINITY }).collect();
                ranked = ml::add_row(cx, scores, &floor)?;
            }
            Ok(vec![ml::best_labels(cx, ranked, &labels)?, transform.apply(cx, scores)?])
        }
    }
}

/// Two classes: `raw` holds both sums.
fn binary(
    cx: &mut ImportCx<'_>,
    raw: ValueId,
    known: &Weights,
    base: &[f64],
    labels: [i64; 2],
    transform: Transform,
) -> Result<Vec<ValueId>> {
    let one_class = known.classes.len() <= 1;
    let threshold = if one_class && known.all_positive { 0.5 } else { 0.0 };
    let (first, second) = (ml::column(cx, raw, 0)?, ml::column(cx, raw, 1)?);
    if !known.classes.contains(&1) {
        // All weights count for the first class, and their sum is the score of the second.
        let sum = if base.is_empty() { first } else { ml::add_row(cx, first, &base[..1])? };
        let y = ml::threshold_labels(cx, sum, threshold, labels)?;
        if base.len() == 2 {
            let scores = ml::join(cx, &[sum, second])?;
            return Ok(vec![y, transform.apply(cx, scores)?]);
        }
        return Ok(vec![y, ml::complement(cx, sum, known.all_positive, transform)?]);
    }
    let (first, second) = match base {
        [] => (first, second),
        [b] if !one_class => (ml::add_row(cx, first, &[*b])?, second),
        [_] => (first, second),
        [_, b, ..] => {
            let second = ml::add_row(cx, first, &[*b])?;
            (if one_class { first } else { ml::call(cx, "Neg", &[second])? }, second)
        }
    };
    let y = ml::threshold_labels(cx, second, threshold, labels)?;
    let scores = ml::join(cx, &[first, second])?;
    Ok(vec![y, transform.apply(cx, scores)?])
}
