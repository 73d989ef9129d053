//! Attribute lists for operators that are added by name.

use super::guard::guard;
use super::handle::{self, Handle};
use super::network::{SinterDataType, tensor_of};
use super::status::SinterStatus;
use crate::base::{AttrValue, Attrs};
use crate::ensure;
use std::ffi::{c_char, c_void};
use std::sync::Arc;

/// Named values that an operator is configured with, as ONNX knows them.
pub struct SinterAttributes {
    _opaque: (),
}

impl Handle for SinterAttributes {
    const MAGIC: &'static [u8; 8] = b"SntrAttr";
    type Content = Attrs;
}

/// Sets one attribute of the handle, in place of one with the same name.
fn set(
    attributes: *mut SinterAttributes,
    name: *const c_char,
    value: crate::base::Result<AttrValue>,
) -> crate::base::Result<()> {
    let mut a = handle::exclusive(attributes, "attributes")?;
    let name = handle::text(name, "name")?;
    ensure!(!name.is_empty(), InvalidArgument, "an attribute needs a name");
    a.0.insert(name.to_string(), value?);
    Ok(())
}

/// Makes an empty list.
///
/// Params: attributes_out (out).
/// Owns: on success the caller owns the new handle and destroys it; it keeps alive what it was made from.
/// Result: OK and the handle; on failure the handle output is NULL.
/// Status: OK; INVALID_ARGUMENT for NULL.
/// Thread: any, also several at once on one handle.
/// Stream: puts nothing on a stream; all is done when it returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinter_attributes_create(attributes_out: *mut *mut SinterAttributes) -> SinterStatus {
    guard("sinter_attributes_create", || {
        handle::out_handle(attributes_out, "attributes_out")?.give(Attrs::new());
        Ok(())
    })
}

/// Destroys a list.
///
/// Params: attributes (in) or NULL, which does nothing.
/// Owns: the handle is gone; nodes that were made with it have a copy.
/// Result: OK; on failure nothing has changed.
/// Status: OK; INVALID_ARGUMENT for a wrong or destroyed handle; INVALID_STATE while another call uses it.
/// Thread: any, one at a time on the receiver.
/// Stream: puts nothing on a stream; all is done when it returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinter_attributes_destroy(attributes: *mut SinterAttributes) -> SinterStatus {
    guard("sinter_attributes_destroy", || handle::destroy(attributes, "attributes"))
}

/// Sets an integer.
///
/// Params: attributes (in/out); name (in); value (in).
/// Owns: nothing changes hands; memory that is passed in is read or copied before the call returns.
/// Result: OK; on failure no output is written and nothing has changed.
/// Status: OK, the errors of handles and arguments.
/// Thread: any, one at a time on the receiver.
/// Stream: puts nothing on a stream; all is done when it returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinter_attributes_set_int(
    attributes: *mut SinterAttributes,
    name: *const c_char,
    value: i64,
) -> SinterStatus {
    guard("sinter_attributes_set_int", || set(attributes, name, Ok(AttrValue::Int(value))))
}

/// Sets a number.
///
/// Params: attributes (in/out); name (in); value (in).
/// Owns: nothing changes hands; memory that is passed in is read or copied before the call returns.
/// Result: OK; on failure no output is written and nothing has changed.
/// Status: OK, the errors of handles and arguments.
/// Thread: any, one at a time on the receiver.
/// Stream: puts nothing on a stream; all is done when it returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinter_attributes_set_float(
    attributes: *mut SinterAttributes,
    name: *const c_char,
    value: f32,
) -> SinterStatus {
    guard("sinter_attributes_set_float", || set(attributes, name, Ok(AttrValue::Float(value))))
}

/// Sets a string.
///
/// Params: attributes (in/out); name (in); value (in) UTF-8.
/// Owns: nothing changes hands; memory that is passed in is read or copied before the call returns.
/// Result: OK; on failure no output is written and nothing has changed.
/// Status: OK, the errors of handles and arguments.
/// Thread: any, one at a time on the receiver.
/// Stream: puts nothing on a stream; all is done when it returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinter_attributes_set_string(
    attributes: *mut SinterAttributes,
    name: *const c_char,
    value: *const c_char,
) -> SinterStatus {
    guard("sinter_attributes_set_string", || {
        set(attributes, name, handle::text(value, "value").map(|v| AttrValue::Str(v.into())))
    })
}

/// Sets a list of integers.
///
/// Params: attributes (in/out); name (in); values (in) n elements; n (in) may be 0.
/// Owns: nothing changes hands; memory that is passed in is read or copied before the call returns.
/// Result: OK; on failure no output is written and nothing has changed.
/// Status: OK, the errors of handles and arguments.
/// Thread: any, one at a time on the receiver.
/// Stream: puts nothing on a stream; all is done when it returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinter_attributes_set_ints(
    attributes: *mut SinterAttributes,
    name: *const c_char,
    values: *const i64,
    n: usize,
) -> SinterStatus {
    guard("sinter_attributes_set_ints", || {
        set(attributes, name, handle::slice(values, n, "values").map(|v| AttrValue::Ints(v.to_vec())))
    })
}

/// Sets a list of numbers.
///
/// Params: attributes (in/out); name (in); values (in) n elements; n (in) may be 0.
/// Owns: nothing changes hands; memory that is passed in is read or copied before the call returns.
/// Result: OK; on failure no output is written and nothing has changed.
/// Status: OK, the errors of handles and arguments.
/// Thread: any, one at a time on the receiver.
/// Stream: puts nothing on a stream; all is done when it returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinter_attributes_set_floats(
    attributes: *mut SinterAttributes,
    name: *const c_char,
    values: *const f32,
    n: usize,
) -> SinterStatus {
    guard("sinter_attributes_set_floats", || {
        set(attributes, name, handle::slice(values, n, "values").map(|v| AttrValue::Floats(v.to_vec())))
    })
}

/// Sets a list of strings.
///
/// Params: attributes (in/out); name (in); values (in) n strings in UTF-8; n (in) may be 0.
/// Owns: nothing changes hands; memory that is passed in is read or copied before the call returns.
/// Result: OK; on failure no output is written and nothing has changed.
/// Status: OK, the errors of handles and arguments.
/// Thread: any, one at a time on the receiver.
/// Stream: puts nothing on a stream; all is done when it returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinter_attributes_set_strings(
    attributes: *mut SinterAttributes,
    name: *const c_char,
    values: *const *const c_char,
    n: usize,
) -> SinterStatus {
    guard("sinter_attributes_set_strings", || {
        let list = handle::slice(values, n, "values").and_then(|v| {
            v.iter().enumerate().map(|(i, s)| Ok(handle::text(*s, &format!("values[{i}]"))?.to_string())).collect()
        });
        set(attributes, name, list.map(AttrValue::Strs))
    })
}

/// Sets a tensor.
///
/// Params: attributes (in/out); name (in); dtype (in); dims (in) n_dims elements; n_dims (in) 0 for a scalar; data (in)
/// row-major elements; data_bytes (in) their bytes.
/// Owns: nothing changes hands; memory that is passed in is read or copied before the call returns.
/// Result: OK; on failure no output is written and nothing has changed.
/// Status: OK, the errors of handles and arguments; CORRUPT_DATA when the bytes do not fit the shape.
/// Thread: any, one at a time on the receiver.
/// Stream: puts nothing on a stream; all is done when it returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinter_attributes_set_tensor(
    attributes: *mut SinterAttributes,
    name: *const c_char,
    dtype: SinterDataType,
    dims: *const i64,
    n_dims: usize,
    data: *const c_void,
    data_bytes: usize,
) -> SinterStatus {
    guard("sinter_attributes_set_tensor", || {
        let t = tensor_of(dtype, dims, n_dims, data, data_bytes);
        set(attributes, name, t.map(|t| AttrValue::Tensor(Arc::new(t))))
    })
}
