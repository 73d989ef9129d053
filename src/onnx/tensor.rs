//! One `TensorProto` and one [`Tensor`], both ways.
//!
//! A tensor's elements stand either in `raw_data` (little-endian bytes), in the typed field that its element type
//! prescribes, or in an external file; exactly one of them. Bytes are used in place when they are aligned for the
//! element type, and copied otherwise. Values that do not fit the declared type are errors, not wrapped.
//!
//! Types under 8 bits stand packed, low bits first, and take a byte for each element in memory.
//!
//! Strings, complex numbers and segmented tensors are refused as unsupported.

#[cfg(target_endian = "big")]
compile_error!("ONNX data is little-endian and is used in place");

use crate::base::dtype::Element;
use crate::base::error::ResultExt;
use crate::base::tensor::checked_bytes;
use crate::base::{DType, Result, Tensor};
use crate::onnx::external::{ExternalFiles, map_file};
use crate::onnx::proto::TensorProto;
use crate::onnx::proto::tensor_proto::{DataLocation, DataType};
use bytes::Bytes;
use prost::Message;
use std::any::Any;
use std::fmt::Display;
use std::path::Path;
use std::sync::Arc;

/// The element type with this ONNX number (`TensorProto.DataType`).
pub fn dtype_of(code: i32) -> Result<DType> {
    let onnx = DataType::try_from(code);
    Ok(match onnx {
        Ok(DataType::Float) => DType::F32,
        Ok(DataType::Float16) => DType::F16,
        Ok(DataType::Bfloat16) => DType::BF16,
        Ok(DataType::Double) => DType::F64,
        Ok(DataType::Int8) => DType::I8,
        Ok(DataType::Uint8) => DType::U8,
        Ok(DataType::Int16) => DType::I16,
        Ok(DataType::Uint16) => DType::U16,
        Ok(DataType::Int32) => DType::I32,
        Ok(DataType::Uint32) => DType::U32,
        Ok(DataType::Int64) => DType::I64,
        Ok(DataType::Uint64) => DType::U64,
        Ok(DataType::Bool) => DType::Bool,
        Ok(DataType::Int4) => DType::I4,
        Ok(DataType::Uint4) => DType::U4,
        Ok(DataType::Int2) => DType::I2,
        Ok(DataType::Uint2) => DType::U2,
        Ok(DataType::Float8e4m3fn) => DType::F8E4M3FN,
        Ok(DataType::Float8e4m3fnuz) => DType::F8E4M3FNUZ,
        Ok(DataType::Float8e5m2) => DType::F8E5M2,
        Ok(DataType::Float8e5m2fnuz) => DType::F8E5M2FNUZ,
        Ok(DataType::Float4e2m1) => DType::F4E2M1,
        Ok(DataType::Float8e8m0) => DType::F8E8M0,
        Ok(other) => crate::bail!(Unsupported, "element type {} is not supported", other.as_str_name()),
        Err(_) => crate::bail!(Unsupported, "element type number {code} is not known"),
    })
}

/// The ONNX number of an element type.
pub fn onnx_code_of(dtype: DType) -> i32 {
    onnx_of(dtype) as i32
}

/// The ONNX name of an element type.
pub fn onnx_name_of(dtype: DType) -> &'static str {
    onnx_of(dtype).as_str_name()
}

fn onnx_of(dtype: DType) -> DataType {
    match dtype {
        DType::F32 => DataType::Float,
        DType::F16 => DataType::Float16,
        DType::BF16 => DataType::Bfloat16,
        DType::F64 => DataType::Double,
        DType::I8 => DataType::Int8,
        DType::U8 => DataType::Uint8,
        DType::I16 => DataType::Int16,
        DType::U16 => DataType::Uint16,
        DType::I32 => DataType::Int32,
        DType::U32 => DataType::Uint32,
        DType::I64 => DataType::Int64,
        DType::U64 => DataType::Uint64,
        DType::Bool => DataType::Bool,
        DType::I4 => DataType::Int4,
        DType::U4 => DataType::Uint4,
        DType::I2 => DataType::Int2,
        DType::U2 => DataType::Uint2,
        DType::F8E4M3FN => DataType::Float8e4m3fn,
        DType::F8E4M3FNUZ => DataType::Float8e4m3fnuz,
        DType::F8E5M2 => DataType::Float8e5m2,
        DType::F8E5M2FNUZ => DataType::Float8e5m2fnuz,
        DType::F4E2M1 => DataType::Float4e2m1,
        DType::F8E8M0 => DataType::Float8e8m0,
    }
}

/// Converts a message. The tensor keeps the mapped file alive when it uses its bytes in place; it does not borrow `t`.
///
/// `external`: where files beside the model are; without it, external data is an error.
pub fn tensor_of(t: &TensorProto, external: Option<&ExternalFiles>) -> Result<Tensor> {
    convert(t, external).map_err(|e| e.context(format!("tensor {:?}", t.name())))
}

/// Reads a file that is one bare `TensorProto`, as in ONNX test folders (`input_0.pb`). The name inside is ignored.
pub fn read_tensor_file(path: impl AsRef<Path>) -> Result<Tensor> {
    let path = path.as_ref();
    let bytes = map_file(path)?;
    let at = || format!("tensor file {}", path.display());
    let proto = TensorProto::decode(bytes).map_err(|e| crate::err!(Parse, "not a TensorProto: {e}").context(at()))?;
    tensor_of(&proto, Some(&ExternalFiles::new(path.parent()))).with_context(at)
}

/// The message for a tensor, with its elements as `raw_data`.
pub fn tensor_proto(tensor: &Tensor, name: &str) -> TensorProto {
    TensorProto {
        // Lengths of real memory: they fit.
        dims: tensor.shape().iter().map(|d| *d as i64).collect(),
        data_type: Some(onnx_code_of(tensor.dtype())),
        name: Some(name.to_string()),
        raw_data: Some(packed(tensor)),
        ..Default::default()
    }
}

/// The contents of a tensor file, as [`read_tensor_file`] reads it.
pub fn write_tensor_bytes(tensor: &Tensor, name: &str) -> Vec<u8> {
    tensor_proto(tensor, name).encode_to_vec()
}

fn convert(t: &TensorProto, external: Option<&ExternalFiles>) -> Result<Tensor> {
    let dtype = dtype_of(t.data_type.unwrap_or(0))?;
    let shape = shape_of(dtype, &t.dims)?;
    crate::ensure!(t.segment.is_none(), Unsupported, "segmented tensors are not supported");

    let raw = t.raw_data.as_ref().filter(|b| !b.is_empty());
    let fields = [
        ("float_data", t.float_data.len()),
        ("int32_data", t.int32_data.len()),
        ("int64_data", t.int64_data.len()),
        ("uint64_data", t.uint64_data.len()),
        ("double_data", t.double_data.len()),
        ("string_data", t.string_data.len()),
        ("raw_data", raw.map_or(0, |b| b.len())),
    ];
    let given: Vec<&str> = fields.into_iter().filter(|(_, n)| *n > 0).map(|(name, _)| name).collect();

    let location = t.data_location.unwrap_or(DataLocation::Default as i32);
    match DataLocation::try_from(location) {
        Ok(DataLocation::Default) => {}
        Ok(DataLocation::External) => {
            crate::ensure!(given.is_empty(), CorruptData, "has external data and also {}", given.join(", "));
            let files = external.ok_or_else(|| crate::err!(Unsupported, "external data is not possible here"))?;
            return from_raw(dtype, &shape, files.read(&t.external_data, packed_bytes(dtype, &shape)?)?);
        }
        Err(_) => crate::bail!(Unsupported, "data location {location} is not known"),
    }

    let typed = typed_field(dtype);
    match given.as_slice() {
        [] if shape.contains(&0) => Ok(Tensor::zeros(dtype, &shape)),
        [] => Err(crate::err!(CorruptData, "{dtype}{shape:?} has no data")),
        ["raw_data"] => from_raw(dtype, &shape, raw.cloned().unwrap_or_default()),
        [one] if *one == typed => from_typed(t, dtype, &shape).with_context(|| typed),
        [one] => Err(crate::err!(CorruptData, "{dtype} data must be in {typed} or raw_data, got {one}")),
        many => Err(crate::err!(CorruptData, "has data in more than one field: {}", many.join(", "))),
    }
}

/// The declared shape, once its size can be addressed even with zero dimensions left out (so that strides cannot
/// overflow anywhere later).
fn shape_of(dtype: DType, dims: &[i64]) -> Result<Vec<usize>> {
    let shape = dims
        .iter()
        .map(|d| usize::try_from(*d).map_err(|_| crate::err!(CorruptData, "shape {dims:?} has the dimension {d}")))
        .collect::<Result<Vec<usize>>>()?;
    let nonzero: Vec<usize> = shape.iter().copied().filter(|d| *d != 0).collect();
    checked_bytes(dtype, &nonzero)?;
    Ok(shape)
}

/// Bytes of a tensor in a file.
fn packed_bytes(dtype: DType, shape: &[usize]) -> Result<usize> {
    let per_byte = 8 / dtype.bits().min(8);
    Ok(checked_bytes(dtype, shape)?.div_ceil(per_byte))
}

/// The bytes of a tensor as files have them.
fn packed(tensor: &Tensor) -> Bytes {
    let bits = tensor.dtype().bits();
    if bits >= 8 {
        return Bytes::copy_from_slice(tensor.bytes());
    }
    let mask = (1u8 << bits) - 1;
    let pack = |c: &[u8]| c.iter().enumerate().fold(0, |b, (i, v)| b | (v & mask) << (i * bits));
    tensor.bytes().chunks(8 / bits).map(pack).collect()
}

/// The elements behind packed bytes, of which there are as many as the shape needs.
fn unpack(dtype: DType, shape: &[usize], bytes: impl Iterator<Item = u8>) -> Tensor {
    let bits = dtype.bits();
    let mut out = Tensor::zeros(dtype, shape);
    for (chunk, b) in out.bytes_mut().chunks_mut(8 / bits).zip(bytes) {
        chunk.iter_mut().enumerate().for_each(|(i, v)| *v = b >> (i * bits));
    }
    out.normalize();
    out
}

fn from_raw(dtype: DType, shape: &[usize], bytes: Bytes) -> Result<Tensor> {
    if dtype.bits() < 8 {
        let want = packed_bytes(dtype, shape)?;
        crate::ensure!(bytes.len() == want, CorruptData, "{dtype}{shape:?} needs {want} packed bytes, got {}", bytes.len());
        return Ok(unpack(dtype, shape, bytes.iter().copied()));
    }
    let owner: Arc<dyn Any + Send + Sync> = Arc::new(bytes.clone());
    // SAFETY: `owner` is a handle on the same immutable memory as `bytes`, and keeps it alive.
    unsafe { Tensor::from_owner(dtype, shape, &bytes, owner) }
}

/// The field that holds elements of this type when `raw_data` does not.
fn typed_field(dtype: DType) -> &'static str {
    match dtype {
        DType::F32 => "float_data",
        DType::F64 => "double_data",
        DType::I64 => "int64_data",
        DType::U32 | DType::U64 => "uint64_data",
        _ => "int32_data",
    }
}

fn from_typed(t: &TensorProto, dtype: DType, shape: &[usize]) -> Result<Tensor> {
    // Half floats stand as their 16 bits in the low half of an int32.
    let bits = |v: i32| u16::try_from(v).ok();
    let ints = &t.int32_data;
    match dtype {
        DType::F32 => fill(shape, &t.float_data, Some),
        DType::F64 => fill(shape, &t.double_data, Some),
        DType::I64 => fill(shape, &t.int64_data, Some),
        DType::U64 => fill(shape, &t.uint64_data, Some),
        DType::U32 => fill(shape, &t.uint64_data, |v| u32::try_from(v).ok()),
        DType::I32 => fill(shape, ints, Some),
        DType::I16 => fill(shape, ints, |v| i16::try_from(v).ok()),
        DType::U16 => fill(shape, ints, |v| u16::try_from(v).ok()),
        DType::I8 => fill(shape, ints, |v| i8::try_from(v).ok()),
        DType::U8 => fill(shape, ints, |v| u8::try_from(v).ok()),
        DType::Bool => fill(shape, ints, |v| Some(v != 0)),
        DType::F16 => fill(shape, ints, |v| bits(v).map(half::f16::from_bits)),
        DType::BF16 => fill(shape, ints, |v| bits(v).map(half::bf16::from_bits)),
        small => from_codes(small, shape, ints),
    }
}

/// A small type: each int32 is a byte, of one element or of several that are packed.
fn from_codes(dtype: DType, shape: &[usize], codes: &[i32]) -> Result<Tensor> {
    let want = packed_bytes(dtype, shape)?;
    crate::ensure!(codes.len() == want, CorruptData, "{dtype}{shape:?} needs {want} bytes, got {}", codes.len());
    let byte = |(i, v): (usize, &i32)| match v {
        -128..=255 => Ok(*v as u8),
        _ => Err(crate::err!(CorruptData, "element {i} is {v}, which is no byte")),
    };
    let bytes = codes.iter().enumerate().map(byte).collect::<Result<Vec<u8>>>()?;
    from_raw(dtype, shape, bytes.into())
}

/// Converts element by element; the number of elements is checked before memory is taken.
fn fill<S: Copy + Display, D: Element>(shape: &[usize], data: &[S], to: impl Fn(S) -> Option<D>) -> Result<Tensor> {
    let (dtype, n) = (D::DTYPE, shape.iter().product::<usize>());
    crate::ensure!(data.len() == n, CorruptData, "{dtype}{shape:?} needs {n} elements, got {}", data.len());
    let mut out = Tensor::zeros(dtype, shape);
    for (i, (d, s)) in out.slice_mut::<D>().iter_mut().zip(data).enumerate() {
        *d = to(*s).ok_or_else(|| crate::err!(CorruptData, "element {i} is {s}, which is no {dtype}"))?;
    }
    Ok(out)
}
