//! SVMRegressor and SVMClassifier: the kernel matrix is a home of its own, the rest are products and votes.

use super::linear::scores;
use super::*;
use crate::ops::svm_kernel::{SvmFunction, SvmKernel};
use crate::ops::svm_probability::SvmProbability;

fn floats(cx: &ImportCx<'_>, name: &str) -> Result<Vec<f32>> {
    Ok(cx.attrs.floats(name)?.unwrap_or_default())
}

/// The kernel as the attributes say.
fn kernel(cx: &ImportCx<'_>) -> Result<SvmKernel> {
    let name = cx.string("kernel_type", "LINEAR")?;
    let Some(function) = SvmFunction::from_name(&name.to_lowercase()) else {
        bail!(Unsupported, "kernel_type {name:?} is not known")
    };
    let params = floats(cx, "kernel_params")?;
    let at = |i: usize| params.get(i).copied().unwrap_or(0.0);
    let used = function != SvmFunction::Linear;
    ensure!(!used || params.len() >= 3, InvalidArgument, "kernel_params: expected gamma, coef0 and degree, got {params:?}");
    Ok(SvmKernel { function, gamma: at(0), coef0: at(1), degree: at(2) })
}

/// The kernel of each row and each support vector.
fn kernel_matrix(cx: &mut ImportCx<'_>, x: ValueId, vectors: &[f32], n: usize) -> Result<ValueId> {
    let op = kernel(cx)?;
    ensure!(n > 0 && vectors.len() % n == 0, InvalidArgument, "{} numbers for {n} support vectors", vectors.len());
    let vectors = cx.constant(Tensor::from_slice(&[n, vectors.len() / n], vectors));
    cx.add(op, &[x, vectors])
}

pub(super) fn regressor(cx: &mut ImportCx<'_>) -> Result<Vec<ValueId>> {
    let n = cx.int("n_supports", 0)?;
    ensure!((0..=1 << 30).contains(&n), InvalidArgument, "n_supports is {n}");
    let one_class = cx.int("one_class", 0)? != 0;
    let (coefficients, rho, vectors) = (floats(cx, "coefficients")?, floats(cx, "rho")?, floats(cx, "support_vectors")?);
    ensure!(!rho.is_empty(), InvalidArgument, "attribute rho is missing");
    let transform = Transform::from_attr(cx)?;
    let x = f32_rows(cx)?;
    let y = if n > 0 {
        let k = kernel_matrix(cx, x, &vectors, n as usize)?;
        scores(cx, k, &coefficients, 1, &rho[..1])?
    } else {
        kernel(cx)?;
        scores(cx, x, &coefficients, 1, &rho[..1])?
    };
    let y = if one_class {
        pointwise(cx, &[y], |p| {
            let (zero, one, minus) = (p.push_const(0.0, DType::F32)?, p.push_const(1.0, DType::F32)?, p.push_const(-1.0, DType::F32)?);
            let inside = p.push(Func::Greater, &[0, zero])?;
            p.push(Func::Select, &[inside, one, minus])
        })?
    } else {
        y
    };
    Ok(vec![transform.apply(cx, y)?])
}

/// Every pair of classes, in the order of the decisions.
fn pairs(n: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..n).flat_map(move |i| (i + 1..n).map(move |j| (i, j)))
}

/// The decision between each pair of classes, positive for the first: [rows, pairs].
fn decisions(cx: &mut ImportCx<'_>, x: ValueId, per_class: &[i64]) -> Result<ValueId> {
    let n = per_class.len();
    let mut first = vec![0usize];
    for v in per_class {
        let last = first[first.len() - 1];
        let next = usize::try_from(*v).ok().and_then(|v| last.checked_add(v));
        let Some(next) = next else { bail!(InvalidArgument, "vectors_per_class: {v}") };
        first.push(next);
    }
    let n_vectors = first[n];
    let (coefficients, rho, vectors) = (floats(cx, "coefficients")?, floats(cx, "rho")?, floats(cx, "support_vectors")?);
    let n_pairs = n * (n - 1) / 2;
    let fits = (n - 1).checked_mul(n_vectors) == Some(coefficients.len());
    ensure!(fits, InvalidArgument, "{} coefficients for {n} classes and {n_vectors} support vectors", coefficients.len());
    ensure!(rho.len() == n_pairs, InvalidArgument, "{} numbers in rho for {n_pairs} pairs of classes", rho.len());
    let size = n_pairs.checked_mul(n_vectors).filter(|s| *s <= 1 << 28);
    let Some(size) = size else { bail!(Unsupported, "{n_pairs} pairs of classes with {n_vectors} support vectors") };
    // One column for each pair: the coefficients of the one class against the other, and the other way round.
    let mut weights = vec![0f32; size];
    for (p, (i, j)) in pairs(n).enumerate() {
        for v in first[i]..first[i + 1] {
            weights[p * n_vectors + v] = coefficients[(j - 1) * n_vectors + v];
        }
        for v in first[j]..first[j + 1] {
            weights[p * n_vectors + v] = coefficients[i * n_vectors + v];
        }
    }
    let k = kernel_matrix(cx, x, &vectors, n_vectors)?;
    scores(cx, k, &weights, n_pairs, &rho)
}

/// The class that most decisions are for, the first of equal ones.
fn winner(cx: &mut ImportCx<'_>, decisions: ValueId, labels: &[i64]) -> Result<ValueId> {
    let n = labels.len();
    let n_pairs = n * (n - 1) / 2;
    let wins = pointwise(cx, &[decisions], |p| {
        let zero = p.push_const(0.0, DType::F32)?;
        let first = p.push(Func::Greater, &[0, zero])?;
        p.push_cast(first, DType::F32)
    })?;
    // A vote for i where the decision holds, one for j where not: w (e_i - e_j) + e_j.
    let (mut table, mut base) = (vec![0.0; n_pairs * n], vec![0.0; n]);
    for (p, (i, j)) in pairs(n).enumerate() {
        table[p * n + i] = 1.0;
        table[p * n + j] = -1.0;
        base[j] += 1.0;
    }
    let table = constant(cx, DType::F32, &[n_pairs, n], &table);
    let votes = call(cx, "MatMul", &[wins, table])?;
    let votes = add_row(cx, votes, &base)?;
    best_labels(cx, votes, labels)
}

pub(super) fn classifier(cx: &mut ImportCx<'_>) -> Result<Vec<ValueId>> {
    let labels = labels(cx, "classlabels_ints")?;
    let n = labels.len();
    let per_class = cx.ints("vectors_per_class")?.unwrap_or_default();
    let (a, b) = (floats(cx, "prob_a")?, floats(cx, "prob_b")?);
    let transform = Transform::from_attr(cx)?;
    let x = f32_rows(cx)?;
    if per_class.is_empty() {
        return linear(cx, x, &labels, transform);
    }
    ensure!(per_class.len() == n && n >= 2, InvalidArgument, "vectors of {} classes for {n} labels", per_class.len());
    ensure!(n <= 4096, Unsupported, "{n} classes");
    let d = decisions(cx, x, &per_class)?;
    let best = match labels.as_slice() {
        [first, second] => threshold_labels(cx, d, 0.0, [*second, *first])?,
        labels => winner(cx, d, labels)?,
    };
    let n_pairs = n * (n - 1) / 2;
    if !a.is_empty() {
        let fits = a.len() == n_pairs && b.len() == n_pairs;
        ensure!(fits, InvalidArgument, "{} and {} numbers of probabilities for {n_pairs} pairs", a.len(), b.len());
        let a = cx.constant(Tensor::from_slice(&[n_pairs], &a));
        let b = cx.constant(Tensor::from_slice(&[n_pairs], &b));
        let p = cx.add(SvmProbability { n_classes: n }, &[d, a, b])?;
        return Ok(vec![best, transform.apply(cx, p)?]);
    }
    if n == 2 {
        let one_minus = !matches!(transform, Transform::None | Transform::Logistic);
        return Ok(vec![best, complement(cx, d, one_minus, transform)?]);
    }
    Ok(vec![best, transform.apply(cx, d)?])
}

/// Without support vectors: a score for each class, of which the largest wins.
fn linear(cx: &mut ImportCx<'_>, x: ValueId, labels: &[i64], transform: Transform) -> Result<Vec<ValueId>> {
    kernel(cx)?;
    let (coefficients, rho) = (floats(cx, "coefficients")?, floats(cx, "rho")?);
    ensure!(!rho.is_empty(), InvalidArgument, "attribute rho is missing");
    let y = scores(cx, x, &coefficients, labels.len(), &rho[..1])?;
    Ok(vec![best_labels(cx, y, labels)?, transform.apply(cx, y)?])
}
