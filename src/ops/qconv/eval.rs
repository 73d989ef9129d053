//! Reference convolution: every sum alone, of differences to the zero points; padding adds nothing.

use super::QConv;
use crate::base::{DType, Result, Tensor};
use crate::ops::EvalCx;
use crate::ops::requant::{self, At, Results};

/// One element for all channels, or one for each.
fn of<T: Copy + Default>(values: &Option<Vec<T>>, channel: usize) -> T {
    match values {
        Some(v) if v.len() == 1 => v[0],
        Some(v) => v[channel],
        None => T::default(),
    }
}

pub(super) fn eval(op: &QConv, cx: &EvalCx<'_>) -> Result<Vec<Tensor>> {
    let (x, w) = (cx.input(requant::X)?, cx.input(requant::W)?);
    let shape = cx.outputs[0].shape.to_concrete()?;
    crate::base::tensor::checked_bytes(cx.outputs[0].dtype, &shape)?;
    let g = op.geometry(x.shape(), w.shape(), &shape)?;
    let ints = |i: usize| cx.opt(i).map(|t| t.to_i64s());
    let floats = |i: usize| cx.opt(i).map(|t| t.to_f32s());
    let (xz, wz, yz, bias) = (ints(requant::X_ZERO), ints(requant::W_ZERO), ints(requant::Y_ZERO), ints(requant::BIAS));
    let (xs, ws, ys) = (floats(requant::X_SCALE), floats(requant::W_SCALE), floats(requant::Y_SCALE));
    let int_bias = cx.opt(requant::BIAS).is_some_and(|b| b.dtype() == DType::I32);
    let float_bias = floats(requant::BIAS).filter(|_| !int_bias);
    let (xv, wv) = (x.to_i64s(), w.to_i64s());
    let win = &g.window;
    let (cg, mg) = (g.c / g.group, g.m / g.group);
    let plane: usize = win.input.iter().product();
    let mut out = Results::new(cx.outputs[0].dtype);
    for n in 0..g.n {
        for m in 0..g.m {
            let c0 = m / mg.max(1) * cg;
            let (zx, zw) = (of(&xz, 0), of(&wz, m));
            let at = At {
                x_scale: of(&xs, 0),
                w_scale: of(&ws, m),
                y_scale: of(&ys, 0),
                y_zero: of(&yz, 0),
                bias: of(&float_bias, m),
            };
            win.for_each_output(|position| {
                let mut sum = if int_bias { of(&bias, m) as i32 } else { 0 };
                for c in 0..cg {
                    let xs = &xv[(n * g.c + c0 + c) * plane..][..plane];
                    let ws = &wv[(m * cg + c) * win.taps()..][..win.taps()];
                    win.for_each_source(position, |tap, i| {
                        sum = sum.wrapping_add(((xs[i] - zx) * (ws[tap] - zw)) as i32);
                    });
                }
                out.push(op.out, 1.0, sum, at);
            });
        }
    }
    Ok(vec![out.into_tensor(&shape)?])
}
