//! Elementwise arithmetic over f32 slices and conversions of half precision, compiled for each instruction set.
//!
//! An operation is an enum value that is looked at once per call, so a call is worth its cost from a few dozen elements
//! on. Nothing here runs in parallel or allocates: a caller that has a large tensor cuts it (`for_each_chunk`), one that
//! has an epilogue calls with the run that it was given. [`map`] and [`map_in_place`] take one operand; [`zip`],
//! [`zip_in_place`] two slices; [`scalar`] a slice and a number on either side.

pub mod math;

#[cfg(test)]
mod tests;

use super::multiversion::{fma, multiversion};
use super::{Isa, SharedMut, for_each_task};
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

/// A function of one number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Unary {
    Abs,
    Neg,
    Sqrt,
    /// 1 / sqrt(x).
    Rsqrt,
    Reciprocal,
    Square,
    Exp,
    Log,
    Tanh,
    Sigmoid,
    Erf,
    Relu,
    /// x for x >= 0, otherwise alpha x.
    LeakyRelu(f32),
    /// Between a lower and an upper bound.
    Clip(f32, f32),
    /// x for x >= 0, otherwise alpha (e^x - 1).
    Elu(f32),
    /// x sigmoid(x).
    Silu,
    /// 0 to 1: alpha x + beta.
    HardSigmoid(f32, f32),
    /// x clip(x / 6 + 1/2, 0, 1).
    HardSwish,
    /// With the error function.
    Gelu,
    /// With the hyperbolic tangent.
    GeluTanh,
    Softplus,
    /// x tanh(softplus(x)).
    Mish,
    Softsign,
    Floor,
    Ceil,
    /// To the nearest, halves to even.
    Round,
    /// -1, 0 or 1.
    Sign,
    /// x to a constant power.
    Pow(f32),
    /// alpha x + beta.
    Affine(f32, f32),
}

/// A function of two numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binary {
    Add,
    Sub,
    Mul,
    Div,
    /// NaN if one side is NaN.
    Max,
    /// NaN if one side is NaN.
    Min,
}

/// `x[i] = op(x[i])`.
pub fn map_in_place(op: Unary, x: &mut [f32]) {
    map_isa(Isa::detect(), op, x);
}

/// `y[i] = op(x[i])`. Panics when the lengths differ.
pub fn map(op: Unary, x: &[f32], y: &mut [f32]) {
    assert_eq!(x.len(), y.len(), "{op:?}: lengths of input and output differ");
    // Pieces of a first-level cache: copied, then changed in place.
    for (x, y) in x.chunks(2048).zip(y.chunks_mut(2048)) {
        y.copy_from_slice(x);
        map_in_place(op, y);
    }
}

/// `y[i] = op(a[i], b[i])`. Panics when the lengths differ.
pub fn zip(op: Binary, a: &[f32], b: &[f32], y: &mut [f32]) {
    assert!(a.len() == y.len() && b.len() == y.len(), "{op:?}: lengths of inputs and output differ");
    zip_isa(Isa::detect(), op, a, b, y);
}

/// `a[i] = op(a[i], b[i])`. Panics when the lengths differ.
pub fn zip_in_place(op: Binary, a: &mut [f32], b: &[f32]) {
    assert_eq!(a.len(), b.len(), "{op:?}: lengths of the two sides differ");
    zip_in_place_isa(Isa::detect(), op, a, b);
}

/// `b[i] = op(a[i], b[i])`. Panics when the lengths differ.
pub fn zip_into_right(op: Binary, a: &[f32], b: &mut [f32]) {
    assert_eq!(a.len(), b.len(), "{op:?}: lengths of the two sides differ");
    zip_into_right_isa(Isa::detect(), op, a, b);
}

/// `y[i] = op(x[i], s)`.
pub fn scalar(op: Binary, x: &[f32], s: f32, y: &mut [f32]) {
    assert_eq!(x.len(), y.len(), "{op:?}: lengths of input and output differ");
    scalar_isa(Isa::detect(), op, x, s, y);
}

/// `y[i] = op(s, x[i])`.
pub fn scalar_left(op: Binary, s: f32, x: &[f32], y: &mut [f32]) {
    assert_eq!(x.len(), y.len(), "{op:?}: lengths of input and output differ");
    scalar_left_isa(Isa::detect(), op, s, x, y);
}

/// `x[i] = op(x[i], s)`.
pub fn scalar_in_place(op: Binary, x: &mut [f32], s: f32) {
    scalar_in_place_isa(Isa::detect(), op, x, s);
}

/// `x[i] = op(s, x[i])`.
pub fn scalar_left_in_place(op: Binary, s: f32, x: &mut [f32]) {
    scalar_left_in_place_isa(Isa::detect(), op, s, x);
}

/// `y[i] += a[i] * b[i]`.
pub fn mul_add(a: &[f32], b: &[f32], y: &mut [f32]) {
    assert!(a.len() == y.len() && b.len() == y.len(), "multiply-add: lengths differ");
    mul_add_isa(Isa::detect(), a, b, y);
}

/// `y[i] += a[i] * s`.
pub fn add_scaled(a: &[f32], s: f32, y: &mut [f32]) {
    assert_eq!(a.len(), y.len(), "scaled addition: lengths differ");
    add_scaled_isa(Isa::detect(), a, s, y);
}

/// Halves to floats. Panics when the lengths differ.
pub fn f16_to_f32(x: &[f16], y: &mut [f32]) {
    x.convert_to_f32_slice(y);
}

/// Floats to halves, to the nearest, ties to even.
pub fn f32_to_f16(x: &[f32], y: &mut [f16]) {
    y.convert_from_f32_slice(x);
}

/// Brain floats to floats.
pub fn bf16_to_f32(x: &[bf16], y: &mut [f32]) {
    assert_eq!(x.len(), y.len(), "bf16 to f32: lengths differ");
    bf16_to_f32_isa(Isa::detect(), x, y);
}

/// Floats to brain floats, to the nearest, ties to even; NaN stays NaN.
pub fn f32_to_bf16(x: &[f32], y: &mut [bf16]) {
    assert_eq!(x.len(), y.len(), "f32 to bf16: lengths differ");
    f32_to_bf16_isa(Isa::detect(), x, y);
}

/// Calls `f(start, piece)` for pieces of `y`, in parallel when it is long. The pieces do not depend on the threads.
pub fn for_each_chunk(y: &mut [f32], f: impl Fn(usize, &mut [f32]) + Sync + Send) {
    const CHUNK: usize = 16 << 10;
    let n = y.len();
    if n <= 2 * CHUNK {
        return f(0, y);
    }
    let y = SharedMut::new(y);
    for_each_task(n.div_ceil(CHUNK), |i| {
        let start = i * CHUNK;
        // SAFETY: each task has a piece of its own.
        f(start, unsafe { y.slice(start, CHUNK.min(n - start)) });
    });
}

multiversion! {
    /// [`map_in_place`] for a given instruction set.
    pub(super) fn map_isa = map_body(op: Unary, x: &mut [f32]);
    fn zip_isa = zip_body(op: Binary, a: &[f32], b: &[f32], y: &mut [f32]);
    fn zip_in_place_isa = zip_in_place_body(op: Binary, a: &mut [f32], b: &[f32]);
    fn zip_into_right_isa = zip_into_right_body(op: Binary, a: &[f32], b: &mut [f32]);
    fn scalar_isa = scalar_body(op: Binary, x: &[f32], s: f32, y: &mut [f32]);
    fn scalar_left_isa = scalar_left_body(op: Binary, s: f32, x: &[f32], y: &mut [f32]);
    fn scalar_in_place_isa = scalar_in_place_body(op: Binary, x: &mut [f32], s: f32);
    fn scalar_left_in_place_isa = scalar_left_in_place_body(op: Binary, s: f32, x: &mut [f32]);
    fn mul_add_isa = mul_add_body(a: &[f32], b: &[f32], y: &mut [f32]);
    fn add_scaled_isa = add_scaled_body(a: &[f32], s: f32, y: &mut [f32]);
    fn bf16_to_f32_isa = bf16_to_f32_body(x: &[bf16], y: &mut [f32]);
    fn f32_to_bf16_isa = f32_to_bf16_body(x: &[f32], y: &mut [bf16]);
}

/// A loop over `$x` with the expression written into it. A closure would not do: a long one is not inlined into the
/// function that has the target features, and then runs one value at a time.
macro_rules! each {
    ($x:ident, |$v:ident| $value:expr) => {
        for v in $x.iter_mut() {
            let $v = *v;
            *v = $value;
        }
    };
}

#[inline(always)]
fn map_body<const FMA: bool>(op: Unary, x: &mut [f32]) {
    match op {
        Unary::Abs => each!(x, |v| v.abs()),
        Unary::Neg => each!(x, |v| -v),
        Unary::Sqrt => each!(x, |v| v.sqrt()),
        Unary::Rsqrt => each!(x, |v| 1.0 / v.sqrt()),
        Unary::Reciprocal => each!(x, |v| 1.0 / v),
        Unary::Square => each!(x, |v| v * v),
        Unary::Exp => each!(x, |v| math::exp::<FMA>(v)),
        Unary::Log => each!(x, |v| math::log::<FMA>(v)),
        Unary::Tanh => each!(x, |v| math::tanh::<FMA>(v)),
        Unary::Sigmoid => each!(x, |v| math::sigmoid::<FMA>(v)),
        Unary::Erf => each!(x, |v| math::erf::<FMA>(v)),
        Unary::Relu => each!(x, |v| if v < 0.0 { 0.0 } else { v }),
        Unary::LeakyRelu(alpha) => each!(x, |v| if v < 0.0 { alpha * v } else { v }),
        Unary::Clip(lo, hi) => each!(x, |v| math::clip(v, lo, hi)),
        Unary::Elu(alpha) => each!(x, |v| if v < 0.0 { alpha * (math::exp::<FMA>(v) - 1.0) } else { v }),
        Unary::Silu => each!(x, |v| v * math::sigmoid::<FMA>(v)),
        Unary::HardSigmoid(alpha, beta) => each!(x, |v| math::clip(fma::<FMA>(alpha, v, beta), 0.0, 1.0)),
        Unary::HardSwish => each!(x, |v| v * math::clip(fma::<FMA>(v, 1.0 / 6.0, 0.5), 0.0, 1.0)),
        Unary::Gelu => each!(x, |v| math::gelu::<FMA>(v)),
        Unary::GeluTanh => each!(x, |v| math::gelu_tanh::<FMA>(v)),
        Unary::Softplus => each!(x, |v| math::softplus::<FMA>(v)),
        Unary::Mish => each!(x, |v| v * math::tanh::<FMA>(math::softplus::<FMA>(v))),
        Unary::Softsign => each!(x, |v| v / (1.0 + v.abs())),
        Unary::Floor => each!(x, |v| v.floor()),
        Unary::Ceil => each!(x, |v| v.ceil()),
        Unary::Round => each!(x, |v| v.round_ties_even()),
        Unary::Sign => each!(x, |v| if v > 0.0 { 1.0 } else if v < 0.0 { -1.0 } else { v * 0.0 }),
        Unary::Pow(e) => pow(x, e),
        Unary::Affine(alpha, beta) => each!(x, |v| fma::<FMA>(alpha, v, beta)),
    }
}

/// Common exponents as products and roots; others through the C library, exactly as a plain loop would.
#[inline(always)]
fn pow(x: &mut [f32], e: f32) {
    if e == 2.0 {
        each!(x, |v| v * v);
    } else if e == 3.0 {
        each!(x, |v| v * v * v);
    } else if e == 1.0 {
    } else if e == -1.0 {
        each!(x, |v| 1.0 / v);
    } else if e == 0.5 {
        // -0 and -inf differ between power and root.
        each!(x, |v| if v == f32::NEG_INFINITY { f32::INFINITY } else { (v + 0.0).sqrt() });
    } else {
        each!(x, |v| v.powf(e));
    }
}

/// Repeats a loop for each operation, so that each has machine code of its own.
macro_rules! for_binary {
    ($op:expr, $f:ident => $body:expr) => {
        for_binary!(@arms $op, $f, $body;
            Add |a: f32, b: f32| a + b;
            Sub |a: f32, b: f32| a - b;
            Mul |a: f32, b: f32| a * b;
            Div |a: f32, b: f32| a / b;
            Max |a: f32, b: f32| math::max(a, b);
            Min |a: f32, b: f32| math::min(a, b);)
    };
    (@arms $op:expr, $f:ident, $body:expr; $($name:ident $function:expr;)*) => {
        match $op {
            $(Binary::$name => {
                let $f = $function;
                $body
            })*
        }
    };
}

#[inline(always)]
fn zip_body<const FMA: bool>(op: Binary, a: &[f32], b: &[f32], y: &mut [f32]) {
    for_binary!(op, f => y.iter_mut().zip(a).zip(b).for_each(|((y, a), b)| *y = f(*a, *b)))
}

#[inline(always)]
fn zip_in_place_body<const FMA: bool>(op: Binary, a: &mut [f32], b: &[f32]) {
    for_binary!(op, f => a.iter_mut().zip(b).for_each(|(a, b)| *a = f(*a, *b)))
}

#[inline(always)]
fn zip_into_right_body<const FMA: bool>(op: Binary, a: &[f32], b: &mut [f32]) {
    for_binary!(op, f => b.iter_mut().zip(a).for_each(|(b, a)| *b = f(*a, *b)))
}

#[inline(always)]
fn scalar_body<const FMA: bool>(op: Binary, x: &[f32], s: f32, y: &mut [f32]) {
    for_binary!(op, f => y.iter_mut().zip(x).for_each(|(y, x)| *y = f(*x, s)))
}

#[inline(always)]
fn scalar_left_body<const FMA: bool>(op: Binary, s: f32, x: &[f32], y: &mut [f32]) {
    for_binary!(op, f => y.iter_mut().zip(x).for_each(|(y, x)| *y = f(s, *x)))
}

#[inline(always)]
fn scalar_in_place_body<const FMA: bool>(op: Binary, x: &mut [f32], s: f32) {
    for_binary!(op, f => x.iter_mut().for_each(|x| *x = f(*x, s)))
}

#[inline(always)]
fn scalar_left_in_place_body<const FMA: bool>(op: Binary, s: f32, x: &mut [f32]) {
    for_binary!(op, f => x.iter_mut().for_each(|x| *x = f(s, *x)))
}

#[inline(always)]
fn mul_add_body<const FMA: bool>(a: &[f32], b: &[f32], y: &mut [f32]) {
    for ((y, a), b) in y.iter_mut().zip(a).zip(b) {
        *y = fma::<FMA>(*a, *b, *y);
    }
}

#[inline(always)]
fn add_scaled_body<const FMA: bool>(a: &[f32], s: f32, y: &mut [f32]) {
    for (y, a) in y.iter_mut().zip(a) {
        *y = fma::<FMA>(*a, s, *y);
    }
}

#[inline(always)]
fn bf16_to_f32_body<const FMA: bool>(x: &[bf16], y: &mut [f32]) {
    for (y, x) in y.iter_mut().zip(x) {
        *y = f32::from_bits((x.to_bits() as u32) << 16);
    }
}

#[inline(always)]
fn f32_to_bf16_body<const FMA: bool>(x: &[f32], y: &mut [bf16]) {
    for (y, x) in y.iter_mut().zip(x) {
        let bits = x.to_bits();
        let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16;
        // A NaN keeps its sign and gets a quiet bit, which rounding could carry away.
        let nan = (bits >> 16) | 0x40;
        *y = bf16::from_bits(if x.is_nan() { nan } else { rounded } as u16);
    }
}
