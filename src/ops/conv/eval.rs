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
    let ([_, h, wd], [kd, kh, kw]) = (win.input, win.kernel);
    let (n_in, n_out): (usize, usize) = (win.input.iter().product(), win.output.iter().product());
    // Elements between neighbouring channels and pixels (kernel elements) of x, w and y.
    let strides = |last: bool, channels: usize, pixels: usize| if last { (1, channels) } else { (pixels, 1) };
    let (xc, xp) = strides(op.order.reads_last(), g.c, n_in);
    let (wc, wp) = strides(op.order.reads_last(), cg, win.taps());
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
                            sum += xs[n * g.c * n_in + (c0 + c) * xc + ((id * h + ih) * wd + iw) * xp]
                                * ws[m * cg * win.taps() + c * wc + ((a * kh + b) * kw + e) * wp];
                        }
                    }
                }
            }
            if let Some(v) = out.next() {
                *v = sum + bias.as_ref().map_or(0.0, |b| b[m]);
            }
        });
    });
    if op.order.gives_last() {
        // Each image was made channel by channel.
        let by_channel = out.clone();
        for (i, v) in out.iter_mut().enumerate() {
            let (image, pixel, m) = (i / g.m / n_out, i / g.m % n_out, i % g.m);
            *v = by_channel[(image * g.m + m) * n_out + pixel];
        }
    }
    let result = epilogue::round_to(x.dtype(), &shape, &out);
    epilogue::eval(op.epilogue.as_ref(), cx, FIRST_EXTRA, result)
}
