//! Devices: which there are, their properties, and opening one.

use super::guard::guard;
use super::handle::{self, Handle, Versioned};
use super::status::SinterStatus;
use crate::device::cpu::CpuDevice;
use crate::device::cuda::CudaDevice;
use crate::device::{Device, DeviceKind, DeviceProps, DeviceRef, RawStream};
use crate::err;
use parking_lot::Mutex;
use std::ffi::c_char;

/// An open device: the CPU or one GPU. Handles of the same device share it.
pub struct SinterDevice {
    _opaque: (),
}

pub(super) struct OpenDevice {
    pub device: DeviceRef,
    /// Stream of the copies that wait; made at the first of them.
    pub copies: Mutex<CopyStream>,
}

pub(super) struct CopyStream(pub RawStream);
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
/// Params: name (in) "cpu", "cuda" (number 0) or "cuda:N"; NULL or "" opens CUDA device 0 if there is one, otherwise
/// the CPU. device_out (out).
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
