//! Memory, streams and events of inferences.
//!
//! On CUDA an input or output has device memory and page-locked host memory, and is copied between them. On the CPU both
//! are the same memory and nothing is copied.

use crate::shapes;
use sinter::base::{DType, Result, Tensor};
use sinter::device::cuda::CudaDevice;
use sinter::device::{Buffer, CopyKind, DeviceRef, RawEvent, RawStream};
use sinter::runtime::{Context, GrowingOutput};
use sinter::{ensure, err};
use std::sync::Arc;

/// Page-locked host memory, freed when dropped.
struct Pinned {
    device: Arc<CudaDevice>,
    ptr: *mut u8,
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // SAFETY: allocated by this device and freed once; whoever drops it has waited for the copies.
        unsafe { self.device.free_pinned(self.ptr) }
    }
}

/// A stream that is destroyed when dropped.
pub struct Stream {
    device: DeviceRef,
    pub raw: RawStream,
}

impl Stream {
    pub fn new(device: &DeviceRef) -> Result<Stream> {
        Ok(Stream { device: device.clone(), raw: device.stream_create()? })
    }

    pub fn synchronize(&self) -> Result<()> {
        // SAFETY: our own stream.
        unsafe { self.device.stream_synchronize(self.raw) }
    }

    pub fn wait(&self, event: &Event) -> Result<()> {
        // SAFETY: our own stream and event.
        unsafe { self.device.stream_wait_event(self.raw, event.raw) }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // SAFETY: made in `new`, destroyed once.
        unsafe {
            let _ = self.device.stream_destroy(self.raw);
        }
    }
}

/// A timing event that is destroyed when dropped.
pub struct Event {
    device: DeviceRef,
    raw: RawEvent,
}

impl Event {
    pub fn new(device: &DeviceRef) -> Result<Event> {
        Ok(Event { device: device.clone(), raw: device.event_create(true)? })
    }

    pub fn record(&self, stream: &Stream) -> Result<()> {
        // SAFETY: our own stream and event.
        unsafe { self.device.event_record(self.raw, stream.raw) }
    }

    pub fn synchronize(&self) -> Result<()> {
        // SAFETY: our own event.
        unsafe { self.device.event_synchronize(self.raw) }
    }

    /// Milliseconds from an earlier event to this one; both are done.
    pub fn ms_since(&self, start: &Event) -> Result<f64> {
        // SAFETY: our own events.
        Ok(unsafe { self.device.event_elapsed_ms(start.raw, self.raw)? } as f64)
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: made in `new`, destroyed once.
        unsafe {
            let _ = self.device.event_destroy(self.raw);
        }
    }
}

/// Memory of one input or output.
pub struct IoBuffer {
    pub name: String,
    pub dtype: DType,
    pub dims: Vec<usize>,
    bytes: usize,
    memory: Buffer,
    pinned: Option<Pinned>,
}

impl IoBuffer {
    fn new(device: &DeviceRef, name: &str, dtype: DType, dims: &[usize]) -> Result<IoBuffer> {
        let bytes = sinter::base::tensor::checked_bytes(dtype, dims)?;
        let pinned = match device {
            DeviceRef::Cuda(d) => Some(Pinned { device: d.clone(), ptr: d.alloc_pinned(bytes)? }),
            _ => None,
        };
        let memory = Buffer::new(device, bytes)?;
        Ok(IoBuffer { name: name.into(), dtype, dims: dims.to_vec(), bytes, memory, pinned })
    }

    fn host(&self) -> *mut u8 {
        self.pinned.as_ref().map_or(self.memory.ptr() as *mut u8, |p| p.ptr)
    }

    /// The host bytes. Nothing that writes them may be in flight.
    pub fn host_bytes(&self) -> &[u8] {
        // SAFETY: `host` is valid for `bytes`; page-locked and device memory of the CPU are ordinary host memory, written
        // by `new_inputs` or by a download before anybody reads it.
        unsafe { std::slice::from_raw_parts(self.host(), self.bytes) }
    }

    fn set_host(&mut self, from: &[u8]) {
        debug_assert_eq!(from.len(), self.bytes);
        // SAFETY: both ranges have this size and cannot overlap: ours is owned.
        unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), self.host(), self.bytes) }
    }

    fn copy(&self, kind: CopyKind, stream: &Stream) -> Result<()> {
        let Some(host) = &self.pinned else { return Ok(()) };
        let (host, ours) = (host.ptr as u64, self.memory.ptr());
        let (dst, src) = if kind == CopyKind::HostToDevice { (ours, host) } else { (host, ours) };
        // SAFETY: both ranges have this size and live as long as this buffer, which outlives the work on its stream.
        unsafe { stream.device.copy(dst, src, self.bytes, kind, stream.raw) }
    }

    /// The values; bytes of a bool other than 0 and 1 are an error.
    pub fn tensor(&self) -> Result<Tensor> {
        let bytes = self.host_bytes();
        if self.dtype == DType::Bool {
            let odd = bytes.iter().filter(|b| **b > 1).count();
            ensure!(odd == 0, Internal, "output {:?}: {odd} of {} bools are neither 0 nor 1", self.name, bytes.len());
        }
        Tensor::from_bytes(self.dtype, &self.dims, bytes)
    }
}

/// Memory of all inputs and outputs of one inference in flight.
pub struct Io {
    pub inputs: Vec<IoBuffer>,
    pub outputs: Vec<IoBuffer>,
}

impl Io {
    /// Sets the context's input shapes, makes memory, and puts the inputs' values onto the device. `inputs` stand in the
    /// network's order. Afterwards the memory is bound.
    pub fn new(cx: &mut Context, inputs: &[Tensor], stream: &Stream) -> Result<Io> {
        let device = stream.device.clone();
        let tensors = cx.engine().io_tensors();
        let mut io = Io { inputs: Vec::new(), outputs: Vec::new() };
        for (t, x) in tensors.iter().filter(|t| t.is_input).zip(inputs) {
            ensure!(
                t.dtype == x.dtype(),
                InvalidArgument,
                "input {:?}: the engine expects {}, the data are {}",
                t.name,
                t.dtype,
                x.dtype()
            );
            let shape = if t.shape.rank() == 0 && x.shape() == [1] { &[] } else { x.shape() };
            let dims: Vec<i64> = shape.iter().map(|d| *d as i64).collect();
            cx.set_input_shape(&t.name, &dims)?;
            let mut b = IoBuffer::new(&device, &t.name, t.dtype, shape)?;
            b.set_host(x.bytes());
            b.copy(CopyKind::HostToDevice, stream)?;
            cx.bind(&t.name, b.memory.ptr())?;
            io.inputs.push(b);
        }
        // The host may read inputs to know the outputs' shapes.
        stream.synchronize()?;
        let shapes = output_shapes(cx, &device, tensors.iter().filter(|t| !t.is_input).map(|t| t.name.as_str()))?;
        for (t, dims) in tensors.iter().filter(|t| !t.is_input).zip(shapes) {
            let dims: Option<Vec<usize>> = dims.iter().map(|d| usize::try_from(*d).ok()).collect();
            let dims = dims.ok_or_else(|| err!(Internal, "output {:?} has a negative dimension", t.name))?;
            let b = IoBuffer::new(&device, &t.name, t.dtype, &dims)?;
            // SAFETY: inside the buffer, which outlives the synchronization below.
            unsafe { device.fill(b.memory.ptr(), POISON, b.bytes, stream.raw)? };
            io.outputs.push(b);
        }
        stream.synchronize()?;
        io.bind(cx)?;
        Ok(io)
    }

    /// Makes the context use this memory.
    pub fn bind(&self, cx: &mut Context) -> Result<()> {
        self.inputs.iter().try_for_each(|b| cx.bind(&b.name, b.memory.ptr()))?;
        self.outputs.iter().try_for_each(|b| cx.bind_output(&b.name, b.memory.ptr(), b.bytes))
    }

    /// Copies inputs to the device.
    pub fn upload(&self, stream: &Stream) -> Result<()> {
        self.inputs.iter().try_for_each(|b| b.copy(CopyKind::HostToDevice, stream))
    }

    /// Copies outputs to the host.
    pub fn download(&self, stream: &Stream) -> Result<()> {
        self.outputs.iter().try_for_each(|b| b.copy(CopyKind::DeviceToHost, stream))
    }
}

/// The outputs' shapes. Where one depends on the data it takes an execution to know it.
fn output_shapes<'a>(cx: &mut Context, device: &DeviceRef, names: impl Iterator<Item = &'a str>) -> Result<Vec<Vec<i64>>> {
    let names: Vec<&str> = names.collect();
    if names.iter().any(|n| cx.tensor_shape(n).is_err()) {
        let memory: Vec<Arc<GrowingOutput>> = names.iter().map(|_| Arc::new(GrowingOutput::new(device))).collect();
        for (n, m) in names.iter().zip(&memory) {
            cx.set_output_allocator(n, Some(m.clone()))?;
        }
        cx.execute()?;
        for n in &names {
            cx.set_output_allocator(n, None)?;
        }
    }
    names.iter().map(|n| cx.tensor_shape(n)).collect()
}

/// What outputs hold before a run: NaN, -1, and no bool. An element that nothing writes shows.
const POISON: u8 = 0xff;

/// Dimensions as text.
pub fn dims_text(dims: &[usize]) -> String {
    shapes::text(&dims.iter().map(|d| *d as i64).collect::<Vec<_>>())
}
