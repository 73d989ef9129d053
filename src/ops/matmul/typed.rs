//! Matrix products on the CPU in f64 and in integers, which wrap.
//!
//! A task is a tile of the output. Blocks of both operands are packed onto the stack, so that every layout runs the same
//! loop: 4 rows times 16 columns of sums in registers. An epilogue is a step of its own behind the product.

use super::{FIRST_EXTRA, MatMul, MatMulGeometry};
use crate::base::{DType, Result};
use crate::device::cpu::multiversion::multiversion;
use crate::device::cpu::{Isa, SharedMut, for_each_task};
use crate::ops::pointwise::Pointwise;
use crate::ops::{CpuArgs, CpuStep, OpDef, PackCache, Problem, TensorDesc};

/// Rows and columns of a tile, and how far along k a block goes.
const ROWS: usize = 32;
const COLS: usize = 64;
const DEPTH: usize = 64;
/// Sums that are kept in registers.
const MR: usize = 4;
const NR: usize = 16;
/// Operands of an epilogue at most.
const MAX_OPERANDS: usize = 63;

/// A type that products are summed in.
trait Number: Copy + Default + Send + Sync + 'static {
    /// sum + x y.
    fn mac<const FMA: bool>(sum: Self, x: Self, y: Self) -> Self;
    /// alpha sum + bias.
    fn finish(sum: Self, alpha: f32, bias: Option<Self>) -> Self;
}

impl Number for f64 {
    #[inline(always)]
    fn mac<const FMA: bool>(sum: f64, x: f64, y: f64) -> f64 {
        if FMA { x.mul_add(y, sum) } else { sum + x * y }
    }
    #[inline(always)]
    fn finish(sum: f64, alpha: f32, bias: Option<f64>) -> f64 {
        let scaled = if alpha == 1.0 { sum } else { alpha as f64 * sum };
        bias.map_or(scaled, |b| scaled + b)
    }
}

macro_rules! integers {
    ($($t:ty),*) => { $(impl Number for $t {
        #[inline(always)]
        fn mac<const FMA: bool>(sum: $t, x: $t, y: $t) -> $t {
            sum.wrapping_add(x.wrapping_mul(y))
        }
        #[inline(always)]
        fn finish(sum: $t, _alpha: f32, bias: Option<$t>) -> $t {
            bias.map_or(sum, |b| sum.wrapping_add(b))
        }
    })* };
}
integers!(i32, u32, i64, u64);

/// One operand as a matrix of rows along k: element (l, i) stands at `l * along_k + i * across`.
#[derive(Clone, Copy)]
struct Side<'a, T> {
    data: &'a [T],
    along_k: usize,
    across: usize,
}

type TileA<T> = [[T; ROWS]; DEPTH];
type TileB<T> = [[T; COLS]; DEPTH];
type Sums<T> = [[T; COLS]; ROWS];

/// Copies `depth` rows of `n` elements from (l0, i0); the rest of the tile keeps whatever finite values it has.
#[inline(always)]
fn fill<T: Number, const N: usize>(tile: &mut [[T; N]; DEPTH], s: Side<'_, T>, l0: usize, depth: usize, i0: usize, n: usize) {
    for (l, row) in tile[..depth].iter_mut().enumerate() {
        let from = (l0 + l) * s.along_k + i0 * s.across;
        if s.across == 1 {
            row[..n].copy_from_slice(&s.data[from..from + n]);
        } else {
            row[..n].iter_mut().enumerate().for_each(|(i, v)| *v = s.data[from + i * s.across]);
        }
    }
}

#[inline(always)]
fn block<T: Number, const FMA: bool>(a: &TileA<T>, b: &TileB<T>, depth: usize, rows: usize, cols: usize, sums: &mut Sums<T>) {
    for r in (0..rows).step_by(MR) {
        for c in (0..cols).step_by(NR) {
            let mut acc = [[T::default(); NR]; MR];
            for (a, b) in a[..depth].iter().zip(&b[..depth]) {
                for q in 0..MR {
                    for t in 0..NR {
                        acc[q][t] = T::mac::<FMA>(acc[q][t], a[r + q], b[c + t]);
                    }
                }
            }
            for q in 0..MR {
                for t in 0..NR {
                    sums[r + q][c + t] = T::finish(sums[r + q][c + t], 1.0, Some(acc[q][t]));
                }
            }
        }
    }
}

/// Elements of the tile at (i0, j0) with `rows` rows and `cols` columns.
#[inline(always)]
fn tile<T: Number, const FMA: bool>(a: Side<'_, T>, b: Side<'_, T>, k: usize, at: [usize; 4], sums: &mut Sums<T>) {
    let [i0, rows, j0, cols] = at;
    let mut tile_a: TileA<T> = [[T::default(); ROWS]; DEPTH];
    let mut tile_b: TileB<T> = [[T::default(); COLS]; DEPTH];
    for l0 in (0..k).step_by(DEPTH) {
        let depth = DEPTH.min(k - l0);
        fill(&mut tile_a, a, l0, depth, i0, rows);
        fill(&mut tile_b, b, l0, depth, j0, cols);
        block::<T, FMA>(&tile_a, &tile_b, depth, rows, cols, sums);
    }
}

macro_rules! tiles {
    ($($name:ident, $body:ident, $t:ty;)*) => {
        $(
            #[inline(always)]
            fn $body<const FMA: bool>(a: Side<'_, $t>, b: Side<'_, $t>, k: usize, at: [usize; 4], sums: &mut Sums<$t>) {
                tile::<$t, FMA>(a, b, k, at, sums)
            }
        )*
        multiversion! {
            $(fn $name = $body(a: Side<'_, $t>, b: Side<'_, $t>, k: usize, at: [usize; 4], sums: &mut Sums<$t>);)*
        }
    };
}
tiles! {
    tile_f64, tile_f64_body, f64;
    tile_i32, tile_i32_body, i32;
    tile_u32, tile_u32_body, u32;
    tile_i64, tile_i64_body, i64;
    tile_u64, tile_u64_body, u64;
}

struct TypedProduct {
    trans_a: bool,
    trans_b: bool,
    alpha: f32,
    g: MatMulGeometry,
    dtype: DType,
    n_a: usize,
    n_b: usize,
    has_bias: bool,
    /// The epilogue over the whole result, which then lies in scratch, and its operands.
    epilogue: Option<(Box<dyn CpuStep>, usize)>,
}

type TileFn<T> = fn(Isa, Side<'_, T>, Side<'_, T>, usize, [usize; 4], &mut Sums<T>);

impl TypedProduct {
    fn numel(&self) -> usize {
        self.g.n_batch() * self.g.m * self.g.n
    }

    fn staged_bytes(&self) -> usize {
        (self.numel() * self.dtype.size()).next_multiple_of(64)
    }

    /// # Safety
    /// As `run`, for a product of type `T`.
    unsafe fn product<T: Number>(&self, args: &CpuArgs<'_>, tile: TileFn<T>) {
        let g = &self.g;
        if self.numel() == 0 {
            return;
        }
        let slice = |i: usize, n: usize| -> &[T] {
            if n == 0 {
                return &[];
            }
            // SAFETY: the caller's addresses are valid for the shapes that these lengths come from.
            unsafe { std::slice::from_raw_parts(args.inputs[i].cast::<T>(), n) }
        };
        let (a, b) = (slice(0, self.n_a), slice(1, self.n_b));
        let bias = self.has_bias.then(|| slice(2, g.n));
        let result = if self.epilogue.is_some() { args.work } else { args.outputs[0] };
        let y = SharedMut(result.cast::<T>(), self.numel());
        let isa = Isa::detect();
        let (tiles_m, tiles_n) = (g.m.div_ceil(ROWS), g.n.div_ceil(COLS));
        let (a_along, a_across) = if self.trans_a { (g.m, 1) } else { (1, g.k) };
        let (b_along, b_across) = if self.trans_b { (1, g.k) } else { (g.n, 1) };
        for_each_task(g.n_batch() * tiles_m * tiles_n, |task| {
            let (batch, t) = (task / (tiles_m * tiles_n), task % (tiles_m * tiles_n));
            let (i0, j0) = (t / tiles_n * ROWS, t % tiles_n * COLS);
            let (rows, cols) = (ROWS.min(g.m - i0), COLS.min(g.n - j0));
            let a = Side { data: &a[g.matrix(&g.a_steps, batch) * g.m * g.k..], along_k: a_along, across: a_across };
            let b = Side { data: &b[g.matrix(&g.b_steps, batch) * g.k * g.n..], along_k: b_along, across: b_across };
            let mut sums: Sums<T> = [[T::default(); COLS]; ROWS];
            tile(isa, a, b, g.k, [i0, rows, j0, cols], &mut sums);
            for (r, sums) in sums[..rows].iter().enumerate() {
                // SAFETY: each task has a tile of its own.
                let out = unsafe { y.slice((batch * g.m + i0 + r) * g.n + j0, cols) };
                for (c, out) in out.iter_mut().enumerate() {
                    *out = T::finish(sums[c], self.alpha, bias.map(|b| b[j0 + c]));
                }
            }
        });
    }
}

impl CpuStep for TypedProduct {
    fn name(&self) -> String {
        format!("gemm_{}_{}x{}x{}", self.dtype, self.g.m, self.g.n, self.g.k)
    }

    fn workspace(&self) -> usize {
        self.epilogue.as_ref().map_or(0, |(step, _)| self.staged_bytes() + step.workspace())
    }

    unsafe fn run(&self, args: &CpuArgs<'_>) {
        // SAFETY: the caller's promise; `step` made this for the type.
        unsafe {
            match self.dtype {
                DType::F64 => self.product::<f64>(args, tile_f64),
                DType::I32 => self.product::<i32>(args, tile_i32),
                DType::U32 => self.product::<u32>(args, tile_u32),
                DType::I64 => self.product::<i64>(args, tile_i64),
                _ => self.product::<u64>(args, tile_u64),
            }
        }
        let Some((step, n_operands)) = &self.epilogue else { return };
        if self.numel() == 0 {
            return;
        }
        let mut inputs = [std::ptr::null(); MAX_OPERANDS + 1];
        inputs[0] = args.work as *const u8;
        for (to, from) in inputs[1..].iter_mut().zip(args.inputs.get(FIRST_EXTRA..).unwrap_or(&[])) {
            *to = *from;
        }
        // SAFETY: the result and the inner step's scratch follow each other in the workspace; the rest is the caller's.
        unsafe {
            let work = args.work.add(self.staged_bytes());
            step.run(&CpuArgs { inputs: &inputs[..1 + n_operands], outputs: args.outputs, work });
        }
    }
}

pub(super) fn step(
    op: &MatMul,
    g: MatMulGeometry,
    p: &Problem,
    pack: &dyn PackCache,
) -> Result<Option<Box<dyn CpuStep>>> {
    let (Some(a), Some(b), Some(y)) = (p.input(0), p.input(1), p.outputs.first()) else { return Ok(None) };
    let dtype = a.dtype;
    if !matches!(dtype, DType::F64 | DType::I32 | DType::U32 | DType::I64 | DType::U64) {
        return Ok(None);
    }
    let mut epilogue = None;
    if let Some(program) = &op.epilogue {
        let n = program.n_inputs().saturating_sub(1);
        let operands: Option<Vec<TensorDesc>> = (0..n).map(|i| p.input(FIRST_EXTRA + i).cloned()).collect();
        let Some(operands) = operands.filter(|_| n <= MAX_OPERANDS) else { return Ok(None) };
        let result = TensorDesc { dtype, dims: y.dims.clone() };
        let staged = Problem {
            inputs: std::iter::once(result).chain(operands).map(Some).collect(),
            outputs: vec![y.clone()],
            known: std::iter::once(None).chain((0..n).map(|i| p.known(FIRST_EXTRA + i).cloned())).collect(),
        };
        let Some(step) = (Pointwise { program: program.clone() }).cpu(&staged, pack)? else { return Ok(None) };
        epilogue = Some((step, n));
    }
    Ok(Some(Box::new(TypedProduct {
        trans_a: op.trans_a,
        trans_b: op.trans_b,
        alpha: op.alpha,
        dtype,
        n_a: a.numel(),
        n_b: b.numel(),
        has_bias: p.input(2).is_some(),
        epilogue,
        g,
    })))
}
