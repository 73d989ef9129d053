//! Element types: one table of names, sizes and kinds.

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
}

impl DType {
    pub const ALL: [DType; 13] = [
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
    ];

    /// Bytes of one element.
    pub const fn size(self) -> usize {
        match self {
            DType::I8 | DType::U8 | DType::Bool => 1,
            DType::F16 | DType::BF16 | DType::I16 | DType::U16 => 2,
            DType::F32 | DType::I32 | DType::U32 => 4,
            DType::F64 | DType::I64 | DType::U64 => 8,
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
        }
    }

    pub fn from_name(name: &str) -> Option<DType> {
        Self::ALL.into_iter().find(|d| d.name() == name)
    }

    /// The type with this stored number.
    pub fn from_code(code: u8) -> Option<DType> {
        Self::ALL.into_iter().find(|d| *d as u8 == code)
    }

    pub const fn is_float(self) -> bool {
        matches!(self, DType::F32 | DType::F16 | DType::BF16 | DType::F64)
    }

    /// Any integer type; bool is not one.
    pub const fn is_int(self) -> bool {
        !self.is_float() && !matches!(self, DType::Bool)
    }

    pub const fn is_signed(self) -> bool {
        self.is_float() || matches!(self, DType::I8 | DType::I16 | DType::I32 | DType::I64)
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
          i32 => I32, u32 => U32, i64 => I64, u64 => U64, bool => Bool);

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
        }
    };
}
