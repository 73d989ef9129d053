//! Memory of a device, and copies to, from and within it.

use super::device::{OpenDevice, SinterDevice};
use super::guard::guard;
use super::handle::{self, Handle};
use super::status::SinterStatus;
use crate::base::Result;
use crate::device::{Buffer, CopyKind, DeviceRef};
use crate::{ensure, err};
use std::ffi::c_void;

/// Memory of a device that is freed with the handle.
pub struct SinterBuffer {
    _opaque: (),
}

impl Handle for SinterBuffer {
    const MAGIC: &'static [u8; 8] = b"SntrBuff";
    type Content = Buffer;
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
/// Params: device (in); destination (in), source (in) addresses of the sides that kind says, NULL only for 0 bytes,
/// valid until the stream has passed the copy; bytes (in); kind (in); stream (in), NULL is the default stream.
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
