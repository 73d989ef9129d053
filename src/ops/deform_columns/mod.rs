//! The columns of a deformable convolution: what each tap of the kernel sees at each output position. Inputs: x [n, c,
//! in..], offset [n, groups*taps*r, out..], optional mask [n, groups*taps, out..], all of one floating-point type, for
//! r = 1 to 3 spatial axes. Output: [n, c*taps, out..].
//!
//! A tap stands at its regular position plus its offset (outermost axis first), is interpolated linearly with zeros
//! outside, and multiplied by its mask. A convolution by 1x1 follows, so that `DeformConv` is two nodes.

mod cuda;
mod onnx;

use crate::base::real::{Real, reals, tensor_of};
use crate::base::{Dim, Fact, Result, Shape, Tensor};
use crate::device::DeviceProps;
use crate::device::cpu::{SharedMut, for_each_task};
use crate::ops::window::{AutoPad, Axis, MAX_SPATIAL, Window3, Windows};
use crate::ops::{EvalCx, InferCx, OpDef, Problem, StepProgram, Tactic, TacticOptions};
use crate::{dispatch_real, ensure, op_home, op_struct};

op_struct! {
    /// The columns of a deformable convolution. Inputs: x, offset, optional mask.
    pub struct DeformColumns {
        pub kernel: Vec<i64>,
        /// One a spatial axis; empty: all 1. The same holds for `dilations`.
        pub strides: Vec<i64>,
        /// Begins of all axes, then ends; empty: all 0.
        pub pads: Vec<i64>,
        pub dilations: Vec<i64>,
        /// Groups of channels with offsets of their own.
        pub groups: i64,
    }
}

op_home!(DeformColumns, "DeformColumns", onnx::TABLE);

/// Positions beyond are all alike.
const FAR: f64 = (1u64 << 30) as f64;

impl DeformColumns {
    fn axes(&self) -> Result<Vec<Axis>> {
        Windows {
            strides: &self.strides,
            pads: &self.pads,
            dilations: &self.dilations,
            auto_pad: AutoPad::NotSet,
            ceil_mode: false,
        }
        .axes(&self.kernel)
    }

    fn taps(&self) -> i64 {
        self.kernel.iter().fold(1i64, |n, k| n.saturating_mul(*k))
    }

    fn window(&self, x: &[usize], y: &[usize]) -> Result<Window3> {
        Ok(Window3::new(&self.axes()?, &x[2..], &y[2..]))
    }

    /// One row of columns: a tap of a channel of an image.
    fn row<R: Real>(&self, win: &Window3, x: &[R], offsets: &[R], mask: Option<&[R]>, tap: usize, y: &mut [R]) {
        let r = self.kernel.len();
        let points = y.len();
        let [_, n1, n2] = win.input;
        let k = [tap / (win.kernel[1] * win.kernel[2]), tap / win.kernel[2] % win.kernel[1], tap % win.kernel[2]];
        let mut point = 0;
        win.for_each_output(|o| {
            let mut low = [0i64; 3];
            let mut weight = [R::of(0.0); 3];
            for d in MAX_SPATIAL - r..MAX_SPATIAL {
                let regular = (o[d] * win.stride[d] + k[d] * win.dilation[d]) as i64 - win.pad_begin[d] as i64;
                let at = R::of(regular as f64) + offsets[(d + r - MAX_SPATIAL) * points + point];
                let at = at.within(R::of(-FAR), R::of(FAR));
                (low[d], weight[d]) = (at.floor().f64() as i64, at - at.floor());
            }
            let mut sum = R::of(0.0);
            for corner in 0..1usize << r {
                let (mut w, mut place, mut inside) = (R::of(1.0), [0usize; 3], true);
                for d in MAX_SPATIAL - r..MAX_SPATIAL {
                    let high = corner >> (MAX_SPATIAL - 1 - d) & 1;
                    let i = low[d] + high as i64;
                    inside &= (0..win.input[d] as i64).contains(&i);
                    place[d] = i.max(0) as usize;
                    w = w * if high == 1 { weight[d] } else { R::of(1.0) - weight[d] };
                }
                if inside {
                    sum += w * x[(place[0] * n1 + place[1]) * n2 + place[2]];
                }
            }
            y[point] = mask.map_or(sum, |m| sum * m[point]);
            point += 1;
        });
    }
}

impl OpDef for DeformColumns {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Vec<Fact>> {
        cx.arity(2, 3)?;
        let (x, offset) = (cx.input(0)?, cx.input(1)?);
        cx.float(0)?;
        let axes = self.axes()?;
        let r = axes.len() as i64;
        cx.rank(0, axes.len() + 2)?;
        ensure!(self.groups >= 1, InvalidArgument, "{} groups of offsets", self.groups);
        ensure!(self.taps() <= i32::MAX as i64, InvalidArgument, "a kernel of {:?} is too large", self.kernel);
        let c = &x.shape[1];
        ensure!(
            c.as_const().is_none_or(|c| c % self.groups == 0),
            InvalidArgument,
            "input 0: {c} channels are no multiple of {} groups of offsets",
            self.groups
        );
        let mut shape = vec![x.shape[0].clone(), c * &Dim::from(self.taps())];
        for (axis, dim) in axes.iter().zip(&x.shape[2..]) {
            shape.push(axis.output(dim)?);
        }
        let per_point = self.groups.saturating_mul(self.taps());
        for (i, rows) in [(1, per_point.saturating_mul(r)), (2, per_point)] {
            let Some(f) = cx.opt(i) else { continue };
            cx.rank(i, axes.len() + 2)?;
            let fits = |d: &Dim, want: &Dim| d == want || d.as_const().is_none() || want.as_const().is_none();
            let mut want = shape.clone();
            want[1] = Dim::from(rows);
            ensure!(
                f.dtype == x.dtype && f.shape.iter().zip(&want).all(|(d, w)| fits(d, w)),
                InvalidArgument,
                "input {i}: expected {}{}, got {f}",
                x.dtype,
                Shape(want)
            );
        }
        ensure!(offset.rank() == axes.len() + 2, InvalidArgument, "input 1 is missing");
        Ok(vec![Fact::new(x.dtype, Shape(shape))])
    }

    fn eval(&self, cx: &EvalCx<'_>) -> Result<Vec<Tensor>> {
        let x = cx.input(0)?;
        let (dtype, d) = (x.dtype(), x.shape().to_vec());
        let shape = cx.output(0)?.shape().to_vec();
        let win = self.window(&d, &shape)?;
        let (taps, r, groups) = (win.taps(), self.kernel.len(), self.groups as usize);
        let (plane, points): (usize, usize) = (d[2..].iter().product(), shape[2..].iter().product());
        let per_group = (d[1] / groups).max(1);
        Ok(vec![dispatch_real!(dtype, R => {
            let (x, offset) = (reals::<R>(x), reals::<R>(cx.input(1)?));
            let mask = cx.opt(2).map(reals::<R>);
            let mut out = vec![R::of(0.0); shape.iter().product()];
            let y = SharedMut::new(&mut out);
            for_each_task(d[0] * d[1], |task| {
                let (image, channel) = (task / d[1], task % d[1]);
                for tap in 0..taps {
                    let row = (image * groups + channel / per_group) * taps + tap;
                    let offsets = &offset[row * r * points..][..r * points];
                    let mask = mask.as_ref().map(|m| &m[row * points..][..points]);
                    // SAFETY: each task has the rows of a channel of its own.
                    let y = unsafe { y.slice((task * taps + tap) * points, points) };
                    self.row::<R>(&win, &x[task * plane..][..plane], offsets, mask, tap, y);
                }
            });
            tensor_of(dtype, &shape, &out)
        })])
    }

    fn cuda_tactics(&self, p: &Problem, _dev: &DeviceProps, _opt: &TacticOptions) -> Vec<Tactic> {
        cuda::tactics(self, p)
    }

    fn cuda_program(&self, _tactic: &Tactic, p: &Problem, dev: &DeviceProps) -> Result<StepProgram> {
        cuda::program(self, p, dev)
    }

    fn flops(&self, p: &Problem) -> f64 {
        p.outputs.first().map_or(0.0, |y| 8.0 * y.numel() as f64)
    }
}
