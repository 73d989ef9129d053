//! Timing caches: what builds measured, to be kept, merged, looked at and changed.

use super::guard::guard;
use super::handle::{self, Handle};
use super::memory::{Bytes, SinterHostMemory};
use super::status::SinterStatus;
use crate::autotune::cache::{Conflict, Timed, TimingCache};
use crate::base::Result;
use crate::{ensure, err};
use std::ffi::c_void;
use std::sync::Arc;

/// Times of tactics by problem, for sinter_builder_config_set_timing_cache. The first build that uses a cache binds it to
/// its device, the driver and the library's version. A build to which every problem is known times nothing, and gives the
/// same engine again.
pub struct SinterTimingCache {
    _opaque: (),
}

impl Handle for SinterTimingCache {
    const MAGIC: &'static [u8; 8] = b"SntrTime";
    type Content = Arc<TimingCache>;
}

/// Name of a problem in a timing cache: a hash of its operator, types, shapes and the options of the build.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct SinterTimingKey {
    pub bytes: [u8; 16],
}

/// Which entry stays when two timing caches know one problem.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SinterTimingConflict(pub i32);

impl SinterTimingConflict {
    /// The one that is there.
    pub const KEEP: Self = Self(0);
    /// The one that comes.
    pub const REPLACE: Self = Self(1);
    /// The one whose time is less.
    pub const FASTER: Self = Self(2);

    fn rust(self) -> Result<Conflict> {
        match self {
            Self::KEEP => Ok(Conflict::Keep),
            Self::REPLACE => Ok(Conflict::Replace),
            Self::FASTER => Ok(Conflict::Faster),
            Self(k) => Err(err!(InvalidArgument, "timing conflict {k} is none of 0 to 2")),
        }
    }
}

/// Makes a timing cache from what sinter_timing_cache_serialize gave, or an empty one.
///
/// Params: data (in) may be NULL when size is 0; size (in) bytes, 0 for an empty cache; cache_out (out).
/// Owns: on success the caller owns the new handle and destroys it; it keeps alive what it was made from.
/// Result: OK and the handle; on failure the handle output is NULL.
/// Status: OK, the errors of handles and arguments; PARSE for bytes of another kind; CORRUPT_DATA for damaged ones.
/// Thread: any, also several at once on one handle.
/// Stream: puts nothing on a stream; all is done when it returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinter_timing_cache_create(
    data: *const c_void,
    size: usize,
    cache_out: *mut *mut SinterTimingCache,
) -> SinterStatus {
    guard("sinter_timing_cache_create", || {
        let out = handle::out_handle(cache_out, "cache_out")?;
        let bytes = handle::slice(data.cast::<u8>(), size, "data")?;
        out.give(Arc::new(TimingCache::from_bytes(bytes)?));
        Ok(())
    })
}

/// Destroys a timing cache.
///
/// Params: cache (in) or NULL, which does nothing.
/// Owns: the handle is gone; configs that it was given to keep the cache itself.
/// Result: OK; on failure nothing has changed.
/// Status: OK; INVALID_ARGUMENT for a wrong or destroyed handle; INVALID_STATE while another call uses it.
/// Thread: any, one at a time on the receiver.
/// Stream: puts nothing on a stream; all is done when it returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinter_timing_cache_destroy(cache: *mut SinterTimingCache) -> SinterStatus {
    guard("sinter_timing_cache_destroy", || handle::destroy(cache, "cache"))
}

/// Everything in a timing cache as bytes. The same content gives the same bytes.
///
/// Params: cache (in); memory_out (out).
/// Owns: on success the caller owns the new handle and destroys it; it keeps alive what it was made from.
/// Result: OK and the handle; on failure the handle output is NULL.
/// Status: OK, the errors of handles and arguments.
/// Thread: any, also several at once on one handle.
/// Stream: puts nothing on a stream; all is done when it returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinter_timing_cache_serialize(
    cache: *const SinterTimingCache,
    memory_out: *mut *mut SinterHostMemory,
) -> SinterStatus {
    guard("sinter_timing_cache_serialize", || {
        let out = handle::out_handle(memory_out, "memory_out")?;
        out.give(Bytes::new(handle::shared(cache, "cache")?.to_bytes()));
        Ok(())
    })
}

/// Takes over the entries of another timing cache.
///
/// Params: cache (in/out); other (in) may be the same; conflict (in); ignore_mismatch (in) 1 to take over times of another
/// device or version, else 0; changed_out (out) number of entries that are new or changed, or NULL.
/// Owns: nothing changes hands; entries are copied.
/// Result: OK; on failure no output is written and nothing has changed.
/// Status: OK, the errors of handles and arguments; VERSION_MISMATCH when the caches are bound to different things.
/// Thread: any, also several at once on one handle.
/// Stream: puts nothing on a stream; all is done when it returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinter_timing_cache_combine(
    cache: *mut SinterTimingCache,
    other: *const SinterTimingCache,
    conflict: SinterTimingConflict,
    ignore_mismatch: i32,
    changed_out: *mut usize,
) -> SinterStatus {
    guard("sinter_timing_cache_combine", || {
        let c = handle::shared(cache, "cache")?;
        let o = handle::shared(other, "other")?;
        let conflict = conflict.rust()?;
        let ignore = switch(ignore_mismatch, "ignore_mismatch")?;
        let out = if changed_out.is_null() { None } else { Some(handle::out(changed_out, "changed_out")?) };
        let n = c.combine(&o, conflict, ignore)?;
        if let Some(out) = out {
            out.set(n);
        }
        Ok(())
    })
}

/// 0 or 1.
pub(super) fn switch(v: i32, arg: &str) -> Result<bool> {
    ensure!(v == 0 || v == 1, InvalidArgument, "{arg} is {v}, expected 0 or 1");
    Ok(v == 1)
}

/// Forgets every entry, and what the cache is bound to.
///
/// Params: cache (in/out).
/// Owns: nothing changes hands.
/// Result: OK; on failure nothing has changed.
/// Status: OK, the errors of handles and arguments.
/// Thread: any, also several at once on one handle.
/// Stream: puts nothing on a stream; all is done when it returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinter_timing_cache_reset(cache: *mut SinterTimingCache) -> SinterStatus {
    guard("sinter_timing_cache_reset", || {
        handle::shared(cache, "cache")?.reset();
        Ok(())
    })
}

/// The keys of all entries, sorted.
///
/// Params: cache (in); keys (out) or NULL, to ask for the number alone; capacity (in) elements of keys, 0 with NULL;
/// count_out (out) number of entries, or NULL.
/// Owns: nothing changes hands; the keys are copied.
/// Result: OK; on failure no output is written and nothing has changed.
/// Status: OK, the errors of handles and arguments; INVALID_ARGUMENT when there is not room for all.
/// Thread: any, also several at once on one handle.
/// Stream: puts nothing on a stream; all is done when it returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinter_timing_cache_get_keys(
    cache: *const SinterTimingCache,
    keys: *mut SinterTimingKey,
    capacity: usize,
    count_out: *mut usize,
) -> SinterStatus {
    guard("sinter_timing_cache_get_keys", || {
        let list: Vec<SinterTimingKey> =
            handle::shared(cache, "cache")?.keys().into_iter().map(|bytes| SinterTimingKey { bytes }).collect();
        handle::write_list(keys, capacity, count_out, &list, "keys")
    })
}

/// The tactic that builds choose for a problem, and its time.
///
/// Params: cache (in); key (in); tactic_out (out) hash of the tactic; milliseconds_out (out).
/// Owns: nothing changes hands.
/// Result: OK; on failure no output is written and nothing has changed.
/// Status: OK, the errors of handles and arguments; NOT_FOUND when there is no such entry.
/// Thread: any, also several at once on one handle.
/// Stream: puts nothing on a stream; all is done when it returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinter_timing_cache_query(
    cache: *const SinterTimingCache,
    key: *const SinterTimingKey,
    tactic_out: *mut u64,
    milliseconds_out: *mut f32,
) -> SinterStatus {
    guard("sinter_timing_cache_query", || {
        let c = handle::shared(cache, "cache")?;
        let key = handle::slice(key, 1, "key")?[0];
        let (tactic, ms) = (handle::out(tactic_out, "tactic_out")?, handle::out(milliseconds_out, "milliseconds_out")?);
        let found = c.query(&key.bytes);
        let found = found.ok_or_else(|| err!(NotFound, "the timing cache has no entry for {}", key_text(&key)))?;
        tactic.set(found.tactic);
        ms.set(found.ms);
        Ok(())
    })
}

/// Makes a tactic the choice for a problem; a time that is not a number deletes the entry instead. A build that does not
/// have the tactic among its candidates times the problem anew.
///
/// Params: cache (in/out); key (in); tactic (in) hash of the tactic, as sinter_timing_cache_query gives it; milliseconds
/// (in).
/// Owns: nothing changes hands.
/// Result: OK; on failure nothing has changed.
/// Status: OK, the errors of handles and arguments; NOT_FOUND when there is nothing to delete.
/// Thread: any, also several at once on one handle.
/// Stream: puts nothing on a stream; all is done when it returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinter_timing_cache_update(
    cache: *mut SinterTimingCache,
    key: *const SinterTimingKey,
    tactic: u64,
    milliseconds: f32,
) -> SinterStatus {
    guard("sinter_timing_cache_update", || {
        let c = handle::shared(cache, "cache")?;
        let key = handle::slice(key, 1, "key")?[0];
        let done = c.update(&key.bytes, Timed { tactic, ms: milliseconds })?;
        ensure!(done, NotFound, "the timing cache has no entry for {}", key_text(&key));
        Ok(())
    })
}

fn key_text(key: &SinterTimingKey) -> String {
    crate::device::cuda::kernel_cache::hex(&key.bytes)
}
