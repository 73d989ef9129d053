//! Cases of complex products.

use super::Case;
use crate::ops::steps::random;
use sinter::base::DType;
use sinter::ops::complex_mul::ComplexMul;

pub fn cases() -> Vec<Case> {
    let mut out = Vec::new();
    for (dtype, tolerance) in [(DType::F32, 1e-6), (DType::F64, 1e-14), (DType::F16, 2e-3), (DType::BF16, 1e-2)] {
        for (a, b) in [
            (&[2][..], &[2][..]),
            (&[5, 7, 2], &[5, 7, 2]),
            (&[3, 1, 5, 2], &[4, 1, 2]),
            (&[2], &[6, 3, 2]),
            (&[0, 3, 2], &[1, 3, 2]),
        ] {
            for conjugate in [false, true] {
                let inputs = vec![Some(random(dtype, a, 3)), Some(random(dtype, b, 4))];
                let name = format!("complex {dtype}{a:?} x {b:?}, conjugate {conjugate}");
                out.push(Case::new(name, ComplexMul { conjugate }, inputs).within(tolerance));
            }
        }
    }
    out
}
