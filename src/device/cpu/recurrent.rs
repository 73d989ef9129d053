//! Recurrent cells in f32: the loop over time, given the input projections of all steps.
//!
//! A row of the batch in one direction needs nothing of the others, so rows (a few at a time, to read the weights once for
//! all of them) and directions are the tasks. A single large cell splits the columns of each step instead. The weights are
//! packed in panels of 64 columns ([`pack_recurrent`]); sums run over k in order whatever the split.

use super::multiversion::{fma, multiversion};
use super::scratch::{AlignedVec, with_scratch};
use super::vec::{self, Binary, Unary, math};
use super::{Isa, SharedMut, for_each_task, n_threads};

/// Columns of a panel of packed weights.
const PANEL: usize = 64;
/// Rows of the batch that one task carries along, at most.
const ROWS: usize = 4;
/// Multiply-adds below which a task is not worth a thread change.
const MIN_TASK_WORK: usize = 1 << 18;
/// Multiply-adds of one step from which its columns are split over the threads, and of one part.
const SPLIT_WORK: usize = 1 << 19;
const PART_WORK: usize = 1 << 17;

/// Which equations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cell {
    /// h = f(x + R h).
    Rnn,
    /// Gates z, r, h. `reset_after`: the reset gate scales the product R h instead of h.
    Gru { reset_after: bool },
    /// Gates i, o, f, c. `coupled`: f = 1 - i.
    Lstm { coupled: bool },
}

impl Cell {
    pub fn gates(self) -> usize {
        match self {
            Cell::Rnn => 1,
            Cell::Gru { .. } => 3,
            Cell::Lstm { .. } => 4,
        }
    }

    /// Gates whose product with h is taken first; the rest needs these.
    fn first_gates(self) -> usize {
        match self {
            Cell::Gru { reset_after: false } => 2,
            cell => cell.gates(),
        }
    }
}

/// A function inside a cell.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Activation {
    Plain(Unary),
    /// alpha tanh(beta x).
    ScaledTanh(f32, f32),
    /// x from alpha on, else 0.
    ThresholdedRelu(f32),
}

impl Activation {
    fn apply(self, x: &mut [f32]) {
        match self {
            Activation::Plain(f) => vec::map_in_place(f, x),
            Activation::ScaledTanh(alpha, beta) => {
                vec::scalar_in_place(Binary::Mul, x, beta);
                vec::map_in_place(Unary::Tanh, x);
                vec::scalar_in_place(Binary::Mul, x, alpha);
            }
            Activation::ThresholdedRelu(alpha) => x.iter_mut().for_each(|v| *v = if *v >= alpha || v.is_nan() { *v } else { 0.0 }),
        }
    }
}

/// One direction: whether it runs from the end, and its activations f, g, h.
#[derive(Clone, Copy, Debug)]
pub struct Direction {
    pub reverse: bool,
    pub activations: [Activation; 3],
}

/// Sizes and meaning. Strides count floats.
#[derive(Clone, Debug)]
pub struct RecurrentParams {
    pub cell: Cell,
    pub directions: Vec<Direction>,
    pub seq: usize,
    pub batch: usize,
    pub hidden: usize,
    /// Inputs of the gates' activations are kept in [-clip, clip].
    pub clip: Option<f32>,
    /// The batch is the outermost dimension of x, y and the states: [batch, seq, ..] instead of [seq, batch, ..].
    pub batch_first: bool,
}

impl RecurrentParams {
    fn columns(&self) -> usize {
        self.cell.gates() * self.hidden
    }

    /// Where row b of step t of x starts, and where direction d has its columns: [.., directions, gates, hidden].
    fn x_at(&self, t: usize, b: usize, d: usize) -> usize {
        let row = if self.batch_first { b * self.seq + t } else { t * self.batch + b };
        (row * self.directions.len() + d) * self.columns()
    }

    /// y is [seq, directions, batch, hidden] or [batch, seq, directions, hidden].
    fn y_at(&self, t: usize, b: usize, d: usize) -> usize {
        let n = self.directions.len();
        let row = if self.batch_first { (b * self.seq + t) * n + d } else { (t * n + d) * self.batch + b };
        row * self.hidden
    }

    /// A state is [directions, batch, hidden] or [batch, directions, hidden].
    fn state_at(&self, b: usize, d: usize) -> usize {
        let n = self.directions.len();
        (if self.batch_first { b * n + d } else { d * self.batch + b }) * self.hidden
    }

    /// Floats of all weights and of one direction's.
    fn weights(&self) -> usize {
        self.hidden * self.columns()
    }
}

/// Operands.
#[derive(Clone, Copy)]
pub struct RecurrentInputs<'a> {
    /// Input projections with all biases that can be added to them.
    pub x: &'a [f32],
    /// Recurrent weights [directions, hidden, gates * hidden], used when there are no packed ones.
    pub r: &'a [f32],
    pub packed: Option<&'a PackedRecurrent>,
    /// Recurrent bias of the hidden gate [directions, hidden], for `reset_after`.
    pub bias: Option<&'a [f32]>,
    /// Steps of each row of the batch.
    pub lengths: Option<&'a [i32]>,
    pub h0: Option<&'a [f32]>,
    pub c0: Option<&'a [f32]>,
    /// Peephole weights of i, o, f: [directions, 3 * hidden].
    pub peepholes: Option<&'a [f32]>,
}

/// Recurrent weights as the inner loop reads them: for each direction its first gates, then the others.
#[derive(Debug)]
pub struct PackedRecurrent {
    data: AlignedVec,
    direction: usize,
}

fn panels(columns: usize) -> usize {
    columns.div_ceil(PANEL)
}

/// Floats of one direction's packed weights.
fn packed_len(p: &RecurrentParams) -> usize {
    let first = p.cell.first_gates() * p.hidden;
    (panels(first) + panels(p.columns() - first)) * PANEL * p.hidden
}

fn pack_direction(p: &RecurrentParams, r: &[f32], out: &mut [f32]) {
    let (first, n) = (p.cell.first_gates() * p.hidden, p.columns());
    let mut panel = out.chunks_exact_mut(PANEL * p.hidden.max(1));
    for columns in [0..first, first..n] {
        for j0 in columns.clone().step_by(PANEL) {
            let Some(panel) = panel.next() else { return };
            let width = PANEL.min(columns.end - j0);
            for (k, row) in panel.chunks_exact_mut(PANEL).enumerate() {
                row[..width].copy_from_slice(&r[k * n + j0..][..width]);
                row[width..].fill(0.0);
            }
        }
    }
}

/// Packs the weights once for many calls. Panics when `r` is too short.
pub fn pack_recurrent(p: &RecurrentParams, r: &[f32]) -> PackedRecurrent {
    let (n, direction) = (p.weights(), packed_len(p));
    let mut data = AlignedVec::zeroed(direction * p.directions.len());
    for d in 0..p.directions.len() {
        pack_direction(p, &r[d * n..][..n], &mut data.as_mut_slice()[d * direction..][..direction]);
    }
    PackedRecurrent { data, direction }
}

/// Runs all steps. `y` gets every h, `y_h` and `y_c` (LSTM, else empty) the last states.
///
/// # Panics
/// If a slice is too short for the sizes.
pub fn recurrent(p: &RecurrentParams, a: &RecurrentInputs<'_>, y: &mut [f32], y_h: &mut [f32], y_c: &mut [f32]) {
    let n_dirs = p.directions.len();
    if p.batch == 0 || p.hidden == 0 || n_dirs == 0 {
        return;
    }
    let work = p.seq * p.batch * n_dirs * p.columns() * (p.hidden + 16);
    let rows = (p.batch * n_dirs).div_ceil(n_threads()).clamp(1, ROWS).min(p.batch);
    let chunks = p.batch.div_ceil(rows);
    let n_tasks = n_dirs * chunks;
    let (y, y_h, y_c) = (SharedMut::new(y), SharedMut::new(y_h), SharedMut::new(y_c));
    let parts = match p.weights() {
        n if n < SPLIT_WORK => 1,
        n => (n / PART_WORK).min(n_threads() / n_tasks.min(n_threads()).max(1)).max(1),
    };
    let task = |i: usize| {
        let (d, b0) = (i / chunks, i % chunks * rows);
        let n = rows.min(p.batch - b0);
        let out = Outputs { y, y_h, y_c };
        match a.packed {
            Some(w) => run(p, a, d, b0, n, &w.data.as_slice()[d * w.direction..][..w.direction], parts, &out),
            None => with_scratch(packed_len(p), |w| {
                pack_direction(p, &a.r[d * p.weights()..][..p.weights()], w);
                run(p, a, d, b0, n, w, parts, &out);
            }),
        }
    };
    if work < MIN_TASK_WORK { (0..n_tasks).for_each(task) } else { for_each_task(n_tasks, task) }
}

struct Outputs {
    y: SharedMut<f32>,
    y_h: SharedMut<f32>,
    y_c: SharedMut<f32>,
}

/// Rows `b0 .. b0 + n` of the batch in one direction, from the first step to the last.
#[allow(clippy::too_many_arguments)]
fn run(p: &RecurrentParams, a: &RecurrentInputs<'_>, d: usize, b0: usize, n: usize, w: &[f32], parts: usize, out: &Outputs) {
    let (hidden, columns) = (p.hidden, p.columns());
    let isa = Isa::detect();
    let mut lengths = [p.seq; ROWS];
    if let Some(given) = a.lengths {
        for (l, g) in lengths.iter_mut().zip(&given[b0..b0 + n]) {
            *l = (*g).clamp(0, p.seq.min(i32::MAX as usize) as i32) as usize;
        }
    }
    let lengths = &lengths[..n];
    let longest = lengths.iter().copied().max().unwrap_or(0);
    let dir = &p.directions[d];
    let peepholes = a.peepholes.map(|v| &v[d * 3 * hidden..][..3 * hidden]);
    let bias = a.bias.map(|v| &v[d * hidden..][..hidden]);
    // Gates, h, c, and r * h (or the reset gate's operand).
    with_scratch(n * (columns + 3 * hidden), |scratch| {
        let (gates, rest) = scratch.split_at_mut(n * columns);
        let (h, rest) = rest.split_at_mut(n * hidden);
        let (c, rh) = rest.split_at_mut(n * hidden);
        for i in 0..n {
            let at = p.state_at(b0 + i, d);
            for (state, from) in [(&mut *h, a.h0), (&mut *c, a.c0)] {
                let state = &mut state[i * hidden..][..hidden];
                match from {
                    Some(v) => state.copy_from_slice(&v[at..at + hidden]),
                    None => state.fill(0.0),
                }
            }
        }
        let first = p.cell.first_gates() * hidden;
        let (w_first, w_rest) = w.split_at(panels(first) * PANEL * hidden);
        for s in 0..longest {
            let time = |i: usize| if dir.reverse { lengths[i].saturating_sub(1 + s) } else { s };
            for (i, g) in gates.chunks_exact_mut(columns).enumerate() {
                g.copy_from_slice(&a.x[p.x_at(time(i), b0 + i, d)..][..columns]);
                if let Cell::Gru { reset_after: true } = p.cell {
                    // The product of the hidden gate is kept apart: x's part moves aside.
                    rh[i * hidden..][..hidden].copy_from_slice(&g[2 * hidden..]);
                    match bias {
                        Some(b) => g[2 * hidden..].copy_from_slice(b),
                        None => g[2 * hidden..].fill(0.0),
                    }
                }
            }
            product(isa, Rows { x: h, n, k: hidden }, w_first, 0, first, gates, columns, parts);
            if let Cell::Gru { reset_after: false } = p.cell {
                for (i, g) in gates.chunks_exact_mut(columns).enumerate() {
                    let zr = &mut g[..2 * hidden];
                    clip(p.clip, zr);
                    dir.activations[0].apply(zr);
                    vec::zip(Binary::Mul, &zr[hidden..], &h[i * hidden..][..hidden], &mut rh[i * hidden..][..hidden]);
                }
                product(isa, Rows { x: rh, n, k: hidden }, w_rest, first, hidden, gates, columns, parts);
            }
            for (i, g) in gates.chunks_exact_mut(columns).enumerate() {
                let at = |s: usize| p.y_at(s, b0 + i, d);
                if s >= lengths[i] {
                    continue;
                }
                let (h, c) = (&mut h[i * hidden..][..hidden], &mut c[i * hidden..][..hidden]);
                match p.cell {
                    Cell::Rnn => {
                        clip(p.clip, g);
                        dir.activations[0].apply(g);
                        h.copy_from_slice(g);
                    }
                    Cell::Gru { reset_after } => gru(isa, p, dir, reset_after, g, &rh[i * hidden..][..hidden], h),
                    Cell::Lstm { coupled } => lstm(isa, p, dir, coupled, peepholes, g, c, h),
                }
                // SAFETY: each row of each step and direction is written by the task that has the row.
                unsafe { out.y.slice(at(time(i)), hidden) }.copy_from_slice(h);
            }
        }
        for i in 0..n {
            for s in lengths[i]..p.seq {
                // SAFETY: as above.
                unsafe { out.y.slice(p.y_at(s, b0 + i, d), hidden) }.fill(0.0);
            }
            let at = p.state_at(b0 + i, d);
            let is_empty = lengths[i] == 0;
            for (to, state) in [(out.y_h, &*h), (out.y_c, &*c)] {
                if to.1 > 0 {
                    // SAFETY: each row and direction belongs to one task.
                    let to = unsafe { to.slice(at, hidden) };
                    // A sequence without steps has no last state.
                    if is_empty { to.fill(0.0) } else { to.copy_from_slice(&state[i * hidden..][..hidden]) }
                }
            }
        }
    });
}

fn clip(limit: Option<f32>, x: &mut [f32]) {
    if let Some(v) = limit {
        vec::map_in_place(Unary::Clip(-v, v), x);
    }
}

const SIGMOID: Activation = Activation::Plain(Unary::Sigmoid);
const TANH: Activation = Activation::Plain(Unary::Tanh);

/// `g`: z and r (activated already unless `reset_after`) and the hidden gate's sum; `aside`: x's part of it for `reset_after`.
fn gru(isa: Isa, p: &RecurrentParams, dir: &Direction, reset_after: bool, g: &mut [f32], aside: &[f32], h: &mut [f32]) {
    if reset_after && p.clip.is_none() && dir.activations[..2] == [SIGMOID, TANH] {
        return gru_fused(isa, g, aside, h);
    }
    let (zr, n) = g.split_at_mut(2 * p.hidden);
    if reset_after {
        clip(p.clip, zr);
        dir.activations[0].apply(zr);
        vec::zip_in_place(Binary::Mul, n, &zr[p.hidden..]);
        vec::zip_in_place(Binary::Add, n, aside);
    }
    clip(p.clip, n);
    dir.activations[1].apply(n);
    for ((h, z), n) in h.iter_mut().zip(zr).zip(n) {
        *h = (1.0 - *z) * *n + *z * *h;
    }
}

#[allow(clippy::too_many_arguments)]
fn lstm(
    isa: Isa,
    p: &RecurrentParams,
    dir: &Direction,
    coupled: bool,
    peepholes: Option<&[f32]>,
    g: &mut [f32],
    c: &mut [f32],
    h: &mut [f32],
) {
    if peepholes.is_none() && p.clip.is_none() && !coupled && dir.activations == [SIGMOID, TANH, TANH] {
        return lstm_fused(isa, g, c, h);
    }
    let n = p.hidden;
    let (i, rest) = g.split_at_mut(n);
    let (o, rest) = rest.split_at_mut(n);
    let (f, new) = rest.split_at_mut(n);
    if let Some(w) = peepholes {
        vec::mul_add(&w[..n], c, i);
        vec::mul_add(&w[2 * n..], c, f);
    }
    clip(p.clip, i);
    dir.activations[0].apply(i);
    if coupled {
        f.iter_mut().zip(&*i).for_each(|(f, i)| *f = 1.0 - i);
    } else {
        clip(p.clip, f);
        dir.activations[0].apply(f);
    }
    clip(p.clip, new);
    dir.activations[1].apply(new);
    for (((c, f), i), new) in c.iter_mut().zip(f).zip(i).zip(new) {
        *c = *f * *c + *i * *new;
    }
    if let Some(w) = peepholes {
        vec::mul_add(&w[n..2 * n], c, o);
    }
    clip(p.clip, o);
    dir.activations[0].apply(o);
    h.copy_from_slice(c);
    dir.activations[2].apply(h);
    vec::zip_in_place(Binary::Mul, h, o);
}

multiversion! {
    fn lstm_fused = lstm_fused_body(g: &[f32], c: &mut [f32], h: &mut [f32]);
    fn gru_fused = gru_fused_body(g: &[f32], aside: &[f32], h: &mut [f32]);
}

#[inline(always)]
fn lstm_fused_body<const FMA: bool>(g: &[f32], c: &mut [f32], h: &mut [f32]) {
    let n = h.len();
    let (i, o, f, new) = (&g[..n], &g[n..2 * n], &g[2 * n..3 * n], &g[3 * n..4 * n]);
    let c = &mut c[..n];
    for j in 0..n {
        let kept = math::sigmoid::<FMA>(f[j]) * c[j];
        let v = fma::<FMA>(math::sigmoid::<FMA>(i[j]), math::tanh::<FMA>(new[j]), kept);
        c[j] = v;
        h[j] = math::sigmoid::<FMA>(o[j]) * math::tanh::<FMA>(v);
    }
}

#[inline(always)]
fn gru_fused_body<const FMA: bool>(g: &[f32], aside: &[f32], h: &mut [f32]) {
    let n = h.len();
    let (z, r, m) = (&g[..n], &g[n..2 * n], &g[2 * n..3 * n]);
    let aside = &aside[..n];
    for j in 0..n {
        let z = math::sigmoid::<FMA>(z[j]);
        let new = math::tanh::<FMA>(fma::<FMA>(math::sigmoid::<FMA>(r[j]), m[j], aside[j]));
        h[j] = fma::<FMA>(z, h[j] - new, new);
    }
}

/// The left operand: n rows of k floats.
#[derive(Clone, Copy)]
struct Rows<'a> {
    x: &'a [f32],
    n: usize,
    k: usize,
}

/// out[i, first + j] += sum over k of x[i, k] * w[k, j] for `columns` columns of packed panels; `parts` tasks.
#[allow(clippy::too_many_arguments)]
fn product(isa: Isa, x: Rows<'_>, w: &[f32], first: usize, columns: usize, out: &mut [f32], stride: usize, parts: usize) {
    let n_panels = panels(columns);
    assert!(x.x.len() >= x.n * x.k && w.len() >= n_panels * PANEL * x.k && first + columns <= stride, "sizes of a cell");
    let out = SharedMut::new(out);
    let part = |i: usize| {
        for panel in i * n_panels / parts..(i + 1) * n_panels / parts {
            let j0 = panel * PANEL;
            let tile = Tile {
                k: x.k,
                x: x.x,
                w: &w[panel * PANEL * x.k..][..PANEL * x.k],
                columns: PANEL.min(columns - j0),
                stride,
            };
            let mut row = 0;
            while row < x.n {
                let left = x.n - row;
                let rows = if isa == Isa::Avx512 && left >= 4 { 4 } else if isa == Isa::Avx512 && left >= 2 { 2 } else { 1 };
                let len = (rows - 1) * stride + tile.columns;
                for_tile(isa, rows, &tile, row, &out, row * stride + first + j0, len);
                row += rows;
            }
        }
    };
    if parts <= 1 { part(0) } else { for_each_task(parts, part) }
}

/// One panel of weights.
struct Tile<'a> {
    k: usize,
    x: &'a [f32],
    w: &'a [f32],
    /// Columns to add to, at most [`PANEL`].
    columns: usize,
    /// Floats between two rows of the result.
    stride: usize,
}

/// Adds the product of `rows` rows to the result at `at`. Several rows interleave with columns of other tasks, so that
/// each row is a part of its own.
fn for_tile(isa: Isa, rows: usize, t: &Tile<'_>, row: usize, out: &SharedMut<f32>, at: usize, len: usize) {
    assert!(at + len <= out.1 && (row + rows) * t.k <= t.x.len(), "a tile outside of its operands");
    let x = &t.x[row * t.k..][..rows * t.k];
    let mut sums = [[0f32; PANEL]; ROWS];
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => {
            // SAFETY: an `Isa` is only made for what the machine was found to have.
            unsafe {
                match rows {
                    4 => sums_avx512::<4>(x, t.k, t.w, &mut sums),
                    2 => sums_avx512::<2>(x, t.k, t.w, &mut sums),
                    _ => sums_avx512::<1>(x, t.k, t.w, &mut sums),
                }
            }
        }
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Isa::Avx2 => unsafe { sums_avx2(x, t.w, &mut sums[0]) },
        _ => sums_plain(x, t.w, &mut sums[0]),
    }
    for (i, sums) in sums[..rows].iter().enumerate() {
        // SAFETY: columns of one panel and rows of one batch chunk belong to one task.
        let y = unsafe { out.slice(at + i * t.stride, t.columns) };
        vec::zip_in_place(Binary::Add, y, &sums[..t.columns]);
    }
}

fn sums_plain(x: &[f32], w: &[f32], sums: &mut [f32; PANEL]) {
    for (x, w) in x.iter().zip(w.chunks_exact(PANEL)) {
        for (s, w) in sums.iter_mut().zip(w) {
            *s += x * w;
        }
    }
}

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

/// # Safety
/// The machine has AVX2 and FMA.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn sums_avx2(x: &[f32], w: &[f32], sums: &mut [f32; PANEL]) {
    assert!(w.len() >= x.len() * PANEL, "a panel is too short");
    let mut acc = [_mm256_setzero_ps(); 8];
    for (k, x) in x.iter().enumerate() {
        let value = _mm256_set1_ps(*x);
        for (v, acc) in acc.iter_mut().enumerate() {
            // SAFETY: inside of the panel by the assertion.
            let w = unsafe { _mm256_loadu_ps(w.as_ptr().add(k * PANEL + 8 * v)) };
            *acc = _mm256_fmadd_ps(value, w, *acc);
        }
    }
    for (v, acc) in acc.iter().enumerate() {
        // SAFETY: 8 vectors of 8 are the array.
        unsafe { _mm256_storeu_ps(sums.as_mut_ptr().add(8 * v), *acc) };
    }
}

/// # Safety
/// The machine has AVX-512F.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
unsafe fn sums_avx512<const R: usize>(x: &[f32], k: usize, w: &[f32], sums: &mut [[f32; PANEL]; ROWS]) {
    assert!(w.len() >= k * PANEL && x.len() >= R * k && R <= ROWS, "a panel is too short");
    let mut acc = [[_mm512_setzero_ps(); 4]; R];
    for kk in 0..k {
        // SAFETY: inside of the panel and of the rows by the assertion.
        unsafe {
            let w = w.as_ptr().add(kk * PANEL);
            let w = [_mm512_loadu_ps(w), _mm512_loadu_ps(w.add(16)), _mm512_loadu_ps(w.add(32)), _mm512_loadu_ps(w.add(48))];
            for (i, acc) in acc.iter_mut().enumerate() {
                let value = _mm512_set1_ps(*x.get_unchecked(i * k + kk));
                for (acc, w) in acc.iter_mut().zip(w) {
                    *acc = _mm512_fmadd_ps(value, w, *acc);
                }
            }
        }
    }
    for (acc, sums) in acc.iter().zip(sums.iter_mut()) {
        for (v, acc) in acc.iter().enumerate() {
            // SAFETY: 4 vectors of 16 are the array.
            unsafe { _mm512_storeu_ps(sums.as_mut_ptr().add(16 * v), *acc) };
        }
    }
}
