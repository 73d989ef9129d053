//! Quantized products on the CPU: rows of a are packed when the step runs, a constant b once; each tile of sums is
//! corrected for the zero points and finished while it is in cache.

use super::QMatMul;
use crate::base::{DType, Result};
use crate::device::cpu::igemm::{
    ByteDot, MAX_MR, MAX_NR, QuantRange, correct, flip_a, flip_b, requantize, zero_in_a, zero_in_b,
};
use crate::device::cpu::{Isa, SharedMut, for_each_task, with_bytes};
use crate::internal;
use crate::ops::matmul::MatMulGeometry;
use crate::ops::requant::{self, QOut, Spread};
use crate::ops::{CpuArgs, CpuStep, PackCache, Packed, Problem};
use std::sync::Arc;

/// Multiply-adds below which a product is not worth a second thread.
const SMALL: usize = 1 << 16;
/// Rows and panels of one task.
const TASK_ROWS: usize = 64;
const TASK_PANELS: usize = 4;

/// Matrices of b in panels, one after the other, and the sums of their columns.
struct PackedB {
    words: Vec<i32>,
    sums: Vec<i32>,
}

struct Product {
    g: MatMulGeometry,
    dot: ByteDot,
    trans_a: bool,
    trans_b: bool,
    alpha: f32,
    out: QOut,
    a_signed: bool,
    b_signed: bool,
    y_signed: bool,
    int_bias: bool,
    n_a: usize,
    n_b: usize,
    packed_b: Option<Arc<PackedB>>,
    /// By input: elements and how they lie; `None` where absent.
    params: Vec<Option<(usize, Spread)>>,
}

pub(super) fn cpu(op: &QMatMul, p: &Problem, pack: &dyn PackCache) -> Result<Option<Box<dyn CpuStep>>> {
    let (Some(a), Some(b), Some(y)) = (p.input(0), p.input(1), p.outputs.first()) else { return Ok(None) };
    let g = op.geometry(&a.dims, &b.dims, &y.dims);
    let spread = |i: usize| p.input(i).map(|d| (d.numel(), Spread::new(&d.dims, &y.dims)));
    let mut s = Product {
        dot: ByteDot::detect(),
        trans_a: op.trans_a,
        trans_b: op.trans_b,
        alpha: op.alpha,
        out: op.out,
        a_signed: a.dtype == DType::I8,
        b_signed: b.dtype == DType::I8,
        y_signed: y.dtype == DType::I8,
        int_bias: p.input(requant::BIAS).is_some_and(|b| b.dtype == DType::I32),
        n_a: matrices(&a.dims),
        n_b: matrices(&b.dims),
        packed_b: None,
        params: (0..requant::N_INPUTS).map(|i| if i < 2 { None } else { spread(i) }).collect(),
        g,
    };
    if let (Some(t), true) = (p.known(1), y.numel() > 0) {
        let make = &mut || {
            let (n_words, n_sums) = s.b_sizes();
            let mut packed = PackedB { words: vec![0; n_words], sums: vec![0; n_sums] };
            s.pack_b(t.bytes(), &mut packed.words, &mut packed.sums);
            Arc::new(packed) as Packed
        };
        let packed = pack.get_or_pack("qmatmul_b", make);
        s.packed_b = Some(packed.downcast().map_err(|_| internal!("the pack cache mixed up its slots"))?);
    }
    s.join_rows();
    Ok(Some(Box::new(s)))
}

fn matrices(dims: &[usize]) -> usize {
    dims[..dims.len() - 2].iter().product()
}

impl Product {
    /// A batch that shares b and all parameters is one tall product.
    fn join_rows(&mut self) {
        let shared = |s: &Spread| s.batch.iter().all(|b| *b == 0);
        let fits = |(i, p): (usize, &Option<(usize, Spread)>)| {
            let of_b = matches!(i, requant::W_ZERO | requant::W_SCALE);
            p.as_ref().is_none_or(|(_, s)| shared(s) && (of_b || s.row == 0))
        };
        let g = &self.g;
        let rows_follow = !self.trans_a && g.uniform_step(&g.a_steps) == Some(1);
        if g.n_batch() > 1 && rows_follow && g.uniform_step(&g.b_steps) == Some(0) && self.params.iter().enumerate().all(fits) {
            self.n_a = 1;
            self.g = MatMulGeometry { m: g.m * g.n_batch(), batch: vec![], a_steps: vec![], b_steps: vec![], ..*g };
        }
    }

    fn words(&self) -> usize {
        self.dot.words(self.g.k)
    }

    /// Numbers of words and of sums of all matrices of b.
    fn b_sizes(&self) -> (usize, usize) {
        let columns = self.dot.panels(self.g.n) * self.dot.nr;
        (self.n_b * columns * self.words(), self.n_b * columns)
    }

    fn a_sizes(&self) -> (usize, usize) {
        (self.n_a * self.g.m * self.words(), self.n_a * self.g.m)
    }

    fn tasks(&self, n: usize, f: impl Fn(usize) + Sync + Send) {
        let g = &self.g;
        let work = g.n_batch().saturating_mul(g.m).saturating_mul(g.n).saturating_mul(g.k);
        if work < SMALL { (0..n).for_each(f) } else { for_each_task(n, f) }
    }

    fn pack_a(&self, a: &[u8], words: &mut [i32], sums: &mut [i32]) {
        let (m, k, n_words) = (self.g.m, self.g.k, self.words());
        let (words, sums) = (SharedMut::new(words), SharedMut::new(sums));
        let rows = self.n_a * m;
        let flip = flip_a(self.a_signed);
        self.tasks(rows.div_ceil(TASK_ROWS), |task| {
            for row in task * TASK_ROWS..((task + 1) * TASK_ROWS).min(rows) {
                let (start, stride) = if self.trans_a { (row / m * m * k + row % m, m) } else { (row * k, 1) };
                // SAFETY: each row has words and a sum of its own.
                let (out, sum) = unsafe { (words.slice(row * n_words, n_words), sums.slice(row, 1)) };
                sum[0] = self.dot.pack_row(&a[start..], stride, k, flip, out);
            }
        });
    }

    fn pack_b(&self, b: &[u8], words: &mut [i32], sums: &mut [i32]) {
        let (n, k, nr, n_words) = (self.g.n, self.g.k, self.dot.nr, self.words());
        let (words, sums) = (SharedMut::new(words), SharedMut::new(sums));
        let panels = self.dot.panels(n);
        let flip = flip_b(self.b_signed);
        self.tasks(self.n_b * panels, |task| {
            let (matrix, j0) = (task / panels * k * n, task % panels * nr);
            let columns = nr.min(n - j0);
            with_bytes(n_words * self.dot.per_word * nr, |rows| {
                // Columns past the last one are never stored; what stands there does not matter.
                for l in 0..k {
                    let row = &mut rows[l * nr..][..columns];
                    if self.trans_b {
                        row.iter_mut().enumerate().for_each(|(j, v)| *v = b[matrix + (j0 + j) * k + l]);
                    } else {
                        row.copy_from_slice(&b[matrix + l * n + j0..][..columns]);
                    }
                }
                // SAFETY: each panel has words and sums of its own.
                let (out, sums) = unsafe { (words.slice(task * n_words * nr, n_words * nr), sums.slice(task * nr, nr)) };
                self.dot.pack_panel(rows, k, flip, out, sums);
            });
        });
    }
}

/// Parameters where they lie while a step runs.
struct Bound<'a> {
    s: &'a Product,
    bytes: [&'a [u8]; requant::N_INPUTS],
}

impl<'a> Bound<'a> {
    fn at(&self, i: usize, batch: usize, row: usize, col: usize) -> Option<usize> {
        let (_, s) = self.s.params[i].as_ref()?;
        Some(s.base(&self.s.g.batch, batch) + row * s.row + col * s.col)
    }

    fn byte(&self, i: usize, batch: usize, row: usize, col: usize) -> u8 {
        self.at(i, batch, row, col).map_or(0, |at| self.bytes[i][at])
    }

    fn word(&self, i: usize, at: usize) -> [u8; 4] {
        let b = &self.bytes[i][4 * at..4 * at + 4];
        [b[0], b[1], b[2], b[3]]
    }

    fn float(&self, i: usize, batch: usize, row: usize, col: usize) -> f32 {
        self.at(i, batch, row, col).map_or(1.0, |at| f32::from_ne_bytes(self.word(i, at)))
    }

    fn int(&self, i: usize, batch: usize, row: usize, col: usize) -> i32 {
        self.at(i, batch, row, col).map_or(0, |at| i32::from_ne_bytes(self.word(i, at)))
    }

    fn varies(&self, i: usize, rows: bool) -> bool {
        self.s.params[i].as_ref().is_some_and(|(_, s)| if rows { s.row != 0 } else { s.col != 0 })
    }
}

impl CpuStep for Product {
    fn name(&self) -> String {
        let g = &self.g;
        format!("qgemm_{}x{}x{}_{}", g.m, g.n, g.k, self.out.name())
    }

    fn workspace(&self) -> usize {
        let ((a, sums), (b, b_sums)) = (self.a_sizes(), self.b_sizes());
        4 * (a + sums + if self.packed_b.is_some() { 0 } else { b + b_sums })
    }

    unsafe fn run(&self, args: &CpuArgs<'_>) {
        let g = &self.g;
        let total = g.n_batch() * g.m * g.n;
        if total == 0 {
            return;
        }
        // SAFETY: the caller's addresses are valid for the shapes that these lengths come from.
        let bytes = |i: usize, n: usize| -> &[u8] {
            match args.inputs.get(i) {
                Some(p) if !p.is_null() && n > 0 => unsafe { std::slice::from_raw_parts(*p, n) },
                _ => &[],
            }
        };
        let width = |i: usize| if matches!(i, requant::X_ZERO | requant::W_ZERO | requant::Y_ZERO) { 1 } else { 4 };
        let bound = Bound {
            s: self,
            bytes: std::array::from_fn(|i| match &self.params[i] {
                Some((n, _)) => bytes(i, n * width(i)),
                None => &[],
            }),
        };
        let (a_words, a_sums) = self.a_sizes();
        let (b_words, b_sums) = if self.packed_b.is_some() { (0, 0) } else { self.b_sizes() };
        // SAFETY: the workspace has this many words, and nobody else uses it while the step runs.
        let work = unsafe { words_of(args.work, a_words + a_sums + b_words + b_sums) };
        let (aw, rest) = work.split_at_mut(a_words);
        let (asum, rest) = rest.split_at_mut(a_sums);
        self.pack_a(bytes(0, self.n_a * g.m * g.k), aw, asum);
        let (bw, bsum): (&[i32], &[i32]) = match &self.packed_b {
            Some(p) => (&p.words, &p.sums),
            None => {
                let (w, s) = rest.split_at_mut(b_words);
                self.pack_b(bytes(1, self.n_b * g.k * g.n), w, s);
                (w, s)
            }
        };
        let y = SharedMut(args.outputs[0], total * if self.out == QOut::Quantized { 1 } else { 4 });
        let (row_blocks, panels) = (g.m.div_ceil(TASK_ROWS), self.dot.panels(g.n));
        let panel_blocks = panels.div_ceil(TASK_PANELS);
        self.tasks(g.n_batch() * row_blocks * panel_blocks, |task| {
            let (batch, block) = (task / (row_blocks * panel_blocks), task % (row_blocks * panel_blocks));
            let (rows, first) = (block / panel_blocks * TASK_ROWS, block % panel_blocks * TASK_PANELS);
            let operands = Operands { aw, asum: &*asum, bw, bsum };
            for panel in first..(first + TASK_PANELS).min(panels) {
                self.block(&bound, &operands, batch, rows..(rows + TASK_ROWS).min(g.m), panel, &y);
            }
        });
    }
}

/// # Safety
/// The address is aligned for and valid for `n` words that nothing else refers to.
unsafe fn words_of<'a>(address: *mut u8, n: usize) -> &'a mut [i32] {
    if n == 0 {
        return &mut [];
    }
    // SAFETY: the caller's promise.
    unsafe { std::slice::from_raw_parts_mut(address.cast(), n) }
}

struct Operands<'a> {
    aw: &'a [i32],
    asum: &'a [i32],
    bw: &'a [i32],
    bsum: &'a [i32],
}

impl Product {
    /// Some rows of one panel of columns.
    fn block(&self, p: &Bound<'_>, o: &Operands<'_>, batch: usize, rows: std::ops::Range<usize>, panel: usize, y: &SharedMut<u8>) {
        let (g, dot, words) = (&self.g, &self.dot, self.words());
        let isa = Isa::detect();
        let (ma, mb) = (g.matrix(&g.a_steps, batch), g.matrix(&g.b_steps, batch));
        let j0 = panel * dot.nr;
        let n = dot.nr.min(g.n - j0);
        let at = mb * dot.panels(g.n) + panel;
        let b: &[i32] = if words == 0 { &[] } else { &o.bw[at * words * dot.nr..][..words * dot.nr] };
        let sums = &o.bsum[at * dot.nr..][..dot.nr];
        let bz_of = |j: usize| zero_in_b(p.byte(requant::W_ZERO, batch, 0, j0 + j), self.b_signed);
        let each_bz = p.varies(requant::W_ZERO, false);
        let mut bz = [0i32; MAX_NR];
        if each_bz {
            bz[..n].iter_mut().enumerate().for_each(|(j, v)| *v = bz_of(j));
        } else {
            bz[0] = bz_of(0);
        }
        let mut scale = [0f32; MAX_NR];
        let by_row = [requant::X_SCALE, requant::Y_SCALE].iter().any(|i| p.varies(*i, true));
        let scales = |row: usize, scale: &mut [f32; MAX_NR]| {
            for (j, v) in scale[..n].iter_mut().enumerate() {
                let float = |i: usize| p.float(i, batch, row, j0 + j);
                *v = self.alpha * float(requant::X_SCALE) * float(requant::W_SCALE);
                if self.out == QOut::Quantized {
                    *v /= float(requant::Y_SCALE);
                }
            }
        };
        if self.out != QOut::I32 && !by_row {
            scales(0, &mut scale);
        }
        let mut tile = [0i32; MAX_MR * MAX_NR];
        for i0 in rows.clone().step_by(dot.mr) {
            let n_rows = dot.mr.min(rows.end - i0);
            let a = &o.aw[(ma * g.m + i0) * words..];
            dot.tile(n_rows, words, a, words, b, &mut tile);
            for i in 0..n_rows {
                let row = i0 + i;
                let values = &mut tile[i * dot.nr..][..n];
                let az = zero_in_a(p.byte(requant::X_ZERO, batch, row, 0), self.a_signed);
                let t = (g.k as i32).wrapping_mul(az).wrapping_sub(o.asum[ma * g.m + row]);
                if each_bz {
                    correct(isa, values, 0, az, sums, t, &bz[..n]);
                } else {
                    correct(isa, values, t.wrapping_mul(bz[0]), az, sums, 0, &[]);
                }
                if self.int_bias {
                    for (j, v) in values.iter_mut().enumerate() {
                        *v = v.wrapping_add(p.int(requant::BIAS, batch, row, j0 + j));
                    }
                }
                if self.out != QOut::I32 && by_row {
                    scales(row, &mut scale);
                }
                self.store(p, isa, batch, row, j0, values, &scale[..n], y);
            }
        }
    }

    #[allow(clippy::too_many_arguments)]
    fn store(&self, p: &Bound<'_>, isa: Isa, batch: usize, row: usize, j0: usize, values: &[i32], scale: &[f32], y: &SharedMut<u8>) {
        let at = (batch * self.g.m + row) * self.g.n + j0;
        let n = values.len();
        if self.out == QOut::Quantized {
            // SAFETY: each task has rows and columns of its own.
            let out = unsafe { y.slice(at, n) };
            let range = |j: usize| QuantRange::new(p.byte(requant::Y_ZERO, batch, row, j), self.y_signed);
            if p.varies(requant::Y_ZERO, false) {
                for (j, out) in out.iter_mut().enumerate() {
                    *out = range(j0 + j).quantize(values[j] as f32 * scale[j]);
                }
            } else {
                requantize(isa, values, scale, range(0), out);
            }
            return;
        }
        // SAFETY: as above.
        let out = unsafe { y.slice(4 * at, 4 * n) };
        let float_bias = !self.int_bias && self.params[requant::BIAS].is_some();
        for (j, out) in out.chunks_exact_mut(4).enumerate() {
            let bytes = if self.out == QOut::I32 {
                values[j].to_ne_bytes()
            } else {
                let bias = if float_bias { p.float(requant::BIAS, batch, row, j0 + j) } else { 0.0 };
                (values[j] as f32 * scale[j] + bias).to_ne_bytes()
            };
            out.copy_from_slice(&bytes);
        }
    }
}
