//! N-D transposed convolution with an epilogue: each input element spreads the kernel over the output.
//!
//! Inputs: x [n, c, spatial..], w [c, m/group, kernel..], optional bias [m], then the epilogue's further operands (see
//! [`crate::ops::epilogue`]). One to three spatial axes. The output size along an axis is
//! `stride (in - 1) + output_padding + span - pad_begin - pad_end`, or `output_shape` when that is given, which then
//! decides the padding.

mod cpu;
mod cuda;
mod eval;
mod onnx;

use crate::base::{Dim, Fact, Result, Shape, Tensor};
use crate::ops::conv::{check_bias, check_operands};
use crate::device::DeviceProps;
use crate::ops::pointwise::Program;
use crate::ops::window::{AutoPad, ChannelOrder, Axis, Window3, Windows};
use crate::ops::{HalfRole, CpuStep, EvalCx, InferCx, OpDef, PackCache, Problem, StepProgram, Tactic, TacticOptions, epilogue};
use crate::{ensure, op_home, op_struct};

op_struct! {
    /// See the module's text.
    pub struct ConvTranspose {
        /// One a spatial axis; empty: all 1. The same holds for `dilations`.
        pub strides: Vec<i64>,
        /// Begins of all axes, then ends; empty: all 0.
        pub pads: Vec<i64>,
        pub dilations: Vec<i64>,
        pub group: i64,
        pub auto_pad: AutoPad,
        /// Extra elements at the end of each axis; empty: none.
        pub output_padding: Vec<i64>,
        /// Sizes of the spatial axes of the output; padding follows from it.
        pub output_shape: Option<Vec<i64>>,
        pub epilogue: Option<Program>,
    }
}

op_home!(ConvTranspose, "ConvTranspose", onnx::TABLE);

/// Index of the first operand of the epilogue.
const FIRST_EXTRA: usize = 3;

/// A transposed convolution at concrete sizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConvTransposeGeometry {
    pub n: usize,
    pub c: usize,
    pub m: usize,
    pub group: usize,
    /// `pad_begin` is what is cut off the begin of the full output; `pad_end` is not used.
    pub window: Window3,
}

impl ConvTranspose {
    fn axes(&self, kernel: &[i64]) -> Result<Vec<Axis>> {
        let n = kernel.len();
        for (name, len) in [
            ("output_padding", self.output_padding.len()),
            ("output_shape", self.output_shape.as_ref().map_or(n, |s| s.len())),
        ] {
            ensure!(len == n || (len == 0 && name == "output_padding"), InvalidArgument, "{name}: expected {n} numbers, got {len}");
        }
        ensure!(
            self.output_padding.iter().all(|p| (0..=i32::MAX as i64).contains(p)),
            InvalidArgument,
            "output_padding {:?} is negative or too large",
            self.output_padding
        );
        Windows {
            strides: &self.strides,
            pads: &self.pads,
            dilations: &self.dilations,
            auto_pad: self.auto_pad,
            ceil_mode: false,
        }
        .axes(kernel)
    }

    fn extra(&self, i: usize) -> i64 {
        self.output_padding.get(i).copied().unwrap_or(0)
    }

    /// Output size along spatial axis `i`.
    fn output(&self, i: usize, axis: &Axis, input: &Dim) -> Result<Dim> {
        if let Some(s) = &self.output_shape {
            ensure!(s[i] >= 0, InvalidArgument, "output_shape {s:?} is negative");
            return Ok(Dim::from(s[i]));
        }
        let size = match axis.auto_pad {
            AutoPad::SameUpper | AutoPad::SameLower => input * &Dim::from(axis.stride),
            pad => {
                let cut = if pad == AutoPad::Valid { 0 } else { axis.pad_begin + axis.pad_end };
                &(&(input - &Dim::ONE) * &Dim::from(axis.stride)) + (axis.span() + self.extra(i) - cut)
            }
        };
        ensure!(
            size.as_const().is_none_or(|v| v >= 0),
            InvalidArgument,
            "padding {}+{} is larger than the output of spatial axis {i}",
            axis.pad_begin,
            axis.pad_end
        );
        Ok(size)
    }

    /// What is cut off the begin of the full output along an axis. Smaller than zero never: then zeros follow.
    fn cut(&self, i: usize, axis: &Axis, input: i64, output: i64) -> i64 {
        if self.output_shape.is_none() && matches!(axis.auto_pad, AutoPad::NotSet | AutoPad::Valid) {
            return if axis.auto_pad == AutoPad::Valid { 0 } else { axis.pad_begin };
        }
        let total = (axis.stride * (input - 1) + self.extra(i) + axis.span() - output).max(0);
        if axis.auto_pad == AutoPad::SameUpper { total / 2 } else { total - total / 2 }
    }

    /// The problem's sizes in one place. The window's `output` is this operator's output.
    pub fn geometry(&self, x: &[usize], w: &[usize], y: &[usize]) -> Result<ConvTransposeGeometry> {
        let kernel: Vec<i64> = w[2..].iter().map(|k| *k as i64).collect();
        let mut axes = self.axes(&kernel)?;
        for (i, axis) in axes.iter_mut().enumerate() {
            axis.pad_begin = self.cut(i, axis, x[2 + i] as i64, y[2 + i] as i64);
            axis.auto_pad = AutoPad::NotSet;
        }
        Ok(ConvTransposeGeometry {
            n: x[0],
            c: x[1],
            m: w[1] * self.group as usize,
            group: self.group as usize,
            window: Window3::new(&axes, &x[2..], &y[2..]),
        })
    }
}

impl OpDef for ConvTranspose {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Vec<Fact>> {
        let kernel = check_operands(cx, self.group, ChannelOrder::First)?;
        let (x, w) = (cx.input(0)?, cx.input(1)?);
        if let (Some(c), Some(cw)) = (x.shape[1].as_const(), w.shape[0].as_const()) {
            ensure!(c == cw, InvalidArgument, "input 0: expected {cw} channels (weight dim 0), got {c}");
            ensure!(
                c % self.group == 0,
                InvalidArgument,
                "input 0: {c} channels are no multiple of group {}",
                self.group
            );
        }
        let m = &w.shape[1] * &Dim::from(self.group);
        check_bias(cx, &m)?;
        let mut shape = vec![x.shape[0].clone(), m];
        for (i, (axis, dim)) in self.axes(&kernel)?.iter().zip(&x.shape[2..]).enumerate() {
            shape.push(self.output(i, axis, dim)?);
        }
        epilogue::infer(self.epilogue.as_ref(), cx, FIRST_EXTRA, Fact::new(x.dtype, Shape(shape)))
    }

    fn half(&self, n_inputs: usize) -> Option<(HalfRole, Vec<usize>)> {
        (self.epilogue.as_ref().is_none_or(crate::ops::pointwise::half::is_safe)).then(|| (HalfRole::Product, (0..n_inputs).collect()))
    }

    fn eval(&self, cx: &EvalCx<'_>) -> Result<Vec<Tensor>> {
        eval::eval(self, cx)
    }

    fn cpu(&self, p: &Problem, pack: &dyn PackCache) -> Result<Option<Box<dyn CpuStep>>> {
        cpu::cpu(self, p, pack)
    }

    fn cuda_tactics(&self, p: &Problem, dev: &DeviceProps, opt: &TacticOptions) -> Vec<Tactic> {
        cuda::tactics(self, p, dev, opt)
    }

    fn cuda_program(&self, tactic: &Tactic, p: &Problem, dev: &DeviceProps) -> Result<StepProgram> {
        cuda::program(self, tactic, p, dev)
    }

    fn flops(&self, p: &Problem) -> f64 {
        match (p.input(0), p.input(1)) {
            (Some(x), Some(w)) => 2.0 * x.numel() as f64 * w.dims[1..].iter().product::<usize>() as f64,
            _ => 0.0,
        }
    }
}
