//! Interpolates. Inputs: x, optional roi, optional scales, optional sizes (all but x host).

use crate::base::{Fact, Result, Tensor};
use crate::ops::{EvalCx, InferCx, OpDef};
use crate::{attr_enum, bail, op_home, op_struct};

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
        pub axes: Option<Vec<i64>>,
        pub keep_aspect_ratio: String,
        pub antialias: bool,
    }
}

op_home!(Resize, "Resize", &[]);

impl OpDef for Resize {
    fn infer(&self, _cx: &InferCx<'_>) -> Result<Vec<Fact>> {
        bail!(Unsupported, "being written")
    }
    fn eval(&self, _cx: &EvalCx<'_>) -> Result<Vec<Tensor>> {
        bail!(Unsupported, "being written")
    }
}
