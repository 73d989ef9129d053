//! Reference convolution: one sum an output element, in f64, rounded once; one task a channel.

use super::{Conv, FIRST_EXTRA};
use crate::base::{Result, Tensor};
use crate::device::cpu::{SharedMut, for_each_task};
use crate::ops::{EvalCx, epilogue};

pub(super) fn eval(op: &Conv, cx: &EvalCx<'_>) -> Result<Vec<Tensor>> {
    let (x, w) = (cx.input(0)?, cx.input(1)?);
    let shape = cx.outputs[0].shape.to_concrete()?;
    crate::base::tensor::checked_bytes(crate::base::DType::F64, &shape)?;
    let g = op.geometry(x.shape(), w.shape(), &shape)?;
    let bias = cx.opt(2).map(|b| b.to_f64s());
    let (xs, ws) = (x.to_f64s(), w.to_f64s());
    let win = &g.window;
    let (cg, mg) = (g.c / g.group, g.m / g.group);
    let ([d, h, wd], [kd, kh, kw]) = (win.input, win.kernel);
    let n_out: usize = win.output.iter().product();
    let mut out = vec![0.0; shape.iter().product()];
    let y = SharedMut::new(&mut out);
    for_each_task(g.n * g.m, |task| {
        let (n, m) = (task / g.m, task % g.m);
        let c0 = m / mg.max(1) * cg;
        // SAFETY: each task has a channel of its own.
        let mut out = unsafe { y.slice(task * n_out, n_out) }.iter_mut();
        win.for_each_output(|[od, oh, ow]| {
            let mut sum = 0.0;
            for c in 0..cg {
                for a in 0..kd {
                    let Some(id) = win.source(0, od, a) else { continue };
                    for b in 0..kh {
                        let Some(ih) = win.source(1, oh, b) else { continue };
                        for e in 0..kw {
                            let Some(iw) = win.source(2, ow, e) else { continue };
                            sum += xs[(((n * g.c + c0 + c) * d + id) * h + ih) * wd + iw]
                                * ws[(((m * cg + c) * kd + a) * kh + b) * kw + e];
                        }
                    }
                }
            }
            if let Some(v) = out.next() {
                *v = sum + bias.as_ref().map_or(0.0, |b| b[m]);
            }
        });
    });
    let result = epilogue::round_to(x.dtype(), &shape, &out);
    epilogue::eval(op.epilogue.as_ref(), cx, FIRST_EXTRA, result)
}
