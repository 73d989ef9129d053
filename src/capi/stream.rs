//! Streams and events of a device, for applications without a CUDA binding of their own.

use super::device::SinterDevice;
use super::guard::guard;
use super::handle;
use super::status::SinterStatus;
use crate::ensure;
use std::ffi::c_void;

/// Makes a stream: a queue of work that runs in order. On CUDA it is a CUstream (cudaStream_t), and an application's
/// own is as good; on the CPU it is a queue with a thread.
///
/// Params: device (in); stream_out (out).
/// Owns: the caller owns the stream and ends it with sinter_stream_destroy, before the device's last handle.
/// Result: OK and the stream; on failure *stream_out is NULL.
/// Status: OK, the errors of handles and arguments; CUDA or IO when there can be no more streams.
/// Thread: any, also several at once on one handle.
/// Stream: puts nothing on a stream; all is done when it returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinter_stream_create(
    device: *const SinterDevice,
    stream_out: *mut *mut c_void,
) -> SinterStatus {
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
