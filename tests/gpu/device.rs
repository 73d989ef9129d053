//! Memory, streams, events and contexts.

use crate::{Memory, Stream, assert_same, gpu};
use cudarc::driver::sys;
use sinter::base::ErrorCode;
use sinter::device::cuda::CudaDevice;
use sinter::device::{CopyKind, Device, DeviceKind};

/// The context that is current on this thread.
fn current() -> sys::CUcontext {
    let mut context = std::ptr::null_mut();
    // SAFETY: writes one pointer; the driver is there, the caller has a device.
    assert_eq!(unsafe { sys::cuCtxGetCurrent(&mut context) } as u32, 0);
    context
}

#[test]
fn properties_are_those_of_a_real_device() {
    let Some(gpu) = gpu() else { return };
    let props = gpu.props();
    assert_eq!(props.kind, DeviceKind::Cuda(0));
    assert!(props.is_cuda() && props.sm >= 50 && props.n_sm > 0, "{props:?}");
    assert!(props.max_smem_per_block >= 48 << 10 && props.max_threads_per_block >= 1024, "{props:?}");
    assert!(props.memory_bytes > 1 << 30 && props.l2_bytes > 0 && props.uuid != [0; 16], "{props:?}");
    assert!(props.driver_version >= 12000 && !props.name.is_empty(), "{props:?}");
    assert_eq!(CudaDevice::list()[0], *props);
    let e = CudaDevice::open(999).unwrap_err();
    assert_eq!(e.code, ErrorCode::NotFound);
    assert!(e.message.contains("999"), "{}", e.message);
}

#[test]
fn bytes_survive_a_round_trip() {
    let Some(gpu) = gpu() else { return };
    let stream = Stream::new(&gpu);
    let values: Vec<u32> = (0..100_003).map(|i: u32| i.wrapping_mul(2_654_435_761)).collect();
    let one = Memory::of(&gpu, &values);
    let two = Memory::new(&gpu, values.len() * 4);
    assert_eq!(one.ptr % 256, 0);
    // SAFETY: both have this many bytes.
    unsafe { gpu.copy(two.ptr, one.ptr, values.len() * 4, CopyKind::DeviceToDevice, stream.raw).unwrap() };
    assert_same(&two.read::<u32>(stream.raw), &values);
    // SAFETY: inside the buffer.
    unsafe { gpu.fill(two.ptr + 4, 0xab, 8, stream.raw).unwrap() };
    let read = two.read::<u32>(stream.raw);
    assert_eq!(read[..4], [values[0], 0xabab_abab, 0xabab_abab, values[3]]);
}

#[test]
fn the_default_stream_is_used_when_given() {
    let Some(gpu) = gpu() else { return };
    let memory = Memory::of(&gpu, &[1u8; 16]);
    // SAFETY: inside the buffer.
    unsafe { gpu.fill(memory.ptr, 7, 16, std::ptr::null_mut()).unwrap() };
    assert_eq!(memory.read::<u8>(std::ptr::null_mut()), [7; 16]);
    // SAFETY: never destroys anything.
    assert_eq!(unsafe { gpu.stream_destroy(std::ptr::null_mut()) }.unwrap_err().code, ErrorCode::InvalidArgument);
}

#[test]
fn nothing_allocated_is_still_an_address_of_its_own() {
    let Some(gpu) = gpu() else { return };
    let (one, two) = (Memory::new(&gpu, 0), Memory::new(&gpu, 0));
    assert!(one.ptr != 0 && one.ptr != two.ptr);
    assert!(one.read::<u8>(std::ptr::null_mut()).is_empty());
}

#[test]
fn too_much_memory_says_what_was_asked_and_what_is_free() {
    let Some(gpu) = gpu() else { return };
    let asked = gpu.props().memory_bytes * 4;
    let e = gpu.alloc(asked).unwrap_err();
    assert_eq!(e.code, ErrorCode::OutOfMemory);
    assert!(e.message.contains(&asked.to_string()) && e.message.contains("free"), "{}", e.message);
    // The failure leaves nothing behind.
    Memory::new(&gpu, 1 << 20);
}

#[test]
fn pinned_memory_is_written_by_the_device() {
    let Some(gpu) = gpu() else { return };
    let stream = Stream::new(&gpu);
    let values: Vec<u8> = (0..4096).map(|i| i as u8).collect();
    let memory = Memory::of(&gpu, &values);
    let host = gpu.alloc_pinned(values.len()).unwrap();
    // SAFETY: both have this many bytes; the host reads after the stream is drained.
    unsafe {
        gpu.copy(host as u64, memory.ptr, values.len(), CopyKind::DeviceToHost, stream.raw).unwrap();
        gpu.stream_synchronize(stream.raw).unwrap();
        assert_eq!(std::slice::from_raw_parts(host, values.len()), values);
        gpu.free_pinned(host);
    }
}

#[test]
fn events_order_streams_and_tell_the_time() {
    let Some(gpu) = gpu() else { return };
    let (first, second) = (Stream::new(&gpu), Stream::new(&gpu));
    let memory = Memory::new(&gpu, 256 << 20);
    let (start, end) = (gpu.event_create(true).unwrap(), gpu.event_create(true).unwrap());
    let done = gpu.event_create(false).unwrap();
    // SAFETY: streams, events and memory live until the end of the block.
    unsafe {
        assert!(gpu.event_query(done).unwrap(), "an event that was never recorded counts as done");
        gpu.event_record(start, first.raw).unwrap();
        for value in 1..=10 {
            gpu.fill(memory.ptr, value, 256 << 20, first.raw).unwrap();
        }
        gpu.event_record(end, first.raw).unwrap();
        gpu.event_record(done, first.raw).unwrap();
        gpu.stream_wait_event(second.raw, done).unwrap();
        gpu.fill(memory.ptr, 99, 4, second.raw).unwrap();
        gpu.stream_synchronize(second.raw).unwrap();
        assert!(gpu.event_query(end).unwrap(), "the second stream waited for the first");
        gpu.event_synchronize(end).unwrap();
        let ms = gpu.event_elapsed_ms(start, end).unwrap();
        // 2.5 GB of writes: no device does that in a hundredth of a millisecond, and any in ten seconds.
        assert!(ms > 0.01 && ms < 10_000.0, "{ms} ms");
        for event in [start, end, done] {
            gpu.event_destroy(event).unwrap();
        }
    }
    assert_eq!(memory.read::<u8>(second.raw)[..6], [99, 99, 99, 99, 10, 10]);
}

#[test]
fn no_call_changes_the_current_context() {
    let Some(gpu) = gpu() else { return };
    std::thread::scope(|scope| {
        let fresh = scope.spawn(|| {
            assert!(current().is_null(), "a new thread has no context");
            let stream = Stream::new(&gpu);
            let memory = Memory::of(&gpu, &[1u8, 2, 3]);
            assert_eq!(memory.read::<u8>(stream.raw), [1, 2, 3]);
            assert!(current().is_null());
            {
                let _outer = gpu.enter().unwrap();
                assert_eq!(current().cast(), gpu.raw_context());
                let _inner = gpu.enter().unwrap();
                gpu.memory_info().unwrap();
                assert_eq!(current().cast(), gpu.raw_context());
            }
            assert!(current().is_null());
        });
        fresh.join().unwrap();
    });
}

#[test]
fn the_application_s_own_context_is_used_and_left_alone() {
    let Some(gpu) = gpu() else { return };
    let (primary, mut own) = (gpu.raw_context(), std::ptr::null_mut());
    let before = current();
    // SAFETY: makes a context on device 0 and makes it current; destroyed below.
    assert_eq!(unsafe { sys::cuCtxCreate_v4(&mut own, std::ptr::null_mut(), 0, 0) } as u32, 0);
    let device = CudaDevice::open(0).unwrap();
    assert_eq!(device.raw_context(), own.cast());
    assert_ne!(device.raw_context(), primary);
    assert!(std::sync::Arc::ptr_eq(&device, &CudaDevice::open(0).unwrap()), "the same context is the same device");
    // The device in the primary context works while another context is current, and leaves it current.
    let memory = Memory::of(&gpu, &[5u8; 8]);
    assert_eq!(memory.read::<u8>(std::ptr::null_mut()), [5; 8]);
    drop(memory);
    let memory = Memory::of(&device, &[6u8; 8]);
    assert_eq!(memory.read::<u8>(std::ptr::null_mut()), [6; 8]);
    drop(memory);
    assert_eq!(current(), own);
    drop(device);
    assert_eq!(current(), own, "dropping the device leaves the application's context alone");
    // SAFETY: made above; nothing of it is in use.
    unsafe { assert_eq!(sys::cuCtxDestroy_v2(own) as u32, 0) };
    assert_eq!(current(), before);
}

#[test]
fn opening_again_gives_the_same_device() {
    let Some(gpu) = gpu() else { return };
    assert!(std::sync::Arc::ptr_eq(&gpu, &CudaDevice::open(0).unwrap()));
}

#[test]
fn memory_is_back_after_everything_is_dropped() {
    let Some(gpu) = gpu() else { return };
    let cycle = || {
        let stream = Stream::new(&gpu);
        let memory = Memory::new(&gpu, 64 << 20);
        // SAFETY: inside the buffer.
        unsafe { gpu.fill(memory.ptr, 1, 64 << 20, stream.raw).unwrap() };
        // SAFETY: alive.
        unsafe { gpu.stream_synchronize(stream.raw).unwrap() };
    };
    cycle(); // The driver keeps what the first use of its own functions takes.
    let before = gpu.memory_info().unwrap().0;
    (0..20).for_each(|_| cycle());
    let after = gpu.memory_info().unwrap().0;
    assert!(after + (4 << 20) >= before, "{before} bytes were free before, {after} are now");
}
