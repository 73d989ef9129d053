//! What a builder config says about the choice of kernels: effort, times of earlier builds, limits.

use super::builder::SinterBuilderConfig;
use super::guard::guard;
use super::handle;
use super::status::SinterStatus;
use super::timing_cache::{SinterTimingCache, switch};
use crate::autotune::CacheUse;
use crate::base::Result;
use crate::ops::TacticSource;
use crate::{ensure, err};

/// Memory that a build may be limited in.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SinterMemoryPool(pub i32);

impl SinterMemoryPool {
    /// Scratch memory of one layer. A kernel that asks for more is not chosen.
    pub const WORKSPACE: Self = Self(0);
}

/// Where kernels come from.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SinterTacticSource(pub i32);

impl SinterTacticSource {
    /// Sinter's own kernels.
    pub const KERNELS: Self = Self(0);
    /// The library cuBLASLt, where it is found.
    pub const CUBLASLT: Self = Self(1);
    /// Sinter's kernels for the CPU.
    pub const CPU: Self = Self(2);
    /// The operators' definitions, computed on the host.
    pub const REFERENCE: Self = Self(3);

    fn rust(self) -> Result<TacticSource> {
        match self {
            Self::KERNELS => Ok(TacticSource::Kernels),
            Self::CUBLASLT => Ok(TacticSource::CublasLt),
            Self::CPU => Ok(TacticSource::Cpu),
            Self::REFERENCE => Ok(TacticSource::Reference),
            Self(n) => Err(err!(InvalidArgument, "tactic source {n} is none of 0 to 3")),
        }
    }
}

/// Sets how much of a build's time may go into the choice of kernels. 0 takes the first kernel that fits and times
/// nothing; 1 and 2 time a few; 3, the default, a list of the most promising; 4 and 5 all of them.
///
/// Params: config (in/out); level (in) 0 to 5; more counts as 5.
/// Owns: nothing changes hands.
/// Result: OK; on failure nothing has changed.
/// Status: OK, the errors of handles and arguments.
/// Thread: any, one at a time on the receiver.
/// Stream: puts nothing on a stream; all is done when it returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinter_builder_config_set_optimization_level(
    config: *mut SinterBuilderConfig,
    level: i32,
) -> SinterStatus {
    guard("sinter_builder_config_set_optimization_level", || {
        let mut c = handle::exclusive(config, "config")?;
        ensure!(level >= 0, InvalidArgument, "optimization level {level} is less than 0");
        c.rust.options.level = level.min(5) as u8;
        Ok(())
    })
}

/// The optimization level.
///
/// Params: config (in); level_out (out).
/// Owns: nothing changes hands.
/// Result: OK; on failure no output is written and nothing has changed.
/// Status: OK, the errors of handles and arguments.
/// Thread: any, also several at once on one handle.
/// Stream: puts nothing on a stream; all is done when it returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinter_builder_config_get_optimization_level(
    config: *const SinterBuilderConfig,
    level_out: *mut i32,
) -> SinterStatus {
    guard("sinter_builder_config_get_optimization_level", || {
        let out = handle::out(level_out, "level_out")?;
        out.set(handle::shared(config, "config")?.rust.options.level as i32);
        Ok(())
    })
}

/// Sets how often a kernel is timed. Its time is the median of minimum * average measurements, each of many runs.
///
/// Params: config (in/out); minimum (in) at least 1, 1 by default; average (in) at least 1, 4 by default.
/// Owns: nothing changes hands.
/// Result: OK; on failure nothing has changed.
/// Status: OK, the errors of handles and arguments.
/// Thread: any, one at a time on the receiver.
/// Stream: puts nothing on a stream; all is done when it returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinter_builder_config_set_timing_iterations(
    config: *mut SinterBuilderConfig,
    minimum: i32,
    average: i32,
) -> SinterStatus {
    guard("sinter_builder_config_set_timing_iterations", || {
        let mut c = handle::exclusive(config, "config")?;
        ensure!(minimum >= 1 && average >= 1, InvalidArgument, "timing iterations {minimum} and {average}: both are at least 1");
        (c.rust.tuning.min_timing, c.rust.tuning.avg_timing) = (minimum as u32, average as u32);
        Ok(())
    })
}

/// How often a kernel is timed.
///
/// Params: config (in); minimum_out (out); average_out (out).
/// Owns: nothing changes hands.
/// Result: OK; on failure no output is written and nothing has changed.
/// Status: OK, the errors of handles and arguments.
/// Thread: any, also several at once on one handle.
/// Stream: puts nothing on a stream; all is done when it returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinter_builder_config_get_timing_iterations(
    config: *const SinterBuilderConfig,
    minimum_out: *mut i32,
    average_out: *mut i32,
) -> SinterStatus {
    guard("sinter_builder_config_get_timing_iterations", || {
        let (minimum, average) = (handle::out(minimum_out, "minimum_out")?, handle::out(average_out, "average_out")?);
        let c = handle::shared(config, "config")?;
        minimum.set(c.rust.tuning.min_timing as i32);
        average.set(c.rust.tuning.avg_timing as i32);
        Ok(())
    })
}

/// Sets how many threads compile kernels.
///
/// Params: config (in/out); n_threads (in) 0, the default, for as many as there are cores.
/// Owns: nothing changes hands.
/// Result: OK; on failure nothing has changed.
/// Status: OK, the errors of handles and arguments.
/// Thread: any, one at a time on the receiver.
/// Stream: puts nothing on a stream; all is done when it returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinter_builder_config_set_max_threads(
    config: *mut SinterBuilderConfig,
    n_threads: usize,
) -> SinterStatus {
    guard("sinter_builder_config_set_max_threads", || {
        handle::exclusive(config, "config")?.rust.tuning.max_threads = n_threads;
        Ok(())
    })
}

/// How many threads compile kernels; 0 for as many as there are cores.
///
/// Params: config (in); n_threads_out (out).
/// Owns: nothing changes hands.
/// Result: OK; on failure no output is written and nothing has changed.
/// Status: OK, the errors of handles and arguments.
/// Thread: any, also several at once on one handle.
/// Stream: puts nothing on a stream; all is done when it returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinter_builder_config_get_max_threads(
    config: *const SinterBuilderConfig,
    n_threads_out: *mut usize,
) -> SinterStatus {
    guard("sinter_builder_config_get_max_threads", || {
        let out = handle::out(n_threads_out, "n_threads_out")?;
        out.set(handle::shared(config, "config")?.rust.tuning.max_threads);
        Ok(())
    })
}

/// Limits memory that a build may plan with.
///
/// Params: config (in/out); pool (in); bytes (in) UINT64_MAX, the default, for no limit.
/// Owns: nothing changes hands.
/// Result: OK; whether some kernel works within the limit is seen when building.
/// Status: OK, the errors of handles and arguments.
/// Thread: any, one at a time on the receiver.
/// Stream: puts nothing on a stream; all is done when it returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinter_builder_config_set_memory_pool_limit(
    config: *mut SinterBuilderConfig,
    pool: SinterMemoryPool,
    bytes: u64,
) -> SinterStatus {
    guard("sinter_builder_config_set_memory_pool_limit", || {
        let mut c = handle::exclusive(config, "config")?;
        known(pool)?;
        c.rust.options.workspace = bytes;
        Ok(())
    })
}

/// A limit of memory.
///
/// Params: config (in); pool (in); bytes_out (out) UINT64_MAX for no limit.
/// Owns: nothing changes hands.
/// Result: OK; on failure no output is written and nothing has changed.
/// Status: OK, the errors of handles and arguments.
/// Thread: any, also several at once on one handle.
/// Stream: puts nothing on a stream; all is done when it returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinter_builder_config_get_memory_pool_limit(
    config: *const SinterBuilderConfig,
    pool: SinterMemoryPool,
    bytes_out: *mut u64,
) -> SinterStatus {
    guard("sinter_builder_config_get_memory_pool_limit", || {
        let out = handle::out(bytes_out, "bytes_out")?;
        known(pool)?;
        out.set(handle::shared(config, "config")?.rust.options.workspace);
        Ok(())
    })
}

fn known(pool: SinterMemoryPool) -> Result<()> {
    match pool {
        SinterMemoryPool::WORKSPACE => Ok(()),
        SinterMemoryPool(n) => Err(err!(InvalidArgument, "memory pool {n} is not 0")),
    }
}

/// Lets kernels of a source be chosen, or leaves them out. All sources are in at first.
///
/// Params: config (in/out); source (in); on (in) 1 or 0.
/// Owns: nothing changes hands.
/// Result: OK; on failure nothing has changed.
/// Status: OK, the errors of handles and arguments.
/// Thread: any, one at a time on the receiver.
/// Stream: puts nothing on a stream; all is done when it returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinter_builder_config_set_tactic_source(
    config: *mut SinterBuilderConfig,
    source: SinterTacticSource,
    on: i32,
) -> SinterStatus {
    guard("sinter_builder_config_set_tactic_source", || {
        let mut c = handle::exclusive(config, "config")?;
        let (name, on) = (source.rust()?.name(), switch(on, "on")?);
        let list = &mut c.rust.options.excluded_sources;
        list.retain(|s| s != name);
        if !on {
            list.push(name.to_string());
        }
        Ok(())
    })
}

/// Asks whether kernels of a source may be chosen.
///
/// Params: config (in); source (in); on_out (out) 1 or 0.
/// Owns: nothing changes hands.
/// Result: OK; on failure no output is written and nothing has changed.
/// Status: OK, the errors of handles and arguments.
/// Thread: any, also several at once on one handle.
/// Stream: puts nothing on a stream; all is done when it returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinter_builder_config_get_tactic_source(
    config: *const SinterBuilderConfig,
    source: SinterTacticSource,
    on_out: *mut i32,
) -> SinterStatus {
    guard("sinter_builder_config_get_tactic_source", || {
        let out = handle::out(on_out, "on_out")?;
        let c = handle::shared(config, "config")?;
        let name = source.rust()?.name();
        out.set(!c.rust.options.excluded_sources.iter().any(|e| e == name) as i32);
        Ok(())
    })
}

/// Sets the timing cache that builds read and add to. Without one they use a file beside the compiled kernels, unless the
/// flag NO_TIMING_CACHE is set, which wins over a cache too.
///
/// Params: config (in/out); cache (in) or NULL for the file; ignore_mismatch (in) 1 to believe times of another device,
/// driver or version, else 0: then a build with such a cache fails with VERSION_MISMATCH.
/// Owns: nothing changes hands; config and builds share the cache, and the handle may be destroyed before them.
/// Result: OK; on failure nothing has changed.
/// Status: OK, the errors of handles and arguments.
/// Thread: any, one at a time on the receiver.
/// Stream: puts nothing on a stream; all is done when it returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinter_builder_config_set_timing_cache(
    config: *mut SinterBuilderConfig,
    cache: *const SinterTimingCache,
    ignore_mismatch: i32,
) -> SinterStatus {
    guard("sinter_builder_config_set_timing_cache", || {
        let mut c = handle::exclusive(config, "config")?;
        let ignore_mismatch = switch(ignore_mismatch, "ignore_mismatch")?;
        c.rust.tuning.cache = match handle::shared_opt(cache, "cache")? {
            Some(cache) => CacheUse::Given { cache: cache.clone(), ignore_mismatch },
            None => CacheUse::File,
        };
        Ok(())
    })
}
