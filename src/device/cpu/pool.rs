//! Maximum and average pooling over two spatial dimensions of NCHW planes.
//!
//! A window is separable: each output row first combines its input rows into one padded row (long vector loops), then
//! combines that row's columns with the horizontal stride. Padding is the neutral element, so there are no borders in
//! the loops. Ceiling mode is resolved by the caller into the output size. Global pooling is `rows::reduce`.

use super::multiversion::multiversion;
use super::scratch::with_scratch;
use super::vec::math;
use super::{Isa, SharedMut, for_each_task};

/// Sizes of a pooling. Pairs are (height, width).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolParams {
    /// Batch times channels.
    pub planes: usize,
    pub in_hw: [usize; 2],
    pub out_hw: [usize; 2],
    pub kernel: [usize; 2],
    pub strides: [usize; 2],
    /// Padding at the top and at the left.
    pub pads: [usize; 2],
    /// Padding at the bottom and at the right; only [`Divisor::Padded`] looks at it.
    pub pads_end: [usize; 2],
    pub dilations: [usize; 2],
}

/// What an average divides by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Divisor {
    /// The window's elements inside of the image.
    Valid,
    /// The window's elements inside of the padded image.
    Padded,
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Max,
    Average(Divisor),
}

/// Maximum of each window; NaN if a value is NaN, -inf for a window outside of the image.
///
/// # Panics
/// If a length does not agree.
pub fn max_pool2d(p: &PoolParams, x: &[f32], y: &mut [f32]) {
    run(Isa::detect(), p, Kind::Max, x, y);
}

/// Average of each window.
///
/// # Panics
/// If a length does not agree.
pub fn average_pool2d(p: &PoolParams, divisor: Divisor, x: &[f32], y: &mut [f32]) {
    run(Isa::detect(), p, Kind::Average(divisor), x, y);
}

/// Elements of a window's axis that lie in `0 .. size + pad_end` (and above the begin padding, which always holds).
fn count(p: &PoolParams, axis: usize, out: usize, divisor: Divisor) -> usize {
    let start = (out * p.strides[axis]) as isize - p.pads[axis] as isize;
    let (lo, hi) = match divisor {
        Divisor::Valid => (0, p.in_hw[axis] as isize),
        Divisor::Padded => (-(p.pads[axis] as isize), (p.in_hw[axis] + p.pads_end[axis]) as isize),
    };
    (0..p.kernel[axis]).map(|t| start + (t * p.dilations[axis]) as isize).filter(|i| (lo..hi).contains(i)).count()
}

fn run(isa: Isa, p: &PoolParams, kind: Kind, x: &[f32], y: &mut [f32]) {
    let (in_plane, out_plane) = (p.in_hw[0] * p.in_hw[1], p.out_hw[0] * p.out_hw[1]);
    assert!(p.strides.iter().chain(&p.dilations).chain(&p.kernel).all(|v| *v > 0), "{p:?}: a size is 0");
    assert_eq!(x.len(), p.planes * in_plane, "{p:?}: the input has another length");
    assert_eq!(y.len(), p.planes * out_plane, "{p:?}: the output has another length");
    if y.is_empty() {
        return;
    }
    // A padded row, long enough for the last window.
    let reach = (p.out_hw[1] - 1) * p.strides[1] + (p.kernel[1] - 1) * p.dilations[1] + 1;
    let padded = reach.max(p.pads[1] + p.in_hw[1]);
    let work = out_plane * (p.kernel[0] * p.strides[1] + p.kernel[1]);
    let per_task = ((128 << 10) / work.max(1)).clamp(1, p.planes);
    let y = SharedMut::new(y);
    for_each_task(p.planes.div_ceil(per_task), |task| {
        with_scratch(padded + p.out_hw[1], |scratch| {
            let (row, divisors) = scratch.split_at_mut(padded);
            if let Kind::Average(divisor) = kind {
                divisors.iter_mut().enumerate().for_each(|(i, d)| *d = count(p, 1, i, divisor) as f32);
            }
            row.fill(if kind == Kind::Max { f32::NEG_INFINITY } else { 0.0 });
            for plane in task * per_task..((task + 1) * per_task).min(p.planes) {
                // SAFETY: each task has planes of its own.
                let out = unsafe { y.slice(plane * out_plane, out_plane) };
                pool_plane(isa, p, kind, &x[plane * in_plane..(plane + 1) * in_plane], row, divisors, out);
            }
        });
    });
}

multiversion! {
    fn pool_plane = pool_plane_body(p: &PoolParams, kind: Kind, x: &[f32], row: &mut [f32], divisors: &[f32], y: &mut [f32]);
}

#[inline(always)]
fn pool_plane_body<const FMA: bool>(p: &PoolParams, kind: Kind, x: &[f32], row: &mut [f32], divisors: &[f32], y: &mut [f32]) {
    match kind {
        Kind::Max => combine(p, x, row, y, f32::NEG_INFINITY, math::max, |_, _| {}),
        Kind::Average(divisor) => combine(p, x, row, y, 0.0, |a, b| a + b, |out_row, y| {
            let rows = count(p, 0, out_row, divisor) as f32;
            y.iter_mut().zip(divisors).for_each(|(y, d)| *y /= (rows * d).max(1.0));
        }),
    }
}

#[inline(always)]
fn combine(
    p: &PoolParams,
    x: &[f32],
    row: &mut [f32],
    y: &mut [f32],
    neutral: f32,
    f: impl Fn(f32, f32) -> f32,
    finish: impl Fn(usize, &mut [f32]),
) {
    let [in_h, in_w] = p.in_hw;
    for (out_row, y) in y.chunks_exact_mut(p.out_hw[1]).enumerate() {
        let middle = &mut row[p.pads[1]..p.pads[1] + in_w];
        let mut is_first = true;
        for t in 0..p.kernel[0] {
            let at = out_row * p.strides[0] + t * p.dilations[0];
            if at < p.pads[0] || at - p.pads[0] >= in_h {
                continue;
            }
            let from = &x[(at - p.pads[0]) * in_w..][..in_w];
            if is_first {
                middle.copy_from_slice(from);
                is_first = false;
            } else {
                middle.iter_mut().zip(from).for_each(|(m, v)| *m = f(*m, *v));
            }
        }
        if is_first {
            middle.fill(neutral);
        }
        y.fill(neutral);
        for t in 0..p.kernel[1] {
            let from = &row[t * p.dilations[1]..];
            match p.strides[1] {
                1 => y.iter_mut().zip(from).for_each(|(y, v)| *y = f(*y, *v)),
                2 => {
                    // The last value may have no partner.
                    let (pairs, n) = (from.as_chunks::<2>().0, y.len());
                    y.iter_mut().zip(pairs).for_each(|(y, v)| *y = f(*y, v[0]));
                    if pairs.len() < n {
                        y[n - 1] = f(y[n - 1], from[2 * (n - 1)]);
                    }
                }
                s => y.iter_mut().zip(from.iter().step_by(s)).for_each(|(y, v)| *y = f(*y, *v)),
            }
        }
        finish(out_row, y);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sums of at most a few dozen values.
    const AVERAGE_TOLERANCE: f32 = 2e-6;

    fn naive(p: &PoolParams, kind: Kind, x: &[f32]) -> Vec<f32> {
        let mut y = Vec::new();
        for plane in 0..p.planes {
            for oy in 0..p.out_hw[0] {
                for ox in 0..p.out_hw[1] {
                    let (mut max, mut sum, mut valid, mut padded) = (f32::NEG_INFINITY, 0.0, 0, 0);
                    for ky in 0..p.kernel[0] {
                        for kx in 0..p.kernel[1] {
                            let iy = (oy * p.strides[0] + ky * p.dilations[0]) as isize - p.pads[0] as isize;
                            let ix = (ox * p.strides[1] + kx * p.dilations[1]) as isize - p.pads[1] as isize;
                            if iy < (p.in_hw[0] + p.pads_end[0]) as isize && ix < (p.in_hw[1] + p.pads_end[1]) as isize {
                                padded += 1;
                            }
                            if (0..p.in_hw[0] as isize).contains(&iy) && (0..p.in_hw[1] as isize).contains(&ix) {
                                let v = x[(plane * p.in_hw[0] + iy as usize) * p.in_hw[1] + ix as usize];
                                max = max.max(v);
                                sum += v;
                                valid += 1;
                            }
                        }
                    }
                    y.push(match kind {
                        Kind::Max => max,
                        Kind::Average(Divisor::Valid) => sum / valid.max(1) as f32,
                        Kind::Average(Divisor::Padded) => sum / padded.max(1) as f32,
                    });
                }
            }
        }
        y
    }

    #[test]
    fn windows_of_every_kind_agree_with_plain_loops() {
        let p = PoolParams {
            planes: 3,
            in_hw: [11, 37],
            out_hw: [5, 18],
            kernel: [2, 2],
            strides: [2, 2],
            pads: [0, 0],
            pads_end: [0, 0],
            dilations: [1, 1],
        };
        let cases = [
            p,
            PoolParams { out_hw: [6, 19], ..p },
            PoolParams { kernel: [3, 3], pads: [1, 1], pads_end: [1, 1], out_hw: [6, 19], ..p },
            PoolParams { kernel: [3, 3], strides: [1, 1], pads: [1, 1], pads_end: [1, 1], out_hw: [11, 37], ..p },
            PoolParams { kernel: [5, 4], strides: [3, 3], pads: [2, 0], pads_end: [1, 3], out_hw: [4, 13], ..p },
            PoolParams { kernel: [3, 2], strides: [1, 2], dilations: [2, 3], out_hw: [7, 17], ..p },
            PoolParams { in_hw: [1, 1], kernel: [1, 1], strides: [1, 1], out_hw: [1, 1], ..p },
            PoolParams { planes: 400, in_hw: [20, 20], kernel: [3, 3], pads_end: [1, 1], out_hw: [10, 10], ..p },
        ];
        for p in cases {
            let n = p.planes * p.in_hw[0] * p.in_hw[1];
            let x: Vec<f32> = (0..n).map(|i| ((i * 7919) % 1013) as f32 / 100.0 - 5.0).collect();
            for kind in [Kind::Max, Kind::Average(Divisor::Valid), Kind::Average(Divisor::Padded)] {
                let want = naive(&p, kind, &x);
                for isa in Isa::available() {
                    let mut y = vec![f32::NAN; want.len()];
                    run(isa, &p, kind, &x, &mut y);
                    for (i, (got, want)) in y.iter().zip(&want).enumerate() {
                        let tolerance = if kind == Kind::Max { 0.0 } else { AVERAGE_TOLERANCE * (5.0 + want.abs()) };
                        assert!((got - want).abs() <= tolerance, "{p:?} {isa:?} at {i}: expected {want}, got {got}");
                    }
                }
            }
        }
    }
}
