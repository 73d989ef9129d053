//! The runtime: from an engine's bytes to an engine that is ready on a device.

use super::device::SinterDevice;
use super::engine::{LoadedEngine, SinterEngine};
use super::guard::guard;
use super::handle::{self, Handle};
use super::status::SinterStatus;
use crate::base::Result;
use crate::device::DeviceRef;
use crate::engine::{Engine, OtherDevice};
use crate::{ensure, err};
use std::ffi::{c_char, c_void};
use std::path::Path;

/// Loads engines onto one device.
pub struct SinterRuntime {
    _opaque: (),
}

impl Handle for SinterRuntime {
    const MAGIC: &'static [u8; 8] = b"SntrRunt";
    type Content = DeviceRef;
}

/// What to do with an engine that was planned for another kind of device.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SinterLoadPolicy(pub i32);

impl SinterLoadPolicy {
    /// Plan again from the portable network inside; needs NVRTC for a GPU.
    pub const REPLAN: Self = Self(0);
    /// Fail with VERSION_MISMATCH.
    pub const ERROR: Self = Self(1);

    fn rust(self) -> Result<OtherDevice> {
        match self {
            Self::REPLAN => Ok(OtherDevice::Replan),
            Self::ERROR => Ok(OtherDevice::Error),
            Self(n) => Err(err!(InvalidArgument, "load policy {n} is none of 0 to 1")),
        }
    }
}

/// Makes a runtime for a device.
///
/// Params: device (in); runtime_out (out).
/// Owns: on success the caller owns the new handle and destroys it; it keeps alive what it was made from.
/// Result: OK and the handle; on failure the handle output is NULL.
/// Status: OK, the errors of handles and arguments.
/// Thread: any, also several at once on one handle.
/// Stream: puts nothing on a stream; all is done when it returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinter_runtime_create(
    device: *const SinterDevice,
    runtime_out: *mut *mut SinterRuntime,
) -> SinterStatus {
    guard("sinter_runtime_create", || {
        let out = handle::out_handle(runtime_out, "runtime_out")?;
        out.give(handle::shared(device, "device")?.device.clone());
        Ok(())
    })
}

/// Destroys a runtime.
///
/// Params: runtime (in) or NULL, which does nothing.
/// Owns: the handle is gone; engines that it loaded stay.
/// Result: OK; on failure nothing has changed.
/// Status: OK; INVALID_ARGUMENT for a wrong or destroyed handle; INVALID_STATE while another call uses it.
/// Thread: any, one at a time on the receiver.
/// Stream: puts nothing on a stream; all is done when it returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinter_runtime_destroy(runtime: *mut SinterRuntime) -> SinterStatus {
    guard("sinter_runtime_destroy", || handle::destroy(runtime, "runtime"))
}

/// Loads an engine from memory. The bytes may come from anywhere: what is not an engine, damaged, cut short or of a
/// newer format is refused with a sentence that says which.
///
/// Params: runtime (in); data (in) the bytes; size (in) their number; policy (in); engine_out (out).
/// Owns: on success the caller owns the engine; the bytes are copied.
/// Result: OK and the handle; on failure the handle output is NULL.
/// Status: OK, the errors of handles and arguments; PARSE, CORRUPT_DATA or VERSION_MISMATCH for the bytes;
/// OUT_OF_MEMORY or CUDA on the device.
/// Thread: any, also several at once on one handle.
/// Stream: synchronous; weights are copied on a stream of the library's own.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinter_runtime_deserialize_engine(
    runtime: *const SinterRuntime,
    data: *const c_void,
    size: usize,
    policy: SinterLoadPolicy,
    engine_out: *mut *mut SinterEngine,
) -> SinterStatus {
    guard("sinter_runtime_deserialize_engine", || {
        let out = handle::out_handle(engine_out, "engine_out")?;
        let device = handle::shared(runtime, "runtime")?;
        ensure!(!data.is_null(), InvalidArgument, "data is NULL");
        let bytes = handle::slice(data.cast::<u8>(), size, "data")?;
        out.give(LoadedEngine::new(Engine::from_bytes(bytes, &device, policy.rust()?)?)?);
        Ok(())
    })
}

/// Loads an engine from a file, which is mapped: weights go to the device without a second copy.
///
/// Params: runtime (in); path (in) UTF-8; policy (in); engine_out (out).
/// Owns: on success the caller owns the engine; the file must not be changed in place while it lives (replacing is
/// fine).
/// Result: OK and the handle; on failure the handle output is NULL.
/// Status: OK, the errors of handles and arguments; NOT_FOUND or IO for the file; PARSE, CORRUPT_DATA or
/// VERSION_MISMATCH for its bytes; OUT_OF_MEMORY or CUDA on the device.
/// Thread: any, also several at once on one handle.
/// Stream: synchronous; weights are copied on a stream of the library's own.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinter_runtime_deserialize_engine_file(
    runtime: *const SinterRuntime,
    path: *const c_char,
    policy: SinterLoadPolicy,
    engine_out: *mut *mut SinterEngine,
) -> SinterStatus {
    guard("sinter_runtime_deserialize_engine_file", || {
        let out = handle::out_handle(engine_out, "engine_out")?;
        let device = handle::shared(runtime, "runtime")?;
        let path = handle::text(path, "path")?;
        out.give(LoadedEngine::new(Engine::from_file(Path::new(path), &device, policy.rust()?)?)?);
        Ok(())
    })
}
