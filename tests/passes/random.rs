//! Random graphs: any subset of passes gives the same numbers.

use super::*;
use sinter::base::Result;
use sinter::ops::concat::Concat;
use sinter::ops::expand::Expand;
use sinter::ops::gather::Gather;
use sinter::ops::pad::{Pad, PadMode};
use sinter::ops::pool::{Pool, PoolKind};
use sinter::ops::reduce::{Reduce, ReduceKind};
use sinter::ops::reshape::{Reshape, ReshapeMode};
use sinter::ops::shape::Shape as ShapeOf;
use sinter::ops::slice::Slice;
use sinter::ops::softmax::Softmax;
use sinter::ops::transpose::Transpose;
use sinter::passes::{portable_passes, run_portable, run_target, target_passes};

/// Chains of up to thirty f32 steps, normalized often enough that values stay near one.
const CHAIN_ROUNDING: f64 = 2e-4;

/// A graph of about `n` nodes over values of rank 4 with a symbolic batch.
pub fn random_graph(seed: u64, n: usize) -> Graph {
    let mut b = Build { g: Graph::new("random"), rng: Rng(seed) };
    let first = b.input("x", &["n".into(), 4.into(), 6.into(), 6.into()]);
    let second = b.input("z", &["n".into(), 4.into(), 6.into(), 6.into()]);
    let mut values = vec![first, second];
    for i in 0..n {
        // Recent values more often, so that chains form; old ones too, so that results are shared.
        let at = if b.rng.below(3) > 0 { values.len() - 1 - b.rng.below(values.len().min(3)) } else { b.rng.below(values.len()) };
        let v = values[at];
        let twin = values.iter().rev().copied().find(|w| *w != v && b.g.fact(*w).shape == b.g.fact(v).shape);
        if let Ok(v) = step(&mut b, &format!("n{i}"), v, twin) {
            values.push(v);
        }
    }
    let unread: Vec<ValueId> = values.into_iter().filter(|v| b.g.value(*v).consumers.is_empty()).collect();
    for (i, v) in unread.into_iter().enumerate() {
        if b.g.value(v).producer.is_some() {
            b.g.add_output(&format!("y{i}"), v).unwrap();
        }
    }
    b.g.verify().unwrap();
    b.g
}

/// One random operation on `v`, and on `twin` of the same shape; fails where it does not fit the shape.
fn step(b: &mut Build, name: &str, v: ValueId, twin: Option<ValueId>) -> Result<ValueId> {
    let add = |b: &mut Build, op: Op, ins: &[ValueId]| -> Result<ValueId> {
        let ins: Vec<_> = ins.iter().map(|v| Some(*v)).collect();
        Ok(b.g.add_node(name, op, &ins)?[0])
    };
    let single = |f: Func| -> Op { Pointwise { program: Program::single(f, &vec![DType::F32; f.arity()]).unwrap() }.into() };
    let size = |b: &Build, axis: usize| b.g.fact(v).shape.get(axis).and_then(|d| d.as_const()).unwrap_or(1) as usize;
    let twin = twin.unwrap_or(v);
    let window = |kind| Pool {
        kind,
        kernel: vec![2, 2],
        strides: vec![1, 1],
        pads: vec![0; 4],
        dilations: vec![1, 1],
        auto_pad: AutoPad::NotSet,
        ceil_mode: false,
        count_include_pad: false,
        p: 2,
        indices: false,
        storage_order: 0,
        order: Default::default(),
    };
    let (one_of_2, one_of_3) = (b.rng.below(2), b.rng.below(3));
    match b.rng.below(22) {
        0 => add(b, single(Func::Relu), &[v]),
        1 => add(b, single(Func::Tanh), &[v]),
        2 => {
            let s = add(b, single(Func::Sigmoid), &[v])?;
            add(b, single(Func::Mul), &[s, v])
        }
        3 => add(b, single([Func::Add, Func::Sub, Func::Max][one_of_3]), &[v, twin]),
        4 => {
            let c = [vec![], vec![1], vec![size(b, 1), 1, 1], vec![size(b, 3)]][b.rng.below(4)].clone();
            let c = b.c(&c);
            add(b, single([Func::Add, Func::Mul, Func::Sub][one_of_3]), &[v, c])
        }
        5 | 6 => {
            let (c, k) = (size(b, 1), [1, 3][b.rng.below(2)]);
            let w = b.c(&[4, c, k, k]);
            let quiet = b.num(0.2);
            let w = add(b, single(Func::Mul), &[w, quiet])?;
            add(b, conv2d((k / 2) as i64 * one_of_2 as i64).into(), &[v, w])
        }
        7 => {
            let c = size(b, 1);
            let (s, t) = (b.c(&[c, 1, 1]), b.c(&[c, 1, 1]));
            let m = add(b, single(Func::Mul), &[v, s])?;
            add(b, single(Func::Add), &[m, t])
        }
        8 => {
            let k = size(b, 3);
            let (w, bias, quiet) = (b.c(&[k, 6]), b.c(&[6]), b.num(0.3));
            let m = add(b, matmul().into(), &[v, w])?;
            let m = add(b, single(Func::Mul), &[m, quiet])?;
            add(b, single(Func::Add), &[m, bias])
        }
        9 | 10 => {
            let perm = [[0, 2, 3, 1], [0, 3, 1, 2], [0, 1, 3, 2]][one_of_3].to_vec();
            add(b, Transpose { perm }.into(), &[v])
        }
        11 => add(b, window([PoolKind::Max, PoolKind::Average][one_of_2]).into(), &[v]),
        12 => {
            let pads = b.ints(&[0, 0, 1, 1, 0, 0, 0, 1]);
            add(b, Pad { mode: PadMode::Constant }.into(), &[v, pads])
        }
        13 => add(b, Concat { axis: [1, -1][one_of_2] }.into(), &[v, twin]),
        14 => {
            let (s, e, a) = (b.ints(&[0, 1]), b.ints(&[3, i64::MAX]), b.ints(&[1, -1]));
            add(b, Slice {}.into(), &[v, s, e, a])
        }
        15 => {
            let axes = Some([vec![1], vec![-1], vec![2, 3]][one_of_3].clone());
            let mean = Reduce {
                kind: [ReduceKind::Mean, ReduceKind::Max][one_of_2],
                axes,
                keepdims: true,
                noop_with_empty_axes: false,
                select_last_index: false,
            };
            let m = add(b, mean.into(), &[v])?;
            add(b, single(Func::Sub), &[v, m])
        }
        16 => add(b, Softmax { axis: [1, -1][one_of_2], log: false, flatten: false }.into(), &[v]),
        17 => {
            let flat = Reshape { mode: ReshapeMode::Shape, spec: Some(vec![0, 0, -1]), allow_zero: false };
            let f = add(b, flat.into(), &[v])?;
            let (h, w) = (size(b, 2) as i64, size(b, 3) as i64);
            let back = Reshape { mode: ReshapeMode::Shape, spec: Some(vec![0, 0, h, w]), allow_zero: false };
            add(b, back.into(), &[f])
        }
        18 => {
            // Shape arithmetic: expand [c,1,1] to the shape of v.
            let s = add(b, ShapeOf { start: 0, end: None, size: false }.into(), &[v])?;
            let c = size(b, 1);
            let c = b.c(&[c, 1, 1]);
            let e = add(b, Expand {}.into(), &[c, s])?;
            add(b, single(Func::Add), &[v, e])
        }
        19 => {
            let i = b.ints(&[0, 2, 1]);
            add(b, Gather { axis: 1 }.into(), &[v, i])
        }
        20 => {
            // Attention in little: v * v^T / 4 over the last two axes.
            let t = add(b, Transpose { perm: vec![0, 1, 3, 2] }.into(), &[v])?;
            let q = b.num(0.25);
            let s = add(b, single(Func::Mul), &[v, q])?;
            let m = add(b, matmul().into(), &[s, t])?;
            add(b, single(Func::Tanh), &[m])
        }
        _ => {
            let [three, zero, six] = [3.0, 0.0, 6.0].map(|x| b.num(x));
            let a = add(b, single(Func::Add), &[v, three])?;
            let c = add(b, single(Func::Clip), &[a, zero, six])?;
            let d = add(b, single(Func::Div), &[c, six])?;
            add(b, single(Func::Mul), &[v, d])
        }
    }
}

fn all_off(options: &PassOptions) -> Vec<String> {
    portable_passes().iter().chain(&target_passes(options)).map(|p| p.name().to_string()).collect()
}

fn rewritten(g: &Graph, options: &PassOptions) -> Graph {
    let mut g = g.clone();
    run_portable(&mut g, options).and_then(|_| run_target(&mut g, options)).unwrap_or_else(|e| panic!("{e}\n{g}"));
    g
}

#[test]
fn all_passes_and_none_give_the_same_numbers() {
    let options = PassOptions::new(Target::Cpu);
    for seed in 0..40 {
        let g = random_graph(seed, 24);
        assert_same(&g, &rewritten(&g, &options), CHAIN_ROUNDING);
    }
}

#[test]
fn any_subset_of_passes_gives_the_same_numbers() {
    let mut options = PassOptions::new(Target::Cpu);
    let names = all_off(&options);
    let mut rng = Rng(99);
    for seed in 100..130 {
        let g = random_graph(seed, 20);
        options.skip = names.iter().filter(|_| rng.below(2) == 0).cloned().collect();
        options.stop_after = (rng.below(4) == 0).then(|| rng.below(20));
        assert_same(&g, &rewritten(&g, &options), CHAIN_ROUNDING);
    }
}

#[test]
fn all_passes_off_change_nothing() {
    let mut options = PassOptions::new(Target::Cpu);
    options.skip = all_off(&options);
    let g = random_graph(5, 24);
    assert_eq!(rewritten(&g, &options).to_string(), g.to_string());
}

#[test]
fn every_graph_survives_lower_precision() {
    let options = PassOptions { fp16: true, ..PassOptions::new(Target::Cuda { sm: 90 }) };
    for seed in 200..220 {
        let g = random_graph(seed, 20);
        // Chains of f16 roundings through sums of dozens of terms.
        assert_same(&g, &rewritten(&g, &options), 0.1);
    }
}
