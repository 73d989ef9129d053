//! Scratch memory of a core: growing, aligned buffers of each thread, kept between calls.
//!
//! A buffer is taken off its thread's list while it is in use, because a core may call another core, and a thread of the
//! pool that waits inside a core may run another task meanwhile (work stealing).

use std::cell::RefCell;

/// One cache line of floats: what the buffers are aligned to.
#[repr(C, align(64))]
#[derive(Clone, Copy)]
struct Line([f32; 16]);

/// An aligned buffer of floats that only grows.
#[derive(Default)]
pub(crate) struct AlignedVec {
    lines: Vec<Line>,
    len: usize,
}

impl AlignedVec {
    pub(crate) fn zeroed(len: usize) -> Self {
        let mut v = AlignedVec::default();
        v.grow(len);
        v
    }

    /// Makes it at least `len` floats long; old contents are kept, new ones are 0.
    pub(crate) fn grow(&mut self, len: usize) {
        let n = len.div_ceil(16);
        if self.lines.len() < n {
            self.lines.resize(n, Line([0.0; 16]));
        }
        self.len = self.lines.len() * 16;
    }

    pub(crate) fn as_slice(&self) -> &[f32] {
        // SAFETY: a line is 16 floats and nothing else; `len` is 16 per line.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.len) }
    }

    pub(crate) fn as_mut_slice(&mut self) -> &mut [f32] {
        // SAFETY: as above, and borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.len) }
    }
}

impl std::fmt::Debug for AlignedVec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "AlignedVec({})", self.len)
    }
}

thread_local! {
    /// Free buffers of this thread; a core that calls another one takes the next.
    static FREE: RefCell<Vec<AlignedVec>> = const { RefCell::new(Vec::new()) };
}

/// Calls `f` with a buffer of at least `len` floats, whose contents are whatever the last user left.
pub(crate) fn with_scratch<R>(len: usize, f: impl FnOnce(&mut [f32]) -> R) -> R {
    let mut buffer = FREE.with(|s| s.borrow_mut().pop()).unwrap_or_default();
    buffer.grow(len);
    let result = f(&mut buffer.as_mut_slice()[..len]);
    FREE.with(|s| s.borrow_mut().push(buffer));
    result
}

/// Calls `f` with a buffer of at least `len` bytes, aligned to 64.
pub(crate) fn with_bytes<R>(len: usize, f: impl FnOnce(&mut [u8]) -> R) -> R {
    with_scratch(len.div_ceil(4), |v| {
        // SAFETY: the floats are this many bytes, borrowed mutably, and any byte is a legal part of a float.
        f(unsafe { std::slice::from_raw_parts_mut(v.as_mut_ptr().cast(), 4 * v.len()) })
    })
}
