//! `recognize_attention` and `merge_siblings`: the spellings of exporters, what remains around the node, refusals.

use super::*;
use sinter::ops::attention::{Attention, Packed};
use sinter::ops::expand::Expand;
use sinter::ops::gather::Gather;
use sinter::ops::reshape::{Reshape, ReshapeMode};
use sinter::ops::slice::Slice;
use sinter::ops::softmax::Softmax;
use sinter::ops::transpose::Transpose;
use sinter::passes::{MergeSiblings, RecognizeAttention, portable_passes};

const HEADS: i64 = 2;
const SIZE: i64 = 8;
const WIDTH: usize = 16;

fn t(b: &mut Build, perm: &[i64], x: ValueId) -> ValueId {
    let name = format!("transpose{}", b.g.n_nodes());
    b.node(&name, Transpose { perm: perm.to_vec() }, &[x])
}

fn reshape(b: &mut Build, spec: &[i64], x: ValueId) -> ValueId {
    let name = format!("reshape{}", b.g.n_nodes());
    b.node(&name, Reshape { mode: ReshapeMode::Shape, spec: Some(spec.to_vec()), allow_zero: false }, &[x])
}

fn softmax(b: &mut Build, x: ValueId) -> ValueId {
    b.node("softmax", Softmax { axis: -1, log: false, flatten: false }, &[x])
}

fn linear(b: &mut Build, name: &str, x: ValueId, width: usize, has_bias: bool) -> ValueId {
    let w = b.c(&[b.g.fact(x).shape.0.last().unwrap().as_const().unwrap() as usize, width]);
    let y = b.node(name, matmul(), &[x, w]);
    if !has_bias {
        return y;
    }
    let bias = b.c(&[width]);
    b.pw(&format!("{name}_bias"), Func::Add, &[bias, y])
}

/// [batch, length, WIDTH] with symbols.
fn tokens(b: &mut Build, name: &str, length: &str) -> ValueId {
    b.input(name, &["b".into(), length.into(), (WIDTH as i64).into()])
}

/// [batch, length, heads, size], transposed.
fn heads(b: &mut Build, x: ValueId, perm: &[i64]) -> ValueId {
    let x = reshape(b, &[0, 0, HEADS, SIZE], x);
    t(b, perm, x)
}

fn merge_heads(b: &mut Build, y: ValueId) -> ValueId {
    let y = t(b, &[0, 2, 1, 3], y);
    reshape(b, &[0, 0, WIDTH as i64], y)
}

fn op(g: &Graph) -> Attention {
    let Op::Attention(a) = &the(g, "Attention").op else { unreachable!() };
    a.clone()
}

/// The whole portable list leaves one attention node of these packed operands and `n_products` products, no transpose,
/// no element-wise node.
fn all(g: &Graph, packed: Packed, n_products: usize) -> Graph {
    let after = run(g, portable_passes()).0;
    assert_eq!(op(&after).packed, packed, "{after}");
    assert_eq!((count(&after, "MatMul"), count(&after, "Transpose"), count(&after, "Softmax")), (n_products, 0, 0), "{after}");
    after
}

#[test]
fn the_eager_spelling_with_a_mask_of_padding() {
    for divides in [true, false] {
        let mut b = Build::new();
        let x = tokens(&mut b, "x", "s");
        let mask = b.input("mask", &["b".into(), 1.into(), 1.into(), "s".into()]);
        let [q, k, v] = ["q", "k", "v"].map(|n| linear(&mut b, n, x, WIDTH, true));
        let (q, k, v) = (heads(&mut b, q, &[0, 2, 1, 3]), heads(&mut b, k, &[0, 2, 3, 1]), heads(&mut b, v, &[0, 2, 1, 3]));
        let s = b.node("qk", matmul(), &[q, k]);
        let c = b.num(if divides { 8f32.sqrt() } else { 1.0 / 8f32.sqrt() });
        let s = b.pw("scale", if divides { Func::Div } else { Func::Mul }, &[s, c]);
        let s = b.pw("masked", Func::Add, &[s, mask]);
        let w = softmax(&mut b, s);
        let y = b.node("wv", matmul(), &[w, v]);
        let y = merge_heads(&mut b, y);
        let y = linear(&mut b, "out", y, WIDTH, false);
        let g = all(&b.out(y), Packed::Qkv, 2);
        let a = op(&g);
        assert_eq!((a.q_heads, a.kv_heads), (HEADS, HEADS));
        assert!((a.scale.unwrap() - 1.0 / 8f32.sqrt()).abs() < 1e-6);
        assert_eq!(count(&g, "Reshape"), 0, "{g}");
    }
}

#[test]
fn factors_on_both_operands_and_a_guard_against_nan() {
    let mut b = Build::new();
    let (x, z) = (tokens(&mut b, "x", "s"), tokens(&mut b, "z", "t"));
    let q = linear(&mut b, "q", x, WIDTH, true);
    let (k, v) = (linear(&mut b, "k", z, WIDTH, false), linear(&mut b, "v", z, WIDTH, true));
    let (q, k, v) = (heads(&mut b, q, &[0, 2, 1, 3]), heads(&mut b, k, &[0, 2, 1, 3]), heads(&mut b, v, &[0, 2, 1, 3]));
    let root = b.num(8f32.powf(-0.25));
    let q = b.pw("sq", Func::Mul, &[q, root]);
    let k = t(&mut b, &[0, 1, 3, 2], k);
    let k = b.pw("sk", Func::Mul, &[k, root]);
    let s = b.node("qk", matmul(), &[q, k]);
    let mask = b.c(&[1, 1]);
    let (low, never, zero) = (b.num(-2.0), b.num(f32::NEG_INFINITY), b.num(0.0));
    let keep = b.pw("keep", Func::Greater, &[mask, low]);
    let s = b.pw("where", Func::Select, &[keep, s, never]);
    let w = softmax(&mut b, s);
    let nan = b.pw("nan", Func::IsNan, &[w]);
    let w = b.pw("guard", Func::Select, &[nan, zero, w]);
    let y = b.node("wv", matmul(), &[w, v]);
    let y = merge_heads(&mut b, y);
    // q has a product of its own; keys and values share one, and keys get a bias of zeros.
    let g = all(&b.out(y), Packed::Kv, 2);
    assert!((op(&g).scale.unwrap() - 1.0 / 8f32.sqrt()).abs() < 1e-6);
}

#[test]
fn one_product_cut_apart_and_a_causal_mask_that_replaces() {
    let mut b = Build::new();
    let x = b.x(&[2, 5, WIDTH]);
    let qkv = linear(&mut b, "qkv", x, 3 * WIDTH, true);
    let axis = b.ints(&[-1]);
    let part = |b: &mut Build, i: i64| {
        let (from, to) = (b.ints(&[i * WIDTH as i64]), b.ints(&[(i + 1) * WIDTH as i64]));
        let x = b.node(&format!("part{i}"), Slice {}, &[qkv, from, to, axis]);
        heads(b, x, &[0, 2, 1, 3])
    };
    let (q, k, v) = (part(&mut b, 0), part(&mut b, 1), part(&mut b, 2));
    let k = t(&mut b, &[0, 1, 3, 2], k);
    let s = b.node("qk", matmul(), &[q, k]);
    let c = b.num(8f32.sqrt());
    let s = b.pw("scale", Func::Div, &[s, c]);
    let lower: Vec<bool> = (0..25).map(|i| i % 5 <= i / 5).collect();
    let mask = b.k(Tensor::from_slice(&[1, 1, 5, 5], &lower));
    let low = b.num(f32::MIN);
    let s = b.pw("where", Func::Select, &[mask, s, low]);
    let w = softmax(&mut b, s);
    let y = b.node("wv", matmul(), &[w, v]);
    let y = merge_heads(&mut b, y);
    let g = all(&b.out(y), Packed::Qkv, 1);
    assert_eq!(count(&g, "Slice"), 0, "{g}");
}

#[test]
fn one_product_with_an_axis_for_q_k_and_v() {
    for by_gather in [true, false] {
        let mut b = Build::new();
        let x = tokens(&mut b, "x", "s");
        let qkv = linear(&mut b, "qkv", x, 3 * WIDTH, true);
        let qkv = reshape(&mut b, &[0, 0, 3, HEADS, SIZE], qkv);
        let qkv = t(&mut b, &[2, 0, 3, 1, 4], qkv);
        let part = |b: &mut Build, i: i64| {
            if by_gather {
                let at = b.k(Tensor::scalar(i));
                return b.node(&format!("part{i}"), Gather { axis: 0 }, &[qkv, at]);
            }
            let (from, to, axis) = (b.ints(&[i]), b.ints(&[i + 1]), b.ints(&[0]));
            let x = b.node(&format!("part{i}"), Slice {}, &[qkv, from, to, axis]);
            b.node(&format!("squeeze{i}"), Reshape { mode: ReshapeMode::Squeeze, spec: Some(vec![0]), allow_zero: false }, &[x])
        };
        let (q, k, v) = (part(&mut b, 0), part(&mut b, 1), part(&mut b, 2));
        let c = b.num(0.35);
        let q = b.pw("scale", Func::Mul, &[q, c]);
        let k = t(&mut b, &[0, 1, 3, 2], k);
        let s = b.node("qk", matmul(), &[q, k]);
        let bias = b.c(&[HEADS as usize, 1, 1]);
        let s = b.pw("bias", Func::Add, &[s, bias]);
        let w = softmax(&mut b, s);
        let y = b.node("wv", matmul(), &[w, v]);
        let y = merge_heads(&mut b, y);
        let g = all(&b.out(y), Packed::Qkv, 1);
        assert_eq!((count(&g, "Gather"), count(&g, "Slice")), (0, 0), "{g}");
    }
}

#[test]
fn keys_and_values_repeated_for_groups_of_heads() {
    let mut b = Build::new();
    let (batch, len) = (2, 5);
    let x = b.x(&[batch, 4, len, 8]);
    let (k, v) = (b.x(&[batch, 2, len, 8]), b.x(&[batch, 2, len, 8]));
    let repeat = |b: &mut Build, x: ValueId, name: &str| {
        let x = b.node(&format!("{name}_axis"), Reshape { mode: ReshapeMode::Unsqueeze, spec: Some(vec![2]), allow_zero: false }, &[x]);
        let dims = b.ints(&[batch as i64, 2, 2, len as i64, 8]);
        let x = b.node(&format!("{name}_all"), Expand {}, &[x, dims]);
        reshape(b, &[batch as i64, 4, len as i64, 8], x)
    };
    let (k, v) = (repeat(&mut b, k, "k"), repeat(&mut b, v, "v"));
    let k = t(&mut b, &[0, 1, 3, 2], k);
    let s = b.node("qk", matmul(), &[x, k]);
    let c = b.num(0.35);
    let s = b.pw("scale", Func::Mul, &[s, c]);
    let w = softmax(&mut b, s);
    let y = b.node("wv", matmul(), &[w, v]);
    let y = t(&mut b, &[0, 2, 1, 3], y);
    let y = reshape(&mut b, &[0, 0, 32], y);
    let g = all(&b.out(y), Packed::No, 0);
    assert_eq!((count(&g, "Expand"), the(&g, "Attention").inputs.len()), (0, 3), "{g}");
}

/// As torch's module does it: length first, batch and heads one axis.
#[test]
fn length_first_with_batch_and_heads_as_one_axis() {
    let mut b = Build::new();
    let (x, z) = (b.x(&[5, 2, WIDTH]), b.x(&[7, 2, WIDTH]));
    let (q, k, v) = (linear(&mut b, "q", x, WIDTH, true), linear(&mut b, "k", z, WIDTH, true), linear(&mut b, "v", z, WIDTH, true));
    let q = reshape(&mut b, &[5, 4, 8], q);
    let q = t(&mut b, &[1, 0, 2], q);
    let k = reshape(&mut b, &[7, 4, 8], k);
    let k = t(&mut b, &[1, 2, 0], k);
    let v = reshape(&mut b, &[7, 4, 8], v);
    let v = t(&mut b, &[1, 0, 2], v);
    let c = b.num(8f32.sqrt());
    let q = b.pw("scale", Func::Div, &[q, c]);
    let s = b.node("qk", matmul(), &[q, k]);
    let mask = b.c(&[4, 1, 7]);
    let s = b.pw("masked", Func::Add, &[s, mask]);
    let w = softmax(&mut b, s);
    let y = b.node("wv", matmul(), &[w, v]);
    let y = t(&mut b, &[1, 0, 2], y);
    let y = reshape(&mut b, &[5, 2, WIDTH as i64], y);
    let after = run(&b.out(y), portable_passes()).0;
    assert_eq!((count(&after, "Attention"), count(&after, "Transpose")), (1, 0), "{after}");
    assert_eq!(op(&after).q_heads, 4);
}

/// Scores of rank 3 that are masked at rank 4.
#[test]
fn one_axis_of_batch_and_heads_is_two_again() {
    let mut b = Build::new();
    let (batch, len) = (2, 5);
    let x = b.x(&[batch, len, WIDTH]);
    let part = |b: &mut Build, name: &str| {
        let x = linear(b, name, x, WIDTH, true);
        let x = heads(b, x, &[0, 2, 1, 3]);
        reshape(b, &[4, len as i64, SIZE], x)
    };
    let (q, k, v) = (part(&mut b, "q"), part(&mut b, "k"), part(&mut b, "v"));
    let k = t(&mut b, &[0, 2, 1], k);
    let s = b.node("qk", matmul(), &[q, k]);
    let s = reshape(&mut b, &[2, 2, 5, 5], s);
    let mask = b.x(&[batch, 1, len, len]);
    let s = b.pw("masked", Func::Add, &[s, mask]);
    let s = reshape(&mut b, &[4, 5, 5], s);
    let w = softmax(&mut b, s);
    let y = b.node("wv", matmul(), &[w, v]);
    let y = reshape(&mut b, &[2, 2, 5, 8], y);
    let y = merge_heads(&mut b, y);
    all(&b.out(y), Packed::Qkv, 1);
}

/// Windows: a bias of heads, then a mask of windows at rank 5.
#[test]
fn masks_of_windows_and_heads() {
    let mut b = Build::new();
    let (batch, windows, len) = (2, 3, 4);
    let n = batch * windows;
    let [q, k, v] = [0; 3].map(|_| b.x(&[n, HEADS as usize, len, 8]));
    let k = t(&mut b, &[0, 1, 3, 2], k);
    let s = b.node("qk", matmul(), &[q, k]);
    let bias = b.c(&[1, HEADS as usize, len, len]);
    let s = b.pw("bias", Func::Add, &[s, bias]);
    let s = reshape(&mut b, &[2, 3, HEADS, 4, 4], s);
    let mask = b.c(&[1, windows, 1, len, len]);
    let s = b.pw("windows", Func::Add, &[s, mask]);
    let s = reshape(&mut b, &[6, HEADS, 4, 4], s);
    let w = softmax(&mut b, s);
    let y = b.node("wv", matmul(), &[w, v]);
    let y = b.pw("relu", Func::Relu, &[y]);
    let g = run(&b.out(y), portable_passes()).0;
    assert_eq!((count(&g, "Attention"), count(&g, "MatMul")), (1, 0), "{g}");
}

#[test]
fn a_cap_and_scores_of_rank_two() {
    let mut b = Build::new();
    let (q, k, v) = (b.x(&[5, 8]), b.x(&[7, 8]), b.x(&[7, 4]));
    let s = b.node("qk", MatMul { trans_b: true, alpha: 0.4, ..matmul() }, &[q, k]);
    let c = b.num(3.0);
    let s = b.pw("down", Func::Div, &[s, c]);
    let s = b.pw("tanh", Func::Tanh, &[s]);
    let s = b.pw("up", Func::Mul, &[s, c]);
    let mask = b.c(&[1, 7]);
    let s = b.pw("masked", Func::Sub, &[s, mask]);
    let w = softmax(&mut b, s);
    let y = b.node("wv", matmul(), &[w, v]);
    let y = b.pw("relu", Func::Relu, &[y]);
    let g = run(&b.out(y), vec![Box::new(RecognizeAttention)]).0;
    let a = op(&g);
    assert!((a.softcap - 3.0).abs() < 1e-6 && (a.scale.unwrap() - 0.4).abs() < 1e-6, "{a:?}");
    assert_eq!(count(&g, "MatMul"), 0);
}

/// Reshapes in front of products of rank 3 that are no heads of rank 4, and sizes that are symbols.
#[test]
fn operands_of_rank_three_from_elsewhere() {
    let mut b = Build::new();
    let (q, k) = (b.x(&[10, 8]), b.x(&[2, 1, 5, 4, 2]));
    let v = b.input("v", &[2.into(), 5.into(), 3.into()]);
    let (q, k) = (reshape(&mut b, &[2, 5, 8], q), reshape(&mut b, &[2, 5, 8], k));
    let k = t(&mut b, &[0, 2, 1], k);
    let s = b.node("qk", matmul(), &[q, k]);
    let w = softmax(&mut b, s);
    let y = b.node("wv", matmul(), &[w, v]);
    let y = b.pw("relu", Func::Relu, &[y]);
    assert_eq!(count(&run(&b.out(y), portable_passes()).0, "Attention"), 1);

    let mut b = Build::new();
    let [q, k, v] = ["q", "k", "v"].map(|n| b.input(n, &["b".into(), "t".into(), 8.into()]));
    let k = t(&mut b, &[0, 2, 1], k);
    let s = b.node("qk", matmul(), &[q, k]);
    let w = softmax(&mut b, s);
    let y = b.node("wv", matmul(), &[w, v]);
    let y = b.pw("relu", Func::Relu, &[y]);
    let g = run(&b.out(y), portable_passes()).0;
    assert_eq!((count(&g, "Attention"), count(&g, "MatMul")), (1, 0), "{g}");
}

/// q [2,2,5,8], k [2,2,8,5], v [2,2,5,8] and what is done to the scores and to the weights.
fn small(
    scores: impl FnOnce(&mut Build, ValueId) -> ValueId,
    weights: impl FnOnce(&mut Build, ValueId, ValueId) -> ValueId,
) -> Graph {
    let mut b = Build::new();
    let (q, k, v) = (b.x(&[2, 2, 5, 8]), b.x(&[2, 2, 8, 5]), b.x(&[2, 2, 5, 8]));
    let s = b.node("qk", matmul(), &[q, k]);
    let s = scores(&mut b, s);
    let w = b.node("softmax", Softmax { axis: 3, log: false, flatten: false }, &[s]);
    let y = weights(&mut b, w, v);
    let y = b.pw("relu", Func::Relu, &[y]);
    b.out(y)
}

fn product(b: &mut Build, w: ValueId, v: ValueId) -> ValueId {
    b.node("wv", matmul(), &[w, v])
}

#[test]
fn what_is_no_attention_stays_with_a_reason() {
    let read_twice = small(
        |_, s| s,
        |b, w, v| {
            let y = product(b, w, v);
            let z = b.pw("more", Func::Neg, &[w]);
            let z = product(b, z, v);
            b.pw("both", Func::Add, &[y, z])
        },
    );
    refused(&read_twice, RecognizeAttention, "read elsewhere");
    let replaced = |low: f32| {
        move |b: &mut Build, s: ValueId| {
            let (mask, half, low) = (b.c(&[5]), b.num(0.0), b.num(low));
            let keep = b.pw("keep", Func::Less, &[mask, half]);
            b.pw("where", Func::Select, &[keep, s, low])
        }
    };
    refused(&small(replaced(-3.0), product), RecognizeAttention, "which may have a weight");
    assert_eq!(count(&run1(&small(replaced(-65504.0), product), RecognizeAttention), "Attention"), 1);
    let activated = |b: &mut Build, s: ValueId| b.pw("relu0", Func::Relu, &[s]);
    let g = small(activated, product);
    assert_eq!(g.to_string(), run1(&g, RecognizeAttention).to_string());
    let scaled_mask = |b: &mut Build, s: ValueId| {
        let (mask, c) = (b.c(&[5]), b.num(0.5));
        let s = b.pw("masked", Func::Add, &[s, mask]);
        b.pw("late", Func::Mul, &[s, c])
    };
    refused(&small(scaled_mask, product), RecognizeAttention, "after they are masked");
    let by_value = |b: &mut Build, s: ValueId| {
        let s = t(b, &[0, 1, 3, 2], s);
        t(b, &[0, 1, 3, 2], s)
    };
    assert_eq!(count(&run1(&small(by_value, product), RecognizeAttention), "Attention"), 0);
}

#[test]
fn products_that_do_not_fit_together_are_not_merged() {
    let graph = |same_x: bool, shared: bool, v_size: usize| {
        let mut b = Build::new();
        let (x, z) = (b.x(&[2, 5, WIDTH]), b.x(&[2, 5, WIDTH]));
        let q = linear(&mut b, "q", x, WIDTH, true);
        let k = linear(&mut b, "k", x, WIDTH, true);
        let v = linear(&mut b, "v", if same_x { x } else { z }, v_size, true);
        let op = Attention { q_heads: HEADS, kv_heads: HEADS, ..Attention::plain() };
        let mut y = b.node("attention", op, &[q, k, v]);
        if shared {
            y = b.pw("also", Func::Add, &[y, k]);
        }
        let y = b.pw("relu", Func::Relu, &[y]);
        b.out(y)
    };
    let g = run1(&graph(true, false, WIDTH), MergeSiblings);
    assert_eq!((count(&g, "MatMul"), op(&g).packed), (1, Packed::Qkv));
    assert_eq!(count(&run1(&graph(false, false, WIDTH), MergeSiblings), "MatMul"), 3);
    refused(&graph(true, true, WIDTH), MergeSiblings, "read elsewhere");
    refused(&graph(true, false, 2 * WIDTH), MergeSiblings, "differ in size");
}
