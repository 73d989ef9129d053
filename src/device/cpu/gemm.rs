//! Matrix products in f32: C = A B, plus bias, plus C's old contents; one product or a batch.
//!
//! C is row-major with a row stride; A and B have any strides or are packed once ([`pack_a`], [`pack_b`]) in the order
//! that the microkernel reads. C is cut into blocks of rows and columns, one task each; a task packs the block of B that
//! it needs into its thread's scratch, k in slices of at most 512, and reads A in place. The sum over k has a fixed order,
//! so a result does not depend on the number of threads.
//!
//! After the last slice of k each finished row piece of a task is handed to the epilogue while it is in the cache.
//! Nothing is allocated once the threads' scratch has its size (at most 512 x 256 floats).

use super::microkernel::{Init, MAX_NR, Microkernel, Tile};
use super::scratch::{AlignedVec, with_scratch};
use super::{Isa, SharedMut, for_each_task, n_threads};

/// Called with (row, first column, the finished values): once for each contiguous piece of a row of C.
pub type GemmEpilogue<'a> = dyn Fn(usize, usize, &mut [f32]) + Sync + 'a;

/// Rows of A in panels, as the microkernel reads them. Made by [`pack_a`].
#[derive(Debug)]
pub struct PackedA {
    isa: Isa,
    m: usize,
    k: usize,
    data: AlignedVec,
}

/// Columns of B in panels, as the microkernel reads them. Made by [`pack_b`].
#[derive(Debug)]
pub struct PackedB {
    isa: Isa,
    k: usize,
    n: usize,
    data: AlignedVec,
}

/// The left operand, m x k.
#[derive(Clone, Copy, Debug)]
pub enum MatA<'a> {
    /// Element (i, k) stands at `i * row_stride + k * col_stride`.
    Strided { data: &'a [f32], row_stride: usize, col_stride: usize },
    Packed(&'a PackedA),
}

/// The right operand, k x n.
#[derive(Clone, Copy, Debug)]
pub enum MatB<'a> {
    /// Element (k, j) stands at `k * row_stride + j * col_stride`.
    Strided { data: &'a [f32], row_stride: usize, col_stride: usize },
    Packed(&'a PackedB),
}

/// What is added to the product.
#[derive(Clone, Copy, Debug)]
pub enum Bias<'a> {
    None,
    /// m values.
    PerRow(&'a [f32]),
    /// n values.
    PerCol(&'a [f32]),
}

/// One product.
#[derive(Clone, Copy, Debug)]
pub struct Gemm<'a> {
    pub m: usize,
    pub n: usize,
    pub k: usize,
    pub a: MatA<'a>,
    pub b: MatB<'a>,
    pub bias: Bias<'a>,
    /// Add to what C holds (beta = 1) instead of overwriting it (beta = 0).
    pub accumulate: bool,
    /// Floats from one row of C to the next, at least n.
    pub c_row_stride: usize,
}

/// Where one product of a batch starts, in floats. The offset of a packed operand is not used.
#[derive(Clone, Copy, Debug, Default)]
pub struct BatchOffsets {
    pub a: usize,
    pub b: usize,
    pub c: usize,
}

/// Packs an m x k matrix for use as A, once for many products.
pub fn pack_a(m: usize, k: usize, data: &[f32], row_stride: usize, col_stride: usize) -> PackedA {
    pack_a_for(Isa::detect(), m, k, data, row_stride, col_stride)
}

pub(crate) fn pack_a_for(isa: Isa, m: usize, k: usize, data: &[f32], row_stride: usize, col_stride: usize) -> PackedA {
    check_extent("A", m, k, row_stride, col_stride, data.len());
    let mr = Microkernel::of(isa).mr;
    let mut packed = AlignedVec::zeroed(m.div_ceil(mr) * mr * k);
    let out = packed.as_mut_slice();
    for i in 0..m {
        let panel = (i / mr) * mr * k + i % mr;
        for kk in 0..k {
            out[panel + kk * mr] = data[i * row_stride + kk * col_stride];
        }
    }
    PackedA { isa, m, k, data: packed }
}

impl PackedA {
    /// Panel `i`: rows `i * mr ..` of the matrix.
    pub(crate) fn panel(&self, i: usize) -> *const f32 {
        let mr = Microkernel::of(self.isa).mr;
        self.data.as_slice()[i * mr * self.k..].as_ptr()
    }
}

/// Packs a k x n matrix for use as B, once for many products.
pub fn pack_b(k: usize, n: usize, data: &[f32], row_stride: usize, col_stride: usize) -> PackedB {
    pack_b_for(Isa::detect(), k, n, data, row_stride, col_stride)
}

pub(crate) fn pack_b_for(isa: Isa, k: usize, n: usize, data: &[f32], row_stride: usize, col_stride: usize) -> PackedB {
    check_extent("B", k, n, row_stride, col_stride, data.len());
    let nr = Microkernel::of(isa).nr;
    let mut packed = AlignedVec::zeroed(n.div_ceil(nr) * nr * k);
    let b = StridedB { data, row_stride, col_stride };
    b.pack(0..k, 0..n, nr, packed.as_mut_slice());
    PackedB { isa, k, n, data: packed }
}

fn check_extent(what: &str, rows: usize, cols: usize, row_stride: usize, col_stride: usize, len: usize) {
    if rows > 0 && cols > 0 {
        let need = (rows - 1) * row_stride + (cols - 1) * col_stride + 1;
        assert!(need <= len, "{what} of {rows} x {cols} with strides {row_stride}, {col_stride} needs {need} floats, got {len}");
    }
}

#[derive(Clone, Copy)]
struct StridedB<'a> {
    data: &'a [f32],
    row_stride: usize,
    col_stride: usize,
}

impl StridedB<'_> {
    /// Writes panels of `nr` columns, each k-major; missing columns of the last panel are 0.
    fn pack(&self, ks: std::ops::Range<usize>, cols: std::ops::Range<usize>, nr: usize, out: &mut [f32]) {
        let kc = ks.len();
        for (p, j0) in cols.clone().step_by(nr).enumerate() {
            let width = nr.min(cols.end - j0);
            let panel = &mut out[p * kc * nr..(p + 1) * kc * nr];
            if self.col_stride == 1 {
                for (row, k) in panel.chunks_exact_mut(nr).zip(ks.clone()) {
                    let start = k * self.row_stride + j0;
                    row[..width].copy_from_slice(&self.data[start..start + width]);
                    row[width..].fill(0.0);
                }
                continue;
            }
            // A transpose: short runs of k keep the panel's lines in the first cache while the columns are walked.
            for k0 in (0..kc).step_by(16) {
                let run = 16.min(kc - k0);
                for j in 0..nr {
                    let rows = panel[k0 * nr..(k0 + run) * nr].chunks_exact_mut(nr);
                    if j >= width {
                        rows.for_each(|r| r[j] = 0.0);
                        continue;
                    }
                    let column = &self.data[(j0 + j) * self.col_stride + (ks.start + k0) * self.row_stride..];
                    for (row, value) in rows.zip(column.iter().step_by(self.row_stride.max(1))) {
                        row[j] = *value;
                    }
                }
            }
        }
    }
}

/// Most of k that one pass takes.
const K_BLOCK: usize = 512;
/// Work of a task below which splitting it further does not pay, in multiply-adds.
const MIN_TASK_WORK: usize = 1 << 18;

/// C = A B (+ bias) (+ C).
///
/// # Panics
/// If a slice is too short for its sizes and strides, or a packed operand has another size.
pub fn gemm_f32(g: &Gemm, c: &mut [f32]) {
    gemm_f32_with(g, c, None);
}

/// Like [`gemm_f32`], with an epilogue for each finished piece of a row.
pub fn gemm_f32_with(g: &Gemm, c: &mut [f32], epilogue: Option<&GemmEpilogue>) {
    let with_batch = epilogue.map(|e| move |_: usize, row: usize, col: usize, values: &mut [f32]| e(row, col, values));
    let with_batch = with_batch.as_ref().map(|e| e as &BatchEpilogue);
    gemm_f32_batched(g, 1, &|_| BatchOffsets::default(), c, with_batch);
}

/// Called with (product, row, first column, the finished values).
pub type BatchEpilogue<'a> = dyn Fn(usize, usize, usize, &mut [f32]) + Sync + 'a;

/// `n_batch` products of the same sizes and strides; `offsets(i)` says where product i starts in A, B and C. The
/// products' parts of C must not overlap. Offsets may repeat in A and B (broadcasting).
///
/// # Panics
/// See [`gemm_f32`].
pub fn gemm_f32_batched(
    g: &Gemm,
    n_batch: usize,
    offsets: &(dyn Fn(usize) -> BatchOffsets + Sync),
    c: &mut [f32],
    epilogue: Option<&BatchEpilogue>,
) {
    if g.m == 0 || g.n == 0 || n_batch == 0 {
        return;
    }
    assert!(g.c_row_stride >= g.n || g.m == 1, "row stride {} of C is less than its {} columns", g.c_row_stride, g.n);
    match g.bias {
        Bias::PerRow(b) => assert_eq!(b.len(), g.m, "a bias per row needs {} values, got {}", g.m, b.len()),
        Bias::PerCol(b) => assert_eq!(b.len(), g.n, "a bias per column needs {} values, got {}", g.n, b.len()),
        Bias::None => {}
    }
    let isa = match (g.a, g.b) {
        (MatA::Packed(a), MatB::Packed(b)) => {
            assert_eq!(a.isa, b.isa, "A and B are packed for different instruction sets");
            a.isa
        }
        (MatA::Packed(a), _) => a.isa,
        (_, MatB::Packed(b)) => b.isa,
        _ => Isa::detect(),
    };
    run(isa, g, n_batch, offsets, c, epilogue);
}

/// Rows and columns of a task's block.
fn choose_blocks(g: &Gemm, n_batch: usize, kernel: &Microkernel) -> (usize, usize) {
    let (mut rows, mut cols) = (g.m.next_multiple_of(kernel.mr), g.n.min(128).next_multiple_of(kernel.nr));
    let threads = n_threads();
    if threads == 1 {
        return (rows, cols);
    }
    let n_tasks = |rows: usize, cols: usize| n_batch * g.m.div_ceil(rows) * g.n.div_ceil(cols);
    while n_tasks(rows, cols) < 4 * threads && rows.min(g.m) * cols.min(g.n) * g.k.max(1) > 2 * MIN_TASK_WORK {
        if rows > cols && rows > kernel.mr || cols <= kernel.nr {
            if rows <= kernel.mr {
                break;
            }
            rows = (rows / 2).next_multiple_of(kernel.mr);
        } else {
            cols = (cols / 2).next_multiple_of(kernel.nr);
        }
    }
    // Too little work to share: one task takes all columns in turn.
    if n_batch * g.m * g.n * g.k < MIN_TASK_WORK { (rows, g.n.next_multiple_of(kernel.nr)) } else { (rows, cols) }
}

fn run(
    isa: Isa,
    g: &Gemm,
    n_batch: usize,
    offsets: &(dyn Fn(usize) -> BatchOffsets + Sync),
    c: &mut [f32],
    epilogue: Option<&BatchEpilogue>,
) {
    let kernel = Microkernel::of(isa);
    let (rows, cols) = choose_blocks(g, n_batch, &kernel);
    let (n_row_blocks, n_col_blocks) = (g.m.div_ceil(rows), g.n.div_ceil(cols));
    let c = SharedMut::new(c);
    let per_batch = n_row_blocks * n_col_blocks;
    let is_small = n_batch * g.m * g.n * g.k < MIN_TASK_WORK;
    let task = |i: usize| {
        let (batch, block) = (i / per_batch, i % per_batch);
        // Neighbouring tasks share columns, so that a packed B stays in the shared cache.
        let (i0, j0) = ((block % n_row_blocks) * rows, (block / n_row_blocks) * cols);
        let block = Block { i0, i1: (i0 + rows).min(g.m), j0, j1: (j0 + cols).min(g.n) };
        block.compute(&kernel, g, batch, offsets(batch), c, epilogue);
    };
    if is_small { (0..n_batch * per_batch).for_each(task) } else { for_each_task(n_batch * per_batch, task) }
}

/// Rows i0..i1 and columns j0..j1 of C.
struct Block {
    i0: usize,
    i1: usize,
    j0: usize,
    j1: usize,
}

impl Block {
    fn compute(
        &self,
        kernel: &Microkernel,
        g: &Gemm,
        batch: usize,
        at: BatchOffsets,
        c: SharedMut<f32>,
        epilogue: Option<&BatchEpilogue>,
    ) {
        let n_slices = g.k.div_ceil(K_BLOCK).max(1);
        let k_block = g.k.div_ceil(n_slices);
        let width = (self.j1 - self.j0).next_multiple_of(kernel.nr);
        let scratch = if matches!(g.b, MatB::Strided { .. }) { k_block * width } else { 0 };
        // The extent of this product in C, once, so that the tiles below may use plain pointers.
        let c_end = at.c + (g.m - 1) * g.c_row_stride + g.n;
        assert!(c_end <= c.1, "C of {} x {} at {} needs {c_end} floats, got {}", g.m, g.n, at.c, c.1);
        with_scratch(scratch + MAX_NR, |packed| {
            for slice in 0..n_slices {
                let ks = (slice * k_block).min(g.k)..((slice + 1) * k_block).min(g.k);
                if let MatB::Strided { data, row_stride, col_stride } = g.b {
                    let data = &data[at.b.min(data.len())..];
                    check_extent("B", g.k, g.n, row_stride, col_stride, data.len());
                    let b = StridedB { data, row_stride, col_stride };
                    let direct = if self.reads_b_in_place(kernel, col_stride) { self.whole_panels(kernel) } else { 0 };
                    b.pack(ks.clone(), self.j0 + direct..self.j1, kernel.nr, &mut packed[direct * ks.len()..]);
                }
                let is_last = slice + 1 == n_slices;
                for i in (self.i0..self.i1).step_by(kernel.mr) {
                    let n_rows = kernel.mr.min(self.i1 - i);
                    self.panel(kernel, g, at, c, ks.clone(), i, n_rows, packed.as_ptr());
                    for row in (i..i + n_rows).take_while(|_| is_last) {
                        // SAFETY: this task alone owns the columns of its block in its rows.
                        let values = unsafe { c.slice(at.c + row * g.c_row_stride + self.j0, self.j1 - self.j0) };
                        if let Bias::PerCol(bias) = g.bias {
                            values.iter_mut().zip(&bias[self.j0..self.j1]).for_each(|(v, b)| *v += b);
                        }
                        if let Some(epilogue) = epilogue {
                            epilogue(batch, row, self.j0, values);
                        }
                    }
                }
            }
        });
    }

    /// Packing pays when several panels of rows read what was packed.
    fn reads_b_in_place(&self, kernel: &Microkernel, col_stride: usize) -> bool {
        col_stride == 1 && self.i1 - self.i0 <= kernel.mr
    }

    /// Columns in panels of full width, which may be read in place without leaving B.
    fn whole_panels(&self, kernel: &Microkernel) -> usize {
        (self.j1 - self.j0) / kernel.nr * kernel.nr
    }

    /// The tiles of one panel of rows, for one slice of k.
    #[expect(clippy::too_many_arguments, reason = "the loop nest's state, used in this one place")]
    fn panel(
        &self,
        kernel: &Microkernel,
        g: &Gemm,
        at: BatchOffsets,
        c: SharedMut<f32>,
        ks: std::ops::Range<usize>,
        i: usize,
        n_rows: usize,
        packed_b: *const f32,
    ) {
        let (a, a_row_stride, a_col_stride) = match g.a {
            MatA::Packed(p) => {
                assert!(p.m == g.m && p.k == g.k, "packed A is {} x {}, expected {} x {}", p.m, p.k, g.m, g.k);
                (p.panel(i / kernel.mr).wrapping_add(ks.start * kernel.mr), 0, 0)
            }
            MatA::Strided { data, row_stride, col_stride } => {
                let data = &data[at.a.min(data.len())..];
                check_extent("A", g.m, g.k, row_stride, col_stride, data.len());
                // One row has no row stride to step by; any number but 0 says "strided".
                let step = if row_stride == 0 && n_rows == 1 { 1 } else { row_stride };
                (data.as_ptr().wrapping_add(i * row_stride + ks.start * col_stride), step, col_stride)
            }
        };
        // Rows that are all the same row cannot be said by a stride of 0 (it means "packed"): one at a time then.
        let rows_at_once = if matches!(g.a, MatA::Strided { .. }) && a_row_stride == 0 { 1 } else { n_rows };
        for r in (0..n_rows).step_by(rows_at_once) {
            for (p, j) in (self.j0..self.j1).step_by(kernel.nr).enumerate() {
                let (b, b_row_stride) = match g.b {
                    MatB::Packed(b) => {
                        assert!(b.k == g.k && b.n == g.n, "packed B is {} x {}, expected {} x {}", b.k, b.n, g.k, g.n);
                        (b.data.as_slice()[(j / kernel.nr * b.k + ks.start) * kernel.nr..].as_ptr(), kernel.nr)
                    }
                    MatB::Strided { data, row_stride, col_stride }
                        if j + kernel.nr <= self.j1 && self.reads_b_in_place(kernel, col_stride) =>
                    {
                        (data.as_ptr().wrapping_add(at.b + ks.start * row_stride + j), row_stride)
                    }
                    MatB::Strided { .. } => (packed_b.wrapping_add(p * ks.len() * kernel.nr), kernel.nr),
                };
                let init = match g.bias {
                    _ if ks.start > 0 => Init::AddC,
                    Bias::PerRow(bias) if !g.accumulate => Init::Rows(bias[i + r..].as_ptr()),
                    _ if g.accumulate => Init::AddC,
                    _ => Init::Zero,
                };
                let tile = Tile {
                    k: ks.len(),
                    a,
                    a_row_stride: if rows_at_once < n_rows { 1 } else { a_row_stride },
                    a_col_stride,
                    b,
                    b_row_stride,
                    b_offsets: std::ptr::null(),
                    c: c.0.wrapping_add(at.c + (i + r) * g.c_row_stride + j),
                    c_row_stride: g.c_row_stride,
                    n: kernel.nr.min(self.j1 - j),
                    init,
                };
                // SAFETY: the extents of A, B and C were checked above; this task alone writes its block of C.
                unsafe { kernel.run(rows_at_once, &tile) };
            }
        }
        if let (Bias::PerRow(bias), true, 0) = (g.bias, g.accumulate, ks.start) {
            for row in i..i + n_rows {
                // SAFETY: this task alone owns the columns of its block in its rows.
                let values = unsafe { c.slice(at.c + row * g.c_row_stride + self.j0, self.j1 - self.j0) };
                values.iter_mut().for_each(|v| *v += bias[row]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Relative to the sum of magnitudes: f32 sums of up to a few thousand products.
    const SUM_TOLERANCE: f64 = 2e-6;

    fn values(n: usize, seed: u32) -> Vec<f32> {
        let mut s = seed.wrapping_mul(2654435761);
        let mut next = move || {
            s = s.wrapping_mul(1664525).wrapping_add(1013904223);
            (s >> 8) as f32 / (1 << 23) as f32 - 1.0
        };
        (0..n).map(|_| next()).collect()
    }

    #[derive(Clone, Copy, Debug)]
    enum Side {
        Rows,
        Transposed,
        Packed,
    }

    fn check(m: usize, n: usize, k: usize, a_side: Side, b_side: Side, isa: Isa) {
        let (a, b, old) = (values(m * k, 1), values(k * n, 2), values(m * (n + 3), 3));
        let (row_bias, col_bias) = (values(m, 4), values(n, 5));
        let pick = |side: Side, rows: usize, cols: usize| if matches!(side, Side::Transposed) { (1, rows) } else { (cols, 1) };
        let ((a_rs, a_cs), (b_rs, b_cs)) = (pick(a_side, m, k), pick(b_side, k, n));
        let packed_a = pack_a_for(isa, m, k, &a, a_rs, a_cs);
        let packed_b = pack_b_for(isa, k, n, &b, b_rs, b_cs);
        let mat_a = if matches!(a_side, Side::Packed) {
            MatA::Packed(&packed_a)
        } else {
            MatA::Strided { data: &a, row_stride: a_rs, col_stride: a_cs }
        };
        let mat_b = if matches!(b_side, Side::Packed) {
            MatB::Packed(&packed_b)
        } else {
            MatB::Strided { data: &b, row_stride: b_rs, col_stride: b_cs }
        };
        for bias in [Bias::None, Bias::PerRow(&row_bias), Bias::PerCol(&col_bias)] {
            for accumulate in [false, true] {
                let g = Gemm { m, n, k, a: mat_a, b: mat_b, bias, accumulate, c_row_stride: n + 3 };
                let mut c = if accumulate { old.clone() } else { vec![f32::NAN; old.len()] };
                let seen = parking_lot::Mutex::new(vec![0u8; m * n]);
                let epilogue = |_: usize, row: usize, col: usize, run: &mut [f32]| {
                    (0..run.len()).for_each(|j| seen.lock()[row * n + col + j] += 1);
                };
                run(isa, &g, 1, &|_| BatchOffsets::default(), &mut c, Some(&epilogue));
                assert!(seen.lock().iter().all(|v| *v == 1), "the epilogue sees each value once");
                for i in 0..m {
                    for j in 0..n {
                        let mut sum = match bias {
                            Bias::None => 0.0,
                            Bias::PerRow(b) => b[i] as f64,
                            Bias::PerCol(b) => b[j] as f64,
                        };
                        if accumulate {
                            sum += old[i * (n + 3) + j] as f64;
                        }
                        let mut magnitude = sum.abs() + 1e-3;
                        for kk in 0..k {
                            let v = a[i * a_rs + kk * a_cs] as f64 * b[kk * b_rs + j * b_cs] as f64;
                            sum += v;
                            magnitude += v.abs();
                        }
                        let got = c[i * (n + 3) + j] as f64;
                        assert!(
                            (got - sum).abs() <= SUM_TOLERANCE * magnitude,
                            "{m}x{n}x{k} {a_side:?} {b_side:?} {isa:?} {bias:?} at {i},{j}: expected {sum}, got {got}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn every_side_and_isa_at_tile_edges() {
        for isa in Isa::available() {
            for (m, n, k) in [(1, 1, 1), (1, 65, 7), (8, 32, 16), (9, 33, 17), (7, 31, 5), (13, 3, 40), (4, 24, 0), (3, 50, 1100)] {
                for a in [Side::Rows, Side::Transposed, Side::Packed] {
                    for b in [Side::Rows, Side::Transposed, Side::Packed] {
                        check(m, n, k, a, b, isa);
                    }
                }
            }
        }
    }

    #[test]
    fn large_products_are_cut_into_tasks() {
        check(150, 260, 90, Side::Rows, Side::Packed, Isa::detect());
        check(300, 40, 130, Side::Packed, Side::Rows, Isa::detect());
        check(20, 700, 70, Side::Transposed, Side::Transposed, Isa::detect());
    }

    #[test]
    fn empty_sides_write_nothing() {
        let a = MatA::Strided { data: &[], row_stride: 0, col_stride: 1 };
        let b = MatB::Strided { data: &[], row_stride: 5, col_stride: 1 };
        let mut c = vec![];
        gemm_f32(&Gemm { m: 0, n: 5, k: 0, a, b, bias: Bias::None, accumulate: false, c_row_stride: 5 }, &mut c);
        gemm_f32(&Gemm { m: 5, n: 0, k: 3, a, b, bias: Bias::None, accumulate: false, c_row_stride: 0 }, &mut c);
        let mut c = vec![9.0; 10];
        gemm_f32(&Gemm { m: 2, n: 5, k: 0, a, b, bias: Bias::PerRow(&[1.0, 2.0]), accumulate: false, c_row_stride: 5 }, &mut c);
        assert_eq!(c, [1.0, 1.0, 1.0, 1.0, 1.0, 2.0, 2.0, 2.0, 2.0, 2.0]);
    }

    #[test]
    fn a_batch_broadcasts_by_repeated_offsets() {
        let (m, n, k) = (5, 6, 7);
        let (a, b) = (values(3 * m * k, 1), values(k * n, 2));
        let mut c = vec![0.0; 3 * m * n];
        let g = Gemm {
            m,
            n,
            k,
            a: MatA::Strided { data: &a, row_stride: k, col_stride: 1 },
            b: MatB::Strided { data: &b, row_stride: n, col_stride: 1 },
            bias: Bias::None,
            accumulate: false,
            c_row_stride: n,
        };
        gemm_f32_batched(&g, 3, &|i| BatchOffsets { a: i * m * k, b: 0, c: i * m * n }, &mut c, None);
        for i in 0..3 {
            let mut one = vec![0.0; m * n];
            let a = MatA::Strided { data: &a[i * m * k..], row_stride: k, col_stride: 1 };
            gemm_f32(&Gemm { a, ..g }, &mut one);
            assert_eq!(one, c[i * m * n..(i + 1) * m * n]);
        }
    }

    #[test]
    fn one_row_of_a_repeated_by_a_zero_stride() {
        let (a, b) = (values(7, 1), values(7 * 9, 2));
        let mut c = vec![0.0; 3 * 9];
        let a = MatA::Strided { data: &a, row_stride: 0, col_stride: 1 };
        let b = MatB::Strided { data: &b, row_stride: 9, col_stride: 1 };
        gemm_f32(&Gemm { m: 3, n: 9, k: 7, a, b, bias: Bias::None, accumulate: false, c_row_stride: 9 }, &mut c);
        assert!(c[..9] == c[9..18] && c[..9] == c[18..] && c.iter().any(|v| *v != 0.0));
    }
}
