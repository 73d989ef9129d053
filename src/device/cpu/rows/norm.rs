//! Normalization of contiguous rows: layer, root-mean-square, instance and group normalization.

use super::super::multiversion::{fma, multiversion};
use super::super::{Isa, SharedMut, for_each_task};
use super::{LANES, TASK_ELEMENTS, fold, sum_of};

/// `y = (v - mean) / sqrt(variance + epsilon) * scale + bias` for each row of `v = x + skip + skip_bias`.
///
/// The variance is that of the deviations (two passes); without `is_centered` the mean counts as 0. Column `c` of row `r` has
/// element `r % period * step + c / run` of scale and bias. `skip` is as long as x, `skip_bias` as a row.
#[derive(Clone, Copy, Debug)]
pub struct NormRows<'a> {
    pub rows: usize,
    pub cols: usize,
    pub period: usize,
    pub step: usize,
    pub run: usize,
    pub scale: Option<&'a [f32]>,
    pub bias: Option<&'a [f32]>,
    pub skip: Option<&'a [f32]>,
    pub skip_bias: Option<&'a [f32]>,
    pub epsilon: f32,
    pub is_centered: bool,
}

/// Normalizes all rows; `stats` get the mean and the inverse deviation of each row, `sum` what was normalized.
///
/// # Panics
/// If a length does not agree.
pub(crate) fn norm_rows(
    norm: &NormRows<'_>,
    x: &[f32],
    y: SharedMut<f32>,
    stats: Option<(SharedMut<f32>, SharedMut<f32>)>,
    sum: Option<SharedMut<f32>>,
) {
    run(Isa::detect(), norm, x, y, stats, sum);
}

fn run(
    isa: Isa,
    norm: &NormRows<'_>,
    x: &[f32],
    y: SharedMut<f32>,
    stats: Option<(SharedMut<f32>, SharedMut<f32>)>,
    sum: Option<SharedMut<f32>>,
) {
    let (rows, cols) = (norm.rows, norm.cols);
    assert_eq!(x.len(), rows * cols, "{rows} rows of {cols}");
    let per_task = (TASK_ELEMENTS / cols.max(1)).clamp(1, rows.max(1));
    for_each_task(rows.div_ceil(per_task), |task| {
        for r in task * per_task..((task + 1) * per_task).min(rows) {
            // SAFETY: each row belongs to one task.
            let y = unsafe { y.slice(r * cols, cols) };
            let (mean, factor) = norm_row(isa, norm, r, &x[r * cols..(r + 1) * cols], y, sum);
            if let Some((means, factors)) = &stats {
                // SAFETY: as above.
                unsafe {
                    means.slice(r, 1)[0] = mean;
                    factors.slice(r, 1)[0] = factor;
                }
            }
        }
    });
}

multiversion! {
    fn norm_row = norm_row_body(norm: &NormRows<'_>, r: usize, x: &[f32], y: &mut [f32], sum: Option<SharedMut<f32>>) -> (f32, f32);
}

/// Mean and inverse deviation.
#[inline(always)]
fn statistics<const FMA: bool>(x: &[f32], epsilon: f32, is_centered: bool) -> (f32, f32) {
    let n = x.len() as f64;
    let mean = if is_centered { (sum_of!(x, |a, v| a + v) / n) as f32 } else { 0.0 };
    let squares = sum_of!(x, |a, v| fma::<FMA>(v - mean, v - mean, a));
    (mean, (1.0 / (squares / n + epsilon as f64).sqrt()) as f32)
}

#[inline(always)]
fn norm_row_body<const FMA: bool>(
    norm: &NormRows<'_>,
    r: usize,
    x: &[f32],
    y: &mut [f32],
    sum: Option<SharedMut<f32>>,
) -> (f32, f32) {
    let in_place = norm.skip.is_some() || norm.skip_bias.is_some() || sum.is_some();
    if in_place {
        y.copy_from_slice(x);
        if let Some(skip) = norm.skip {
            y.iter_mut().zip(&skip[r * x.len()..][..x.len()]).for_each(|(y, s)| *y += s);
        }
        if let Some(bias) = norm.skip_bias {
            y.iter_mut().zip(&bias[..x.len()]).for_each(|(y, b)| *y += b);
        }
        if let Some(sum) = sum {
            // SAFETY: each row belongs to one task.
            unsafe { sum.slice(r * x.len(), x.len()) }.copy_from_slice(y);
        }
    }
    let (mean, factor) = statistics::<FMA>(if in_place { y } else { x }, norm.epsilon, norm.is_centered);
    let source = |from: usize, len: usize| (!in_place).then(|| &x[from..from + len]);
    let first = r % norm.period * norm.step;
    if norm.run == 1 {
        let scale = norm.scale.map(|p| &p[first..first + x.len()]);
        let bias = norm.bias.map(|p| &p[first..first + x.len()]);
        match (scale, bias) {
            (Some(scale), Some(bias)) => {
                map(y, source(0, x.len()), |i, v| fma::<FMA>((v - mean) * factor, scale[i], bias[i]));
            }
            (Some(scale), None) => map(y, source(0, x.len()), |i, v| (v - mean) * factor * scale[i]),
            (None, Some(bias)) => map(y, source(0, x.len()), |i, v| fma::<FMA>(v - mean, factor, bias[i])),
            (None, None) => map(y, source(0, x.len()), |_, v| (v - mean) * factor),
        }
        return (mean, factor);
    }
    for (k, from) in (0..x.len()).step_by(norm.run).enumerate() {
        let len = norm.run.min(x.len() - from);
        let a = factor * norm.scale.map_or(1.0, |s| s[first + k]);
        let b = norm.bias.map_or(0.0, |b| b[first + k]);
        map(&mut y[from..from + len], source(from, len), |_, v| fma::<FMA>(v - mean, a, b));
    }
    (mean, factor)
}

/// `y[i] = f(i, x[i])`, or of y itself.
#[inline(always)]
fn map<F: Fn(usize, f32) -> f32>(y: &mut [f32], x: Option<&[f32]>, f: F) {
    match x {
        Some(x) => y.iter_mut().zip(x).enumerate().for_each(|(i, (y, x))| *y = f(i, *x)),
        None => y.iter_mut().enumerate().for_each(|(i, y)| *y = f(i, *y)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A mean, a variance and three roundings, relative to values of about 1.
    const NORM_TOLERANCE: f64 = 2e-6;

    #[test]
    fn rows_agree_with_f64() {
        for (rows, cols, period, step, run) in
            [(1, 1, 1, 0, 1), (3, 7, 1, 0, 1), (50, 768, 1, 0, 1), (2, 4099, 1, 0, 1), (6, 35, 3, 1, 35), (4, 33, 2, 3, 11)]
        {
            let x: Vec<f32> = (0..rows * cols).map(|i| ((i * 7919) % 1013) as f32 / 200.0 + 3.0).collect();
            let skip: Vec<f32> = (0..rows * cols).map(|i| ((i * 31) % 17) as f32 / 9.0).collect();
            let n = if run == 1 { cols } else { period * step.max(1) };
            let scale: Vec<f32> = (0..n).map(|i| 0.5 + (i % 5) as f32 * 0.2).collect();
            let bias: Vec<f32> = (0..n).map(|i| (i % 3) as f32 - 1.0).collect();
            for isa in Isa::available() {
                for (bias, skip, is_centered) in
                    [(Some(&bias[..]), None, true), (None, Some(&skip[..]), true), (None, None, false)]
                {
                    let mut y = vec![f32::NAN; x.len()];
                    let scale = Some(&scale[..]);
                    let norm = NormRows {
                        rows, cols, period, step, run, scale, bias, skip, skip_bias: None, epsilon: 1e-5, is_centered,
                    };
                    super::run(isa, &norm, &x, SharedMut::new(&mut y), None, None);
                    for r in 0..rows {
                        let at = |c: usize| (x[r * cols + c] + skip.map_or(0.0, |s| s[r * cols + c])) as f64;
                        let mean = (0..cols).map(at).sum::<f64>() / cols as f64;
                        let mean = if is_centered { mean } else { 0.0 };
                        let variance = (0..cols).map(|c| (at(c) - mean).powi(2)).sum::<f64>() / cols as f64;
                        for c in 0..cols {
                            let p = r % period * step + c / run;
                            let normal = (at(c) - mean) / (variance + 1e-5f32 as f64).sqrt();
                            let want = normal * scale.unwrap()[p] as f64 + bias.map_or(0.0, |b| b[p] as f64);
                            let got = y[r * cols + c] as f64;
                            assert!((got - want).abs() <= NORM_TOLERANCE * (1.0 + want.abs()), "{rows}x{cols} {isa:?} {r} {c}");
                        }
                    }
                }
            }
        }
    }
}
