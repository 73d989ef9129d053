//! Convolution of 8-bit integers, with zero points and a last step that requantizes.
//!
//! Inputs, as [`crate::ops::requant`] numbers them: x [n, c, spatial..], w [m, c/group, kernel..], one to three spatial
//! axes; zero point and scale of x and of the output have one element, those of w one or m, and the bias is i32 [m].
//! Padding counts as x's zero point.

mod cpu;
mod cuda;
mod eval;
mod onnx;

use crate::base::{Fact, Result, Shape, Tensor};
use crate::device::DeviceProps;
use crate::ops::conv::{Conv, ConvGeometry};
use crate::ops::requant::{self, QOut};
use crate::ops::window::{AutoPad, kernel_sizes};
use crate::ops::{CpuStep, EvalCx, InferCx, OpDef, PackCache, Problem, StepProgram, Tactic, TacticOptions};
use crate::{ensure, op_home, op_struct};

op_struct! {
    /// See the module's text.
    pub struct QConv {
        /// One a spatial axis; empty: all 1. The same holds for `dilations`.
        pub strides: Vec<i64>,
        /// Begins of all axes, then ends; empty: all 0. Not looked at unless `auto_pad` is `NotSet`.
        pub pads: Vec<i64>,
        pub dilations: Vec<i64>,
        pub group: i64,
        pub auto_pad: AutoPad,
        pub out: QOut,
    }
}

op_home!(QConv, "QConv", onnx::TABLE);

impl QConv {
    /// The same windows as a convolution of floats has.
    fn conv(&self) -> Conv {
        Conv {
            strides: self.strides.clone(),
            pads: self.pads.clone(),
            dilations: self.dilations.clone(),
            group: self.group,
            auto_pad: self.auto_pad,
            order: Default::default(),
            epilogue: None,
        }
    }

    fn geometry(&self, x: &[usize], w: &[usize], y: &[usize]) -> Result<ConvGeometry> {
        self.conv().geometry(x, w, y)
    }

    fn problem(&self, p: &Problem) -> Result<ConvGeometry> {
        match (p.input(0), p.input(1), p.outputs.first()) {
            (Some(x), Some(w), Some(y)) => self.geometry(&x.dims, &w.dims, &y.dims),
            _ => Err(crate::internal!("a convolution without operands")),
        }
    }
}

impl OpDef for QConv {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Vec<Fact>> {
        let dtype = requant::check_types(self.out, cx)?;
        let (x, w) = (cx.input(0)?, cx.input(1)?);
        ensure!((3..=5).contains(&x.rank()), Unsupported, "input 0: expected [n, c, 1 to 3 spatial axes], got {}", x.shape);
        ensure!(
            w.rank() == x.rank(),
            InvalidArgument,
            "input 1: expected rank {} as input 0 has, got {}",
            x.rank(),
            w.shape
        );
        ensure!(self.group >= 1, InvalidArgument, "group {} is below 1", self.group);
        if let (Some(c), Some(cg)) = (x.shape[1].as_const(), w.shape[1].as_const()) {
            let want = cg.saturating_mul(self.group);
            ensure!(
                c == want,
                InvalidArgument,
                "input 0: expected {want} channels (weight dim 1 x group = {cg} x {}), got {c}",
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
        for i in [requant::X_ZERO, requant::X_SCALE, requant::Y_SCALE, requant::Y_ZERO] {
            requant::check_one_or(cx, i, Some(1))?;
        }
        for i in [requant::W_ZERO, requant::W_SCALE] {
            requant::check_one_or(cx, i, m.as_const())?;
        }
        if let Some(b) = cx.opt(requant::BIAS) {
            let fits = b.rank() == 1 && (b.shape[0] == m || b.shape[0].as_const().is_none() || m.as_const().is_none());
            ensure!(fits, InvalidArgument, "input {}: expected bias [{m}], got {}", requant::BIAS, b.shape);
        }
        let mut shape = vec![x.shape[0].clone(), m];
        for (axis, dim) in self.conv().axes(&kernel_sizes(w)?)?.iter().zip(&x.shape[2..]) {
            shape.push(axis.output(dim)?);
        }
        Ok(vec![Fact::new(dtype, Shape(shape))])
    }

    fn eval(&self, cx: &EvalCx<'_>) -> Result<Vec<Tensor>> {
        eval::eval(self, cx)
    }

    fn cpu(&self, p: &Problem, pack: &dyn PackCache) -> Result<Option<Box<dyn CpuStep>>> {
        cpu::cpu(self, p, pack)
    }

    fn cuda_tactics(&self, p: &Problem, _dev: &DeviceProps, _opt: &TacticOptions) -> Vec<Tactic> {
        cuda::tactics(self, p)
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
