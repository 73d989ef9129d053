//! The CPU as a device: host memory, streams that are queues with a thread, one pool of threads for the cores.
//!
//! The device part ([`CpuDevice`], `stream`) and the *cores* live here. A core is a plain function over slices and a
//! small parameter struct (a convolution, a matrix product, a row softmax); it knows no operator, no graph and no
//! tensor type, so that an operator's CPU tactic calls it with what it has. Cores pick AVX-512, AVX2 with FMA or the
//! baseline once per call ([`Isa`]), split their work into tasks and run them in the process-wide pool.
//!
//! Invariants: a core called twice with the same arguments gives the same bits, whatever the number of threads (no
//! sum is split by thread); the cores check their slices' lengths and panic on a caller's mistake, which the stream
//! turns into an Internal error; after a first call a core keeps its scratch memory per thread and allocates nothing
//! of its own (rayon may still allocate a queue block now and then).
//!
//! It does not choose algorithms by timing (the autotuner does) and does not know element types beyond what a core says.

pub mod attention;
pub mod conv;
pub mod conv_transpose;
pub mod gemm;
pub(crate) mod igemm;
pub(crate) mod qconv_rows;
mod microkernel;
pub(crate) mod multiversion;
pub mod pool;
pub mod recurrent;
pub mod resize;
pub mod rows;
mod scratch;
mod stream;
pub mod transpose;
pub mod vec;

use super::{CopyKind, Device, DeviceKind, DeviceProps, RawEvent, RawStream};
use crate::base::{Result, knobs};
use crate::err;
use once_cell::sync::Lazy;
use rayon::prelude::*;
pub(crate) use scratch::{with_bytes, with_scratch};
use std::alloc::Layout;
use std::sync::Arc;
use stream::{Event, Job, Stream};

/// Instruction set that a core is run with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Isa {
    /// What the target guarantees (SSE2 on x86-64, NEON on aarch64).
    Baseline,
    /// AVX2, FMA and F16C.
    Avx2,
    /// AVX-512 F, BW, DQ and VL, with all of `Avx2`.
    Avx512,
}

impl Isa {
    /// The best one of this machine; detected once.
    pub fn detect() -> Isa {
        static ISA: Lazy<Isa> = Lazy::new(|| {
            #[cfg(target_arch = "x86_64")]
            {
                let avx2 = is_x86_feature_detected!("avx2")
                    && is_x86_feature_detected!("fma")
                    && is_x86_feature_detected!("f16c");
                let avx512 = is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl");
                if avx2 && avx512 {
                    return Isa::Avx512;
                }
                if avx2 {
                    return Isa::Avx2;
                }
            }
            Isa::Baseline
        });
        *ISA
    }

    /// All that this machine can run, worst first; tests run each.
    pub fn available() -> Vec<Isa> {
        [Isa::Baseline, Isa::Avx2, Isa::Avx512].into_iter().filter(|i| *i <= Isa::detect()).collect()
    }
}

static POOL: Lazy<rayon::ThreadPool> = Lazy::new(|| {
    let n_threads = knobs::CPU_THREADS
        .get()
        .and_then(|v| v.parse::<usize>().ok())
        .filter(|n| (1..=1024).contains(n))
        .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, |n| n.get()));
    rayon::ThreadPoolBuilder::new()
        .num_threads(n_threads)
        .thread_name(|i| format!("sinter-cpu-{i}"))
        .build()
        .expect("a thread pool can only fail to start when the process may not make threads")
});

/// Threads of the pool.
pub(crate) fn n_threads() -> usize {
    POOL.current_num_threads()
}

/// Runs `f(0) .. f(n - 1)` in the pool, in any order; on the calling thread when there is one task or one thread.
pub(crate) fn for_each_task(n: usize, f: impl Fn(usize) + Sync + Send) {
    if n <= 1 || n_threads() == 1 {
        (0..n).for_each(f);
    } else {
        POOL.install(|| (0..n).into_par_iter().with_max_len(1).for_each(f));
    }
}

/// A pointer that tasks share; each writes a part of its own.
#[derive(Clone, Copy)]
pub(crate) struct SharedMut<T>(pub *mut T, pub usize);

// SAFETY: only `slice` gives access, and its caller promises disjoint parts.
unsafe impl<T: Send> Sync for SharedMut<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Send for SharedMut<T> {}

impl<T> SharedMut<T> {
    pub(crate) fn new(s: &mut [T]) -> Self {
        SharedMut(s.as_mut_ptr(), s.len())
    }

    /// The part `start .. start + len`; panics when it is out of range.
    /// # Safety
    /// No other task touches this part while the slice lives.
    #[allow(clippy::mut_from_ref)]
    pub(crate) unsafe fn slice(&self, start: usize, len: usize) -> &mut [T] {
        assert!(start <= self.1 && len <= self.1 - start, "part {start}+{len} is outside of {} elements", self.1);
        // SAFETY: in range by the assertion; exclusive by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.0.add(start), len) }
    }
}

/// The CPU device. There is one for the whole process.
#[derive(Debug)]
pub struct CpuDevice {
    props: DeviceProps,
}

const ALLOC_ALIGN: usize = 256;

impl CpuDevice {
    /// The process's CPU device.
    pub fn shared() -> Arc<CpuDevice> {
        static DEVICE: Lazy<Arc<CpuDevice>> = Lazy::new(|| Arc::new(CpuDevice { props: read_props() }));
        DEVICE.clone()
    }

    /// Runs `f` on a thread of the pool and returns its value; cores called inside start without a thread change.
    pub fn install<R: Send>(f: impl FnOnce() -> R + Send) -> R {
        POOL.install(f)
    }

    /// Puts a job at the end of the stream's queue. On the NULL stream it runs here, before the call returns.
    ///
    /// A panic of the job is caught: the NULL stream returns it as an Internal error at once, another stream at its
    /// next synchronization.
    /// # Safety
    /// The stream is NULL or came from `stream_create`; what the job points to stays valid until it has run.
    pub unsafe fn submit(&self, stream: RawStream, job: Box<dyn FnOnce() + Send>) -> Result<()> {
        // SAFETY: the caller's promise.
        unsafe { self.push(stream, Job::Once(job)) }
    }

    /// Like [`CpuDevice::submit`] with a job that is shared, so that enqueuing it again allocates nothing: the queue
    /// keeps its capacity.
    /// # Safety
    /// See `submit`.
    pub unsafe fn submit_ref(&self, stream: RawStream, job: Arc<dyn Fn() + Send + Sync>) -> Result<()> {
        // SAFETY: the caller's promise.
        unsafe { self.push(stream, Job::Shared(job)) }
    }

    /// # Safety
    /// See `submit`.
    unsafe fn push(&self, stream: RawStream, job: Job) -> Result<()> {
        if stream.is_null() {
            return job.run().map_err(|text| stream::panic_error(&text));
        }
        // SAFETY: the caller's promise.
        unsafe { stream::stream_of(stream) }?.push(job);
        Ok(())
    }
}

/// First value of a `key : value` line.
fn proc_value(path: &str, key: &str) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    let line = text.lines().find(|l| l.starts_with(key))?;
    Some(line.split_once(':')?.1.trim().to_string())
}

/// A size of /proc/meminfo, in bytes.
fn meminfo_bytes(key: &str) -> Option<usize> {
    let v = proc_value("/proc/meminfo", key)?;
    v.split_whitespace().next()?.parse::<usize>().ok()?.checked_mul(1024)
}

fn read_props() -> DeviceProps {
    let l2 = std::fs::read_to_string("/sys/devices/system/cpu/cpu0/cache/index2/size").ok();
    let l2_kb = l2.and_then(|t| t.trim().trim_end_matches('K').parse::<usize>().ok());
    DeviceProps {
        kind: DeviceKind::Cpu,
        name: proc_value("/proc/cpuinfo", "model name").unwrap_or_else(|| std::env::consts::ARCH.to_string()),
        sm: 0,
        n_sm: n_threads() as u32,
        max_threads_per_block: 1,
        max_smem_per_block: 0,
        max_grid: [1; 3],
        l2_bytes: l2_kb.unwrap_or(1024) << 10,
        memory_bytes: meminfo_bytes("MemTotal").unwrap_or(0),
        clock_khz: 0,
        uuid: [0; 16],
        driver_version: 0,
    }
}

fn layout(bytes: usize) -> Result<Layout> {
    bytes
        .checked_add(ALLOC_ALIGN)
        .and_then(|n| Layout::from_size_align(n, ALLOC_ALIGN).ok())
        .ok_or_else(|| err!(OutOfMemory, "cannot allocate {bytes} bytes of host memory: the size is beyond the address space"))
}

impl Device for CpuDevice {
    fn props(&self) -> &DeviceProps {
        &self.props
    }

    fn alloc(&self, bytes: usize) -> Result<u64> {
        // One aligned unit in front keeps the size for `free`, and makes the address of 0 bytes unique.
        // SAFETY: the layout is never empty; the size is written inside of the allocation.
        unsafe {
            let base = std::alloc::alloc(layout(bytes)?);
            if base.is_null() {
                return Err(err!(OutOfMemory, "cannot allocate {bytes} bytes of host memory"));
            }
            base.cast::<usize>().write(bytes);
            Ok(base.add(ALLOC_ALIGN) as u64)
        }
    }

    unsafe fn free(&self, ptr: u64) {
        if ptr == 0 {
            return;
        }
        // SAFETY: `ptr` came from `alloc` (the caller's promise), so its size stands one unit in front of it.
        unsafe {
            let base = (ptr as *mut u8).sub(ALLOC_ALIGN);
            let bytes = base.cast::<usize>().read();
            std::alloc::dealloc(base, Layout::from_size_align_unchecked(bytes + ALLOC_ALIGN, ALLOC_ALIGN));
        }
    }

    fn memory_info(&self) -> Result<(usize, usize)> {
        let total = self.props.memory_bytes;
        Ok((meminfo_bytes("MemAvailable").unwrap_or(total), total))
    }

    unsafe fn copy(&self, dst: u64, src: u64, bytes: usize, _kind: CopyKind, stream: RawStream) -> Result<()> {
        // SAFETY: the caller's promise.
        unsafe { self.push(stream, Job::Copy { dst, src, bytes }) }
    }

    unsafe fn fill(&self, dst: u64, value: u8, bytes: usize, stream: RawStream) -> Result<()> {
        // SAFETY: the caller's promise.
        unsafe { self.push(stream, Job::Fill { dst, value, bytes }) }
    }

    fn stream_create(&self) -> Result<RawStream> {
        Ok(stream::new_stream_handle(Stream::start()?))
    }

    unsafe fn stream_destroy(&self, stream: RawStream) -> Result<()> {
        // SAFETY: the caller's promise.
        unsafe { stream::take_stream(stream) }?.finish();
        Ok(())
    }

    unsafe fn stream_synchronize(&self, stream: RawStream) -> Result<()> {
        if stream.is_null() {
            return Ok(());
        }
        // SAFETY: the caller's promise.
        unsafe { stream::stream_of(stream) }?.synchronize()
    }

    unsafe fn stream_wait_event(&self, stream: RawStream, event: RawEvent) -> Result<()> {
        // SAFETY: the caller's promise.
        let event = unsafe { stream::event_of(event) }?;
        let turn = event.last_record();
        // SAFETY: the caller's promise.
        unsafe { self.push(stream, Job::Wait(event, turn)) }
    }

    fn event_create(&self, timing: bool) -> Result<RawEvent> {
        Ok(stream::new_event_handle(Event::new(timing)))
    }

    unsafe fn event_destroy(&self, event: RawEvent) -> Result<()> {
        // SAFETY: the caller's promise. Queued records and waits hold the event itself and stay sound.
        unsafe { stream::take_event(event) }.map(|_| ())
    }

    unsafe fn event_record(&self, event: RawEvent, stream: RawStream) -> Result<()> {
        // SAFETY: the caller's promise.
        let event = unsafe { stream::event_of(event) }?;
        if stream.is_null() {
            event.reach(event.next_record(), None);
            return Ok(());
        }
        // SAFETY: the caller's promise.
        let stream = unsafe { stream::stream_of(stream) }?;
        let turn = event.next_record();
        stream.push(Job::Record(event, turn));
        Ok(())
    }

    unsafe fn event_synchronize(&self, event: RawEvent) -> Result<()> {
        // SAFETY: the caller's promise.
        unsafe { stream::event_of(event) }?.synchronize()
    }

    unsafe fn event_query(&self, event: RawEvent) -> Result<bool> {
        // SAFETY: the caller's promise.
        Ok(unsafe { stream::event_of(event) }?.is_reached())
    }

    unsafe fn event_elapsed_ms(&self, start: RawEvent, end: RawEvent) -> Result<f32> {
        // SAFETY: the caller's promise.
        let (start, end) = unsafe { (stream::event_of(start)?, stream::event_of(end)?) };
        let (a, b) = (start.time()?, end.time()?);
        let ms = if b >= a { (b - a).as_secs_f64() } else { -(a - b).as_secs_f64() } * 1e3;
        Ok(ms as f32)
    }
}
