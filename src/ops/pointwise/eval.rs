//! The reference: each element alone, each instruction alone, each result rounded to the instruction's type.
//!
//! Floating-point functions are computed in f64 and rounded once to the instruction's type; for `+ - * /` and the
//! square root that is the correctly rounded f32 result, for the others it is at most one rounding away from it.
//! Integers are computed exactly and wrap in their width (i64 and u64 too). A division or remainder by zero gives 0.
//! Conversions follow `base::tensor::convert`: float to integer truncates and saturates and takes NaN to 0, integer to
//! integer wraps, anything to bool is `!= 0`, small types as in `base::small`. Minimum, maximum, clip and relu hand NaN on.

use super::func::Func;
use super::program::{Instr, Program};
use crate::base::small::{CastMode, PowerRound, from_number_mode};
use crate::base::tensor::{Number, Scalar, strides_of};
use crate::base::{DType, Result, Tensor};
use crate::dispatch;

/// Runs the program over broadcast inputs; `shape` is the broadcast shape.
pub(super) fn eval(p: &Program, inputs: &[&Tensor], shape: &[usize]) -> Result<Vec<Tensor>> {
    let mut outputs = Vec::with_capacity(p.outputs.len());
    for i in 0..p.outputs.len() {
        crate::base::tensor::checked_bytes(p.output_dtype(i), shape)?;
        outputs.push(Tensor::zeros(p.output_dtype(i), shape));
    }
    let strides: Vec<Vec<usize>> = inputs.iter().map(|t| broadcast_strides(t.shape(), shape)).collect();
    let n: usize = shape.iter().product();
    let n_in = inputs.len();
    let mut regs = vec![Number::Int(0); n_in + p.instrs.len()];
    let mut coord = vec![0usize; shape.len()];
    let mut offsets = vec![0usize; n_in];
    let mut args = Vec::with_capacity(4);
    for at in 0..n {
        for (i, t) in inputs.iter().enumerate() {
            regs[i] = read(t, offsets[i]);
        }
        for (i, ins) in p.instrs.iter().enumerate() {
            args.clear();
            args.extend(ins.args.iter().map(|r| regs[*r as usize]));
            let arg_type = ins.args.last().map_or(ins.dtype, |r| p.dtype(*r));
            regs[n_in + i] = apply(ins, arg_type, &args);
        }
        for (t, r) in outputs.iter_mut().zip(&p.outputs) {
            write(t, at, regs[*r as usize]);
        }
        for d in (0..shape.len()).rev() {
            coord[d] += 1;
            for (o, s) in offsets.iter_mut().zip(&strides) {
                *o += s[d];
            }
            if coord[d] < shape[d] {
                break;
            }
            coord[d] = 0;
            for (o, s) in offsets.iter_mut().zip(&strides) {
                *o -= s[d] * shape[d];
            }
        }
    }
    Ok(outputs)
}

/// Strides of an operand inside the broadcast shape, in elements; 0 where it is repeated.
pub(super) fn broadcast_strides(dims: &[usize], shape: &[usize]) -> Vec<usize> {
    let own = strides_of(dims);
    let lead = shape.len() - dims.len();
    (0..shape.len()).map(|d| if d < lead || dims[d - lead] == 1 { 0 } else { own[d - lead] }).collect()
}

fn read(t: &Tensor, at: usize) -> Number {
    dispatch!(t.dtype(), T => t.slice::<T>()[at].to_number())
}

fn write(t: &mut Tensor, at: usize, v: Number) {
    dispatch!(t.dtype(), T => t.slice_mut::<T>()[at] = kept(v))
}

/// As an element, where what the type has stays: infinities too, which a cast to a small float would not leave.
pub(super) fn kept<T: Scalar>(v: Number) -> T {
    from_number_mode(v, CastMode { saturate: false, round: PowerRound::Nearest })
}

/// Rounds or wraps a number to an element type.
pub(super) fn round_to(v: Number, dtype: DType) -> Number {
    dispatch!(dtype, T => kept::<T>(v).to_number())
}

fn cast(v: Number, dtype: DType, mode: CastMode) -> Number {
    dispatch!(dtype, T => from_number_mode::<T>(v, mode).to_number())
}

/// One instruction; `arg_type` is the type of its last argument.
pub(super) fn apply(ins: &Instr, arg_type: DType, args: &[Number]) -> Number {
    let result = match ins.func {
        Func::Const => Number::Float(ins.value),
        Func::Cast => return cast(args[0], ins.dtype, CastMode::default()),
        Func::CastMode => return cast(args[0], ins.dtype, CastMode::from_code(ins.value as u8).unwrap_or_default()),
        Func::Select => {
            if int(args[0]) != 0 {
                args[1]
            } else {
                args[2]
            }
        }
        f if arg_type.is_float() => {
            let mut a = [0.0; 3];
            for (a, v) in a.iter_mut().zip(args) {
                *a = float(*v);
            }
            Number::Float(float_func(f, a[0], a[1], a[2]))
        }
        f => {
            let mut a = [0; 3];
            for (a, v) in a.iter_mut().zip(args) {
                *a = int(*v);
            }
            // The low 64 bits are all that any integer type keeps.
            Number::Int(int_func(f, arg_type, a[0], a[1], a[2]) as i64)
        }
    };
    round_to(result, ins.dtype)
}

fn float(v: Number) -> f64 {
    match v {
        Number::Float(v) => v,
        Number::Int(v) => v as f64,
        Number::Uint(v) => v as f64,
    }
}

fn int(v: Number) -> i128 {
    match v {
        Number::Float(v) => v as i128,
        Number::Int(v) => v as i128,
        Number::Uint(v) => v as i128,
    }
}

fn max(a: f64, b: f64) -> f64 {
    if a > b || a.is_nan() { a } else { b }
}

fn min(a: f64, b: f64) -> f64 {
    if a < b || a.is_nan() { a } else { b }
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

fn softplus(x: f64) -> f64 {
    max(x, 0.0) + (-x.abs()).exp().ln_1p()
}

/// A floating-point function in f64; functions of fewer arguments ignore the rest, tests give 0 or 1.
pub(super) fn float_func(f: Func, x: f64, y: f64, z: f64) -> f64 {
    let truth = |b: bool| b as u8 as f64;
    match f {
        Func::Add => x + y,
        Func::Sub => x - y,
        Func::Mul => x * y,
        Func::Div => x / y,
        Func::Pow => x.powf(y),
        Func::Mod => {
            let r = x % y;
            if r != 0.0 && (r < 0.0) != (y < 0.0) { r + y } else { r }
        }
        Func::Fmod => x % y,
        Func::Max => max(x, y),
        Func::Min => min(x, y),
        Func::Neg => -x,
        Func::Abs => x.abs(),
        Func::Sign if x > 0.0 => 1.0,
        Func::Sign if x < 0.0 => -1.0,
        Func::Sign => x,
        Func::Relu if x < 0.0 => 0.0,
        Func::Relu => x,
        Func::LeakyRelu if x < 0.0 => x * y,
        Func::LeakyRelu => x,
        Func::Clip => min(max(x, y), z),
        Func::Sigmoid => sigmoid(x),
        Func::Tanh => x.tanh(),
        Func::Exp => x.exp(),
        Func::Log => x.ln(),
        Func::Sqrt => x.sqrt(),
        Func::Reciprocal => 1.0 / x,
        Func::Floor => x.floor(),
        Func::Ceil => x.ceil(),
        Func::Round => x.round_ties_even(),
        Func::Erf => erf(x),
        Func::GeluErf => 0.5 * x * one_plus_erf(x * std::f64::consts::FRAC_1_SQRT_2),
        Func::GeluTanh => {
            let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x);
            // (1 + tanh t) / 2 is sigmoid(2t), which keeps its digits for t far below zero.
            x * sigmoid(2.0 * inner)
        }
        Func::Silu => x * sigmoid(x),
        Func::HardSigmoid => max(0.0, min(1.0, x * y + z)),
        Func::HardSwish => x * max(0.0, min(1.0, x / 6.0 + 0.5)),
        Func::Elu if x < 0.0 => y * x.exp_m1(),
        Func::Elu => x,
        Func::Celu => max(0.0, x) + min(0.0, y * (x / y).exp_m1()),
        Func::Selu => z * if x > 0.0 { x } else { y * x.exp_m1() },
        Func::Softplus => softplus(x),
        Func::Softsign => x / (1.0 + x.abs()),
        Func::Mish => x * softplus(x).tanh(),
        Func::ThresholdedRelu => {
            if x > y {
                x
            } else {
                0.0
            }
        }
        Func::Shrink if x < -y => x + z,
        Func::Shrink if x > y => x - z,
        Func::Shrink => 0.0,
        Func::Sin => x.sin(),
        Func::Cos => x.cos(),
        Func::Tan => x.tan(),
        Func::Asin => x.asin(),
        Func::Acos => x.acos(),
        Func::Atan => x.atan(),
        Func::Sinh => x.sinh(),
        Func::Cosh => x.cosh(),
        Func::Asinh => x.asinh(),
        Func::Acosh => x.acosh(),
        Func::Atanh => x.atanh(),
        Func::Equal => truth(x == y),
        Func::Less => truth(x < y),
        Func::LessEqual => truth(x <= y),
        Func::Greater => truth(x > y),
        Func::GreaterEqual => truth(x >= y),
        Func::IsNan => truth(x.is_nan()),
        Func::IsInf => truth((x == f64::INFINITY && z != 0.0) || (x == f64::NEG_INFINITY && y != 0.0)),
        Func::Const | Func::Cast | Func::CastMode | Func::Select => unreachable!("handled by the caller"),
        Func::And | Func::Or | Func::Xor | Func::Not => unreachable!("the type rule takes bools only"),
        Func::BitAnd | Func::BitOr | Func::BitXor | Func::BitNot | Func::ShiftLeft | Func::ShiftRight => {
            unreachable!("the type rule takes integers only")
        }
    }
}

/// A function of integers or bools, exact before it wraps; tests give 0 or 1.
pub(super) fn int_func(f: Func, t: DType, x: i128, y: i128, z: i128) -> i128 {
    let bits = 8 * t.size() as i128;
    match f {
        Func::Add => x + y,
        Func::Sub => x - y,
        Func::Mul => x.wrapping_mul(y),
        Func::Div => x.checked_div(y).unwrap_or(0),
        Func::Pow => int_pow(x, y),
        Func::Mod => {
            let r = x.checked_rem(y).unwrap_or(0);
            if r != 0 && (r < 0) != (y < 0) { r + y } else { r }
        }
        Func::Fmod => x.checked_rem(y).unwrap_or(0),
        Func::Max => x.max(y),
        Func::Min => x.min(y),
        Func::Neg => -x,
        Func::Abs => x.abs(),
        Func::Sign => x.signum(),
        Func::Relu => x.max(0),
        Func::LeakyRelu => if x < 0 { x * y } else { x },
        Func::Clip => x.max(y).min(z),
        Func::Shrink if x < -y => x + z,
        Func::Shrink if x > y => x - z,
        Func::Shrink => 0,
        Func::And | Func::BitAnd => x & y,
        Func::Or | Func::BitOr => x | y,
        Func::Xor | Func::BitXor => x ^ y,
        Func::Not => (x == 0) as i128,
        Func::BitNot => !x,
        // A count outside of the width leaves nothing.
        Func::ShiftLeft => if (0..bits).contains(&y) { x << y } else { 0 },
        Func::ShiftRight => if (0..bits).contains(&y) { x >> y } else { 0 },
        Func::Equal => (x == y) as i128,
        Func::Less => (x < y) as i128,
        Func::LessEqual => (x <= y) as i128,
        Func::Greater => (x > y) as i128,
        Func::GreaterEqual => (x >= y) as i128,
        _ => unreachable!("the type rule keeps integers out of {}", f.name()),
    }
}

/// Wrapping power; a negative exponent gives the truncated quotient, 0 for a zero base.
fn int_pow(x: i128, e: i128) -> i128 {
    if e < 0 {
        return match x {
            1 => 1,
            -1 => if e % 2 == 0 { 1 } else { -1 },
            _ => 0,
        };
    }
    let (mut r, mut x, mut e) = (1i128, x, e);
    while e > 0 {
        if e & 1 == 1 {
            r = r.wrapping_mul(x);
        }
        x = x.wrapping_mul(x);
        e >>= 1;
    }
    r
}

/// The error function to about 1e-15: a series of positive terms near zero, a continued fraction far from it.
pub(super) fn erf(x: f64) -> f64 {
    match x.abs() {
        a if a.is_nan() => x,
        a if a < 3.0 => erf_series(x),
        a => (1.0 - erfc_fraction(a)).copysign(x),
    }
}

/// `1 + erf(x)` without cancellation below zero.
fn one_plus_erf(x: f64) -> f64 {
    if x <= -3.0 { erfc_fraction(-x) } else { 1.0 + erf(x) }
}

/// erf(x) = 2/sqrt(pi) exp(-x^2) * sum of 2^n x^(2n+1) / (1*3*5*..*(2n+1)).
fn erf_series(x: f64) -> f64 {
    let (mut term, mut sum, mut n) = (x, x, 1.0);
    while term.abs() > 1e-18 * sum.abs() {
        term *= 2.0 * x * x / (2.0 * n + 1.0);
        sum += term;
        n += 1.0;
    }
    std::f64::consts::FRAC_2_SQRT_PI * (-x * x).exp() * sum
}

/// erfc(x) for x >= 3: exp(-x^2)/sqrt(pi) / (x + (1/2)/(x + 1/(x + (3/2)/(x + ..)))).
fn erfc_fraction(x: f64) -> f64 {
    if x > 30.0 {
        return 0.0;
    }
    let tail = (1..60).rev().fold(x, |below, k| x + 0.5 * k as f64 / below);
    (-x * x).exp() * 0.5 * std::f64::consts::FRAC_2_SQRT_PI / tail
}
