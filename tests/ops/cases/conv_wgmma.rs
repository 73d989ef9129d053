//! Convolutions with channels last as Hopper's implicit products take them: tile edges, channel tails, strides, dilation,
//! uneven padding, sums long enough to be split, and every way to reach an operand of the epilogue.

use super::Case;
use crate::ops::steps::random;
use sinter::base::{DType, Tensor};
use sinter::ops::conv::Conv;
use sinter::ops::pointwise::{Func, Program};
use sinter::ops::window::{AutoPad, ChannelOrder};

/// Rounding of results in a type, once or twice.
fn tolerance(dtype: DType) -> f64 {
    match dtype {
        DType::F16 => 4e-3,
        DType::BF16 => 3e-2,
        _ => 2e-4,
    }
}

fn op(f: impl FnOnce(&mut Conv)) -> Conv {
    let mut op = Conv {
        strides: vec![],
        pads: vec![],
        dilations: vec![],
        group: 1,
        auto_pad: AutoPad::NotSet,
        order: ChannelOrder::Last,
        epilogue: None,
    };
    f(&mut op);
    op
}

/// Filters small enough that sums stay near 1, whatever their length.
fn filters(shape: &[usize], dtype: DType) -> Tensor {
    let scale = 1.0 / (shape[1..].iter().product::<usize>() as f32).sqrt();
    let v: Vec<f32> = random(DType::F32, shape, 2).to_f32s().iter().map(|v| v * scale).collect();
    Tensor::from_slice(shape, &v).cast(dtype)
}

fn case(name: &str, dtype: DType, x: &[usize], w: &[usize], bias: bool, op: Conv, extra: &[&[usize]]) -> Case {
    let mut inputs = vec![
        Some(random(DType::F32, x, 1).cast(dtype)),
        Some(filters(w, dtype)),
        bias.then(|| random(DType::F32, &[w[0]], 3).cast(dtype)),
    ];
    inputs.extend(extra.iter().enumerate().map(|(i, s)| Some(random(DType::F32, s, 4 + i as u64).cast(dtype))));
    let case = Case::new(format!("{name} {dtype}"), op, inputs).within(tolerance(dtype)).with_constant(1);
    // A bias that is a constant may be read in pairs.
    if bias && dtype == DType::BF16 { case.with_constant(2) } else { case }
}

/// The result and each operand added, then ReLU.
fn sum(dtype: DType, n: usize) -> Option<Program> {
    let mut p = Program { inputs: vec![dtype; n + 1], instrs: vec![], outputs: vec![] };
    let r = (1..=n).fold(0, |r, i| p.push(Func::Add, &[r, i as u16]).unwrap());
    p.outputs = vec![p.push(Func::Relu, &[r]).unwrap()];
    Some(p)
}

pub fn cases() -> Vec<Case> {
    let mut out = Vec::new();
    for dtype in [DType::F16, DType::BF16] {
        let mut add = |name: &str, x: &[usize], w: &[usize], f: &dyn Fn(&mut Conv)| out.push(case(name, dtype, x, w, true, op(f), &[]));
        add("3x3", &[2, 14, 14, 64], &[64, 3, 3, 64], &|c| c.pads = vec![1; 4]);
        add("3x3, sums that are split", &[1, 7, 7, 512], &[136, 3, 3, 512], &|c| c.pads = vec![1; 4]);
        add("3x3 stride 2", &[3, 15, 13, 128], &[96, 3, 3, 128], &|c| (c.pads, c.strides) = (vec![1; 4], vec![2, 2]));
        add("1x1 stride 2", &[2, 28, 28, 72], &[200, 1, 1, 72], &|c| c.strides = vec![2, 2]);
        add("5x3, strides, channels of less than a step", &[2, 20, 18, 24], &[40, 5, 3, 24], &|c| {
            (c.pads, c.strides) = (vec![2, 1, 2, 1], vec![1, 2]);
        });
        add("7x7 of 8 channels", &[2, 23, 23, 8], &[64, 7, 7, 8], &|c| (c.pads, c.strides) = (vec![3; 4], vec![2, 2]));
        add("dilation", &[1, 17, 19, 72], &[48, 3, 3, 72], &|c| (c.pads, c.dilations) = (vec![2, 4, 2, 4], vec![2, 4]));
        add("uneven padding", &[2, 9, 11, 40], &[24, 3, 3, 40], &|c| (c.pads, c.strides) = (vec![0, 1, 1, 0], vec![2, 3]));
        add("padding beyond the filter", &[1, 3, 4, 16], &[8, 3, 2, 16], &|c| c.pads = vec![4, 3, 5, 2]);
        add("no pixel but padding in a corner", &[1, 1, 1, 8], &[8, 3, 3, 8], &|c| c.pads = vec![2; 4]);
        add("SAME_LOWER, even filter", &[1, 9, 10, 16], &[16, 4, 2, 16], &|c| {
            (c.auto_pad, c.strides) = (AutoPad::SameLower, vec![2, 3]);
        });
        add("one row", &[2, 1, 200, 64], &[72, 1, 5, 64], &|c| c.pads = vec![0, 2, 0, 2]);
        add("one spatial axis", &[2, 131, 64], &[72, 4, 64], &|c| (c.pads, c.strides) = (vec![3, 1], vec![2]));
        add("many images of few pixels", &[37, 3, 3, 136], &[264, 3, 3, 136], &|c| c.pads = vec![1; 4]);
        add("the largest stride", &[1, 33, 40, 16], &[16, 2, 2, 16], &|c| c.strides = vec![8, 7]);
    }
    // Beyond what a tensor map says: served by another kernel.
    out.push(case("a stride of 9", DType::F16, &[1, 30, 30, 16], &[16, 2, 2, 16], true, op(|c| c.strides = vec![9, 9]), &[]));
    out.push(case("taps far apart", DType::F16, &[1, 300, 4, 8], &[8, 2, 2, 8], true, op(|c| c.dilations = vec![140, 1]), &[]));
    for dtype in [DType::F16, DType::BF16] {
        let (x, w) = ([3, 9, 7, 64], [72, 3, 3, 64]);
        let y: &[usize] = &[3, 9, 7, 72];
        let with = |n: usize| op(|c| (c.pads, c.epilogue) = (vec![1; 4], sum(dtype, n)));
        let mut add = |name: &str, bias: bool, extra: &[&[usize]]| out.push(case(name, dtype, &x, &w, bias, with(extra.len()), extra));
        add("relu", false, &[]);
        add("residual", true, &[y]);
        add("two residuals and a row", false, &[&[72], y, y]);
        add("a number for each image and channel", true, &[&[3, 1, 1, 72]]);
        add("a number for each pixel", true, &[&[3, 9, 7, 1]]);
        add("a column of pixels", true, &[&[7, 1], y]);
        add("a number", false, &[&[], &[1, 1, 1, 72]]);
        // Split sums.
        let split = op(|c| (c.pads, c.epilogue) = (vec![1; 4], sum(dtype, 2)));
        out.push(case("split with residual", dtype, &[1, 7, 7, 320], &[80, 3, 3, 320], true, split, &[&[1, 7, 7, 80], &[80]]));
        // The result in another type.
        let mut wide = sum(dtype, 1).unwrap();
        let r = wide.push_cast(wide.outputs[0], DType::F32).unwrap();
        wide.outputs = vec![r];
        let wide = op(|c| (c.pads, c.epilogue) = (vec![1; 4], Some(wide)));
        out.push(case("to f32", dtype, &x, &w, true, wide, &[y]));
    }
    out
}
