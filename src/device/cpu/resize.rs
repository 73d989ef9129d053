//! Nearest and linear resizing of NCHW planes, from tables that the caller makes once: which input index (or which two,
//! and how much of the second) each output index reads along each axis. All conventions of coordinates are in the tables.

use super::scratch::with_scratch;
use super::{SharedMut, for_each_task};

/// What one output index reads along an axis: `(1 - weight) * [lo] + weight * [hi]`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LinearTap {
    pub lo: u32,
    pub hi: u32,
    pub weight: f32,
}

/// Output elements that are worth a task.
const TASK_ELEMENTS: usize = 16 << 10;

/// Calls `f(first output row, rows)` for parts of all planes' output rows; a part never crosses a plane.
fn for_each_part(planes: usize, out_hw: [usize; 2], y: &mut [f32], f: impl Fn(usize, usize, &mut [f32]) + Sync + Send) {
    let [out_h, out_w] = out_hw;
    let rows = (TASK_ELEMENTS / out_w).clamp(1, out_h);
    let parts = out_h.div_ceil(rows);
    let y = SharedMut::new(y);
    for_each_task(planes * parts, |i| {
        let (plane, row) = (i / parts, i % parts * rows);
        // SAFETY: each task has rows of its own.
        let out = unsafe { y.slice((plane * out_h + row) * out_w, rows.min(out_h - row) * out_w) };
        f(plane, row, out);
    });
}

fn check(planes: usize, in_hw: [usize; 2], out_hw: [usize; 2], x: &[f32], y: &[f32]) {
    assert_eq!(x.len(), planes * in_hw[0] * in_hw[1], "resize of {planes} planes of {in_hw:?}: the input has another length");
    assert_eq!(y.len(), planes * out_hw[0] * out_hw[1], "resize of {planes} planes to {out_hw:?}: the output has another length");
}

/// `y[p][i][j] = x[p][rows[i]][cols[j]]`.
///
/// # Panics
/// If a length does not agree or a table points outside of the input.
pub fn resize_nearest(planes: usize, in_hw: [usize; 2], rows: &[u32], cols: &[u32], x: &[f32], y: &mut [f32]) {
    let out_hw = [rows.len(), cols.len()];
    check(planes, in_hw, out_hw, x, y);
    if y.is_empty() {
        return;
    }
    let [in_h, in_w] = in_hw;
    for_each_part(planes, out_hw, y, |plane, first, out| {
        let image = &x[plane * in_h * in_w..(plane + 1) * in_h * in_w];
        for i in 0..out.len() / cols.len() {
            let (done, rest) = out.split_at_mut(i * cols.len());
            let out_row = &mut rest[..cols.len()];
            if i > 0 && rows[first + i] == rows[first + i - 1] {
                out_row.copy_from_slice(&done[(i - 1) * cols.len()..]);
                continue;
            }
            let row = &image[rows[first + i] as usize * in_w..][..in_w];
            out_row.iter_mut().zip(cols).for_each(|(o, c)| *o = row[*c as usize]);
        }
    });
}

/// Linear interpolation along both axes.
///
/// # Panics
/// If a length does not agree or a table points outside of the input.
pub fn resize_linear(planes: usize, in_hw: [usize; 2], rows: &[LinearTap], cols: &[LinearTap], x: &[f32], y: &mut [f32]) {
    let out_hw = [rows.len(), cols.len()];
    check(planes, in_hw, out_hw, x, y);
    if y.is_empty() {
        return;
    }
    let ([in_h, in_w], out_w) = (in_hw, cols.len());
    for_each_part(planes, out_hw, y, |plane, first, out| {
        let image = &x[plane * in_h * in_w..(plane + 1) * in_h * in_w];
        // Two input rows at a time are held, resized along their width; upward resizing uses each several times.
        with_scratch(2 * out_w, |held| {
            let (a, b) = held.split_at_mut(out_w);
            let (mut a, mut b, mut of_a, mut of_b) = (a, b, None, None);
            for (out_row, tap) in out.chunks_exact_mut(out_w).zip(&rows[first..]) {
                if of_a != Some(tap.lo) {
                    if of_b == Some(tap.lo) {
                        (a, b, of_a, of_b) = (b, a, of_b, of_a);
                    } else {
                        resize_row(&image[tap.lo as usize * in_w..][..in_w], cols, a);
                        of_a = Some(tap.lo);
                    }
                }
                if tap.hi == tap.lo {
                    out_row.copy_from_slice(a);
                    continue;
                }
                if of_b != Some(tap.hi) {
                    resize_row(&image[tap.hi as usize * in_w..][..in_w], cols, b);
                    of_b = Some(tap.hi);
                }
                for ((o, lo), hi) in out_row.iter_mut().zip(a.iter()).zip(b.iter()) {
                    *o = (1.0 - tap.weight) * lo + tap.weight * hi;
                }
            }
        });
    });
}

fn resize_row(row: &[f32], cols: &[LinearTap], out: &mut [f32]) {
    for (o, tap) in out.iter_mut().zip(cols) {
        *o = (1.0 - tap.weight) * row[tap.lo as usize] + tap.weight * row[tap.hi as usize];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two roundings along each axis.
    const LINEAR_TOLERANCE: f64 = 1e-6;

    fn taps(n_in: usize, n_out: usize) -> Vec<LinearTap> {
        let tap = |i: usize| {
            let at = ((i as f64 + 0.5) * n_in as f64 / n_out as f64 - 0.5).clamp(0.0, (n_in - 1) as f64);
            let lo = at.floor();
            LinearTap { lo: lo as u32, hi: (lo as u32 + 1).min(n_in as u32 - 1), weight: (at - lo) as f32 }
        };
        (0..n_out).map(tap).collect()
    }

    #[test]
    fn up_and_down_agree_with_plain_loops() {
        for (planes, in_hw, out_hw) in [(1, [1, 1], [3, 2]), (3, [5, 7], [11, 13]), (2, [9, 8], [4, 3]), (2, [40, 50], [160, 200])] {
            let x: Vec<f32> = (0..planes * in_hw[0] * in_hw[1]).map(|i| ((i * 7919) % 1013) as f32 / 100.0).collect();
            let (rows, cols) = (taps(in_hw[0], out_hw[0]), taps(in_hw[1], out_hw[1]));
            let (row_index, col_index): (Vec<u32>, Vec<u32>) = (rows.iter().map(|t| t.lo).collect(), cols.iter().map(|t| t.hi).collect());
            let mut linear = vec![f32::NAN; planes * out_hw[0] * out_hw[1]];
            let mut nearest = linear.clone();
            resize_linear(planes, in_hw, &rows, &cols, &x, &mut linear);
            resize_nearest(planes, in_hw, &row_index, &col_index, &x, &mut nearest);
            for p in 0..planes {
                let at = |i: u32, j: u32| x[(p * in_hw[0] + i as usize) * in_hw[1] + j as usize];
                for (i, r) in rows.iter().enumerate() {
                    for (j, c) in cols.iter().enumerate() {
                        let o = (p * out_hw[0] + i) * out_hw[1] + j;
                        assert_eq!(nearest[o], at(r.lo, c.hi));
                        let (wr, wc) = (r.weight as f64, c.weight as f64);
                        let low = (1.0 - wc) * at(r.lo, c.lo) as f64 + wc * at(r.lo, c.hi) as f64;
                        let high = (1.0 - wc) * at(r.hi, c.lo) as f64 + wc * at(r.hi, c.hi) as f64;
                        let want = (1.0 - wr) * low + wr * high;
                        assert!((linear[o] as f64 - want).abs() <= LINEAR_TOLERANCE * (1.0 + want), "{in_hw:?} {out_hw:?} {i} {j}");
                    }
                }
            }
        }
    }
}
