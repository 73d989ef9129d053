//! Devices and the small helpers that let an application do without a CUDA binding: streams, events, buffers, copies.

use super::guard::guard;
use super::handle::{self, Handle, Versioned};
use super::status::SinterStatus;
use crate::base::Result;
use crate::device::cuda::CudaDevice;
use crate::device::{Buffer, CopyKind, Device, DeviceKind, DeviceProps, DeviceRef, RawStream, cpu::CpuDevice};
use crate::{ensure, err};
use parking_lot::Mutex;
use std::ffi::{c_char, c_void};

/// An open device: the CPU or one GPU. Handles of the same device share it.
pub struct SinterDevice {
    _opaque: (),
}

/// Memory of a device that is freed with the handle.
pub struct SinterBuffer {
    _opaque: (),
}

pub(super) struct OpenDevice {
    pub device: DeviceRef,
    /// Stream of the copies that wait; made at the first of them.
    copies: Mutex<CopyStream>,
}

struct CopyStream(RawStream);
// SAFETY: a handle that any thread may use; the lock lets one at a time.
unsafe impl Send for CopyStream {}

impl Drop for OpenDevice {
    fn drop(&mut self) {
        let stream = self.copies.get_mut().0;
        if !stream.is_null() {
            // SAFETY: made by `copy_and_wait`, idle, destroyed once.
            let _ = unsafe { self.device.stream_destroy(stream) };
        }
    }
}

impl Handle for SinterDevice {
    const MAGIC: &'static [u8; 8] = b"SntrDevi";
    type Content = OpenDevice;
}

impl Handle for SinterBuffer {
    const MAGIC: &'static [u8; 8] = b"SntrBuff";
    type Content = Buffer;
}

/// What kind of machine a device is.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SinterDeviceKind(pub i32);

impl SinterDeviceKind {
    /// The host's processor.
    pub const CPU: Self = Self(0);
    /// An NVIDIA GPU.
    pub const CUDA: Self = Self(1);
}

/// Which way a copy goes.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SinterCopyKind(pub i32);

impl SinterCopyKind {
    pub const HOST_TO_DEVICE: Self = Self(0);
    pub const DEVICE_TO_HOST: Self = Self(1);
    pub const DEVICE_TO_DEVICE: Self = Self(2);

    fn rust(self) -> Result<CopyKind> {
        match self {
            Self::HOST_TO_DEVICE => Ok(CopyKind::HostToDevice),
            Self::DEVICE_TO_HOST => Ok(CopyKind::DeviceToHost),
            Self::DEVICE_TO_DEVICE => Ok(CopyKind::DeviceToDevice),
            Self(k) => Err(err!(InvalidArgument, "copy kind {k} is none of 0 to 2")),
        }
    }
}

/// Properties of a device. Set struct_size to sizeof(SinterDeviceProperties) before asking for them.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct SinterDeviceProperties {
    /// Bytes of this struct as the application knows it.
    pub struct_size: usize,
    /// CPU or CUDA.
    pub kind: SinterDeviceKind,
    /// Number of the CUDA device; 0 for the CPU.
    pub ordinal: i32,
    /// CUDA compute capability as major * 10 + minor; 0 for the CPU.
    pub compute_capability: i32,
    /// Multiprocessors of a GPU; threads that the CPU device computes with.
    pub n_processors: i32,
    /// Bytes of memory in all.
    pub memory_bytes: u64,
    /// Bytes of the last-level cache; 0 when unknown.
    pub cache_bytes: u64,
    /// CUDA driver version as 1000 * major + 10 * minor; 0 for the CPU.
    pub driver_version: i32,
    /// Largest clock in kHz; 0 when unknown.
    pub clock_khz: u32,
    /// Identifies the physical GPU; zero for the CPU.
    pub uuid: [u8; 16],
    /// Name as the driver or the operating system gives it, UTF-8, cut to fit, always NUL-terminated.
    pub name: [c_char; 128],
}

// SAFETY: repr(C), begins with its size, plain numbers.
unsafe impl Versioned for SinterDeviceProperties {}

fn properties(p: &DeviceProps) -> SinterDeviceProperties {
    let mut name: [c_char; 128] = [0; 128];
    let mut end = p.name.len().min(127);
    while !p.name.is_char_boundary(end) {
        end -= 1;
    }
    name.iter_mut().zip(&p.name.as_bytes()[..end]).for_each(|(d, s)| *d = *s as c_char);
    SinterDeviceProperties {
        struct_size: 0,
        kind: if p.is_cuda() { SinterDeviceKind::CUDA } else { SinterDeviceKind::CPU },
        ordinal: if let DeviceKind::Cuda(n) = p.kind { n } else { 0 },
        compute_capability: p.sm as i32,
        n_processors: p.n_sm as i32,
        memory_bytes: p.memory_bytes as u64,
        cache_bytes: p.l2_bytes as u64,
        driver_version: p.driver_version,
        clock_khz: p.clock_khz,
        uuid: p.uuid,
        name,
    }
}

/// Properties of all devices: GPUs in the driver's order, then the CPU.
fn all_devices() -> Vec<DeviceProps> {
    let mut list = CudaDevice::list();
    list.push(CpuDevice::shared().props().clone());
    list
}

/// Number of devices: every GPU that the driver shows, and the CPU.
///
/// Params: count_out (out) at least 1.
/// Owns: nothing changes hands; memory that is passed in is read or copied before the call returns.
/// Result: OK; on failure no output is written and nothing has changed.
/// Status: OK; INVALID_ARGUMENT for NULL. A missing driver is no error: there are no GPUs then.
/// Thread: any, also several at once on one handle.
/// Stream: puts nothing on a stream; all is done when it returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinter_device_get_count(count_out: *mut usize) -> SinterStatus {
    guard("sinter_device_get_count", || {
        let out = handle::out(count_out, "count_out")?;
        out.set(all_devices().len());
        Ok(())
    })
}

/// Properties of a device that need not be open.
///
/// Params: index (in) below the count; GPUs come first, the CPU is last. properties_out (in/out) with struct_size set.
/// Owns: nothing changes hands; memory that is passed in is read or copied before the call returns.
/// Result: OK; on failure no output is written and nothing has changed.
/// Status: OK; INVALID_ARGUMENT for NULL, a struct_size that is none or an index out of range.
/// Thread: any, also several at once on one handle.
/// Stream: puts nothing on a stream; all is done when it returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinter_device_get_properties_at(
    index: usize,
    properties_out: *mut SinterDeviceProperties,
) -> SinterStatus {
    guard("sinter_device_get_properties_at", || {
        let list = all_devices();
        let n = list.len();
        let p = list.get(index).ok_or_else(|| err!(InvalidArgument, "there is no device {index}; there are {n}"))?;
        handle::write_struct(properties_out, properties(p), "properties_out")
    })
}

/// Opens a device.
///
/// Params: name (in) "cpu", "cuda" (number 0) or "cuda:N"; NULL or "" opens CUDA device 0 if there is one, otherwise the
/// CPU. device_out (out).
/// Owns: on success the caller owns the handle; objects made from it keep the device open.
/// Result: OK and the handle; on failure the handle output is NULL.
/// Status: OK; INVALID_ARGUMENT for another name; NOT_FOUND, UNSUPPORTED or CUDA when the GPU cannot be used.
/// Thread: any. A CUDA context that is current on the thread is used if it is the device's, else the primary one.
/// Stream: puts nothing on a stream; all is done when it returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinter_device_open(name: *const c_char, device_out: *mut *mut SinterDevice) -> SinterStatus {
    guard("sinter_device_open", || {
        let out = handle::out_handle(device_out, "device_out")?;
        let device = match handle::text_or_empty(name, "name")? {
            "" => DeviceRef::open_default(),
            name => {
                let kind = DeviceKind::parse(name).filter(|k| *k != DeviceKind::Null);
                let expected = "expected cpu, cuda or cuda:N";
                DeviceRef::open(kind.ok_or_else(|| err!(InvalidArgument, "device {name:?} is not known; {expected}"))?)?
            }
        };
        out.give(OpenDevice { device, copies: Mutex::new(CopyStream(std::ptr::null_mut())) });
        Ok(())
    })
}

/// Destroys a device handle.
///
/// Params: device (in) or NULL, which does nothing.
/// Owns: the handle is gone; the device stays open for objects made from it.
/// Result: OK; on failure nothing has changed.
/// Status: OK; INVALID_ARGUMENT for a wrong or destroyed handle; INVALID_STATE while another call uses it.
/// Thread: any, one at a time on the receiver.
/// Stream: puts nothing on a stream; all is done when it returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinter_device_destroy(device: *mut SinterDevice) -> SinterStatus {
    guard("sinter_device_destroy", || handle::destroy(device, "device"))
}

/// Properties of an open device.
///
/// Params: device (in); properties_out (in/out) with struct_size set.
/// Owns: nothing changes hands; memory that is passed in is read or copied before the call returns.
/// Result: OK; on failure no output is written and nothing has changed.
/// Status: OK, the errors of handles and arguments.
/// Thread: any, also several at once on one handle.
/// Stream: puts nothing on a stream; all is done when it returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinter_device_get_properties(
    device: *const SinterDevice,
    properties_out: *mut SinterDeviceProperties,
) -> SinterStatus {
    guard("sinter_device_get_properties", || {
        let d = handle::shared(device, "device")?;
        handle::write_struct(properties_out, properties(d.device.props()), "properties_out")
    })
}

/// Free and total memory of a device.
///
/// Params: device (in); free_out, total_out (out) bytes, each may be NULL.
/// Owns: nothing changes hands; memory that is passed in is read or copied before the call returns.
/// Result: OK; on failure no output is written and nothing has changed.
/// Status: OK, the errors of handles and arguments; CUDA or IO when the driver or the operating system refuses.
/// Thread: any, also several at once on one handle.
/// Stream: puts nothing on a stream; all is done when it returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinter_device_query_memory(
    device: *const SinterDevice,
    free_out: *mut usize,
    total_out: *mut usize,
) -> SinterStatus {
    guard("sinter_device_query_memory", || {
        let d = handle::shared(device, "device")?;
        let (free, total) = d.device.memory_info()?;
        if !free_out.is_null() {
            handle::out(free_out, "free_out")?.set(free);
        }
        if !total_out.is_null() {
            handle::out(total_out, "total_out")?.set(total);
        }
        Ok(())
    })
}

/// Makes a stream: a queue of work that runs in order. On CUDA it is a CUstream (cudaStream_t), and an application's own
/// is as good; on the CPU it is a queue with a thread.
///
/// Params: device (in); stream_out (out).
/// Owns: the caller owns the stream and ends it with sinter_stream_destroy, before the device's last handle.
/// Result: OK and the stream; on failure *stream_out is NULL.
/// Status: OK, the errors of handles and arguments; CUDA or IO when there can be no more streams.
/// Thread: any, also several at once on one handle.
/// Stream: puts nothing on a stream; all is done when it returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinter_stream_create(device: *const SinterDevice, stream_out: *mut *mut c_void) -> SinterStatus {
    guard("sinter_stream_create", || {
        let out = handle::out(stream_out, "stream_out")?;
        out.set(std::ptr::null_mut());
        out.set(handle::shared(device, "device")?.device.stream_create()?);
        Ok(())
    })
}

/// Destroys a stream of sinter_stream_create after the work on it is done.
///
/// Params: device (in) that it was made with; stream (in) or NULL, which does nothing.
/// Owns: the stream is gone.
/// Result: OK; on failure nothing has changed.
/// Status: OK, the errors of handles and arguments; CUDA when the driver refuses.
/// Thread: any, one at a time on the stream.
/// Stream: waits for the stream on the CPU; on CUDA the driver ends it once it is empty.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinter_stream_destroy(device: *const SinterDevice, stream: *mut c_void) -> SinterStatus {
    guard("sinter_stream_destroy", || {
        let d = handle::shared(device, "device")?;
        if stream.is_null() {
            return Ok(());
        }
        // SAFETY: the caller's stream, which it gives up.
        unsafe { d.device.stream_destroy(stream) }
    })
}

/// Waits until all work on a stream is done.
///
/// Params: device (in); stream (in) of that device; NULL is its default stream.
/// Owns: nothing changes hands; memory that is passed in is read or copied before the call returns.
/// Result: OK when the work is done; on failure the work is over or cannot go on.
/// Status: OK, the errors of handles and arguments; CUDA or INTERNAL when work on the stream failed.
/// Thread: any, also several at once on one handle.
/// Stream: synchronous: returns when the stream is empty.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinter_stream_synchronize(device: *const SinterDevice, stream: *mut c_void) -> SinterStatus {
    guard("sinter_stream_synchronize", || {
        let d = handle::shared(device, "device")?;
        // SAFETY: the caller's stream.
        unsafe { d.device.stream_synchronize(stream) }
    })
}

/// Makes later work on a stream wait for an event's last record.
///
/// Params: device (in); stream (in), NULL is the default stream; event (in) not NULL.
/// Owns: nothing changes hands; memory that is passed in is read or copied before the call returns.
/// Result: OK; on failure nothing was put on the stream.
/// Status: OK, the errors of handles and arguments; CUDA when the driver refuses.
/// Thread: any, also several at once on one handle.
/// Stream: returns at once; the wait is ordered on the stream.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinter_stream_wait_event(
    device: *const SinterDevice,
    stream: *mut c_void,
    event: *mut c_void,
) -> SinterStatus {
    guard("sinter_stream_wait_event", || {
        let d = handle::shared(device, "device")?;
        ensure!(!event.is_null(), InvalidArgument, "event is NULL");
        // SAFETY: the caller's stream and event.
        unsafe { d.device.stream_wait_event(stream, event) }
    })
}

/// Makes an event: a mark on a stream that can be waited for and, with timing, timed. On CUDA it is a CUevent
/// (cudaEvent_t), and an application's own is as good.
///
/// Params: device (in); timing (in) 0 or 1; event_out (out).
/// Owns: the caller owns the event and ends it with sinter_event_destroy, before the device's last handle.
/// Result: OK and the event; on failure *event_out is NULL.
/// Status: OK, the errors of handles and arguments; CUDA when the driver refuses.
/// Thread: any, also several at once on one handle.
/// Stream: puts nothing on a stream; all is done when it returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinter_event_create(
    device: *const SinterDevice,
    timing: i32,
    event_out: *mut *mut c_void,
) -> SinterStatus {
    guard("sinter_event_create", || {
        let out = handle::out(event_out, "event_out")?;
        out.set(std::ptr::null_mut());
        ensure!(timing == 0 || timing == 1, InvalidArgument, "timing is {timing}, expected 0 or 1");
        out.set(handle::shared(device, "device")?.device.event_create(timing == 1)?);
        Ok(())
    })
}

/// Destroys an event of sinter_event_create.
///
/// Params: device (in) that it was made with; event (in) or NULL, which does nothing.
/// Owns: the event is gone; work that waits for it goes on as before.
/// Result: OK; on failure nothing has changed.
/// Status: OK, the errors of handles and arguments; CUDA when the driver refuses.
/// Thread: any, one at a time on the event.
/// Stream: puts nothing on a stream; all is done when it returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinter_event_destroy(device: *const SinterDevice, event: *mut c_void) -> SinterStatus {
    guard("sinter_event_destroy", || {
        let d = handle::shared(device, "device")?;
        if event.is_null() {
            return Ok(());
        }
        // SAFETY: the caller's event, which it gives up.
        unsafe { d.device.event_destroy(event) }
    })
}

/// Records an event behind the work that is on a stream now.
///
/// Params: device (in); event (in) not NULL; stream (in), NULL is the default stream.
/// Owns: nothing changes hands; memory that is passed in is read or copied before the call returns.
/// Result: OK; on failure the event keeps its last record.
/// Status: OK, the errors of handles and arguments; CUDA when the driver refuses.
/// Thread: any, also several at once on one handle.
/// Stream: returns at once; the record is ordered on the stream.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinter_event_record(
    device: *const SinterDevice,
    event: *mut c_void,
    stream: *mut c_void,
) -> SinterStatus {
    guard("sinter_event_record", || {
        let d = handle::shared(device, "device")?;
        ensure!(!event.is_null(), InvalidArgument, "event is NULL");
        // SAFETY: the caller's stream and event.
        unsafe { d.device.event_record(event, stream) }
    })
}

/// Waits for an event's last record; at once for one that was never recorded.
///
/// Params: device (in); event (in) not NULL.
/// Owns: nothing changes hands; memory that is passed in is read or copied before the call returns.
/// Result: OK when the record was reached.
/// Status: OK, the errors of handles and arguments; CUDA when work before it failed.
/// Thread: any, also several at once on one handle.
/// Stream: synchronous for the work before the record.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinter_event_synchronize(device: *const SinterDevice, event: *mut c_void) -> SinterStatus {
    guard("sinter_event_synchronize", || {
        let d = handle::shared(device, "device")?;
        ensure!(!event.is_null(), InvalidArgument, "event is NULL");
        // SAFETY: the caller's event.
        unsafe { d.device.event_synchronize(event) }
    })
}

/// Asks whether an event's last record was reached.
///
/// Params: device (in); event (in) not NULL; reached_out (out) 1 or 0.
/// Owns: nothing changes hands; memory that is passed in is read or copied before the call returns.
/// Result: OK; on failure no output is written and nothing has changed.
/// Status: OK, the errors of handles and arguments; CUDA when work before it failed.
/// Thread: any, also several at once on one handle.
/// Stream: does not wait.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinter_event_query(
    device: *const SinterDevice,
    event: *mut c_void,
    reached_out: *mut i32,
) -> SinterStatus {
    guard("sinter_event_query", || {
        let out = handle::out(reached_out, "reached_out")?;
        let d = handle::shared(device, "device")?;
        ensure!(!event.is_null(), InvalidArgument, "event is NULL");
        // SAFETY: the caller's event.
        out.set(unsafe { d.device.event_query(event)? } as i32);
        Ok(())
    })
}

/// Time between two timing events that were both reached.
///
/// Params: device (in); start, end (in) not NULL; milliseconds_out (out).
/// Owns: nothing changes hands; memory that is passed in is read or copied before the call returns.
/// Result: OK; on failure no output is written and nothing has changed.
/// Status: OK, the errors of handles and arguments; INVALID_STATE or CUDA for an event without timing or not reached.
/// Thread: any, also several at once on one handle.
/// Stream: does not wait.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinter_event_query_elapsed(
    device: *const SinterDevice,
    start: *mut c_void,
    end: *mut c_void,
    milliseconds_out: *mut f32,
) -> SinterStatus {
    guard("sinter_event_query_elapsed", || {
        let out = handle::out(milliseconds_out, "milliseconds_out")?;
        let d = handle::shared(device, "device")?;
        ensure!(!start.is_null() && !end.is_null(), InvalidArgument, "an event is NULL");
        // SAFETY: the caller's events.
        out.set(unsafe { d.device.event_elapsed_ms(start, end)? });
        Ok(())
    })
}

/// Reserves memory of a device, aligned to 256 bytes. On the CPU it is host memory.
///
/// Params: device (in); bytes (in) may be 0; buffer_out (out).
/// Owns: on success the caller owns the new handle and destroys it; it keeps alive what it was made from.
/// Result: OK and the handle; on failure the handle output is NULL.
/// Status: OK, the errors of handles and arguments; OUT_OF_MEMORY when there is not enough.
/// Thread: any, also several at once on one handle.
/// Stream: puts nothing on a stream; all is done when it returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinter_buffer_create(
    device: *const SinterDevice,
    bytes: usize,
    buffer_out: *mut *mut SinterBuffer,
) -> SinterStatus {
    guard("sinter_buffer_create", || {
        let out = handle::out_handle(buffer_out, "buffer_out")?;
        let d = handle::shared(device, "device")?;
        out.give(Buffer::new(&d.device, bytes)?);
        Ok(())
    })
}

/// Destroys a buffer. Work that uses it must be done.
///
/// Params: buffer (in) or NULL, which does nothing.
/// Owns: the handle is gone, and with it the memory.
/// Result: OK; on failure nothing has changed.
/// Status: OK; INVALID_ARGUMENT for a wrong or destroyed handle; INVALID_STATE while another call uses it.
/// Thread: any, one at a time on the receiver.
/// Stream: puts nothing on a stream; all is done when it returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinter_buffer_destroy(buffer: *mut SinterBuffer) -> SinterStatus {
    guard("sinter_buffer_destroy", || handle::destroy(buffer, "buffer"))
}

/// Address and size of a buffer. The address is the device's; only on the CPU may the host read and write there.
///
/// Params: buffer (in); address_out, bytes_out (out), each may be NULL.
/// Owns: the memory stays the buffer's.
/// Result: OK; on failure no output is written and nothing has changed.
/// Status: OK, the errors of handles and arguments.
/// Thread: any, also several at once on one handle.
/// Stream: puts nothing on a stream; all is done when it returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinter_buffer_get_address(
    buffer: *const SinterBuffer,
    address_out: *mut *mut c_void,
    bytes_out: *mut usize,
) -> SinterStatus {
    guard("sinter_buffer_get_address", || {
        let b = handle::shared(buffer, "buffer")?;
        if !address_out.is_null() {
            handle::out(address_out, "address_out")?.set(b.ptr() as *mut c_void);
        }
        if !bytes_out.is_null() {
            handle::out(bytes_out, "bytes_out")?.set(b.bytes());
        }
        Ok(())
    })
}

/// Copies bytes and waits until they are there.
///
/// Params: device (in); destination (in), source (in) addresses of the sides that kind says, NULL only for 0 bytes;
/// bytes (in); kind (in). The ranges must not overlap.
/// Owns: nothing changes hands; memory that is passed in is read or copied before the call returns.
/// Result: OK when the bytes are copied; on failure the destination may hold some of them.
/// Status: OK, the errors of handles and arguments; CUDA when the driver refuses.
/// Thread: any, also several at once on one handle.
/// Stream: synchronous, on a stream of the library's own; it does not wait for work on other streams.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinter_device_copy(
    device: *const SinterDevice,
    destination: *mut c_void,
    source: *const c_void,
    bytes: usize,
    kind: SinterCopyKind,
) -> SinterStatus {
    guard("sinter_device_copy", || {
        let d = handle::shared(device, "device")?;
        check_copy(destination, source, bytes)?;
        copy_and_wait(&d, destination as u64, source as u64, bytes, kind.rust()?)
    })
}

/// Copies bytes in a stream's order.
///
/// Params: device (in); destination (in), source (in) addresses of the sides that kind says, NULL only for 0 bytes, valid
/// until the stream has passed the copy; bytes (in); kind (in); stream (in), NULL is the default stream.
/// Owns: nothing changes hands; both memories are in use until the stream has passed the copy.
/// Result: OK when the copy is on the stream; on failure it is not.
/// Status: OK, the errors of handles and arguments; CUDA when the driver refuses.
/// Thread: any, also several at once on one handle.
/// Stream: returns at once (with pageable host memory CUDA may wait); ordered on the stream.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinter_device_copy_async(
    device: *const SinterDevice,
    destination: *mut c_void,
    source: *const c_void,
    bytes: usize,
    kind: SinterCopyKind,
    stream: *mut c_void,
) -> SinterStatus {
    guard("sinter_device_copy_async", || {
        let d = handle::shared(device, "device")?;
        check_copy(destination, source, bytes)?;
        // SAFETY: the caller's promise, stated above.
        unsafe { d.device.copy(destination as u64, source as u64, bytes, kind.rust()?, stream) }
    })
}

/// Sets bytes of a device's memory in a stream's order.
///
/// Params: device (in); destination (in) NULL only for 0 bytes; value (in) 0 to 255; bytes (in); stream (in), NULL is
/// the default stream.
/// Owns: nothing changes hands; the memory is in use until the stream has passed the operation.
/// Result: OK when the operation is on the stream; on failure it is not.
/// Status: OK, the errors of handles and arguments; CUDA when the driver refuses.
/// Thread: any, also several at once on one handle.
/// Stream: returns at once; ordered on the stream.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinter_device_fill_async(
    device: *const SinterDevice,
    destination: *mut c_void,
    value: i32,
    bytes: usize,
    stream: *mut c_void,
) -> SinterStatus {
    guard("sinter_device_fill_async", || {
        let d = handle::shared(device, "device")?;
        let value = u8::try_from(value).map_err(|_| err!(InvalidArgument, "value {value} is not a byte"))?;
        ensure!(!destination.is_null() || bytes == 0, InvalidArgument, "destination is NULL");
        // SAFETY: the caller's promise, stated above.
        unsafe { d.device.fill(destination as u64, value, bytes, stream) }
    })
}

fn check_copy(destination: *mut c_void, source: *const c_void, bytes: usize) -> Result<()> {
    ensure!(!destination.is_null() || bytes == 0, InvalidArgument, "destination is NULL");
    ensure!(!source.is_null() || bytes == 0, InvalidArgument, "source is NULL");
    Ok(())
}

fn copy_and_wait(d: &OpenDevice, dst: u64, src: u64, bytes: usize, kind: CopyKind) -> Result<()> {
    if bytes == 0 {
        return Ok(());
    }
    if let DeviceRef::Cpu(_) = &d.device {
        // SAFETY: the caller's promise; on the CPU the NULL stream copies at once.
        return unsafe { d.device.copy(dst, src, bytes, kind, std::ptr::null_mut()) };
    }
    let mut stream = d.copies.lock();
    if stream.0.is_null() {
        stream.0 = d.device.stream_create()?;
    }
    // SAFETY: the caller's promise; our own stream.
    unsafe {
        d.device.copy(dst, src, bytes, kind, stream.0)?;
        d.device.stream_synchronize(stream.0)
    }
}
