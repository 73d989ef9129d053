//! Resize: every mode, coordinate rule and rounding.

use super::{Case, ints};
use crate::ops::node::counting;
use crate::ops::steps::random;
use sinter::base::{DType, Tensor};
use sinter::ops::resize::{CoordinateMode, NearestMode, Resize, ResizeMode};

fn resize(mode: ResizeMode, coordinates: CoordinateMode) -> Resize {
    Resize {
        mode,
        coordinates,
        nearest: NearestMode::RoundPreferFloor,
        cubic_coeff_a: -0.75,
        exclude_outside: false,
        extrapolation_value: 0.0,
        axes: None,
        keep_aspect_ratio: "stretch".into(),
        antialias: false,
    }
}

pub fn cases() -> Vec<Case> {
    let mut out = Vec::new();
    let image = || Some(Tensor::from_slice(&[1, 2, 5, 7], &counting(70, 1.0)));
    for mode in ResizeMode::ALL.iter().copied() {
        for coordinates in CoordinateMode::ALL.iter().copied() {
            for sizes in [[1, 2, 10, 14], [1, 2, 3, 4], [1, 2, 1, 9]] {
                for nearest in NearestMode::ALL.iter().copied() {
                    if mode != ResizeMode::Nearest && nearest != NearestMode::Floor {
                        continue;
                    }
                    let op = Resize { nearest, extrapolation_value: 9.0, ..resize(mode, coordinates) };
                    let roi = Tensor::from_slice(&[8], &[0.0f32, 0.0, 0.1, -0.2, 1.0, 1.0, 0.9, 1.1]);
                    let name = format!("resize {mode:?} {coordinates:?} {nearest:?} to {sizes:?}");
                    let inputs = vec![image(), Some(roi), None, ints(&sizes)];
                    out.push(Case::new(name, op, inputs).within(1e-5));
                }
            }
        }
    }
    for d in [DType::F16, DType::U8, DType::F64] {
        let op = resize(ResizeMode::Nearest, CoordinateMode::Asymmetric);
        let scales = Tensor::from_slice(&[4], &[1.0f32, 1.0, 2.0, 3.0]);
        let inputs = vec![Some(random(d, &[2, 3, 4, 5], 3)), None, Some(scales)];
        out.push(Case::new(format!("resize nearest of {d}"), op, inputs));
    }
    // Channels behind the axes, in vectors and not.
    for d in [DType::F32, DType::F16, DType::U8] {
        for c in [16, 5] {
            for mode in ResizeMode::ALL.iter().copied().filter(|m| d.is_float() || *m == ResizeMode::Nearest) {
                for (coordinates, sizes) in [(CoordinateMode::HalfPixel, [10, 3]), (CoordinateMode::AlignCorners, [3, 9]), (CoordinateMode::TfCropAndResize, [4, 8])] {
                    let axes = Some(vec![1, 2]);
                    let op = Resize { axes, extrapolation_value: 3.0, exclude_outside: mode == ResizeMode::Cubic, ..resize(mode, coordinates) };
                    let roi = Tensor::from_slice(&[4], &[0.1f32, -0.2, 0.9, 1.1]);
                    let x = random(d, &[2, 5, 7, c], 4);
                    let name = format!("resize {mode:?} {coordinates:?} of {d} with {c} channels last");
                    let tolerance = if d == DType::F16 { 2e-3 } else { 1e-5 };
                    out.push(Case::new(name, op, vec![Some(x), Some(roi), None, ints(&sizes)]).within(tolerance));
                }
            }
        }
    }
    for (antialias, exclude_outside) in [(true, false), (false, true), (true, true)] {
        for mode in [ResizeMode::Linear, ResizeMode::Cubic] {
            let op = Resize { antialias, exclude_outside, ..resize(mode, CoordinateMode::HalfPixel) };
            let name = format!("resize {mode:?} antialias {antialias} exclude {exclude_outside}");
            out.push(Case::new(name, op, vec![image(), None, None, ints(&[1, 2, 3, 4])]).within(1e-5));
        }
    }
    out
}
