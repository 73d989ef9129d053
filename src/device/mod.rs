//! Machines that run engines. This module knows no operator and no stage of the build.
//!
//! [`Device`] is what an application-facing device helper needs and what the runtime needs from every machine: memory,
//! ordered copies, streams and events. How the steps of a plan run differs (closures on the CPU, kernel launches on
//! CUDA) and is reached through [`DeviceRef`].

pub mod cpu;
pub mod cuda;
pub mod null;
pub mod props;

use crate::base::Result;
use std::ffi::c_void;
use std::fmt::Debug;
use std::sync::Arc;

pub use props::{DeviceKind, DeviceProps};

/// The application's stream: a `CUstream` on CUDA, a stream of the CPU device on the CPU. NULL is the default stream.
pub type RawStream = *mut c_void;
/// The application's event: a `CUevent` on CUDA, an event of the CPU device on the CPU.
pub type RawEvent = *mut c_void;

/// Which way a copy goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyKind {
    HostToDevice,
    DeviceToHost,
    DeviceToDevice,
}

/// Memory, streams and events of one machine. Addresses are `u64`; on the CPU they are host addresses.
///
/// Every method may be called from any thread. On CUDA each call makes the device's context current for its own
/// duration and restores the caller's.
pub trait Device: Send + Sync + Debug {
    fn props(&self) -> &DeviceProps;

    /// Memory aligned to at least 256 bytes; `bytes` 0 gives a valid, unique address.
    fn alloc(&self, bytes: usize) -> Result<u64>;
    /// # Safety
    /// `ptr` came from `alloc` of this device and is not used afterwards.
    unsafe fn free(&self, ptr: u64);
    /// Free and total bytes of the device's memory.
    fn memory_info(&self) -> Result<(usize, usize)>;

    /// A copy ordered on the stream; host memory must stay valid until the stream has passed it.
    /// # Safety
    /// Both ranges are valid for `bytes` until the copy is done.
    unsafe fn copy(&self, dst: u64, src: u64, bytes: usize, kind: CopyKind, stream: RawStream) -> Result<()>;
    /// Sets bytes, ordered on the stream.
    /// # Safety
    /// The range is valid until the operation is done.
    unsafe fn fill(&self, dst: u64, value: u8, bytes: usize, stream: RawStream) -> Result<()>;

    fn stream_create(&self) -> Result<RawStream>;
    /// # Safety
    /// The stream came from `stream_create` and is not used afterwards. (The same holds for all calls below that take
    /// a stream or an event, but for a CUDA stream or event of the application's own.)
    unsafe fn stream_destroy(&self, stream: RawStream) -> Result<()>;
    /// # Safety
    /// See `stream_destroy`.
    unsafe fn stream_synchronize(&self, stream: RawStream) -> Result<()>;
    /// Makes later work on the stream wait for the event.
    /// # Safety
    /// See `stream_destroy`.
    unsafe fn stream_wait_event(&self, stream: RawStream, event: RawEvent) -> Result<()>;

    fn event_create(&self, timing: bool) -> Result<RawEvent>;
    /// # Safety
    /// See `stream_destroy`.
    unsafe fn event_destroy(&self, event: RawEvent) -> Result<()>;
    /// # Safety
    /// See `stream_destroy`.
    unsafe fn event_record(&self, event: RawEvent, stream: RawStream) -> Result<()>;
    /// # Safety
    /// See `stream_destroy`.
    unsafe fn event_synchronize(&self, event: RawEvent) -> Result<()>;
    /// True when everything before the last record is done (true for an event that was never recorded).
    /// # Safety
    /// See `stream_destroy`.
    unsafe fn event_query(&self, event: RawEvent) -> Result<bool>;
    /// Milliseconds between two recorded, finished timing events.
    /// # Safety
    /// See `stream_destroy`.
    unsafe fn event_elapsed_ms(&self, start: RawEvent, end: RawEvent) -> Result<f32>;
}

/// A device, shared. The variants give access to what is particular to each machine.
#[derive(Clone, Debug)]
pub enum DeviceRef {
    Cpu(Arc<cpu::CpuDevice>),
    Cuda(Arc<cuda::CudaDevice>),
    Null(Arc<null::NullDevice>),
}

impl DeviceRef {
    /// Opens the CPU, or CUDA device N. The error of a missing CUDA device says what was looked for.
    pub fn open(kind: DeviceKind) -> Result<DeviceRef> {
        Ok(match kind {
            DeviceKind::Cpu => DeviceRef::Cpu(cpu::CpuDevice::shared()),
            DeviceKind::Cuda(n) => DeviceRef::Cuda(cuda::CudaDevice::open(n)?),
            DeviceKind::Null => DeviceRef::Null(Arc::new(null::NullDevice::default())),
        })
    }

    /// CUDA device 0 if there is one, otherwise the CPU.
    pub fn open_default() -> DeviceRef {
        match cuda::CudaDevice::open(0) {
            Ok(d) => DeviceRef::Cuda(d),
            Err(_) => DeviceRef::Cpu(cpu::CpuDevice::shared()),
        }
    }

    pub fn kind(&self) -> DeviceKind {
        self.props().kind
    }

    /// Copies host bytes to device addresses and waits until all are there. For loading and set-up: it makes a stream of
    /// its own.
    ///
    /// # Safety
    /// Each address is valid for the bytes that go to it.
    pub unsafe fn upload<'a>(&self, parts: impl IntoIterator<Item = (u64, &'a [u8])>) -> Result<()> {
        let stream = self.stream_create()?;
        let copied = parts.into_iter().try_for_each(|(to, bytes)| {
            // SAFETY: the caller's promise; the sources are borrowed past the synchronization below.
            unsafe { self.copy(to, bytes.as_ptr() as u64, bytes.len(), CopyKind::HostToDevice, stream) }
        });
        // SAFETY: made above, destroyed once.
        let synced = unsafe { self.stream_synchronize(stream).and(self.stream_destroy(stream)) };
        copied.and(synced)
    }
}

impl std::ops::Deref for DeviceRef {
    type Target = dyn Device;
    fn deref(&self) -> &(dyn Device + 'static) {
        match self {
            DeviceRef::Cpu(d) => &**d,
            DeviceRef::Cuda(d) => &**d,
            DeviceRef::Null(d) => &**d,
        }
    }
}

/// Device memory that is freed when dropped.
#[derive(Debug)]
pub struct Buffer {
    device: DeviceRef,
    ptr: u64,
    bytes: usize,
}

impl Buffer {
    pub fn new(device: &DeviceRef, bytes: usize) -> Result<Buffer> {
        let ptr = device.alloc(bytes)?;
        Ok(Buffer { device: device.clone(), ptr, bytes })
    }

    pub fn ptr(&self) -> u64 {
        self.ptr
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: allocated in `new`, freed once here.
        unsafe { self.device.free(self.ptr) }
    }
}
