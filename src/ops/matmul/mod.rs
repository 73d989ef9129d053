//! Batched matrix product `alpha * op(a) op(b)` with numpy broadcasting of batch dimensions, and an epilogue.
//!
//! Inputs: a [batch.., m, k] ([batch.., k, m] when `trans_a`), b [batch.., k, n] ([batch.., n, k] when `trans_b`),
//! optional bias [n], then the epilogue's further operands (see [`crate::ops::epilogue`]). Both matrices have rank 2 at
//! least; vectors are promoted by importers. Element types: floating point, or i32, u32, i64, u64 (computed with
//! wrap-around), of which integers take `alpha` 1 only.

mod cpu;
mod cuda;
mod einsum;
mod eval;
pub(crate) mod gemm;
mod onnx;
mod repeat;
pub(crate) mod sm90;
mod split;
mod tiles;
mod typed;
mod wgmma;

use crate::base::{DType, Dim, Fact, Result, Shape, Tensor};
use crate::device::DeviceProps;
use crate::ops::pointwise::Program;
use crate::ops::{HalfRole, CpuStep, EvalCx, InferCx, OpDef, PackCache, Problem, StepProgram, Tactic, TacticOptions, epilogue};
use crate::{ensure, op_home, op_struct};

op_struct! {
    /// See the module's text.
    pub struct MatMul {
        pub trans_a: bool,
        pub trans_b: bool,
        pub alpha: f32,
        pub epilogue: Option<Program>,
    }
}

op_home!(MatMul, "MatMul", onnx::TABLE);

/// Index of the first operand of the epilogue.
const FIRST_EXTRA: usize = 3;

/// A product at concrete sizes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MatMulGeometry {
    /// Batch dimensions of the output.
    pub batch: Vec<usize>,
    pub m: usize,
    pub n: usize,
    pub k: usize,
    /// For each batch dimension, matrices of `a` (of `b`) between two neighbours; 0 broadcasts.
    pub a_steps: Vec<usize>,
    pub b_steps: Vec<usize>,
}

impl MatMulGeometry {
    pub fn n_batch(&self) -> usize {
        self.batch.iter().product()
    }

    /// Which matrix of an operand with these steps the batch index `i` reads.
    pub fn matrix(&self, steps: &[usize], mut i: usize) -> usize {
        let mut at = 0;
        for (d, s) in self.batch.iter().zip(steps).rev() {
            at += i % d * s;
            i /= d;
        }
        at
    }

    /// The constant distance, in matrices, between neighbours of the flattened batch, when there is one.
    pub fn uniform_step(&self, steps: &[usize]) -> Option<usize> {
        let mut dims = self.batch.iter().zip(steps).filter(|(d, _)| **d > 1).rev();
        let Some((d, first)) = dims.next() else { return Some(0) };
        let mut want = first * d;
        for (d, s) in dims {
            if *s != want {
                return None;
            }
            want *= d;
        }
        Some(*first)
    }
}

impl MatMul {
    /// The problem's sizes in one place.
    pub fn geometry(&self, a: &[usize], b: &[usize], y: &[usize]) -> MatMulGeometry {
        let (m, k) = if self.trans_a { (a[a.len() - 1], a[a.len() - 2]) } else { (a[a.len() - 2], a[a.len() - 1]) };
        let n = if self.trans_b { b[b.len() - 2] } else { b[b.len() - 1] };
        let batch = y[..y.len() - 2].to_vec();
        let steps = |dims: &[usize]| {
            let dims = &dims[..dims.len() - 2];
            let mut out = vec![0; batch.len()];
            let mut step = 1;
            for (i, d) in dims.iter().enumerate().rev() {
                out[batch.len() - dims.len() + i] = if *d == 1 { 0 } else { step };
                step *= d;
            }
            out
        };
        MatMulGeometry { a_steps: steps(a), b_steps: steps(b), batch, m, n, k }
    }

    /// Sizes of a problem, when all its operands are there.
    pub fn problem(&self, p: &Problem) -> Option<MatMulGeometry> {
        Some(self.geometry(&p.input(0)?.dims, &p.input(1)?.dims, &p.outputs.first()?.dims))
    }
}

impl OpDef for MatMul {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Vec<Fact>> {
        ensure!(cx.n_inputs() >= 2, InvalidArgument, "expected at least 2 inputs, got {}", cx.n_inputs());
        let (a, b) = (cx.input(0)?, cx.input(1)?);
        let fine = a.dtype.is_float() || matches!(a.dtype, DType::I32 | DType::U32 | DType::I64 | DType::U64);
        ensure!(fine, Unsupported, "input 0: expected a floating-point or 32- or 64-bit integer type, got {}", a.dtype);
        ensure!(
            a.dtype.is_float() || self.alpha == 1.0,
            Unsupported,
            "a product of {} cannot be scaled by {}",
            a.dtype,
            self.alpha
        );
        for i in 0..3 {
            let Some(f) = cx.opt(i) else { continue };
            ensure!(f.dtype == a.dtype, InvalidArgument, "input {i}: expected {} as input 0, got {}", a.dtype, f.dtype);
            ensure!(f.rank() >= 2 || i == 2, InvalidArgument, "input {i}: expected rank 2 or more, got {}", f.shape);
        }
        let last = |f: &Fact, trans: bool| -> (Dim, Dim) {
            let r = f.rank();
            let (x, y) = (f.shape[r - 2].clone(), f.shape[r - 1].clone());
            if trans { (y, x) } else { (x, y) }
        };
        let (m, ka) = last(a, self.trans_a);
        let (kb, n) = last(b, self.trans_b);
        ensure!(
            ka == kb || ka.as_const().is_none() || kb.as_const().is_none(),
            InvalidArgument,
            "inner dimensions differ: {ka} of {}{} and {kb} of {}{}",
            a.shape,
            if self.trans_a { " transposed" } else { "" },
            b.shape,
            if self.trans_b { " transposed" } else { "" }
        );
        if let Some(bias) = cx.opt(2) {
            let fits = bias.rank() == 1
                && (bias.shape[0] == n || bias.shape[0].as_const().is_none() || n.as_const().is_none());
            ensure!(fits, InvalidArgument, "input 2: expected bias [{n}], got {}", bias.shape);
        }
        let batch = |f: &Fact| Shape(f.shape[..f.rank() - 2].to_vec());
        let mut shape = batch(a).broadcast(&batch(b))?.0;
        shape.extend([m, n]);
        epilogue::infer(self.epilogue.as_ref(), cx, FIRST_EXTRA, Fact::new(a.dtype, Shape(shape)))
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
        self.problem(p).map_or(0.0, |g| 2.0 * g.n_batch() as f64 * g.m as f64 * g.n as f64 * g.k as f64)
    }
}
