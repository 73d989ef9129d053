//! CPU step, f32: some rows of the weight are dequantized into scratch, then multiplied with every row of a.

use super::{A, B, BIAS, Layout, MatMulNBits, SCALES, ZEROS};
use crate::base::{DType, Result};
use crate::device::cpu::multiversion::{fma, multiversion};
use crate::device::cpu::{Isa, SharedMut, for_each_task, with_scratch};
use crate::ops::conv::{floats, optional_floats};
use crate::ops::{CpuArgs, CpuStep, Problem};

/// Columns of the result that one task computes.
const COLUMNS: usize = 8;

struct Step {
    l: Layout,
    rows: usize,
    packed_zeros: bool,
}

pub(super) fn cpu(op: &MatMulNBits, p: &Problem) -> Result<Option<Box<dyn CpuStep>>> {
    let Some(a) = p.input(A).filter(|a| a.dtype == DType::F32) else { return Ok(None) };
    let l = op.layout()?;
    let packed_zeros = p.input(ZEROS).is_some_and(|z| z.dtype == DType::U8);
    Ok(Some(Box::new(Step { l, rows: a.numel() / l.k, packed_zeros })))
}

/// Addresses of a run.
struct Operands<'a> {
    a: &'a [f32],
    b: &'a [u8],
    scales: &'a [f32],
    packed_zeros: Option<&'a [u8]>,
    zeros: Option<&'a [f32]>,
    bias: Option<&'a [f32]>,
}

impl CpuStep for Step {
    fn name(&self) -> String {
        format!("gemm_{}bits_{}x{}x{}", self.l.bits, self.rows, self.l.n, self.l.k)
    }

    unsafe fn run(&self, args: &CpuArgs<'_>) {
        let l = &self.l;
        if self.rows == 0 {
            return;
        }
        let zeros = args.inputs.get(ZEROS).copied().filter(|z| !z.is_null() && self.packed_zeros);
        // SAFETY: the caller's addresses are valid for the shapes that these lengths come from.
        let o = unsafe {
            Operands {
                a: floats(args.inputs[A], self.rows * l.k),
                b: std::slice::from_raw_parts(args.inputs[B], l.n * l.row_bytes()),
                scales: floats(args.inputs[SCALES], l.n * l.blocks),
                packed_zeros: zeros.map(|z| std::slice::from_raw_parts(z, l.n * l.zero_bytes)),
                zeros: if self.packed_zeros { None } else { optional_floats(args.inputs, ZEROS, l.n * l.blocks) },
                bias: optional_floats(args.inputs, BIAS, l.n),
            }
        };
        let y = SharedMut(args.outputs[0].cast::<f32>(), self.rows * l.n);
        let isa = Isa::detect();
        for_each_task(l.n.div_ceil(COLUMNS), |task| {
            let first = task * COLUMNS;
            let n = COLUMNS.min(l.n - first);
            with_scratch(COLUMNS * l.k, |w| {
                for (j, w) in w.chunks_exact_mut(l.k).take(n).enumerate() {
                    self.weight_row(isa, &o, first + j, w);
                }
                for (i, a) in o.a.chunks_exact(l.k).enumerate() {
                    // SAFETY: each task has columns of its own.
                    let out = unsafe { y.slice(i * l.n + first, n) };
                    dots(isa, a, w, out);
                    if let Some(bias) = o.bias {
                        out.iter_mut().zip(&bias[first..]).for_each(|(y, b)| *y += b);
                    }
                }
            });
        });
    }
}

impl Step {
    fn weight_row(&self, isa: Isa, o: &Operands<'_>, j: usize, out: &mut [f32]) {
        let l = &self.l;
        let bytes = &o.b[j * l.row_bytes()..][..l.row_bytes()];
        for (block, out) in out.chunks_mut(l.block).enumerate() {
            let zero = match (o.packed_zeros, o.zeros) {
                (Some(z), _) => l.unpack(&z[j * l.zero_bytes..][..l.zero_bytes], block) as f32,
                (_, Some(z)) => z[j * l.blocks + block],
                _ => l.default_zero(),
            };
            let scale = o.scales[j * l.blocks + block];
            dequantize(isa, &bytes[block * l.blob..][..l.blob], l.bits, zero, scale, out);
        }
    }
}

multiversion! {
    /// One block of a row, which may end early.
    fn dequantize = dequantize_body(bytes: &[u8], bits: usize, zero: f32, scale: f32, out: &mut [f32]);
    /// out[j] = x . w[j], rows of w following each other.
    fn dots = dots_body(x: &[f32], w: &[f32], out: &mut [f32]);
}

#[inline(always)]
fn dequantize_body<const FMA: bool>(bytes: &[u8], bits: usize, zero: f32, scale: f32, out: &mut [f32]) {
    let value = |q: u8| (q as f32 - zero) * scale;
    match bits {
        8 => out.iter_mut().zip(bytes).for_each(|(o, b)| *o = value(*b)),
        4 => {
            for (o, b) in out.chunks_mut(2).zip(bytes) {
                o[0] = value(b & 15);
                if let Some(o) = o.get_mut(1) {
                    *o = value(b >> 4);
                }
            }
        }
        _ => {
            for (o, b) in out.chunks_mut(4).zip(bytes) {
                o.iter_mut().enumerate().for_each(|(i, o)| *o = value((b >> (2 * i)) & 3));
            }
        }
    }
}

#[inline(always)]
fn dots_body<const FMA: bool>(x: &[f32], w: &[f32], out: &mut [f32]) {
    const LANES: usize = 32;
    for (j, y) in out.iter_mut().enumerate() {
        let row = &w[j * x.len()..][..x.len()];
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
