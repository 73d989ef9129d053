//! Interpolates. Inputs: x, optional roi, optional scales (f32), optional sizes; all but x are read by the host.
//!
//! Exactly one of scales and sizes is given (an empty tensor counts as absent). Interpolation is separable: `axis.rs`
//! turns each axis into a table of taps (input positions and weights per output position), which the reference and the
//! CPU step read; CUDA computes the same coordinates in its kernel. Coordinates are f32 and an output length is the
//! integer that the shape has, as the common runtimes have it.

pub mod axis;
mod cpu;
mod cuda;
mod onnx;

use crate::base::dims::normalize_axis;
use crate::base::tensor::strides_of;
use crate::base::{DType, Dim, Fact, Result, Shape, Tensor};
use crate::ops::transpose::strided::for_each_index;
use crate::device::DeviceProps;
use crate::ops::{HalfRole, CpuStep, EvalCx, InferCx, OpDef, PackCache, Problem, StepProgram, Tactic, TacticOptions, fresh_dim};
use crate::{attr_enum, bail, ensure, err, op_home, op_struct};
use axis::{AxisPlan, Taps};

attr_enum! {
    /// Interpolation.
    pub enum ResizeMode { Nearest = "nearest", Linear = "linear", Cubic = "cubic" }
}
attr_enum! {
    /// How an output index maps to an input coordinate.
    pub enum CoordinateMode { HalfPixel = "half_pixel", HalfPixelSymmetric = "half_pixel_symmetric", PytorchHalfPixel = "pytorch_half_pixel", AlignCorners = "align_corners", Asymmetric = "asymmetric", TfHalfPixelForNn = "tf_half_pixel_for_nn", TfCropAndResize = "tf_crop_and_resize" }
}
attr_enum! {
    /// Rounding of the nearest mode.
    pub enum NearestMode { RoundPreferFloor = "round_prefer_floor", RoundPreferCeil = "round_prefer_ceil", Floor = "floor", Ceil = "ceil" }
}

op_struct! {
    /// Interpolates. Inputs: x, optional roi, optional scales, optional sizes (all but x host).
    pub struct Resize {
        pub mode: ResizeMode,
        pub coordinates: CoordinateMode,
        pub nearest: NearestMode,
        pub cubic_coeff_a: f32,
        pub exclude_outside: bool,
        pub extrapolation_value: f32,
        /// The axes that roi, scales and sizes speak of; absent: all.
        pub axes: Option<Vec<i64>>,
        /// stretch, not_larger or not_smaller: what sizes mean.
        pub keep_aspect_ratio: String,
        /// Widens the filter when shrinking (linear and cubic).
        pub antialias: bool,
    }
}

op_home!(Resize, "Resize", onnx::TABLE);

fn given<T>(v: Option<Vec<T>>) -> Option<Vec<T>> {
    v.filter(|v| !v.is_empty())
}

impl Resize {
    fn axes(&self, rank: usize) -> Result<Vec<usize>> {
        let Some(axes) = &self.axes else { return Ok((0..rank).collect()) };
        let v = axes.iter().map(|a| normalize_axis(*a, rank)).collect::<Result<Vec<_>>>()?;
        for (i, a) in v.iter().enumerate() {
            ensure!(!v[..i].contains(a), InvalidArgument, "axis {a} stands twice in axes");
        }
        Ok(v)
    }

    /// What happens along every axis, for concrete sizes and operands.
    pub fn plan(
        &self,
        dims: &[usize],
        roi: Option<&[f32]>,
        scales: Option<&[f32]>,
        sizes: Option<&[i64]>,
    ) -> Result<Vec<AxisPlan>> {
        let axes = self.axes(dims.len())?;
        let n = axes.len();
        let mut plan: Vec<AxisPlan> = dims.iter().map(|d| AxisPlan::identity(*d)).collect();
        match (scales, sizes) {
            (Some(scales), None) => {
                ensure!(scales.len() == n, InvalidArgument, "{} scales for {n} axes", scales.len());
                for (a, s) in axes.iter().zip(scales) {
                    ensure!(s.is_finite() && *s > 0.0, InvalidArgument, "scale {s} of axis {a} is not positive");
                    let output = scaled(dims[*a], *s)?;
                    plan[*a] = AxisPlan { input: dims[*a], output, scale: *s, roi: (0.0, 1.0) };
                }
            }
            (None, Some(sizes)) => {
                ensure!(sizes.len() == n, InvalidArgument, "{} sizes for {n} axes", sizes.len());
                ensure!(sizes.iter().all(|s| *s >= 0), InvalidArgument, "sizes {sizes:?} have a negative one");
                let ratio = |i: usize| sizes[i] as f32 / dims[axes[i]] as f32;
                let common = match self.keep_aspect_ratio.as_str() {
                    "stretch" => None,
                    "not_larger" => Some((0..n).map(ratio).fold(f32::INFINITY, f32::min)),
                    "not_smaller" => Some((0..n).map(ratio).fold(0.0, f32::max)),
                    other => bail!(InvalidArgument, "keep_aspect_ratio_policy {other:?} is not known"),
                };
                for (i, a) in axes.iter().enumerate() {
                    let (output, scale) = match common {
                        None => (sizes[i] as usize, ratio(i)),
                        // Half rounds up.
                        Some(s) => (scaled(1, (s * dims[*a] as f32 + 0.5).floor())?, s),
                    };
                    plan[*a] = AxisPlan { input: dims[*a], output, scale, roi: (0.0, 1.0) };
                }
            }
            _ => bail!(InvalidArgument, "expected either scales or sizes"),
        }
        if self.coordinates == CoordinateMode::TfCropAndResize {
            let roi = roi.ok_or_else(|| err!(InvalidArgument, "tf_crop_and_resize needs the roi operand"))?;
            ensure!(roi.len() == 2 * n, InvalidArgument, "{} roi entries for {n} axes: expected two each", roi.len());
            for (i, a) in axes.iter().enumerate() {
                plan[*a].roi = (roi[i], roi[n + i]);
            }
        }
        // A widened filter has 2/scale neighbours and more: with the bound the tables stay near the size of the axis.
        let thin = plan.iter().find(|p| self.antialias && p.scale < 1.0 / 65536.0 && p.output > 0);
        if let Some(p) = thin {
            bail!(Unsupported, "antialias with the scale {} from {} to {} elements", p.scale, p.input, p.output);
        }
        for (k, p) in plan.iter().enumerate() {
            ensure!(p.input > 0 || p.output == 0, InvalidArgument, "axis {k} is empty and cannot grow to {}", p.output);
        }
        Ok(plan)
    }

    /// The plan of a node from its operands' tensors.
    pub fn plan_of(
        &self,
        dims: &[usize],
        roi: Option<&Tensor>,
        scales: Option<&Tensor>,
        sizes: Option<&Tensor>,
    ) -> Result<Vec<AxisPlan>> {
        let roi = given(roi.map(|t| t.to_f32s()));
        let scales = given(scales.map(|t| t.to_f32s()));
        let sizes = given(sizes.map(|t| t.to_i64s()));
        self.plan(dims, roi.as_deref(), scales.as_deref(), sizes.as_deref())
    }

    /// Tap tables of every axis.
    pub fn taps(&self, plan: &[AxisPlan]) -> Vec<Taps> {
        plan.iter().map(|p| Taps::new(self, p)).collect()
    }

    fn symbolic(&self, x: &Shape, scales: Option<&[f32]>, sizes: Option<&[Dim]>) -> Result<Shape> {
        let axes = self.axes(x.rank())?;
        let mut shape = x.clone();
        for (i, a) in axes.iter().enumerate() {
            let d = &x[*a];
            shape.0[*a] = match (scales, sizes) {
                (Some(s), None) => {
                    ensure!(s.len() == axes.len(), InvalidArgument, "{} scales for {} axes", s.len(), axes.len());
                    match d.as_const().and_then(|v| usize::try_from(v).ok()) {
                        Some(v) => Dim::from(scaled(v, s[i])?),
                        None => scaled_dim(d, s[i]),
                    }
                }
                (None, Some(s)) => {
                    ensure!(s.len() == axes.len(), InvalidArgument, "{} sizes for {} axes", s.len(), axes.len());
                    if self.keep_aspect_ratio == "stretch" { s[i].clone() } else { fresh_dim("resize") }
                }
                _ => fresh_dim("resize"),
            };
        }
        Ok(shape)
    }
}

/// `floor(size * scale)` in f32, as the shape rule has it.
fn scaled(size: usize, scale: f32) -> Result<usize> {
    let v = (size as f32 * scale).floor();
    ensure!((0.0..2f32.powi(31)).contains(&v), InvalidArgument, "scale {scale} of {size} elements is out of range");
    Ok(v as usize)
}

/// The scaled dimension as an expression where the scale is a fraction of small numbers.
fn scaled_dim(d: &Dim, scale: f32) -> Dim {
    for q in 1..=64i64 {
        // Within the rounding of the f32 that was written for the fraction.
        let p = scale as f64 * q as f64;
        if (1.0..1e6).contains(&p.round()) && (p / p.round() - 1.0).abs() < 1e-7 {
            if let Some(v) = (d * &Dim::from(p.round() as i64)).floor_div(&Dim::from(q)) {
                return v;
            }
        }
    }
    fresh_dim("resize")
}

impl OpDef for Resize {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Vec<Fact>> {
        cx.arity(1, 4)?;
        let x = cx.input(0)?;
        ensure!(
            x.dtype.is_float() || (x.dtype.is_int() || self.mode == ResizeMode::Nearest),
            Unsupported,
            "{} resize does not take {}",
            self.mode.name(),
            x.dtype
        );
        ensure!(
            !(self.antialias && self.mode == ResizeMode::Nearest),
            InvalidArgument,
            "antialias goes with linear and cubic only"
        );
        let floats = |i: usize| -> Result<Option<Option<Vec<f32>>>> {
            let Some(f) = cx.opt(i).filter(|f| !f.shape.numel().is(0)) else { return Ok(Some(None)) };
            ensure!(f.dtype.is_float() && f.rank() == 1, InvalidArgument, "input {i}: expected a float vector, got {f}");
            Ok(f.as_const().map(|t| Some(t.to_f32s())))
        };
        let (roi, scales) = (floats(1)?, floats(2)?);
        let sizes = match cx.opt(3).filter(|f| !f.shape.numel().is(0)) {
            None => Some(None),
            Some(f) => {
                ensure!(f.dtype.is_int() && f.rank() == 1, InvalidArgument, "input 3: expected integers, got {f}");
                cx.dims(3)?.map(Some)
            }
        };
        let shape = match (x.shape.concrete(), roi, &scales, &sizes) {
            (Some(dims), Some(roi), Some(scales), Some(sizes))
                if sizes.iter().flatten().all(|d| d.as_const().is_some()) =>
            {
                let sizes: Option<Vec<i64>> =
                    sizes.as_ref().map(|s| s.iter().filter_map(|d| d.as_const()).collect());
                let plan = self.plan(&dims, roi.as_deref(), scales.as_deref(), sizes.as_deref())?;
                Shape(plan.iter().map(|p| Dim::from(p.output)).collect())
            }
            _ => {
                ensure!(
                    !matches!((&scales, &sizes), (Some(None), Some(None))),
                    InvalidArgument,
                    "expected either scales or sizes"
                );
                let scales = scales.as_ref().and_then(|s| s.as_deref());
                self.symbolic(&x.shape, scales, sizes.as_ref().and_then(|s| s.as_deref()))?
            }
        };
        Ok(vec![Fact::new(x.dtype, shape)])
    }

    fn half(&self, _n_inputs: usize) -> Option<(HalfRole, Vec<usize>)> {
        Some((HalfRole::Follows, vec![0]))
    }

    fn eval(&self, cx: &EvalCx<'_>) -> Result<Vec<Tensor>> {
        let x = cx.input(0)?;
        let plan = self.plan_of(x.shape(), cx.opt(1), cx.opt(2), cx.opt(3))?;
        let mut out = cx.output(0)?;
        // Tables of a long axis are not made for nothing.
        if out.numel() == 0 {
            return Ok(vec![out]);
        }
        let taps = self.taps(&plan);
        if self.mode == ResizeMode::Nearest && taps.iter().all(|t| t.inside()) {
            return Ok(vec![nearest(x, &taps, out)]);
        }
        let strides = strides_of(x.shape());
        let v = x.to_f64s();
        let shape = out.shape().to_vec();
        let mut result = vec![0.0f64; out.numel()];
        for_each_index(&shape, |at, index| {
            result[at] = match taps.iter().zip(index).all(|(t, i)| t.is_inside(*i)) {
                false => self.extrapolation_value as f64,
                true => interpolate(&v, &strides, &taps, index),
            };
        });
        out = Tensor::from_slice(&shape, &result).cast(x.dtype());
        Ok(vec![out])
    }

    fn host_inputs(&self) -> Vec<usize> {
        vec![1, 2, 3]
    }

    fn flops(&self, p: &Problem) -> f64 {
        let per = match self.mode {
            ResizeMode::Nearest => 0.0,
            ResizeMode::Linear => 8.0,
            ResizeMode::Cubic => 32.0,
        };
        per * p.outputs[0].numel() as f64
    }

    fn cpu(&self, p: &Problem, _pack: &dyn PackCache) -> Result<Option<Box<dyn CpuStep>>> {
        cpu::step(self, p)
    }

    fn cuda_tactics(&self, p: &Problem, _dev: &DeviceProps, opt: &TacticOptions) -> Vec<Tactic> {
        cuda::tactics(self, p, opt)
    }

    fn cuda_program(&self, tactic: &Tactic, p: &Problem, dev: &DeviceProps) -> Result<StepProgram> {
        cuda::program(self, tactic, p, dev)
    }
}

/// The nearest mode moves elements of any type without looking at them.
fn nearest(x: &Tensor, taps: &[Taps], mut out: Tensor) -> Tensor {
    let strides = strides_of(x.shape());
    let size = DType::size(x.dtype());
    let shape = out.shape().to_vec();
    let dst = out.bytes_mut();
    for_each_index(&shape, |at, index| {
        let from: usize = index.iter().enumerate().map(|(k, i)| taps[k].at(*i)[0] as usize * strides[k]).sum();
        dst[at * size..(at + 1) * size].copy_from_slice(&x.bytes()[from * size..(from + 1) * size]);
    });
    out
}

/// The weighted sum over the product of the remaining axes' taps.
fn interpolate(v: &[f64], strides: &[usize], taps: &[Taps], index: &[usize]) -> f64 {
    let (Some(t), Some(i)) = (taps.first(), index.first()) else { return v[0] };
    let neighbours = t.at(*i).iter().zip(t.weights(*i));
    neighbours
        .filter(|(_, w)| **w != 0.0)
        .map(|(at, w)| *w as f64 * interpolate(&v[*at as usize * strides[0]..], &strides[1..], &taps[1..], &index[1..]))
        .sum()
}
