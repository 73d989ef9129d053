//! Import of Resize (opsets 10, 11, 13, 18, 19) and of its predecessor Upsample (7, 9).

use super::{CoordinateMode, NearestMode, Resize, ResizeMode};
use crate::base::{Result, Tensor};
use crate::network::ValueId;
use crate::ops::{ImportCx, OnnxOp, onnx};
use crate::{bail, err};

pub const TABLE: &[OnnxOp] = &[
    onnx("Upsample", 7, upsample_7),
    onnx("Upsample", 9, upsample_9),
    onnx("Resize", 10, resize_10),
    onnx("Resize", 11, resize_11),
];

fn mode(cx: &ImportCx<'_>) -> Result<ResizeMode> {
    let text = cx.string("mode", "nearest")?;
    Ok(match text.as_str() {
        "nearest" => ResizeMode::Nearest,
        "linear" | "bilinear" => ResizeMode::Linear,
        "cubic" => ResizeMode::Cubic,
        _ => bail!(InvalidArgument, "attribute mode: expected nearest, linear or cubic, got {text:?}"),
    })
}

/// The form before opset 11: no attribute but the mode, positions are `x / scale`.
fn simple(mode: ResizeMode, nearest: NearestMode) -> Resize {
    Resize {
        mode,
        coordinates: CoordinateMode::Asymmetric,
        nearest,
        cubic_coeff_a: -0.75,
        exclude_outside: false,
        extrapolation_value: 0.0,
        axes: None,
        keep_aspect_ratio: "stretch".into(),
        antialias: false,
    }
}

fn upsample_7(cx: &mut ImportCx<'_>) -> Result<Vec<ValueId>> {
    let x = cx.input(0)?;
    let mode = mode(cx)?;
    let scales = cx.attrs.floats("scales")?.ok_or_else(|| err!(InvalidArgument, "attribute scales is missing"))?;
    let scales = cx.constant(Tensor::from_slice(&[scales.len()], &scales));
    Ok(vec![cx.add_opt(simple(mode, NearestMode::Floor), &[Some(x), None, Some(scales)])?])
}

fn upsample_9(cx: &mut ImportCx<'_>) -> Result<Vec<ValueId>> {
    let (x, scales) = (cx.input(0)?, cx.input(1)?);
    let mode = mode(cx)?;
    Ok(vec![cx.add_opt(simple(mode, NearestMode::Floor), &[Some(x), None, Some(scales)])?])
}

fn resize_10(cx: &mut ImportCx<'_>) -> Result<Vec<ValueId>> {
    let (x, scales) = (cx.input(0)?, cx.input(1)?);
    let mode = mode(cx)?;
    // The nearest element was the lower one when growing and the upper one when shrinking.
    let known = cx.as_const(scales).map(|t| t.to_f32s()).unwrap_or_default();
    let (grows, shrinks) = (known.iter().any(|s| *s > 1.0), known.iter().any(|s| *s < 1.0));
    if mode == ResizeMode::Nearest && grows && shrinks {
        bail!(Unsupported, "a nearest resize of opset 10 that grows along one axis and shrinks along another");
    }
    let nearest = if shrinks { NearestMode::Ceil } else { NearestMode::Floor };
    Ok(vec![cx.add_opt(simple(mode, nearest), &[Some(x), None, Some(scales)])?])
}

fn resize_11(cx: &mut ImportCx<'_>) -> Result<Vec<ValueId>> {
    let x = cx.input(0)?;
    let named = |text: &str, what: &str| err!(Unsupported, "attribute {what}: {text:?} is not known");
    let coordinates = cx.string("coordinate_transformation_mode", "half_pixel")?;
    let nearest = cx.string("nearest_mode", "round_prefer_floor")?;
    let op = Resize {
        mode: mode(cx)?,
        coordinates: CoordinateMode::from_name(&coordinates)
            .ok_or_else(|| named(&coordinates, "coordinate_transformation_mode"))?,
        nearest: NearestMode::from_name(&nearest).ok_or_else(|| named(&nearest, "nearest_mode"))?,
        cubic_coeff_a: cx.float("cubic_coeff_a", -0.75)?,
        exclude_outside: cx.flag("exclude_outside", false)?,
        extrapolation_value: cx.float("extrapolation_value", 0.0)?,
        axes: cx.ints("axes")?,
        keep_aspect_ratio: cx.string("keep_aspect_ratio_policy", "stretch")?,
        antialias: cx.flag("antialias", false)?,
    };
    let mut inputs = vec![Some(x), cx.opt(1), cx.opt(2), cx.opt(3)];
    // Operands that mean nothing are left out, so that no host copy of them is kept.
    let empty = |cx: &ImportCx<'_>, v: Option<ValueId>| v.is_some_and(|v| cx.shape(v).numel().is(0));
    for slot in inputs.iter_mut().skip(1) {
        if empty(cx, *slot) {
            *slot = None;
        }
    }
    if op.coordinates != CoordinateMode::TfCropAndResize {
        inputs[1] = None;
    }
    while inputs.last() == Some(&None) {
        inputs.pop();
    }
    Ok(vec![cx.add_opt(op, &inputs)?])
}
