//! Reference matrix product: one sum an output element, in f64 and rounded once, or in the integer type itself.

use super::{FIRST_EXTRA, MatMul, MatMulGeometry};
use crate::base::dtype::Element;
use crate::base::{DType, Result, Tensor};
use crate::internal;
use crate::ops::{EvalCx, epilogue};

pub(super) fn eval(op: &MatMul, cx: &EvalCx<'_>) -> Result<Vec<Tensor>> {
    let (a, b, bias) = (cx.input(0)?, cx.input(1)?, cx.opt(2));
    let shape = cx.outputs[0].shape.to_concrete()?;
    crate::base::tensor::checked_bytes(DType::F64, &shape)?;
    let g = op.geometry(a.shape(), b.shape(), &shape);
    let result = match a.dtype() {
        d if d.is_float() => {
            let bias = bias.map(|b| b.to_f64s());
            let scale = op.alpha as f64;
            let out = product(op, &g, &a.to_f64s(), &b.to_f64s(), 0.0, |s, x, y| s + x * y, |s, j| {
                scale * s + bias.as_ref().map_or(0.0, |b| b[j])
            });
            epilogue::round_to(d, &shape, &out)
        }
        DType::I32 => integers::<i32>(op, &g, a, b, bias, &shape, |s, x, y| s.wrapping_add(x.wrapping_mul(y))),
        DType::U32 => integers::<u32>(op, &g, a, b, bias, &shape, |s, x, y| s.wrapping_add(x.wrapping_mul(y))),
        DType::I64 => integers::<i64>(op, &g, a, b, bias, &shape, |s, x, y| s.wrapping_add(x.wrapping_mul(y))),
        DType::U64 => integers::<u64>(op, &g, a, b, bias, &shape, |s, x, y| s.wrapping_add(x.wrapping_mul(y))),
        d => return Err(internal!("a product of {d} passed infer")),
    };
    epilogue::eval(op.epilogue.as_ref(), cx, FIRST_EXTRA, result)
}

/// In the integer type itself, with wrap-around; the bias is one more product, with 1.
fn integers<T: Element + From<u8>>(
    op: &MatMul,
    g: &MatMulGeometry,
    a: &Tensor,
    b: &Tensor,
    bias: Option<&Tensor>,
    shape: &[usize],
    mac: impl Fn(T, T, T) -> T,
) -> Tensor {
    let bias = bias.map(|b| b.slice::<T>());
    let out = product(op, g, a.slice::<T>(), b.slice::<T>(), T::default(), &mac, |s, j| match bias {
        Some(b) => mac(s, b[j], T::from(1u8)),
        None => s,
    });
    Tensor::from_slice(shape, &out)
}

fn product<T: Copy>(
    op: &MatMul,
    g: &MatMulGeometry,
    a: &[T],
    b: &[T],
    zero: T,
    mac: impl Fn(T, T, T) -> T,
    finish: impl Fn(T, usize) -> T,
) -> Vec<T> {
    let MatMulGeometry { m, n, k, .. } = *g;
    let mut out = Vec::with_capacity(g.n_batch() * m * n);
    for batch in 0..g.n_batch() {
        let a = &a[g.matrix(&g.a_steps, batch) * m * k..];
        let b = &b[g.matrix(&g.b_steps, batch) * k * n..];
        for i in 0..m {
            for j in 0..n {
                let sum = (0..k).fold(zero, |s, l| {
                    let x = if op.trans_a { a[l * m + i] } else { a[i * k + l] };
                    let y = if op.trans_b { b[j * k + l] } else { b[l * n + j] };
                    mac(s, x, y)
                });
                out.push(finish(sum, j));
            }
        }
    }
    out
}
