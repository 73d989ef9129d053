//! Discrete Fourier transform along one axis. Inputs: x [.., 1 or 2] of a floating-point type (real samples, or real and
//! imaginary parts), optional length, optional axis (one integer each, host). Output: [.., 2], or [.., 1] of the inverse
//! of one side.
//!
//! `onesided` keeps the first `n / 2 + 1` results; with `inverse` the samples are such a half and the result is real.

pub(crate) mod cuda;
pub(crate) mod transform;

use crate::base::dims::normalize_axis;
use crate::base::{DType, Dim, Fact, Result, Tensor};
use crate::device::DeviceProps;
use crate::network::ValueId;
use crate::ops::{EvalCx, ImportCx, InferCx, OpDef, Problem, StepProgram, Tactic, TacticOptions, fresh_dim, onnx};
use crate::{ensure, err, op_home, op_struct};
use transform::Transform;

op_struct! {
    /// Discrete Fourier transform along one axis. Inputs: x, optional length, optional axis (both host).
    pub struct Dft {
        /// Not looked at when input 2 is given.
        pub axis: i64,
        pub inverse: bool,
        pub onesided: bool,
    }
}

op_home!(Dft, "Dft", &[onnx("DFT", 17, import_17), onnx("DFT", 20, import_20)]);

/// Samples of a transform at most: its table is held in memory.
pub(crate) const MAX_LENGTH: i64 = 1 << 28;

impl Dft {
    /// A transform of a half spectrum, which gives real results.
    fn half_spectrum(&self) -> bool {
        self.inverse && self.onesided
    }

    fn axis(&self, axis: i64, rank: usize) -> Result<usize> {
        let a = normalize_axis(axis, rank)?;
        ensure!(a + 1 < rank, InvalidArgument, "axis {axis} is that of real and imaginary parts");
        Ok(a)
    }

    /// Length of the transforms for an axis of a size.
    fn length(&self, size: &Dim) -> Dim {
        if self.half_spectrum() { &(size - &Dim::ONE) * &Dim::from(2) } else { size.clone() }
    }

    /// The problem at concrete sizes.
    fn transform(&self, x: &[usize], length: Option<i64>, axis: Option<i64>) -> Result<Transform> {
        let axis = self.axis(axis.unwrap_or(self.axis), x.len())?;
        let n = match length {
            Some(n) => n,
            None => self.length(&Dim::from(x[axis])).as_const().unwrap_or(0),
        };
        ensure!((1..=MAX_LENGTH).contains(&n), InvalidArgument, "a transform of {n} samples");
        let n = n as usize;
        let parts = x[x.len() - 1];
        let inner: usize = x[axis + 1..x.len() - 1].iter().product();
        let wanted = if self.half_spectrum() { n / 2 + 1 } else { n };
        Ok(Transform {
            outer: [x[..axis].iter().product(), 1],
            outer_stride: [x[axis..].iter().product(), 0],
            inner,
            step: inner * parts,
            complex: parts == 2,
            available: x[axis].min(wanted),
            n,
            kept: if self.onesided && !self.inverse { n / 2 + 1 } else { n },
            inverse: self.inverse,
            half_spectrum: self.half_spectrum(),
        })
    }

    fn of_problem(&self, p: &Problem) -> Result<Transform> {
        let x = p.input(0).ok_or_else(|| err!(InvalidArgument, "input 0 is missing"))?;
        let int = |i: usize| -> Result<Option<i64>> {
            match (p.input(i), p.known(i)) {
                (None, _) => Ok(None),
                (_, Some(t)) => one(t).map(Some),
                _ => Err(err!(InvalidState, "operand {i} of a transform is not known")),
            }
        };
        self.transform(&x.dims, int(1)?, int(2)?)
    }
}

/// The single integer of a host operand.
pub(crate) fn one(t: &Tensor) -> Result<i64> {
    t.to_i64s().first().copied().ok_or_else(|| err!(InvalidArgument, "an operand of one integer is empty"))
}

/// A host operand of one integer: absent, known, or known later.
pub(crate) enum Operand {
    Absent,
    Known(Dim),
    Later,
}

/// Checks that an optional host operand is one integer.
pub(crate) fn operand(cx: &InferCx<'_>, i: usize) -> Result<Operand> {
    let Some(f) = cx.opt(i) else { return Ok(Operand::Absent) };
    ensure!(
        f.dtype.is_int() && f.rank() <= 1 && f.shape.numel().as_const().is_none_or(|n| n == 1),
        InvalidArgument,
        "input {i}: expected one integer, got {f}"
    );
    Ok(match cx.dims(i)?.and_then(|d| d.first().cloned()) {
        Some(d) => Operand::Known(d),
        None => Operand::Later,
    })
}

/// Checks that the last axis holds the parts of a sample: 1 or 2.
pub(crate) fn check_parts(x: &Fact) -> Result<()> {
    let parts = x.shape.last().and_then(|d| d.as_const());
    ensure!(
        parts.is_none_or(|p| (1..=2).contains(&p)),
        InvalidArgument,
        "input 0: the last axis must be 1 (real) or 2 (complex), got {}",
        x.shape
    );
    Ok(())
}

/// Results that one side of a transform has.
pub(crate) fn one_side(n: &Dim) -> Dim {
    n.floor_div(&Dim::from(2)).map_or_else(|| fresh_dim("dft"), |h| h + 1)
}

impl OpDef for Dft {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Vec<Fact>> {
        cx.arity(1, 3)?;
        let x = cx.input(0)?;
        cx.float(0)?;
        ensure!(x.rank() >= 2, InvalidArgument, "input 0: expected [.., 1 or 2], got {}", x.shape);
        check_parts(x)?;
        let (length, axis) = (operand(cx, 1)?, operand(cx, 2)?);
        let axis = match axis {
            Operand::Absent => Some(self.axis),
            Operand::Known(d) => d.as_const(),
            Operand::Later => None,
        };
        let mut shape = x.shape.clone();
        let last = x.rank() - 1;
        shape.0[last] = Dim::from(if self.half_spectrum() { 1 } else { 2 });
        let Some(axis) = axis else {
            shape.0[..last].iter_mut().for_each(|d| *d = fresh_dim("dft"));
            return Ok(vec![Fact::new(x.dtype, shape)]);
        };
        let axis = self.axis(axis, x.rank())?;
        let n = match length {
            Operand::Absent => self.length(&x.shape[axis]),
            Operand::Known(d) => d,
            Operand::Later => fresh_dim("dft"),
        };
        ensure!(
            n.as_const().is_none_or(|n| (1..=MAX_LENGTH).contains(&n)),
            InvalidArgument,
            "a transform of {n} samples"
        );
        shape.0[axis] = if self.onesided && !self.inverse { one_side(&n) } else { n };
        Ok(vec![Fact::new(x.dtype, shape)])
    }

    fn eval(&self, cx: &EvalCx<'_>) -> Result<Vec<Tensor>> {
        let x = cx.input(0)?;
        let t = self.transform(x.shape(), cx.opt(1).map(one).transpose()?, cx.opt(2).map(one).transpose()?)?;
        Ok(vec![t.tensor(x, None, cx.output(0)?.shape())?])
    }

    fn host_inputs(&self) -> Vec<usize> {
        vec![1, 2]
    }

    fn cuda_tactics(&self, p: &Problem, _dev: &DeviceProps, _opt: &TacticOptions) -> Vec<Tactic> {
        let Some(x) = p.input(0) else { return vec![] };
        cuda::tactics(&cuda::Forms {
            dtype: x.dtype,
            inverse: self.inverse,
            half_spectrum: self.half_spectrum(),
            window: false,
        })
    }

    fn cuda_program(&self, _tactic: &Tactic, p: &Problem, dev: &DeviceProps) -> Result<StepProgram> {
        let dtype = p.input(0).map_or(DType::F32, |x| x.dtype);
        cuda::program(&self.of_problem(p)?, dtype, None, dev)
    }

    fn flops(&self, p: &Problem) -> f64 {
        self.of_problem(p).map_or(0.0, |t| 5.0 * (t.count() * t.n) as f64 * (t.n as f64).log2().max(1.0))
    }
}

fn import(cx: &mut ImportCx<'_>, axis: i64, operands: &[Option<ValueId>]) -> Result<Vec<ValueId>> {
    let x = cx.input(0)?;
    let op = Dft { axis, inverse: cx.flag("inverse", false)?, onesided: cx.flag("onesided", false)? };
    let mut inputs = vec![Some(x)];
    inputs.extend_from_slice(operands);
    while inputs.last() == Some(&None) {
        inputs.pop();
    }
    Ok(vec![cx.add_opt(op, &inputs)?])
}

fn import_17(cx: &mut ImportCx<'_>) -> Result<Vec<ValueId>> {
    let (axis, length) = (cx.int("axis", 1)?, cx.opt(1));
    import(cx, axis, &[length])
}

fn import_20(cx: &mut ImportCx<'_>) -> Result<Vec<ValueId>> {
    let operands = [cx.opt(1), cx.opt(2)];
    import(cx, -2, &operands)
}
