//! CPU steps: the vectorized core for f32, a plain loop for the other types (f16 and bf16 in f32, f64 in f64).

use super::Softmax;
use crate::base::tensor::{Scalar, convert};
use crate::base::{DType, Result};
use crate::device::cpu::rows::{AxisShape, log_softmax, softmax};
use crate::device::cpu::{SharedMut, for_each_task};
use crate::ops::{CpuArgs, CpuStep, Problem};

struct SoftmaxStep {
    log: bool,
    shape: AxisShape,
    dtype: DType,
}

impl SoftmaxStep {
    fn n(&self) -> usize {
        self.shape.outer * self.shape.axis * self.shape.inner
    }

    /// # Safety
    /// Both addresses hold the step's elements of type `T`.
    unsafe fn typed<T: Scalar>(&self, args: &CpuArgs<'_>) {
        let n = self.n();
        // SAFETY: the caller's promise.
        let x = unsafe { std::slice::from_raw_parts(args.inputs[0].cast::<T>(), n) };
        let y = SharedMut(args.outputs[0].cast::<T>(), n);
        let AxisShape { outer, axis, inner } = self.shape;
        for_each_task(outer, |o| {
            let (from, len) = (o * axis * inner, axis * inner);
            let x = &x[from..from + len];
            // SAFETY: each task has an outer block of its own.
            let y = unsafe { y.slice(from, len) };
            for k in 0..inner {
                let value = |i: usize| convert::<T, f64>(x[i * inner + k]);
                let max = (0..axis).map(value).fold(f64::NEG_INFINITY, f64::max);
                let sum: f64 = (0..axis).map(|i| (value(i) - max).exp()).sum();
                for i in 0..axis {
                    let shifted = value(i) - max;
                    let v = if self.log { shifted - sum.ln() } else { shifted.exp() / sum };
                    y[i * inner + k] = convert::<f64, T>(v);
                }
            }
        });
    }
}

impl CpuStep for SoftmaxStep {
    fn name(&self) -> String {
        if self.log { "log_softmax".into() } else { "softmax".into() }
    }

    unsafe fn run(&self, args: &CpuArgs<'_>) {
        if self.n() == 0 {
            return;
        }
        match self.dtype {
            DType::F32 => {
                // SAFETY: the caller gives addresses of the tensors that the step was made for.
                let (x, y) = unsafe {
                    (
                        std::slice::from_raw_parts(args.inputs[0].cast::<f32>(), self.n()),
                        std::slice::from_raw_parts_mut(args.outputs[0].cast::<f32>(), self.n()),
                    )
                };
                if self.log { log_softmax(self.shape, x, y) } else { softmax(self.shape, x, y) }
            }
            // SAFETY: as above.
            dtype => crate::dispatch!(dtype, T => unsafe { self.typed::<T>(args) }),
        }
    }
}

pub fn step(op: &Softmax, p: &Problem) -> Result<Option<Box<dyn CpuStep>>> {
    let Some(x) = p.input(0) else { return Ok(None) };
    let (outer, axis, inner) = op.extents(&x.dims)?;
    Ok(Some(Box::new(SoftmaxStep { log: op.log, shape: AxisShape { outer, axis, inner }, dtype: x.dtype })))
}
