//! A device that accepts everything and computes nothing: it runs the whole builder where there is no GPU.
//!
//! Addresses are handed out from a counter and never backed by memory; copies, launches and events succeed at once.

use super::{CopyKind, Device, DeviceProps, RawEvent, RawStream};
use crate::base::Result;
use std::sync::atomic::{AtomicU64, Ordering};

/// See the module's text.
#[derive(Debug)]
pub struct NullDevice {
    props: DeviceProps,
    next: AtomicU64,
    /// Bytes allocated and not yet freed are not tracked; this counts calls, for tests.
    n_allocs: AtomicU64,
}

impl Default for NullDevice {
    fn default() -> Self {
        Self::new(DeviceProps::example_h200())
    }
}

impl NullDevice {
    pub fn new(props: DeviceProps) -> Self {
        NullDevice { props, next: AtomicU64::new(1 << 32), n_allocs: AtomicU64::new(0) }
    }

    /// How many allocations were asked for.
    pub fn n_allocs(&self) -> u64 {
        self.n_allocs.load(Ordering::Relaxed)
    }

    fn handle(&self) -> *mut std::ffi::c_void {
        self.next.fetch_add(256, Ordering::Relaxed) as *mut _
    }
}

impl Device for NullDevice {
    fn props(&self) -> &DeviceProps {
        &self.props
    }
    fn alloc(&self, bytes: usize) -> Result<u64> {
        self.n_allocs.fetch_add(1, Ordering::Relaxed);
        let bytes = (bytes as u64).max(1).next_multiple_of(256);
        Ok(self.next.fetch_add(bytes, Ordering::Relaxed))
    }
    unsafe fn free(&self, _ptr: u64) {}
    fn memory_info(&self) -> Result<(usize, usize)> {
        Ok((self.props.memory_bytes, self.props.memory_bytes))
    }
    unsafe fn copy(&self, _dst: u64, _src: u64, _bytes: usize, _kind: CopyKind, _stream: RawStream) -> Result<()> {
        Ok(())
    }
    unsafe fn fill(&self, _dst: u64, _value: u8, _bytes: usize, _stream: RawStream) -> Result<()> {
        Ok(())
    }
    fn stream_create(&self) -> Result<RawStream> {
        Ok(self.handle())
    }
    unsafe fn stream_destroy(&self, _stream: RawStream) -> Result<()> {
        Ok(())
    }
    unsafe fn stream_synchronize(&self, _stream: RawStream) -> Result<()> {
        Ok(())
    }
    unsafe fn stream_wait_event(&self, _stream: RawStream, _event: RawEvent) -> Result<()> {
        Ok(())
    }
    fn event_create(&self, _timing: bool) -> Result<RawEvent> {
        Ok(self.handle())
    }
    unsafe fn event_destroy(&self, _event: RawEvent) -> Result<()> {
        Ok(())
    }
    unsafe fn event_record(&self, _event: RawEvent, _stream: RawStream) -> Result<()> {
        Ok(())
    }
    unsafe fn event_synchronize(&self, _event: RawEvent) -> Result<()> {
        Ok(())
    }
    unsafe fn event_query(&self, _event: RawEvent) -> Result<bool> {
        Ok(true)
    }
    unsafe fn event_elapsed_ms(&self, _start: RawEvent, _end: RawEvent) -> Result<f32> {
        Ok(0.0)
    }
}
