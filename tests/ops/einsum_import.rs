//! Einsum, batch transposes of FusedMatMul, and the losses, against loops over all indices.

use super::node::node;
use super::steps::random;
use sinter::base::{DType, Tensor};
use std::collections::BTreeMap;

/// The sum over all letters, for equations without an ellipsis and with an explicit output.
fn naive(equation: &str, operands: &[Tensor]) -> (Vec<usize>, Vec<f64>) {
    let (left, right) = equation.split_once("->").expect("an explicit output");
    let terms: Vec<Vec<char>> = left.split(',').map(|t| t.chars().collect()).collect();
    let mut sizes: BTreeMap<char, usize> = BTreeMap::new();
    for (t, x) in terms.iter().zip(operands) {
        t.iter().zip(x.shape()).for_each(|(c, n)| {
            sizes.insert(*c, *n);
        });
    }
    let letters: Vec<char> = sizes.keys().copied().collect();
    let values: Vec<Vec<f64>> = operands.iter().map(|x| x.to_f64s()).collect();
    let at = |index: &[usize], term: &[char]| {
        term.iter().fold(0, |at, c| at * sizes[c] + index[letters.iter().position(|l| l == c).expect("a letter")])
    };
    let output: Vec<char> = right.chars().collect();
    let shape: Vec<usize> = output.iter().map(|c| sizes[c]).collect();
    let mut out = vec![0.0; shape.iter().product()];
    let total: usize = sizes.values().product();
    for n in 0..total {
        let mut rest = n;
        let mut index = vec![0; letters.len()];
        for (i, c) in letters.iter().enumerate().rev() {
            index[i] = rest % sizes[c];
            rest /= sizes[c];
        }
        let product: f64 = terms.iter().zip(&values).map(|(t, v)| v[at(&index, t)]).product();
        out[at(&index, &output)] += product;
    }
    (shape, out)
}

#[test]
fn equations_are_what_they_say() {
    let cases: &[(&str, &[&[usize]])] = &[
        ("ij,jk->ik", &[&[2, 3], &[3, 4]]),
        ("ji,kj->ik", &[&[3, 2], &[4, 3]]),
        ("ii->i", &[&[4, 4]]),
        ("ii->", &[&[4, 4]]),
        ("iji->j", &[&[3, 2, 3]]),
        ("iij,jk->ik", &[&[3, 3, 2], &[2, 4]]),
        ("ijk->kji", &[&[2, 3, 4]]),
        ("ijk->j", &[&[2, 3, 4]]),
        ("i,j->ij", &[&[3], &[4]]),
        ("i,j->", &[&[3], &[4]]),
        ("bij,bjk->bik", &[&[2, 3, 4], &[2, 4, 5]]),
        ("abij,bcjk->acik", &[&[2, 3, 2, 3], &[3, 2, 3, 2]]),
        ("bqhd,bkhd->bhqk", &[&[2, 3, 2, 5], &[2, 4, 2, 5]]),
        ("ab,bc,cd->ad", &[&[2, 3], &[3, 4], &[4, 5]]),
        ("a,ab,b->", &[&[2], &[2, 3], &[3]]),
        ("ij,ij->i", &[&[2, 3], &[2, 3]]),
        ("ij,ij->ji", &[&[2, 3], &[2, 3]]),
        ("ij,jk->ik", &[&[2, 0], &[0, 3]]),
    ];
    for (equation, shapes) in cases {
        for d in [DType::F32, DType::I64, DType::I8] {
            let operands: Vec<Tensor> = shapes.iter().enumerate().map(|(i, s)| small(d, s, i as u64)).collect();
            let inputs: Vec<Option<Tensor>> = operands.iter().cloned().map(Some).collect();
            let y = node("Einsum", 12).string("equation", equation).run(&inputs).unwrap_or_else(|e| panic!("{equation}: {e}"));
            let (shape, want) = naive(equation, &operands);
            assert_eq!((y[0].shape(), y[0].dtype()), (&shape[..], d), "{equation}");
            for (g, w) in y[0].to_f64s().iter().zip(&want) {
                assert!((g - w).abs() <= 1e-4 * w.abs().max(1.0), "{equation} of {d}: expected {w}, got {g}");
            }
        }
    }
}

/// Numbers whose sums of products fit 8 bits.
fn small(d: DType, shape: &[usize], seed: u64) -> Tensor {
    match d {
        DType::F32 => random(d, shape, seed),
        _ => {
            let v: Vec<f32> = random(DType::F32, shape, seed).to_f32s().iter().map(|v| (v * 2.0).round().clamp(-1.0, 1.0)).collect();
            Tensor::from_slice(shape, &v).cast(d)
        }
    }
}

#[test]
fn an_ellipsis_broadcasts_and_an_absent_output_is_in_order() {
    let (a, b) = (random(DType::F32, &[2, 1, 3, 4], 1), random(DType::F32, &[5, 4, 2], 2));
    let run = |equation: &str, inputs: &[&Tensor]| {
        let inputs: Vec<Option<Tensor>> = inputs.iter().map(|t| Some((*t).clone())).collect();
        node("Einsum", 12).string("equation", equation).run(&inputs).unwrap_or_else(|e| panic!("{equation}: {e}")).remove(0)
    };
    let y = run("...ij, ...jk", &[&a, &b]);
    assert_eq!(y.shape(), [2, 5, 3, 2]);
    let want = node("MatMul", 13).run(&[Some(a.clone()), Some(b.clone())]).unwrap().remove(0);
    for (g, w) in y.to_f32s().iter().zip(want.to_f32s()) {
        assert!((g - w).abs() < 1e-5);
    }
    let x = random(DType::F32, &[2, 3], 3);
    assert!(run("ba", &[&x]).same(&run("ij->ji", &[&x])));
    assert!(run("i...->...i", &[&x]).same(&run("ij->ji", &[&x])));
    for wrong in ["ij", "ij,jk->i", "ab->abc", "a.b", "ij->ii", "é"] {
        let inputs = [Some(random(DType::F32, &[2, 3, 4], 4))];
        assert!(node("Einsum", 12).string("equation", wrong).run(&inputs).is_err(), "{wrong}");
    }
}

#[test]
fn losses_pick_the_target_and_leave_out_what_is_ignored() {
    let x = random(DType::F32, &[3, 5, 2], 7);
    let target = Tensor::from_slice(&[3, 2], &[0i64, 4, 2, -1, 1, 1]);
    let weight = Tensor::from_slice(&[5], &[0.5f32, 1.5, 2.0, 1.0, 0.25]);
    let (v, t, w) = (x.to_f64s(), target.to_i64s(), weight.to_f64s());
    let mut each = Vec::new();
    let mut total = 0.0;
    for (i, t) in t.iter().enumerate() {
        let (n, k) = (i / 2, i % 2);
        let at = |c: usize| v[(n * 5 + c) * 2 + k];
        match usize::try_from(*t) {
            Ok(c) => {
                let log = at(c) - (0..5).map(|c| at(c).exp()).sum::<f64>().ln();
                each.push(-log * w[c]);
                total += w[c];
            }
            Err(_) => each.push(0.0),
        }
    }
    let sum: f64 = each.iter().sum();
    for (reduction, want) in [("none", each.clone()), ("sum", vec![sum]), ("mean", vec![sum / total])] {
        let inputs = [Some(x.clone()), Some(target.clone()), Some(weight.clone())];
        let n = node("SoftmaxCrossEntropyLoss", 13).string("reduction", reduction).int("ignore_index", -1).outputs(2);
        let out = n.run(&inputs).unwrap_or_else(|e| panic!("{reduction}: {e}"));
        for (g, w) in out[0].to_f64s().iter().zip(&want) {
            assert!((g - w).abs() < 1e-5, "{reduction}: expected {w}, got {g}");
        }
        let again = [Some(out[1].clone()), Some(target.clone()), Some(weight.clone())];
        let n = node("NegativeLogLikelihoodLoss", 13).string("reduction", reduction).int("ignore_index", -1);
        assert!(n.run(&again).unwrap()[0].same(&out[0]), "{reduction}");
    }
}
