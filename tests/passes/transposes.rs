//! `cancel_transposes` and `absorb_transposes`.

use super::*;
use sinter::ops::concat::Concat;
use sinter::ops::pad::{Pad, PadMode};
use sinter::ops::reduce::{Reduce, ReduceKind};
use sinter::ops::slice::Slice;
use sinter::ops::transpose::Transpose;
use sinter::passes::{AbsorbTransposes, CancelTransposes, SimplifyShapes};

const TO_NCHW: [i64; 4] = [0, 3, 1, 2];
const TO_NHWC: [i64; 4] = [0, 2, 3, 1];

fn t(b: &mut Build, name: &str, perm: &[i64], x: ValueId) -> ValueId {
    b.node(name, Transpose { perm: perm.to_vec() }, &[x])
}

#[test]
fn two_in_a_row_are_one_or_none() {
    let mut b = Build::new();
    let x = b.x(&[2, 3, 4, 5]);
    let p = t(&mut b, "p", &TO_NHWC, x);
    let q = t(&mut b, "q", &TO_NHWC, p);
    let g = run1(&b.out(q), CancelTransposes);
    assert_eq!(names(&g), ["q"]);

    let mut b = Build::new();
    let x = b.x(&[2, 3, 4, 5]);
    let r = b.pw("relu", Func::Relu, &[x]);
    let p = t(&mut b, "p", &TO_NHWC, r);
    let q = t(&mut b, "q", &TO_NCHW, p);
    let y = b.pw("tanh", Func::Tanh, &[q]);
    assert_eq!(names(&run1(&b.out(y), CancelTransposes)), ["relu", "tanh"]);
}

/// As a model converted from TensorFlow: everything but the convolutions is in NHWC.
#[test]
fn a_converted_residual_network_keeps_no_transpose_in_the_middle() {
    let mut b = Build::new();
    let x = b.input("x", &["n".into(), 6.into(), 6.into(), 4.into()]);
    let bias = b.c(&[4]);
    let mut v = x;
    for i in 0..3 {
        let a = t(&mut b, &format!("in{i}"), &TO_NCHW, v);
        let c = b.conv(&format!("conv{i}"), a, 4, 3, conv2d(1));
        let o = t(&mut b, &format!("out{i}"), &TO_NHWC, c);
        let s = b.pw(&format!("bias{i}"), Func::Add, &[o, bias]);
        let r = b.pw(&format!("relu{i}"), Func::Relu, &[s]);
        v = if i == 0 { r } else { b.pw(&format!("sum{i}"), Func::Add, &[r, v]) };
    }
    let g = run1(&b.out(v), CancelTransposes);
    assert_eq!(count(&g, "Transpose"), 2, "{g}");
}

#[test]
fn axes_are_renamed_on_the_way_down() {
    let mut b = Build::new();
    let (x, z) = (b.x(&[1, 3, 4, 5]), b.x(&[1, 2, 4, 5]));
    let (p, q) = (t(&mut b, "p", &TO_NHWC, x), t(&mut b, "q", &TO_NHWC, z));
    let c = b.node("concat", Concat { axis: -1 }, &[p, q]);
    let pads = b.ints(&[0, 1, 2, 0, 0, 0, 1, 3]);
    let c = b.node("pad", Pad { mode: PadMode::Edge }, &[c, pads]);
    let (starts, ends, axes) = (b.ints(&[1, 0]), b.ints(&[5, 4]), b.ints(&[1, -1]));
    let c = b.node("slice", Slice {}, &[c, starts, ends, axes]);
    let mean = Reduce {
        kind: ReduceKind::Mean,
        axes: Some(vec![1]),
        keepdims: true,
        noop_with_empty_axes: false,
        select_last_index: false,
    };
    let c = b.node("mean", mean.clone(), &[c]);
    let y = t(&mut b, "back", &TO_NCHW, c);
    let g = run1(&b.out(y), CancelTransposes);
    assert_eq!(names(&g), ["concat", "pad", "slice", "mean"]);

    // Without keepdims the axes that are left keep their order.
    let mut b = Build::new();
    let x = b.x(&[2, 3, 4, 5]);
    let p = t(&mut b, "p", &TO_NHWC, x);
    let y = b.node("mean", Reduce { axes: Some(vec![1, 2]), keepdims: false, ..mean }, &[p]);
    let y = b.pw("relu", Func::Relu, &[y]);
    let g = run(&b.out(y), vec![Box::new(CancelTransposes), Box::new(SimplifyShapes)]).0;
    assert_eq!(count(&g, "Transpose"), 0, "{g}");
}

#[test]
fn a_transpose_that_others_read_is_not_copied_without_gain() {
    let mut b = Build::new();
    let x = b.x(&[2, 3, 4, 5]);
    let p = t(&mut b, "p", &TO_NHWC, x);
    let (q, r) = (b.pw("relu", Func::Relu, &[p]), b.pw("tanh", Func::Tanh, &[p]));
    b.g.add_output("q", q).unwrap();
    let g = run1(&b.out(r), CancelTransposes);
    assert_eq!(count(&g, "Transpose"), 1);
}

#[test]
fn products_and_unit_axes_absorb_transposes() {
    let mut b = Build::new();
    let (x, k) = (b.x(&[2, 3, 4]), b.x(&[2, 5, 4]));
    let kt = t(&mut b, "kt", &[0, 2, 1], k);
    let y = b.node("mm", matmul(), &[x, kt]);
    let g = run1(&b.out(y), AbsorbTransposes);
    assert_eq!(names(&g), ["mm"]);

    // Of a larger permutation the flag takes the swap, and whole rows are left to move.
    let mut b = Build::new();
    let (x, k) = (b.x(&[2, 3, 4]), b.x(&[5, 2, 4]));
    let kt = t(&mut b, "kt", &[1, 2, 0], k);
    let y = b.node("mm", matmul(), &[x, kt]);
    let g = run1(&b.out(y), AbsorbTransposes);
    let Op::Transpose(op) = &the(&g, "Transpose").op else { unreachable!() };
    assert_eq!(op.perm, [1, 0, 2]);

    let mut b = Build::new();
    let x = b.input("x", &["n".into(), 1.into(), 1.into(), 7.into()]);
    let p = t(&mut b, "p", &TO_NCHW, x);
    let y = b.pw("relu", Func::Relu, &[p]);
    let g = run1(&b.out(y), AbsorbTransposes);
    assert_eq!((count(&g, "Transpose"), count(&g, "Reshape")), (0, 1));
}
