//! `fold_pads`.

use super::*;
use sinter::ops::pad::{Pad, PadMode};
use sinter::ops::pool::{Pool, PoolKind};
use sinter::passes::FoldPads;

fn pad(b: &mut Build, x: ValueId, pads: &[i64], value: f32) -> ValueId {
    let (p, v) = (b.ints(pads), b.num(value));
    b.node("pad", Pad { mode: PadMode::Constant }, &[x, p, v])
}

fn pool(kind: PoolKind, count_include_pad: bool, pads: i64) -> Pool {
    Pool {
        kind,
        kernel: vec![3, 3],
        strides: vec![2, 2],
        pads: vec![pads; 4],
        dilations: vec![1, 1],
        auto_pad: AutoPad::NotSet,
        ceil_mode: false,
        count_include_pad,
        p: 2,
        indices: false,
        storage_order: 0,
        order: Default::default(),
    }
}

const SPATIAL: [i64; 8] = [0, 0, 1, 0, 0, 0, 2, 1];

#[test]
fn zeros_join_the_padding_of_a_convolution() {
    let mut b = Build::new();
    let x = b.x(&[1, 3, 6, 6]);
    let p = pad(&mut b, x, &SPATIAL, 0.0);
    let c = b.conv("conv", p, 4, 3, conv2d(1));
    let g = run1(&b.out(c), FoldPads);
    assert_eq!(names(&g), ["conv"]);
    let Op::Conv(c) = &the(&g, "Conv").op else { unreachable!() };
    assert_eq!(c.pads, [2, 1, 3, 2]);
}

#[test]
fn pools_take_what_they_would_pad_with() {
    for (kind, counts, value) in [(PoolKind::Average, false, 0.0), (PoolKind::Max, false, f32::NEG_INFINITY)] {
        let mut b = Build::new();
        let x = b.x(&[1, 3, 6, 6]);
        let p = pad(&mut b, x, &[0, 0, 1, 1, 0, 0, 1, 1], value);
        let y = b.node("pool", pool(kind, counts, 0), &[p]);
        let g = run1(&b.out(y), FoldPads);
        assert_eq!(names(&g), ["pool"]);
    }
}

#[test]
fn zeros_in_front_of_a_maximum_are_right_after_relu() {
    let mut b = Build::new();
    let x = b.x(&[1, 3, 6, 6]);
    let r = b.pw("relu", Func::Relu, &[x]);
    let p = pad(&mut b, r, &[0, 0, 1, 1, 0, 0, 1, 1], 0.0);
    let y = b.node("pool", pool(PoolKind::Max, false, 0), &[p]);
    assert_eq!(names(&run1(&b.out(y), FoldPads)), ["relu", "pool"]);
}

#[test]
fn other_padding_is_refused_with_a_reason() {
    let conv_case = |pads: &[i64], value: f32| {
        let mut b = Build::new();
        let x = b.x(&[1, 3, 6, 6]);
        let p = pad(&mut b, x, pads, value);
        let c = b.g.fact(p).shape[1].as_const().unwrap() as usize;
        let w = b.c(&[4, c, 3, 3]);
        let y = b.node("conv", conv2d(0), &[p, w]);
        b.out(y)
    };
    refused(&conv_case(&SPATIAL, 1.0), FoldPads, "pads with 1, a convolution with 0");
    refused(&conv_case(&[0, 0, -1, 0, 0, 0, 0, 0], 0.0), FoldPads, "crops");
    refused(&conv_case(&[0, 1, 0, 0, 0, 0, 0, 0], 0.0), FoldPads, "pads the batch or the channels");
    let pool_case = |p: Pool, value: f32| {
        let mut b = Build::new();
        let x = b.x(&[1, 3, 6, 6]);
        let v = pad(&mut b, x, &[0, 0, 1, 1, 0, 0, 1, 1], value);
        let y = b.node("pool", p, &[v]);
        b.out(y)
    };
    refused(&pool_case(pool(PoolKind::Max, false, 0), 0.0), FoldPads, "a maximum with -inf");
    refused(&pool_case(pool(PoolKind::Average, false, 1), 0.0), FoldPads, "does not count its own padding");
    let ceil = Pool { ceil_mode: true, ..pool(PoolKind::Average, true, 0) };
    refused(&pool_case(ceil, 0.0), FoldPads, "ceil_mode");
}
