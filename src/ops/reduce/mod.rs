//! Reduction over axes. Inputs: x, optional axes (a vector of integers, host).
//!
//! The axes are the attribute or the operand; without either, or with an empty list, all axes are reduced unless
//! `noop_with_empty_axes` says none (each element is then reduced alone: its square for `SumSquare`). Sums of f16 and
//! bf16 are kept in f32 on every device. `ArgMax` and `ArgMin` take one axis and give i64 positions; the first of
//! equal elements wins unless `select_last_index`. `Max` and `Min` give NaN when an element is NaN.

mod cdist;
mod columns;
mod eval;
mod cpu;
mod cuda;
mod onnx;

use crate::base::dims::normalize_axis;
use crate::base::{DType, Dim, Fact, Result, Tensor};
use crate::ops::shape::with_known;
use crate::device::DeviceProps;
use crate::ops::{HalfRole, CpuStep, EvalCx, InferCx, OpDef, PackCache, Problem, StepProgram, Tactic, TacticOptions};
use crate::{attr_enum, bail, ensure, err, op_home, op_struct};

attr_enum! {
    /// What a reduction computes.
    pub enum ReduceKind { Sum = "sum", Mean = "mean", Max = "max", Min = "min", Prod = "prod", SumSquare = "sum_square", L1 = "l1", L2 = "l2", LogSum = "log_sum", LogSumExp = "log_sum_exp", ArgMax = "arg_max", ArgMin = "arg_min" }
}

impl ReduceKind {
    /// Gives positions instead of values.
    pub fn is_arg(self) -> bool {
        matches!(self, ReduceKind::ArgMax | ReduceKind::ArgMin)
    }
}

op_struct! {
    /// Reduction over axes. Inputs: x, optional axes (host).
    pub struct Reduce {
        pub kind: ReduceKind,
        pub axes: Option<Vec<i64>>,
        pub keepdims: bool,
        pub noop_with_empty_axes: bool,
        pub select_last_index: bool,
    }
}

op_home!(Reduce, "Reduce", onnx::TABLE);

impl Reduce {
    /// A reduction over fixed axes.
    pub fn over(kind: ReduceKind, axes: Vec<i64>, keepdims: bool) -> Reduce {
        Reduce { kind, axes: Some(axes), keepdims, noop_with_empty_axes: false, select_last_index: false }
    }

    /// The reduced axes as sorted indices, from what the attribute or the operand says.
    pub fn resolve(&self, axes: Option<&[i64]>, rank: usize) -> Result<Vec<usize>> {
        let mut v = match axes {
            Some(a) if !a.is_empty() => a.iter().map(|a| normalize_axis(*a, rank)).collect::<Result<Vec<_>>>()?,
            _ if self.noop_with_empty_axes => vec![],
            _ => (0..rank).collect(),
        };
        v.sort_unstable();
        v.dedup();
        ensure!(
            !self.kind.is_arg() || v.len() == 1 || rank == 0,
            InvalidArgument,
            "{} takes one axis, got {}",
            self.kind.name(),
            v.len()
        );
        Ok(v)
    }

    /// Axes for a node at concrete shapes.
    pub fn axes_of(&self, rank: usize, operand: Option<&Tensor>) -> Result<Vec<usize>> {
        let operand = operand.map(|t| t.to_i64s());
        self.resolve(self.axes.as_deref().or(operand.as_deref()), rank)
    }

    fn check_type(&self, dtype: DType) -> Result<()> {
        use ReduceKind::*;
        let fine = match self.kind {
            _ if dtype.is_small() => false,
            Max | Min | ArgMax | ArgMin => true,
            _ => dtype != DType::Bool,
        };
        ensure!(fine, Unsupported, "reduction {} does not take {dtype}", self.kind.name());
        Ok(())
    }

    /// The result of shape arithmetic: the reduction of a known vector to one element.
    fn known(&self, x: &Fact, axes: &[usize]) -> Option<Vec<Dim>> {
        let dims = x.as_dims().filter(|_| x.rank() == 1 && axes.len() == 1)?;
        let (first, rest) = dims.split_first()?;
        let fold = |f: fn(&Dim, &Dim) -> Dim| vec![rest.iter().fold(first.clone(), |a, b| f(&a, b))];
        match self.kind {
            ReduceKind::Sum => Some(fold(|a, b| a + b)),
            ReduceKind::Prod => Some(fold(|a, b| a * b)),
            ReduceKind::Max => Some(fold(|a, b| a.max_of(b))),
            ReduceKind::Min => Some(fold(|a, b| a.min_of(b))),
            _ => None,
        }
    }
}

impl OpDef for Reduce {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Vec<Fact>> {
        cx.arity(1, 2)?;
        let x = cx.input(0)?;
        self.check_type(x.dtype)?;
        let dtype = if self.kind.is_arg() { DType::I64 } else { x.dtype };
        let operand = match cx.opt(1) {
            Some(f) => {
                ensure!(self.axes.is_none(), InvalidArgument, "both the attribute axes and input 1 are given");
                ensure!(f.dtype.is_int() && f.rank() <= 1, InvalidArgument, "input 1: expected integers, got {f}");
                match cx.ints(1)? {
                    Some(v) => Some(v),
                    None => {
                        // Distinct axes, of which only the number is known.
                        let n = match f.shape.numel().as_const() {
                            Some(0) if self.noop_with_empty_axes => 0,
                            Some(0) => x.rank(),
                            Some(n) if n <= x.rank() as i64 => n as usize,
                            _ if self.keepdims => 0,
                            _ => bail!(Unsupported, "the number of reduced axes depends on data, and so does the rank"),
                        };
                        let rank = if self.keepdims { x.rank() } else { x.rank() - n };
                        let shape: Vec<Dim> = (0..rank).map(|_| crate::ops::fresh_dim("reduce")).collect();
                        return Ok(vec![Fact::new(dtype, shape)]);
                    }
                }
            }
            None => None,
        };
        let axes = self.resolve(self.axes.as_deref().or(operand.as_deref()), x.rank())?;
        if self.kind.is_arg() {
            for a in &axes {
                ensure!(!x.shape[*a].is(0), InvalidArgument, "{} over axis {a}, which is empty", self.kind.name());
            }
        }
        let keep = |i: &usize| !axes.contains(i);
        let shape: Vec<Dim> = match self.keepdims {
            true => (0..x.rank()).map(|i| if keep(&i) { x.shape[i].clone() } else { Dim::ONE }).collect(),
            false => (0..x.rank()).filter(keep).map(|i| x.shape[i].clone()).collect(),
        };
        Ok(vec![with_known(Fact::new(dtype, shape), self.known(x, &axes))])
    }

    fn half(&self, _n_inputs: usize) -> Option<(HalfRole, Vec<usize>)> {
        (matches!(self.kind, ReduceKind::Max | ReduceKind::Min | ReduceKind::Mean)).then(|| (HalfRole::Follows, vec![0]))
    }

    fn eval(&self, cx: &EvalCx<'_>) -> Result<Vec<Tensor>> {
        let x = cx.input(0)?;
        let axes = self.axes_of(x.rank(), cx.opt(1))?;
        let out = cx.outputs.first().ok_or_else(|| err!(InvalidArgument, "there is no output 0"))?;
        Ok(vec![eval::reduce(self, x, &axes, &out.shape.to_concrete()?)?])
    }

    fn host_inputs(&self) -> Vec<usize> {
        vec![1]
    }

    fn flops(&self, p: &Problem) -> f64 {
        p.input(0).map_or(0.0, |x| x.numel() as f64)
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
}
