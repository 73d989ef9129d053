//! Elementary functions of one f32, without branches, so that a loop over them becomes vector code.
//!
//! Errors are in units of the last place of the f32 result, measured by the tests on dense grids in both forms (with
//! and without fused multiply-add): exp, log, tanh, sigmoid and erf within [`MAX_ULP`]. NaN gives NaN.
//! Coefficients are Taylor terms, or were fitted to Chebyshev nodes in f64 for this file.

use super::super::multiversion::fma;

/// Bound of the error of the elementary functions.
pub const MAX_ULP: f64 = 2.5;

/// 1.5 * 2^23: adding it leaves the nearest integer in the low bits of the sum.
const ROUND: f32 = 12582912.0;
const LN2_HI: f32 = 0.693_359_4;
const LN2_LO: f32 = -2.121_944_4e-4;

/// `if` without a branch that keeps a NaN of `x`.
#[inline(always)]
pub fn clip(x: f32, lo: f32, hi: f32) -> f32 {
    let x = if x < lo { lo } else { x };
    if x > hi { hi } else { x }
}

/// Larger of two; NaN if one is NaN.
#[inline(always)]
pub fn max(a: f32, b: f32) -> f32 {
    if a > b || a.is_nan() { a } else { b }
}

/// Smaller of two; NaN if one is NaN.
#[inline(always)]
pub fn min(a: f32, b: f32) -> f32 {
    if a < b || a.is_nan() { a } else { b }
}

/// 2^n for n in -126 ..= 127.
#[inline(always)]
fn pow2(n: i32) -> f32 {
    f32::from_bits((n.wrapping_add(127) << 23) as u32)
}

/// x = n ln 2 + r with |r| <= ln 2 / 2: (n, r).
#[inline(always)]
fn reduce<const FMA: bool>(x: f32) -> (i32, f32) {
    let t = fma::<FMA>(x, std::f32::consts::LOG2_E, ROUND);
    let n = (t.to_bits() as i32).wrapping_sub(ROUND.to_bits() as i32);
    let t = t - ROUND;
    (n, fma::<FMA>(t, -LN2_LO, fma::<FMA>(t, -LN2_HI, x)))
}

/// (e^r - 1 - r) / r^2 for |r| <= 0.35: Taylor terms to r^7, whose rest is below 1e-8.
#[inline(always)]
fn exp_rest<const FMA: bool>(r: f32) -> f32 {
    let mut p = 1.0 / 5040.0;
    for c in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5] {
        p = fma::<FMA>(p, r, c);
    }
    p
}

/// e^x; denormal results, 0 and infinity included.
#[inline(always)]
pub fn exp<const FMA: bool>(x: f32) -> f32 {
    let (n, r) = reduce::<FMA>(clip(x, -105.0, 89.0));
    let p = fma::<FMA>(exp_rest::<FMA>(r), r * r, r) + 1.0;
    // In two factors: 2^128 and 2^-150 are no floats.
    let half = n >> 1;
    p * pow2(half) * pow2(n.wrapping_sub(half))
}

/// e^x - 1 for 0 <= x <= 40.
#[inline(always)]
fn exp_minus_1<const FMA: bool>(x: f32) -> f32 {
    let (n, r) = reduce::<FMA>(x);
    let p = fma::<FMA>(exp_rest::<FMA>(r), r * r, r);
    let scale = pow2(n);
    fma::<FMA>(p, scale, scale - 1.0)
}

/// Natural logarithm: -inf at 0, NaN below.
#[inline(always)]
pub fn log<const FMA: bool>(x: f32) -> f32 {
    let is_tiny = x < f32::MIN_POSITIVE;
    let scaled = if is_tiny { x * 8_388_608.0 } else { x };
    let bits = scaled.to_bits() as i32;
    // Mantissa in [sqrt(1/2), sqrt(2)), so that log of a number near 1 has no exponent part to cancel.
    const SQRT_HALF: i32 = 0x3f35_04f3;
    let e = bits.wrapping_sub(SQRT_HALF) >> 23;
    let m = f32::from_bits(bits.wrapping_sub(e << 23) as u32);
    let e = (e - if is_tiny { 23 } else { 0 }) as f32;
    // log(1 + f) = f - f^2/2 + s (f^2/2 + R(s^2)) with s = f / (2 + f), R = 2/3 z + 2/5 z^2 + ....
    let f = m - 1.0;
    let s = f / (2.0 + f);
    let z = s * s;
    let half_square = 0.5 * f * f;
    let mut r = 2.0 / 11.0;
    for c in [2.0 / 9.0, 2.0 / 7.0, 2.0 / 5.0, 2.0 / 3.0] {
        r = fma::<FMA>(r, z, c);
    }
    let tail = fma::<FMA>(s, half_square + r * z, e * LN2_LO) - half_square;
    let y = fma::<FMA>(e, LN2_HI, f + tail);
    let y = if x == f32::INFINITY { x } else { y };
    let y = if x == 0.0 { f32::NEG_INFINITY } else { y };
    if x < 0.0 || x.is_nan() { f32::NAN } else { y }
}

/// Hyperbolic tangent.
#[inline(always)]
pub fn tanh<const FMA: bool>(x: f32) -> f32 {
    let a = x.abs();
    let e = exp_minus_1::<FMA>(2.0 * if a > 10.0 { 10.0 } else { a });
    (e / (e + 2.0)).copysign(x)
}

/// 1 / (1 + e^-x).
#[inline(always)]
pub fn sigmoid<const FMA: bool>(x: f32) -> f32 {
    let e = exp::<FMA>(-x.abs());
    (if x < 0.0 { e } else { 1.0 }) / (1.0 + e)
}

/// Error function.
#[inline(always)]
pub fn erf<const FMA: bool>(x: f32) -> f32 {
    let a = x.abs();
    // To 1: x + x Q(x^2).
    let t = x * x;
    let mut q = -9.673_590_3e-6;
    for c in [1.126_825_4e-4, -8.484_396e-4, 5.221_053_5e-3, -2.686_543_8e-2, 0.112_837_83, -0.376_126_38, 0.128_379_17] {
        q = fma::<FMA>(q, t, c);
    }
    let near = fma::<FMA>(q, x, x);
    // From 1 to 4: 1 - e^-g(x), g fitted around 2.5; erf(4) rounds to 1.
    let v = if a > 4.0 { 4.0 } else { a } - 2.5;
    let mut g = -1.614_061_6e-6;
    for c in [
        1.330_939e-5,
        -7.739_442_7e-5,
        4.201_445_6e-4,
        -2.165_160_4e-3,
        1.085_851_7e-2,
        0.943_893_6,
        5.352_680_7,
        7.806_815,
    ] {
        g = fma::<FMA>(g, v, c);
    }
    let far = (1.0 - exp::<FMA>(-g)).copysign(x);
    if a < 1.0 { near } else { far }
}

/// log(1 + e^x).
#[inline(always)]
pub fn softplus<const FMA: bool>(x: f32) -> f32 {
    let e = exp::<FMA>(-x.abs());
    let u = 1.0 + e;
    // The rounding of 1 + e is made good to first order.
    let log1p = log::<FMA>(u) + (e - (u - 1.0)) / u;
    (if x > 0.0 { x } else { 0.0 }) + log1p
}

/// x / 2 (1 + erf(x / sqrt 2)).
#[inline(always)]
pub fn gelu<const FMA: bool>(x: f32) -> f32 {
    0.5 * x * (1.0 + erf::<FMA>(x * std::f32::consts::FRAC_1_SQRT_2))
}

/// The approximation of GELU by a hyperbolic tangent.
#[inline(always)]
pub fn gelu_tanh<const FMA: bool>(x: f32) -> f32 {
    const SQRT_2_OVER_PI: f32 = 0.797_884_6;
    let inner = SQRT_2_OVER_PI * fma::<FMA>(0.044715 * x * x, x, x);
    0.5 * x * (1.0 + tanh::<FMA>(inner))
}
