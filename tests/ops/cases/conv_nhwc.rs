//! Convolutions with channels last in half precision: depthwise filters, first layers, groups, odd channels, edges of tiles.

use super::Case;
use crate::ops::steps::random;
use sinter::base::DType;
use sinter::ops::conv::Conv;
use sinter::ops::pointwise::{Func, Program};
use sinter::ops::window::{AutoPad, ChannelOrder};

/// Name, order, x and w as they lie, group, strides, pads, dilations.
type Row = (&'static str, ChannelOrder, [usize; 4], [usize; 4], i64, [i64; 2], [i64; 4], [i64; 2]);

const LAST: ChannelOrder = ChannelOrder::Last;
const TO_LAST: ChannelOrder = ChannelOrder::FirstToLast;

const ROWS: &[Row] = &[
    ("depthwise 3x3", LAST, [2, 13, 11, 72], [72, 3, 3, 1], 72, [1, 1], [1; 4], [1, 1]),
    ("depthwise 5x5 stride 2", LAST, [1, 15, 14, 40], [40, 5, 5, 1], 40, [2, 2], [2; 4], [1, 1]),
    ("depthwise 3x3 dilated", LAST, [1, 12, 19, 24], [24, 3, 3, 1], 24, [1, 1], [2; 4], [2, 2]),
    ("depthwise 4 channels at once", LAST, [3, 7, 9, 12], [12, 3, 3, 1], 12, [2, 1], [1, 0, 1, 2], [1, 1]),
    ("depthwise odd channels", LAST, [1, 9, 8, 13], [13, 3, 5, 1], 13, [1, 2], [0, 3, 1, 3], [1, 1]),
    ("depthwise wide filter", LAST, [1, 20, 20, 16], [16, 1, 21, 1], 16, [1, 1], [0, 10, 0, 10], [1, 1]),
    ("depthwise many channels", LAST, [2, 7, 7, 960], [960, 5, 5, 1], 960, [1, 1], [2; 4], [1, 1]),
    ("stem 7x7", TO_LAST, [2, 3, 37, 64], [64, 3, 7, 7], 1, [2, 2], [3; 4], [1, 1]),
    ("stem 7x7, odd width", TO_LAST, [1, 3, 21, 43], [70, 3, 7, 7], 1, [2, 2], [3; 4], [1, 1]),
    ("stem 3x3 stride 2, 16 outputs", TO_LAST, [3, 3, 40, 48], [16, 3, 3, 3], 1, [2, 2], [1; 4], [1, 1]),
    ("stem 3x3 padded at the end", TO_LAST, [1, 3, 32, 40], [32, 3, 3, 3], 1, [2, 2], [0, 0, 1, 1], [1, 1]),
    ("stem 3x3 stride 1", TO_LAST, [1, 3, 18, 24], [33, 3, 3, 3], 1, [1, 1], [1; 4], [1, 1]),
    ("stem 4x4 stride 4", TO_LAST, [1, 3, 32, 48], [96, 3, 4, 4], 1, [4, 4], [0; 4], [1, 1]),
    ("stem with channels last", LAST, [2, 34, 40, 3], [64, 7, 7, 3], 1, [2, 2], [3; 4], [1, 1]),
    ("stem of one channel", LAST, [1, 28, 30, 1], [24, 5, 5, 1], 1, [1, 1], [2; 4], [1, 1]),
    ("stem dilated", TO_LAST, [1, 2, 30, 41], [16, 2, 3, 3], 1, [1, 2], [2, 1, 2, 1], [3, 1]),
    ("patches", TO_LAST, [2, 3, 32, 48], [96, 3, 16, 16], 1, [16, 16], [0; 4], [1, 1]),
    ("patches beside the vectors", TO_LAST, [1, 3, 33, 50], [40, 3, 16, 16], 1, [16, 16], [0, 3, 0, 3], [1, 1]),
    ("groups of 4", LAST, [2, 9, 10, 64], [64, 3, 3, 4], 16, [1, 1], [1; 4], [1, 1]),
    ("groups of 8, stride 2", LAST, [1, 11, 9, 128], [128, 3, 3, 8], 16, [2, 2], [1; 4], [1, 1]),
    ("groups of 24", LAST, [1, 8, 9, 72], [72, 3, 3, 24], 3, [1, 1], [1; 4], [1, 1]),
    ("groups of 3 to 5", LAST, [1, 8, 7, 12], [20, 3, 3, 3], 4, [1, 1], [1; 4], [2, 1]),
    ("groups of 1 to 2", LAST, [1, 8, 7, 32], [64, 3, 3, 1], 32, [1, 1], [1; 4], [1, 1]),
    ("groups, channels first before", TO_LAST, [1, 16, 10, 12], [32, 4, 3, 3], 4, [1, 1], [1; 4], [1, 1]),
    ("3x3 of 64", LAST, [1, 13, 12, 64], [64, 3, 3, 64], 1, [1, 1], [1; 4], [1, 1]),
    ("3x3 of odd channels", LAST, [2, 9, 8, 35], [51, 3, 3, 35], 1, [2, 1], [1, 2, 0, 1], [1, 2]),
    ("1x1 stride 2", LAST, [2, 9, 9, 48], [72, 1, 1, 48], 1, [2, 2], [0; 4], [1, 1]),
    ("long sums", LAST, [1, 5, 5, 256], [40, 3, 3, 256], 1, [1, 1], [1; 4], [1, 1]),
    ("many channels first", TO_LAST, [1, 40, 9, 7], [24, 40, 3, 3], 1, [1, 1], [1; 4], [1, 1]),
];

/// relu(x * e0 + e1)
fn program(d: DType) -> Program {
    let mut p = Program { inputs: vec![d; 3], instrs: vec![], outputs: vec![] };
    let m = p.push(Func::Mul, &[0, 1]).expect("two numbers");
    let s = p.push(Func::Add, &[m, 2]).expect("two numbers");
    p.outputs = vec![p.push(Func::Relu, &[s]).expect("a number")];
    p
}

pub fn cases() -> Vec<Case> {
    let mut out = Vec::new();
    for (i, (name, order, x, w, group, strides, pads, dilations)) in ROWS.iter().enumerate() {
        for (k, d) in [DType::F16, DType::BF16, DType::F32].into_iter().enumerate() {
            if (d == DType::BF16 && i % 3 != 1) || (d == DType::F32 && i % 4 != 0) {
                continue;
            }
            let has_epilogue = (i + k) % 2 == 0;
            let mut op = Conv {
                strides: strides.to_vec(),
                pads: pads.to_vec(),
                dilations: dilations.to_vec(),
                group: *group,
                auto_pad: AutoPad::NotSet,
                order: *order,
                epilogue: None,
            };
            let bias = ((i + k) % 3 != 2).then(|| random(d, &[w[0]], 3));
            let mut inputs = vec![Some(random(d, x, 1)), Some(random(d, w, 2)), bias];
            if has_epilogue {
                let spatial = |axis: usize| if *order == LAST { axis + 1 } else { axis + 2 };
                let size = |axis: usize| {
                    let kernel = w[spatial(axis)] as i64;
                    let room = x[spatial(axis)] as i64 + pads[axis] + pads[axis + 2] - (kernel - 1) * dilations[axis] - 1;
                    (room / strides[axis] + 1) as usize
                };
                let y = [x[0], size(0), size(1), w[0]];
                // A factor for each image and channel, then what lies as the result or is one number a pixel.
                inputs.push(Some(random(d, &[x[0], 1, 1, w[0]], 4)));
                inputs.push(Some(if i % 4 == 0 { random(d, &y, 5) } else { random(d, &[y[0], y[1], y[2], 1], 5) }));
                op.epilogue = Some(program(d));
            }
            let tolerance = match d {
                DType::F32 => 1e-4,
                DType::F16 => 5e-3,
                _ => 3e-2,
            };
            out.push(Case::new(format!("{name} {d}{x:?} {w:?}"), op, inputs).within(tolerance));
        }
    }
    out
}
