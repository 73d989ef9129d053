//! Short-time Fourier transform. Inputs: signal [b, samples] or [b, samples, 1 or 2] of a floating-point type, frame_step
//! (one integer, host), optional window [w] of the signal's type, optional frame_length (one integer, host). Output: [b,
//! frames, results, 2].
//!
//! A frame is as long as frame_length says, else as the window, else as the signal; where the window ends the rest of a
//! frame counts as zero. Only whole frames are taken.

use super::dft::transform::Transform;
use super::dft::{MAX_LENGTH, Operand, check_parts, cuda, one, one_side, operand};
use crate::base::{DType, Dim, Fact, Result, Shape, Tensor};
use crate::device::DeviceProps;
use crate::network::ValueId;
use crate::ops::{EvalCx, ImportCx, InferCx, OpDef, Problem, StepProgram, Tactic, TacticOptions, fresh_dim, onnx};
use crate::{ensure, err, op_home, op_struct};

op_struct! {
    /// Short-time Fourier transform. Inputs: signal, frame_step (host), optional window, optional frame_length (host).
    pub struct Stft {
        /// Keeps the first half of each spectrum and the middle.
        pub onesided: bool,
    }
}

op_home!(Stft, "Stft", &[onnx("STFT", 17, import)]);

impl Stft {
    fn transform(&self, x: &[usize], step: i64, window: Option<usize>, length: Option<i64>) -> Result<Transform> {
        let parts = x.get(2).copied().unwrap_or(1);
        let n = length.unwrap_or(window.unwrap_or(x[1]) as i64);
        ensure!(
            (1..=MAX_LENGTH).contains(&n) && n as usize <= x[1] && step >= 1,
            InvalidArgument,
            "frames of {n} samples every {step} of {}",
            x[1]
        );
        let n = n as usize;
        // A step beyond the signal is never taken.
        let step = (step as usize).min(x[1]);
        Ok(Transform {
            outer: [x[0], 1 + (x[1] - n) / step],
            outer_stride: [x[1] * parts, step * parts],
            inner: 1,
            step: parts,
            complex: parts == 2,
            available: window.unwrap_or(n).min(n),
            n,
            kept: if self.onesided { n / 2 + 1 } else { n },
            inverse: false,
            half_spectrum: false,
        })
    }

    fn of_problem(&self, p: &Problem) -> Result<Transform> {
        let x = p.input(0).ok_or_else(|| err!(InvalidArgument, "input 0 is missing"))?;
        let known = |i: usize| p.known(i).ok_or_else(|| err!(InvalidState, "operand {i} of a transform is not known"));
        let length = if p.input(3).is_some() { Some(one(known(3)?)?) } else { None };
        self.transform(&x.dims, one(known(1)?)?, p.input(2).map(|w| w.dims[0]), length)
    }
}

impl OpDef for Stft {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Vec<Fact>> {
        cx.arity(2, 4)?;
        let x = cx.input(0)?;
        cx.float(0)?;
        ensure!((2..=3).contains(&x.rank()), InvalidArgument, "input 0: expected [b, samples, 1 or 2], got {}", x.shape);
        if x.rank() == 3 {
            check_parts(x)?;
        }
        if let Some(w) = cx.opt(2) {
            ensure!(
                w.dtype == x.dtype && w.rank() == 1,
                InvalidArgument,
                "input 2: expected a {} vector, got {w}",
                x.dtype
            );
        }
        let n = match operand(cx, 3)? {
            Operand::Absent => cx.opt(2).map_or_else(|| x.shape[1].clone(), |w| w.shape[0].clone()),
            Operand::Known(d) => d,
            Operand::Later => fresh_dim("stft"),
        };
        let step = match operand(cx, 1)? {
            Operand::Known(d) => d,
            _ => fresh_dim("stft"),
        };
        let room = &x.shape[1] - &n;
        ensure!(
            n.as_const().is_none_or(|n| (1..=MAX_LENGTH).contains(&n))
                && step.as_const().is_none_or(|s| s >= 1)
                && room.as_const().is_none_or(|r| r >= 0),
            InvalidArgument,
            "frames of {n} samples every {step} of {}",
            x.shape[1]
        );
        let frames = room.floor_div(&step).map_or_else(|| fresh_dim("stft"), |f| f + 1);
        let results = if self.onesided { one_side(&n) } else { n };
        Ok(vec![Fact::new(x.dtype, Shape(vec![x.shape[0].clone(), frames, results, Dim::from(2)]))])
    }

    fn eval(&self, cx: &EvalCx<'_>) -> Result<Vec<Tensor>> {
        let (x, window) = (cx.input(0)?, cx.opt(2));
        let length = cx.opt(3).map(one).transpose()?;
        let t = self.transform(x.shape(), one(cx.input(1)?)?, window.map(|w| w.numel()), length)?;
        Ok(vec![t.tensor(x, window, cx.output(0)?.shape())?])
    }

    fn host_inputs(&self) -> Vec<usize> {
        vec![1, 3]
    }

    fn cuda_tactics(&self, p: &Problem, _dev: &DeviceProps, _opt: &TacticOptions) -> Vec<Tactic> {
        let Some(x) = p.input(0) else { return vec![] };
        cuda::tactics(&cuda::Forms {
            dtype: x.dtype,
            inverse: false,
            half_spectrum: false,
            window: p.input(2).is_some(),
        })
    }

    fn cuda_program(&self, _tactic: &Tactic, p: &Problem, dev: &DeviceProps) -> Result<StepProgram> {
        let dtype = p.input(0).map_or(DType::F32, |x| x.dtype);
        cuda::program(&self.of_problem(p)?, dtype, p.input(2).is_some().then_some(2), dev)
    }

    fn flops(&self, p: &Problem) -> f64 {
        self.of_problem(p).map_or(0.0, |t| 5.0 * (t.count() * t.n) as f64 * (t.n as f64).log2().max(1.0))
    }
}

fn import(cx: &mut ImportCx<'_>) -> Result<Vec<ValueId>> {
    let mut inputs = vec![Some(cx.input(0)?), Some(cx.input(1)?), cx.opt(2), cx.opt(3)];
    let onesided = cx.flag("onesided", true)?;
    while inputs.last() == Some(&None) {
        inputs.pop();
    }
    Ok(vec![cx.add_opt(Stft { onesided }, &inputs)?])
}
