//! The two types that floating-point references compute in: f32 (for f32, f16, bf16) and f64.

use crate::base::dtype::Element;
use crate::base::tensor::Scalar;
use crate::base::{DType, Tensor};
use std::borrow::Cow;
use std::ops::{Add, AddAssign, Div, Mul, Neg, Sub};

/// f32 or f64, so that one text serves both and each step rounds as the type does.
pub trait Real:
    Scalar
    + PartialOrd
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
    + AddAssign
{
    fn of(v: f64) -> Self;
    fn f64(self) -> f64;
    fn floor(self) -> Self;
    fn ceil(self) -> Self;
    fn trunc(self) -> Self;
    /// Half goes to the even neighbour.
    fn round_even(self) -> Self;
    /// Half goes away from zero.
    fn round_away(self) -> Self;

    /// Between `lo` and `hi`; a NaN becomes `lo`.
    fn within(self, lo: Self, hi: Self) -> Self {
        if self > hi {
            hi
        } else if self >= lo {
            self
        } else {
            lo
        }
    }
}

macro_rules! real {
    ($t:ident) => {
        impl Real for $t {
            fn of(v: f64) -> Self {
                v as $t
            }
            fn f64(self) -> f64 {
                self as f64
            }
            fn floor(self) -> Self {
                $t::floor(self)
            }
            fn ceil(self) -> Self {
                $t::ceil(self)
            }
            fn trunc(self) -> Self {
                $t::trunc(self)
            }
            fn round_even(self) -> Self {
                $t::round_ties_even(self)
            }
            fn round_away(self) -> Self {
                $t::round(self)
            }
        }
    };
}
real!(f32);
real!(f64);

/// The elements as `R`, without a copy where they are of that type.
pub fn reals<R: Real>(t: &Tensor) -> Cow<'_, [R]> {
    if t.dtype() == R::DTYPE { Cow::Borrowed(t.slice::<R>()) } else { Cow::Owned(t.cast(R::DTYPE).slice::<R>().to_vec()) }
}

/// The type that a reference of this type computes in.
pub fn compute_type(dtype: DType) -> DType {
    if dtype == DType::F64 { DType::F64 } else { DType::F32 }
}

/// Runs the body with `$R` bound to the [`Real`] that a type is computed in.
#[macro_export]
macro_rules! dispatch_real {
    ($dtype:expr, $R:ident => $body:expr) => {
        if $crate::base::real::compute_type($dtype) == $crate::base::DType::F64 {
            type $R = f64;
            $body
        } else {
            type $R = f32;
            $body
        }
    };
}

/// The elements rounded to `dtype`.
pub fn tensor_of<R: Element>(dtype: DType, shape: &[usize], values: &[R]) -> Tensor {
    let t = Tensor::from_slice(shape, values);
    if dtype == R::DTYPE { t } else { t.cast(dtype) }
}
