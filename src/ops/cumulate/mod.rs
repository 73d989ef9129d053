//! Running sums and products along an axis. Inputs: x, the axis (one integer, host).
//!
//! `exclusive` leaves each element out of its own result, `reverse` runs from the end. Floats are accumulated in f64 on
//! the host and in f32 (f64 for f64) on devices; integers wrap.

mod cpu;
mod cuda;

use crate::base::dims::normalize_axis;
use crate::base::tensor::{Number, Scalar};
use crate::base::{Fact, Result, Tensor};
use crate::device::DeviceProps;
use crate::network::ValueId;
use crate::ops::{
    CpuStep, EvalCx, ImportCx, InferCx, OpDef, PackCache, Problem, StepProgram, Tactic, TacticOptions, onnx,
};
use crate::{ensure, err, op_home, op_struct};

op_struct! {
    /// Running sums and products along an axis. Inputs: x, axis (host).
    pub struct Cumulate {
        pub product: bool,
        pub exclusive: bool,
        pub reverse: bool,
    }
}

op_home!(Cumulate, "Cumulate", &[onnx("CumSum", 11, import), onnx("CumProd", 26, import)]);

impl Cumulate {
    /// x as [outer, length, inner].
    pub fn extents(dims: &[usize], axis: i64) -> Result<[usize; 3]> {
        let axis = normalize_axis(axis, dims.len())?;
        Ok([dims[..axis].iter().product(), dims[axis], dims[axis + 1..].iter().product()])
    }

    fn run<T: Scalar>(&self, [outer, length, inner]: [usize; 3], x: &[T], y: &mut [T]) {
        let start = match (T::DTYPE.is_float(), T::DTYPE.is_signed()) {
            (true, _) => Number::Float(self.product as i64 as f64),
            (_, true) => Number::Int(self.product as i64),
            _ => Number::Uint(self.product as u64),
        };
        let join = |a: Number, b: Number| match (a, b, self.product) {
            (Number::Float(a), Number::Float(b), false) => Number::Float(a + b),
            (Number::Float(a), Number::Float(b), true) => Number::Float(a * b),
            (Number::Int(a), Number::Int(b), false) => Number::Int(a.wrapping_add(b)),
            (Number::Int(a), Number::Int(b), true) => Number::Int(a.wrapping_mul(b)),
            (Number::Uint(a), Number::Uint(b), false) => Number::Uint(a.wrapping_add(b)),
            (Number::Uint(a), Number::Uint(b), true) => Number::Uint(a.wrapping_mul(b)),
            (a, ..) => a,
        };
        for o in 0..outer {
            for i in 0..inner {
                let mut sum = start;
                for k in 0..length {
                    let k = if self.reverse { length - 1 - k } else { k };
                    let at = (o * length + k) * inner + i;
                    let next = join(sum, x[at].to_number());
                    y[at] = T::from_number(if self.exclusive { sum } else { next });
                    sum = next;
                }
            }
        }
    }
}

impl OpDef for Cumulate {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Vec<Fact>> {
        cx.arity(2, 2)?;
        let (x, axis) = (cx.input(0)?, cx.input(1)?);
        ensure!(x.dtype.is_float() || x.dtype.is_int(), Unsupported, "running sums of {} are not supported", x.dtype);
        ensure!(x.rank() >= 1, InvalidArgument, "a scalar has no axis");
        let one = axis.rank() <= 1 && axis.shape.numel().as_const().is_none_or(|n| n == 1);
        ensure!(axis.dtype.is_int() && one, InvalidArgument, "input 1: expected one integer, got {axis}");
        if let Some(axis) = cx.ints(1)? {
            x.shape.axis(axis[0])?;
        }
        Ok(vec![Fact::new(x.dtype, x.shape.clone())])
    }

    fn eval(&self, cx: &EvalCx<'_>) -> Result<Vec<Tensor>> {
        let x = cx.input(0)?;
        let axis = cx.ints(1)?.first().copied().ok_or_else(|| err!(InvalidArgument, "the axis is empty"))?;
        let extents = Cumulate::extents(x.shape(), axis)?;
        let mut out = cx.output(0)?;
        crate::dispatch!(x.dtype(), T => self.run::<T>(extents, x.slice(), out.slice_mut()));
        Ok(vec![out])
    }

    fn host_inputs(&self) -> Vec<usize> {
        vec![1]
    }

    fn cpu(&self, p: &Problem, _pack: &dyn PackCache) -> Result<Option<Box<dyn CpuStep>>> {
        cpu::step(self, p)
    }

    fn cuda_tactics(&self, p: &Problem, _dev: &DeviceProps, opt: &TacticOptions) -> Vec<Tactic> {
        cuda::tactics(self, p, opt)
    }

    fn cuda_program(&self, tactic: &Tactic, p: &Problem, dev: &DeviceProps) -> Result<StepProgram> {
        cuda::program(tactic, p, dev)
    }
}

fn import(cx: &mut ImportCx<'_>) -> Result<Vec<ValueId>> {
    let inputs = [cx.input(0)?, cx.input(1)?];
    let op = Cumulate {
        product: cx.op_type == "CumProd",
        exclusive: cx.flag("exclusive", false)?,
        reverse: cx.flag("reverse", false)?,
    };
    Ok(vec![cx.add(op, &inputs)?])
}
