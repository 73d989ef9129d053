//! The small element types: Rust forms of one byte each, and how numbers are rounded to them.
//!
//! Conversions follow ONNX's Cast. A number becomes a small integer by truncation, of which the low bits are kept; one
//! that is not finite becomes 0. It becomes a small float by rounding once, to nearest with ties to even; what lies
//! outside of the range becomes the largest number, or with [`CastMode::saturate`] off an infinity or NaN as the type has
//! them. An `f4e2m1` always saturates, and NaN becomes its negative zero. `f8e8m0` has three ways to round.

use crate::base::dtype::Element;
use crate::base::tensor::{Number, Scalar};
use crate::base::{DType, Result};
use std::fmt;

/// How a power of two is rounded to; numbers as in [`CastMode::code`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PowerRound {
    /// Away from zero: the default.
    #[default]
    Up,
    Down,
    /// To the nearest; ties go up.
    Nearest,
}

/// What ONNX's Cast says beyond the type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CastMode {
    /// Out-of-range numbers become the largest one of the 8-bit floats.
    pub saturate: bool,
    /// For `f8e8m0`.
    pub round: PowerRound,
}

impl Default for CastMode {
    fn default() -> Self {
        CastMode { saturate: true, round: PowerRound::Up }
    }
}

impl CastMode {
    /// The mode as a small number, 0 for the default; the device code in `kernels/common/small.cuh` takes the same.
    pub fn code(self) -> u8 {
        !self.saturate as u8 | (self.round as u8) << 1
    }

    pub fn from_code(code: u8) -> Option<CastMode> {
        let round = match code >> 1 {
            0 => PowerRound::Up,
            1 => PowerRound::Down,
            2 => PowerRound::Nearest,
            _ => return None,
        };
        Some(CastMode { saturate: code & 1 == 0, round })
    }

    /// From the attributes of Cast.
    pub fn new(saturate: bool, round: &str) -> Result<CastMode> {
        let round = match round {
            "up" => PowerRound::Up,
            "down" => PowerRound::Down,
            "nearest" => PowerRound::Nearest,
            r => crate::bail!(InvalidArgument, "attribute round_mode: expected up, down or nearest, got {r:?}"),
        };
        Ok(CastMode { saturate, round })
    }

    /// The mode as far as a destination type looks at it.
    pub fn for_type(self, to: DType) -> CastMode {
        CastMode {
            saturate: self.saturate || !(to.is_f8() || to == DType::F8E8M0),
            round: if to == DType::F8E8M0 { self.round } else { PowerRound::Up },
        }
    }
}

// ---- integers of 4 and 2 bits ---------------------------------------------------------------------------------------

macro_rules! small_ints {
    ($($(#[$m:meta])* $t:ident: $repr:ty, $bits:literal;)*) => { $(
        $(#[$m])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
        #[repr(transparent)]
        pub struct $t(pub $repr);

        impl $t {
            pub const BITS: u32 = $bits;

            /// The low bits of an integer.
            pub fn wrap(v: i64) -> Self {
                // The highest bit that is kept moves to the sign and back.
                $t((v as $repr) << (8 - $bits) >> (8 - $bits))
            }
        }

        impl Scalar for $t {
            fn to_number(self) -> Number {
                if <$repr>::MIN == 0 { Number::Uint(self.0 as u64) } else { Number::Int(self.0 as i64) }
            }
            fn from_number(n: Number) -> Self {
                Self::wrap(match n {
                    Number::Float(v) if v.is_finite() => v as i64,
                    Number::Float(_) => 0,
                    Number::Int(v) => v,
                    Number::Uint(v) => v as i64,
                })
            }
        }
    )* };
}
small_ints! {
    /// -8 to 7.
    I4: i8, 4;
    /// 0 to 15.
    U4: u8, 4;
    /// -2 to 1.
    I2: i8, 2;
    /// 0 to 3.
    U2: u8, 2;
}

// ---- floats of 8 and 4 bits with a mantissa -------------------------------------------------------------------------

/// What an overflow and NaN become.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Special {
    /// An infinity and NaNs, as IEEE has them.
    Ieee,
    /// NaN has all bits but the sign set; no infinity.
    Fn,
    /// NaN is where the negative zero would be; no infinity.
    Fnuz,
    /// Neither: overflow saturates, NaN becomes the negative zero.
    Finite,
}

/// A format of a sign, an exponent and a mantissa.
#[derive(Clone, Copy, Debug)]
struct Format {
    exponent: u32,
    mantissa: u32,
    bias: i32,
    special: Special,
}

impl Format {
    const fn sign(self) -> u8 {
        1 << (self.exponent + self.mantissa)
    }

    /// Code of the largest finite number.
    const fn largest(self) -> u8 {
        match self.special {
            Special::Ieee => (((1u32 << self.exponent) - 1) << self.mantissa) as u8 - 1,
            Special::Fn => self.sign() - 2,
            Special::Fnuz | Special::Finite => self.sign() - 1,
        }
    }

    fn nan(self, negative: bool) -> u8 {
        let sign = if negative { self.sign() } else { 0 };
        match self.special {
            Special::Ieee => (self.sign() - 1) & !((1 << (self.mantissa - 1)) - 1) | sign,
            Special::Fn => (self.sign() - 1) | sign,
            Special::Fnuz | Special::Finite => self.sign(),
        }
    }

    fn encode(self, v: f64, saturate: bool) -> u8 {
        let negative = v.is_sign_negative();
        if v.is_nan() {
            return self.nan(negative);
        }
        let sign = if negative { self.sign() } else { 0 };
        let a = v.abs();
        let low = 1 - self.bias;
        let e = (((a.to_bits() >> 52) & 0x7ff) as i32 - 1023).max(low);
        let code = if a.is_infinite() || e > self.bias + 1 {
            u32::MAX
        } else {
            // In units of the last place: scaling by a power of two loses nothing.
            let units = (a * power_of_two(self.mantissa as i32 - e)).round_ties_even() as u32;
            units + ((e - low) << self.mantissa) as u32
        };
        match code {
            0 if self.special == Special::Fnuz => 0,
            c if c <= self.largest() as u32 => c as u8 | sign,
            _ if saturate || self.special == Special::Finite => self.largest() | sign,
            _ if self.special == Special::Ieee => (self.largest() + 1) | sign,
            _ => self.nan(negative),
        }
    }

    fn decode(self, code: u8) -> f64 {
        let (negative, mag) = (code & self.sign() != 0, code & (self.sign() - 1));
        if self.special == Special::Fnuz && code == self.sign() {
            return f64::NAN;
        }
        let sign = if negative { -1.0 } else { 1.0 };
        if mag > self.largest() {
            let infinite = self.special == Special::Ieee && mag == self.largest() + 1;
            return if infinite { sign * f64::INFINITY } else { f64::NAN.copysign(sign) };
        }
        let (field, mantissa) = ((mag >> self.mantissa) as i32, (mag & ((1 << self.mantissa) - 1)) as f64);
        let hidden = if field == 0 { 0.0 } else { (1u32 << self.mantissa) as f64 };
        sign * (hidden + mantissa) * power_of_two(field.max(1) - self.bias - self.mantissa as i32)
    }
}

/// 2^e for exponents of normal numbers.
fn power_of_two(e: i32) -> f64 {
    f64::from_bits(((e + 1023) as u64) << 52)
}

/// Small floats compare and print as the numbers that they are.
macro_rules! numbers {
    ($t:ident) => {
        impl PartialEq for $t {
            fn eq(&self, other: &Self) -> bool {
                self.to_number().to_f64() == other.to_number().to_f64()
            }
        }
        impl PartialOrd for $t {
            fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
                self.to_number().to_f64().partial_cmp(&other.to_number().to_f64())
            }
        }
        impl fmt::Debug for $t {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", self.to_number().to_f64())
            }
        }
    };
}

macro_rules! small_floats {
    ($($(#[$m:meta])* $t:ident: $exponent:literal, $mantissa:literal, $bias:literal, $special:ident;)*) => { $(
        $(#[$m])*
        #[derive(Clone, Copy, Default)]
        #[repr(transparent)]
        pub struct $t(pub u8);

        numbers!($t);

        impl $t {
            const FORMAT: Format =
                Format { exponent: $exponent, mantissa: $mantissa, bias: $bias, special: Special::$special };

            pub fn encode(v: f64, mode: CastMode) -> Self {
                $t(Self::FORMAT.encode(v, mode.saturate))
            }
        }

        impl Scalar for $t {
            fn to_number(self) -> Number {
                Number::Float(Self::FORMAT.decode(self.0))
            }
            fn from_number(n: Number) -> Self {
                Self::encode(n.to_f64(), CastMode::default())
            }
        }
    )* };
}
small_floats! {
    /// Largest 448.
    F8E4M3FN: 4, 3, 7, Fn;
    /// Largest 240.
    F8E4M3FNUZ: 4, 3, 8, Fnuz;
    /// Largest 57344.
    F8E5M2: 5, 2, 15, Ieee;
    /// Largest 57344.
    F8E5M2FNUZ: 5, 2, 16, Fnuz;
    /// 0, 0.5, 1, 1.5, 2, 3, 4, 6 and their negatives.
    F4E2M1: 2, 1, 1, Finite;
}

// ---- f8e8m0 ---------------------------------------------------------------------------------------------------------

/// 2^(code - 127), NaN for 255. Zero rounds to the smallest; a negative number to NaN.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct F8E8M0(pub u8);

numbers!(F8E8M0);

impl Default for F8E8M0 {
    /// As zeroed memory.
    fn default() -> Self {
        F8E8M0(0)
    }
}

impl F8E8M0 {
    pub fn encode(v: f64, mode: CastMode) -> Self {
        const NAN: u8 = 255;
        const LARGEST: i32 = 254;
        if v.is_nan() || v < 0.0 {
            return F8E8M0(NAN);
        }
        let bits = v.to_bits();
        let (e, mantissa) = ((bits >> 52) as i32 - 1023, bits & ((1 << 52) - 1));
        let up = match mode.round {
            PowerRound::Up => mantissa != 0,
            PowerRound::Down => false,
            PowerRound::Nearest => mantissa >> 51 == 1,
        };
        // Infinity has the largest exponent, zero and what is far too small the smallest.
        let code = e + 127 + up as i32;
        let too_small = v < power_of_two(-127);
        F8E8M0(match code {
            _ if too_small || code < 0 => if mode.saturate { 0 } else { NAN },
            c if c > LARGEST => if mode.saturate { LARGEST as u8 } else { NAN },
            c => c as u8,
        })
    }
}

impl Scalar for F8E8M0 {
    fn to_number(self) -> Number {
        Number::Float(if self.0 == 255 { f64::NAN } else { power_of_two(self.0 as i32 - 127) })
    }
    fn from_number(n: Number) -> Self {
        Self::encode(n.to_f64_odd(), CastMode::default())
    }
}

/// Converts a number to an element type under a mode; [`Scalar::from_number`] is this with the default mode.
pub fn from_number_mode<T: Scalar>(n: Number, mode: CastMode) -> T {
    let byte = match T::DTYPE {
        DType::F8E4M3FN => F8E4M3FN::encode(n.to_f64(), mode).0,
        DType::F8E4M3FNUZ => F8E4M3FNUZ::encode(n.to_f64(), mode).0,
        DType::F8E5M2 => F8E5M2::encode(n.to_f64(), mode).0,
        DType::F8E5M2FNUZ => F8E5M2FNUZ::encode(n.to_f64(), mode).0,
        DType::F8E8M0 => F8E8M0::encode(n.to_f64_odd(), mode).0,
        _ => return T::from_number(n),
    };
    from_byte(byte)
}

/// The element of a one-byte type with this memory.
fn from_byte<T: Element>(byte: u8) -> T {
    debug_assert!(T::DTYPE.size() == 1 && T::DTYPE != DType::Bool);
    // SAFETY: the types that come here are transparent over one byte of any value.
    unsafe { std::mem::transmute_copy(&byte) }
}

/// Brings bytes of a small type from outside to the form that memory has: sign-extended, unused bits zero.
pub fn normalize(dtype: DType, bytes: &mut [u8]) {
    match dtype {
        DType::I4 => bytes.iter_mut().for_each(|b| *b = I4::wrap(*b as i64).0 as u8),
        DType::I2 => bytes.iter_mut().for_each(|b| *b = I2::wrap(*b as i64).0 as u8),
        DType::U4 | DType::F4E2M1 => bytes.iter_mut().for_each(|b| *b &= 15),
        DType::U2 => bytes.iter_mut().for_each(|b| *b &= 3),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::tensor::convert;

    fn f<T: Scalar>(v: f64) -> f64 {
        T::from_number(Number::Float(v)).to_number().to_f64()
    }

    fn code(v: f64, saturate: bool, encode: impl Fn(f64, CastMode) -> u8) -> u8 {
        encode(v, CastMode { saturate, round: PowerRound::Up })
    }

    #[test]
    fn every_code_comes_back() {
        for c in 0..=255u8 {
            macro_rules! check {
                ($t:ident) => {
                    let v = $t(c).to_number().to_f64();
                    let back = $t::encode(v, CastMode { saturate: false, round: PowerRound::Up });
                    assert!(back.0 == c || v.is_nan(), "{c} is {v} and comes back as {}", back.0);
                };
            }
            check!(F8E4M3FN);
            check!(F8E4M3FNUZ);
            check!(F8E5M2);
            check!(F8E5M2FNUZ);
            check!(F8E8M0);
            if c < 16 {
                check!(F4E2M1);
            }
        }
    }

    #[test]
    fn halves_go_to_even_and_overflow_saturates() {
        assert_eq!([f::<F8E4M3FN>(17.0), f::<F8E4M3FN>(19.0), f::<F8E4M3FN>(1e9), f::<F8E4M3FN>(-464.1)], [16.0, 20.0, 448.0, -448.0]);
        assert_eq!([f::<F8E4M3FNUZ>(247.0), f::<F8E4M3FNUZ>(249.0), f::<F8E5M2>(1e9)], [240.0, 240.0, 57344.0]);
        assert_eq!([f::<F4E2M1>(0.25), f::<F4E2M1>(2.5), f::<F4E2M1>(3.5), f::<F4E2M1>(-5.0), f::<F4E2M1>(9.0)], [0.0, 2.0, 4.0, -4.0, 6.0]);
        assert_eq!(F4E2M1::from_number(Number::Float(f64::NAN)).0, 8);
        // The smallest number is 2^-9; half of it goes to zero, which has no sign in the FNUZ types.
        assert_eq!([f::<F8E4M3FN>(2f64.powi(-10)), f::<F8E4M3FN>(1.01 * 2f64.powi(-10))], [0.0, 2f64.powi(-9)]);
        assert_eq!(F8E4M3FNUZ::from_number(Number::Float(-1e-9)).0, 0);
        assert_eq!(F8E4M3FN::from_number(Number::Float(-1e-9)).0, 0x80);
        assert_eq!(code(f64::INFINITY, true, |v, m| F8E5M2::encode(v, m).0), 0x7b);
        assert_eq!(code(f64::NEG_INFINITY, false, |v, m| F8E5M2::encode(v, m).0), 0xfc);
        assert_eq!(code(464.0, false, |v, m| F8E4M3FN::encode(v, m).0), 0x7e);
        assert_eq!(code(465.0, false, |v, m| F8E4M3FN::encode(v, m).0), 0x7f);
        assert_eq!(code(1e9, false, |v, m| F8E5M2FNUZ::encode(v, m).0), 0x80);
        assert_eq!(code(f64::NAN, true, |v, m| F8E5M2::encode(v, m).0), 0x7e);
    }

    #[test]
    fn powers_of_two_round_as_asked() {
        let mode = |round, saturate| CastMode { round, saturate };
        let at = |v: f64, m| F8E8M0::encode(v, m).0 as i32 - 127;
        use PowerRound::*;
        assert_eq!([at(1.1, mode(Up, true)), at(1.9, mode(Down, true)), at(1.5, mode(Nearest, true)), at(1.4, mode(Nearest, true))], [1, 0, 1, 0]);
        assert_eq!([at(0.0, mode(Up, true)), at(f64::INFINITY, mode(Up, true)), at(f64::MAX, mode(Up, true))], [-127, 127, 127]);
        for v in [0.0, f64::INFINITY, f64::NAN, -1.0, 1e39, 1e-39] {
            assert_eq!(F8E8M0::encode(v, mode(Nearest, false)).0, 255, "{v}");
        }
    }

    #[test]
    fn small_integers_keep_the_low_bits() {
        let i: Vec<i8> = [-9.0, 8.9, 300.0, -2.9, f64::NAN].map(|v| I4::from_number(Number::Float(v)).0).to_vec();
        assert_eq!(i, [7, -8, -4, -2, 0]);
        assert_eq!([-3i64, 2, 5].map(|v| convert::<i64, I2>(v).0), [1, -2, 1]);
        assert_eq!([-1i64, 17, 3].map(|v| (convert::<i64, U4>(v).0, convert::<i64, U2>(v).0)), [(15, 3), (1, 1), (3, 3)]);
        let mut b = [0x0f, 0x73];
        normalize(DType::I4, &mut b);
        assert_eq!(b, [0xff, 3]);
    }

    #[test]
    fn modes_have_codes() {
        for c in 0..6 {
            assert_eq!(CastMode::from_code(c).map(CastMode::code), Some(c));
        }
        assert_eq!((CastMode::from_code(6), CastMode::default().code()), (None, 0));
    }
}
