//! Normalization of rows: layer, root-mean-square, instance and group normalization, alone or behind a residual sum.
//!
//! Inputs: x, scale, bias, skip, skip bias; all but x optional. What is normalized is `x + skip + skip bias`. A row is all
//! axes from `axis` on (`groups` 0), or the channels of one group (axis 1 in `groups` parts) with all axes behind them.
//! Scale and bias have an element for each place of a row, for each channel, or for each group. Outputs: y of the type of
//! scale and bias (of x without them); with `stats` the mean (0 unless `centered`) and the inverse deviation of each row, f32
//! (f64 for f64), shaped as x with the row's axes of size 1; with `sum` what was normalized, in x's type. Statistics are of the
//! deviations (two passes), in f32 (f64 for f64).

pub(crate) mod batch;
mod cpu;
mod cuda;
mod eval;
mod local;
mod onnx;
mod skip;

use crate::base::{DType, Dim, Fact, Result, Shape, Tensor};
use crate::device::DeviceProps;
use crate::ops::{CpuStep, HalfRole, EvalCx, InferCx, OpDef, PackCache, Problem, StepProgram, Tactic, TacticOptions};
use crate::{attr_enum, ensure, op_home, op_struct};

attr_enum! {
    /// What scale and bias have an element for.
    pub enum Affine {
        /// Each place of a row.
        Row = "row",
        /// Each channel (axis 1).
        Channel = "channel",
        /// Each group of channels.
        Group = "group",
    }
}

op_struct! {
    /// See the module's text.
    pub struct Normalize {
        pub axis: i64,
        pub groups: i64,
        pub affine: Affine,
        pub centered: bool,
        pub epsilon: f32,
        pub stats: bool,
        pub sum: bool,
    }
}

op_home!(Normalize, "Normalize", onnx::TABLE);

/// Operands by position.
const SCALE: usize = 1;
const BIAS: usize = 2;
const SKIP: usize = 3;
const SKIP_BIAS: usize = 4;

/// Rows at concrete sizes. The parameter for column `c` of row `r` is `r % period * step + c / run`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rows {
    pub rows: usize,
    pub cols: usize,
    pub period: usize,
    pub step: usize,
    pub run: usize,
}

/// The type that statistics have.
fn stat_type(dtype: DType) -> DType {
    if dtype == DType::F64 { DType::F64 } else { DType::F32 }
}

impl Normalize {
    /// Normalization over the axes from `axis` on, with an element of scale and bias for each place of a row.
    pub fn rows(axis: i64, centered: bool, epsilon: f32) -> Normalize {
        Normalize { axis, groups: 0, affine: Affine::Row, centered, epsilon, stats: false, sum: false }
    }

    /// The first axis of a row, where rows are whole axes; all axes may stay outside for instances without extent.
    fn first(&self, rank: usize) -> Result<usize> {
        if self.groups > 0 || (self.affine == Affine::Channel && self.axis == rank as i64) {
            return Ok(rank.min(2));
        }
        crate::base::dims::normalize_axis(self.axis, rank)
    }

    pub fn geometry(&self, dims: &[usize]) -> Result<Rows> {
        let first = self.first(dims.len())?;
        let inner: usize = dims[first..].iter().product();
        if self.groups == 0 {
            let rows = dims[..first].iter().product();
            return Ok(match self.affine {
                Affine::Row => Rows { rows, cols: inner, period: 1, step: 0, run: 1 },
                _ => Rows { rows, cols: inner, period: dims[1].max(1), step: 1, run: inner.max(1) },
            });
        }
        let groups = self.groups as usize;
        ensure!(dims.len() >= 2 && dims[1] % groups == 0, InvalidArgument, "{groups} groups do not divide {dims:?}");
        let each = dims[1] / groups;
        let (rows, cols) = (dims[0] * groups, each * inner);
        Ok(match self.affine {
            Affine::Channel => Rows { rows, cols, period: groups, step: each, run: inner.max(1) },
            _ => Rows { rows, cols, period: groups, step: 1, run: cols.max(1) },
        })
    }

    /// How many elements scale and bias have.
    fn n_params(&self, shape: &Shape) -> Result<Dim> {
        Ok(match self.affine {
            Affine::Row => shape[self.first(shape.rank())?..].iter().fold(Dim::ONE, |n, d| &n * d),
            Affine::Channel => shape[1].clone(),
            Affine::Group => Dim::from(self.groups),
        })
    }

    fn check(&self, x: &Fact) -> Result<()> {
        let rank = x.rank();
        ensure!((0..=i32::MAX as i64).contains(&self.groups), InvalidArgument, "{} groups", self.groups);
        ensure!(self.groups > 0 || self.affine != Affine::Group, InvalidArgument, "scale for each of no groups");
        if self.groups > 0 {
            ensure!(rank >= 2, InvalidArgument, "groups of channels need rank 2 or more, got {x}");
            ensure!(!self.stats && self.affine != Affine::Row, InvalidArgument, "rows of groups have no statistics or places");
            if let Some(c) = x.shape[1].as_const() {
                ensure!(c % self.groups == 0, InvalidArgument, "{} groups do not divide {c} channels", self.groups);
            }
        }
        let first = self.first(rank)?;
        if self.affine == Affine::Channel {
            ensure!(rank >= 2 && first == 2, InvalidArgument, "scale for each channel needs rows of axes 2.., got {x}");
        }
        Ok(())
    }
}

impl OpDef for Normalize {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Vec<Fact>> {
        cx.arity(1, 5)?;
        cx.float(0)?;
        let x = cx.input(0)?;
        self.check(x)?;
        let n = self.n_params(&x.shape)?;
        let mut out_type = x.dtype;
        for i in [SCALE, BIAS] {
            let Some(f) = cx.opt(i) else { continue };
            cx.float(i)?;
            let fits = crate::ops::compose::may_equal(&f.shape.numel(), &n);
            ensure!(fits, InvalidArgument, "input {i}: expected {n} elements, got {f}");
            out_type = f.dtype;
        }
        if let (Some(s), Some(b)) = (cx.opt(SCALE), cx.opt(BIAS)) {
            ensure!(s.dtype == b.dtype, InvalidArgument, "scale is {} and bias is {}", s.dtype, b.dtype);
        }
        if let Some(f) = cx.opt(SKIP) {
            let same = f.rank() == x.rank()
                && f.shape.iter().zip(x.shape.iter()).all(|(a, b)| crate::ops::compose::may_equal(a, b));
            ensure!(f.dtype == x.dtype && same, InvalidArgument, "input {SKIP}: expected {x}, got {f}");
        }
        if let Some(f) = cx.opt(SKIP_BIAS) {
            ensure!(self.groups == 0 && self.affine == Affine::Row, InvalidArgument, "a skip bias needs an element for each place");
            let fits = f.dtype == x.dtype && crate::ops::compose::may_equal(&f.shape.numel(), &n);
            ensure!(fits, InvalidArgument, "input {SKIP_BIAS}: expected {n} elements of {}, got {f}", x.dtype);
        }
        let mut out = vec![Fact::new(out_type, x.shape.clone())];
        if self.stats {
            let first = self.first(x.rank())?;
            let shape: Vec<Dim> =
                x.shape.iter().enumerate().map(|(i, d)| if i < first { d.clone() } else { Dim::ONE }).collect();
            let f = Fact::new(stat_type(x.dtype), shape);
            out.extend([f.clone(), f]);
        }
        if self.sum {
            out.push(Fact::new(x.dtype, x.shape.clone()));
        }
        Ok(out)
    }

    // Statistics are f32 whatever the type.
    fn half(&self, n_inputs: usize) -> Option<(HalfRole, Vec<usize>)> {
        (!self.stats).then(|| (HalfRole::Follows, (0..n_inputs).collect()))
    }

    fn eval(&self, cx: &EvalCx<'_>) -> Result<Vec<Tensor>> {
        eval::eval(self, cx)
    }

    fn cpu(&self, p: &Problem, _pack: &dyn PackCache) -> Result<Option<Box<dyn CpuStep>>> {
        cpu::step(self, p)
    }

    fn cuda_tactics(&self, p: &Problem, dev: &DeviceProps, opt: &TacticOptions) -> Vec<Tactic> {
        cuda::tactics(self, p, dev, opt)
    }

    fn cuda_program(&self, tactic: &Tactic, p: &Problem, dev: &DeviceProps) -> Result<StepProgram> {
        cuda::program(self, tactic, p, dev)
    }

    fn flops(&self, p: &Problem) -> f64 {
        8.0 * p.outputs.first().map_or(0.0, |y| y.numel() as f64)
    }
}
