//! From the decisions between pairs of classes to the probability of each class: a sigmoid for each pair, then the
//! iteration of Wu, Lin and Weng (2004) as libsvm has it. Inputs, all f32: decisions [rows, pairs], a and b [pairs] of the
//! sigmoids. Output: [rows, n_classes].
//!
//! It stops at a tolerance, so all devices compute in f32 and in the same order.

use crate::base::{DType, Dim, Fact, Result, Tensor};
use crate::device::DeviceProps;
use crate::ops::tactic::{Arg, KernelSpec, Launch, TacticSource};
use crate::ops::transpose::cuda::THREADS;
use crate::ops::{EvalCx, InferCx, OpDef, Problem, StepProgram, Tactic, TacticOptions, blocks};
use crate::{ensure, op_home, op_struct};

op_struct! {
    /// See the module's text.
    pub struct SvmProbability {
        pub n_classes: usize,
    }
}

op_home!(SvmProbability, "SvmProbability", &[]);

/// Classes at most: the iteration takes their square in memory for each row.
const MAX_CLASSES: usize = 4096;
/// Scratch of all rows that run at a time.
const MAX_SCRATCH: usize = 256 << 20;

/// The probability that the first of two classes is right, from the decision between them.
fn sigmoid(decision: f32, a: f32, b: f32) -> f32 {
    let v = decision * a + b;
    let s = 1.0 / (1.0 + (-v.abs()).exp());
    let logistic = if v < 0.0 { 1.0 - s } else { s };
    (1.0 - logistic).clamp(1e-7, 1.0 - 1e-7)
}

/// `r` [k, k]: the probability of each class against each other one.
fn couple(k: usize, r: &[f32], p: &mut [f32]) {
    let (mut q, mut qp) = (vec![0f32; k * k], vec![0f32; k]);
    for t in 0..k {
        p[t] = 1.0 / k as f32;
        for j in 0..t {
            q[t * k + t] += r[j * k + t] * r[j * k + t];
            q[t * k + j] = q[j * k + t];
        }
        for j in t + 1..k {
            q[t * k + t] += r[j * k + t] * r[j * k + t];
            q[t * k + j] = -r[j * k + t] * r[t * k + j];
        }
    }
    let eps = 0.005 / k as f32;
    for _ in 0..k.max(100) {
        let mut pqp = 0f32;
        for t in 0..k {
            qp[t] = (0..k).map(|j| q[t * k + j] * p[j]).sum();
            pqp += p[t] * qp[t];
        }
        let error = qp.iter().map(|v| (v - pqp).abs()).fold(0f32, f32::max);
        if error < eps {
            break;
        }
        for t in 0..k {
            let diff = (pqp - qp[t]) / q[t * k + t];
            p[t] += diff;
            pqp = (pqp + diff * (diff * q[t * k + t] + 2.0 * qp[t])) / (1.0 + diff) / (1.0 + diff);
            for j in 0..k {
                qp[j] = (qp[j] + diff * q[t * k + j]) / (1.0 + diff);
                p[j] /= 1.0 + diff;
            }
        }
    }
}

impl OpDef for SvmProbability {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Vec<Fact>> {
        cx.arity(3, 3)?;
        let n = self.n_classes;
        ensure!((2..=MAX_CLASSES).contains(&n), Unsupported, "{n} classes");
        let pairs = Dim::from(n * (n - 1) / 2);
        for (i, rank) in [(0, 2), (1, 1), (2, 1)] {
            cx.rank(i, rank)?;
            let f = cx.input(i)?;
            ensure!(f.dtype == DType::F32, InvalidArgument, "input {i}: expected f32, got {}", f.dtype);
            let d = &f.shape[rank - 1];
            ensure!(d.as_const().is_none() || *d == pairs, InvalidArgument, "input {i}: expected {pairs} pairs, got {}", f.shape);
        }
        Ok(vec![Fact::new(DType::F32, vec![cx.input(0)?.shape[0].clone(), Dim::from(n)])])
    }

    fn eval(&self, cx: &EvalCx<'_>) -> Result<Vec<Tensor>> {
        let mut out = cx.output(0)?;
        let k = self.n_classes;
        let (d, a, b) = (cx.input(0)?.slice::<f32>(), cx.input(1)?.slice::<f32>(), cx.input(2)?.slice::<f32>());
        let pairs = k * (k - 1) / 2;
        let mut r = vec![0f32; k * k];
        for (row, p) in out.slice_mut::<f32>().chunks_exact_mut(k).enumerate() {
            let mut at = 0;
            for i in 0..k {
                for j in i + 1..k {
                    let v = sigmoid(d[row * pairs + at], a[at], b[at]);
                    (r[i * k + j], r[j * k + i]) = (v, 1.0 - v);
                    at += 1;
                }
            }
            couple(k, &r, p);
        }
        Ok(vec![out])
    }

    fn cuda_tactics(&self, _p: &Problem, _dev: &DeviceProps, _opt: &TacticOptions) -> Vec<Tactic> {
        let kernel = KernelSpec::new("svm.cu").define("MODE", 1).define("FUNCTION", 0).define("THREADS", THREADS);
        let name = format!("svm_probability_{}", self.n_classes);
        vec![Tactic { name, source: TacticSource::Kernels, kernels: vec![kernel], params: vec![] }]
    }

    fn cuda_program(&self, _tactic: &Tactic, p: &Problem, _dev: &DeviceProps) -> Result<StepProgram> {
        let rows = p.outputs[0].dims[0];
        if rows == 0 {
            return Ok(StepProgram::default());
        }
        let k = self.n_classes;
        let per_thread = (2 * k * k + k) * 4;
        let n_blocks = blocks(rows, THREADS).min((MAX_SCRATCH / (per_thread * THREADS)).max(1) as u32).min(1024);
        let args = vec![
            Arg::In(0),
            Arg::In(1),
            Arg::In(2),
            Arg::Out(0),
            Arg::Work(0),
            Arg::I64(rows as i64),
            Arg::I64(k as i64),
            Arg::I64((k * (k - 1) / 2) as i64),
            Arg::F32(0.0),
            Arg::F32(0.0),
            Arg::F32(0.0),
        ];
        let mut program =
            StepProgram::one(Launch { kernel: 0, grid: [n_blocks, 1, 1], block: [THREADS as u32, 1, 1], smem: 0, args });
        program.workspace = per_thread * THREADS * n_blocks as usize;
        Ok(program)
    }
}
