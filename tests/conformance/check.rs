//! When an output passes.

use sinter::base::Tensor;

/// The official runner takes 1e-3 and 1e-7; the latter asks for more than f32 has where terms cancel.
pub const RTOL: f64 = 1e-3;
pub const ATOL: f64 = 1e-5;

/// What is wrong with an output, if anything. Floating-point types of any width are compared by value, all others must
/// be equal.
pub fn compare(what: &str, got: &Tensor, want: &Tensor, rtol: f64, atol: f64) -> Result<(), String> {
    if got.shape() != want.shape() || got.dtype() != want.dtype() {
        return Err(format!("{what} is {}{:?} instead of {}{:?}", got.dtype(), got.shape(), want.dtype(), want.shape()));
    }
    let is_float = got.dtype().is_float();
    if !is_float && got.same(want) {
        return Ok(());
    }
    let (a, b) = (got.to_f64s(), want.to_f64s());
    let near = |x: f64, y: f64| match is_float {
        true => x == y || (x.is_nan() && y.is_nan()) || (x - y).abs() <= atol + rtol * y.abs(),
        // Small floating-point types have NaN too.
        false => x == y || (x.is_nan() && y.is_nan()),
    };
    let bad: Vec<usize> = (0..a.len()).filter(|i| !near(a[*i], b[*i])).collect();
    match bad.first() {
        Some(i) => {
            Err(format!("{what}: {} of {} elements differ; element {i} is {}, expected {}", bad.len(), a.len(), a[*i], b[*i]))
        }
        // 64-bit integers beyond 2^53 differ in bytes alone.
        None if !is_float && got.dtype().size() == 8 => Err(format!("{what}: integers differ")),
        None => Ok(()),
    }
}
