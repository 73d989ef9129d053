//! Random numbers, uniform in [low, low + span) or normal with mean `low` and deviation `span`. Input: the shape, a vector of
//! integers (host).
//!
//! The generator is counter-based (Philox 4x32 with 10 rounds): number i depends on the seed and on i alone, and is the
//! same on every device up to rounding. With a seed every run gives the same numbers; without one every run gives others.

mod cuda;
mod onnx;

use crate::base::{DType, Fact, Result, Tensor};
use crate::device::DeviceProps;
use crate::ops::fill::shape_from_operand;
use crate::ops::{EvalCx, InferCx, OpDef, Problem, StepProgram, Tactic, TacticOptions};
use crate::{ensure, op_home, op_struct};
use std::sync::atomic::{AtomicU64, Ordering};

pub use onnx::dropout;

op_struct! {
    /// Random numbers, uniform or normal. Inputs: shape (host).
    pub struct Random {
        pub dtype: DType,
        pub normal: bool,
        pub low: f32,
        pub span: f32,
        pub seed: Option<f32>,
        /// Distinguishes nodes without a seed.
        pub salt: i64,
    }
}

op_home!(Random, "Random", onnx::TABLE);

/// Four random words of this counter and key.
pub fn philox(counter: u64, key: u64) -> [u32; 4] {
    let mut c = [counter as u32, (counter >> 32) as u32, 0, 0];
    let mut k = [key as u32, (key >> 32) as u32];
    for _ in 0..10 {
        let (a, b) = (0xD251_1F53u64 * c[0] as u64, 0xCD9E_8D57u64 * c[2] as u64);
        c = [(b >> 32) as u32 ^ c[1] ^ k[0], b as u32, (a >> 32) as u32 ^ c[3] ^ k[1], a as u32];
        k = [k[0].wrapping_add(0x9E37_79B9), k[1].wrapping_add(0xBB67_AE85)];
    }
    c
}

impl Random {
    /// The key of the generator, when the seed fixes it.
    pub fn key(&self) -> Option<u64> {
        self.seed.map(|s| s.to_bits() as u64)
    }

    fn number(&self, i: u64, key: u64) -> f64 {
        let w = philox(i, key);
        // 24 bits are exact in f32; f64 gets 53.
        let unit = |a: u32, b: u32| match self.dtype {
            DType::F64 => (((a as u64) << 32 | b as u64) >> 11) as f64 * 2f64.powi(-53),
            _ => (a >> 8) as f64 * 2f64.powi(-24),
        };
        let (u, v) = (unit(w[0], w[1]), unit(w[2], w[3]));
        let x = match self.normal {
            true => (-2.0 * (1.0 - u).ln()).sqrt() * (2.0 * std::f64::consts::PI * v).cos(),
            false => u,
        };
        self.low as f64 + self.span as f64 * x
    }
}

impl OpDef for Random {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Vec<Fact>> {
        cx.arity(1, 1)?;
        ensure!(self.dtype.is_float(), Unsupported, "random numbers of type {} are not supported", self.dtype);
        Ok(vec![Fact::new(self.dtype, shape_from_operand(cx, 0, "Random")?)])
    }

    fn eval(&self, cx: &EvalCx<'_>) -> Result<Vec<Tensor>> {
        static RUNS: AtomicU64 = AtomicU64::new(1);
        let fresh = || {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_nanos());
            let run = RUNS.fetch_add(1, Ordering::Relaxed);
            now as u64 ^ run.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ self.salt as u64
        };
        let key = self.key().unwrap_or_else(fresh);
        let mut out = cx.output(0)?;
        let values: Vec<f64> = (0..out.numel() as u64).map(|i| self.number(i, key)).collect();
        if out.numel() > 0 {
            out = Tensor::from_slice(out.shape(), &values).cast(self.dtype);
        }
        Ok(vec![out])
    }

    fn host_inputs(&self) -> Vec<usize> {
        vec![0]
    }

    fn is_stateful(&self) -> bool {
        true
    }

    fn cuda_tactics(&self, _p: &Problem, _dev: &DeviceProps, _opt: &TacticOptions) -> Vec<Tactic> {
        cuda::tactics(self)
    }

    fn cuda_program(&self, _tactic: &Tactic, p: &Problem, dev: &DeviceProps) -> Result<StepProgram> {
        cuda::program(self, p, dev)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Known answers of the generator's authors.
    #[test]
    fn philox_gives_the_published_words() {
        assert_eq!(philox(0, 0), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
    }

    #[test]
    fn moments_are_right() {
        for (normal, mean, var) in [(false, 0.5, 1.0 / 12.0), (true, 0.0, 1.0)] {
            let op = Random { dtype: DType::F32, normal, low: 0.0, span: 1.0, seed: Some(1.0), salt: 0 };
            let v: Vec<f64> = (0..20_000).map(|i| op.number(i, 7)).collect();
            let m = v.iter().sum::<f64>() / v.len() as f64;
            let s = v.iter().map(|x| (x - m) * (x - m)).sum::<f64>() / v.len() as f64;
            assert!((m - mean).abs() < 0.02 && (s - var).abs() < 0.03, "{m} {s}");
        }
    }
}
