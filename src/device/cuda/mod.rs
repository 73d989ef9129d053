//! CUDA devices, on `cudarc`'s `sys` layer and nothing above it.
//!
//! Nothing here is needed to load the library: the driver, NVRTC and cuBLASLt are found at run time, and a missing one is
//! an error that says what was looked for. NVRTC ([`nvrtc`], [`kernel_cache`]) serves the builder alone; running an
//! engine needs `libcuda`, and `libcublasLt` if the engine uses it.
//!
//! A [`CudaDevice`] works in the application's own context when one is current, else in the device's primary context,
//! which is the one that the CUDA runtime uses. Each call makes that context current for its own duration only. Nothing
//! here uses the default stream unless the caller passes it (a NULL stream), allocates device memory that was not asked
//! for, or waits for the device without being told to. (Loading a module and making a cuBLASLt handle take some memory
//! inside the driver; both happen while a plan is made, never while it runs.)

pub mod cublaslt;
pub mod driver;
pub mod graph;
pub mod kernel_cache;
pub mod launch;
mod tensor_map;
mod library;
pub mod module;
pub mod nvrtc;
pub mod source;

use super::{CopyKind, Device, DeviceKind, DeviceProps, RawEvent, RawStream};
use crate::base::Result;
use crate::{bail, log_warn};
use cudarc::driver::sys;
use driver::{Driver, check, code};
use parking_lot::Mutex;
use std::ffi::c_void;
use std::fmt;
use std::sync::{Arc, OnceLock, Weak};

pub use driver::ContextGuard;
pub use kernel_cache::{Cubin, arch_of, compile_all};
pub use launch::PreparedLaunch;
pub use module::{Function, Module, Start};

/// One CUDA device in one context. Shared by everything that uses it.
pub struct CudaDevice {
    driver: &'static Driver,
    device: sys::CUdevice,
    context: sys::CUcontext,
    /// The primary context was retained and is released at the end.
    retained: bool,
    props: DeviceProps,
    /// Made when the first matrix product of the library is planned.
    cublaslt: OnceLock<Result<cublaslt::Handle>>,
}

// SAFETY: the context handle may be used from any thread, and the driver is thread-safe.
unsafe impl Send for CudaDevice {}
// SAFETY: as above.
unsafe impl Sync for CudaDevice {}

/// Devices in use, by ordinal and context.
static OPEN: Mutex<Vec<(i32, usize, Weak<CudaDevice>)>> = Mutex::new(Vec::new());

impl CudaDevice {
    /// Opens device `ordinal` in the context that is current on this thread, if that belongs to the device, otherwise in
    /// the device's primary context (retained until the last reference is dropped).
    ///
    /// Opening a device again in the same context gives the same object. An application's own context must outlive it.
    pub fn open(ordinal: i32) -> Result<Arc<CudaDevice>> {
        let driver = driver::driver()?;
        let (device, props) = driver::device_props(driver, ordinal)?;
        let mut open = OPEN.lock();
        let (context, retained) = context_for(driver, device, ordinal)?;
        open.retain(|(_, _, weak)| weak.strong_count() > 0);
        let known = open.iter().find(|(n, c, _)| *n == ordinal && *c == context as usize);
        if let Some(found) = known.and_then(|(_, _, weak)| weak.upgrade()) {
            if retained {
                // SAFETY: undoes the retain of `context_for`; the object found holds its own.
                unsafe { (driver.cuDevicePrimaryCtxRelease_v2)(device) };
            }
            return Ok(found);
        }
        let made = Arc::new(CudaDevice { driver, device, context, retained, props, cublaslt: OnceLock::new() });
        open.push((ordinal, context as usize, Arc::downgrade(&made)));
        Ok(made)
    }

    /// Properties of every device; empty when there is no driver.
    pub fn list() -> Vec<DeviceProps> {
        let Ok(driver) = driver::driver() else { return Vec::new() };
        let mut count = 0;
        // SAFETY: writes one integer.
        if unsafe { (driver.cuDeviceGetCount)(&mut count) } != code::SUCCESS {
            return Vec::new();
        }
        (0..count).filter_map(|n| driver::device_props(driver, n).ok()).map(|(_, props)| props).collect()
    }

    /// The device's number.
    pub fn ordinal(&self) -> i32 {
        match self.props.kind {
            DeviceKind::Cuda(n) => n,
            _ => 0,
        }
    }

    /// The `CUcontext` that this object works in.
    pub fn raw_context(&self) -> *mut c_void {
        self.context.cast()
    }

    /// Makes the device's context current until the guard is dropped: once around many launches.
    #[inline]
    pub fn enter(&self) -> Result<ContextGuard> {
        ContextGuard::new(self.driver, self.context)
    }

    /// Waits for everything that was ever put on the device's context, whatever the stream: for destroying things whose
    /// stream may be gone already. Never on the enqueue path.
    pub fn synchronize(&self) -> Result<()> {
        let _context = self.enter()?;
        // SAFETY: takes nothing.
        let status = unsafe { (self.driver.cuCtxSynchronize)() };
        check_unless_exiting(self.driver, status, || "waiting for a CUDA device".into())
    }

    /// Page-locked host memory that every context may copy from and to without staging; free it with `free_pinned`.
    pub fn alloc_pinned(&self, bytes: usize) -> Result<*mut u8> {
        const PORTABLE: u32 = 1;
        let _context = self.enter()?;
        let mut p = std::ptr::null_mut();
        // SAFETY: writes one pointer.
        let status = unsafe { (self.driver.cuMemHostAlloc)(&mut p, bytes.max(1), PORTABLE) };
        check(self.driver, status, || format!("allocating {bytes} bytes of page-locked host memory"))?;
        Ok(p.cast())
    }

    /// Frees memory of `alloc_pinned`.
    ///
    /// # Safety
    /// `p` came from `alloc_pinned` of this device and neither the host nor the device uses it any more.
    pub unsafe fn free_pinned(&self, p: *mut u8) {
        let free = || -> Result<()> {
            let _context = self.enter()?;
            // SAFETY: the caller's promise.
            let status = unsafe { (self.driver.cuMemFreeHost)(p.cast()) };
            check_unless_exiting(self.driver, status, || "freeing page-locked host memory".into())
        };
        if let Err(e) = free() {
            log_warn!("{e}");
        }
    }

    /// The cuBLASLt handle of this device, made at the first call.
    fn cublaslt(&self) -> Result<&cublaslt::Handle> {
        self.cublaslt.get_or_init(|| cublaslt::Handle::new(self)).as_ref().map_err(Clone::clone)
    }
}

/// The context to work in, and whether the primary context was retained for it.
fn context_for(driver: &Driver, device: sys::CUdevice, ordinal: i32) -> Result<(sys::CUcontext, bool)> {
    let mut current: sys::CUcontext = std::ptr::null_mut();
    // SAFETY: writes one pointer.
    let status = unsafe { (driver.cuCtxGetCurrent)(&mut current) };
    check(driver, status, || "reading the current CUDA context".into())?;
    let mut theirs = None;
    if !current.is_null() {
        let mut its_device = -1;
        // SAFETY: a context is current; writes one integer.
        let status = unsafe { (driver.cuCtxGetDevice)(&mut its_device) };
        check(driver, status, || "reading the device of the current CUDA context".into())?;
        theirs = (its_device == device).then_some(current);
    }
    if let Some(context) = theirs {
        let (mut flags, mut active) = (0, 0);
        // SAFETY: writes two integers.
        let status = unsafe { (driver.cuDevicePrimaryCtxGetState)(device, &mut flags, &mut active) };
        check(driver, status, || format!("reading the state of CUDA device {ordinal}"))?;
        if active == 0 {
            return Ok((context, false)); // Retaining would make a second context only to compare with it.
        }
    }
    let mut primary = std::ptr::null_mut();
    // SAFETY: writes one pointer.
    let status = unsafe { (driver.cuDevicePrimaryCtxRetain)(&mut primary, device) };
    check(driver, status, || format!("retaining the primary context of CUDA device {ordinal}"))?;
    match theirs {
        Some(context) if context != primary => {
            // SAFETY: undoes the retain above.
            unsafe { (driver.cuDevicePrimaryCtxRelease_v2)(device) };
            Ok((context, false))
        }
        _ => Ok((primary, true)),
    }
}

/// As `check`, but at process exit the driver may be gone already, which is no failure of ours.
fn check_unless_exiting(driver: &Driver, status: i32, doing: impl FnOnce() -> String) -> Result<()> {
    if status == code::DEINITIALIZED { Ok(()) } else { check(driver, status, doing) }
}

impl Drop for CudaDevice {
    fn drop(&mut self) {
        if let Some(Ok(handle)) = self.cublaslt.take() {
            if let Ok(_context) = self.enter() {
                drop(handle);
            }
        }
        if self.retained {
            // SAFETY: retained once in `open`.
            unsafe { (self.driver.cuDevicePrimaryCtxRelease_v2)(self.device) };
        }
    }
}

impl fmt::Debug for CudaDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CudaDevice({}, {}, {})", self.ordinal(), self.props.name, if self.retained { "primary context" } else { "own context" })
    }
}

impl Device for CudaDevice {
    fn props(&self) -> &DeviceProps {
        &self.props
    }

    fn alloc(&self, bytes: usize) -> Result<u64> {
        let _context = self.enter()?;
        let mut p = 0;
        // SAFETY: writes one address.
        let status = unsafe { (self.driver.cuMemAlloc_v2)(&mut p, bytes.max(1)) };
        if status == code::OUT_OF_MEMORY {
            let free = self.memory_info().map_or_else(|_| "unknown".into(), |(free, _)| free.to_string());
            bail!(OutOfMemory, "device memory: asked for {bytes} bytes, free are {free} bytes on {}", self.props.name);
        }
        check(self.driver, status, || format!("allocating {bytes} bytes of device memory"))?;
        Ok(p)
    }

    unsafe fn free(&self, ptr: u64) {
        let free = || -> Result<()> {
            let _context = self.enter()?;
            // SAFETY: the caller's promise.
            let status = unsafe { (self.driver.cuMemFree_v2)(ptr) };
            check_unless_exiting(self.driver, status, || format!("freeing device memory at {ptr:#x}"))
        };
        if let Err(e) = free() {
            log_warn!("{e}");
        }
    }

    fn memory_info(&self) -> Result<(usize, usize)> {
        let _context = self.enter()?;
        let (mut free, mut total) = (0, 0);
        // SAFETY: writes two sizes.
        let status = unsafe { (self.driver.cuMemGetInfo_v2)(&mut free, &mut total) };
        check(self.driver, status, || "reading free device memory".into())?;
        Ok((free, total))
    }

    unsafe fn copy(&self, dst: u64, src: u64, bytes: usize, kind: CopyKind, stream: RawStream) -> Result<()> {
        if bytes == 0 {
            return Ok(());
        }
        let _context = self.enter()?;
        // SAFETY: the caller vouches for both ranges and for the stream.
        let status = unsafe {
            match kind {
                CopyKind::HostToDevice => {
                    (self.driver.cuMemcpyHtoDAsync_v2)(dst, src as *const c_void, bytes, stream.cast())
                }
                CopyKind::DeviceToHost => {
                    (self.driver.cuMemcpyDtoHAsync_v2)(dst as *mut c_void, src, bytes, stream.cast())
                }
                CopyKind::DeviceToDevice => (self.driver.cuMemcpyDtoDAsync_v2)(dst, src, bytes, stream.cast()),
            }
        };
        check(self.driver, status, || format!("copying {bytes} bytes {kind:?} from {src:#x} to {dst:#x}"))
    }

    unsafe fn fill(&self, dst: u64, value: u8, bytes: usize, stream: RawStream) -> Result<()> {
        if bytes == 0 {
            return Ok(());
        }
        let _context = self.enter()?;
        // SAFETY: the caller vouches for the range and for the stream.
        let status = unsafe { (self.driver.cuMemsetD8Async)(dst, value, bytes, stream.cast()) };
        check(self.driver, status, || format!("setting {bytes} bytes at {dst:#x}"))
    }

    fn stream_create(&self) -> Result<RawStream> {
        const NON_BLOCKING: u32 = 1;
        let _context = self.enter()?;
        let mut stream = std::ptr::null_mut();
        // SAFETY: writes one pointer.
        let status = unsafe { (self.driver.cuStreamCreate)(&mut stream, NON_BLOCKING) };
        check(self.driver, status, || "creating a CUDA stream".into())?;
        Ok(stream.cast())
    }

    unsafe fn stream_destroy(&self, stream: RawStream) -> Result<()> {
        if stream.is_null() {
            bail!(InvalidArgument, "the default stream (NULL) cannot be destroyed");
        }
        let _context = self.enter()?;
        // SAFETY: the caller's promise.
        let status = unsafe { (self.driver.cuStreamDestroy_v2)(stream.cast()) };
        check_unless_exiting(self.driver, status, || "destroying a CUDA stream".into())
    }

    unsafe fn stream_synchronize(&self, stream: RawStream) -> Result<()> {
        let _context = self.enter()?;
        // SAFETY: the caller's promise.
        let status = unsafe { (self.driver.cuStreamSynchronize)(stream.cast()) };
        check(self.driver, status, || "waiting for a CUDA stream".into())
    }

    unsafe fn stream_wait_event(&self, stream: RawStream, event: RawEvent) -> Result<()> {
        let _context = self.enter()?;
        // SAFETY: the caller's promise.
        let status = unsafe { (self.driver.cuStreamWaitEvent)(stream.cast(), event.cast(), 0) };
        check(self.driver, status, || "making a CUDA stream wait for an event".into())
    }

    fn event_create(&self, timing: bool) -> Result<RawEvent> {
        const DISABLE_TIMING: u32 = 2;
        let _context = self.enter()?;
        let mut event = std::ptr::null_mut();
        // SAFETY: writes one pointer.
        let status = unsafe { (self.driver.cuEventCreate)(&mut event, if timing { 0 } else { DISABLE_TIMING }) };
        check(self.driver, status, || "creating a CUDA event".into())?;
        Ok(event.cast())
    }

    unsafe fn event_destroy(&self, event: RawEvent) -> Result<()> {
        let _context = self.enter()?;
        // SAFETY: the caller's promise.
        let status = unsafe { (self.driver.cuEventDestroy_v2)(event.cast()) };
        check_unless_exiting(self.driver, status, || "destroying a CUDA event".into())
    }

    unsafe fn event_record(&self, event: RawEvent, stream: RawStream) -> Result<()> {
        let _context = self.enter()?;
        // SAFETY: the caller's promise.
        let status = unsafe { (self.driver.cuEventRecord)(event.cast(), stream.cast()) };
        check(self.driver, status, || "recording a CUDA event".into())
    }

    unsafe fn event_synchronize(&self, event: RawEvent) -> Result<()> {
        let _context = self.enter()?;
        // SAFETY: the caller's promise.
        let status = unsafe { (self.driver.cuEventSynchronize)(event.cast()) };
        check(self.driver, status, || "waiting for a CUDA event".into())
    }

    unsafe fn event_query(&self, event: RawEvent) -> Result<bool> {
        let _context = self.enter()?;
        // SAFETY: the caller's promise.
        let status = unsafe { (self.driver.cuEventQuery)(event.cast()) };
        if status == code::NOT_READY {
            return Ok(false);
        }
        check(self.driver, status, || "asking whether a CUDA event is done".into())?;
        Ok(true)
    }

    unsafe fn event_elapsed_ms(&self, start: RawEvent, end: RawEvent) -> Result<f32> {
        let _context = self.enter()?;
        let elapsed = self.driver.cuEventElapsedTime_v2.unwrap_or(self.driver.cuEventElapsedTime);
        let mut ms = 0.0;
        // SAFETY: the caller vouches for the events; writes one float.
        let status = unsafe { elapsed(&mut ms, start.cast(), end.cast()) };
        if status == code::NOT_READY {
            bail!(InvalidState, "the time between two CUDA events was asked for before the later one was done");
        }
        check(self.driver, status, || "reading the time between two CUDA events".into())?;
        Ok(ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_driver_nothing_is_listed_and_open_says_why() {
        if driver::is_present().is_ok() {
            return eprintln!("skipped: this machine has a CUDA driver");
        }
        assert!(CudaDevice::list().is_empty());
        let e = CudaDevice::open(0).unwrap_err();
        assert!(e.message.contains("libcuda"), "{}", e.message);
    }
}
