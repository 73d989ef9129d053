//! The tests that need a CUDA device, in one binary. Without one each test says that it was skipped; with
//! `SINTER_REQUIRE_GPU=1` a missing device, compiler or library is a failure instead.
//!
//! Tests take turns on the device: some of them look at its free memory.

#[path = "gpu/cases.rs"]
mod cases;
#[path = "gpu/device.rs"]
mod device;
mod dynamic;
#[path = "gpu/engine.rs"]
mod engine;
#[path = "gpu/gemm.rs"]
mod gemm;
#[path = "gpu/launch.rs"]
mod launch;
mod models;
#[path = "gpu/networks.rs"]
mod networks;
/// What the tests of operators share with `cpu.rs`.
#[allow(dead_code)]
mod ops {
    pub mod cases;
    pub mod node;
    pub mod product_cases;
    pub mod steps;
}
#[path = "gpu/pointwise.rs"]
mod pointwise;
#[path = "gpu/products.rs"]
mod products;

use parking_lot::{Mutex, MutexGuard};
use sinter::base::Result;
use sinter::device::cuda::{CudaDevice, nvrtc};
use sinter::device::{CopyKind, Device, RawStream};
use std::sync::Arc;

static TURN: Mutex<()> = Mutex::new(());

/// Device 0, with the right to use it alone.
pub struct Gpu {
    pub device: Arc<CudaDevice>,
    _turn: MutexGuard<'static, ()>,
}

impl std::ops::Deref for Gpu {
    type Target = Arc<CudaDevice>;
    fn deref(&self) -> &Arc<CudaDevice> {
        &self.device
    }
}

/// The device, or nothing and a line on standard error.
pub fn gpu() -> Option<Gpu> {
    let turn = TURN.lock();
    present("no CUDA device", CudaDevice::open(0)).map(|device| Gpu { device, _turn: turn })
}

/// What is there, or nothing and a line on standard error that says why the test was skipped.
pub fn present<T>(what: &str, found: Result<T>) -> Option<T> {
    match found {
        Ok(found) => Some(found),
        Err(e) => {
            assert!(!sinter::base::knobs::REQUIRE_GPU.is_on(), "SINTER_REQUIRE_GPU is on, but: {what} ({e})");
            eprintln!("skipped: {what} ({e})");
            None
        }
    }
}

/// True when kernels can be compiled.
pub fn have_nvrtc() -> bool {
    present("no NVRTC", nvrtc::is_present()).is_some()
}

/// Compares long lists and prints the first difference alone.
pub fn assert_same<T: Copy + PartialEq + std::fmt::Debug>(got: &[T], want: &[T]) {
    assert_eq!(got.len(), want.len(), "lengths differ");
    if let Some(i) = (0..got.len()).find(|i| got[*i] != want[*i]) {
        let n = (0..got.len()).filter(|i| got[*i] != want[*i]).count();
        panic!("{n} of {} differ, first [{i}]: expected {:?}, got {:?}", got.len(), want[i], got[i]);
    }
}

/// Device memory of a test, freed at the end.
pub struct Memory<'a> {
    device: &'a CudaDevice,
    pub ptr: u64,
    bytes: usize,
}

impl<'a> Memory<'a> {
    pub fn new(device: &'a CudaDevice, bytes: usize) -> Memory<'a> {
        Memory { device, ptr: device.alloc(bytes).unwrap(), bytes }
    }

    pub fn of<T: Copy>(device: &'a CudaDevice, values: &[T]) -> Memory<'a> {
        let memory = Memory::new(device, size_of_val(values));
        let stream = Stream::new(device);
        // SAFETY: both sides have this many bytes; the source lives until the stream is drained.
        unsafe {
            let src = values.as_ptr() as u64;
            device.copy(memory.ptr, src, memory.bytes, CopyKind::HostToDevice, stream.raw).unwrap();
            device.stream_synchronize(stream.raw).unwrap();
        }
        memory
    }

    /// Waits for the stream, then reads everything back.
    pub fn read<T: Copy + Default>(&self, stream: RawStream) -> Vec<T> {
        let mut values = vec![T::default(); self.bytes / size_of::<T>()];
        // SAFETY: both sides have this many bytes; the target lives until the stream is drained.
        unsafe {
            let dst = values.as_mut_ptr() as u64;
            self.device.copy(dst, self.ptr, self.bytes, CopyKind::DeviceToHost, stream).unwrap();
            self.device.stream_synchronize(stream).unwrap();
        }
        values
    }
}

impl Drop for Memory<'_> {
    fn drop(&mut self) {
        // SAFETY: allocated in `new`, freed once.
        unsafe { self.device.free(self.ptr) }
    }
}

/// A stream of a test, destroyed at the end.
pub struct Stream<'a> {
    device: &'a CudaDevice,
    pub raw: RawStream,
}

impl<'a> Stream<'a> {
    pub fn new(device: &'a CudaDevice) -> Stream<'a> {
        Stream { device, raw: device.stream_create().unwrap() }
    }
}

impl Drop for Stream<'_> {
    fn drop(&mut self) {
        // SAFETY: created in `new`, destroyed once.
        unsafe { self.device.stream_destroy(self.raw).unwrap() }
    }
}
