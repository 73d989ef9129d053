//! Contexts: bound addresses, current shapes, scratch; the hot path.

use super::engine::SinterEngine;
use super::guard::guard;
use super::handle::{self, Handle};
use super::network::SinterDataType;
use super::status::SinterStatus;
use crate::runtime::{Context, LayerTimes};
use std::ffi::{CString, c_char, c_void};
use std::sync::Arc;

/// One execution at a time of an engine. Use one context for each thread or stream that runs at the same time.
pub struct SinterContext {
    _opaque: (),
}

impl Handle for SinterContext {
    const MAGIC: &'static [u8; 8] = b"SntrCont";
    type Content = Context;
}

/// Receives the time of one layer, in the order of execution. The name is valid during the call. It may be called on a
/// thread of the library's, and must not use the context.
pub type SinterLayerTimeCallback =
    Option<unsafe extern "C" fn(userdata: *mut c_void, layer: *const c_char, milliseconds: f32)>;

struct Times {
    callback: unsafe extern "C" fn(userdata: *mut c_void, layer: *const c_char, milliseconds: f32),
    userdata: *mut c_void,
}

// SAFETY: the pointer is only passed on; the callback's comment says that any thread may call.
unsafe impl Send for Times {}
// SAFETY: as above.
unsafe impl Sync for Times {}

impl LayerTimes for Times {
    fn report(&self, layer: &str, ms: f32) {
        let layer = CString::new(layer.replace('\0', "\\0")).unwrap_or_default();
        // SAFETY: the application's function, called as its type says.
        unsafe { (self.callback)(self.userdata, layer.as_ptr(), ms) }
    }
}

/// Makes a context. With a profile that has upper bounds, scratch for its largest shapes is reserved now.
///
/// Params: engine (in); context_out (out).
/// Owns: on success the caller owns the new handle and destroys it; it keeps alive what it was made from.
/// Result: OK and the handle; on failure the handle output is NULL.
/// Status: OK, the errors of handles and arguments; OUT_OF_MEMORY or CUDA when scratch cannot be reserved.
/// Thread: any, also several at once on one handle.
/// Stream: puts nothing on a stream; all is done when it returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinter_context_create(
    engine: *const SinterEngine,
    context_out: *mut *mut SinterContext,
) -> SinterStatus {
    guard("sinter_context_create", || {
        let out = handle::out_handle(context_out, "context_out")?;
        let e = handle::shared(engine, "engine")?;
        out.give(Context::new(&e.engine)?);
        Ok(())
    })
}

/// Destroys a context.
///
/// Params: context (in) or NULL, which does nothing.
/// Owns: the handle is gone; the engine too if this was the last to use it.
/// Result: OK; on failure nothing has changed.
/// Status: OK; INVALID_ARGUMENT for a wrong or destroyed handle; INVALID_STATE while another call uses it.
/// Thread: any, one at a time on the receiver.
/// Stream: on CUDA waits for the stream of the last enqueue; on the CPU enqueued work keeps what it needs and goes on.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinter_context_destroy(context: *mut SinterContext) -> SinterStatus {
    guard("sinter_context_destroy", || handle::destroy(context, "context"))
}

/// Chooses an optimization profile; shapes of dynamic inputs must be set again. At first it is profile 0.
///
/// Params: context (in/out); index (in).
/// Owns: nothing changes hands; memory that is passed in is read or copied before the call returns.
/// Result: OK; on failure no output is written and nothing has changed.
/// Status: OK, the errors of handles and arguments; OUT_OF_MEMORY or CUDA when scratch cannot be reserved.
/// Thread: any, one at a time on the receiver.
/// Stream: puts nothing on a stream; all is done when it returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinter_context_set_profile(context: *mut SinterContext, index: usize) -> SinterStatus {
    guard("sinter_context_set_profile", || handle::exclusive(context, "context")?.set_profile(index))
}

/// Sets the shape of an input. Inputs of static shape have theirs already.
///
/// Params: context (in/out); input (in) name; dims (in) n_dims elements; n_dims (in).
/// Owns: nothing changes hands; memory that is passed in is read or copied before the call returns.
/// Result: OK; on failure the former shape stays.
/// Status: OK, the errors of handles and arguments; NOT_FOUND for a name that is none; INVALID_ARGUMENT for a shape
/// that is not the declared one or outside of the profile's range.
/// Thread: any, one at a time on the receiver.
/// Stream: puts nothing on a stream; all is done when it returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinter_context_set_input_shape(
    context: *mut SinterContext,
    input: *const c_char,
    dims: *const i64,
    n_dims: usize,
) -> SinterStatus {
    guard("sinter_context_set_input_shape", || {
        let mut c = handle::exclusive(context, "context")?;
        c.set_input_shape(handle::text(input, "input")?, handle::slice(dims, n_dims, "dims")?)
    })
}

/// Current shape of an input or output. For an output the shapes of all inputs must be set, and inputs with the
/// location HOST bound.
///
/// Params: context (in/out); tensor (in) name; dims_out (out) capacity elements, NULL to ask for the rank; capacity
/// (in); n_dims_out (out) rank, may be NULL.
/// Owns: nothing changes hands; memory that is passed in is read or copied before the call returns.
/// Result: OK; on failure no output is written and nothing has changed.
/// Status: OK, the errors of handles and arguments; NOT_FOUND for a name that is none; INVALID_STATE when a shape is
/// not set yet.
/// Thread: any, one at a time on the receiver.
/// Stream: puts nothing on a stream; with inputs of location HOST in device memory it waits for a copy of them.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinter_context_query_tensor_shape(
    context: *mut SinterContext,
    tensor: *const c_char,
    dims_out: *mut i64,
    capacity: usize,
    n_dims_out: *mut usize,
) -> SinterStatus {
    guard("sinter_context_query_tensor_shape", || {
        let mut c = handle::exclusive(context, "context")?;
        let dims = c.tensor_shape(handle::text(tensor, "tensor")?)?;
        handle::write_list(dims_out, capacity, n_dims_out, &dims, "dims_out")
    })
}

/// Bytes of an input or output at the current shapes: what to reserve for it.
///
/// Params: context (in/out); tensor (in) name; bytes_out (out).
/// Owns: nothing changes hands; memory that is passed in is read or copied before the call returns.
/// Result: OK; on failure no output is written and nothing has changed.
/// Status: OK, the errors of handles and arguments; NOT_FOUND for a name that is none; INVALID_STATE when a shape is
/// not set yet.
/// Thread: any, one at a time on the receiver.
/// Stream: as for sinter_context_query_tensor_shape.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinter_context_query_tensor_bytes(
    context: *mut SinterContext,
    tensor: *const c_char,
    bytes_out: *mut usize,
) -> SinterStatus {
    guard("sinter_context_query_tensor_bytes", || {
        let out = handle::out(bytes_out, "bytes_out")?;
        let mut c = handle::exclusive(context, "context")?;
        let name = handle::text(tensor, "tensor")?;
        let dims: Vec<usize> = c.tensor_shape(name)?.iter().map(|d| *d as usize).collect();
        out.set(crate::base::tensor::checked_bytes(c.tensor_dtype(name)?, &dims)?);
        Ok(())
    })
}

/// Element type of an input or output.
///
/// Params: context (in/out); tensor (in) name; dtype_out (out).
/// Owns: nothing changes hands; memory that is passed in is read or copied before the call returns.
/// Result: OK; on failure no output is written and nothing has changed.
/// Status: OK, the errors of handles and arguments; NOT_FOUND for a name that is none.
/// Thread: any, one at a time on the receiver.
/// Stream: puts nothing on a stream; all is done when it returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinter_context_get_tensor_dtype(
    context: *mut SinterContext,
    tensor: *const c_char,
    dtype_out: *mut SinterDataType,
) -> SinterStatus {
    guard("sinter_context_get_tensor_dtype", || {
        let out = handle::out(dtype_out, "dtype_out")?;
        let c = handle::exclusive(context, "context")?;
        out.set(SinterDataType(c.tensor_dtype(handle::text(tensor, "tensor")?)? as i32));
        Ok(())
    })
}

/// Binds memory to an input or output, for all later executions.
///
/// Params: context (in/out); tensor (in) name; address (in) of the device's memory (host memory on the CPU, and best
/// for inputs of location HOST), aligned for the element type, with room for the tensor; NULL only for one without
/// elements.
/// Owns: the memory stays the caller's and must be valid until executions that use it are done.
/// Result: OK; on failure the former binding stays.
/// Status: OK, the errors of handles and arguments; NOT_FOUND for a name that is none.
/// Thread: any, one at a time on the receiver.
/// Stream: puts nothing on a stream; all is done when it returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinter_context_bind(
    context: *mut SinterContext,
    tensor: *const c_char,
    address: *mut c_void,
) -> SinterStatus {
    guard("sinter_context_bind", || {
        let mut c = handle::exclusive(context, "context")?;
        c.bind(handle::text(tensor, "tensor")?, address as u64)
    })
}

/// The address that is bound to an input or output.
///
/// Params: context (in/out); tensor (in) name; address_out (out) NULL when nothing is bound.
/// Owns: the memory stays whose it was.
/// Result: OK; on failure no output is written and nothing has changed.
/// Status: OK, the errors of handles and arguments; NOT_FOUND for a name that is none.
/// Thread: any, one at a time on the receiver.
/// Stream: puts nothing on a stream; all is done when it returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinter_context_get_address(
    context: *mut SinterContext,
    tensor: *const c_char,
    address_out: *mut *mut c_void,
) -> SinterStatus {
    guard("sinter_context_get_address", || {
        let out = handle::out(address_out, "address_out")?;
        let c = handle::exclusive(context, "context")?;
        out.set(c.address(handle::text(tensor, "tensor")?)?.unwrap_or(0) as *mut c_void);
        Ok(())
    })
}

/// Puts one execution on a stream and returns at once.
///
/// Params: context (in/out) with shapes set and memory bound; stream (in) the application's own, of the engine's
/// device; NULL is the default stream, on which the CPU computes before it returns; input_consumed_event (in) NULL,
/// or the application's own event, which is recorded when every read of the inputs is done: they may be refilled
/// then.
/// Owns: nothing changes hands; bound memory, stream and event are in use until the stream has passed the execution.
/// Result: OK when the execution is on the stream; errors of running it come at the next synchronization or call.
/// Status: OK, the errors of handles and arguments; INVALID_STATE when a shape is not set or a tensor not bound; CUDA
/// when the driver refuses.
/// Thread: any, one at a time on the receiver. Hot path: with shapes seen before it reserves no device memory.
/// Stream: ordered on the stream. With a layer-time callback set, it waits for the end.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinter_context_enqueue(
    context: *mut SinterContext,
    stream: *mut c_void,
    input_consumed_event: *mut c_void,
) -> SinterStatus {
    guard("sinter_context_enqueue", || handle::exclusive(context, "context")?.enqueue(stream, input_consumed_event))
}

/// Runs once and waits for the end.
///
/// Params: context (in/out) with shapes set and memory bound.
/// Owns: nothing changes hands; bound memory is in use until the call returns.
/// Result: OK when the outputs are written; on failure they may hold anything.
/// Status: OK, the errors of handles and arguments; INVALID_STATE when a shape is not set or a tensor not bound; CUDA
/// when the driver refuses.
/// Thread: any, one at a time on the receiver.
/// Stream: synchronous, on a stream of the context's own; it does not wait for work on other streams.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinter_context_execute(context: *mut SinterContext) -> SinterStatus {
    guard("sinter_context_execute", || handle::exclusive(context, "context")?.execute())
}

/// Sets who receives the time of each layer of every later execution; such executions wait for their end.
///
/// Params: context (in/out); callback (in) or NULL for none; userdata (in) passed to it, may be NULL.
/// Owns: userdata stays the caller's and is used while the callback is set and until enqueued executions are done.
/// Result: OK; on failure no output is written and nothing has changed.
/// Status: OK, the errors of handles and arguments.
/// Thread: any, one at a time on the receiver.
/// Stream: puts nothing on a stream; all is done when it returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinter_context_set_layer_time_callback(
    context: *mut SinterContext,
    callback: SinterLayerTimeCallback,
    userdata: *mut c_void,
) -> SinterStatus {
    guard("sinter_context_set_layer_time_callback", || {
        let times = callback.map(|callback| Arc::new(Times { callback, userdata }) as Arc<dyn LayerTimes>);
        handle::exclusive(context, "context")?.set_layer_times(times);
        Ok(())
    })
}

/// Bytes of scratch memory that the context holds.
///
/// Params: context (in/out); bytes_out (out).
/// Owns: nothing changes hands; memory that is passed in is read or copied before the call returns.
/// Result: OK; on failure no output is written and nothing has changed.
/// Status: OK, the errors of handles and arguments.
/// Thread: any, one at a time on the receiver.
/// Stream: puts nothing on a stream; all is done when it returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinter_context_get_scratch_bytes(
    context: *mut SinterContext,
    bytes_out: *mut usize,
) -> SinterStatus {
    guard("sinter_context_get_scratch_bytes", || {
        let out = handle::out(bytes_out, "bytes_out")?;
        out.set(handle::exclusive(context, "context")?.scratch_bytes());
        Ok(())
    })
}

/// Bytes of scratch memory that the current shapes need.
///
/// Params: context (in/out) with shapes set; bytes_out (out).
/// Owns: nothing changes hands; memory that is passed in is read or copied before the call returns.
/// Result: OK; on failure no output is written and nothing has changed.
/// Status: OK, the errors of handles and arguments; INVALID_STATE when a shape is not set yet.
/// Thread: any, one at a time on the receiver.
/// Stream: as for sinter_context_query_tensor_shape.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinter_context_query_needed_scratch_bytes(
    context: *mut SinterContext,
    bytes_out: *mut usize,
) -> SinterStatus {
    guard("sinter_context_query_needed_scratch_bytes", || {
        let out = handle::out(bytes_out, "bytes_out")?;
        out.set(handle::exclusive(context, "context")?.needed_scratch_bytes()?);
        Ok(())
    })
}
