//! Batched matrix product of 8-bit integers, with zero points and a last step that requantizes or scales.
//!
//! Inputs, as [`crate::ops::requant`] numbers them: a [batch.., m, k] ([batch.., k, m] when `trans_a`), b [batch.., k, n]
//! ([batch.., n, k] when `trans_b`), then parameters, each of which broadcasts to the output [batch.., m, n]: zero point
//! and scale of a may vary by batch and row, of b by batch and column, those of the output and the bias anyhow.

mod cpu;
mod cuda;
mod eval;
mod onnx;
mod qlinear;

pub(crate) use onnx::as_f32;
pub(crate) use qlinear::move_channels;

use crate::base::{Dim, Fact, Result, Shape, Tensor};
use crate::device::DeviceProps;
use crate::ops::matmul::{MatMul, MatMulGeometry};
use crate::ops::requant::{self, QOut};
use crate::ops::{CpuStep, EvalCx, InferCx, OpDef, PackCache, Problem, StepProgram, Tactic, TacticOptions};
use crate::{ensure, op_home, op_struct};

op_struct! {
    /// See the module's text.
    pub struct QMatMul {
        pub trans_a: bool,
        pub trans_b: bool,
        /// One more factor of the scale.
        pub alpha: f32,
        pub out: QOut,
    }
}

op_home!(QMatMul, "QMatMul", onnx::TABLE);

impl QMatMul {
    /// The problem's sizes in one place.
    pub fn geometry(&self, a: &[usize], b: &[usize], y: &[usize]) -> MatMulGeometry {
        MatMul { trans_a: self.trans_a, trans_b: self.trans_b, alpha: 1.0, epilogue: None }.geometry(a, b, y)
    }

    fn problem(&self, p: &Problem) -> Option<MatMulGeometry> {
        Some(self.geometry(&p.input(0)?.dims, &p.input(1)?.dims, &p.outputs.first()?.dims))
    }
}

impl OpDef for QMatMul {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Vec<Fact>> {
        let dtype = requant::check_types(self.out, cx)?;
        let (a, b) = (cx.input(0)?, cx.input(1)?);
        for (i, f) in [a, b].into_iter().enumerate() {
            ensure!(f.rank() >= 2, InvalidArgument, "input {i}: expected rank 2 or more, got {}", f.shape);
        }
        let last = |f: &Fact, trans: bool| -> (Dim, Dim) {
            let r = f.rank();
            let (x, y) = (f.shape[r - 2].clone(), f.shape[r - 1].clone());
            if trans { (y, x) } else { (x, y) }
        };
        let ((m, ka), (kb, n)) = (last(a, self.trans_a), last(b, self.trans_b));
        ensure!(
            ka == kb || ka.as_const().is_none() || kb.as_const().is_none(),
            InvalidArgument,
            "inner dimensions differ: {ka} of {} and {kb} of {}",
            a.shape,
            b.shape
        );
        let batch = |f: &Fact| Shape(f.shape[..f.rank() - 2].to_vec());
        let mut shape = batch(a).broadcast(&batch(b))?.0;
        shape.extend([m, n]);
        let shape = Shape(shape);
        for i in requant::X_ZERO..requant::N_INPUTS {
            let of_a = matches!(i, requant::X_ZERO | requant::X_SCALE);
            let of_b = matches!(i, requant::W_ZERO | requant::W_SCALE);
            requant::check_spread(cx, i, &shape, !of_b, !of_a)?;
        }
        Ok(vec![Fact::new(dtype, shape)])
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

    fn cuda_program(&self, _tactic: &Tactic, p: &Problem, dev: &DeviceProps) -> Result<StepProgram> {
        cuda::program(self, p, dev)
    }

    fn flops(&self, p: &Problem) -> f64 {
        self.problem(p).map_or(0.0, |g| 2.0 * g.n_batch() as f64 * g.m as f64 * g.n as f64 * g.k as f64)
    }
}
