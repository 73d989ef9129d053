//! Programs' functions over blocks of integers, bools and f64, and conversions between block types.
//!
//! Operands are as in `f32.rs`: slices of the result's length, or of length 1. Half precision never comes here: its
//! registers are f32 blocks.

use crate::base::tensor::{Scalar, convert};
use crate::ops::pointwise::Func;
use crate::ops::pointwise::eval::{float_func, int_func};

#[inline(always)]
fn at<T: Copy>(s: &[T], i: usize) -> T {
    s[if s.len() == 1 { 0 } else { i }]
}

#[inline(always)]
pub(super) fn map<T: Copy, R>(out: &mut [R], a: &[T], f: impl Fn(T) -> R) {
    for (o, a) in out.iter_mut().zip(a) {
        *o = f(*a);
    }
}

#[inline(always)]
fn zip<T: Copy, R>(out: &mut [R], a: &[T], b: &[T], f: impl Fn(T, T) -> R) {
    let n = out.len();
    if a.len() == n && b.len() == n {
        for ((o, a), b) in out.iter_mut().zip(a).zip(b) {
            *o = f(*a, *b);
        }
    } else {
        for (i, o) in out.iter_mut().enumerate() {
            *o = f(at(a, i), at(b, i));
        }
    }
}

/// An element type of a block, other than f32.
pub(super) trait Block: Scalar {
    /// `out[i] = func(a[i], b[i], c[i])`, functions of fewer arguments getting any operand for the rest.
    fn call(func: Func, out: &mut [Self], a: &[Self], b: &[Self], c: &[Self]);
    /// A comparison or test, as 0 or 1.
    fn test(func: Func, out: &mut [u8], a: &[Self], b: &[Self], c: &[Self]);
}

/// `out[i] = cond[i] ? a[i] : b[i]`.
pub(super) fn select<T: Copy>(out: &mut [T], cond: &[u8], a: &[T], b: &[T]) {
    for (i, o) in out.iter_mut().enumerate() {
        *o = if at(cond, i) != 0 { at(a, i) } else { at(b, i) };
    }
}

/// Conversion of a block, with the rules of `base::tensor::convert`.
pub(super) fn cast<S: Scalar, D: Scalar>(out: &mut [D], a: &[S]) {
    for (o, a) in out.iter_mut().zip(a) {
        *o = convert(*a);
    }
}

fn compare<T: PartialOrd + Copy>(func: Func, out: &mut [u8], a: &[T], b: &[T]) {
    match func {
        Func::Equal => zip(out, a, b, |x, y| (x == y) as u8),
        Func::Less => zip(out, a, b, |x, y| (x < y) as u8),
        Func::LessEqual => zip(out, a, b, |x, y| (x <= y) as u8),
        Func::Greater => zip(out, a, b, |x, y| (x > y) as u8),
        _ => zip(out, a, b, |x, y| (x >= y) as u8),
    }
}

macro_rules! int_blocks {
    ($($t:ty),*) => { $(impl Block for $t {
        fn call(func: Func, out: &mut [$t], a: &[$t], b: &[$t], c: &[$t]) {
            match func {
                Func::Add => zip(out, a, b, |x, y| x.wrapping_add(y)),
                Func::Sub => zip(out, a, b, |x, y| x.wrapping_sub(y)),
                Func::Mul => zip(out, a, b, |x, y| x.wrapping_mul(y)),
                Func::Max => zip(out, a, b, |x, y| x.max(y)),
                Func::Min => zip(out, a, b, |x, y| x.min(y)),
                Func::BitAnd => zip(out, a, b, |x, y| x & y),
                Func::BitOr => zip(out, a, b, |x, y| x | y),
                Func::BitXor => zip(out, a, b, |x, y| x ^ y),
                _ => {
                    for (i, o) in out.iter_mut().enumerate() {
                        let r = int_func(func, <$t>::DTYPE, at(a, i) as i128, at(b, i) as i128, at(c, i) as i128);
                        *o = r as $t;
                    }
                }
            }
        }
        fn test(func: Func, out: &mut [u8], a: &[$t], b: &[$t], _c: &[$t]) {
            compare(func, out, a, b)
        }
    })* };
}
use crate::base::dtype::Element;
int_blocks!(i8, u8, i16, u16, i32, u32, i64, u64);

impl Block for f64 {
    fn call(func: Func, out: &mut [f64], a: &[f64], b: &[f64], c: &[f64]) {
        match func {
            Func::Add => zip(out, a, b, |x, y| x + y),
            Func::Sub => zip(out, a, b, |x, y| x - y),
            Func::Mul => zip(out, a, b, |x, y| x * y),
            Func::Div => zip(out, a, b, |x, y| x / y),
            _ => {
                for (i, o) in out.iter_mut().enumerate() {
                    *o = float_func(func, at(a, i), at(b, i), at(c, i));
                }
            }
        }
    }
    fn test(func: Func, out: &mut [u8], a: &[f64], b: &[f64], c: &[f64]) {
        match func {
            Func::IsNan | Func::IsInf => {
                for (i, o) in out.iter_mut().enumerate() {
                    *o = (float_func(func, at(a, i), at(b, i), at(c, i)) != 0.0) as u8;
                }
            }
            _ => compare(func, out, a, b),
        }
    }
}

/// Logic over bytes that are 0 or 1; comparisons of bools are those of u8.
pub(super) fn logic(func: Func, out: &mut [u8], a: &[u8], b: &[u8]) {
    match func {
        Func::And => zip(out, a, b, |x, y| x & y),
        Func::Or => zip(out, a, b, |x, y| x | y),
        Func::Xor => zip(out, a, b, |x, y| x ^ y),
        Func::Not => zip(out, a, a, |x, _| x ^ 1),
        _ => compare(func, out, a, b),
    }
}
