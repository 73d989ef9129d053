//! A tensor in host memory: dense, row-major, aligned to 64 bytes, owned or a slice of something mapped.

use crate::base::dtype::Element;
use crate::base::small::{self, CastMode, from_number_mode};
use crate::base::{DType, Result};
use std::any::Any;
use std::fmt;
use std::sync::Arc;

/// Alignment of owned tensor memory, for SIMD loads.
pub const ALIGN: usize = 64;

/// Owned memory aligned to [`ALIGN`].
struct AlignedBytes {
    ptr: *mut u8,
    len: usize,
}

// SAFETY: the pointer is owned and the bytes are plain data.
unsafe impl Send for AlignedBytes {}
// SAFETY: shared access only reads.
unsafe impl Sync for AlignedBytes {}

impl AlignedBytes {
    fn layout(len: usize) -> std::alloc::Layout {
        std::alloc::Layout::from_size_align(len.max(1), ALIGN).expect("tensor sizes are checked against isize::MAX")
    }

    fn zeroed(len: usize) -> Self {
        let layout = Self::layout(len);
        // SAFETY: the layout has a nonzero size.
        let ptr = unsafe { std::alloc::alloc_zeroed(layout) };
        if ptr.is_null() {
            std::alloc::handle_alloc_error(layout);
        }
        AlignedBytes { ptr, len }
    }

    fn as_slice(&self) -> &[u8] {
        // SAFETY: ptr is valid for len bytes for the life of self.
        unsafe { std::slice::from_raw_parts(self.ptr, self.len) }
    }

    fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: as above, and self is borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.ptr, self.len) }
    }
}

impl Drop for AlignedBytes {
    fn drop(&mut self) {
        // SAFETY: allocated in `zeroed` with the same layout.
        unsafe { std::alloc::dealloc(self.ptr, Self::layout(self.len)) }
    }
}

enum Storage {
    Owned(AlignedBytes),
    /// Bytes inside something that `_owner` keeps alive (a mapped file), aligned for the element type.
    Borrowed { ptr: *const u8, len: usize, owner: Arc<dyn Any + Send + Sync> },
}

// SAFETY: Borrowed points to read-only memory that its owner keeps alive.
unsafe impl Send for Storage {}
// SAFETY: as above.
unsafe impl Sync for Storage {}

/// A dense row-major tensor in host memory.
pub struct Tensor {
    dtype: DType,
    shape: Vec<usize>,
    storage: Storage,
}

impl Tensor {
    /// All elements zero (false). Panics when the size overflows; use [`checked_bytes`] first on hostile shapes.
    pub fn zeros(dtype: DType, shape: &[usize]) -> Tensor {
        let bytes = checked_bytes(dtype, shape).expect("shape was checked by the caller");
        Tensor { dtype, shape: shape.to_vec(), storage: Storage::Owned(AlignedBytes::zeroed(bytes)) }
    }

    pub fn from_slice<T: Element>(shape: &[usize], data: &[T]) -> Tensor {
        assert_eq!(shape.iter().product::<usize>(), data.len(), "shape and data disagree");
        let mut t = Tensor::zeros(T::DTYPE, shape);
        t.slice_mut::<T>().copy_from_slice(data);
        t
    }

    pub fn scalar<T: Element>(value: T) -> Tensor {
        Tensor::from_slice(&[], &[value])
    }

    /// Copies raw little-endian bytes; fails when their number does not fit the shape.
    pub fn from_bytes(dtype: DType, shape: &[usize], bytes: &[u8]) -> Result<Tensor> {
        let want = checked_bytes(dtype, shape)?;
        crate::ensure!(bytes.len() == want, CorruptData, "{dtype}{shape:?} needs {want} bytes, got {}", bytes.len());
        let mut t = Tensor::zeros(dtype, shape);
        t.bytes_mut().copy_from_slice(bytes);
        t.normalize();
        Ok(t)
    }

    /// Uses bytes inside `owner` without copying when they are aligned for the type; copies otherwise.
    ///
    /// # Safety
    /// `bytes` must stay valid and unchanged for as long as `owner` lives.
    pub unsafe fn from_owner(
        dtype: DType,
        shape: &[usize],
        bytes: &[u8],
        owner: Arc<dyn Any + Send + Sync>,
    ) -> Result<Tensor> {
        let want = checked_bytes(dtype, shape)?;
        crate::ensure!(bytes.len() == want, CorruptData, "{dtype}{shape:?} needs {want} bytes, got {}", bytes.len());
        if dtype == DType::Bool || dtype.bits() < 8 || bytes.as_ptr() as usize % dtype.size() != 0 || bytes.is_empty() {
            return Tensor::from_bytes(dtype, shape, bytes);
        }
        let storage = Storage::Borrowed { ptr: bytes.as_ptr(), len: bytes.len(), owner };
        Ok(Tensor { dtype, shape: shape.to_vec(), storage })
    }

    pub fn dtype(&self) -> DType {
        self.dtype
    }

    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    pub fn rank(&self) -> usize {
        self.shape.len()
    }

    pub fn numel(&self) -> usize {
        self.shape.iter().product()
    }

    pub fn bytes(&self) -> &[u8] {
        match &self.storage {
            Storage::Owned(b) => b.as_slice(),
            // SAFETY: valid while owner lives, which self holds.
            Storage::Borrowed { ptr, len, owner: _ } => unsafe { std::slice::from_raw_parts(*ptr, *len) },
        }
    }

    /// The bytes for writing; borrowed storage is copied first.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        if let Storage::Borrowed { .. } = self.storage {
            let mut own = AlignedBytes::zeroed(self.bytes().len());
            own.as_mut_slice().copy_from_slice(self.bytes());
            self.storage = Storage::Owned(own);
        }
        match &mut self.storage {
            Storage::Owned(b) => b.as_mut_slice(),
            Storage::Borrowed { .. } => unreachable!("made owned just above"),
        }
    }

    /// The elements; panics when `T` is not this tensor's type.
    pub fn slice<T: Element>(&self) -> &[T] {
        assert_eq!(T::DTYPE, self.dtype, "tensor is {}", self.dtype);
        let b = self.bytes();
        // SAFETY: storage is aligned for the type, holds numel elements, and every bit pattern written is valid
        // (bools are normalized on entry).
        unsafe { std::slice::from_raw_parts(b.as_ptr().cast(), self.numel()) }
    }

    pub fn slice_mut<T: Element>(&mut self) -> &mut [T] {
        assert_eq!(T::DTYPE, self.dtype, "tensor is {}", self.dtype);
        let n = self.numel();
        let b = self.bytes_mut();
        // SAFETY: as in `slice`, borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(b.as_mut_ptr().cast(), n) }
    }

    /// The same elements under another shape of equal size.
    pub fn reshaped(&self, shape: &[usize]) -> Result<Tensor> {
        let n: usize = shape.iter().product();
        crate::ensure!(n == self.numel(), InvalidArgument, "cannot reshape {:?} to {shape:?}", self.shape);
        let mut t = self.clone();
        t.shape = shape.to_vec();
        Ok(t)
    }

    /// Brings bytes from outside to what the type allows: 0 and 1 are the only bools (anything else counts as true), and
    /// of a type under 8 bits only its low bits count.
    pub fn normalize(&mut self) {
        if self.dtype == DType::Bool {
            for b in self.bytes_mut() {
                *b = (*b != 0) as u8;
            }
        } else if self.dtype.bits() < 8 {
            let dtype = self.dtype;
            small::normalize(dtype, self.bytes_mut());
        }
    }

    /// Each element as i64: integers and bools exactly, floats truncated.
    pub fn to_i64s(&self) -> Vec<i64> {
        self.cast(DType::I64).slice::<i64>().to_vec()
    }

    /// Each element as f32.
    pub fn to_f32s(&self) -> Vec<f32> {
        self.cast(DType::F32).slice::<f32>().to_vec()
    }

    /// Each element as f64.
    pub fn to_f64s(&self) -> Vec<f64> {
        self.cast(DType::F64).slice::<f64>().to_vec()
    }

    /// Converts the element type; float to integer truncates and saturates, integer to integer wraps, to bool is `!= 0`.
    /// The small types have rules of their own (`small.rs`).
    pub fn cast(&self, to: DType) -> Tensor {
        if self.dtype == to {
            return self.clone();
        }
        let mut out = Tensor::zeros(to, &self.shape);
        let n = self.numel();
        // SAFETY: both have `n` elements of their type.
        unsafe { cast_slice(self.dtype, self.bytes().as_ptr(), to, out.bytes_mut().as_mut_ptr(), n, CastMode::default()) };
        out
    }

    /// True when both have the same type, shape and bytes.
    pub fn same(&self, other: &Tensor) -> bool {
        self.dtype == other.dtype && self.shape == other.shape && self.bytes() == other.bytes()
    }

    /// The single element of a tensor of one element, as f64.
    pub fn scalar_f64(&self) -> Option<f64> {
        (self.numel() == 1).then(|| self.to_f64s()[0])
    }
}

impl Clone for Tensor {
    fn clone(&self) -> Self {
        let storage = match &self.storage {
            Storage::Owned(b) => {
                let mut own = AlignedBytes::zeroed(b.len);
                own.as_mut_slice().copy_from_slice(b.as_slice());
                Storage::Owned(own)
            }
            Storage::Borrowed { ptr, len, owner } => {
                Storage::Borrowed { ptr: *ptr, len: *len, owner: owner.clone() }
            }
        };
        Tensor { dtype: self.dtype, shape: self.shape.clone(), storage }
    }
}

impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{:?}", self.dtype, self.shape)?;
        if self.numel() <= 16 {
            crate::dispatch!(self.dtype, T => write!(f, "{:?}", self.slice::<T>()))?;
        }
        Ok(())
    }
}

/// Bytes of a dense tensor, or an error when that overflows.
pub fn checked_bytes(dtype: DType, shape: &[usize]) -> Result<usize> {
    shape
        .iter()
        .try_fold(dtype.size(), |n, d| n.checked_mul(*d))
        .filter(|n| *n <= isize::MAX as usize)
        .ok_or_else(|| crate::err!(OutOfMemory, "a tensor {dtype}{shape:?} is too large to address"))
}

/// Row-major strides in elements.
pub fn strides_of(shape: &[usize]) -> Vec<usize> {
    let mut s = vec![1; shape.len()];
    for i in (0..shape.len().saturating_sub(1)).rev() {
        s[i] = s[i + 1] * shape[i + 1];
    }
    s
}

/// A number that every element type can be converted to and from: the meeting point of [`convert`].
#[derive(Clone, Copy, Debug)]
pub enum Number {
    Float(f64),
    Int(i64),
    Uint(u64),
}

impl Number {
    /// The nearest f64.
    pub fn to_f64(self) -> f64 {
        match self {
            Number::Float(v) => v,
            Number::Int(v) => v as f64,
            Number::Uint(v) => v as f64,
        }
    }

    /// Rounded to odd: an inexact result has its last bit set, so that rounding it once more to a narrower type gives the
    /// nearest number of that type.
    pub fn to_f64_odd(self) -> f64 {
        let (v, exact) = match self {
            Number::Float(v) => return v,
            Number::Int(v) => (v as f64, v as i128),
            Number::Uint(v) => (v as f64, v as i128),
        };
        odd_f64(v, (v as i128).cmp(&exact))
    }

    /// As [`Number::to_f64_odd`], for f32.
    pub fn to_f32_odd(self) -> f32 {
        match self {
            Number::Float(v) => odd_f32(v),
            n => odd_f32(n.to_f64_odd()),
        }
    }
}

/// The rounded `v` moved to an odd neighbour, given how it compares with the exact number.
fn odd_f64(v: f64, order: std::cmp::Ordering) -> f64 {
    let bits = v.to_bits();
    match (order, v > 0.0) {
        (std::cmp::Ordering::Equal, _) => v,
        _ if bits & 1 == 1 => v,
        // Even and inexact: the odd neighbour on the exact number's side. Fewer bits is toward zero.
        (std::cmp::Ordering::Greater, true) | (std::cmp::Ordering::Less, false) => f64::from_bits(bits - 1),
        _ => f64::from_bits(bits + 1),
    }
}

/// f64 to f32, rounded to odd.
pub fn odd_f32(v: f64) -> f32 {
    let r = v as f32;
    let bits = r.to_bits();
    if r as f64 == v || v.is_nan() || bits & 1 == 1 {
        return r;
    }
    // Infinity stands for a finite number beyond the range: the largest finite number is odd. Zero for one below it.
    let toward_zero = (r as f64).abs() > v.abs();
    f32::from_bits(if toward_zero { bits - 1 } else { bits + 1 })
}

/// Converts `n` elements between any two types.
///
/// # Safety
/// `src` holds `n` elements of `from`, `dst` has room for `n` of `to`, both aligned for their type; they do not overlap.
pub unsafe fn cast_slice(from: DType, src: *const u8, to: DType, dst: *mut u8, n: usize, mode: CastMode) {
    use std::slice::{from_raw_parts, from_raw_parts_mut};
    let mode = mode.for_type(to);
    // SAFETY: the caller's promise, here and below.
    let plain = crate::dispatch_plain!(from, S => crate::dispatch_plain!(to, D => {
        let (x, y) = unsafe { (from_raw_parts(src.cast::<S>(), n), from_raw_parts_mut(dst.cast::<D>(), n)) };
        y.iter_mut().zip(x).for_each(|(d, s)| *d = convert::<S, D>(*s));
        true
    }, else false), else false);
    if plain {
        return;
    }
    // A small type: by way of numbers, so that the pairs of types do not multiply the code.
    let mut numbers = [Number::Int(0); 128];
    for at in (0..n).step_by(numbers.len()) {
        let numbers = &mut numbers[..(n - at).min(128)];
        crate::dispatch!(from, S => {
            let x = unsafe { from_raw_parts(src.cast::<S>().add(at), numbers.len()) };
            numbers.iter_mut().zip(x).for_each(|(d, s)| *d = s.to_number());
        });
        crate::dispatch!(to, D => {
            let y = unsafe { from_raw_parts_mut(dst.cast::<D>().add(at), numbers.len()) };
            y.iter_mut().zip(&*numbers).for_each(|(d, s)| *d = from_number_mode(*s, mode));
        });
    }
}

/// Conversion of one element to and from [`Number`].
pub trait Scalar: Element {
    fn to_number(self) -> Number;
    fn from_number(n: Number) -> Self;
}

macro_rules! scalar_int {
    ($($t:ty),*) => { $(impl Scalar for $t {
        fn to_number(self) -> Number { if <$t>::MIN == 0 { Number::Uint(self as u64) } else { Number::Int(self as i64) } }
        fn from_number(n: Number) -> Self {
            match n { Number::Float(v) => v as $t, Number::Int(v) => v as $t, Number::Uint(v) => v as $t }
        }
    })* };
}
scalar_int!(i8, u8, i16, u16, i32, u32, i64, u64);

impl Scalar for f64 {
    fn to_number(self) -> Number {
        Number::Float(self)
    }
    fn from_number(n: Number) -> Self {
        n.to_f64()
    }
}

impl Scalar for f32 {
    fn to_number(self) -> Number {
        Number::Float(self as f64)
    }
    fn from_number(n: Number) -> Self {
        match n {
            Number::Float(v) => v as f32,
            Number::Int(v) => v as f32,
            Number::Uint(v) => v as f32,
        }
    }
}

macro_rules! scalar_half {
    ($($t:ty),*) => { $(impl Scalar for $t {
        fn to_number(self) -> Number {
            Number::Float(self.to_f64())
        }
        fn from_number(n: Number) -> Self {
            <$t>::from_f32(n.to_f32_odd())
        }
    })* };
}
scalar_half!(half::f16, half::bf16);

impl Scalar for bool {
    fn to_number(self) -> Number {
        Number::Uint(self as u64)
    }
    fn from_number(n: Number) -> Self {
        match n {
            Number::Float(v) => v != 0.0,
            Number::Int(v) => v != 0,
            Number::Uint(v) => v != 0,
        }
    }
}

/// Converts one element between any two types, with the rules of [`Tensor::cast`].
pub fn convert<S: Scalar, D: Scalar>(s: S) -> D {
    D::from_number(s.to_number())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cast_truncates_floats_and_wraps_integers() {
        let t = Tensor::from_slice(&[4], &[1.9f32, -1.9, 300.0, f32::NAN]);
        assert_eq!(t.cast(DType::I32).slice::<i32>(), &[1, -1, 300, 0]);
        assert_eq!(t.cast(DType::Bool).slice::<bool>(), &[true, true, true, true]);
        let i = Tensor::from_slice(&[2], &[257i64, -1]);
        assert_eq!(i.cast(DType::U8).slice::<u8>(), &[1, 255]);
    }

    #[test]
    fn a_half_is_rounded_once() {
        let f16 = |n| half::f16::from_number(n).to_f64();
        let bf16 = |n| half::bf16::from_number(n).to_f64();
        // Just above the middle of two neighbours, by less than an f32 shows.
        let above = |tie: f64| Number::Float(f64::from_bits(tie.to_bits() + 1));
        assert_eq!([f16(Number::Float(2049.0)), f16(above(2049.0)), f16(above(-2049.0))], [2048.0, 2050.0, -2050.0]);
        assert_eq!([bf16(Number::Float(257.0)), bf16(above(257.0))], [256.0, 258.0]);
        assert_eq!(bf16(Number::Int((1 << 62) + (1 << 54) + 1)), ((1i64 << 62) + (1 << 55)) as f64);
        assert_eq!(bf16(Number::Int(-(1 << 62) - (1 << 54) - 1)), -(((1i64 << 62) + (1 << 55)) as f64));
        assert_eq!(bf16(Number::Uint(u64::MAX)), 2f64.powi(64));
        assert_eq!([f16(Number::Float(65519.999999)), f16(Number::Float(65520.0)), bf16(Number::Float(1e300))], [65504.0, f64::INFINITY, f64::INFINITY]);
        assert_eq!([bf16(Number::Float(1e-300)), f16(Number::Float(-1e-300))], [0.0, -0.0]);
        assert!(f16(Number::Float(f64::NAN)).is_nan());
    }

    #[test]
    fn casts_to_small_types_and_back() {
        let x = Tensor::from_slice(&[5], &[1.5f32, -3.2, 9.0, 0.26, -7.0]);
        assert_eq!(x.cast(DType::I4).to_i64s(), [1, -3, -7, 0, -7]);
        assert_eq!(x.cast(DType::F4E2M1).to_f32s(), [1.5, -3.0, 6.0, 0.5, -6.0]);
        assert_eq!(x.cast(DType::F8E5M2).cast(DType::F16).to_f32s(), [1.5, -3.0, 8.0, 0.25, -7.0]);
        assert_eq!(x.cast(DType::F8E4M3FN).cast(DType::Bool).slice::<bool>(), [true; 5]);
        assert_eq!(Tensor::from_bytes(DType::I2, &[2], &[3, 0xfd]).unwrap().to_i64s(), [-1, 1]);
    }

    #[test]
    fn from_bytes_checks_the_length() {
        assert!(Tensor::from_bytes(DType::F32, &[2], &[0; 7]).is_err());
        assert!(checked_bytes(DType::F64, &[usize::MAX, 2]).is_err());
    }
}
