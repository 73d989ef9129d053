//! Softmax and its logarithm along one axis.
//!
//! A row whose maximum is -inf gives NaN, as the formula does. Sums of exponentials are taken in f32 blocks, joined in f64.

use super::super::multiversion::multiversion;
use super::super::vec::math;
use super::super::{Isa, SharedMut, for_each_task};
use super::{AxisShape, COLUMNS, LANES, TASK_ELEMENTS, fold, max_of, sum_of};

/// `y = exp(x - max) / sum exp(x - max)` along the axis.
///
/// # Panics
/// If a length does not agree with the shape.
pub fn softmax(shape: AxisShape, x: &[f32], y: &mut [f32]) {
    run(Isa::detect(), shape, false, x, y);
}

/// `y = x - max - log sum exp(x - max)` along the axis.
///
/// # Panics
/// If a length does not agree with the shape.
pub fn log_softmax(shape: AxisShape, x: &[f32], y: &mut [f32]) {
    run(Isa::detect(), shape, true, x, y);
}

fn run(isa: Isa, shape: AxisShape, is_log: bool, x: &[f32], y: &mut [f32]) {
    let AxisShape { outer, axis, inner } = shape;
    assert!(x.len() == shape.len() && y.len() == x.len(), "softmax of {shape:?}: lengths {} and {}", x.len(), y.len());
    if y.is_empty() {
        return;
    }
    let out = SharedMut::new(y);
    if inner == 1 {
        let rows = (TASK_ELEMENTS / 4 / axis).clamp(1, outer);
        for_each_task(outer.div_ceil(rows), |task| {
            let (start, end) = (task * rows * axis, ((task + 1) * rows).min(outer) * axis);
            // SAFETY: each task has rows of its own.
            softmax_rows(isa, &x[start..end], axis, is_log, unsafe { out.slice(start, end - start) });
        });
        return;
    }
    let groups = inner.div_ceil(COLUMNS);
    let per_task = (TASK_ELEMENTS / 4 / (axis * COLUMNS)).clamp(1, outer * groups);
    for_each_task((outer * groups).div_ceil(per_task), |task| {
        for unit in task * per_task..((task + 1) * per_task).min(outer * groups) {
            let (o, column) = (unit / groups, unit % groups * COLUMNS);
            let x = &x[o * axis * inner..(o + 1) * axis * inner];
            let columns = Columns { inner, column, n: COLUMNS.min(inner - column), start: o * axis * inner };
            softmax_columns(isa, x, &columns, is_log, out);
        }
    });
}

struct Columns {
    inner: usize,
    column: usize,
    n: usize,
    /// Where this block of rows starts in the output.
    start: usize,
}

impl Columns {
    /// Row `k` of the output.
    fn row<'a>(&self, out: &'a SharedMut<f32>, k: usize) -> &'a mut [f32] {
        // SAFETY: these columns belong to one task, which holds one row at a time.
        unsafe { out.slice(self.start + k * self.inner + self.column, self.n) }
    }
}

multiversion! {
    fn softmax_rows = softmax_rows_body(x: &[f32], axis: usize, is_log: bool, y: &mut [f32]);
    fn softmax_columns = softmax_columns_body(x: &[f32], columns: &Columns, is_log: bool, out: SharedMut<f32>);
}

#[inline(always)]
fn softmax_rows_body<const FMA: bool>(x: &[f32], axis: usize, is_log: bool, y: &mut [f32]) {
    for (x, y) in x.chunks_exact(axis).zip(y.chunks_exact_mut(axis)) {
        let max = max_of(x);
        for (y, x) in y.iter_mut().zip(x) {
            *y = math::exp::<FMA>(*x - max);
        }
        let sum = sum_of!(y, |a, v| a + v);
        if is_log {
            let log_sum = sum.ln() as f32;
            y.iter_mut().zip(x).for_each(|(y, x)| *y = (*x - max) - log_sum);
        } else {
            let scale = (1.0 / sum) as f32;
            y.iter_mut().for_each(|y| *y *= scale);
        }
    }
}

#[inline(always)]
fn softmax_columns_body<const FMA: bool>(x: &[f32], columns: &Columns, is_log: bool, out: SharedMut<f32>) {
    let Columns { inner, column, n, .. } = *columns;
    let rows = || x.chunks_exact(inner).map(|r| &r[column..column + n]);
    let mut max = [f32::NEG_INFINITY; COLUMNS];
    for row in rows() {
        max.iter_mut().zip(row).for_each(|(m, v)| *m = math::max(*m, *v));
    }
    let mut sums = [0f64; COLUMNS];
    for (k, row) in rows().enumerate() {
        let y = columns.row(&out, k);
        for ((y, v), max) in y.iter_mut().zip(row).zip(&max) {
            *y = math::exp::<FMA>(*v - *max);
        }
        sums.iter_mut().zip(y).for_each(|(s, y)| *s += *y as f64);
    }
    let mut factors = [0f32; COLUMNS];
    factors.iter_mut().zip(sums).for_each(|(f, s)| *f = if is_log { s.ln() } else { 1.0 / s } as f32);
    for (k, row) in rows().enumerate() {
        let y = columns.row(&out, k);
        if is_log {
            for (((y, v), max), f) in y.iter_mut().zip(row).zip(&max).zip(&factors) {
                *y = (*v - *max) - *f;
            }
        } else {
            y.iter_mut().zip(&factors).for_each(|(y, f)| *y *= *f);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Exponential, sum and product: a few units of the last place of 1.
    const SOFTMAX_TOLERANCE: f64 = 5e-7;

    #[test]
    fn rows_and_columns_agree_with_f64() {
        for (outer, axis, inner) in [(1, 1, 1), (7, 33, 1), (2, 5000, 1), (3, 9, 5), (2, 50, 130), (1, 3, 64)] {
            let shape = AxisShape { outer, axis, inner };
            let x: Vec<f32> = (0..shape.len()).map(|i| ((i * 7919) % 1013) as f32 / 30.0 - 17.0).collect();
            for isa in Isa::available() {
                let (mut y, mut z) = (vec![f32::NAN; x.len()], vec![f32::NAN; x.len()]);
                run(isa, shape, false, &x, &mut y);
                run(isa, shape, true, &x, &mut z);
                for o in 0..outer {
                    for i in 0..inner {
                        let at = |k: usize| (o * axis + k) * inner + i;
                        let sum: f64 = (0..axis).map(|k| (x[at(k)] as f64).exp()).sum();
                        for k in 0..axis {
                            let want = (x[at(k)] as f64).exp() / sum;
                            let error = (y[at(k)] as f64 - want).abs();
                            assert!(error <= SOFTMAX_TOLERANCE * want.max(1e-6), "{shape:?} {isa:?}: {want} {}", y[at(k)]);
                            let error = (z[at(k)] as f64 - want.ln()).abs();
                            assert!(error <= SOFTMAX_TOLERANCE * want.ln().abs().max(8.0), "{shape:?} {isa:?} log");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn large_values_do_not_overflow_and_masked_ones_are_zero() {
        let x = [1e30, 1e30, f32::NEG_INFINITY, -1e30];
        let mut y = [0.0; 4];
        softmax(AxisShape::rows(1, 4), &x, &mut y);
        assert_eq!(y, [0.5, 0.5, 0.0, 0.0]);
        softmax(AxisShape::rows(2, 2), &[f32::NEG_INFINITY; 4], &mut y);
        assert!(y.iter().all(|v| v.is_nan()));
    }
}
