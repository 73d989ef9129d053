//! Reductions and softmax in every type.

use super::Case;
use crate::ops::steps::random;
use sinter::base::{DType, Tensor};
use sinter::ops::reduce::{Reduce, ReduceKind};
use sinter::ops::softmax::Softmax;

pub fn cases() -> Vec<Case> {
    let mut out = Vec::new();
    for kind in ReduceKind::ALL.iter().copied() {
        for d in DType::ALL {
            if d.is_small() || d == DType::Bool && !matches!(kind, ReduceKind::Max | ReduceKind::Min | ReduceKind::ArgMax | ReduceKind::ArgMin) {
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
                out.push(Case::new(name, op, vec![Some(x)]).within(tolerance));
            }
        }
    }
    // Columns: channels behind the axes, in vectors or not, in one piece and in parts.
    for d in [DType::F32, DType::F16, DType::BF16, DType::F64] {
        for (shape, axes) in [
            (&[2, 7, 7, 40][..], &[1, 2][..]),
            (&[3, 37, 9], &[1]),
            (&[1, 600, 12], &[1]),
            (&[2, 30, 31, 16], &[1, 2]),
            (&[500, 72], &[0]),
            (&[1, 2, 1030], &[1]),
        ] {
            for kind in ReduceKind::ALL.iter().copied().filter(|k| !k.is_arg() && *k != ReduceKind::Prod) {
                let x = random(DType::F32, shape, 17).to_f32s().iter().map(|v| v.abs() / 4.0 + 0.5).collect::<Vec<_>>();
                let op = Reduce::over(kind, axes.to_vec(), shape.len() == 4);
                let tolerance = [2e-5, 2e-3, 1e-2][(d == DType::F16) as usize + 2 * (d == DType::BF16) as usize];
                let name = format!("reduce columns {} {axes:?} of {d}{shape:?}", kind.name());
                out.push(Case::new(name, op, vec![Some(Tensor::from_slice(shape, &x).cast(d))]).within(tolerance));
            }
        }
    }
    for d in [DType::F32, DType::F16, DType::BF16, DType::F64] {
        for (shape, axis, flatten) in
            [(&[3, 37][..], 1, false), (&[2, 5, 7], 1, false), (&[2, 5, 7], 1, true), (&[4, 1100], -1, false), (&[37, 96], -1, false), (&[70, 24], -1, false), (&[2, 9008], -1, false), (&[3, 6, 40], 1, false), (&[3], 0, false), (&[2, 0], 0, false)]
        {
            for log in [false, true] {
                let tolerance = if d.size() == 2 { 1e-2 } else { 1e-5 };
                let name = format!("softmax {axis} log {log} flatten {flatten} of {d}{shape:?}");
                let op = Softmax { axis, log, flatten };
                out.push(Case::new(name, op, vec![Some(random(d, shape, 13))]).within(tolerance));
            }
        }
    }
    out
}
