//! Streams and events of the CPU device, and the handles that stand for them.
//!
//! A stream is a queue and one thread that empties it in order. An event counts its records: a wait, a query or a
//! synchronization means the last record at the time of the call, as on CUDA, so an event may be recorded anew while
//! an older record is still queued.
//!
//! A handle is the address of a slot with a magic word; the slot is never given back to the allocator but kept for the
//! next handle of its kind. So a destroyed handle or one of the other kind is recognized (InvalidArgument) without
//! reading freed memory, unless its slot already serves a newer object. An address that was never a handle is not
//! recognized safely: it is read.
//!
//! A job that panics does not stop its stream: the text is kept, later jobs run, and the next synchronization reports it.

use super::super::{RawEvent, RawStream};
use crate::base::{Error, Result};
use crate::{ensure, err, internal};
use parking_lot::{Condvar, Mutex};
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Instant;

/// One entry of a stream's queue.
pub(super) enum Job {
    Once(Box<dyn FnOnce() + Send>),
    Shared(Arc<dyn Fn() + Send + Sync>),
    Copy { dst: u64, src: u64, bytes: usize },
    Fill { dst: u64, value: u8, bytes: usize },
    /// The stream reached this record of the event.
    Record(Arc<Event>, u64),
    /// Nothing after it runs before this record of the event.
    Wait(Arc<Event>, u64),
}

impl Job {
    /// Runs it; the error is the text of a panic.
    pub(super) fn run(self) -> std::result::Result<(), String> {
        match self {
            Job::Once(f) => guarded(f),
            Job::Shared(f) => guarded(|| f()),
            Job::Copy { dst, src, bytes } => {
                if bytes > 0 {
                    // SAFETY: both ranges are valid until the copy is done (promise of `Device::copy`).
                    unsafe { std::ptr::copy(src as *const u8, dst as *mut u8, bytes) };
                }
                Ok(())
            }
            Job::Fill { dst, value, bytes } => {
                if bytes > 0 {
                    // SAFETY: the range is valid until the operation is done (promise of `Device::fill`).
                    unsafe { std::ptr::write_bytes(dst as *mut u8, value, bytes) };
                }
                Ok(())
            }
            Job::Record(event, turn) => {
                event.reach(turn, None);
                Ok(())
            }
            Job::Wait(event, turn) => {
                event.wait(turn);
                Ok(())
            }
        }
    }
}

fn guarded(f: impl FnOnce()) -> std::result::Result<(), String> {
    catch_unwind(AssertUnwindSafe(f)).map_err(|payload| {
        let text = payload.downcast_ref::<&str>().map(|s| s.to_string());
        text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_else(|| "a panic without a text".into())
    })
}

/// What a synchronization returns for a job that panicked.
pub(super) fn panic_error(text: &str) -> Error {
    internal!("a job of the CPU stream panicked: {text}")
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    is_running: bool,
    is_closed: bool,
    failure: Option<String>,
}

struct Shared {
    queue: Mutex<Queue>,
    /// A job came, or the stream is to end.
    wake: Condvar,
    /// The queue ran empty.
    idle: Condvar,
}

/// An in-order queue with its worker thread.
pub(super) struct Stream {
    shared: Arc<Shared>,
    worker: Mutex<Option<JoinHandle<()>>>,
}

impl Stream {
    pub(super) fn start() -> Result<Stream> {
        let queue = Queue { jobs: VecDeque::with_capacity(64), ..Queue::default() };
        let shared = Arc::new(Shared { queue: Mutex::new(queue), wake: Condvar::new(), idle: Condvar::new() });
        let of_worker = shared.clone();
        let worker = std::thread::Builder::new()
            .name("sinter-cpu-stream".into())
            .spawn(move || work(&of_worker))
            .map_err(|e| err!(Io, "cannot start the thread of a CPU stream: {e}"))?;
        Ok(Stream { shared, worker: Mutex::new(Some(worker)) })
    }

    pub(super) fn push(&self, job: Job) {
        self.shared.queue.lock().jobs.push_back(job);
        self.shared.wake.notify_one();
    }

    /// Waits until the queue is empty; returns and forgets the first panic since the last synchronization.
    pub(super) fn synchronize(&self) -> Result<()> {
        let mut q = self.shared.queue.lock();
        while q.is_running || !q.jobs.is_empty() {
            self.shared.idle.wait(&mut q);
        }
        match q.failure.take() {
            Some(text) => Err(panic_error(&text)),
            None => Ok(()),
        }
    }

    /// Drains the queue and ends the thread.
    pub(super) fn finish(&self) {
        self.shared.queue.lock().is_closed = true;
        self.shared.wake.notify_all();
        if let Some(worker) = self.worker.lock().take() {
            // A stream may be destroyed by one of its own jobs; its thread then ends by itself after the queue.
            if worker.thread().id() != std::thread::current().id() {
                let _ = worker.join();
            }
        }
    }
}

fn work(shared: &Shared) {
    let mut q = shared.queue.lock();
    loop {
        match q.jobs.pop_front() {
            Some(job) => {
                q.is_running = true;
                let failure = q.failure.clone();
                drop(q);
                let outcome = match job {
                    Job::Record(event, turn) => {
                        event.reach(turn, failure);
                        Ok(())
                    }
                    job => job.run(),
                };
                q = shared.queue.lock();
                q.is_running = false;
                if let Err(text) = outcome {
                    q.failure.get_or_insert(text);
                }
            }
            None if q.is_closed => return,
            None => {
                shared.idle.notify_all();
                shared.wake.wait(&mut q);
            }
        }
    }
}

#[derive(Default)]
struct EventState {
    /// How often it was recorded, and the last record that its stream has reached.
    recorded: u64,
    reached: u64,
    at: Option<Instant>,
    failure: Option<String>,
}

/// A point in a stream.
pub(super) struct Event {
    has_timing: bool,
    state: Mutex<EventState>,
    changed: Condvar,
}

impl Event {
    pub(super) fn new(has_timing: bool) -> Event {
        Event { has_timing, state: Mutex::new(EventState::default()), changed: Condvar::new() }
    }

    pub(super) fn next_record(&self) -> u64 {
        let mut s = self.state.lock();
        s.recorded += 1;
        s.recorded
    }

    pub(super) fn last_record(&self) -> u64 {
        self.state.lock().recorded
    }

    /// The stream came to a record; `failure` is what went wrong on it before.
    pub(super) fn reach(&self, turn: u64, failure: Option<String>) {
        let mut s = self.state.lock();
        s.reached = s.reached.max(turn);
        s.at = self.has_timing.then(Instant::now);
        s.failure = failure;
        drop(s);
        self.changed.notify_all();
    }

    fn wait(&self, turn: u64) {
        let mut s = self.state.lock();
        while s.reached < turn {
            self.changed.wait(&mut s);
        }
    }

    pub(super) fn synchronize(&self) -> Result<()> {
        self.wait(self.last_record());
        match self.state.lock().failure.take() {
            Some(text) => Err(panic_error(&text)),
            None => Ok(()),
        }
    }

    pub(super) fn is_reached(&self) -> bool {
        let s = self.state.lock();
        s.reached >= s.recorded
    }

    /// When its last record was reached.
    pub(super) fn time(&self) -> Result<Instant> {
        ensure!(self.has_timing, InvalidArgument, "elapsed time needs events created with timing; this one has none");
        let s = self.state.lock();
        ensure!(s.recorded > 0, InvalidState, "elapsed time needs recorded events; this one was never recorded");
        ensure!(s.reached >= s.recorded, InvalidState, "elapsed time needs finished events; this one is still queued");
        s.at.ok_or_else(|| internal!("a reached timing event has no time"))
    }
}

const FREE: u64 = 0;
const STREAM_MAGIC: u64 = 0x5354_5245_414d_0001;
const EVENT_MAGIC: u64 = 0x4556_454e_5400_0002;

/// What a handle points to. Slots are leaked on purpose and reused; see the module's text.
#[repr(C)]
struct Slot<T> {
    magic: AtomicU64,
    object: Mutex<Option<Arc<T>>>,
}

struct SlotList<T: 'static>(Mutex<Vec<&'static Slot<T>>>);

static FREE_STREAMS: SlotList<Stream> = SlotList(Mutex::new(Vec::new()));
static FREE_EVENTS: SlotList<Event> = SlotList(Mutex::new(Vec::new()));

impl<T> SlotList<T> {
    fn put(&self, object: T, magic: u64) -> *mut std::ffi::c_void {
        let slot: &'static Slot<T> = self.0.lock().pop().unwrap_or_else(|| {
            Box::leak(Box::new(Slot { magic: AtomicU64::new(FREE), object: Mutex::new(None) }))
        });
        *slot.object.lock() = Some(Arc::new(object));
        slot.magic.store(magic, Ordering::Release);
        std::ptr::from_ref(slot).cast_mut().cast()
    }

    fn take(&self, slot: &'static Slot<T>, what: &str) -> Result<Arc<T>> {
        let object = slot.object.lock().take();
        slot.magic.store(FREE, Ordering::Release);
        let object = object.ok_or_else(|| err!(InvalidArgument, "the {what} was destroyed before"))?;
        self.0.lock().push(slot);
        Ok(object)
    }
}

/// # Safety
/// The address is NULL or of memory that was once a handle of this module (or starts with 8 readable bytes).
unsafe fn slot_of<T>(handle: *mut std::ffi::c_void, magic: u64, what: &str) -> Result<&'static Slot<T>> {
    ensure!(!handle.is_null(), InvalidArgument, "expected a CPU {what}, got NULL");
    let aligned = (handle as usize).is_multiple_of(align_of::<Slot<T>>());
    // SAFETY: readable by the caller's promise; checked to be aligned before it is read.
    let is_ours = aligned && unsafe { &*handle.cast::<AtomicU64>() }.load(Ordering::Acquire) == magic;
    ensure!(is_ours, InvalidArgument, "expected a CPU {what}, got a handle of another kind or a destroyed one");
    // SAFETY: the magic word says that it is a slot of this type, and slots are never freed.
    Ok(unsafe { &*handle.cast::<Slot<T>>() })
}

fn object_of<T>(slot: &Slot<T>, what: &str) -> Result<Arc<T>> {
    slot.object.lock().clone().ok_or_else(|| err!(InvalidArgument, "the {what} was destroyed before"))
}

pub(super) fn new_stream_handle(stream: Stream) -> RawStream {
    FREE_STREAMS.put(stream, STREAM_MAGIC)
}

pub(super) fn new_event_handle(event: Event) -> RawEvent {
    FREE_EVENTS.put(event, EVENT_MAGIC)
}

/// # Safety
/// See `slot_of`.
pub(super) unsafe fn stream_of(handle: RawStream) -> Result<Arc<Stream>> {
    // SAFETY: the caller's promise.
    object_of(unsafe { slot_of(handle, STREAM_MAGIC, "stream") }?, "stream")
}

/// # Safety
/// See `slot_of`.
pub(super) unsafe fn event_of(handle: RawEvent) -> Result<Arc<Event>> {
    // SAFETY: the caller's promise.
    object_of(unsafe { slot_of(handle, EVENT_MAGIC, "event") }?, "event")
}

/// # Safety
/// See `slot_of`.
pub(super) unsafe fn take_stream(handle: RawStream) -> Result<Arc<Stream>> {
    // SAFETY: the caller's promise.
    FREE_STREAMS.take(unsafe { slot_of(handle, STREAM_MAGIC, "stream") }?, "stream")
}

/// # Safety
/// See `slot_of`.
pub(super) unsafe fn take_event(handle: RawEvent) -> Result<Arc<Event>> {
    // SAFETY: the caller's promise.
    FREE_EVENTS.take(unsafe { slot_of(handle, EVENT_MAGIC, "event") }?, "event")
}

#[cfg(test)]
mod tests {
    use super::super::CpuDevice;
    use crate::base::ErrorCode;
    use crate::device::{CopyKind, Device};
    use std::ptr::null_mut;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    #[test]
    fn jobs_run_in_order_and_synchronize_waits() {
        let d = CpuDevice::shared();
        let s = d.stream_create().unwrap();
        let order = Arc::new(parking_lot::Mutex::new(Vec::new()));
        for i in 0..100 {
            let order = order.clone();
            // SAFETY: the job owns what it uses.
            unsafe { d.submit(s, Box::new(move || order.lock().push(i))) }.unwrap();
        }
        // SAFETY: made above.
        unsafe { d.stream_synchronize(s) }.unwrap();
        assert_eq!(*order.lock(), (0..100).collect::<Vec<_>>());
        // SAFETY: made above.
        unsafe { d.stream_destroy(s) }.unwrap();
    }

    #[test]
    fn destroy_drains_the_queue() {
        let d = CpuDevice::shared();
        let s = d.stream_create().unwrap();
        let n = Arc::new(AtomicUsize::new(0));
        let m = n.clone();
        let job: Arc<dyn Fn() + Send + Sync> = Arc::new(move || {
            std::thread::sleep(Duration::from_millis(1));
            m.fetch_add(1, Ordering::Relaxed);
        });
        for _ in 0..10 {
            // SAFETY: the job owns what it uses.
            unsafe { d.submit_ref(s, job.clone()) }.unwrap();
        }
        // SAFETY: made above.
        unsafe { d.stream_destroy(s) }.unwrap();
        assert_eq!(n.load(Ordering::Relaxed), 10);
    }

    #[test]
    fn a_panic_is_reported_once_and_the_stream_goes_on() {
        let d = CpuDevice::shared();
        let s = d.stream_create().unwrap();
        let e = d.event_create(false).unwrap();
        // SAFETY: handles made above.
        unsafe {
            d.submit(s, Box::new(|| panic!("bad tile {}", 7))).unwrap();
            d.event_record(e, s).unwrap();
            let of_event = d.event_synchronize(e).unwrap_err();
            assert_eq!(of_event.code, ErrorCode::Internal);
            let of_stream = d.stream_synchronize(s).unwrap_err();
            assert_eq!(of_stream.code, ErrorCode::Internal);
            assert!(of_stream.to_string().contains("bad tile 7"), "{of_stream}");
            d.stream_synchronize(s).unwrap();
            let on_null = d.submit(null_mut(), Box::new(|| panic!("at once"))).unwrap_err();
            assert!(on_null.to_string().contains("at once"), "{on_null}");
            d.stream_destroy(s).unwrap();
            d.event_destroy(e).unwrap();
        }
    }

    #[test]
    fn events_order_two_streams_and_measure_time() {
        let d = CpuDevice::shared();
        let (a, b) = (d.stream_create().unwrap(), d.stream_create().unwrap());
        let (start, end) = (d.event_create(true).unwrap(), d.event_create(true).unwrap());
        let flag = Arc::new(AtomicUsize::new(0));
        let seen = Arc::new(AtomicUsize::new(99));
        let (f, g, h) = (flag.clone(), flag.clone(), seen.clone());
        // SAFETY: handles made above, jobs own what they use.
        unsafe {
            assert!(d.event_query(start).unwrap(), "an event that was never recorded is done");
            d.event_record(start, a).unwrap();
            d.submit(
                a,
                Box::new(move || {
                    std::thread::sleep(Duration::from_millis(20));
                    f.store(1, Ordering::SeqCst);
                }),
            )
            .unwrap();
            d.event_record(end, a).unwrap();
            d.stream_wait_event(b, end).unwrap();
            d.submit(b, Box::new(move || h.store(g.load(Ordering::SeqCst), Ordering::SeqCst))).unwrap();
            d.stream_synchronize(b).unwrap();
            assert_eq!(seen.load(Ordering::SeqCst), 1);
            d.event_synchronize(end).unwrap();
            let ms = d.event_elapsed_ms(start, end).unwrap();
            assert!((19.0..5000.0).contains(&ms), "{ms}");
            d.stream_destroy(a).unwrap();
            d.stream_destroy(b).unwrap();
            d.event_destroy(start).unwrap();
            d.event_destroy(end).unwrap();
        }
    }

    #[test]
    fn wrong_and_destroyed_handles_are_refused() {
        let d = CpuDevice::shared();
        let s = d.stream_create().unwrap();
        let e = d.event_create(false).unwrap();
        // SAFETY: the handles are or were handles, which the module promises to recognize.
        unsafe {
            assert_eq!(d.stream_synchronize(e).unwrap_err().code, ErrorCode::InvalidArgument);
            assert_eq!(d.event_query(s).unwrap_err().code, ErrorCode::InvalidArgument);
            assert_eq!(d.event_query(null_mut()).unwrap_err().code, ErrorCode::InvalidArgument);
            assert_eq!(d.event_elapsed_ms(e, e).unwrap_err().code, ErrorCode::InvalidArgument);
            d.stream_destroy(s).unwrap();
            d.event_destroy(e).unwrap();
        }
    }

    #[test]
    fn memory_is_aligned_copied_and_filled() {
        let d = CpuDevice::shared();
        let (p, q) = (d.alloc(1000).unwrap(), d.alloc(0).unwrap());
        assert!(p % 256 == 0 && q % 256 == 0 && p != q);
        let mut back = vec![0u8; 1000];
        // SAFETY: ranges inside of the allocation and of `back`.
        unsafe {
            d.fill(p, 7, 1000, null_mut()).unwrap();
            d.copy(back.as_mut_ptr() as u64, p, 1000, CopyKind::DeviceToHost, null_mut()).unwrap();
            d.free(p);
            d.free(q);
        }
        assert!(back.iter().all(|b| *b == 7));
        assert_eq!(d.alloc(usize::MAX - 10).unwrap_err().code, ErrorCode::OutOfMemory);
        let props = d.props();
        assert!(props.n_sm > 0 && props.memory_bytes > 0 && !props.name.is_empty());
    }
}
