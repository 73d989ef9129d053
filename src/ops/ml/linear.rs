//! LinearRegressor and LinearClassifier.

use super::*;

/// x W^T + b for coefficients [n, features].
pub(super) fn scores(cx: &mut ImportCx<'_>, x: ValueId, coefficients: &[f32], n: usize, bias: &[f32]) -> Result<ValueId> {
    ensure!(n > 0 && coefficients.len() % n == 0, InvalidArgument, "{} coefficients for {n} scores", coefficients.len());
    let features = coefficients.len() / n;
    let fits = n_features(cx, x).is_none_or(|f| f == features);
    ensure!(fits, InvalidArgument, "coefficients for {features} features, but x is {}", cx.shape(x));
    let mut transposed = vec![0f32; coefficients.len()];
    for (i, c) in coefficients.iter().enumerate() {
        transposed[i % features.max(1) * n + i / features.max(1)] = *c;
    }
    let w = cx.constant(Tensor::from_slice(&[features, n], &transposed));
    let y = call(cx, "MatMul", &[x, w])?;
    if bias.is_empty() {
        return Ok(y);
    }
    ensure!(bias.len() == n || bias.len() == 1, InvalidArgument, "{} intercepts for {n} scores", bias.len());
    let bias: Vec<f64> = bias.iter().map(|b| *b as f64).collect();
    add_row(cx, y, &bias)
}

fn floats(cx: &ImportCx<'_>, name: &str) -> Result<Vec<f32>> {
    Ok(cx.attrs.floats(name)?.unwrap_or_default())
}

pub(super) fn regressor(cx: &mut ImportCx<'_>) -> Result<Vec<ValueId>> {
    let n = cx.int("targets", 1)?;
    ensure!((1..=1 << 24).contains(&n), InvalidArgument, "targets is {n}");
    let (coefficients, intercepts) = (floats(cx, "coefficients")?, floats(cx, "intercepts")?);
    let transform = Transform::from_attr(cx)?;
    let x = f32_rows(cx)?;
    let y = scores(cx, x, &coefficients, n as usize, &intercepts)?;
    Ok(vec![transform.apply(cx, y)?])
}

pub(super) fn classifier(cx: &mut ImportCx<'_>) -> Result<Vec<ValueId>> {
    let labels = labels(cx, "classlabels_ints")?;
    // One against the rest or all at once: the scores are the same.
    cx.int("multi_class", 0)?;
    let (coefficients, intercepts) = (floats(cx, "coefficients")?, floats(cx, "intercepts")?);
    let transform = Transform::from_attr(cx)?;
    let x = f32_rows(cx)?;
    // The number of scores: what the intercepts say, else what x's width says.
    let n = match (intercepts.len(), n_features(cx, x)) {
        (0, Some(f)) if f > 0 => coefficients.len() / f,
        (0, _) => labels.len(),
        (n, _) => n,
    };
    let y = scores(cx, x, &coefficients, n, &intercepts)?;
    match (n, labels.as_slice()) {
        (1, [first, second]) => {
            let best = threshold_labels(cx, y, 0.0, [*first, *second])?;
            Ok(vec![best, complement(cx, y, true, transform)?])
        }
        (n, labels) if n == labels.len() && n > 1 => {
            let best = best_labels(cx, y, labels)?;
            Ok(vec![best, transform.apply(cx, y)?])
        }
        (n, labels) => bail!(InvalidArgument, "{n} scores for {} labels", labels.len()),
    }
}
