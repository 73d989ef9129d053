//! Conversions from and to the small types, conversions that must round once, and programs of quantization.

use super::Case;
use crate::ops::steps::random;
use sinter::base::small::{CastMode, PowerRound};
use sinter::base::{DType, Tensor};
use sinter::ops::bit_cast::BitCast;
use sinter::ops::pointwise::{Pointwise, Program};
use DType::*;

const SMALL: [DType; 10] = [I4, U4, I2, U2, F8E4M3FN, F8E4M3FNUZ, F8E5M2, F8E5M2FNUZ, F4E2M1, F8E8M0];

/// Zeros, halves between neighbours of each format and numbers next to them, limits, what is beyond, and random numbers.
fn numbers(from: DType) -> Tensor {
    let mut v = vec![0.0, -0.0, f64::INFINITY, f64::NEG_INFINITY, f64::NAN, 1e-30, -1e-30, 3e38, -3e38, 1e9, -1e9, 2f64.powi(-127)];
    for x in [1.0, 1.5, 17.0, 19.0, 232.0, 240.0, 248.0, 256.0, 448.0, 464.0, 480.0, 57344.0, 61440.0, 65504.0, 65519.0, 65520.0] {
        for scale in [1.0, 1.0 / 65536.0, 1.0 / 4096.0] {
            for near in [1.0, 1.0 + 1e-7, 1.0 - 1e-7, 1.0 + 1e-14, 1.0 - 1e-14] {
                v.extend([x * scale * near, -x * scale * near]);
            }
        }
    }
    // Halves between bf16 numbers and just beside them, which only f64 and 64-bit integers tell apart.
    for e in [8, 30, 55] {
        let tie = 2f64.powi(e) + 2f64.powi(e - 8);
        v.extend([tie, tie * (1.0 + 1e-15), tie * (1.0 - 1e-15), -tie * (1.0 + 1e-15)]);
    }
    v.extend(random(F64, &[200], 5).to_f64s().iter().map(|x| x * 10.0));
    if from.is_int() {
        // A whole number and its neighbours.
        let whole: Vec<i64> = v.iter().flat_map(|x| [*x as i64, (*x as i64).wrapping_add(1)]).collect();
        return Tensor::from_slice(&[whole.len()], &whole).cast(from);
    }
    Tensor::from_slice(&[v.len()], &v).cast(from)
}

/// One node that converts to several types; odd sizes leave a rest behind the vectors.
fn casts(x: &Tensor, to: &[(DType, CastMode)]) -> Case {
    let from = x.dtype();
    let mut p = Program { inputs: vec![from], instrs: vec![], outputs: vec![] };
    for (d, mode) in to {
        let r = p.push_cast_mode(0, *d, *mode).unwrap();
        p.outputs.push(r);
    }
    Case::new(format!("cast {p}"), Pointwise { program: p.clone() }, vec![Some(x.clone())])
}

fn program(text: &str, inputs: Vec<Tensor>) -> Case {
    let program = Program::parse(text).unwrap();
    Case::new(text, Pointwise { program }, inputs.into_iter().map(Some).collect())
}

pub fn cases() -> Vec<Case> {
    let plain = |to: &[DType]| to.iter().map(|d| (*d, CastMode::default())).collect::<Vec<_>>();
    let mut out = Vec::new();
    for from in [F32, F64, F16, BF16, I64, U64, I8] {
        let x = numbers(from);
        for to in SMALL.chunks(4) {
            out.push(casts(&x, &plain(to)));
        }
    }
    for from in SMALL {
        let codes: Vec<u8> = (0..=255).collect();
        let x = Tensor::from_bytes(from, &[codes.len()], &codes).unwrap();
        out.push(casts(&x, &plain(&[F32, F16, Bool, F64])));
        // What is not a number has no integer that the standard gives.
        let small: Vec<DType> = [I4, F8E4M3FN, F8E5M2FNUZ, F4E2M1].into_iter().filter(|d| *d != from).collect();
        out.push(casts(&x, &plain(&small)));
    }
    for from in [F32, F64] {
        let x = numbers(from);
        let open = CastMode { saturate: false, ..Default::default() };
        out.push(casts(&x, &[F8E4M3FN, F8E4M3FNUZ, F8E5M2, F8E5M2FNUZ].map(|d| (d, open))));
        let power = |saturate, round| (F8E8M0, CastMode { saturate, round });
        out.push(casts(&x, &[power(false, PowerRound::Up), power(true, PowerRound::Down), power(true, PowerRound::Nearest), power(false, PowerRound::Nearest)]));
    }
    for from in [F64, I64, U64, I32, U32] {
        out.push(casts(&numbers(from), &plain(&[F16, BF16])));
        out.push(program(&format!("{from};cast(0):bf16;cast(1):f32;cast(0):f16;cast(3):f32;>2,4"), vec![numbers(from)]));
    }
    for (from, to) in [(F16, U16), (I64, F64), (U4, F4E2M1), (F8E5M2, I8), (Bool, U8)] {
        let x = random(from, &[3, 37], 9);
        out.push(Case::new(format!("bits of {from} as {to}"), BitCast { to }, vec![Some(x)]));
    }
    out.extend(quantizations());
    out
}

fn quantizations() -> Vec<Case> {
    let clip = |low: f64, high: f64| format!("const({:x}):f32;const({:x}):f32", low.to_bits(), high.to_bits());
    let x = |d, shape: &[usize]| Tensor::from_slice(shape, &random(F32, shape, 3).to_f32s().iter().map(|v| v * 300.0).collect::<Vec<_>>()).cast(d);
    let scale = |d, shape: &[usize]| Tensor::from_slice(shape, &random(F32, shape, 4).to_f32s().iter().map(|v| v.abs() + 0.01).collect::<Vec<_>>()).cast(d);
    let zero = |d, shape: &[usize]| Tensor::from_slice(shape, &random(F32, shape, 8).to_f32s().iter().map(|v| v.abs() * 3.0).collect::<Vec<_>>()).cast(d);
    let mut out = vec![];
    for (x_shape, s_shape) in [(&[2, 3, 35][..], &[3, 1][..]), (&[1029], &[]), (&[2, 0, 3], &[3])] {
        for (d, low, high) in [(U8, 0.0, 255.0), (I8, -128.0, 127.0), (I16, -32768.0, 32767.0), (I4, -8.0, 7.0)] {
            let text = format!("f32,f32,{d};div(0,1):f32;round(3):f32;cast(2):f32;add(4,5):f32;{};clip(6,7,8):f32;cast(9):{d};>10", clip(low, high));
            out.push(program(&text, vec![x(F32, x_shape), scale(F32, s_shape), zero(d, s_shape)]));
        }
        let half = format!(
            "f16,f16;cast(0):f32;cast(1):f32;div(2,3):f32;cast(4):f16;cast(5):f32;round(6):f32;{};clip(7,8,9):f32;cast(10):u8;>11",
            clip(0.0, 255.0)
        );
        out.push(program(&half, vec![x(F16, x_shape), scale(F16, s_shape)]));
        for d in [F8E4M3FN, F8E5M2, F4E2M1] {
            let text = format!("f32,f32,{d};div(0,1):f32;cast(2):f32;const(0):f32;equal(4,5):bool;add(3,4):f32;select(6,3,7):f32;cast(8):{d};>9");
            out.push(program(&text, vec![x(F32, x_shape), scale(F32, s_shape), zero(d, s_shape)]));
            let back = format!("{d},bf16;cast(0):f32;cast(1):f32;mul(2,3):f32;cast(4):bf16;>5");
            out.push(program(&back, vec![x(d, x_shape), scale(BF16, s_shape)]));
        }
        for d in [U8, U4, I32] {
            let text = format!("{d},f8e8m0,{d};cast(0):f32;cast(2):f32;sub(3,4):f32;cast(1):f32;mul(5,6):f32;>7");
            out.push(program(&text, vec![x(d, x_shape), scale(F8E8M0, s_shape), zero(d, s_shape)]));
        }
    }
    out
}
