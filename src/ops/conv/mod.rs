//! N-D convolution with an epilogue.
//!
//! Inputs: x [n, c, spatial..], w [m, c/group, kernel..], optional bias [m], then the epilogue's further operands (see
//! [`crate::ops::epilogue`]). One to three spatial axes. All of x, w and bias are of one floating-point type. With
//! another [`ChannelOrder`] the channels stand elsewhere; the epilogue's operands broadcast to y as it lies.

mod cpu;
pub(crate) mod cuda;
mod eval;
mod nhwc;
mod onnx;
mod wgmma;

pub(crate) use cpu::{floats, optional_floats};
pub(crate) use onnx::{check_kernel_shape, resolve_auto_pad, window_attrs};

use crate::base::{Dim, Fact, Result, Shape, Tensor};
use crate::device::DeviceProps;
use crate::ops::pointwise::Program;
use crate::ops::window::{AutoPad, Axis, ChannelOrder, Window3, Windows, kernel_sizes_in};
use crate::ops::{HalfRole, CpuStep, EvalCx, InferCx, OpDef, PackCache, Problem, StepProgram, Tactic, TacticOptions, epilogue};
use crate::{ensure, op_home, op_struct};

op_struct! {
    /// See the module's text.
    pub struct Conv {
        /// One a spatial axis; empty: all 1. The same holds for `dilations`.
        pub strides: Vec<i64>,
        /// Begins of all axes, then ends; empty: all 0. Not looked at unless `auto_pad` is `NotSet`.
        pub pads: Vec<i64>,
        pub dilations: Vec<i64>,
        pub group: i64,
        pub auto_pad: AutoPad,
        /// Where the channels of x, w and y stand.
        pub order: ChannelOrder,
        pub epilogue: Option<Program>,
    }
}

op_home!(Conv, "Conv", onnx::TABLE);

/// Index of the first operand of the epilogue.
const FIRST_EXTRA: usize = 3;

impl Conv {
    /// One window a spatial axis.
    pub fn axes(&self, kernel: &[i64]) -> Result<Vec<Axis>> {
        Windows {
            strides: &self.strides,
            pads: &self.pads,
            dilations: &self.dilations,
            auto_pad: self.auto_pad,
            ceil_mode: false,
        }
        .axes(kernel)
    }

    /// The problem's sizes in one place.
    pub fn geometry(&self, x: &[usize], w: &[usize], y: &[usize]) -> Result<ConvGeometry> {
        let (order, rank) = (self.order, x.len());
        let (inner, outer) = (order.input_spatial(rank), order.output_spatial(rank));
        let kernel: Vec<i64> = w[inner.clone()].iter().map(|k| *k as i64).collect();
        Ok(ConvGeometry {
            n: x[0],
            // Not x's: while kernels are chosen, an unknown dimension of x is a guess.
            c: w[order.input_channels(rank)] * self.group as usize,
            m: w[0],
            group: self.group as usize,
            order,
            window: Window3::new(&self.axes(&kernel)?, &x[inner], &y[outer]),
        })
    }
}

/// A convolution at concrete sizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConvGeometry {
    pub n: usize,
    /// Input channels of all groups.
    pub c: usize,
    /// Output channels of all groups.
    pub m: usize,
    pub group: usize,
    /// Where the channels stand; the sizes above are the same in every order.
    pub order: ChannelOrder,
    pub window: Window3,
}

/// Checks x, w and bias and gives the weight's two channel dimensions and its kernel sizes.
pub(crate) fn check_operands(cx: &InferCx<'_>, group: i64, order: ChannelOrder) -> Result<Vec<i64>> {
    ensure!(cx.n_inputs() >= 2, InvalidArgument, "expected at least 2 inputs, got {}", cx.n_inputs());
    let (x, w) = (cx.input(0)?, cx.input(1)?);
    cx.float(0)?;
    ensure!((3..=5).contains(&x.rank()), Unsupported, "input 0: expected [n, c, 1 to 3 spatial axes], got {}", x.shape);
    ensure!(
        w.rank() == x.rank(),
        InvalidArgument,
        "input 1: expected rank {} as input 0 has, got {}",
        x.rank(),
        w.shape
    );
    for i in 1..3 {
        if let Some(f) = cx.opt(i) {
            ensure!(f.dtype == x.dtype, InvalidArgument, "input {i}: expected {} as input 0, got {}", x.dtype, f.dtype);
        }
    }
    ensure!(group >= 1, InvalidArgument, "group {group} is below 1");
    kernel_sizes_in(w, order)
}

/// Fails when the bias is not one number an output channel.
pub(crate) fn check_bias(cx: &InferCx<'_>, m: &Dim) -> Result<()> {
    let Some(b) = cx.opt(2) else { return Ok(()) };
    let fits = b.rank() == 1 && (b.shape[0] == *m || b.shape[0].as_const().is_none() || m.as_const().is_none());
    ensure!(fits, InvalidArgument, "input 2: expected bias [{m}], got {}", b.shape);
    Ok(())
}

impl OpDef for Conv {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Vec<Fact>> {
        let order = self.order;
        let kernel = check_operands(cx, self.group, order)?;
        let (x, w) = (cx.input(0)?, cx.input(1)?);
        let (rank, channels) = (x.rank(), order.input_channels(x.rank()));
        if let (Some(c), Some(cg)) = (x.shape[channels].as_const(), w.shape[channels].as_const()) {
            let want = cg.saturating_mul(self.group);
            ensure!(
                c == want,
                InvalidArgument,
                "input 0: expected {want} channels (weight dim {channels} x group = {cg} x {}), got {c}",
                self.group
            );
        }
        let m = w.shape[0].clone();
        ensure!(
            m.as_const().is_none_or(|m| m % self.group == 0),
            InvalidArgument,
            "input 1: {m} output channels are no multiple of group {}",
            self.group
        );
        check_bias(cx, &m)?;
        let axes = self.axes(&kernel)?;
        let spatial = axes.iter().zip(&x.shape[order.input_spatial(rank)]).map(|(axis, dim)| axis.output(dim));
        let shape = order.output_shape(x.shape[0].clone(), m, spatial.collect::<Result<Vec<_>>>()?);
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
        match (p.input(1), p.outputs.first()) {
            (Some(w), Some(y)) => 2.0 * y.numel() as f64 * w.dims[1..].iter().product::<usize>() as f64,
            _ => 0.0,
        }
    }
}
