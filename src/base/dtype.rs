//! Element types: one table of names, sizes and kinds.
//!
//! The *small* types (integers of 4 and 2 bits, floats of 8 and 4 bits) are stored, moved and converted, and never
//! computed with. One element takes one byte in memory, on every device: a small integer is its value, sign-extended, and
//! an `f4e2m1` is its code in the low four bits. ONNX files pack elements of less than 8 bits, low bits first; `onnx/tensor.rs`
//! unpacks and packs them. The Rust forms and the conversion rules are in `small.rs`.

use crate::base::small;
use std::fmt;

/// The type of one element of a tensor. The numbers are stored in engines and are never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum DType {
    F32 = 1,
    F16 = 2,
    BF16 = 3,
    F64 = 4,
    I8 = 5,
    U8 = 6,
    I16 = 7,
    U16 = 8,
    I32 = 9,
    U32 = 10,
    I64 = 11,
    U64 = 12,
    Bool = 13,
    I4 = 14,
    U4 = 15,
    I2 = 16,
    U2 = 17,
    /// 4 bits of exponent, 3 of mantissa, no infinity.
    F8E4M3FN = 18,
    /// As before, with another bias and one NaN in place of the negative zero.
    F8E4M3FNUZ = 19,
    /// 5 bits of exponent, 2 of mantissa, with infinities.
    F8E5M2 = 20,
    F8E5M2FNUZ = 21,
    /// 2 bits of exponent, 1 of mantissa, no NaN and no infinity.
    F4E2M1 = 22,
    /// A power of two: an exponent alone.
    F8E8M0 = 23,
}

impl DType {
    pub const ALL: [DType; 23] = [
        DType::F32,
        DType::F16,
        DType::BF16,
        DType::F64,
        DType::I8,
        DType::U8,
        DType::I16,
        DType::U16,
        DType::I32,
        DType::U32,
        DType::I64,
        DType::U64,
        DType::Bool,
        DType::I4,
        DType::U4,
        DType::I2,
        DType::U2,
        DType::F8E4M3FN,
        DType::F8E4M3FNUZ,
        DType::F8E5M2,
        DType::F8E5M2FNUZ,
        DType::F4E2M1,
        DType::F8E8M0,
    ];

    /// Bytes of one element in memory.
    pub const fn size(self) -> usize {
        match self {
            DType::F16 | DType::BF16 | DType::I16 | DType::U16 => 2,
            DType::F32 | DType::I32 | DType::U32 => 4,
            DType::F64 | DType::I64 | DType::U64 => 8,
            _ => 1,
        }
    }

    /// Bits of one element in an ONNX file: fewer than in memory for the types under 8 bits.
    pub const fn bits(self) -> usize {
        match self {
            DType::I4 | DType::U4 | DType::F4E2M1 => 4,
            DType::I2 | DType::U2 => 2,
            d => 8 * d.size(),
        }
    }

    /// Short lower-case name, as printed in dumps and logs.
    pub const fn name(self) -> &'static str {
        match self {
            DType::F32 => "f32",
            DType::F16 => "f16",
            DType::BF16 => "bf16",
            DType::F64 => "f64",
            DType::I8 => "i8",
            DType::U8 => "u8",
            DType::I16 => "i16",
            DType::U16 => "u16",
            DType::I32 => "i32",
            DType::U32 => "u32",
            DType::I64 => "i64",
            DType::U64 => "u64",
            DType::Bool => "bool",
            DType::I4 => "i4",
            DType::U4 => "u4",
            DType::I2 => "i2",
            DType::U2 => "u2",
            DType::F8E4M3FN => "f8e4m3fn",
            DType::F8E4M3FNUZ => "f8e4m3fnuz",
            DType::F8E5M2 => "f8e5m2",
            DType::F8E5M2FNUZ => "f8e5m2fnuz",
            DType::F4E2M1 => "f4e2m1",
            DType::F8E8M0 => "f8e8m0",
        }
    }

    pub fn from_name(name: &str) -> Option<DType> {
        Self::ALL.into_iter().find(|d| d.name() == name)
    }

    /// The type with this stored number.
    pub fn from_code(code: u8) -> Option<DType> {
        Self::ALL.into_iter().find(|d| *d as u8 == code)
    }

    /// A floating-point type that is computed with; the small ones are not.
    pub const fn is_float(self) -> bool {
        matches!(self, DType::F32 | DType::F16 | DType::BF16 | DType::F64)
    }

    /// A floating-point type of 8 or 4 bits: it is moved, converted, quantized to and from, and nothing else.
    pub const fn is_small_float(self) -> bool {
        matches!(
            self,
            DType::F8E4M3FN | DType::F8E4M3FNUZ | DType::F8E5M2 | DType::F8E5M2FNUZ | DType::F4E2M1 | DType::F8E8M0
        )
    }

    /// An 8-bit floating-point type with a mantissa.
    pub const fn is_f8(self) -> bool {
        matches!(self, DType::F8E4M3FN | DType::F8E4M3FNUZ | DType::F8E5M2 | DType::F8E5M2FNUZ)
    }

    /// Its values are floating-point numbers, whether computed with or not.
    pub const fn is_float_like(self) -> bool {
        self.is_float() || self.is_small_float()
    }

    /// An integer type of 4 or 2 bits; it is treated as the small floats are.
    pub const fn is_small_int(self) -> bool {
        matches!(self, DType::I4 | DType::U4 | DType::I2 | DType::U2)
    }

    /// A type that is stored, moved and converted, and never computed with.
    pub const fn is_small(self) -> bool {
        self.is_small_float() || self.is_small_int()
    }

    /// Any integer type that is computed with, 8 to 64 bits; bool is not one.
    pub const fn is_int(self) -> bool {
        !self.is_float() && !self.is_small() && !matches!(self, DType::Bool)
    }

    /// Has negative numbers.
    pub const fn is_signed(self) -> bool {
        match self {
            DType::I8 | DType::I16 | DType::I32 | DType::I64 | DType::I4 | DType::I2 => true,
            DType::F8E8M0 => false,
            d => d.is_float_like(),
        }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A Rust type that is the host form of one [`DType`].
pub trait Element: Copy + Send + Sync + Default + PartialEq + fmt::Debug + 'static {
    const DTYPE: DType;
}

macro_rules! elements {
    ($($t:ty => $d:ident),* $(,)?) => { $(impl Element for $t { const DTYPE: DType = DType::$d; })* };
}
elements!(f32 => F32, half::f16 => F16, half::bf16 => BF16, f64 => F64, i8 => I8, u8 => U8, i16 => I16, u16 => U16,
          i32 => I32, u32 => U32, i64 => I64, u64 => U64, bool => Bool,
          small::I4 => I4, small::U4 => U4, small::I2 => I2, small::U2 => U2, small::F8E4M3FN => F8E4M3FN,
          small::F8E4M3FNUZ => F8E4M3FNUZ, small::F8E5M2 => F8E5M2, small::F8E5M2FNUZ => F8E5M2FNUZ,
          small::F4E2M1 => F4E2M1, small::F8E8M0 => F8E8M0);

/// Runs the body with `$T` bound to the Rust type of a [`DType`]: `dispatch!(dtype, T => tensor.slice::<T>().len())`.
#[macro_export]
macro_rules! dispatch {
    ($dtype:expr, $T:ident => $body:expr) => {
        match $dtype {
            $crate::base::DType::F32 => { type $T = f32; $body }
            $crate::base::DType::F16 => { type $T = half::f16; $body }
            $crate::base::DType::BF16 => { type $T = half::bf16; $body }
            $crate::base::DType::F64 => { type $T = f64; $body }
            $crate::base::DType::I8 => { type $T = i8; $body }
            $crate::base::DType::U8 => { type $T = u8; $body }
            $crate::base::DType::I16 => { type $T = i16; $body }
            $crate::base::DType::U16 => { type $T = u16; $body }
            $crate::base::DType::I32 => { type $T = i32; $body }
            $crate::base::DType::U32 => { type $T = u32; $body }
            $crate::base::DType::I64 => { type $T = i64; $body }
            $crate::base::DType::U64 => { type $T = u64; $body }
            $crate::base::DType::Bool => { type $T = bool; $body }
            $crate::base::DType::I4 => { type $T = $crate::base::small::I4; $body }
            $crate::base::DType::U4 => { type $T = $crate::base::small::U4; $body }
            $crate::base::DType::I2 => { type $T = $crate::base::small::I2; $body }
            $crate::base::DType::U2 => { type $T = $crate::base::small::U2; $body }
            $crate::base::DType::F8E4M3FN => { type $T = $crate::base::small::F8E4M3FN; $body }
            $crate::base::DType::F8E4M3FNUZ => { type $T = $crate::base::small::F8E4M3FNUZ; $body }
            $crate::base::DType::F8E5M2 => { type $T = $crate::base::small::F8E5M2; $body }
            $crate::base::DType::F8E5M2FNUZ => { type $T = $crate::base::small::F8E5M2FNUZ; $body }
            $crate::base::DType::F4E2M1 => { type $T = $crate::base::small::F4E2M1; $body }
            $crate::base::DType::F8E8M0 => { type $T = $crate::base::small::F8E8M0; $body }
        }
    };
}

/// As [`dispatch!`] for the types that are computed with (and bool); `else` runs for the small ones.
#[macro_export]
macro_rules! dispatch_plain {
    ($dtype:expr, $T:ident => $body:expr, else $other:expr) => {
        match $dtype {
            $crate::base::DType::F32 => { type $T = f32; $body }
            $crate::base::DType::F16 => { type $T = half::f16; $body }
            $crate::base::DType::BF16 => { type $T = half::bf16; $body }
            $crate::base::DType::F64 => { type $T = f64; $body }
            $crate::base::DType::I8 => { type $T = i8; $body }
            $crate::base::DType::U8 => { type $T = u8; $body }
            $crate::base::DType::I16 => { type $T = i16; $body }
            $crate::base::DType::U16 => { type $T = u16; $body }
            $crate::base::DType::I32 => { type $T = i32; $body }
            $crate::base::DType::U32 => { type $T = u32; $body }
            $crate::base::DType::I64 => { type $T = i64; $body }
            $crate::base::DType::U64 => { type $T = u64; $body }
            $crate::base::DType::Bool => { type $T = bool; $body }
            _ => $other,
        }
    };
}
