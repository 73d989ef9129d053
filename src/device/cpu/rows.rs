//! Reductions, softmax and normalization along one axis of a dense f32 tensor, seen as (outer, axis, inner).
//!
//! `inner` 1 is the contiguous case (rows); otherwise `inner` neighbouring columns are reduced together, so that memory
//! is always walked forward. Rows, or groups of columns, are shared between threads; one sum is never split, and is
//! taken in f32 over blocks of at most 1024 values whose results are added in f64.

mod norm;
mod softmax;

pub use norm::NormRows;
pub(crate) use norm::norm_rows;
pub use softmax::{log_softmax, softmax};

use super::multiversion::{fma, multiversion};
use super::vec::math;
use super::{Isa, SharedMut, for_each_task};

/// What to compute of the values along the axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reduce {
    Sum,
    Mean,
    /// NaN if a value is NaN.
    Max,
    /// NaN if a value is NaN.
    Min,
    Prod,
    /// Sum of squares.
    SumSquare,
    /// Sum of magnitudes.
    L1,
    /// Square root of the sum of squares.
    L2,
    /// Logarithm of the sum.
    LogSum,
    /// Logarithm of the sum of exponentials, safe against overflow.
    LogSumExp,
}

/// A tensor seen as `outer` blocks of `axis` rows of `inner` values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AxisShape {
    pub outer: usize,
    pub axis: usize,
    pub inner: usize,
}

impl AxisShape {
    /// Of a shape and an axis of it.
    pub fn new(dims: &[usize], axis: usize) -> Self {
        AxisShape { outer: dims[..axis].iter().product(), axis: dims[axis], inner: dims[axis + 1..].iter().product() }
    }

    /// Of `rows` contiguous rows.
    pub fn rows(rows: usize, cols: usize) -> Self {
        AxisShape { outer: rows, axis: cols, inner: 1 }
    }

    fn len(&self) -> usize {
        self.outer * self.axis * self.inner
    }
}

/// Elements that are worth a task.
const TASK_ELEMENTS: usize = 16 << 10;
/// Neighbouring columns that are reduced together.
const COLUMNS: usize = 64;

/// Reduces the axis: `y` has (outer, inner) values. An empty axis gives the operation's neutral element (0, 1, an
/// infinity; NaN for a mean).
///
/// # Panics
/// If a length does not agree with the shape.
pub fn reduce(op: Reduce, shape: AxisShape, x: &[f32], y: &mut [f32]) {
    reduce_isa(Isa::detect(), op, shape, x, y);
}

pub(super) fn reduce_isa(isa: Isa, op: Reduce, shape: AxisShape, x: &[f32], y: &mut [f32]) {
    let AxisShape { outer, axis, inner } = shape;
    assert_eq!(x.len(), shape.len(), "{op:?} of {shape:?}: the input has another length");
    assert_eq!(y.len(), outer * inner, "{op:?} of {shape:?}: the output has another length");
    if y.is_empty() {
        return;
    }
    let y = SharedMut::new(y);
    if inner == 1 {
        let rows = (TASK_ELEMENTS / axis.max(1)).clamp(1, outer);
        for_each_task(outer.div_ceil(rows), |task| {
            let first = task * rows;
            // SAFETY: each task has rows of its own.
            let out = unsafe { y.slice(first, rows.min(outer - first)) };
            reduce_rows(isa, op, &x[first * axis..(first + out.len()) * axis], axis, out);
        });
        return;
    }
    // Groups of columns; several to a task where the axis is short.
    let groups = inner.div_ceil(COLUMNS);
    let per_task = (TASK_ELEMENTS / (axis.max(1) * COLUMNS)).clamp(1, outer * groups);
    for_each_task((outer * groups).div_ceil(per_task), |task| {
        for unit in task * per_task..((task + 1) * per_task).min(outer * groups) {
            let (o, column) = (unit / groups, unit % groups * COLUMNS);
            // SAFETY: each unit has columns of its own.
            let out = unsafe { y.slice(o * inner + column, COLUMNS.min(inner - column)) };
            reduce_columns(isa, op, &x[o * axis * inner..(o + 1) * axis * inner], inner, column, out);
        }
    });
}

multiversion! {
    fn reduce_rows = reduce_rows_body(op: Reduce, x: &[f32], axis: usize, y: &mut [f32]);
    fn reduce_columns = reduce_columns_body(op: Reduce, x: &[f32], inner: usize, column: usize, y: &mut [f32]);
}

/// Values that are folded side by side: a few vector registers.
const LANES: usize = 32;

/// Folds a row lane by lane, then the lanes pairwise. A macro, so that the expressions stand in the function that has
/// the target features.
macro_rules! fold {
    ($x:expr, $start:expr, |$a:ident, $v:ident| $step:expr, |$p:ident, $q:ident| $join:expr) => {{
        let mut lanes = [$start; LANES];
        let (chunks, rest) = $x.as_chunks::<LANES>();
        for chunk in chunks {
            for i in 0..LANES {
                let ($a, $v) = (lanes[i], chunk[i]);
                lanes[i] = $step;
            }
        }
        for (i, v) in rest.iter().enumerate() {
            let ($a, $v) = (lanes[i], *v);
            lanes[i] = $step;
        }
        let mut width = LANES / 2;
        while width > 0 {
            for i in 0..width {
                let ($p, $q) = (lanes[i], lanes[i + width]);
                lanes[i] = $join;
            }
            width /= 2;
        }
        lanes[0]
    }};
}

/// Sum over a row of what `$step` adds to the accumulator: blocks in f32, joined in f64.
macro_rules! sum_of {
    ($x:expr, |$a:ident, $v:ident| $step:expr) => {{
        let mut total = 0f64;
        for block in $x.chunks(1024) {
            total += fold!(block, 0f32, |$a, $v| $step, |p, q| p + q) as f64;
        }
        total
    }};
}
pub(super) use {fold, sum_of};

#[inline(always)]
pub(super) fn max_of(x: &[f32]) -> f32 {
    fold!(x, f32::NEG_INFINITY, |a, v| math::max(a, v), |a, b| math::max(a, b))
}

#[inline(always)]
fn reduce_rows_body<const FMA: bool>(op: Reduce, x: &[f32], axis: usize, y: &mut [f32]) {
    for (i, y) in y.iter_mut().enumerate() {
        *y = reduce_row::<FMA>(op, &x[i * axis..(i + 1) * axis]);
    }
}

#[inline(always)]
fn reduce_row<const FMA: bool>(op: Reduce, x: &[f32]) -> f32 {
    match op {
        Reduce::Sum => sum_of!(x, |a, v| a + v) as f32,
        Reduce::Mean => (sum_of!(x, |a, v| a + v) / x.len() as f64) as f32,
        Reduce::Max => max_of(x),
        Reduce::Min => fold!(x, f32::INFINITY, |a, v| math::min(a, v), |a, b| math::min(a, b)),
        Reduce::Prod => fold!(x, 1f32, |a, v| a * v, |a, b| a * b),
        Reduce::SumSquare => sum_of!(x, |a, v| fma::<FMA>(v, v, a)) as f32,
        Reduce::L1 => sum_of!(x, |a, v| a + v.abs()) as f32,
        Reduce::L2 => sum_of!(x, |a, v| fma::<FMA>(v, v, a)).sqrt() as f32,
        Reduce::LogSum => sum_of!(x, |a, v| a + v).ln() as f32,
        Reduce::LogSumExp => {
            let shift = finite_or_zero(max_of(x));
            (sum_of!(x, |a, v| a + math::exp::<FMA>(v - shift)).ln() + shift as f64) as f32
        }
    }
}

/// The maximum that is subtracted before exponentials; 0 stands for an infinite one.
#[inline(always)]
fn finite_or_zero(v: f32) -> f32 {
    if v.is_infinite() { 0.0 } else { v }
}

/// For each group of columns: the values of row `k` are `row(k)`.
#[inline(always)]
fn reduce_columns_body<const FMA: bool>(op: Reduce, x: &[f32], inner: usize, column: usize, y: &mut [f32]) {
    let n = y.len();
    let rows = || x.chunks_exact(inner).map(|r| &r[column..column + n]);
    let count = x.len() / inner;
    match op {
        Reduce::Sum | Reduce::Mean | Reduce::LogSum => {
            let mut sums = [0f64; COLUMNS];
            sum_columns(rows(), &mut sums[..n], |a, v| a + v);
            for (y, s) in y.iter_mut().zip(sums) {
                *y = match op {
                    Reduce::Mean => s / count as f64,
                    Reduce::LogSum => s.ln(),
                    _ => s,
                } as f32;
            }
        }
        Reduce::L1 => {
            let mut sums = [0f64; COLUMNS];
            sum_columns(rows(), &mut sums[..n], |a, v| a + v.abs());
            y.iter_mut().zip(sums).for_each(|(y, s)| *y = s as f32);
        }
        Reduce::SumSquare | Reduce::L2 => {
            let mut sums = [0f64; COLUMNS];
            sum_columns(rows(), &mut sums[..n], |a, v| fma::<FMA>(v, v, a));
            y.iter_mut().zip(sums).for_each(|(y, s)| *y = if op == Reduce::L2 { s.sqrt() } else { s } as f32);
        }
        Reduce::Max => fold_columns(rows(), y, f32::NEG_INFINITY, math::max),
        Reduce::Min => fold_columns(rows(), y, f32::INFINITY, math::min),
        Reduce::Prod => fold_columns(rows(), y, 1.0, |a, v| a * v),
        Reduce::LogSumExp => {
            fold_columns(rows(), y, f32::NEG_INFINITY, math::max);
            let mut shifts = [0f32; COLUMNS];
            shifts.iter_mut().zip(y.iter()).for_each(|(s, y)| *s = finite_or_zero(*y));
            let mut sums = [0f64; COLUMNS];
            for row in rows() {
                let mut e = [0f32; COLUMNS];
                for ((e, v), shift) in e[..n].iter_mut().zip(row).zip(shifts) {
                    *e = math::exp::<FMA>(*v - shift);
                }
                sums.iter_mut().zip(e).for_each(|(s, e)| *s += e as f64);
            }
            for ((y, s), shift) in y.iter_mut().zip(sums).zip(shifts) {
                *y = (s.ln() + shift as f64) as f32;
            }
        }
    }
}

#[inline(always)]
fn fold_columns<'a>(rows: impl Iterator<Item = &'a [f32]>, y: &mut [f32], start: f32, f: impl Fn(f32, f32) -> f32) {
    y.fill(start);
    for row in rows {
        for (y, v) in y.iter_mut().zip(row) {
            *y = f(*y, *v);
        }
    }
}

/// Column sums: blocks of 256 rows in f32, joined in f64.
#[inline(always)]
fn sum_columns<'a>(rows: impl Iterator<Item = &'a [f32]>, sums: &mut [f64], f: impl Fn(f32, f32) -> f32) {
    let n = sums.len();
    let mut block = [0f32; COLUMNS];
    let mut in_block = 0;
    for row in rows {
        for (b, v) in block[..n].iter_mut().zip(row) {
            *b = f(*b, *v);
        }
        in_block += 1;
        if in_block == 256 {
            sums.iter_mut().zip(&mut block).for_each(|(s, b)| *s += std::mem::take(b) as f64);
            in_block = 0;
        }
    }
    sums.iter_mut().zip(&block).for_each(|(s, b)| *s += *b as f64);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sums of positive and negative values, relative to the sum of magnitudes.
    const SUM_TOLERANCE: f64 = 1e-6;

    const OPS: [Reduce; 10] = [
        Reduce::Sum,
        Reduce::Mean,
        Reduce::Max,
        Reduce::Min,
        Reduce::Prod,
        Reduce::SumSquare,
        Reduce::L1,
        Reduce::L2,
        Reduce::LogSum,
        Reduce::LogSumExp,
    ];

    fn reference(op: Reduce, v: &[f64]) -> f64 {
        let sum: f64 = v.iter().sum();
        let squares: f64 = v.iter().map(|v| v * v).sum();
        match op {
            Reduce::Sum => sum,
            Reduce::Mean => sum / v.len() as f64,
            Reduce::Max => v.iter().copied().fold(f64::NEG_INFINITY, f64::max),
            Reduce::Min => v.iter().copied().fold(f64::INFINITY, f64::min),
            Reduce::Prod => v.iter().product(),
            Reduce::SumSquare => squares,
            Reduce::L1 => v.iter().map(|v| v.abs()).sum(),
            Reduce::L2 => squares.sqrt(),
            Reduce::LogSum => sum.ln(),
            Reduce::LogSumExp => v.iter().map(|v| v.exp()).sum::<f64>().ln(),
        }
    }

    #[test]
    fn reductions_agree_with_f64_for_rows_and_columns() {
        for (outer, axis, inner) in [(1, 1, 1), (5, 37, 1), (2, 3000, 1), (3, 7, 5), (2, 600, 65), (1, 4, 130), (300, 129, 1)] {
            let shape = AxisShape { outer, axis, inner };
            let x: Vec<f32> = (0..shape.len()).map(|i| ((i * 7919) % 1013) as f32 / 1013.0 + 0.4).collect();
            for op in OPS {
                for isa in Isa::available() {
                    let mut y = vec![f32::NAN; outer * inner];
                    reduce_isa(isa, op, shape, &x, &mut y);
                    for o in 0..outer {
                        for i in 0..inner {
                            let v: Vec<f64> = (0..axis).map(|k| x[(o * axis + k) * inner + i] as f64).collect();
                            let (want, got) = (reference(op, &v), y[o * inner + i] as f64);
                            // A product's relative error grows with its factors; it may also leave the range of f32.
                            let tolerance = if op == Reduce::Prod { 1e-7 * axis as f64 } else { SUM_TOLERANCE };
                            let scale = if op == Reduce::Prod { want.abs() } else { want.abs().max(1.0) };
                            let in_range = want.abs() < f32::MAX as f64 && want.abs() > f32::MIN_POSITIVE as f64;
                            assert!(
                                !in_range || (got - want).abs() <= tolerance * scale,
                                "{op:?} {shape:?} {isa:?} at {o},{i}: expected {want}, got {got}"
                            );
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn extremes_keep_nan_and_empty_axes_are_neutral() {
        let mut x = vec![1.0; 100];
        x[57] = f32::NAN;
        for op in [Reduce::Max, Reduce::Min, Reduce::Sum] {
            let mut y = [0.0];
            reduce(op, AxisShape::rows(1, 100), &x, &mut y);
            assert!(y[0].is_nan(), "{op:?} of a row with NaN");
            let mut y = [0.0; 10];
            reduce(op, AxisShape { outer: 1, axis: 10, inner: 10 }, &x, &mut y);
            assert!(y[7].is_nan() && !y[6].is_nan(), "{op:?} of columns with NaN");
        }
        for (op, want) in [(Reduce::Sum, 0.0), (Reduce::Prod, 1.0), (Reduce::Max, f32::NEG_INFINITY)] {
            let mut y = [5.0; 2];
            reduce(op, AxisShape::rows(2, 0), &[], &mut y);
            assert_eq!(y, [want; 2]);
            reduce(op, AxisShape { outer: 1, axis: 0, inner: 2 }, &[], &mut y);
            assert_eq!(y, [want; 2]);
        }
        let mut y = [0.0; 1];
        reduce(Reduce::LogSumExp, AxisShape::rows(1, 2), &[1000.0, 1000.0], &mut y);
        assert!((y[0] - 1000.693_1).abs() < 1e-3);
    }
}
