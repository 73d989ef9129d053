//! Trees, support vector machines and tables of labels.

use super::Case;
use crate::ops::steps::random;
use sinter::base::{DType, Tensor};
use sinter::ops::label_encoder::LabelEncoder;
use sinter::ops::svm_kernel::{SvmFunction, SvmKernel};
use sinter::ops::svm_probability::SvmProbability;
use sinter::ops::tree_ensemble::{TreeAggregate, TreeEnsemble};

/// Numbers that look random, from 0 to `n` - 1.
fn pick(i: usize, n: usize) -> usize {
    (i.wrapping_mul(2_654_435_761) >> 7) % n.max(1)
}

const LEAF: i32 = 7;
const MISSING: i32 = 8;

/// Complete trees of a depth, parents in front of their children; every leaf has a weight for each target when `dense`,
/// else for one.
fn trees(aggregate: TreeAggregate, dtype: DType, rows: usize, features: usize, n_trees: usize, targets: usize, depth: u32, dense: bool) -> Case {
    let (mut nodes, mut splits, mut roots): (Vec<i32>, Vec<f64>, Vec<i32>) = (vec![], vec![], vec![]);
    let (mut ids, mut weights): (Vec<i32>, Vec<f64>) = (vec![], vec![]);
    let inner = (1usize << depth) - 1;
    for t in 0..n_trees {
        let base = splits.len();
        roots.push(base as i32);
        for i in 0..2 * inner + 1 {
            let seed = t * 101 + i;
            if i >= inner {
                let first = ids.len() as i32;
                let count = if dense { targets } else { 1 };
                nodes.extend([first, LEAF, count as i32, 0]);
                splits.push(0.0);
                for c in 0..count {
                    ids.push(if dense { c } else { (t + i) % targets } as i32);
                    weights.push((pick(seed + 7 * c, 2000) as f64 - 1000.0) / 512.0);
                }
                continue;
            }
            let mode = pick(seed, 6) as i32 + if seed % 3 == 0 { MISSING } else { 0 };
            nodes.extend([pick(seed + 3, features) as i32, mode, (base + 2 * i + 1) as i32, (base + 2 * i + 2) as i32]);
            splits.push(pick(seed + 5, 5) as f64 / 2.0 - 1.0);
        }
    }
    let x: Vec<f64> = (0..rows * features).map(|i| if pick(i, 11) == 0 { f64::NAN } else { pick(i + 1, 7) as f64 / 2.0 - 1.5 }).collect();
    let numbers = |shape: &[usize], v: &[f64]| Some(Tensor::from_slice(shape, v).cast(dtype));
    let table = |shape: &[usize], v: &[i32]| Some(Tensor::from_slice(shape, v));
    let inputs = vec![
        numbers(&[rows, features], &x),
        table(&[splits.len(), 4], &nodes),
        numbers(&[splits.len()], &splits),
        table(&[ids.len()], &ids),
        numbers(&[weights.len()], &weights),
        table(&[roots.len()], &roots),
    ];
    let name = format!("{} of {n_trees} trees, {rows} rows, {targets} targets, dense {dense}, {dtype}", aggregate.name());
    Case::new(name, TreeEnsemble { n_targets: targets as i64, aggregate }, inputs).within(if dtype == DType::F32 { 1e-5 } else { 1e-12 })
}

/// Nodes that lead out of the tables or back, and a feature that is not there: nothing comes of them.
fn broken() -> Case {
    let nodes = [0, 0, 9, 0, 5, 0, 2, 2, 0, LEAF, 4, 0, 0, 3, -1, 3];
    let inputs = vec![
        Some(Tensor::from_slice(&[2, 2], &[1f32, -1.0, 0.0, 2.0])),
        Some(Tensor::from_slice(&[4, 4], &nodes)),
        Some(Tensor::from_slice(&[4], &[0f32; 4])),
        Some(Tensor::from_slice(&[2], &[0i32, 9])),
        Some(Tensor::from_slice(&[2], &[1f32, 2.0])),
        Some(Tensor::from_slice(&[6], &[0i32, 1, 2, 3, -4, 77])),
    ];
    Case::new("tables that lead nowhere", TreeEnsemble { n_targets: 2, aggregate: TreeAggregate::Sum }, inputs)
}

fn machines(out: &mut Vec<Case>) {
    for function in SvmFunction::ALL.iter().copied() {
        for (rows, n, features) in [(5, 7, 3), (1, 1, 1), (0, 3, 2), (3, 0, 2), (2, 3, 0), (70, 33, 19)] {
            let op = SvmKernel { function, gamma: 0.25, coef0: 0.5, degree: 3.0 };
            let inputs = vec![Some(random(DType::F32, &[rows, features], 1)), Some(random(DType::F32, &[n, features], 2))];
            out.push(Case::new(format!("{} {rows} x {n} x {features}", function.name()), op, inputs).within(1e-5));
        }
    }
    for (rows, k) in [(4, 2), (300, 3), (0, 3), (2, 9)] {
        let pairs = k * (k - 1) / 2;
        let a = random(DType::F32, &[pairs], 3).to_f32s().iter().map(|v| -v.abs()).collect::<Vec<_>>();
        let inputs = vec![
            Some(random(DType::F32, &[rows, pairs], 2)),
            Some(Tensor::from_slice(&[pairs], &a)),
            Some(random(DType::F32, &[pairs], 4)),
        ];
        // The iteration ends at a tolerance of 0.005 / k.
        out.push(Case::new(format!("{rows} rows of {k} classes"), SvmProbability { n_classes: k }, inputs).within(2e-3));
    }
}

fn labels(out: &mut Vec<Case>) {
    let keys = [-3.0f64, -0.5, 0.0, 2.0, 100.0, f64::NAN];
    let x = [f64::NAN, -0.0, 2.0, 1.0, -3.0, 1e9, 100.0, -1e9, -0.5];
    for dtype in [DType::F32, DType::F64, DType::I16, DType::I32, DType::I64] {
        for value in [DType::F32, DType::F64, DType::I16, DType::I64, DType::U8] {
            let n = if dtype.is_float() { keys.len() } else { 0 };
            // Integers: the whole numbers among them.
            let list: Vec<f64> = if n > 0 { keys.to_vec() } else { vec![-3.0, 0.0, 2.0, 100.0] };
            let values: Vec<f64> = (0..=list.len()).map(|i| (3 * i + 1) as f64).collect();
            let finite = |v: &[f64]| v.iter().map(|v| if n > 0 || v.abs() < 1e4 { *v } else { 7.0 }).collect::<Vec<_>>();
            for count in [x.len(), 0] {
                let inputs = vec![
                    Some(Tensor::from_slice(&[count], &finite(&x[..count])).cast(dtype)),
                    Some(Tensor::from_slice(&[list.len()], &list).cast(dtype)),
                    Some(Tensor::from_slice(&[values.len()], &values).cast(value)),
                ];
                out.push(Case::new(format!("{count} of {dtype} to {value}"), LabelEncoder {}, inputs));
            }
        }
    }
    let empty = vec![
        Some(Tensor::from_slice(&[2, 1], &[1i64, 2])),
        Some(Tensor::from_slice::<i64>(&[0], &[])),
        Some(Tensor::from_slice(&[1], &[0.5f32])),
    ];
    out.push(Case::new("no keys", LabelEncoder {}, empty));
}

pub fn cases() -> Vec<Case> {
    let mut out = Vec::new();
    for aggregate in TreeAggregate::ALL.iter().copied() {
        for dtype in [DType::F32, DType::F64] {
            for (rows, n_trees, targets, depth) in [(1, 1, 1, 0), (5, 3, 1, 3), (70, 40, 3, 4), (0, 2, 2, 2), (3, 0, 2, 1), (2, 300, 5, 2)] {
                for dense in [false, true] {
                    out.push(trees(aggregate, dtype, rows, 4, n_trees, targets, depth, dense));
                }
            }
        }
    }
    out.push(broken());
    machines(&mut out);
    labels(&mut out);
    out
}
