//! Attention in f32: `y = softmax(cap(scale q kᵀ) + mask) v`, in blocks of rows of one head.
//!
//! A task takes up to [`ROWS`] rows of one head: their scores against all keys that any of them sees come from one matrix
//! product into the thread's scratch, are turned into weights row by row, and a second product gives the output. One or
//! two rows (a decoder's step) take dot products instead, which need no packing of the keys. No sum is split between
//! tasks.

use super::gemm::{Bias, Gemm, MatA, MatB, gemm_f32};
use super::multiversion::{fma, multiversion};
use super::scratch::with_scratch;
use super::vec::math;
use super::{Isa, SharedMut, for_each_task};
use std::ops::Range;

/// Rows of a task.
const ROWS: usize = 32;
/// Up to here keys are not packed.
const FEW_ROWS: usize = 2;
const LANES: usize = 16;

/// Elements between neighbours along batch, heads and length.
pub type Strides = [usize; 3];

/// Sizes, strides and factors.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub batch: usize,
    pub q_heads: usize,
    /// Heads of q that share one of k and v.
    pub group: usize,
    pub q_len: usize,
    pub kv_len: usize,
    pub size: usize,
    pub v_size: usize,
    pub q: Strides,
    pub k: Strides,
    pub v: Strides,
    pub y: Strides,
    pub scale: f32,
    /// 0 is none.
    pub softcap: f32,
}

/// What is added to the scores of one row.
#[derive(Clone, Copy, Debug)]
pub enum RowMask<'a> {
    None,
    /// From key 0 on; keys behind its end are excluded. A stride of 0 repeats the first value for `n` keys.
    Float { values: &'a [f32], stride: usize, n: usize },
    /// Bytes that are not 0 take part.
    Bool { values: &'a [u8], stride: usize, n: usize },
}

/// What a row sees.
#[derive(Clone, Debug)]
pub struct Row<'a> {
    /// Keys that may take part.
    pub keys: Range<usize>,
    pub mask: RowMask<'a>,
    /// Keys from `.0` on get `.1` in place of the mask.
    pub later: Option<(usize, f32)>,
    /// One more score, without a value.
    pub sink: Option<f32>,
}

/// Runs the attention; `row(batch, head, i)` says what a row sees.
///
/// # Panics
/// If a slice is too short for its sizes and strides.
pub fn attention_f32<'a>(
    p: &Shape,
    q: &[f32],
    k: &[f32],
    v: &[f32],
    row: &(dyn Fn(usize, usize, usize) -> Row<'a> + Sync),
    y: &mut [f32],
) {
    let blocks = p.q_len.div_ceil(ROWS);
    let y = SharedMut::new(y);
    let isa = Isa::detect();
    for_each_task(p.batch * p.q_heads * blocks, |task| {
        let (unit, block) = (task / blocks, task % blocks);
        let (b, h) = (unit / p.q_heads, unit % p.q_heads);
        let rows = block * ROWS..((block + 1) * ROWS).min(p.q_len);
        let block = Block { isa, p, b, h, rows };
        block.run(q, k, v, row, y);
    });
}

struct Block<'a> {
    isa: Isa,
    p: &'a Shape,
    b: usize,
    h: usize,
    rows: Range<usize>,
}

impl Block<'_> {
    fn run<'m>(
        &self,
        q: &[f32],
        k: &[f32],
        v: &[f32],
        row: &(dyn Fn(usize, usize, usize) -> Row<'m> + Sync),
        y: SharedMut<f32>,
    ) {
        let Block { isa, p, b, h, .. } = *self;
        let seen = self.rows.clone().map(|i| row(b, h, i).keys).filter(|r| !r.is_empty());
        let span = seen.reduce(|a, r| a.start.min(r.start)..a.end.max(r.end)).unwrap_or(0..0);
        let (m, n) = (self.rows.len(), span.len());
        let kv = h / p.group;
        let row_y = |i: usize| {
            // SAFETY: this task alone owns the rows of its block.
            unsafe { y.slice(b * p.y[0] + h * p.y[1] + i * p.y[2], p.v_size) }
        };
        if n == 0 || p.v_size == 0 {
            self.rows.clone().for_each(|i| row_y(i).fill(0.0));
            return;
        }
        with_scratch(m * n + m * p.v_size, |scratch| {
            let (s, out) = scratch.split_at_mut(m * n);
            let q = &q[b * p.q[0] + h * p.q[1] + self.rows.start * p.q[2]..];
            let k = &k[b * p.k[0] + kv * p.k[1] + span.start * p.k[2]..];
            let v = &v[b * p.v[0] + kv * p.v[1] + span.start * p.v[2]..];
            if p.size == 0 {
                s.fill(0.0);
            } else if m <= FEW_ROWS {
                for (i, s) in s.chunks_exact_mut(n).enumerate() {
                    dots(isa, &q[i * p.q[2]..i * p.q[2] + p.size], k, p.k[2], s);
                }
            } else {
                let a = MatA::Strided { data: q, row_stride: p.q[2], col_stride: 1 };
                let b = MatB::Strided { data: k, row_stride: 1, col_stride: p.k[2] };
                gemm_f32(&Gemm { m, n, k: p.size, a, b, bias: Bias::None, accumulate: false, c_row_stride: n }, s);
            }
            for (i, s) in s.chunks_exact_mut(n).enumerate() {
                weights(isa, p, &row(b, h, self.rows.start + i), span.start, s);
            }
            if m <= FEW_ROWS {
                for (i, s) in s.chunks_exact(n).enumerate() {
                    weighted_sum(isa, s, v, p.v[2], row_y(self.rows.start + i));
                }
                return;
            }
            let a = MatA::Strided { data: s, row_stride: n, col_stride: 1 };
            let b = MatB::Strided { data: v, row_stride: p.v[2], col_stride: 1 };
            let g = Gemm { m, n: p.v_size, k: n, a, b, bias: Bias::None, accumulate: false, c_row_stride: p.v_size };
            gemm_f32(&g, out);
            for (i, values) in self.rows.clone().zip(out.chunks_exact(p.v_size)) {
                row_y(i).copy_from_slice(values);
            }
        });
    }
}

multiversion! {
    fn dots = dots_body(q: &[f32], k: &[f32], stride: usize, s: &mut [f32]);
    fn weighted_sum = weighted_sum_body(s: &[f32], v: &[f32], stride: usize, y: &mut [f32]);
    fn weights = weights_body(p: &Shape, row: &Row<'_>, first: usize, s: &mut [f32]);
}

#[inline(always)]
fn sum_of_lanes(lanes: [f32; LANES]) -> f32 {
    let mut width = LANES / 2;
    let mut lanes = lanes;
    while width > 0 {
        for i in 0..width {
            lanes[i] += lanes[i + width];
        }
        width /= 2;
    }
    lanes[0]
}

/// `s[j] = q k_j`.
#[inline(always)]
fn dots_body<const FMA: bool>(q: &[f32], k: &[f32], stride: usize, s: &mut [f32]) {
    for (j, s) in s.iter_mut().enumerate() {
        let key = &k[j * stride..j * stride + q.len()];
        let mut lanes = [0f32; LANES];
        let (a, b) = (q.chunks_exact(LANES), key.chunks_exact(LANES));
        let tail: f32 = a.remainder().iter().zip(b.remainder()).map(|(x, y)| x * y).sum();
        for (a, b) in a.zip(b) {
            for i in 0..LANES {
                lanes[i] = fma::<FMA>(a[i], b[i], lanes[i]);
            }
        }
        *s = sum_of_lanes(lanes) + tail;
    }
}

/// `y = sum s_j v_j`.
#[inline(always)]
fn weighted_sum_body<const FMA: bool>(s: &[f32], v: &[f32], stride: usize, y: &mut [f32]) {
    y.fill(0.0);
    for (j, s) in s.iter().enumerate().filter(|(_, s)| **s != 0.0) {
        for (y, v) in y.iter_mut().zip(&v[j * stride..]) {
            *y = fma::<FMA>(*s, *v, *y);
        }
    }
}

/// Turns the products of keys `first ..` into weights.
#[inline(always)]
fn weights_body<const FMA: bool>(p: &Shape, row: &Row<'_>, first: usize, s: &mut [f32]) {
    let (start, end) = (row.keys.start.saturating_sub(first).min(s.len()), row.keys.end.saturating_sub(first).min(s.len()));
    s[..start].fill(0.0);
    s[end.max(start)..].fill(0.0);
    let s = &mut s[start..end.max(start)];
    let first = first + start;
    s.iter_mut().for_each(|v| *v *= p.scale);
    if p.softcap > 0.0 {
        let (cap, inverse) = (p.softcap, 1.0 / p.softcap);
        s.iter_mut().for_each(|v| *v = cap * math::tanh::<FMA>(*v * inverse));
    }
    // Keys that the mask speaks of: not those behind its end, nor those that get a number in its place.
    let later = row.later.map_or(s.len(), |(at, _)| at.saturating_sub(first).min(s.len()));
    match row.mask {
        RowMask::None => {}
        RowMask::Float { values, stride, n } => {
            let n = n.saturating_sub(first).min(s.len());
            match stride {
                0 => s[..later.min(n)].iter_mut().for_each(|v| *v += values[0]),
                _ => s[..later.min(n)].iter_mut().zip(&values[first.min(values.len())..]).for_each(|(v, m)| *v += m),
            }
            s[n..].fill(f32::NEG_INFINITY);
        }
        RowMask::Bool { values, stride, n } => {
            let n = n.saturating_sub(first).min(s.len());
            for (j, v) in s[..later.min(n)].iter_mut().enumerate() {
                *v = if values[(first + j) * stride] != 0 { *v } else { f32::NEG_INFINITY };
            }
            s[n..].fill(f32::NEG_INFINITY);
        }
    }
    if let Some((_, value)) = row.later {
        s[later..].iter_mut().for_each(|v| *v += value);
    }
    let mut tops = [row.sink.unwrap_or(f32::NEG_INFINITY); LANES];
    let chunks = s.chunks_exact(LANES);
    let rest = chunks.remainder().iter().fold(f32::NEG_INFINITY, |m, v| m.max(*v));
    for chunk in chunks {
        for i in 0..LANES {
            tops[i] = if chunk[i] > tops[i] { chunk[i] } else { tops[i] };
        }
    }
    let max = tops.iter().fold(rest, |m, v| m.max(*v));
    if max == f32::NEG_INFINITY && !s.iter().any(|v| v.is_nan()) {
        // Nothing is left for this row.
        s.fill(0.0);
        return;
    }
    s.iter_mut().for_each(|v| *v = math::exp::<FMA>(*v - max));
    let mut lanes = [0f32; LANES];
    let chunks = s.chunks_exact(LANES);
    let tail: f32 = chunks.remainder().iter().sum();
    for chunk in chunks {
        for i in 0..LANES {
            lanes[i] += chunk[i];
        }
    }
    let sink = row.sink.map_or(0.0, |v| (v - max).exp());
    let inverse = 1.0 / (sum_of_lanes(lanes) + tail + sink);
    s.iter_mut().for_each(|v| *v *= inverse);
}
