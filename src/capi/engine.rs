//! Engines: immutable, shared by contexts, full of answers.

use super::guard::guard;
use super::handle::{self, Handle};
use super::memory::{Bytes, SinterHostMemory, write_file};
use super::network::{SinterDataType, plain_dims};
use super::status::SinterStatus;
use crate::base::Result;
use crate::engine::{Engine, IoTensor};
use crate::err;
use crate::plan::Range;
use crate::plan::profile::UNBOUNDED;
use std::ffi::{CString, c_char};
use std::path::Path;
use std::sync::Arc;

/// A network made ready to run on a device. It never changes; any number of contexts and threads share it.
pub struct SinterEngine {
    _opaque: (),
}

pub(super) struct LoadedEngine {
    pub engine: Arc<Engine>,
    io: Vec<IoTensor>,
    /// Names of `io`, then the engine's own.
    names: Vec<CString>,
}

impl LoadedEngine {
    pub(super) fn new(engine: Arc<Engine>) -> Result<LoadedEngine> {
        let io = engine.io_tensors();
        let names = io.iter().map(|t| t.name.as_str()).chain([engine.image.name.as_str()]);
        let name = |n: &str| CString::new(n).map_err(|_| err!(Unsupported, "the name {n:?} holds a NUL"));
        let names = names.map(name).collect::<Result<_>>()?;
        Ok(LoadedEngine { engine, io, names })
    }

    fn tensor(&self, name: *const c_char) -> Result<&IoTensor> {
        let name = handle::text(name, "tensor")?;
        self.io.iter().find(|t| t.name == name).ok_or_else(|| {
            let names: Vec<String> = self.io.iter().map(|t| format!("{:?}", t.name)).collect();
            err!(NotFound, "the engine has no input or output named {name:?}; it has {}", names.join(", "))
        })
    }
}

impl Handle for SinterEngine {
    const MAGIC: &'static [u8; 8] = b"SntrEngi";
    type Content = LoadedEngine;
}

/// Whether a tensor is read or written by an engine.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SinterTensorMode(pub i32);

impl SinterTensorMode {
    /// The application fills it.
    pub const INPUT: Self = Self(0);
    /// The engine fills it.
    pub const OUTPUT: Self = Self(1);
}

/// Where the memory of a tensor lies.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SinterTensorLocation(pub i32);

impl SinterTensorLocation {
    /// In the device's memory.
    pub const DEVICE: Self = Self(0);
    /// The host reads its elements too, to know shapes: it is copied to the host at each enqueue, so host memory is
    /// best.
    pub const HOST: Self = Self(1);
}

/// Destroys an engine handle.
///
/// Params: engine (in) or NULL, which does nothing.
/// Owns: the handle is gone; contexts keep the engine alive.
/// Result: OK; on failure nothing has changed.
/// Status: OK; INVALID_ARGUMENT for a wrong or destroyed handle; INVALID_STATE while another call uses it.
/// Thread: any, one at a time on the receiver.
/// Stream: puts nothing on a stream; all is done when it returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinter_engine_destroy(engine: *mut SinterEngine) -> SinterStatus {
    guard("sinter_engine_destroy", || handle::destroy(engine, "engine"))
}

/// Name of the network that the engine was built from; may be empty.
///
/// Params: engine (in); name_out (out).
/// Owns: the text is borrowed and stays until the receiver is destroyed.
/// Result: OK; on failure no output is written and nothing has changed.
/// Status: OK, the errors of handles and arguments.
/// Thread: any, also several at once on one handle.
/// Stream: puts nothing on a stream; all is done when it returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinter_engine_get_name(
    engine: *const SinterEngine,
    name_out: *mut *const c_char,
) -> SinterStatus {
    guard("sinter_engine_get_name", || {
        let out = handle::out(name_out, "name_out")?;
        let e = handle::shared(engine, "engine")?;
        out.set(e.names[e.io.len()].as_ptr());
        Ok(())
    })
}

/// Number of inputs and outputs.
///
/// Params: engine (in); count_out (out).
/// Owns: nothing changes hands; memory that is passed in is read or copied before the call returns.
/// Result: OK; on failure no output is written and nothing has changed.
/// Status: OK, the errors of handles and arguments.
/// Thread: any, also several at once on one handle.
/// Stream: puts nothing on a stream; all is done when it returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinter_engine_get_tensor_count(
    engine: *const SinterEngine,
    count_out: *mut usize,
) -> SinterStatus {
    guard("sinter_engine_get_tensor_count", || {
        let out = handle::out(count_out, "count_out")?;
        out.set(handle::shared(engine, "engine")?.io.len());
        Ok(())
    })
}

/// Name of an input or output: inputs come first, both in the network's order.
///
/// Params: engine (in); index (in) below the count; name_out (out).
/// Owns: the text is borrowed and stays until the receiver is destroyed.
/// Result: OK; on failure no output is written and nothing has changed.
/// Status: OK, the errors of handles and arguments.
/// Thread: any, also several at once on one handle.
/// Stream: puts nothing on a stream; all is done when it returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinter_engine_get_tensor_name(
    engine: *const SinterEngine,
    index: usize,
    name_out: *mut *const c_char,
) -> SinterStatus {
    guard("sinter_engine_get_tensor_name", || {
        let out = handle::out(name_out, "name_out")?;
        let e = handle::shared(engine, "engine")?;
        let n = e.io.len();
        crate::ensure!(index < n, InvalidArgument, "there is no tensor {index}; the engine has {n}");
        out.set(e.names[index].as_ptr());
        Ok(())
    })
}

/// Whether a tensor is an input or an output.
///
/// Params: engine (in); tensor (in) name; mode_out (out).
/// Owns: nothing changes hands; memory that is passed in is read or copied before the call returns.
/// Result: OK; on failure no output is written and nothing has changed.
/// Status: OK, the errors of handles and arguments; NOT_FOUND for a name that is none.
/// Thread: any, also several at once on one handle.
/// Stream: puts nothing on a stream; all is done when it returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinter_engine_get_tensor_mode(
    engine: *const SinterEngine,
    tensor: *const c_char,
    mode_out: *mut SinterTensorMode,
) -> SinterStatus {
    guard("sinter_engine_get_tensor_mode", || {
        let out = handle::out(mode_out, "mode_out")?;
        let e = handle::shared(engine, "engine")?;
        out.set(if e.tensor(tensor)?.is_input { SinterTensorMode::INPUT } else { SinterTensorMode::OUTPUT });
        Ok(())
    })
}

/// Element type of a tensor.
///
/// Params: engine (in); tensor (in) name; dtype_out (out).
/// Owns: nothing changes hands; memory that is passed in is read or copied before the call returns.
/// Result: OK; on failure no output is written and nothing has changed.
/// Status: OK, the errors of handles and arguments; NOT_FOUND for a name that is none.
/// Thread: any, also several at once on one handle.
/// Stream: puts nothing on a stream; all is done when it returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinter_engine_get_tensor_dtype(
    engine: *const SinterEngine,
    tensor: *const c_char,
    dtype_out: *mut SinterDataType,
) -> SinterStatus {
    guard("sinter_engine_get_tensor_dtype", || {
        let out = handle::out(dtype_out, "dtype_out")?;
        let e = handle::shared(engine, "engine")?;
        out.set(SinterDataType(e.tensor(tensor)?.dtype as i32));
        Ok(())
    })
}

/// Declared shape of a tensor.
///
/// Params: engine (in); tensor (in) name; dims_out (out) capacity elements, -1 where the size is known at run time
/// only, NULL to ask for the rank; capacity (in); n_dims_out (out) rank, may be NULL.
/// Owns: nothing changes hands; memory that is passed in is read or copied before the call returns.
/// Result: OK; on failure no output is written and nothing has changed.
/// Status: OK, the errors of handles and arguments; NOT_FOUND for a name that is none.
/// Thread: any, also several at once on one handle.
/// Stream: puts nothing on a stream; all is done when it returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinter_engine_get_tensor_shape(
    engine: *const SinterEngine,
    tensor: *const c_char,
    dims_out: *mut i64,
    capacity: usize,
    n_dims_out: *mut usize,
) -> SinterStatus {
    guard("sinter_engine_get_tensor_shape", || {
        let e = handle::shared(engine, "engine")?;
        handle::write_list(dims_out, capacity, n_dims_out, &plain_dims(&e.tensor(tensor)?.shape), "dims_out")
    })
}

/// Declared shape of a tensor as text, with the names of sizes and what outputs make of them, for example
/// "[batch,1,2*n+1]".
///
/// Params: engine (in); tensor (in) name; buffer (out) capacity bytes, NULL to ask for the length; capacity (in) with
/// the final NUL; length_out (out) bytes without it, may be NULL.
/// Owns: nothing changes hands; memory that is passed in is read or copied before the call returns.
/// Result: OK; on failure no output is written and nothing has changed.
/// Status: OK, the errors of handles and arguments; NOT_FOUND for a name that is none.
/// Thread: any, also several at once on one handle.
/// Stream: puts nothing on a stream; all is done when it returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinter_engine_get_tensor_shape_text(
    engine: *const SinterEngine,
    tensor: *const c_char,
    buffer: *mut c_char,
    capacity: usize,
    length_out: *mut usize,
) -> SinterStatus {
    guard("sinter_engine_get_tensor_shape_text", || {
        let e = handle::shared(engine, "engine")?;
        handle::write_text(buffer, capacity, length_out, &e.tensor(tensor)?.shape.to_string(), "buffer")
    })
}

/// Where the memory that is bound to a tensor should lie.
///
/// Params: engine (in); tensor (in) name; location_out (out).
/// Owns: nothing changes hands; memory that is passed in is read or copied before the call returns.
/// Result: OK; on failure no output is written and nothing has changed.
/// Status: OK, the errors of handles and arguments; NOT_FOUND for a name that is none.
/// Thread: any, also several at once on one handle.
/// Stream: puts nothing on a stream; all is done when it returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinter_engine_get_tensor_location(
    engine: *const SinterEngine,
    tensor: *const c_char,
    location_out: *mut SinterTensorLocation,
) -> SinterStatus {
    guard("sinter_engine_get_tensor_location", || {
        let out = handle::out(location_out, "location_out")?;
        let e = handle::shared(engine, "engine")?;
        out.set(if e.tensor(tensor)?.host { SinterTensorLocation::HOST } else { SinterTensorLocation::DEVICE });
        Ok(())
    })
}

/// Number of optimization profiles, at least 1.
///
/// Params: engine (in); count_out (out).
/// Owns: nothing changes hands; memory that is passed in is read or copied before the call returns.
/// Result: OK; on failure no output is written and nothing has changed.
/// Status: OK, the errors of handles and arguments.
/// Thread: any, also several at once on one handle.
/// Stream: puts nothing on a stream; all is done when it returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinter_engine_get_profile_count(
    engine: *const SinterEngine,
    count_out: *mut usize,
) -> SinterStatus {
    guard("sinter_engine_get_profile_count", || {
        let out = handle::out(count_out, "count_out")?;
        out.set(handle::shared(engine, "engine")?.engine.profiles().len());
        Ok(())
    })
}

/// Range of an input's shape in a profile.
///
/// Params: engine (in); profile (in) index; input (in) name; min_out, opt_out, max_out (out) capacity elements each,
/// all NULL to ask for the rank; INT64_MAX stands for no upper bound; capacity (in); n_dims_out (out) rank, may be
/// NULL.
/// Owns: nothing changes hands; memory that is passed in is read or copied before the call returns.
/// Result: OK; on failure no output is written and nothing has changed.
/// Status: OK, the errors of handles and arguments; NOT_FOUND for a name that is none.
/// Thread: any, also several at once on one handle.
/// Stream: puts nothing on a stream; all is done when it returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinter_engine_get_profile_range(
    engine: *const SinterEngine,
    profile: usize,
    input: *const c_char,
    min_out: *mut i64,
    opt_out: *mut i64,
    max_out: *mut i64,
    capacity: usize,
    n_dims_out: *mut usize,
) -> SinterStatus {
    guard("sinter_engine_get_profile_range", || {
        let e = handle::shared(engine, "engine")?;
        let list = e.engine.profiles();
        let n = list.len();
        let p = list
            .get(profile)
            .ok_or_else(|| err!(InvalidArgument, "there is no profile {profile}; the engine has {n}"))?;
        let t = e.tensor(input)?;
        crate::ensure!(t.is_input, InvalidArgument, "{:?} is an output; only inputs have ranges", t.name);
        let whole = || Range {
            min: vec![0; t.shape.rank()],
            opt: vec![1; t.shape.rank()],
            max: vec![UNBOUNDED; t.shape.rank()],
        };
        let r = p.inputs.get(&t.name).cloned().unwrap_or_else(whole);
        let rank = r.min.len();
        for (to, from, arg) in
            [(min_out, &r.min, "min_out"), (opt_out, &r.opt, "opt_out"), (max_out, &r.max, "max_out")]
        {
            crate::ensure!(
                !to.is_null() || capacity == 0,
                InvalidArgument,
                "{arg} is NULL, with a capacity of {capacity}"
            );
            crate::ensure!(
                to.is_null() || capacity >= from.len(),
                InvalidArgument,
                "{arg} has room for {capacity}, {rank} are needed"
            );
        }
        for (to, from, arg) in
            [(min_out, &r.min, "min_out"), (opt_out, &r.opt, "opt_out"), (max_out, &r.max, "max_out")]
        {
            if !to.is_null() {
                handle::write_list(to, capacity, std::ptr::null_mut(), from, arg)?;
            }
        }
        if !n_dims_out.is_null() {
            handle::out(n_dims_out, "n_dims_out")?.set(rank);
        }
        Ok(())
    })
}

/// Bytes that the weights take on the device.
///
/// Params: engine (in); bytes_out (out).
/// Owns: nothing changes hands; memory that is passed in is read or copied before the call returns.
/// Result: OK; on failure no output is written and nothing has changed.
/// Status: OK, the errors of handles and arguments.
/// Thread: any, also several at once on one handle.
/// Stream: puts nothing on a stream; all is done when it returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinter_engine_get_weight_bytes(
    engine: *const SinterEngine,
    bytes_out: *mut usize,
) -> SinterStatus {
    guard("sinter_engine_get_weight_bytes", || {
        let out = handle::out(bytes_out, "bytes_out")?;
        out.set(handle::shared(engine, "engine")?.engine.weight_bytes());
        Ok(())
    })
}

/// Number of layers that run, after fusion.
///
/// Params: engine (in); count_out (out).
/// Owns: nothing changes hands; memory that is passed in is read or copied before the call returns.
/// Result: OK; on failure no output is written and nothing has changed.
/// Status: OK, the errors of handles and arguments.
/// Thread: any, also several at once on one handle.
/// Stream: puts nothing on a stream; all is done when it returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinter_engine_get_layer_count(
    engine: *const SinterEngine,
    count_out: *mut usize,
) -> SinterStatus {
    guard("sinter_engine_get_layer_count", || {
        let out = handle::out(count_out, "count_out")?;
        out.set(handle::shared(engine, "engine")?.engine.plan.steps.len());
        Ok(())
    })
}

/// What the engine is made of, as JSON: layers in order with their kernels, tensors and shapes.
///
/// Params: engine (in); text_out (out) UTF-8.
/// Owns: on success the caller owns the new handle and destroys it; it keeps alive what it was made from.
/// Result: OK and the handle; on failure the handle output is NULL.
/// Status: OK, the errors of handles and arguments.
/// Thread: any, also several at once on one handle.
/// Stream: puts nothing on a stream; all is done when it returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinter_engine_query_json(
    engine: *const SinterEngine,
    text_out: *mut *mut SinterHostMemory,
) -> SinterStatus {
    guard("sinter_engine_query_json", || {
        let out = handle::out_handle(text_out, "text_out")?;
        let e = handle::shared(engine, "engine")?;
        out.give(Bytes::new(e.engine.inspect_json()?.into_bytes()));
        Ok(())
    })
}

/// The bytes of an engine, for sinter_runtime_deserialize_engine.
///
/// Params: engine (in); bytes_out (out).
/// Owns: on success the caller owns the new handle and destroys it; it keeps alive what it was made from.
/// Result: OK and the handle; on failure the handle output is NULL.
/// Status: OK, the errors of handles and arguments.
/// Thread: any, also several at once on one handle.
/// Stream: puts nothing on a stream; all is done when it returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinter_engine_serialize(
    engine: *const SinterEngine,
    bytes_out: *mut *mut SinterHostMemory,
) -> SinterStatus {
    guard("sinter_engine_serialize", || {
        let out = handle::out_handle(bytes_out, "bytes_out")?;
        let e = handle::shared(engine, "engine")?;
        out.give(Bytes::new(e.engine.to_bytes()?));
        Ok(())
    })
}

/// Writes an engine to a file: to a new one beside it first, which then takes its name.
///
/// Params: engine (in); path (in) UTF-8.
/// Owns: nothing changes hands; memory that is passed in is read or copied before the call returns.
/// Result: OK; on failure the file is as it was.
/// Status: OK, the errors of handles and arguments; NOT_FOUND when the folder does not exist; IO when the operating
/// system refuses.
/// Thread: any, also several at once on one handle.
/// Stream: puts nothing on a stream; all is done when it returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinter_engine_serialize_file(
    engine: *const SinterEngine,
    path: *const c_char,
) -> SinterStatus {
    guard("sinter_engine_serialize_file", || {
        let e = handle::shared(engine, "engine")?;
        let path = handle::text(path, "path")?;
        write_file(Path::new(path), &e.engine.to_bytes()?)
    })
}
