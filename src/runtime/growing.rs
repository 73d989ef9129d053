//! An output's memory that grows with what executions ask for.

use super::OutputAllocator;
use crate::base::Result;
use crate::device::{Buffer, DeviceRef};
use parking_lot::Mutex;

/// See the module's text. Keeps the largest buffer that was asked for.
pub struct GrowingOutput {
    device: DeviceRef,
    state: Mutex<(Option<Buffer>, Vec<i64>)>,
}

impl GrowingOutput {
    pub fn new(device: &DeviceRef) -> GrowingOutput {
        GrowingOutput { device: device.clone(), state: Mutex::new((None, Vec::new())) }
    }

    /// Address and shape of the last execution; `None` before the first.
    pub fn last(&self) -> Option<(u64, Vec<i64>)> {
        let state = self.state.lock();
        state.0.as_ref().map(|b| (b.ptr(), state.1.clone()))
    }

    /// Copies the last execution's value to the host, after everything on the stream.
    ///
    /// # Safety
    /// The stream is one of this device, or NULL.
    pub unsafe fn to_host(&self, dtype: crate::base::DType, stream: crate::device::RawStream) -> Result<crate::base::Tensor> {
        let (from, dims) = self.last().ok_or_else(|| crate::err!(InvalidState, "nothing was executed yet"))?;
        let dims: Vec<usize> = dims.iter().map(|d| *d as usize).collect();
        let mut t = crate::base::Tensor::zeros(dtype, &dims);
        let n = t.bytes().len();
        // SAFETY: the allocator was asked for this many bytes; the tensor lives past the synchronization.
        unsafe {
            self.device.copy(t.bytes_mut().as_mut_ptr() as u64, from, n, crate::device::CopyKind::DeviceToHost, stream)?;
            self.device.stream_synchronize(stream)?;
        }
        Ok(t)
    }
}

impl OutputAllocator for GrowingOutput {
    fn allocate(&self, _name: &str, dims: &[i64], bytes: usize) -> Option<u64> {
        let mut state = self.state.lock();
        if state.0.as_ref().is_none_or(|b| b.bytes() < bytes.max(1)) {
            state.0 = Some(Buffer::new(&self.device, bytes.max(1)).ok()?);
        }
        state.1 = dims.to_vec();
        state.0.as_ref().map(|b| b.ptr())
    }
}
