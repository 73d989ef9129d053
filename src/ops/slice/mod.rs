//! Ranges along axes, as numpy's `x[start:end:step]`. Inputs: x of any type, starts, ends, optional axes, optional
//! steps (vectors of integers, all host). Steps may be negative, not 0.
//!
//! [`range`] holds the arithmetic; `onnx.rs` imports Slice and Split.

mod center;
mod onnx;
pub mod range;

use crate::base::dims::normalize_axis;
use crate::base::{Dim, Fact, Result, Tensor};
use crate::ops::shape::with_known;
use crate::ops::transpose::cpu::ViewStep;
use crate::ops::transpose::cuda;
use crate::ops::transpose::strided::View;
use crate::device::DeviceProps;
use crate::ops::{HalfRole, CpuStep, EvalCx, InferCx, OpDef, PackCache, Problem, StepProgram, Tactic, TacticOptions, fresh_dim};
use crate::{ensure, op_home, op_struct};
use range::Range;

op_struct! {
    /// Ranges along axes. Inputs: x, starts, ends, optional axes, optional steps (all host).
    pub struct Slice {
    }
}

op_home!(Slice, "Slice", onnx::TABLE);

/// The copy that keeps `ranges[k]` of axis k of a dense tensor.
pub fn view(dims: &[usize], ranges: &[Range]) -> View {
    let mut v = View::dense(dims);
    for (k, r) in ranges.iter().enumerate() {
        if r.len > 0 {
            v.offset += r.start as i64 * v.strides[k];
        }
        // The step of a single element is never taken, and may be anything.
        v.strides[k] *= if r.len > 1 { r.step } else { 1 };
        v.dims[k] = r.len;
    }
    v
}

/// The ranges of every axis for concrete dimensions; `axes` absent means the first ones.
pub fn resolve(
    dims: &[usize],
    starts: &[i64],
    ends: &[i64],
    axes: Option<&[i64]>,
    steps: Option<&[i64]>,
) -> Result<Vec<Range>> {
    let mut ranges: Vec<Range> = dims.iter().map(|d| Range { start: 0, step: 1, len: *d }).collect();
    for (i, axis) in axes_of(axes, starts.len(), dims.len())?.into_iter().enumerate() {
        let step = steps.map_or(1, |s| s[i]);
        ranges[axis] = range::resolve(dims[axis], starts[i], ends[i], step)?;
    }
    Ok(ranges)
}

/// The axes that are sliced: as given, or the first `n`; fails on doubles and on a wrong number.
fn axes_of(axes: Option<&[i64]>, n: usize, rank: usize) -> Result<Vec<usize>> {
    let Some(axes) = axes else {
        ensure!(n <= rank, InvalidArgument, "{n} starts for an input of rank {rank}");
        return Ok((0..n).collect());
    };
    ensure!(axes.len() == n, InvalidArgument, "{n} starts but {} axes", axes.len());
    let v = axes.iter().map(|a| normalize_axis(*a, rank)).collect::<Result<Vec<_>>>()?;
    for (i, a) in v.iter().enumerate() {
        ensure!(!v[..i].contains(a), InvalidArgument, "axis {a} is sliced twice");
    }
    Ok(v)
}

impl Slice {
    /// The copy of a node at concrete shapes; `None` when an operand is not known.
    fn view(&self, p: &Problem) -> Result<Option<View>> {
        if (1..5).any(|i| p.input(i).is_some() && p.known(i).is_none()) {
            return Ok(None);
        }
        let ints = |i: usize| p.known(i).map(|t| t.to_i64s());
        let (Some(x), Some(starts), Some(ends)) = (p.input(0), ints(1), ints(2)) else { return Ok(None) };
        let ranges = resolve(&x.dims, &starts, &ends, ints(3).as_deref(), ints(4).as_deref())?;
        Ok(Some(view(&x.dims, &ranges)))
    }
}

impl OpDef for Slice {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Vec<Fact>> {
        cx.arity(3, 5)?;
        let x = cx.input(0)?;
        for i in 1..5 {
            let Some(f) = cx.opt(i) else { continue };
            ensure!(
                f.dtype.is_int() && f.rank() == 1,
                InvalidArgument,
                "input {i}: expected a vector of integers, got {f}"
            );
        }
        let axes = match cx.opt(3) {
            None => None,
            Some(_) => match cx.ints(3)? {
                Some(axes) => Some(axes),
                // Any axis may be cut, so nothing but the rank is known.
                None => {
                    let shape: Vec<Dim> = x.shape.iter().map(|_| fresh_dim("slice")).collect();
                    return Ok(vec![Fact::new(x.dtype, shape)]);
                }
            },
        };
        let (starts, ends) = (cx.dims(1)?, cx.dims(2)?);
        let n = starts.as_ref().map(|s| s.len() as i64).or(cx.input(1)?.shape[0].as_const());
        let n = match (n, &axes) {
            (_, Some(axes)) => axes.len(),
            (Some(n), None) => n as usize,
            (None, None) => x.rank(),
        };
        let steps = match cx.opt(4) {
            None => Some(vec![1; n]),
            Some(_) => cx.ints(4)?,
        };
        for (what, len) in [
            ("starts", starts.as_ref().map(|v| v.len())),
            ("ends", ends.as_ref().map(|v| v.len())),
            ("steps", steps.as_ref().map(|v| v.len())),
        ] {
            ensure!(len.is_none_or(|l| l == n), InvalidArgument, "{n} axes but {} {what}", len.unwrap_or(0));
        }
        let mut shape = x.shape.clone();
        let mut known = x.as_dims().filter(|_| x.rank() == 1);
        for (i, axis) in axes_of(axes.as_deref(), n, x.rank())?.into_iter().enumerate() {
            let d = &x.shape[axis];
            let parts = match (&starts, &ends, &steps) {
                (Some(s), Some(e), Some(t)) => range::length(d, &s[i], &e[i], t[i])?,
                _ => None,
            };
            shape.0[axis] = parts.unwrap_or_else(|| fresh_dim("slice"));
            known = match (known, &starts, &ends, &steps) {
                (Some(v), Some(s), Some(e), Some(t)) => match (s[i].as_const(), e[i].as_const()) {
                    (Some(s), Some(e)) => {
                        let r = range::resolve(v.len(), s, e, t[i])?;
                        Some((0..r.len).map(|k| v[(r.start as i64 + k as i64 * r.step) as usize].clone()).collect())
                    }
                    _ => None,
                },
                _ => None,
            };
        }
        Ok(vec![with_known(Fact::new(x.dtype, shape), known)])
    }

    fn half(&self, _n_inputs: usize) -> Option<(HalfRole, Vec<usize>)> {
        Some((HalfRole::Follows, vec![0]))
    }

    fn eval(&self, cx: &EvalCx<'_>) -> Result<Vec<Tensor>> {
        let x = cx.input(0)?;
        let mut out = cx.output(0)?;
        let ints = |i: usize| cx.opt(i).map(|t| t.to_i64s());
        let ranges = resolve(x.shape(), &cx.ints(1)?, &cx.ints(2)?, ints(3).as_deref(), ints(4).as_deref())?;
        view(x.shape(), &ranges).copy(x, &mut out);
        Ok(vec![out])
    }

    fn host_inputs(&self) -> Vec<usize> {
        vec![1, 2, 3, 4]
    }

    fn cpu(&self, p: &Problem, _pack: &dyn PackCache) -> Result<Option<Box<dyn CpuStep>>> {
        match self.view(p)? {
            Some(view) => Ok(ViewStep::boxed("slice", p, &view)),
            None => Ok(None),
        }
    }

    fn cuda_tactics(&self, p: &Problem, _dev: &DeviceProps, opt: &TacticOptions) -> Vec<Tactic> {
        let (Some(x), Some(view)) = (p.input(0), self.view(p).ok().flatten()) else { return vec![] };
        cuda::tactics(&view, x.dtype.size(), opt)
    }

    fn cuda_program(&self, tactic: &Tactic, p: &Problem, dev: &DeviceProps) -> Result<StepProgram> {
        let (Some(x), Some(view)) = (p.input(0), self.view(p).ok().flatten()) else {
            return Err(crate::err!(InvalidState, "an operand of a slice is not known"));
        };
        cuda::program(tactic, &view, x.dtype.size(), dev)
    }
}
