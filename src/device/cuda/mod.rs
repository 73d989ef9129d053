//! Being written.
use super::*;
#[derive(Debug)]
pub struct CudaDevice {}
impl CudaDevice { pub fn open(_n: i32) -> crate::base::Result<Arc<CudaDevice>> { todo!() } }
impl Device for CudaDevice {
    fn props(&self) -> &DeviceProps { todo!() }
    fn alloc(&self, _bytes: usize) -> Result<u64> { todo!() }
    unsafe fn free(&self, _ptr: u64) {}
    fn memory_info(&self) -> Result<(usize, usize)> { todo!() }
    unsafe fn copy(&self, _d: u64, _s: u64, _b: usize, _k: CopyKind, _t: RawStream) -> Result<()> { todo!() }
    unsafe fn fill(&self, _d: u64, _v: u8, _b: usize, _s: RawStream) -> Result<()> { todo!() }
    fn stream_create(&self) -> Result<RawStream> { todo!() }
    unsafe fn stream_destroy(&self, _s: RawStream) -> Result<()> { todo!() }
    unsafe fn stream_synchronize(&self, _s: RawStream) -> Result<()> { todo!() }
    unsafe fn stream_wait_event(&self, _s: RawStream, _e: RawEvent) -> Result<()> { todo!() }
    fn event_create(&self, _t: bool) -> Result<RawEvent> { todo!() }
    unsafe fn event_destroy(&self, _e: RawEvent) -> Result<()> { todo!() }
    unsafe fn event_record(&self, _e: RawEvent, _s: RawStream) -> Result<()> { todo!() }
    unsafe fn event_synchronize(&self, _e: RawEvent) -> Result<()> { todo!() }
    unsafe fn event_query(&self, _e: RawEvent) -> Result<bool> { todo!() }
    unsafe fn event_elapsed_ms(&self, _a: RawEvent, _b: RawEvent) -> Result<f32> { todo!() }
}
