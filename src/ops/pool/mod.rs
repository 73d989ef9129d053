//! Max, average or Lp pooling over windows.
//!
//! Input: x [n, c, spatial..] (with channels last: [n, spatial.., c]), one to three spatial axes. Outputs: y, and for `indices` (max only) where each maximum
//! stands in the flattened x, as i64. A window that lies in the padding alone gives the lowest value (max, index -1) or
//! 0 (average, Lp). The first of equal maxima wins; a NaN wins over every number.

mod cpu;
mod cuda;
mod eval;
mod onnx;

use crate::base::{DType, Fact, Result, Shape, Tensor};
use crate::device::DeviceProps;
use crate::ops::window::{AutoPad, Axis, ChannelOrder, Window3, Windows};
use crate::ops::{HalfRole, CpuStep, EvalCx, InferCx, OpDef, PackCache, Problem, StepProgram, Tactic, TacticOptions};
use crate::{attr_enum, ensure, op_home, op_struct};

attr_enum! {
    /// What a window gives.
    pub enum PoolKind { Max = "max", Average = "average", Lp = "lp" }
}

op_struct! {
    /// See the module's text.
    pub struct Pool {
        pub kind: PoolKind,
        pub kernel: Vec<i64>,
        /// One a spatial axis; empty: all 1. The same holds for `dilations`.
        pub strides: Vec<i64>,
        /// Begins of all axes, then ends; empty: all 0.
        pub pads: Vec<i64>,
        pub dilations: Vec<i64>,
        pub auto_pad: AutoPad,
        /// Rounds the number of windows up; the last one must start inside the input or the begin padding.
        pub ceil_mode: bool,
        /// An average divides by the elements inside input and padding instead of inside the input.
        pub count_include_pad: bool,
        /// The exponent of Lp.
        pub p: i64,
        /// Has the second output.
        pub indices: bool,
        /// 1: indices count along the first spatial axis first.
        pub storage_order: i64,
        /// Where the channels of x and y stand, which is the same place.
        pub order: ChannelOrder,
    }
}

op_home!(Pool, "Pool", onnx::TABLE);

impl Pool {
    fn axes(&self) -> Result<Vec<Axis>> {
        Windows {
            strides: &self.strides,
            pads: &self.pads,
            dilations: &self.dilations,
            auto_pad: self.auto_pad,
            ceil_mode: self.ceil_mode,
        }
        .axes(&self.kernel)
    }

    /// The windows at concrete sizes.
    pub fn window(&self, x: &[usize], y: &[usize]) -> Result<Window3> {
        let spatial = self.order.input_spatial(x.len());
        Ok(Window3::new(&self.axes()?, &x[spatial.clone()], &y[spatial]))
    }

    /// The index output for a maximum at a flat place inside its plane; `usize::MAX` is an empty window's place.
    fn index(&self, win: &Window3, plane: usize, place: usize) -> i64 {
        let [d, h, w] = win.input;
        let inside = match (place, self.storage_order) {
            (usize::MAX, _) => return -1,
            (i, 0) => i,
            (i, _) => i / (h * w) + i / w % h * d + i % w * d * h,
        };
        (plane * d * h * w + inside) as i64
    }
}

impl OpDef for Pool {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Vec<Fact>> {
        cx.arity(1, 1)?;
        let x = cx.input(0)?;
        let axes = self.axes()?;
        ensure!(
            x.rank() == axes.len() + 2,
            InvalidArgument,
            "input 0: expected [n, c, {} spatial axes], got {}",
            axes.len(),
            x.shape
        );
        let fine = x.dtype.is_float() || (self.kind == PoolKind::Max && x.dtype.is_int());
        ensure!(fine, Unsupported, "{} pooling does not take {}", self.kind.name(), x.dtype);
        ensure!(self.kind != PoolKind::Lp || self.p >= 1, InvalidArgument, "p = {} is below 1", self.p);
        ensure!(!self.indices || self.kind == PoolKind::Max, InvalidArgument, "only max pooling gives indices");
        ensure!(
            matches!(self.storage_order, 0 | 1),
            InvalidArgument,
            "storage_order: expected 0 or 1, got {}",
            self.storage_order
        );
        ensure!(self.order != ChannelOrder::FirstToLast, InvalidArgument, "pooling keeps the order of channels");
        ensure!(
            self.order == ChannelOrder::First || !self.indices,
            Unsupported,
            "indices of maxima are counted with channels first"
        );
        let spatial = axes.iter().zip(&x.shape[self.order.input_spatial(x.rank())]).map(|(axis, dim)| axis.output(dim));
        let channels = x.shape[self.order.input_channels(x.rank())].clone();
        let shape = self.order.output_shape(x.shape[0].clone(), channels, spatial.collect::<Result<Vec<_>>>()?);
        let mut out = vec![Fact::new(x.dtype, Shape(shape.clone()))];
        if self.indices {
            out.push(Fact::new(DType::I64, Shape(shape)));
        }
        Ok(out)
    }

    fn half(&self, _n_inputs: usize) -> Option<(HalfRole, Vec<usize>)> {
        (self.kind != PoolKind::Lp).then(|| (HalfRole::Follows, vec![0]))
    }

    fn eval(&self, cx: &EvalCx<'_>) -> Result<Vec<Tensor>> {
        eval::eval(self, cx)
    }

    fn cpu(&self, p: &Problem, pack: &dyn PackCache) -> Result<Option<Box<dyn CpuStep>>> {
        cpu::cpu(self, p, pack)
    }

    fn cuda_tactics(&self, p: &Problem, _dev: &DeviceProps, opt: &TacticOptions) -> Vec<Tactic> {
        cuda::tactics(self, p, opt)
    }

    fn cuda_program(&self, tactic: &Tactic, p: &Problem, dev: &DeviceProps) -> Result<StepProgram> {
        cuda::program(self, tactic, p, dev)
    }

    fn flops(&self, p: &Problem) -> f64 {
        let taps: f64 = self.kernel.iter().map(|k| *k as f64).product();
        p.outputs.first().map_or(0.0, |y| y.numel() as f64 * taps)
    }
}
