//! Reference product: every sum alone, of differences to the zero points.

use super::QMatMul;
use crate::base::{DType, Result, Tensor};
use crate::ops::EvalCx;
use crate::ops::requant::{self, At, Results, Spread};

/// A parameter by output position.
struct Param<T> {
    values: Vec<T>,
    spread: Spread,
}

impl<T: Copy + Default> Param<T> {
    fn new(t: Option<&Tensor>, out: &[usize], read: impl Fn(&Tensor) -> Vec<T>) -> Param<T> {
        match t {
            Some(t) => Param { values: read(t), spread: Spread::new(t.shape(), out) },
            None => Param { values: vec![T::default()], spread: Spread::default() },
        }
    }

    fn at(&self, dims: &[usize], batch: usize, i: usize, j: usize) -> T {
        self.values[self.spread.base(dims, batch) + i * self.spread.row + j * self.spread.col]
    }
}

pub(super) fn eval(op: &QMatMul, cx: &EvalCx<'_>) -> Result<Vec<Tensor>> {
    let (a, b) = (cx.input(requant::X)?, cx.input(requant::W)?);
    let shape = cx.outputs[0].shape.to_concrete()?;
    crate::base::tensor::checked_bytes(cx.outputs[0].dtype, &shape)?;
    let g = op.geometry(a.shape(), b.shape(), &shape);
    let ints = |i: usize| Param::new(cx.opt(i), &shape, |t| t.to_i64s());
    let floats = |i: usize| Param::new(cx.opt(i), &shape, |t| t.to_f32s());
    let (az, bz, yz) = (ints(requant::X_ZERO), ints(requant::W_ZERO), ints(requant::Y_ZERO));
    let (xs, ws, ys) = (floats(requant::X_SCALE), floats(requant::W_SCALE), floats(requant::Y_SCALE));
    let int_bias = cx.opt(requant::BIAS).is_some_and(|b| b.dtype() == DType::I32);
    let (ib, fb) = (ints(requant::BIAS), floats(requant::BIAS));
    let (av, bv) = (a.to_i64s(), b.to_i64s());
    let (m, n, k) = (g.m, g.n, g.k);
    let mut out = Results::new(cx.outputs[0].dtype);
    for batch in 0..g.n_batch() {
        let a = &av[g.matrix(&g.a_steps, batch) * m * k..];
        let b = &bv[g.matrix(&g.b_steps, batch) * k * n..];
        for i in 0..m {
            for j in 0..n {
                let (za, zb) = (az.at(&g.batch, batch, i, j), bz.at(&g.batch, batch, i, j));
                let term = |l: usize| {
                    let x = if op.trans_a { a[l * m + i] } else { a[i * k + l] };
                    let y = if op.trans_b { b[j * k + l] } else { b[l * n + j] };
                    ((x - za) * (y - zb)) as i32
                };
                let mut sum = (0..k).fold(0i32, |s, l| s.wrapping_add(term(l)));
                if int_bias {
                    sum = sum.wrapping_add(ib.at(&g.batch, batch, i, j) as i32);
                }
                let at = At {
                    x_scale: xs.at(&g.batch, batch, i, j),
                    w_scale: ws.at(&g.batch, batch, i, j),
                    y_scale: ys.at(&g.batch, batch, i, j),
                    y_zero: yz.at(&g.batch, batch, i, j),
                    bias: if int_bias { 0.0 } else { fb.at(&g.batch, batch, i, j) },
                };
                out.push(op.out, op.alpha, sum, at);
            }
        }
    }
    Ok(vec![out.into_tensor(&shape)?])
}
