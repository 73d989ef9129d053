//! Products and convolutions of 8-bit integers: every mix of types, zero points of every form, every output.

use super::Case;
use crate::ops::steps::random;
use sinter::base::{DType, Tensor};
use sinter::ops::matmul_nbits::MatMulNBits;
use sinter::ops::qconv::QConv;
use sinter::ops::qmatmul::QMatMul;
use sinter::ops::requant::QOut;
use sinter::ops::window::AutoPad;

const TYPES: [(DType, DType); 4] =
    [(DType::U8, DType::I8), (DType::I8, DType::I8), (DType::U8, DType::U8), (DType::I8, DType::U8)];

/// All bytes, the extremes among them.
fn bytes(d: DType, shape: &[usize], seed: u64) -> Tensor {
    let wide = random(DType::I64, shape, seed).to_i64s();
    let mixed: Vec<u8> = wide.iter().enumerate().map(|(i, v)| ((*v as u64 ^ i as u64 * 40_503).wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    Tensor::from_bytes(d, shape, &mixed).unwrap()
}

/// Positive scales.
fn scales(shape: &[usize], seed: u64, size: f32) -> Option<Tensor> {
    let v: Vec<f32> = random(DType::F32, shape, seed).to_f32s().iter().map(|v| (v.abs() + 0.5) * size).collect();
    Some(Tensor::from_slice(shape, &v))
}

/// A bias of the size of the sums.
fn bias(shape: &[usize], out: QOut) -> Tensor {
    let v: Vec<i32> = random(DType::F32, shape, 5).to_f32s().iter().map(|v| (v * 9000.0) as i32).collect();
    let t = Tensor::from_slice(shape, &v);
    if out == QOut::F32 && shape.len() == 1 { t.cast(DType::F32) } else { t }
}

/// The scales and the zero point that a kind of output needs, appended; the last entries are left out where they are
/// absent.
fn finish(inputs: &mut Vec<Option<Tensor>>, out: QOut, x: Option<Tensor>, w: Option<Tensor>, y: Option<Tensor>, zero: Tensor) {
    if out != QOut::I32 {
        inputs.extend([x, w]);
    }
    if out == QOut::Quantized {
        inputs.extend([y, Some(zero)]);
    }
}

fn product(out: &mut Vec<Case>, name: &str, op: QMatMul, a: &[usize], b: &[usize], shapes: [&[usize]; 3], types: (DType, DType)) {
    let [row, col, y] = shapes;
    let kind = op.out;
    let (da, db) = types;
    let n = if op.trans_b { b[b.len() - 2] } else { b[b.len() - 1] };
    let mut inputs = vec![
        Some(bytes(da, a, 1)),
        Some(bytes(db, b, 2)),
        Some(bytes(da, row, 3)),
        Some(bytes(db, col, 4)),
        Some(bias(&[n], kind)),
    ];
    let yd = if a.len() % 2 == 0 { DType::U8 } else { DType::I8 };
    finish(&mut inputs, kind, scales(row, 6, 0.02), scales(col, 7, 0.03), scales(y, 8, 1.7), bytes(yd, y, 9));
    out.push(Case::new(format!("{name} {da} {db} {}", kind.name()), op, inputs).within(1e-6));
}

fn matmul(trans_a: bool, trans_b: bool, out: QOut) -> QMatMul {
    QMatMul { trans_a, trans_b, alpha: 1.0, out }
}

fn products() -> Vec<Case> {
    let mut out = Vec::new();
    for kind in QOut::ALL.iter().copied() {
        for t in TYPES {
            product(&mut out, "plain", matmul(false, false, kind), &[5, 37], &[37, 67], [&[], &[], &[]], t);
            product(&mut out, "by row and column", matmul(false, false, kind), &[9, 3], &[3, 35], [&[9, 1], &[35], &[9, 1]], t);
        }
        let t = TYPES[0];
        product(&mut out, "transposed", matmul(true, true, kind), &[33, 70], &[41, 33], [&[1], &[41], &[]], t);
        product(&mut out, "tall", matmul(false, false, kind), &[2, 3, 65, 8], &[8, 4], [&[], &[], &[1]], t);
        product(&mut out, "batch", matmul(false, false, kind), &[2, 1, 4, 6], &[3, 6, 5], [&[2, 3, 4, 1], &[3, 1, 5], &[2, 1, 1, 1]], t);
        product(&mut out, "batch transposed", matmul(true, false, kind), &[2, 6, 1], &[2, 6, 5], [&[2, 1, 1], &[1, 5], &[]], t);
        product(&mut out, "vector", matmul(false, false, kind), &[1, 257], &[257, 130], [&[], &[130], &[]], t);
        product(&mut out, "empty sum", matmul(false, false, kind), &[3, 0], &[0, 2], [&[], &[], &[]], t);
        product(&mut out, "no rows", matmul(false, false, kind), &[0, 4], &[4, 2], [&[], &[], &[]], t);
    }
    let bare = vec![Some(bytes(DType::U8, &[4, 7], 1)), Some(bytes(DType::I8, &[7, 3], 2))];
    out.push(Case::new("no zero points", matmul(false, false, QOut::I32), bare));
    // A bias for each element, before the scale.
    let op = QMatMul { alpha: 0.75, ..matmul(false, true, QOut::F32) };
    let mut inputs = vec![Some(bytes(DType::U8, &[4, 7], 1)), Some(bytes(DType::I8, &[3, 7], 2)), None, None, Some(bias(&[4, 3], QOut::F32))];
    finish(&mut inputs, QOut::F32, scales(&[], 6, 0.02), scales(&[3], 7, 0.03), None, bytes(DType::U8, &[], 0));
    out.push(Case::new("scaled", op, inputs).within(1e-6));
    out
}

struct Window<'a> {
    x: &'a [usize],
    w: &'a [usize],
    group: i64,
    strides: &'a [i64],
    pads: &'a [i64],
    dilations: &'a [i64],
}

fn conv(out: &mut Vec<Case>, c: &Window<'_>, kind: QOut, (dx, dw): (DType, DType), by_channel: bool) {
    let op = QConv {
        strides: c.strides.to_vec(),
        pads: c.pads.to_vec(),
        dilations: c.dilations.to_vec(),
        group: c.group,
        auto_pad: AutoPad::NotSet,
        out: kind,
    };
    let channels: &[usize] = if by_channel { &c.w[..1] } else { &[] };
    let mut inputs = vec![
        Some(bytes(dx, c.x, 1)),
        Some(bytes(dw, c.w, 2)),
        Some(bytes(dx, &[], 3)),
        Some(bytes(dw, channels, 4)),
        Some(bias(&c.w[..1], kind)),
    ];
    finish(&mut inputs, kind, scales(&[], 6, 0.02), scales(channels, 7, 0.03), scales(&[1], 8, 2.7), bytes(dw, &[], 9));
    let name = format!("{:?} * {:?} g{} {dx} {dw} {} {by_channel}", c.x, c.w, c.group, kind.name());
    out.push(Case::new(name, op, inputs).within(1e-6));
}

fn convolutions() -> Vec<Case> {
    let plain = |x, w| Window { x, w, group: 1, strides: &[], pads: &[], dilations: &[] };
    let windows = [
        plain(&[2, 5, 7, 9], &[67, 5, 1, 1]),
        Window { pads: &[1, 2, 2, 0], dilations: &[2, 1], ..plain(&[1, 3, 8, 11], &[9, 3, 3, 2]) },
        Window { strides: &[2, 3], pads: &[1, 1, 1, 1], ..plain(&[2, 4, 9, 40], &[17, 4, 3, 3]) },
        Window { group: 2, ..plain(&[1, 6, 5, 5], &[20, 3, 2, 2]) },
        Window { group: 6, pads: &[1, 1, 1, 1], ..plain(&[2, 6, 9, 70], &[6, 1, 3, 3]) },
        Window { group: 3, strides: &[2, 2], pads: &[2, 2, 1, 1], dilations: &[1, 3], ..plain(&[1, 3, 8, 13], &[6, 1, 3, 5]) },
        Window { strides: &[2], pads: &[3, 1], ..plain(&[2, 3, 21], &[4, 3, 4]) },
        Window { strides: &[1, 2, 1], pads: &[1, 0, 1, 0, 1, 1], ..plain(&[1, 2, 4, 5, 6], &[3, 2, 2, 3, 2]) },
        Window { group: 2, pads: &[1, 1, 1, 1, 1, 1], ..plain(&[1, 2, 3, 4, 5], &[2, 1, 3, 3, 3]) },
        plain(&[0, 2, 4, 4], &[3, 2, 2, 2]),
    ];
    let mut out = Vec::new();
    for (i, w) in windows.iter().enumerate() {
        for kind in QOut::ALL.iter().copied() {
            conv(&mut out, w, kind, TYPES[i % 4], true);
        }
        for t in TYPES {
            conv(&mut out, w, QOut::Quantized, t, false);
        }
    }
    out
}

/// Weights of few bits: blocks that do not fill the last byte of zero points, a short last block, every form of zero
/// point.
fn few_bits() -> Vec<Case> {
    let mut out = Vec::new();
    for bits in [2usize, 4, 8] {
        for (rows, n, k, block) in [(1usize, 9usize, 80usize, 16usize), (5, 3, 33, 32), (2, 17, 128, 64), (0, 3, 16, 16)] {
            let blocks = k.div_ceil(block);
            for (i, d) in [DType::F32, DType::F16, DType::BF16].into_iter().enumerate() {
                let scale = |seed: u64| scales(&[n, blocks], seed, 0.1).map(|s| s.cast(d));
                let zeros = match (i + rows) % 3 {
                    0 => None,
                    1 => Some(bytes(DType::U8, &[n, (blocks * bits).div_ceil(8)], 4)),
                    _ => scales(&[n * blocks], 5, 3.0).map(|s| s.cast(d)),
                };
                let mut inputs = vec![
                    Some(random(d, &[rows, 1, k], 1)),
                    Some(bytes(DType::U8, &[n, blocks, block * bits / 8], 2)),
                    scale(3),
                    zeros,
                ];
                if rows != 2 {
                    inputs.push(Some(random(d, &[n], 6)));
                }
                let op = MatMulNBits { n: n as i64, k: k as i64, bits: bits as i64, block_size: block as i64 };
                let tolerance = [1e-4, 2e-2, 1e-1][i];
                out.push(Case::new(format!("{bits} bits {rows}x{n}x{k}/{block} {d}"), op, inputs).within(tolerance));
            }
        }
    }
    out
}

pub fn cases() -> Vec<Case> {
    let mut out = products();
    out.extend(few_bits());
    out.extend(convolutions());
    out
}
