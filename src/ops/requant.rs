//! What products of quantized operands share: their inputs, how zero points and scales lie, and the last step that turns
//! an integer sum into the output.
//!
//! Inputs: x and w (8-bit integers), their zero points (of their types; absent: 0), bias (i32, added to the sum; or f32,
//! added to an f32 result), the scales of x and w, scale and zero point of the output. The sum is exact in i32 and wraps
//! as i32 does. With `m = x_scale * w_scale` in f32:
//! - [`QOut::I32`]: the sum; no scales.
//! - [`QOut::F32`]: `f32(sum) * m` (+ bias).
//! - [`QOut::Quantized`]: `saturate(round(f32(sum) * (m / y_scale)) + y_zero)`, halves to even.

use crate::base::{DType, Result, Shape, Tensor};
use crate::ops::{InferCx, Problem};
use crate::{attr_enum, ensure};

pub const X: usize = 0;
pub const W: usize = 1;
pub const X_ZERO: usize = 2;
pub const W_ZERO: usize = 3;
pub const BIAS: usize = 4;
pub const X_SCALE: usize = 5;
pub const W_SCALE: usize = 6;
pub const Y_SCALE: usize = 7;
pub const Y_ZERO: usize = 8;
pub const N_INPUTS: usize = 9;

attr_enum! {
    /// What the output holds; see the module's text.
    pub enum QOut { I32 = "i32", F32 = "f32", Quantized = "quantized" }
}

fn is_byte(d: DType) -> bool {
    matches!(d, DType::I8 | DType::U8)
}

/// Checks the element types of all inputs and which are there; gives the output's type.
pub fn check_types(out: QOut, cx: &InferCx<'_>) -> Result<DType> {
    cx.arity(2, N_INPUTS)?;
    for (i, zero) in [(X, X_ZERO), (W, W_ZERO)] {
        let d = cx.input(i)?.dtype;
        ensure!(is_byte(d), Unsupported, "input {i}: expected i8 or u8, got {d}");
        if let Some(z) = cx.opt(zero) {
            ensure!(z.dtype == d, InvalidArgument, "input {zero}: expected {d} as input {i}, got {}", z.dtype);
        }
    }
    if let Some(b) = cx.opt(BIAS) {
        let fine = b.dtype == DType::I32 || (b.dtype == DType::F32 && out == QOut::F32);
        ensure!(fine, Unsupported, "input {BIAS}: the bias of a result {} cannot be {}", out.name(), b.dtype);
    }
    let needs = |i: usize| match i {
        X_SCALE | W_SCALE => out != QOut::I32,
        _ => out == QOut::Quantized,
    };
    for i in X_SCALE..N_INPUTS {
        ensure!(
            cx.opt(i).is_some() == needs(i),
            InvalidArgument,
            "input {i}: a result {} {} it",
            out.name(),
            if needs(i) { "needs" } else { "has no use for" }
        );
        if let (Some(f), true) = (cx.opt(i), i != Y_ZERO) {
            ensure!(f.dtype == DType::F32, Unsupported, "input {i}: expected f32, got {}", f.dtype);
        }
    }
    Ok(match out {
        QOut::I32 => DType::I32,
        QOut::F32 => DType::F32,
        QOut::Quantized => {
            let d = cx.input(Y_ZERO)?.dtype;
            ensure!(is_byte(d), Unsupported, "input {Y_ZERO}: expected i8 or u8, got {d}");
            d
        }
    })
}

/// Fails when a parameter is known to have another number of elements than 1 or `n`.
pub fn check_one_or(cx: &InferCx<'_>, i: usize, n: Option<i64>) -> Result<()> {
    let Some(f) = cx.opt(i) else { return Ok(()) };
    let fine = match (f.shape.numel().as_const(), n) {
        (Some(k), Some(n)) => k == 1 || (k == n && f.rank() == 1),
        (Some(k), None) => k == 1 || f.rank() == 1,
        _ => f.rank() <= 1,
    };
    ensure!(fine, InvalidArgument, "input {i}: expected one element, or one for each of {n:?} channels, got {}", f.shape);
    Ok(())
}

/// Fails when a parameter does not broadcast to the output, or varies along a dimension that is summed over.
pub fn check_spread(cx: &InferCx<'_>, i: usize, out: &Shape, rows: bool, columns: bool) -> Result<()> {
    let Some(f) = cx.opt(i) else { return Ok(()) };
    let rank = out.rank();
    let fits = f.rank() <= rank
        && f.shape.iter().rev().zip(out.iter().rev()).enumerate().all(|(d, (a, b))| {
            let varies = match d {
                0 => columns,
                1 => rows,
                _ => true,
            };
            match (a.as_const(), b.as_const()) {
                (Some(1), _) => true,
                (Some(a), Some(b)) => varies && a == b,
                _ => varies,
            }
        });
    ensure!(fits, InvalidArgument, "input {i}: shape {} does not fit the product {out}", f.shape);
    Ok(())
}

/// Strides of an operand that broadcasts to `[batch.., rows, columns]`; 0 where it repeats.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Spread {
    pub batch: Vec<usize>,
    pub row: usize,
    pub col: usize,
}

impl Spread {
    pub fn new(shape: &[usize], out: &[usize]) -> Spread {
        let mut all = vec![0; out.len()];
        let mut step = 1;
        for (i, d) in shape.iter().enumerate().rev() {
            all[out.len() - shape.len() + i] = if *d == 1 { 0 } else { step };
            step *= d;
        }
        let n = out.len() - 2;
        Spread { row: all[n], col: all[n + 1], batch: all[..n].to_vec() }
    }

    /// Offset of the batch index `i`, for these batch dimensions.
    pub fn base(&self, dims: &[usize], mut i: usize) -> usize {
        let mut at = 0;
        for (d, s) in dims.iter().zip(&self.batch).rev() {
            at += i % d * s;
            i /= d;
        }
        at
    }

    /// True when one element serves everything.
    pub fn is_one(&self) -> bool {
        self.row == 0 && self.col == 0 && self.batch.iter().all(|s| *s == 0)
    }
}

/// The parameters of one output element.
#[derive(Clone, Copy, Debug, Default)]
pub struct At {
    pub x_scale: f32,
    pub w_scale: f32,
    pub y_scale: f32,
    pub y_zero: i64,
    /// An f32 bias.
    pub bias: f32,
}

/// Output elements, as they come.
pub struct Results {
    dtype: DType,
    bytes: Vec<u8>,
}

impl Results {
    pub fn new(dtype: DType) -> Results {
        Results { dtype, bytes: Vec::new() }
    }

    pub fn push(&mut self, out: QOut, alpha: f32, sum: i32, at: At) {
        match out {
            QOut::I32 => self.bytes.extend(sum.to_ne_bytes()),
            QOut::F32 => self.bytes.extend((sum as f32 * (alpha * at.x_scale * at.w_scale) + at.bias).to_ne_bytes()),
            QOut::Quantized => {
                let scaled = sum as f32 * (alpha * at.x_scale * at.w_scale / at.y_scale);
                let (low, high) = if self.dtype == DType::I8 { (-128, 127) } else { (0, 255) };
                // What is no number counts as lower than all.
                let rounded = if scaled.is_nan() { i64::MIN } else { scaled.round_ties_even() as i64 };
                let v = rounded.saturating_add(at.y_zero).clamp(low, high);
                self.bytes.push(v as u8);
            }
        }
    }

    pub fn into_tensor(self, shape: &[usize]) -> Result<Tensor> {
        Tensor::from_bytes(self.dtype, shape, &self.bytes)
    }
}

/// True when a zero point is absent, or known to be 0.
pub fn is_known_zero(p: &Problem, i: usize) -> bool {
    match (p.input(i), p.known(i)) {
        (None, _) => true,
        (_, Some(t)) => t.bytes().iter().all(|b| *b == 0),
        _ => false,
    }
}

/// Element types of the bias and of the output's zero point, as kernels are told them; those of absent ones do not
/// matter.
pub fn cuda_types(p: &Problem) -> (DType, DType) {
    let of = |i: usize, or: DType| p.input(i).map_or(or, |d| d.dtype);
    (of(BIAS, DType::I32), of(Y_ZERO, DType::U8))
}

impl QOut {
    /// Its name in `kernels/common/requant.cuh`.
    pub fn define(self) -> &'static str {
        match self {
            QOut::I32 => "OUT_I32",
            QOut::F32 => "OUT_F32",
            QOut::Quantized => "OUT_QUANT",
        }
    }
}
