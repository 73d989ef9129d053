//! Row normalization: every form of rows, operands in any combination, all floating-point types; inverses of matrices.

use super::Case;
use crate::ops::steps::random;
use sinter::base::{DType, Tensor};
use sinter::ops::inverse::Inverse;
use sinter::ops::normalize::{Affine, Normalize};

const FLOATS: [DType; 4] = [DType::F32, DType::F16, DType::BF16, DType::F64];

fn tolerance(d: DType) -> f64 {
    match d {
        DType::F16 => 1e-2,
        DType::BF16 => 6e-2,
        DType::F32 => 1e-4,
        _ => 1e-9,
    }
}

fn row(axis: i64, centered: bool) -> Normalize {
    Normalize { axis, groups: 0, affine: Affine::Row, centered, epsilon: 1e-3, stats: false, sum: false }
}

pub fn cases() -> Vec<Case> {
    let mut out = Vec::new();
    for d in FLOATS {
        for (k, (shape, axis)) in [
            (&[3, 37][..], -1),
            (&[2, 3, 64], -1),
            (&[2, 3, 8], 1),
            (&[5, 1027], 1),
            (&[2, 2, 3000], -1),
            (&[1, 9001], 1),
            (&[4, 1], -1),
            (&[0, 5], -1),
            (&[3, 0], -1),
            (&[7], 0),
            // Rows that share warps, with threads and rows left over.
            (&[37, 96], -1),
            (&[9, 200], -1),
            (&[19, 24], -1),
        ]
        .into_iter()
        .enumerate()
        {
            let first = if axis < 0 { shape.len() - 1 } else { axis as usize };
            let tail = &shape[first..];
            let x = random(d, shape, 31);
            // Each combination of operands and outputs comes with some shape of each length.
            for bits in [k, k + 5, 13 - k] {
                let has = |i: usize| bits >> i & 1 == 1;
                let param = |there: bool, seed: u64| there.then(|| random(d, tail, seed));
                let mut op = row(axis, !has(0));
                op.stats = has(1) && !tail.contains(&0);
                op.sum = has(2);
                let inputs = vec![
                    Some(x.clone()),
                    param(!has(3), 32),
                    param(has(0) ^ has(1), 33),
                    has(2).then(|| random(d, shape, 34)),
                    param(has(1) && has(2), 35),
                ];
                let name = format!("rows of {d}{shape:?} from {axis}, combination {bits}");
                out.push(Case::new(name, op, inputs).within(tolerance(d)));
            }
        }
        for (shape, groups, affine) in [
            (&[2, 3, 5, 7][..], 0, Affine::Channel),
            (&[2, 4], 0, Affine::Channel),
            (&[1, 2, 70, 70], 0, Affine::Channel),
            (&[2, 6, 5], 3, Affine::Channel),
            (&[2, 6, 5], 3, Affine::Group),
            (&[3, 8], 2, Affine::Channel),
            (&[1, 4, 40, 64], 2, Affine::Channel),
            (&[0, 4, 3], 4, Affine::Group),
        ] {
            let n = if affine == Affine::Group { groups as usize } else { shape[1] };
            let op = Normalize { axis: 2, groups, affine, centered: true, epsilon: 1e-3, stats: false, sum: false };
            let inputs = vec![Some(random(d, shape, 41)), Some(random(d, &[n], 42)), Some(random(d, &[n], 43))];
            let name = format!("{groups} groups of {d}{shape:?}, scale for each {}", affine.name());
            out.push(Case::new(name, op, inputs).within(tolerance(d)));
        }
    }
    // Scale and bias of another type than x: the result is of theirs.
    for (d, p) in [(DType::F16, DType::F32), (DType::F32, DType::BF16), (DType::F32, DType::F64)] {
        let inputs = vec![Some(random(d, &[3, 40], 51)), Some(random(p, &[40], 52)), Some(random(p, &[40], 53))];
        out.push(Case::new(format!("{d} rows with {p} scale"), row(-1, true), inputs).within(6e-2));
    }
    for d in FLOATS {
        for shape in [&[1, 1][..], &[2, 5, 5], &[3, 2, 2, 2], &[0, 3, 3], &[2, 0, 0], &[17, 17]] {
            // Near the identity, so that every matrix has a well-conditioned inverse.
            let n = shape[shape.len() - 1];
            let mut v = random(DType::F32, shape, 61).to_f32s();
            v.iter_mut().enumerate().for_each(|(i, v)| *v = *v * 0.2 + if i % (n * n) % (n + 1) == 0 { 4.0 } else { 0.0 });
            let x = Tensor::from_slice(shape, &v).cast(d);
            out.push(Case::new(format!("inverse of {d}{shape:?}"), Inverse {}, vec![Some(x)]).within(tolerance(d)));
        }
    }
    out
}
