//! Normalization of contiguous rows: layer normalization and root-mean-square normalization.

use super::super::multiversion::{fma, multiversion};
use super::super::{Isa, SharedMut, for_each_task};
use super::{LANES, TASK_ELEMENTS, fold, sum_of};

/// `y = (x - mean) / sqrt(variance + epsilon) * scale + bias` for each row of `cols` values.
///
/// `scale` has `cols` values, `bias` too when given. The variance is that of the deviations (two passes).
///
/// # Panics
/// If a length does not agree.
pub fn layer_norm(x: &[f32], cols: usize, scale: &[f32], bias: Option<&[f32]>, epsilon: f32, y: &mut [f32]) {
    run(Isa::detect(), x, &Norm { cols, scale, bias, epsilon, is_centered: true }, y);
}

/// `y = x / sqrt(mean of squares + epsilon) * scale` for each row of `cols` values.
///
/// # Panics
/// If a length does not agree.
pub fn rms_norm(x: &[f32], cols: usize, scale: &[f32], epsilon: f32, y: &mut [f32]) {
    run(Isa::detect(), x, &Norm { cols, scale, bias: None, epsilon, is_centered: false }, y);
}

struct Norm<'a> {
    cols: usize,
    scale: &'a [f32],
    bias: Option<&'a [f32]>,
    epsilon: f32,
    is_centered: bool,
}

fn run(isa: Isa, x: &[f32], norm: &Norm, y: &mut [f32]) {
    let cols = norm.cols;
    assert!(norm.scale.len() == cols && norm.bias.is_none_or(|b| b.len() == cols), "scale or bias is not of {cols} values");
    assert!(x.len() == y.len() && (cols == 0 || x.len().is_multiple_of(cols)), "rows of {cols}: {} values", x.len());
    if x.is_empty() {
        return;
    }
    let n_rows = x.len() / cols;
    let rows = (TASK_ELEMENTS / cols).clamp(1, n_rows);
    let y = SharedMut::new(y);
    for_each_task(n_rows.div_ceil(rows), |task| {
        let (start, end) = (task * rows * cols, ((task + 1) * rows).min(n_rows) * cols);
        // SAFETY: each task has rows of its own.
        norm_rows(isa, &x[start..end], norm, unsafe { y.slice(start, end - start) });
    });
}

multiversion! {
    fn norm_rows = norm_rows_body(x: &[f32], norm: &Norm, y: &mut [f32]);
}

#[inline(always)]
fn norm_rows_body<const FMA: bool>(x: &[f32], norm: &Norm, y: &mut [f32]) {
    let n = norm.cols as f64;
    for (x, y) in x.chunks_exact(norm.cols).zip(y.chunks_exact_mut(norm.cols)) {
        let mean = if norm.is_centered { (sum_of!(x, |a, v| a + v) / n) as f32 } else { 0.0 };
        let squares = sum_of!(x, |a, v| fma::<FMA>(v - mean, v - mean, a));
        let factor = (1.0 / (squares / n + norm.epsilon as f64).sqrt()) as f32;
        match norm.bias {
            Some(bias) => {
                for (((y, x), scale), bias) in y.iter_mut().zip(x).zip(norm.scale).zip(bias) {
                    *y = fma::<FMA>((*x - mean) * factor, *scale, *bias);
                }
            }
            None => {
                for ((y, x), scale) in y.iter_mut().zip(x).zip(norm.scale) {
                    *y = (*x - mean) * factor * *scale;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A mean, a variance and three roundings, relative to values of about 1.
    const NORM_TOLERANCE: f64 = 2e-6;

    #[test]
    fn rows_agree_with_f64() {
        for (rows, cols) in [(1, 1), (3, 7), (50, 768), (2, 4099)] {
            let x: Vec<f32> = (0..rows * cols).map(|i| ((i * 7919) % 1013) as f32 / 200.0 + 3.0).collect();
            let scale: Vec<f32> = (0..cols).map(|i| 0.5 + (i % 5) as f32 * 0.2).collect();
            let bias: Vec<f32> = (0..cols).map(|i| (i % 3) as f32 - 1.0).collect();
            for isa in Isa::available() {
                for (bias, is_centered) in [(Some(&bias[..]), true), (None, true), (None, false)] {
                    let mut y = vec![f32::NAN; x.len()];
                    run(isa, &x, &Norm { cols, scale: &scale, bias, epsilon: 1e-5, is_centered }, &mut y);
                    for (x, y) in x.chunks(cols).zip(y.chunks(cols)) {
                        let mean = x.iter().map(|v| *v as f64).sum::<f64>() / cols as f64;
                        let mean = if is_centered { mean } else { 0.0 };
                        let variance = x.iter().map(|v| (*v as f64 - mean).powi(2)).sum::<f64>() / cols as f64;
                        for i in 0..cols {
                            let normal = (x[i] as f64 - mean) / (variance + 1e-5f32 as f64).sqrt();
                            let want = normal * scale[i] as f64 + bias.map_or(0.0, |b| b[i] as f64);
                            assert!((y[i] as f64 - want).abs() <= NORM_TOLERANCE * (1.0 + want.abs()), "{rows}x{cols} {isa:?} {i}");
                        }
                    }
                }
            }
        }
    }
}
