//! Adds (or, where negative, crops) elements at the ends of axes. Inputs: x of any type, pads (all begins, then all
//! ends), optional value (one element of x's type), optional axes; all but x are read by the host.
//!
//! Crops come first: `Edge`, `Reflect` and `Wrap` repeat what is left, as often as the pads need.

mod cpu;
mod cuda;
mod onnx;

use crate::base::dims::normalize_axis;
use crate::base::{Dim, Fact, Result, Tensor};
use crate::base::tensor::strides_of;
use crate::ops::transpose::strided::for_each_index;
use crate::device::DeviceProps;
use crate::ops::{HalfRole, CpuStep, EvalCx, InferCx, OpDef, PackCache, Problem, StepProgram, Tactic, TacticOptions, fresh_dim};
use crate::{attr_enum, ensure, op_home, op_struct};

attr_enum! {
    /// What the new elements are.
    pub enum PadMode { Constant = "constant", Edge = "edge", Reflect = "reflect", Wrap = "wrap" }
}

op_struct! {
    /// Adds (or, where negative, crops) elements at the ends of axes. Inputs: x, pads, optional value, optional axes (pads and axes host).
    pub struct Pad {
        pub mode: PadMode,
    }
}

op_home!(Pad, "Pad", onnx::TABLE);

/// Elements added at both ends of one axis; negative ones are taken away.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AxisPad {
    pub begin: i64,
    pub end: i64,
}

/// The pads of every axis, from the operands' numbers.
pub fn resolve(rank: usize, pads: &[i64], axes: Option<&[i64]>) -> Result<Vec<AxisPad>> {
    let axes = axes_of(rank, pads.len(), axes)?;
    pads.iter().copied().try_for_each(check_pad)?;
    let mut out = vec![AxisPad { begin: 0, end: 0 }; rank];
    for (i, a) in axes.iter().enumerate() {
        out[*a] = AxisPad { begin: pads[i], end: pads[axes.len() + i] };
    }
    Ok(out)
}

/// Keeps the arithmetic of positions inside 64 bits.
fn check_pad(pad: i64) -> Result<()> {
    ensure!(pad.unsigned_abs() <= 1 << 40, InvalidArgument, "a pad of {pad} elements");
    Ok(())
}

fn axes_of(rank: usize, n_pads: usize, axes: Option<&[i64]>) -> Result<Vec<usize>> {
    let axes = match axes {
        Some(a) => a.iter().map(|a| normalize_axis(*a, rank)).collect::<Result<Vec<_>>>()?,
        None => (0..rank).collect(),
    };
    for (i, a) in axes.iter().enumerate() {
        ensure!(!axes[..i].contains(a), InvalidArgument, "axis {a} is padded twice");
    }
    ensure!(n_pads == 2 * axes.len(), InvalidArgument, "{n_pads} pads for {} axes: expected two each", axes.len());
    Ok(axes)
}

impl PadMode {
    /// The input position that output position `o` of one axis shows; `None` is the constant.
    pub fn source(self, o: usize, size: usize, pad: AxisPad) -> Option<usize> {
        let low = (-pad.begin).max(0);
        let high = size as i64 - (-pad.end).max(0);
        let i = o as i64 - pad.begin;
        if (low..high).contains(&i) {
            return Some(i as usize);
        }
        let n = high - low;
        if n <= 0 {
            return None;
        }
        let at = match self {
            PadMode::Constant => return None,
            PadMode::Edge => i.clamp(low, high - 1),
            PadMode::Wrap => low + (i - low).rem_euclid(n),
            PadMode::Reflect if n == 1 => low,
            PadMode::Reflect => {
                let k = (i - low).rem_euclid(2 * (n - 1));
                low + k.min(2 * (n - 1) - k)
            }
        };
        Some(at as usize)
    }
}

impl OpDef for Pad {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Vec<Fact>> {
        cx.arity(2, 4)?;
        let x = cx.input(0)?;
        for i in [1, 3] {
            let Some(f) = cx.opt(i) else { continue };
            ensure!(
                f.dtype.is_int() && f.rank() == 1,
                InvalidArgument,
                "input {i}: expected a vector of integers, got {f}"
            );
        }
        if let Some(value) = cx.opt(2) {
            ensure!(
                value.dtype == x.dtype && value.shape.numel().as_const().is_none_or(|n| n == 1),
                InvalidArgument,
                "input 2: expected one {} element, got {value}",
                x.dtype
            );
        }
        let axes = match cx.opt(3) {
            Some(_) => cx.ints(3)?.map(Some),
            None => Some(None),
        };
        let (Some(pads), Some(axes)) = (cx.dims(1)?, axes) else {
            let shape: Vec<Dim> = x.shape.iter().map(|_| fresh_dim("pad")).collect();
            return Ok(vec![Fact::new(x.dtype, shape)]);
        };
        let axes = axes_of(x.rank(), pads.len(), axes.as_deref())?;
        pads.iter().filter_map(|p| p.as_const()).try_for_each(check_pad)?;
        let mut shape = x.shape.clone();
        for (i, a) in axes.iter().enumerate() {
            let d = &x.shape[*a];
            let padded = &(d + &pads[i]) + &pads[axes.len() + i];
            let (d, p) = (d.as_const(), padded.as_const());
            ensure!(p.is_none_or(|p| p >= 0), InvalidArgument, "the pads take more than axis {a} has: {padded} are left");
            if let (Some(d), Some(b), Some(e)) = (d, pads[i].as_const(), pads[axes.len() + i].as_const()) {
                let left = d + b.min(0) + e.min(0);
                ensure!(
                    self.mode == PadMode::Constant || left > 0 || padded.is(0),
                    InvalidArgument,
                    "{} padding of axis {a}: nothing is left to repeat of {d} elements",
                    self.mode.name()
                );
            }
            shape.0[*a] = padded;
        }
        Ok(vec![Fact::new(x.dtype, shape)])
    }

    // Operand 2 is the value that is padded with; the others are shapes.
    fn half(&self, _n_inputs: usize) -> Option<(HalfRole, Vec<usize>)> {
        Some((HalfRole::Follows, vec![0, 2]))
    }

    fn eval(&self, cx: &EvalCx<'_>) -> Result<Vec<Tensor>> {
        let x = cx.input(0)?;
        let mut out = cx.output(0)?;
        let axes = cx.opt(3).map(|t| t.to_i64s());
        let pads = resolve(x.rank(), &cx.ints(1)?, axes.as_deref())?;
        let strides = strides_of(x.shape());
        let size = x.dtype().size();
        let zero = [0u8; 8];
        let value = cx.opt(2).filter(|t| t.numel() == 1).map_or(&zero[..size], |t| t.bytes());
        let shape = out.shape().to_vec();
        let dst = out.bytes_mut();
        for_each_index(&shape, |at, index| {
            let from: Option<usize> = (0..index.len())
                .map(|k| self.mode.source(index[k], x.shape()[k], pads[k]).map(|i| i * strides[k]))
                .sum();
            let element = from.map_or(value, |i| &x.bytes()[i * size..(i + 1) * size]);
            dst[at * size..(at + 1) * size].copy_from_slice(element);
        });
        Ok(vec![out])
    }

    fn host_inputs(&self) -> Vec<usize> {
        vec![1, 2, 3]
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
