//! Cases of the operators that move data or reduce it, shared by the reference, the CPU steps and the CUDA programs.

use super::node::counting;
use super::steps::random;
use sinter::base::{DType, Tensor};
use sinter::ops::Op;
use sinter::ops::concat::Concat;
use sinter::ops::depth_to_space::{DepthMode, DepthToSpace};
use sinter::ops::expand::Expand;
use sinter::ops::fill::Fill;
use sinter::ops::gather::Gather;
use sinter::ops::pad::{Pad, PadMode};
use sinter::ops::reduce::{Reduce, ReduceKind};
use sinter::ops::resize::{CoordinateMode, NearestMode, Resize, ResizeMode};
use sinter::ops::slice::Slice;
use sinter::ops::softmax::Softmax;
use sinter::ops::tile::Tile;
use sinter::ops::transpose::Transpose;
use std::sync::Arc;

pub struct Case {
    pub name: String,
    pub op: Op,
    pub inputs: Vec<Option<Tensor>>,
    /// Largest error relative to the larger of 1 and the value.
    pub tolerance: f64,
}

pub fn ints(v: &[i64]) -> Option<Tensor> {
    Some(Tensor::from_slice(&[v.len()], v))
}

fn case(name: String, op: impl Into<Op>, inputs: Vec<Option<Tensor>>) -> Case {
    Case { name, op: op.into(), inputs, tolerance: 0.0 }
}

/// One type of each element size, and bool.
pub const SIZES: [DType; 5] = [DType::F32, DType::F16, DType::U8, DType::I64, DType::Bool];

pub fn movers() -> Vec<Case> {
    let mut out = Vec::new();
    for d in SIZES {
        let x = |shape: &[usize]| Some(random(d, shape, 7));
        for (shape, perm) in [
            (&[2, 3, 5, 7][..], &[0, 2, 3, 1][..]),
            (&[3, 40, 37], &[0, 2, 1]),
            (&[5], &[0]),
            (&[], &[]),
            (&[3, 0, 2], &[2, 0, 1]),
            (&[2, 1, 3, 1, 5], &[4, -2, 2, 1, 0]),
        ] {
            out.push(case(format!("transpose {perm:?} of {d}{shape:?}"), Transpose { perm: perm.to_vec() }, vec![x(shape)]));
        }
        for (shape, starts, ends, axes, steps) in [
            (&[7, 9][..], &[1, 2][..], &[6, 9][..], &[0, 1][..], &[1, 1][..]),
            (&[7, 9], &[-1], &[i64::MIN], &[-1], &[-2]),
            (&[4, 6, 5], &[-3, 10], &[i64::MAX, -10], &[1, 0], &[2, -1]),
            (&[4, 6], &[3], &[1], &[0], &[1]),
            (&[16, 32], &[8], &[16], &[1], &[1]),
        ] {
            let inputs = vec![x(shape), ints(starts), ints(ends), ints(axes), ints(steps)];
            out.push(case(format!("slice {starts:?}:{ends:?}:{steps:?} of {d}{shape:?}"), Slice {}, inputs));
        }
        for (shape, axis) in [(&[2, 3, 5][..], 1), (&[4, 8], -1), (&[3, 1, 2, 2], 0), (&[2, 0, 3], 1)] {
            let mut wide = shape.to_vec();
            let k = if axis < 0 { shape.len() - 1 } else { axis as usize };
            wide[k] += 4;
            let inputs = vec![x(shape), x(&wide), x(shape)];
            out.push(case(format!("concat {axis} of {d}{shape:?}"), Concat { axis }, inputs));
        }
        for (shape, axis) in [(&[5, 6, 3][..], 1), (&[7], 0), (&[4, 16], 0), (&[3, 5], -1)] {
            let k = if axis < 0 { shape.len() - 1 } else { axis as usize };
            let n = shape[k] as i64;
            let indices = Tensor::from_slice(&[2, 2], &[0, n - 1, -1, -n]);
            out.push(case(format!("gather {axis} of {d}{shape:?}"), Gather { axis }, vec![x(shape), Some(indices.clone())]));
            let narrow = Some(indices.cast(DType::I32));
            out.push(case(format!("gather {axis} by i32 of {d}{shape:?}"), Gather { axis }, vec![x(shape), narrow]));
        }
        for mode in [PadMode::Constant, PadMode::Edge, PadMode::Reflect, PadMode::Wrap] {
            for pads in [&[1, 2, 3, 4][..], &[-1, 0, 2, -1], &[0, 5, 0, 9], &[-2, -1, 0, 0], &[0, 0, 0, 0]] {
                let value = Some(random(d, &[], 3));
                out.push(case(format!("pad {mode:?} {pads:?} of {d}"), Pad { mode }, vec![x(&[4, 5]), ints(pads), value]));
            }
        }
        out.push(case(
            format!("pad axes of {d}"),
            Pad { mode: PadMode::Constant },
            vec![x(&[2, 3, 4]), ints(&[1, 2]), None, ints(&[-2])],
        ));
        for (shape, to) in [(&[3, 1][..], &[2, 3, 4][..]), (&[1], &[5]), (&[4, 1, 2], &[3, 1]), (&[], &[2, 2]), (&[2, 1], &[2, 0])] {
            out.push(case(format!("expand {d}{shape:?} to {to:?}"), Expand {}, vec![x(shape), ints(to)]));
        }
        for (shape, repeats) in [(&[2, 3][..], &[2, 3][..]), (&[4], &[0]), (&[1, 5, 2], &[3, 1, 2])] {
            out.push(case(format!("tile {d}{shape:?} by {repeats:?}"), Tile {}, vec![x(shape), ints(repeats)]));
        }
        for mode in [DepthMode::Dcr, DepthMode::Crd] {
            for inverse in [false, true] {
                let shape = if inverse { [2, 3, 6, 4] } else { [2, 12, 3, 5] };
                let op = DepthToSpace { block: 2, mode, inverse };
                out.push(case(format!("depth {mode:?} inverse {inverse} of {d}"), op, vec![x(&shape)]));
            }
        }
        for shape in [&[3, 5, 7][..], &[0, 2], &[]] {
            let value = Arc::new(random(d, &[], 5));
            let dims: Vec<i64> = shape.iter().map(|d| *d as i64).collect();
            out.push(case(format!("fill {d}{shape:?}"), Fill { value }, vec![ints(&dims)]));
        }
    }
    out
}

pub fn reductions() -> Vec<Case> {
    let mut out = Vec::new();
    for kind in ReduceKind::ALL.iter().copied() {
        for d in DType::ALL {
            if d == DType::Bool && !matches!(kind, ReduceKind::Max | ReduceKind::Min | ReduceKind::ArgMax | ReduceKind::ArgMin) {
                continue;
            }
            if !d.is_float() && (kind == ReduceKind::LogSumExp || d.size() < 4) && matches!(kind, ReduceKind::L2 | ReduceKind::LogSum | ReduceKind::LogSumExp) {
                continue;
            }
            let shapes: [(&[usize], &[i64]); 6] = [
                (&[3, 37], &[1]),
                (&[5, 4, 3], &[0]),
                (&[2, 3, 67], &[1]),
                (&[2, 3, 4, 5], &[0, 2]),
                (&[2, 3, 5], &[-1, -2, 0]),
                (&[3, 1, 5], &[1]),
            ];
            for (shape, axes) in shapes {
                let axes = if kind.is_arg() { axes[..1].to_vec() } else { axes.to_vec() };
                // Logarithms and products of what stays in range.
                let x = match d.is_float() {
                    true => Tensor::from_slice(shape, &random(DType::F32, shape, 11).to_f32s().iter().map(|v| v.abs() + 0.5).collect::<Vec<_>>()).cast(d),
                    // The logarithm of a negative sum is not a number, let alone an integer.
                    false if kind == ReduceKind::LogSum => {
                        let v: Vec<i64> = random(d, shape, 11).to_i64s().iter().map(|v| v.abs() + 1).collect();
                        Tensor::from_slice(shape, &v).cast(d)
                    }
                    false => random(d, shape, 11),
                };
                let mut op = Reduce::over(kind, axes.clone(), shape.len() % 2 == 0);
                op.select_last_index = shape[0] == 5;
                // Half types are summed in f32 or f64 and rounded once on both sides.
                let tolerance = match d {
                    DType::F64 | DType::F32 => 2e-5,
                    DType::F16 => 2e-3,
                    DType::BF16 => 1e-2,
                    _ => 0.0,
                };
                let name = format!("reduce {} {axes:?} of {d}{shape:?}", kind.name());
                out.push(Case { name, op: op.into(), inputs: vec![Some(x)], tolerance });
            }
        }
    }
    for d in [DType::F32, DType::F16, DType::BF16, DType::F64] {
        for (shape, axis, flatten) in
            [(&[3, 37][..], 1, false), (&[2, 5, 7], 1, false), (&[2, 5, 7], 1, true), (&[4, 1100], -1, false), (&[3], 0, false), (&[2, 0], 0, false)]
        {
            for log in [false, true] {
                let tolerance = if d.size() == 2 { 1e-2 } else { 1e-5 };
                let name = format!("softmax {axis} log {log} flatten {flatten} of {d}{shape:?}");
                let op = Softmax { axis, log, flatten };
                out.push(Case { name, op: op.into(), inputs: vec![Some(random(d, shape, 13))], tolerance });
            }
        }
    }
    out
}

pub fn resize(mode: ResizeMode, coordinates: CoordinateMode) -> Resize {
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

pub fn resizes() -> Vec<Case> {
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
                    out.push(Case { name, op: op.into(), inputs, tolerance: 1e-5 });
                }
            }
        }
    }
    for d in [DType::F16, DType::U8, DType::F64] {
        let op = resize(ResizeMode::Nearest, CoordinateMode::Asymmetric);
        let scales = Tensor::from_slice(&[4], &[1.0f32, 1.0, 2.0, 3.0]);
        let inputs = vec![Some(random(d, &[2, 3, 4, 5], 3)), None, Some(scales)];
        out.push(Case { name: format!("resize nearest of {d}"), op: op.into(), inputs, tolerance: 0.0 });
    }
    for (antialias, exclude_outside) in [(true, false), (false, true), (true, true)] {
        for mode in [ResizeMode::Linear, ResizeMode::Cubic] {
            let op = Resize { antialias, exclude_outside, ..resize(mode, CoordinateMode::HalfPixel) };
            let name = format!("resize {mode:?} antialias {antialias} exclude {exclude_outside}");
            out.push(Case { name, op: op.into(), inputs: vec![image(), None, None, ints(&[1, 2, 3, 4])], tolerance: 1e-5 });
        }
    }
    out
}
