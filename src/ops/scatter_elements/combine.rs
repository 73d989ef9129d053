//! How a scatter joins an update with what it finds, shared by the operators that scatter.

use crate::attr_enum;
use crate::base::dtype::Element;
use crate::base::tensor::{Number, Scalar};
use crate::base::{DType, Result};
use crate::ops::{ImportCx, KernelSpec};
use crate::err;

attr_enum! {
    /// How a scatter joins an update with what it finds. On bools `Add` and `Max` are "or", `Mul` and `Min` are "and".
    pub enum Combine { None = "none", Add = "add", Mul = "mul", Max = "max", Min = "min" }
}

impl Combine {
    /// The attribute `reduction` of the node that is imported.
    pub fn import(cx: &ImportCx<'_>) -> Result<Combine> {
        let name = cx.string("reduction", "none")?;
        Combine::from_name(&name)
            .ok_or_else(|| err!(InvalidArgument, "attribute reduction: expected none, add, mul, max or min, got {name:?}"))
    }

    /// The joined element: floats are computed in f64 and rounded once, integers wrap.
    pub fn apply<T: Scalar>(self, old: T, new: T) -> T {
        if self == Combine::None {
            return new;
        }
        let or = T::DTYPE == DType::Bool && matches!(self, Combine::Add | Combine::Max);
        T::from_number(match (old.to_number(), new.to_number()) {
            (Number::Float(a), Number::Float(b)) => Number::Float(match self {
                Combine::Add => a + b,
                Combine::Mul => a * b,
                Combine::Max => if a > b || a.is_nan() { a } else { b },
                _ => if a < b || a.is_nan() { a } else { b },
            }),
            (Number::Int(a), Number::Int(b)) => Number::Int(match self {
                Combine::Add => a.wrapping_add(b),
                Combine::Mul => a.wrapping_mul(b),
                Combine::Max => a.max(b),
                _ => a.min(b),
            }),
            (Number::Uint(a), Number::Uint(b)) => Number::Uint(match self {
                _ if or => a | b,
                Combine::Add => a.wrapping_add(b),
                Combine::Mul => a.wrapping_mul(b),
                Combine::Max => a.max(b),
                _ => a.min(b),
            }),
            (a, _) => a,
        })
    }

    /// Fails when elements of this type cannot be joined; any can be replaced.
    pub fn check(self, dtype: DType) -> Result<()> {
        let joins = dtype.is_float() || dtype.is_int() || dtype == DType::Bool;
        crate::ensure!(self == Combine::None || joins, Unsupported, "reduction {} of {dtype}", self.name());
        Ok(())
    }

    /// Joining in any order gives the same bits: true of everything but sums and products that round.
    pub fn commutes(self, dtype: DType) -> bool {
        !dtype.is_float() || matches!(self, Combine::Max | Combine::Min)
    }

    /// Defines `COMBINE` as `common/combine.cuh` numbers it, and `T_DATA` as the type that it works on.
    pub fn define(self, kernel: KernelSpec, dtype: DType) -> KernelSpec {
        let (kind, dtype) = match (self, dtype) {
            (Combine::Add, DType::Bool) => (Combine::Max, DType::U8),
            (Combine::Mul, DType::Bool) => (Combine::Min, DType::U8),
            (kind, DType::Bool) => (kind, DType::U8),
            other => other,
        };
        let number = Combine::ALL.iter().position(|k| *k == kind).expect("every kind is listed");
        let kernel = kernel.define("COMBINE", number);
        match kind {
            // Only moved, so the size of an element is all that matters.
            Combine::None => kernel.define("T_DATA", crate::ops::transpose::cuda::unit(dtype.size())),
            _ => kernel.define_type("T_DATA", dtype),
        }
    }
}

/// Joins element `to` of `out` with element `from` of `updates`, for every pair that `pairs` calls for.
pub fn scatter<T: Scalar + Element>(kind: Combine, out: &mut [T], updates: &[T], pairs: &[(usize, usize)]) {
    for &(to, from) in pairs {
        out[to] = kind.apply(out[to], updates[from]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_wrap_bools_are_logic_and_nan_wins() {
        assert_eq!(Combine::Add.apply(250u8, 10), 4);
        assert_eq!(Combine::Mul.apply(-128i8, -1), -128);
        assert!(Combine::Add.apply(true, true));
        assert!(!Combine::Mul.apply(true, false));
        assert!(Combine::Max.apply(f32::NAN, 1.0).is_nan());
        assert!(Combine::Min.apply(1.0, f32::NAN).is_nan());
        assert_eq!(Combine::None.apply(1.0, 2.0), 2.0);
    }
}
