//! Operators that gather, scatter, sort, scan and select: every element size, both index types, empty tensors, ties, negative
//! indices, and results whose size the data decides.

use super::Case;
use crate::ops::steps::{random, values};
use sinter::base::{DType, Tensor};
use sinter::ops::cumulate::Cumulate;
use sinter::ops::det::Det;
use sinter::ops::gather_elements::GatherElements;
use sinter::ops::gather_nd::GatherND;
use sinter::ops::non_max_suppression::NonMaxSuppression;
use sinter::ops::nonzero::NonZero;
use sinter::ops::random::Random;
use sinter::ops::reverse_sequence::ReverseSequence;
use sinter::ops::scatter_elements::ScatterElements;
use sinter::ops::scatter_elements::combine::Combine;
use sinter::ops::scatter_nd::ScatterND;
use sinter::ops::tensor_scatter::TensorScatter;
use sinter::ops::tfidf::{TfIdf, TfIdfMode};
use sinter::ops::topk::TopK;
use sinter::ops::trilu::Trilu;
use sinter::ops::unique::Unique;

/// One type of each element size, and bool.
const SIZES: [DType; 5] = [DType::F32, DType::F16, DType::U8, DType::I64, DType::Bool];
const FLOATS: [DType; 4] = [DType::F32, DType::F16, DType::BF16, DType::F64];

/// Positions in [-n, n) that look random.
fn positions(shape: &[usize], n: usize, seed: u64) -> Tensor {
    let v: Vec<i64> = values(shape.iter().product(), seed)
        .iter()
        .map(|v| ((v * n as f32) as i64).clamp(-(n as i64), n as i64 - 1))
        .collect();
    Tensor::from_slice(shape, &v)
}

/// Numbers of which many are equal.
fn coarse(dtype: DType, shape: &[usize], seed: u64) -> Tensor {
    let v: Vec<i64> = values(shape.iter().product(), seed).iter().map(|v| (v * 4.0).round() as i64).collect();
    Tensor::from_slice(shape, &v).cast(DType::I8).cast(dtype)
}

/// A different row of 0 .. n for each column along `axis` of `shape`, so that no two updates meet.
fn permutations(shape: &[usize], axis: usize, n: usize) -> Tensor {
    let (length, inner) = (shape[axis], shape[axis + 1..].iter().product::<usize>());
    let total: usize = shape.iter().product();
    let v: Vec<i64> = (0..total)
        .map(|at| {
            let (j, rest) = (at / inner % length, at % inner + at / inner / length);
            let i = ((j * 1 + rest * 3) % n) as i64;
            if at % 2 == 0 { i } else { i - n as i64 }
        })
        .collect();
    Tensor::from_slice(shape, &v)
}

fn gathers(out: &mut Vec<Case>) {
    for d in SIZES {
        for (x, index, axis) in [
            (&[5, 6, 7][..], &[5, 4, 7][..], 1i64),
            (&[5, 6, 7], &[3, 6, 2], -3),
            (&[5, 6], &[5, 9], -1),
            (&[11], &[17], 0),
            (&[3, 0], &[2, 0], 0),
            (&[2, 3, 2, 1, 3], &[2, 5, 1, 1, 2], 1),
        ] {
            let n = x[if axis < 0 { (axis + x.len() as i64) as usize } else { axis as usize }];
            for narrow in [false, true] {
                let at = positions(index, n, 3);
                let at = if narrow { at.cast(DType::I32) } else { at };
                let name = format!("gather elements {axis} of {d}{x:?} by {}{index:?}", at.dtype());
                out.push(Case::new(name, GatherElements { axis }, vec![Some(random(d, x, 5)), Some(at)]));
            }
        }
        for (x, index, batch_dims) in [
            (&[4, 5, 6][..], &[7, 2][..], 0i64),
            (&[4, 5, 6], &[3, 2, 3], 0),
            (&[4, 5, 6], &[4, 3, 1], 1),
            (&[2, 3, 4, 5], &[2, 3, 2, 2], 2),
            (&[4, 8], &[0, 1], 0),
            (&[6], &[3, 1], 0),
            (&[3, 2], &[2, 0], 0),
        ] {
            let at = positions(index, 4.min(x[batch_dims as usize]), 9);
            for t in [DType::I64, DType::I32] {
                let name = format!("gather nd {batch_dims} of {d}{x:?} by {t}{index:?}");
                out.push(Case::new(name, GatherND { batch_dims }, vec![Some(random(d, x, 5)), Some(at.cast(t))]));
            }
        }
    }
}

fn scatters(out: &mut Vec<Case>) {
    let none = Combine::None;
    for d in SIZES {
        for (x, index, axis) in
            [(&[5, 6, 7][..], &[5, 4, 7][..], 1usize), (&[9], &[5], 0), (&[4, 3], &[2, 2], 0), (&[4, 3], &[0, 3], 0), (&[0, 2], &[0, 2], 0)]
        {
            let at = permutations(index, axis, x[axis].max(1));
            let inputs = vec![Some(random(d, x, 5)), Some(at), Some(random(d, index, 6))];
            out.push(Case::new(
                format!("scatter elements {axis} into {d}{x:?} by {index:?}"),
                ScatterElements { axis: axis as i64, reduction: none },
                inputs,
            ));
        }
        let at = Tensor::from_slice(&[3, 2], &[0i64, 1, -1, 0, 2, -2]);
        let inputs = vec![Some(random(d, &[4, 3, 5], 5)), Some(at.cast(DType::I32)), Some(random(d, &[3, 5], 6))];
        out.push(Case::new(format!("scatter nd into {d}[4,3,5]"), ScatterND { reduction: none }, inputs));
        let inputs = vec![Some(random(d, &[4], 5)), Some(Tensor::zeros(DType::I64, &[0, 1])), Some(random(d, &[0], 6))];
        out.push(Case::new(format!("scatter nd of nothing into {d}[4]"), ScatterND { reduction: none }, inputs));
    }
    for reduction in [Combine::Add, Combine::Mul, Combine::Max, Combine::Min] {
        for d in [DType::F32, DType::F16, DType::BF16, DType::F64, DType::I8, DType::U16, DType::I32, DType::I64, DType::Bool] {
            // Sums in another order round differently.
            let tolerance = match d {
                DType::F16 => 2e-2,
                DType::BF16 => 1e-1,
                DType::F32 => 1e-5,
                _ => 1e-12,
            };
            for (x, index, axis) in [(&[3, 5, 4][..], &[3, 9, 4][..], 1i64), (&[6], &[300], 0)] {
                let at = positions(index, x[axis as usize], 4);
                let name = format!("scatter elements {} {axis} into {d}{x:?} by {index:?}", reduction.name());
                let inputs = vec![Some(random(d, x, 5)), Some(at), Some(random(d, index, 6))];
                out.push(Case::new(name, ScatterElements { axis, reduction }, inputs).within(tolerance));
            }
            for (x, index) in [(&[4, 3, 2][..], &[9, 2][..]), (&[5, 7], &[8, 1])] {
                let at = positions(index, 3, 8);
                let mut updates = vec![index[0]];
                updates.extend_from_slice(&x[index[1]..]);
                let name = format!("scatter nd {} into {d}{x:?} by {index:?}", reduction.name());
                let inputs = vec![Some(random(d, x, 5)), Some(at), Some(random(d, &updates, 6))];
                out.push(Case::new(name, ScatterND { reduction }, inputs).within(tolerance));
            }
        }
    }
    for d in [DType::F32, DType::F16, DType::U8] {
        for (x, update, axis, circular, at) in [
            (&[2, 3, 8, 4][..], &[2, 3, 2, 4][..], -2i64, false, Some([6i64, 0])),
            (&[2, 3, 8, 4], &[2, 3, 3, 4], 2, true, Some([6, 15])),
            (&[2, 8, 3], &[2, 8, 3], 1, false, None),
            (&[2, 5], &[2, 2], -1, true, Some([4, 1])),
        ] {
            let mut inputs = vec![Some(random(d, x, 5)), Some(random(d, update, 6))];
            inputs.extend(at.map(|at| Some(Tensor::from_slice(&[2], &at))));
            let name = format!("tensor scatter {axis} {circular} of {d}{update:?} into {x:?} at {at:?}");
            out.push(Case::new(name, TensorScatter { axis, circular }, inputs));
        }
    }
}

fn sorts(out: &mut Vec<Case>) {
    let types = [DType::F32, DType::F16, DType::BF16, DType::F64, DType::I8, DType::U8, DType::I16, DType::U16, DType::I32, DType::U32, DType::I64, DType::U64];
    for d in types {
        for (x, axis, k) in [
            (&[3, 7][..], -1i64, 3i64),
            (&[3, 7, 5], 1, 7),
            (&[2, 3000], 1, 5),
            (&[1500, 2], 0, 700),
            (&[1, 6000], -1, 2500),
            (&[2500], 0, 2500),
            (&[5], 0, 1),
            (&[4, 3], 0, 0),
        ] {
            for largest in [true, false] {
                // Where elements repeat, their order tells.
                let v = if x.len() == 2 { coarse(d, x, 3) } else { random(d, x, 3) };
                let name = format!("topk {k} largest {largest} {axis} of {d}{x:?}");
                out.push(Case::new(name, TopK { axis, largest }, vec![Some(v), Some(Tensor::from_slice(&[1], &[k]))]));
            }
        }
    }
    let special = [f32::NAN, 1.0, -0.0, 0.0, f32::INFINITY, -3.0, f32::NEG_INFINITY, f32::NAN, 1.0, 0.0];
    for d in FLOATS {
        for largest in [true, false] {
            let inputs = vec![Some(Tensor::from_slice(&[10], &special).cast(d)), Some(Tensor::scalar(9i64))];
            out.push(Case::new(format!("topk of special {d} largest {largest}"), TopK { axis: 0, largest }, inputs));
        }
        for (sorted, axis) in [(true, None), (false, None), (true, Some(0))] {
            let inputs = vec![Some(Tensor::from_slice(&[10], &special).cast(d))];
            out.push(Case::new(format!("unique of special {d} {sorted} {axis:?}"), Unique { axis, sorted }, inputs));
        }
    }
    for d in [DType::F32, DType::F16, DType::F64, DType::I8, DType::U8, DType::I32, DType::I64, DType::Bool] {
        for (x, axis) in [
            (&[40][..], None),
            (&[3, 50], None),
            (&[3000], None),
            (&[9, 2], Some(0)),
            (&[2, 30, 1], Some(1)),
            (&[2, 2, 20], Some(-1)),
            (&[0, 3], None),
            (&[3, 0], Some(0)),
            (&[], None),
            (&[1], Some(0)),
        ] {
            for sorted in [true, false] {
                let name = format!("unique {sorted} {axis:?} of {d}{x:?}");
                out.push(Case::new(name, Unique { axis, sorted }, vec![Some(coarse(d, x, 2))]));
            }
        }
        for x in [&[7][..], &[3, 5, 4], &[5000], &[2, 0], &[]] {
            out.push(Case::new(format!("nonzero of {d}{x:?}"), NonZero {}, vec![Some(coarse(d, x, 7))]));
        }
        out.push(Case::new(format!("nonzero of zeros {d}"), NonZero {}, vec![Some(Tensor::zeros(d, &[4, 3]))]));
    }
}

fn scans(out: &mut Vec<Case>) {
    for d in [DType::F32, DType::F16, DType::BF16, DType::F64, DType::I8, DType::U8, DType::I32, DType::I64, DType::U64] {
        for (x, axis) in [(&[7][..], 0i64), (&[3, 5, 4], 1), (&[2, 700], -1), (&[600, 3], 0), (&[2, 0], 1)] {
            for mode in 0..8 {
                let (product, exclusive, reverse) = (mode & 1 != 0, mode & 2 != 0, mode & 4 != 0);
                // Floats near 1, so that long products neither vanish nor overflow.
                let v = match d.is_float() {
                    true => {
                        let near: Vec<f32> = values(x.iter().product(), 3).iter().map(|v| 1.0 + v * 0.01).collect();
                        Tensor::from_slice(x, &near).cast(d)
                    }
                    false => coarse(d, x, 3),
                };
                let name = format!("cumulate product {product} exclusive {exclusive} reverse {reverse} {axis} of {d}{x:?}");
                let tolerance = match d {
                    DType::F32 => 1e-5,
                    DType::F16 => 1e-3,
                    DType::BF16 => 8e-3,
                    _ => 1e-12,
                };
                let inputs = vec![Some(v), Some(Tensor::scalar(axis as i32))];
                out.push(Case::new(name, Cumulate { product, exclusive, reverse }, inputs).within(tolerance));
            }
        }
    }
}

fn shapes(out: &mut Vec<Case>) {
    for d in SIZES {
        for x in [&[4, 5][..], &[2, 3, 7], &[6, 2], &[1, 1], &[0, 3]] {
            for k in [None, Some(0i64), Some(1), Some(-2), Some(100), Some(i64::MIN), Some(i64::MAX)] {
                for upper in [true, false] {
                    let mut inputs = vec![Some(random(d, x, 4))];
                    inputs.extend(k.map(|k| Some(Tensor::scalar(k))));
                    out.push(Case::new(format!("trilu {upper} {k:?} of {d}{x:?}"), Trilu { upper }, inputs));
                }
            }
        }
        for (x, batch_first, lengths) in [
            (&[4, 3, 5][..], false, &[4i64, 1, 2][..]),
            (&[3, 4], true, &[0, 3, 4]),
            (&[4, 1, 3, 2], false, &[3]),
            (&[0, 2, 2], false, &[0, 0]),
        ] {
            for t in [DType::I64, DType::I32] {
                let inputs = vec![Some(random(d, x, 4)), Some(Tensor::from_slice(&[lengths.len()], lengths).cast(t))];
                let name = format!("reverse sequence {batch_first} {t}{lengths:?} of {d}{x:?}");
                out.push(Case::new(name, ReverseSequence { batch_first }, inputs));
            }
        }
    }
    for d in FLOATS {
        for x in [&[3, 3][..], &[2, 2, 5, 5], &[1, 1], &[0, 0], &[0, 2, 2], &[40, 40]] {
            let tolerance = if d == DType::F64 { 1e-9 } else { 1e-6 };
            out.push(Case::new(format!("det of {d}{x:?}"), Det {}, vec![Some(random(d, x, 4))]).within(tolerance));
        }
        for normal in [true, false] {
            let op = Random { dtype: d, normal, low: 2.0, span: 3.0, seed: Some(5.0), salt: 0 };
            let name = format!("random normal {normal} {d}");
            let case = Case::new(name, op, vec![Some(Tensor::from_slice(&[2], &[33i64, 47]))]);
            // One unit in the last place, where the functions of host and device differ in theirs.
            out.push(case.within(if d == DType::BF16 { 8e-3 } else { 1e-3 }));
        }
    }
    for mode in TfIdfMode::ALL {
        for (x, max_skip) in [(&[12][..], 0i64), (&[3, 9], 2), (&[2, 1], 5), (&[2, 0], 0)] {
            let v: Vec<i64> = values(x.iter().product(), 3).iter().map(|v| (v * 2.0).round() as i64).collect();
            let inputs = vec![
                Some(Tensor::from_slice(x, &v)),
                Some(Tensor::from_slice(&[9], &[0i64, 1, 1, 2, 0, 0, -1, 0, 1])),
                Some(Tensor::from_slice(&[5, 3], &[0i64, 1, 2, 1, 1, 0, 2, 2, 3, 4, 2, 1, 6, 3, 5])),
                Some(Tensor::from_slice(&[5], &[0.5f32, 2.0, 3.0, 0.25, 7.0])),
            ];
            let name = format!("tfidf {} skip {max_skip} of {x:?}", mode.name());
            out.push(Case::new(name, TfIdf { mode: *mode, max_skip, columns: 7 }, inputs));
        }
    }
}

fn boxes(out: &mut Vec<Case>) {
    for center in [false, true] {
        for (batch, classes, n) in [(1, 1, 1), (2, 3, 50), (1, 2, 300), (1, 1, 9000), (1, 1, 0), (0, 2, 4)] {
            let b: Vec<f32> = values(batch * n * 4, 3)
                .chunks_exact(4)
                .flat_map(|v| match center {
                    true => [v[0] * 4.0, v[1] * 4.0, v[2].abs() + 0.1, v[3].abs() + 0.1],
                    false => [v[0] * 4.0, v[1] * 4.0, v[0] * 4.0 + v[2], v[1] * 4.0 + v[3]],
                })
                .collect();
            let boxes = Tensor::from_slice(&[batch, n, 4], &b);
            // Scores of which some are equal.
            let s: Vec<f32> = values(batch * classes * n, 8).iter().map(|v| (v * 64.0).round() / 64.0).collect();
            let scores = Tensor::from_slice(&[batch, classes, n], &s);
            for (most, limit, least) in [
                (Some(5i64), Some(0.3f32), Some(0.1f32)),
                (Some(1000), Some(0.5), None),
                (Some(3), None, None),
                (None, Some(0.5), None),
                (Some(i64::MAX), Some(1.0), Some(-2.0)),
            ] {
                if n > 1000 && most.is_some_and(|m| m > 1000) {
                    continue;
                }
                let inputs = vec![
                    Some(boxes.clone()),
                    Some(scores.clone()),
                    most.map(|v| Tensor::from_slice(&[1], &[v])),
                    limit.map(|v| Tensor::from_slice(&[1], &[v])),
                    least.map(|v| Tensor::scalar(v)),
                ];
                let name = format!("nms center {center} {most:?} {limit:?} {least:?} of {batch}x{classes}x{n}");
                out.push(Case::new(name, NonMaxSuppression { center }, inputs));
            }
        }
    }
}

pub fn cases() -> Vec<Case> {
    let mut out = Vec::new();
    gathers(&mut out);
    scatters(&mut out);
    sorts(&mut out);
    scans(&mut out);
    shapes(&mut out);
    boxes(&mut out);
    out
}
