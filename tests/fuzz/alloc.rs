//! An allocator that counts live bytes, so that a case's growth is known and bounded.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};

/// See the module's text.
pub struct Counting;

/// A case that takes more than this is ended at once, with the whole process: memory is the machine's.
const HARD_LIMIT: usize = 4 << 30;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);
/// Live bytes when the case began; `usize::MAX` between cases.
static FLOOR: AtomicUsize = AtomicUsize::new(usize::MAX);
static LIMIT: AtomicUsize = AtomicUsize::new(HARD_LIMIT);
static SEED: AtomicU64 = AtomicU64::new(0);

/// Begins a case; a single one that is repeated ends with a trace as soon as it passes `allowance`.
pub fn start(seed: u64, alone: bool, allowance: usize) {
    SEED.store(seed, SeqCst);
    LIMIT.store(if alone { allowance } else { HARD_LIMIT }, SeqCst);
    let live = LIVE.load(SeqCst);
    PEAK.store(live, SeqCst);
    FLOOR.store(live, SeqCst);
}

/// Ends a case: by how many bytes the heap had grown at most.
pub fn stop() -> usize {
    let floor = FLOOR.swap(usize::MAX, SeqCst);
    PEAK.load(SeqCst).saturating_sub(floor)
}

fn add(bytes: usize) {
    let live = LIVE.fetch_add(bytes, SeqCst).wrapping_add(bytes);
    let before = PEAK.fetch_max(live, SeqCst);
    let floor = FLOOR.load(SeqCst);
    if live > before && floor != usize::MAX && live.saturating_sub(floor) > LIMIT.load(SeqCst) {
        FLOOR.store(usize::MAX, SeqCst);
        let trace = std::backtrace::Backtrace::force_capture();
        eprintln!("MEMORY: the case of seed {} asks for {bytes} bytes, {live} in all\n{trace}", SEED.load(SeqCst));
        std::process::abort();
    }
}

fn sub(bytes: usize) {
    LIVE.fetch_sub(bytes, SeqCst);
}

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        add(layout.size());
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        add(layout.size());
        // SAFETY: the caller's promise.
        unsafe { System.alloc_zeroed(layout) }
    }
    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        sub(layout.size());
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(ptr, layout) }
    }
    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        add(size);
        sub(layout.size());
        // SAFETY: the caller's promise.
        unsafe { System.realloc(ptr, layout, size) }
    }
}
