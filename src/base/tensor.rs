//! A tensor in host memory: dense, row-major, aligned to 64 bytes, owned or a slice of something mapped.

use crate::base::dtype::Element;
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
        t.normalize_bools();
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
        if dtype == DType::Bool || bytes.as_ptr() as usize % dtype.size() != 0 || bytes.is_empty() {
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

    /// Bytes of value 0 or 1 are the only legal bools; anything else counts as true.
    pub fn normalize_bools(&mut self) {
        if self.dtype == DType::Bool {
            for b in self.bytes_mut() {
                *b = (*b != 0) as u8;
            }
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
    pub fn cast(&self, to: DType) -> Tensor {
        let mut out = Tensor::zeros(to, &self.shape);
        crate::dispatch!(self.dtype, S => crate::dispatch!(to, D => {
            for (d, s) in out.slice_mut::<D>().iter_mut().zip(self.slice::<S>()) {
                *d = convert::<S, D>(*s);
            }
        }));
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

macro_rules! scalar_float {
    ($($t:ty, $from:expr, $to:expr);*) => { $(impl Scalar for $t {
        fn to_number(self) -> Number { Number::Float($to(self)) }
        fn from_number(n: Number) -> Self {
            $from(match n { Number::Float(v) => v, Number::Int(v) => v as f64, Number::Uint(v) => v as f64 })
        }
    })* };
}
scalar_float!(f32, |v| v as f32, |v| v as f64; f64, |v| v, |v| v;
              half::f16, half::f16::from_f64, half::f16::to_f64; half::bf16, half::bf16::from_f64, half::bf16::to_f64);

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
    fn from_bytes_checks_the_length() {
        assert!(Tensor::from_bytes(DType::F32, &[2], &[0; 7]).is_err());
        assert!(checked_bytes(DType::F64, &[usize::MAX, 2]).is_err());
    }
}
