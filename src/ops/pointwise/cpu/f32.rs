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

// Loops with the expression written into them. Closures would not do: a long one is not inlined into the function that
// has the target features, and then runs one value at a time.

macro_rules! map {
    ($out:ident, $a:ident, |$x:ident| $value:expr) => {
        for (o, x) in $out.iter_mut().zip($a) {
            let $x = *x;
            *o = $value;
        }
    };
}

macro_rules! zip {
    ($out:ident, $a:ident, $b:ident, |$x:ident, $y:ident| $value:expr) => {{
        let n = $out.len();
        if $a.len() == n && $b.len() == n {
            for ((o, x), y) in $out.iter_mut().zip($a).zip($b) {
                let ($x, $y) = (*x, *y);
                *o = $value;
            }
        } else if $a.len() == n {
            let $y = $b[0];
            for (o, x) in $out.iter_mut().zip($a) {
                let $x = *x;
                *o = $value;
            }
        } else {
            let $x = $a[0];
            for (o, y) in $out.iter_mut().zip($b) {
                let $y = *y;
                *o = $value;
            }
        }
    }};
}

macro_rules! zip3 {
    ($out:ident, $a:ident, $b:ident, $c:ident, |$x:ident, $y:ident, $z:ident| $value:expr) => {{
        if $a.len() == $out.len() && $b.len() == 1 && $c.len() == 1 {
            let ($y, $z) = ($b[0], $c[0]);
            for (o, x) in $out.iter_mut().zip($a) {
                let $x = *x;
                *o = $value;
            }
        } else {
            // A mask of 0 reads the only element again and again.
            let step = |s: &[f32]| if s.len() == 1 { 0 } else { usize::MAX };
            let (ma, mb, mc) = (step($a), step($b), step($c));
            for (i, o) in $out.iter_mut().enumerate() {
                let ($x, $y, $z) = ($a[i & ma], $b[i & mb], $c[i & mc]);
                *o = $value;
            }
        }
    }};
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
        Func::Neg => map!(out, a, |x| -x),
        Func::Abs => map!(out, a, |x| x.abs()),
        Func::Sign => map!(out, a, |x| if x > 0.0 { 1.0 } else if x < 0.0 { -1.0 } else { x }),
        Func::Relu => map!(out, a, |x| if x < 0.0 { 0.0 } else { x }),
        Func::Sigmoid => map!(out, a, |x| math::sigmoid::<FMA>(x)),
        Func::Tanh => map!(out, a, |x| math::tanh::<FMA>(x)),
        Func::Exp => map!(out, a, |x| math::exp::<FMA>(x)),
        Func::Log => map!(out, a, |x| math::log::<FMA>(x)),
        Func::Sqrt => map!(out, a, |x| x.sqrt()),
        Func::Reciprocal => map!(out, a, |x| 1.0 / x),
        Func::Floor => map!(out, a, |x| x.floor()),
        Func::Ceil => map!(out, a, |x| x.ceil()),
        Func::Round => map!(out, a, |x| x.round_ties_even()),
        Func::Erf => map!(out, a, |x| math::erf::<FMA>(x)),
        Func::GeluErf => map!(out, a, |x| math::gelu::<FMA>(x)),
        Func::GeluTanh => map!(out, a, |x| math::gelu_tanh::<FMA>(x)),
        Func::Silu => map!(out, a, |x| x * math::sigmoid::<FMA>(x)),
        Func::HardSwish => map!(out, a, |x| x * math::clip(x * (1.0 / 6.0) + 0.5, 0.0, 1.0)),
        Func::Softplus => map!(out, a, |x| math::softplus::<FMA>(x)),
        Func::Softsign => map!(out, a, |x| x / (1.0 + x.abs())),
        Func::Mish => map!(out, a, |x| x * math::tanh::<FMA>(math::softplus::<FMA>(x))),
        Func::Sin => map!(out, a, |x| x.sin()),
        Func::Cos => map!(out, a, |x| x.cos()),
        Func::Tan => map!(out, a, |x| x.tan()),
        _ => map!(out, a, |x| float_func(func, x as f64, 0.0, 0.0) as f32),
    }
}

#[inline(always)]
fn binary_body<const FMA: bool>(func: Func, out: &mut [f32], a: &[f32], b: &[f32]) {
    match func {
        Func::Add => zip!(out, a, b, |x, y| x + y),
        Func::Sub => zip!(out, a, b, |x, y| x - y),
        Func::Mul => zip!(out, a, b, |x, y| x * y),
        Func::Div => zip!(out, a, b, |x, y| x / y),
        Func::Max => zip!(out, a, b, |x, y| math::max(x, y)),
        Func::Min => zip!(out, a, b, |x, y| math::min(x, y)),
        Func::LeakyRelu => zip!(out, a, b, |x, y| if x < 0.0 { x * y } else { x }),
        Func::ThresholdedRelu => zip!(out, a, b, |x, y| if x > y { x } else { 0.0 }),
        Func::Elu => zip!(out, a, b, |x, y| elu::<FMA>(x, y)),
        Func::Pow => zip!(out, a, b, |x, y| x.powf(y)),
        _ => zip!(out, a, b, |x, y| float_func(func, x as f64, y as f64, 0.0) as f32),
    }
}

#[inline(always)]
fn ternary_body<const FMA: bool>(func: Func, out: &mut [f32], a: &[f32], b: &[f32], c: &[f32]) {
    match func {
        Func::Clip => zip3!(out, a, b, c, |x, y, z| math::min(math::max(x, y), z)),
        Func::HardSigmoid => zip3!(out, a, b, c, |x, y, z| math::clip(x * y + z, 0.0, 1.0)),
        Func::Selu => zip3!(out, a, b, c, |x, y, z| selu::<FMA>(x, y, z)),
        _ => zip3!(out, a, b, c, |x, y, z| float_func(func, x as f64, y as f64, z as f64) as f32),
    }
}

#[inline(always)]
fn test_body<const FMA: bool>(func: Func, out: &mut [u8], a: &[f32], b: &[f32], c: &[f32]) {
    match func {
        Func::Equal => zip!(out, a, b, |x, y| (x == y) as u8),
        Func::Less => zip!(out, a, b, |x, y| (x < y) as u8),
        Func::LessEqual => zip!(out, a, b, |x, y| (x <= y) as u8),
        Func::Greater => zip!(out, a, b, |x, y| (x > y) as u8),
        Func::GreaterEqual => zip!(out, a, b, |x, y| (x >= y) as u8),
        Func::IsNan => map!(out, a, |x| x.is_nan() as u8),
        _ => zip3!(out, a, b, c, |x, y, z| (float_func(func, x as f64, y as f64, z as f64) != 0.0) as u8),
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
