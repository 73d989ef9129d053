//! Matrix products on the CPU, f32: constant operands are packed once, a batch that shares its right operand becomes one
//! tall product, and a single row goes through a matrix-vector loop. `typed.rs` has the other types.

use super::{FIRST_EXTRA, MatMul, MatMulGeometry};
use crate::base::{DType, Result};
use crate::device::cpu::gemm::{BatchEpilogue, BatchOffsets, Bias, Gemm, MatA, MatB, PackedA, PackedB};
use crate::device::cpu::gemm::{gemm_f32_batched, pack_a, pack_b};
use crate::device::cpu::multiversion::{fma, multiversion};
use crate::device::cpu::{Isa, SharedMut, for_each_task};
use crate::internal;
use crate::ops::conv::{floats, optional_floats};
use crate::ops::epilogue::{BoundEpilogue, CpuEpilogue};
use crate::ops::{CpuArgs, CpuStep, PackCache, Packed, Problem};
use std::sync::Arc;

pub(super) fn cpu(op: &MatMul, p: &Problem, pack: &dyn PackCache) -> Result<Option<Box<dyn CpuStep>>> {
    let Some(mut g) = op.problem(p) else { return Ok(None) };
    if p.input(0).is_none_or(|d| d.dtype != DType::F32) {
        return super::typed::step(op, g, p, pack);
    }
    let Some(epilogue) = CpuEpilogue::new(op.epilogue.as_ref(), p, FIRST_EXTRA, pack)? else { return Ok(None) };
    let is_one = |steps: &[usize]| g.uniform_step(steps) == Some(0);
    // An empty operand has no matrix to pack.
    let packs = p.outputs.iter().all(|y| y.numel() > 0);
    let (one_a, one_b) = (packs && is_one(&g.a_steps), packs && is_one(&g.b_steps));
    let mut alpha = op.alpha;
    let (mut packed_a, mut packed_b) = (None, None);
    if let (Some(t), true) = (p.known(1), one_b) {
        let (strides, k, n) = (if op.trans_b { (1, g.k) } else { (g.n, 1) }, g.k, g.n);
        let make = &mut || {
            // The scale goes into the weights, where it costs nothing.
            let scaled: Vec<f32>;
            let mut values = t.slice::<f32>();
            if alpha != 1.0 {
                scaled = values.iter().map(|v| v * alpha).collect();
                values = &scaled;
            }
            Arc::new(pack_b(k, n, values, strides.0, strides.1)) as Packed
        };
        packed_b = Some(cast::<PackedB>(pack.get_or_pack("matmul_b", make))?);
        alpha = 1.0;
    } else if let (Some(t), true) = (p.known(0), one_a) {
        let (strides, m, k) = (if op.trans_a { (1, g.m) } else { (g.k, 1) }, g.m, g.k);
        let make = &mut || Arc::new(pack_a(m, k, t.slice::<f32>(), strides.0, strides.1)) as Packed;
        packed_a = Some(cast::<PackedA>(pack.get_or_pack("matmul_a", make))?);
    }
    // Rows of all matrices of the batch follow each other when a is not transposed: one tall product.
    let tall = one_b && !op.trans_a && packed_a.is_none() && g.uniform_step(&g.a_steps) == Some(1);
    if tall && g.n_batch() > 1 {
        g = MatMulGeometry {
            m: g.m * g.n_batch(),
            batch: vec![],
            a_steps: vec![],
            b_steps: vec![],
            ..g
        };
    }
    let (n_a, n_b) = (p.input(0).map_or(0, |d| d.numel()), p.input(1).map_or(0, |d| d.numel()));
    Ok(Some(Box::new(Product {
        trans_a: op.trans_a,
        trans_b: op.trans_b,
        alpha,
        g,
        packed_a,
        packed_b,
        n_a,
        n_b,
        epilogue,
    })))
}

fn cast<T: Send + Sync + 'static>(packed: Packed) -> Result<Arc<T>> {
    packed.downcast::<T>().map_err(|_| internal!("the pack cache mixed up its slots"))
}

struct Product {
    trans_a: bool,
    trans_b: bool,
    /// What is left to scale by: packed weights carry it already.
    alpha: f32,
    g: MatMulGeometry,
    packed_a: Option<Arc<PackedA>>,
    packed_b: Option<Arc<PackedB>>,
    n_a: usize,
    n_b: usize,
    epilogue: CpuEpilogue,
}

impl CpuStep for Product {
    fn name(&self) -> String {
        let g = &self.g;
        format!("gemm_{}x{}x{}{}", g.m, g.n, g.k, self.epilogue.suffix())
    }

    fn workspace(&self) -> usize {
        self.epilogue.workspace()
    }

    unsafe fn run(&self, args: &CpuArgs<'_>) {
        // SAFETY: the caller's promise, handed on.
        unsafe {
            self.product(args);
            self.epilogue.finish(args);
        }
    }
}

impl Product {
    /// # Safety
    /// As `run`.
    unsafe fn product(&self, args: &CpuArgs<'_>) {
        let g = &self.g;
        // SAFETY: the caller's addresses are valid for the shapes that these lengths come from.
        let (a, b, bias, y, rows) = unsafe {
            (
                floats(args.inputs[0], self.n_a),
                floats(args.inputs[1], self.n_b),
                optional_floats(args.inputs, 2, g.n),
                self.epilogue.result(args),
                self.epilogue.bind(args),
            )
        };
        if g.m == 1 && self.packed_a.is_none() && self.packed_b.is_none() {
            return self.vectors(a, b, bias, y, &rows);
        }
        let mat_a = match &self.packed_a {
            Some(p) => MatA::Packed(p),
            None if self.trans_a => MatA::Strided { data: a, row_stride: 1, col_stride: g.m },
            None => MatA::Strided { data: a, row_stride: g.k, col_stride: 1 },
        };
        let mat_b = match &self.packed_b {
            Some(p) => MatB::Packed(p),
            None if self.trans_b => MatB::Strided { data: b, row_stride: 1, col_stride: g.k },
            None => MatB::Strided { data: b, row_stride: g.n, col_stride: 1 },
        };
        // A scale comes before the bias, so both move into the epilogue then.
        let scaled = self.alpha != 1.0;
        let product = Gemm {
            m: g.m,
            n: g.n,
            k: g.k,
            a: mat_a,
            b: mat_b,
            bias: bias.filter(|_| !scaled).map_or(Bias::None, Bias::PerCol),
            accumulate: false,
            c_row_stride: g.n,
        };
        let finish = |batch: usize, row: usize, col: usize, values: &mut [f32]| {
            if scaled {
                scale(self.alpha, bias.map(|b| &b[col..col + values.len()]), values);
            }
            rows.apply((batch * g.m + row) * g.n + col, values);
        };
        let finish: Option<&BatchEpilogue> = if scaled || self.epilogue.has_rows() { Some(&finish) } else { None };
        let offsets = |i: usize| BatchOffsets {
            a: g.matrix(&g.a_steps, i) * g.m * g.k,
            b: g.matrix(&g.b_steps, i) * g.k * g.n,
            c: i * g.m * g.n,
        };
        gemm_f32_batched(&product, g.n_batch(), &offsets, y, finish);
    }
}

/// values = alpha * values + bias.
fn scale(alpha: f32, bias: Option<&[f32]>, values: &mut [f32]) {
    match bias {
        Some(b) => values.iter_mut().zip(b).for_each(|(v, b)| *v = *v * alpha + b),
        None => values.iter_mut().for_each(|v| *v *= alpha),
    }
}

/// Multiply-adds of one task of the matrix-vector loop.
const VECTOR_WORK: usize = 1 << 16;

impl Product {
    /// One row a matrix: b is read once, in place. Column blocks are the tasks.
    fn vectors(&self, a: &[f32], b: &[f32], bias: Option<&[f32]>, y: &mut [f32], rows: &BoundEpilogue<'_>) {
        let g = &self.g;
        if g.n == 0 {
            return;
        }
        let isa = Isa::detect();
        let y = SharedMut::new(y);
        let width = (VECTOR_WORK / g.k.max(1)).clamp(64, 4096).min(g.n);
        let blocks = g.n.div_ceil(width);
        let n_tasks = g.n_batch() * blocks;
        let task = |task: usize| {
            let (batch, j0) = (task / blocks, task % blocks * width);
            let x = &a[g.matrix(&g.a_steps, batch) * g.k..][..g.k];
            let b = &b[g.matrix(&g.b_steps, batch) * g.k * g.n..][..g.k * g.n];
            let cols = width.min(g.n - j0);
            // SAFETY: each task has columns of its own.
            let out = unsafe { y.slice(batch * g.n + j0, cols) };
            if self.trans_b {
                dots(isa, x, &b[j0 * g.k..], out);
            } else {
                out.fill(0.0);
                combine(isa, x, b, g.n, j0, out);
            }
            if self.alpha != 1.0 || bias.is_some() {
                scale(self.alpha, bias.map(|b| &b[j0..j0 + cols]), out);
            }
            rows.apply(batch * g.n + j0, out);
        };
        if g.n_batch() * g.n * g.k < 2 * VECTOR_WORK { (0..n_tasks).for_each(task) } else { for_each_task(n_tasks, task) }
    }
}

multiversion! {
    /// out[j] = x . b[j], rows of b following each other.
    fn dots = dots_body(x: &[f32], b: &[f32], out: &mut [f32]);
    /// out[j] += sum over k of x[k] * b[k * pitch + first + j].
    fn combine = combine_body(x: &[f32], b: &[f32], pitch: usize, first: usize, out: &mut [f32]);
}

#[inline(always)]
fn dots_body<const FMA: bool>(x: &[f32], b: &[f32], out: &mut [f32]) {
    const LANES: usize = 32;
    for (j, y) in out.iter_mut().enumerate() {
        let row = &b[j * x.len()..][..x.len()];
        let mut sums = [0f32; LANES];
        let (xs, rs) = (x.chunks_exact(LANES), row.chunks_exact(LANES));
        let tail: f32 = xs.remainder().iter().zip(rs.remainder()).map(|(a, b)| a * b).sum();
        for (xs, rs) in xs.zip(rs) {
            for l in 0..LANES {
                sums[l] = fma::<FMA>(xs[l], rs[l], sums[l]);
            }
        }
        *y = sums.iter().sum::<f32>() + tail;
    }
}

#[inline(always)]
fn combine_body<const FMA: bool>(x: &[f32], b: &[f32], pitch: usize, first: usize, out: &mut [f32]) {
    let n = out.len();
    let mut k = 0;
    // Four rows at a time: the sums are loaded and stored a quarter as often.
    while k + 4 <= x.len() {
        let row = |i: usize| &b[(k + i) * pitch + first..][..n];
        let (r0, r1, r2, r3) = (row(0), row(1), row(2), row(3));
        let (x0, x1, x2, x3) = (x[k], x[k + 1], x[k + 2], x[k + 3]);
        for j in 0..n {
            let s = fma::<FMA>(x0, r0[j], out[j]);
            let s = fma::<FMA>(x1, r1[j], s);
            let s = fma::<FMA>(x2, r2[j], s);
            out[j] = fma::<FMA>(x3, r3[j], s);
        }
        k += 4;
    }
    for k in k..x.len() {
        let row = &b[k * pitch + first..][..n];
        for j in 0..n {
            out[j] = fma::<FMA>(x[k], row[j], out[j]);
        }
    }
}
