//! The CUDA driver: its entry points, whether it is there, and its failures as errors.
//!
//! [`driver`] opens `libcuda` and calls `cuInit` once per process; the result, good or bad, is kept. Every call into the
//! driver goes through the table and [`check`]; nothing else in the crate loads `libcuda`.

use super::library::{self, Search, entry_points};
use crate::base::{ErrorCode, Result, knobs};
use crate::{bail, err, log_info};
use cudarc::driver::sys;
use std::ffi::{CStr, c_char, c_int, c_uint, c_ulonglong, c_void};
use std::path::PathBuf;
use std::sync::OnceLock;

entry_points! {
    /// Entry points of `libcuda`. All but the optional ones exist in every driver since CUDA 12.
    Driver, sys -> CUresult {
        required {
            fn cuInit(c_uint);
            fn cuDriverGetVersion(*mut c_int);
            fn cuDeviceGet(*mut sys::CUdevice, c_int);
            fn cuDeviceGetCount(*mut c_int);
            fn cuDeviceGetName(*mut c_char, c_int, sys::CUdevice);
            fn cuDeviceGetAttribute(*mut c_int, sys::CUdevice_attribute, sys::CUdevice);
            fn cuDeviceTotalMem_v2(*mut usize, sys::CUdevice);
            fn cuDeviceGetUuid_v2(*mut sys::CUuuid, sys::CUdevice);
            fn cuDevicePrimaryCtxGetState(sys::CUdevice, *mut c_uint, *mut c_int);
            fn cuDevicePrimaryCtxRetain(*mut sys::CUcontext, sys::CUdevice);
            fn cuDevicePrimaryCtxRelease_v2(sys::CUdevice);
            fn cuCtxGetCurrent(*mut sys::CUcontext);
            fn cuCtxGetDevice(*mut sys::CUdevice);
            fn cuCtxSynchronize();
            fn cuCtxPushCurrent_v2(sys::CUcontext);
            fn cuCtxPopCurrent_v2(*mut sys::CUcontext);
            fn cuMemAlloc_v2(*mut sys::CUdeviceptr, usize);
            fn cuMemFree_v2(sys::CUdeviceptr);
            fn cuMemGetInfo_v2(*mut usize, *mut usize);
            fn cuMemHostAlloc(*mut *mut c_void, usize, c_uint);
            fn cuMemFreeHost(*mut c_void);
            fn cuMemcpyHtoDAsync_v2(sys::CUdeviceptr, *const c_void, usize, sys::CUstream);
            fn cuMemcpyDtoHAsync_v2(*mut c_void, sys::CUdeviceptr, usize, sys::CUstream);
            fn cuMemcpyDtoDAsync_v2(sys::CUdeviceptr, sys::CUdeviceptr, usize, sys::CUstream);
            fn cuMemsetD8Async(sys::CUdeviceptr, u8, usize, sys::CUstream);
            fn cuStreamCreate(*mut sys::CUstream, c_uint);
            fn cuStreamDestroy_v2(sys::CUstream);
            fn cuStreamSynchronize(sys::CUstream);
            fn cuStreamWaitEvent(sys::CUstream, sys::CUevent, c_uint);
            fn cuStreamBeginCapture_v2(sys::CUstream, sys::CUstreamCaptureMode);
            fn cuStreamEndCapture(sys::CUstream, *mut sys::CUgraph);
            fn cuEventCreate(*mut sys::CUevent, c_uint);
            fn cuEventDestroy_v2(sys::CUevent);
            fn cuEventRecord(sys::CUevent, sys::CUstream);
            fn cuEventSynchronize(sys::CUevent);
            fn cuEventQuery(sys::CUevent);
            fn cuModuleLoadData(*mut sys::CUmodule, *const c_void);
            fn cuModuleUnload(sys::CUmodule);
            fn cuModuleGetFunction(*mut sys::CUfunction, sys::CUmodule, *const c_char);
            fn cuFuncSetAttribute(sys::CUfunction, sys::CUfunction_attribute, c_int);
            fn cuFuncGetAttribute(*mut c_int, sys::CUfunction_attribute, sys::CUfunction);
            fn cuOccupancyMaxActiveBlocksPerMultiprocessor(*mut c_int, sys::CUfunction, c_int, usize);
            fn cuLaunchKernel(sys::CUfunction, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, sys::CUstream,
                *mut *mut c_void, *mut *mut c_void);
            fn cuLaunchKernelEx(*const sys::CUlaunchConfig, sys::CUfunction, *mut *mut c_void, *mut *mut c_void);
            fn cuGraphCreate(*mut sys::CUgraph, c_uint);
            fn cuGraphAddKernelNode_v2(*mut sys::CUgraphNode, sys::CUgraph, *const sys::CUgraphNode, usize,
                *const sys::CUDA_KERNEL_NODE_PARAMS);
            fn cuGraphAddMemcpyNode(*mut sys::CUgraphNode, sys::CUgraph, *const sys::CUgraphNode, usize,
                *const sys::CUDA_MEMCPY3D, sys::CUcontext);
            fn cuGraphAddMemsetNode(*mut sys::CUgraphNode, sys::CUgraph, *const sys::CUgraphNode, usize,
                *const sys::CUDA_MEMSET_NODE_PARAMS, sys::CUcontext);
            fn cuGraphExecKernelNodeSetParams_v2(sys::CUgraphExec, sys::CUgraphNode, *const sys::CUDA_KERNEL_NODE_PARAMS);
            fn cuGraphExecMemcpyNodeSetParams(sys::CUgraphExec, sys::CUgraphNode, *const sys::CUDA_MEMCPY3D, sys::CUcontext);
            fn cuGraphExecMemsetNodeSetParams(sys::CUgraphExec, sys::CUgraphNode, *const sys::CUDA_MEMSET_NODE_PARAMS,
                sys::CUcontext);
            fn cuGraphInstantiateWithFlags(*mut sys::CUgraphExec, sys::CUgraph, c_ulonglong);
            fn cuGraphGetNodes(sys::CUgraph, *mut sys::CUgraphNode, *mut usize);
            fn cuGraphExecUpdate_v2(sys::CUgraphExec, sys::CUgraph, *mut sys::CUgraphExecUpdateResultInfo);
            fn cuGraphUpload(sys::CUgraphExec, sys::CUstream);
            fn cuGraphLaunch(sys::CUgraphExec, sys::CUstream);
            fn cuGraphExecDestroy(sys::CUgraphExec);
            fn cuGraphDestroy(sys::CUgraph);
        }
        optional {
            fn cuEventElapsedTime_v2(*mut f32, sys::CUevent, sys::CUevent);
            fn cuFuncGetName(*mut *const c_char, sys::CUfunction);
            fn cuGraphAddDependencies_v2(sys::CUgraph, *const sys::CUgraphNode, *const sys::CUgraphNode,
                *const sys::CUgraphEdgeData, usize);
            fn cuStreamBeginCaptureToGraph(sys::CUstream, sys::CUgraph, *const sys::CUgraphNode, *const sys::CUgraphEdgeData,
                usize, sys::CUstreamCaptureMode);
            fn cuStreamGetCaptureInfo_v3(sys::CUstream, *mut sys::CUstreamCaptureStatus, *mut sys::cuuint64_t,
                *mut sys::CUgraph, *mut *const sys::CUgraphNode, *mut *const sys::CUgraphEdgeData, *mut usize);
            fn cuTensorMapEncodeTiled(*mut sys::CUtensorMap, sys::CUtensorMapDataType, sys::cuuint32_t, *mut c_void,
                *const sys::cuuint64_t, *const sys::cuuint64_t, *const sys::cuuint32_t, *const sys::cuuint32_t,
                sys::CUtensorMapInterleave, sys::CUtensorMapSwizzle, sys::CUtensorMapL2promotion,
                sys::CUtensorMapFloatOOBfill);
            fn cuTensorMapEncodeIm2col(*mut sys::CUtensorMap, sys::CUtensorMapDataType, sys::cuuint32_t, *mut c_void,
                *const sys::cuuint64_t, *const sys::cuuint64_t, *const i32, *const i32, sys::cuuint32_t,
                sys::cuuint32_t, *const sys::cuuint32_t, sys::CUtensorMapInterleave, sys::CUtensorMapSwizzle,
                sys::CUtensorMapL2promotion, sys::CUtensorMapFloatOOBfill);
        }
        unchecked {
            fn cuGetErrorName(i32, *mut *const c_char) -> i32;
            fn cuGetErrorString(i32, *mut *const c_char) -> i32;
            fn cuStreamIsCapturing(sys::CUstream, *mut i32) -> i32;
            fn cuGraphNodeGetType(sys::CUgraphNode, *mut i32) -> i32;
            fn cuEventElapsedTime(*mut f32, sys::CUevent, sys::CUevent) -> i32;
        }
    }
}

// SAFETY: function pointers and an open library, never changed after `resolve`; the driver is thread-safe.
unsafe impl Sync for Driver {}
// SAFETY: as above.
unsafe impl Send for Driver {}

/// Return codes that are told apart.
pub(super) mod code {
    pub const SUCCESS: i32 = 0;
    pub const OUT_OF_MEMORY: i32 = 2;
    pub const DEINITIALIZED: i32 = 4;
    pub const NO_BINARY_FOR_GPU: i32 = 209;
    pub const NOT_FOUND: i32 = 500;
    pub const NOT_READY: i32 = 600;
    pub const GRAPH_EXEC_UPDATE_FAILURE: i32 = 910;
}

/// The driver, initialized. The error says what was looked for, or why `cuInit` failed.
pub(super) fn driver() -> Result<&'static Driver> {
    static DRIVER: OnceLock<Result<Driver>> = OnceLock::new();
    DRIVER.get_or_init(load).as_ref().map_err(Clone::clone)
}

fn load() -> Result<Driver> {
    let search = Search {
        name: "libcuda",
        sonames: &["libcuda.so.1"],
        knob: &knobs::CUDA_PATH,
        // Not the toolkit's folder: the libcuda in there is a stub for linking.
        folders: ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/lib/wsl/lib"]
            .map(PathBuf::from)
            .to_vec(),
    };
    let driver = Driver::resolve(library::open(&search)?)?;
    // SAFETY: cuInit takes 0 and may be called again by anyone.
    let status = unsafe { (driver.cuInit)(0) };
    if status != code::SUCCESS {
        let e = err!(
            Cuda,
            "the CUDA driver at {} does not start: cuInit gives {}",
            driver.lib.path,
            describe_with(&driver, status)
        );
        log_info!("{e}");
        return Err(e);
    }
    log_info!("libcuda: CUDA driver {}", version_text(version_of(&driver)));
    Ok(driver)
}

/// Whether the CUDA driver can be used; looked up once per process.
pub fn is_present() -> Result<()> {
    driver().map(|_| ())
}

/// CUDA version that the driver supports, as 1000 * major + 10 * minor.
pub fn version() -> Result<i32> {
    driver().map(version_of)
}

fn version_of(driver: &Driver) -> i32 {
    let mut version = 0;
    // SAFETY: writes one integer.
    unsafe { (driver.cuDriverGetVersion)(&mut version) };
    version
}

fn version_text(version: i32) -> String {
    format!("{}.{}", version / 1000, version % 1000 / 10)
}

/// Turns a return code into an error that says what was being done: `"{doing}: CUDA_ERROR_X (n): text"`.
#[inline]
pub(super) fn check(driver: &Driver, status: i32, doing: impl FnOnce() -> String) -> Result<()> {
    if status == code::SUCCESS {
        return Ok(());
    }
    Err(failure(driver, status, doing()))
}

#[cold]
fn failure(driver: &Driver, status: i32, doing: String) -> crate::base::Error {
    let code = match status {
        code::OUT_OF_MEMORY => ErrorCode::OutOfMemory,
        _ => ErrorCode::Cuda,
    };
    crate::base::Error::new(code, format!("{doing}: {}", describe_with(driver, status)))
}

/// `CUDA_ERROR_X (n): text` for a return code, also for codes that this library has never heard of.
fn describe_with(driver: &Driver, status: i32) -> String {
    let text = |f: unsafe extern "C" fn(i32, *mut *const c_char) -> i32| {
        let mut p = std::ptr::null();
        // SAFETY: the driver sets the pointer to a static string, or to NULL for a code that it does not know.
        unsafe {
            f(status, &mut p);
            if p.is_null() { None } else { Some(CStr::from_ptr(p).to_string_lossy().into_owned()) }
        }
    };
    match (text(driver.cuGetErrorName), text(driver.cuGetErrorString)) {
        (Some(name), Some(what)) => format!("{name} ({status}): {what}"),
        _ => format!("unknown CUDA error {status}"),
    }
}

/// Makes a context current for a scope. Dropping it restores what was current before, on the same thread.
///
/// When the context is current already, entering and leaving do nothing.
#[must_use = "the context is left when the guard is dropped"]
pub struct ContextGuard {
    /// Set when the context was pushed and has to be popped.
    pushed: Option<&'static Driver>,
    /// A guard belongs to the thread that made it.
    _not_send: std::marker::PhantomData<*mut ()>,
}

impl ContextGuard {
    pub(super) fn new(driver: &'static Driver, context: sys::CUcontext) -> Result<ContextGuard> {
        let mut current = std::ptr::null_mut();
        // SAFETY: writes one pointer.
        let status = unsafe { (driver.cuCtxGetCurrent)(&mut current) };
        check(driver, status, || "reading the current CUDA context".into())?;
        if current == context {
            return Ok(ContextGuard { pushed: None, _not_send: std::marker::PhantomData });
        }
        // SAFETY: the context is alive: the device that holds it is.
        let status = unsafe { (driver.cuCtxPushCurrent_v2)(context) };
        check(driver, status, || "making the device's CUDA context current".into())?;
        Ok(ContextGuard { pushed: Some(driver), _not_send: std::marker::PhantomData })
    }
}

impl Drop for ContextGuard {
    fn drop(&mut self) {
        if let Some(driver) = self.pushed {
            let mut popped = std::ptr::null_mut();
            // SAFETY: the guard pushed one context on this thread's stack; guards nest, so it is on top.
            unsafe { (driver.cuCtxPopCurrent_v2)(&mut popped) };
        }
    }
}

/// Properties of one device, without making a context.
pub(super) fn device_props(driver: &Driver, ordinal: i32) -> Result<(sys::CUdevice, super::DeviceProps)> {
    use sys::CUdevice_attribute as A;
    let mut count = 0;
    // SAFETY: writes one integer.
    let status = unsafe { (driver.cuDeviceGetCount)(&mut count) };
    check(driver, status, || "counting CUDA devices".into())?;
    if ordinal < 0 || ordinal >= count {
        bail!(NotFound, "CUDA device {ordinal} does not exist: the driver shows {count} device(s), numbered from 0");
    }
    let mut device = 0;
    // SAFETY: writes one integer; the ordinal is in range.
    let status = unsafe { (driver.cuDeviceGet)(&mut device, ordinal) };
    check(driver, status, || format!("opening CUDA device {ordinal}"))?;
    let attribute = |a: A| -> Result<u32> {
        let mut value = 0;
        // SAFETY: writes one integer.
        let status = unsafe { (driver.cuDeviceGetAttribute)(&mut value, a, device) };
        check(driver, status, || format!("reading {a:?} of CUDA device {ordinal}"))?;
        Ok(value.max(0) as u32)
    };
    let mut name = [0 as c_char; 256];
    // SAFETY: writes at most 256 bytes with a NUL.
    let status = unsafe { (driver.cuDeviceGetName)(name.as_mut_ptr(), name.len() as c_int, device) };
    check(driver, status, || format!("reading the name of CUDA device {ordinal}"))?;
    name[255] = 0;
    // SAFETY: NUL-terminated by the line above.
    let name = unsafe { CStr::from_ptr(name.as_ptr()) }.to_string_lossy().into_owned();
    let mut memory_bytes = 0;
    // SAFETY: writes one size.
    let status = unsafe { (driver.cuDeviceTotalMem_v2)(&mut memory_bytes, device) };
    check(driver, status, || format!("reading the memory size of CUDA device {ordinal}"))?;
    let mut uuid = sys::CUuuid { bytes: [0; 16] };
    // SAFETY: writes 16 bytes.
    let status = unsafe { (driver.cuDeviceGetUuid_v2)(&mut uuid, device) };
    check(driver, status, || format!("reading the UUID of CUDA device {ordinal}"))?;
    let major = attribute(A::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
    let minor = attribute(A::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?;
    let props = super::DeviceProps {
        kind: super::DeviceKind::Cuda(ordinal),
        name,
        sm: major * 10 + minor,
        n_sm: attribute(A::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
        max_threads_per_block: attribute(A::CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK)?,
        max_smem_per_block: attribute(A::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?,
        max_grid: [
            attribute(A::CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_X)?,
            attribute(A::CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Y)?,
            attribute(A::CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Z)?,
        ],
        l2_bytes: attribute(A::CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE)? as usize,
        memory_bytes,
        // Deprecated in CUDA 13: a driver may stop to answer, and no choice depends on it.
        clock_khz: attribute(A::CU_DEVICE_ATTRIBUTE_CLOCK_RATE).unwrap_or(0),
        uuid: uuid.bytes.map(|b| b as u8),
        driver_version: version_of(driver),
    };
    Ok((device, props))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_driver_the_error_says_what_was_looked_for() {
        let Err(e) = is_present() else { return eprintln!("skipped: this machine has a CUDA driver") };
        assert!(e.message.contains("libcuda"), "{}", e.message);
        assert!(e.message.contains("SINTER_LIBCUDA_PATH") || e.message.contains("cuInit"), "{}", e.message);
        // The second call gives the same, kept answer.
        assert_eq!(is_present().unwrap_err().message, e.message);
    }

    #[test]
    fn versions_are_printed_as_people_write_them() {
        assert_eq!(version_text(13000), "13.0");
        assert_eq!(version_text(12090), "12.9");
    }
}
