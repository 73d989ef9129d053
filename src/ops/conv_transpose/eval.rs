//! Reference transposed convolution: scatters every input element, in f64, and rounds once;
//! one task an output channel.

use super::{ConvTranspose, FIRST_EXTRA};
use crate::base::{Result, Tensor};
use crate::device::cpu::{SharedMut, for_each_task};
use crate::ops::{EvalCx, epilogue};

pub(super) fn eval(op: &ConvTranspose, cx: &EvalCx<'_>) -> Result<Vec<Tensor>> {
    let (x, w) = (cx.input(0)?, cx.input(1)?);
    let shape = cx.outputs[0].shape.to_concrete()?;
    crate::base::tensor::checked_bytes(crate::base::DType::F64, &shape)?;
    let g = op.geometry(x.shape(), w.shape(), &shape)?;
    let (xs, ws) = (x.to_f64s(), w.to_f64s());
    let win = &g.window;
    let (cg, mg) = (g.c / g.group, (g.m / g.group).max(1));
    let ([kd, kh, kw], out_size) = (win.kernel, win.output);
    let n_in: usize = win.input.iter().product();
    let n_out: usize = out_size.iter().product();
    // Output position that input position i reaches with kernel element k, when it is inside the output.
    let target = |axis: usize, i: usize, k: usize| {
        (i * win.stride[axis] + k * win.dilation[axis])
            .checked_sub(win.pad_begin[axis])
            .filter(|o| *o < out_size[axis])
    };
    let mut out = vec![0.0; shape.iter().product()];
    let y = SharedMut::new(&mut out);
    for_each_task(g.n * g.m, |task| {
        let (n, m) = (task / g.m, task % g.m);
        let (first, m) = (m / mg * cg, m % mg);
        // SAFETY: each task has a channel of its own.
        let out = unsafe { y.slice(task * n_out, n_out) };
        for c in first..first + cg {
            for i in 0..n_in {
                let v = xs[(n * g.c + c) * n_in + i];
                let at = [i / (win.input[1] * win.input[2]), i / win.input[2] % win.input[1], i % win.input[2]];
                for a in 0..kd {
                    let Some(od) = target(0, at[0], a) else { continue };
                    for b in 0..kh {
                        let Some(oh) = target(1, at[1], b) else { continue };
                        for e in 0..kw {
                            let Some(ow) = target(2, at[2], e) else { continue };
                            out[(od * out_size[1] + oh) * out_size[2] + ow] +=
                                v * ws[(((c * mg + m) * kd + a) * kh + b) * kw + e];
                        }
                    }
                }
            }
        }
    });
    if let Some(b) = cx.opt(2) {
        let b = b.to_f64s();
        for (i, v) in out.iter_mut().enumerate() {
            *v += b[i / n_out % g.m];
        }
    }
    let result = epilogue::round_to(x.dtype(), &shape, &out);
    epilogue::eval(op.epilogue.as_ref(), cx, FIRST_EXTRA, result)
}
