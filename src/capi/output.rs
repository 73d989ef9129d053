//! Outputs whose size is known only while an execution runs.

use super::context::SinterContext;
use super::guard::guard;
use super::handle;
use super::status::SinterStatus;
use crate::runtime::OutputAllocator;
use std::ffi::{CString, c_char, c_void};
use std::sync::Arc;

/// Gives memory for an output of which the shape has just become known: at least bytes, aligned to 16 (64 on the CPU is
/// best). The name and the dimensions are valid during the call. NULL fails the execution. It is called on the thread
/// that runs the execution (for a stream of the CPU device, a thread of the library's) and must not use the context.
pub type SinterOutputAllocator = Option<
    unsafe extern "C" fn(
        userdata: *mut c_void,
        output: *const c_char,
        dims: *const i64,
        n_dims: usize,
        bytes: usize,
    ) -> *mut c_void,
>;

type AllocateFn =
    unsafe extern "C" fn(*mut c_void, output: *const c_char, dims: *const i64, n_dims: usize, bytes: usize) -> *mut c_void;

struct Allocator {
    callback: AllocateFn,
    userdata: *mut c_void,
}

// SAFETY: the pointer is only passed on; the callback's comment says that any thread may call.
unsafe impl Send for Allocator {}
// SAFETY: as above.
unsafe impl Sync for Allocator {}

impl OutputAllocator for Allocator {
    fn allocate(&self, name: &str, dims: &[i64], bytes: usize) -> Option<u64> {
        let name = CString::new(name.replace('\0', "\\0")).unwrap_or_default();
        // SAFETY: the application's function, called as its type says.
        let p = unsafe { (self.callback)(self.userdata, name.as_ptr(), dims.as_ptr(), dims.len(), bytes) };
        (!p.is_null() || bytes == 0).then_some(p as u64)
    }
}

/// Binds memory of a known size to an output: what an output needs whose shape depends on the data, unless an allocator
/// is set for it.
///
/// Params: context (in/out); output (in) name; address (in) as for sinter_context_bind; capacity (in) its size in bytes.
/// Owns: the memory stays the caller's and must be valid until executions that use it are done.
/// Result: OK; on failure the former binding stays. An execution that needs more fails with INVALID_STATE.
/// Status: OK, the errors of handles and arguments; NOT_FOUND for a name that is none; INVALID_ARGUMENT for an input.
/// Thread: any, one at a time on the receiver.
/// Stream: puts nothing on a stream; all is done when it returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinter_context_bind_output(
    context: *mut SinterContext,
    output: *const c_char,
    address: *mut c_void,
    capacity: usize,
) -> SinterStatus {
    guard("sinter_context_bind_output", || {
        let mut c = handle::exclusive(context, "context")?;
        c.bind_output(handle::text(output, "output")?, address as u64, capacity)
    })
}

/// Sets who gives memory to an output at each execution, when its shape is known. It goes before a bound address.
///
/// The shape is queried with sinter_context_query_tensor_shape after the execution; on a stream of the CPU device after
/// the stream was synchronized.
///
/// Params: context (in/out); output (in) name; callback (in) or NULL for none; userdata (in) passed to it, may be NULL.
/// Owns: userdata stays the caller's and is used while the callback is set and until enqueued executions are done; so is
/// the memory that the callback returns.
/// Result: OK; on failure no output is written and nothing has changed.
/// Status: OK, the errors of handles and arguments; NOT_FOUND for a name that is none; INVALID_ARGUMENT for an input.
/// Thread: any, one at a time on the receiver.
/// Stream: puts nothing on a stream; all is done when it returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinter_context_set_output_allocator(
    context: *mut SinterContext,
    output: *const c_char,
    callback: SinterOutputAllocator,
    userdata: *mut c_void,
) -> SinterStatus {
    guard("sinter_context_set_output_allocator", || {
        let mut c = handle::exclusive(context, "context")?;
        let allocator = callback.map(|callback| Arc::new(Allocator { callback, userdata }) as Arc<dyn OutputAllocator>);
        c.set_output_allocator(handle::text(output, "output")?, allocator)
    })
}
