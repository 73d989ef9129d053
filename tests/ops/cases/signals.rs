//! Fourier transforms of many lengths and forms, and the mel matrix.

use super::Case;
use crate::ops::steps::random;
use sinter::base::{DType, Tensor};
use sinter::ops::dft::Dft;
use sinter::ops::mel_weights::MelWeights;
use sinter::ops::stft::Stft;

fn int(v: i64) -> Option<Tensor> {
    Some(Tensor::scalar(v))
}

/// Sums of up to a thousand numbers below 1, relative to the larger of 1 and the sum.
fn tolerance(dtype: DType) -> f64 {
    match dtype {
        DType::F16 => 2e-2,
        DType::BF16 => 1e-1,
        DType::F32 => 5e-5,
        _ => 1e-10,
    }
}

pub fn cases() -> Vec<Case> {
    let mut out = Vec::new();
    let dft = |axis, inverse, onesided| Dft { axis, inverse, onesided };
    for n in [1usize, 2, 5, 16, 63, 64, 65, 97, 100, 128, 400, 1000, 1024, 1031] {
        for (inverse, onesided) in [(false, false), (true, false), (false, true), (true, true)] {
            if inverse && onesided && n == 1 {
                continue;
            }
            let parts = if onesided && !inverse { 1 } else { 2 };
            let x = random(DType::F32, &[2, n, parts], n as u64);
            let name = format!("{n} inverse {inverse} onesided {onesided}");
            out.push(Case::new(name, dft(1, inverse, onesided), vec![Some(x)]).within(tolerance(DType::F32)));
        }
    }
    for dtype in [DType::F16, DType::BF16, DType::F64] {
        let x = random(dtype, &[3, 20, 2, 1], 1);
        out.push(Case::new(format!("inner axis {dtype}"), dft(-3, false, false), vec![Some(x)]).within(tolerance(dtype)));
    }
    for length in [3, 7, 90] {
        for (inverse, onesided) in [(false, false), (true, true)] {
            let x = random(DType::F32, &[4, 7, 3, 2], 2);
            let inputs = vec![Some(x), int(length), int(1)];
            let name = format!("length {length} inverse {inverse}");
            out.push(Case::new(name, dft(-2, inverse, onesided), inputs).within(tolerance(DType::F32)));
        }
    }
    out.push(Case::new("nothing", dft(1, false, false), vec![Some(Tensor::zeros(DType::F32, &[0, 5, 1]))]));
    for dtype in [DType::F32, DType::F64] {
        for (onesided, parts) in [(true, 1), (false, 1), (false, 2)] {
            let signal = random(dtype, &[2, 150, parts], 3);
            let window = random(dtype, &[20], 4);
            let whole = vec![Some(signal.clone()), int(7), Some(window.clone())];
            let name = format!("frames {dtype} onesided {onesided} parts {parts}");
            out.push(Case::new(name.clone(), Stft { onesided }, whole).within(tolerance(dtype)));
            let longer = vec![Some(signal.clone()), int(11), Some(window), int(90)];
            out.push(Case::new(format!("long {name}"), Stft { onesided }, longer).within(tolerance(dtype)));
            let plain = vec![Some(signal), int(11), None, int(16)];
            out.push(Case::new(format!("plain {name}"), Stft { onesided }, plain).within(tolerance(dtype)));
        }
    }
    let mel = vec![int(8), int(64), int(8000), Some(Tensor::scalar(0.0f32)), Some(Tensor::scalar(4000.0f32))];
    out.push(Case::new("mel", MelWeights { dtype: DType::F32 }, mel));
    out
}
