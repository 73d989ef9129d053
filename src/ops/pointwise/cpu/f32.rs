//! Programs' functions over blocks of f32, one vectorized loop per function and instruction set.
//!
//! An operand is a slice of the result's length, or of length 1: a number for the whole block. Results never overlap
//! operands; the interpreter sees to that. Functions without a loop of their own here are computed one by one in f64 as
//! the reference does.

use crate::device::cpu::multiversion::multiversion;
use crate::device::cpu::vec::math;
use crate::ops::pointwise::Func;
use crate::ops::pointwise::eval::float_func;

multiversion! {
    /// `out[i] = func(a[i])`.
    pub(super) fn unary = unary_body(func: Func, out: &mut [f32], a: &[f32]);
    /// `out[i] = func(a[i], b[i])`.
    pub(super) fn binary = binary_body(func: Func, out: &mut [f32], a: &[f32], b: &[f32]);
    /// `out[i] = func(a[i], b[i], c[i])`.
    pub(super) fn ternary = ternary_body(func: Func, out: &mut [f32], a: &[f32], b: &[f32], c: &[f32]);
    /// `out[i] = func(a[i], b[i], c[i])` as 0 or 1; functions of fewer arguments ignore the rest.
    pub(super) fn test = test_body(func: Func, out: &mut [u8], a: &[f32], b: &[f32], c: &[f32]);
    /// `out[i] = cond[i] ? a[i] : b[i]`.
    pub(super) fn select = select_body(out: &mut [f32], cond: &[u8], a: &[f32], b: &[f32]);
}

#[inline(always)]
fn map<R>(out: &mut [R], a: &[f32], f: impl Fn(f32) -> R) {
    for (o, a) in out.iter_mut().zip(a) {
        *o = f(*a);
    }
}

#[inline(always)]
fn zip<R>(out: &mut [R], a: &[f32], b: &[f32], f: impl Fn(f32, f32) -> R) {
    let n = out.len();
    if a.len() == n && b.len() == n {
        for ((o, a), b) in out.iter_mut().zip(a).zip(b) {
            *o = f(*a, *b);
        }
    } else if a.len() == n {
        let b = b[0];
        for (o, a) in out.iter_mut().zip(a) {
            *o = f(*a, b);
        }
    } else {
        let a = a[0];
        for (o, b) in out.iter_mut().zip(b) {
            *o = f(a, *b);
        }
    }
}

/// The last two operands are numbers, or all three are slices.
#[inline(always)]
fn zip3<R>(out: &mut [R], a: &[f32], b: &[f32], c: &[f32], f: impl Fn(f32, f32, f32) -> R) {
    let n = out.len();
    if a.len() == n && b.len() == 1 && c.len() == 1 {
        let (b, c) = (b[0], c[0]);
        for (o, a) in out.iter_mut().zip(a) {
            *o = f(*a, b, c);
        }
    } else if a.len() == n && b.len() == n && c.len() == n {
        for (((o, a), b), c) in out.iter_mut().zip(a).zip(b).zip(c) {
            *o = f(*a, *b, *c);
        }
    } else {
        let at = |s: &[f32], i: usize| s[if s.len() == 1 { 0 } else { i }];
        for (i, o) in out.iter_mut().enumerate() {
            *o = f(at(a, i), at(b, i), at(c, i));
        }
    }
}

/// e^x - 1 for x <= 0, without cancellation near 0.
#[inline(always)]
fn exp_minus_1<const FMA: bool>(x: f32) -> f32 {
    let t = math::tanh::<FMA>(0.5 * x);
    2.0 * t / (1.0 - t)
}

#[inline(always)]
fn elu<const FMA: bool>(x: f32, alpha: f32) -> f32 {
    let below = alpha * exp_minus_1::<FMA>(if x > 0.0 { 0.0 } else { x });
    if x < 0.0 { below } else { x }
}

#[inline(always)]
fn selu<const FMA: bool>(x: f32, alpha: f32, gamma: f32) -> f32 {
    let below = alpha * exp_minus_1::<FMA>(if x > 0.0 { 0.0 } else { x });
    gamma * if x > 0.0 { x } else { below }
}

#[inline(always)]
fn unary_body<const FMA: bool>(func: Func, out: &mut [f32], a: &[f32]) {
    match func {
        Func::Neg => map(out, a, |x| -x),
        Func::Abs => map(out, a, f32::abs),
        Func::Sign => map(out, a, |x| if x > 0.0 { 1.0 } else if x < 0.0 { -1.0 } else { x }),
        Func::Relu => map(out, a, |x| if x < 0.0 { 0.0 } else { x }),
        Func::Sigmoid => map(out, a, math::sigmoid::<FMA>),
        Func::Tanh => map(out, a, math::tanh::<FMA>),
        Func::Exp => map(out, a, math::exp::<FMA>),
        Func::Log => map(out, a, math::log::<FMA>),
        Func::Sqrt => map(out, a, f32::sqrt),
        Func::Reciprocal => map(out, a, |x| 1.0 / x),
        Func::Floor => map(out, a, f32::floor),
        Func::Ceil => map(out, a, f32::ceil),
        Func::Round => map(out, a, f32::round_ties_even),
        Func::Erf => map(out, a, math::erf::<FMA>),
        Func::GeluErf => map(out, a, math::gelu::<FMA>),
        Func::GeluTanh => map(out, a, math::gelu_tanh::<FMA>),
        Func::Silu => map(out, a, |x| x * math::sigmoid::<FMA>(x)),
        Func::HardSwish => map(out, a, |x| x * math::clip(x * (1.0 / 6.0) + 0.5, 0.0, 1.0)),
        Func::Softplus => map(out, a, math::softplus::<FMA>),
        Func::Softsign => map(out, a, |x| x / (1.0 + x.abs())),
        Func::Mish => map(out, a, |x| x * math::tanh::<FMA>(math::softplus::<FMA>(x))),
        Func::Sin => map(out, a, f32::sin),
        Func::Cos => map(out, a, f32::cos),
        Func::Tan => map(out, a, f32::tan),
        _ => map(out, a, |x| float_func(func, x as f64, 0.0, 0.0) as f32),
    }
}

#[inline(always)]
fn binary_body<const FMA: bool>(func: Func, out: &mut [f32], a: &[f32], b: &[f32]) {
    match func {
        Func::Add => zip(out, a, b, |x, y| x + y),
        Func::Sub => zip(out, a, b, |x, y| x - y),
        Func::Mul => zip(out, a, b, |x, y| x * y),
        Func::Div => zip(out, a, b, |x, y| x / y),
        Func::Max => zip(out, a, b, math::max),
        Func::Min => zip(out, a, b, math::min),
        Func::LeakyRelu => zip(out, a, b, |x, y| if x < 0.0 { x * y } else { x }),
        Func::ThresholdedRelu => zip(out, a, b, |x, y| if x > y { x } else { 0.0 }),
        Func::Elu => zip(out, a, b, elu::<FMA>),
        Func::Pow => zip(out, a, b, f32::powf),
        _ => zip(out, a, b, |x, y| float_func(func, x as f64, y as f64, 0.0) as f32),
    }
}

#[inline(always)]
fn ternary_body<const FMA: bool>(func: Func, out: &mut [f32], a: &[f32], b: &[f32], c: &[f32]) {
    match func {
        Func::Clip => zip3(out, a, b, c, |x, lo, hi| math::min(math::max(x, lo), hi)),
        Func::HardSigmoid => zip3(out, a, b, c, |x, y, z| math::clip(x * y + z, 0.0, 1.0)),
        Func::Selu => zip3(out, a, b, c, selu::<FMA>),
        _ => zip3(out, a, b, c, |x, y, z| float_func(func, x as f64, y as f64, z as f64) as f32),
    }
}

#[inline(always)]
fn test_body<const FMA: bool>(func: Func, out: &mut [u8], a: &[f32], b: &[f32], c: &[f32]) {
    match func {
        Func::Equal => zip(out, a, b, |x, y| (x == y) as u8),
        Func::Less => zip(out, a, b, |x, y| (x < y) as u8),
        Func::LessEqual => zip(out, a, b, |x, y| (x <= y) as u8),
        Func::Greater => zip(out, a, b, |x, y| (x > y) as u8),
        Func::GreaterEqual => zip(out, a, b, |x, y| (x >= y) as u8),
        Func::IsNan => map(out, a, |x| x.is_nan() as u8),
        _ => zip3(out, a, b, c, |x, y, z| (float_func(func, x as f64, y as f64, z as f64) != 0.0) as u8),
    }
}

#[inline(always)]
fn select_body<const FMA: bool>(out: &mut [f32], cond: &[u8], a: &[f32], b: &[f32]) {
    if cond.len() == 1 {
        let from = if cond[0] != 0 { a } else { b };
        if from.len() == 1 { out.fill(from[0]) } else { out.copy_from_slice(from) }
        return;
    }
    let pick = |c: u8, x: f32, y: f32| if c != 0 { x } else { y };
    match (a.len() == 1, b.len() == 1) {
        (true, true) => {
            for (o, c) in out.iter_mut().zip(cond) {
                *o = pick(*c, a[0], b[0]);
            }
        }
        (true, false) => {
            for ((o, c), b) in out.iter_mut().zip(cond).zip(b) {
                *o = pick(*c, a[0], *b);
            }
        }
        (false, true) => {
            for ((o, c), a) in out.iter_mut().zip(cond).zip(a) {
                *o = pick(*c, *a, b[0]);
            }
        }
        (false, false) => {
            for (((o, c), a), b) in out.iter_mut().zip(cond).zip(a).zip(b) {
                *o = pick(*c, *a, *b);
            }
        }
    }
}
