//! The builder and its configuration: from a network to an engine.

use super::device::SinterDevice;
use super::engine::SinterEngine;
use super::guard::guard;
use super::handle::{self, Handle};
use super::memory::{Bytes, SinterHostMemory};
use super::network::SinterNetwork;
use super::profile::SinterProfile;
use super::status::SinterStatus;
use crate::autotune::CacheUse;
use crate::base::Result;
use crate::builder::{self, BuilderConfig};
use crate::device::DeviceRef;
use crate::engine::EngineImage;
use crate::ops::TacticSource;
use crate::{ensure, err};
use std::ffi::{CString, c_char, c_void};

/// Builds engines for one device.
pub struct SinterBuilder {
    _opaque: (),
}

/// What the builder may do: precisions, profiles, tactic sources, progress.
pub struct SinterBuilderConfig {
    _opaque: (),
}

impl Handle for SinterBuilder {
    const MAGIC: &'static [u8; 8] = b"SntrBuil";
    type Content = DeviceRef;
}

#[derive(Default)]
pub(super) struct Config {
    pub(super) rust: BuilderConfig,
    progress: Option<(ProgressFn, *mut c_void)>,
    no_timing_cache: bool,
}

// SAFETY: the application's pointer is only passed on to its callback, on the thread that builds.
unsafe impl Send for Config {}
// SAFETY: as above; shared use only reads.
unsafe impl Sync for Config {}

impl Handle for SinterBuilderConfig {
    const MAGIC: &'static [u8; 8] = b"SntrConf";
    type Content = Config;
}

/// Switches of a build; all are off at first.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SinterBuilderFlag(pub i32);

impl SinterBuilderFlag {
    /// A network in float32 may be computed in float16 on a GPU, with sums in float32.
    pub const FP16: Self = Self(0);
    /// Products of float32 may use TF32 on a GPU.
    pub const TF32: Self = Self(1);
    /// Times of earlier builds are neither used nor kept.
    pub const NO_TIMING_CACHE: Self = Self(2);
}

type ProgressFn = unsafe extern "C" fn(userdata: *mut c_void, stage: *const c_char, done: f32) -> i32;

/// Hears how a build goes on: the stage's name (valid during the call) and how much is done, 0 to 1. Returns 1 to go
/// on and 0 to cancel. It is called on the thread that builds and must not use the builder or the config.
pub type SinterProgressCallback =
    Option<unsafe extern "C" fn(userdata: *mut c_void, stage: *const c_char, done: f32) -> i32>;

/// Makes a config with everything at its default.
///
/// Params: config_out (out).
/// Owns: on success the caller owns the new handle and destroys it; it keeps alive what it was made from.
/// Result: OK and the handle; on failure the handle output is NULL.
/// Status: OK; INVALID_ARGUMENT for NULL.
/// Thread: any, also several at once on one handle.
/// Stream: puts nothing on a stream; all is done when it returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinter_builder_config_create(config_out: *mut *mut SinterBuilderConfig) -> SinterStatus {
    guard("sinter_builder_config_create", || {
        handle::out_handle(config_out, "config_out")?.give(Config::default());
        Ok(())
    })
}

/// Destroys a config.
///
/// Params: config (in) or NULL, which does nothing.
/// Owns: the handle is gone; the progress callback is not called any more.
/// Result: OK; on failure nothing has changed.
/// Status: OK; INVALID_ARGUMENT for a wrong or destroyed handle; INVALID_STATE while another call uses it.
/// Thread: any, one at a time on the receiver.
/// Stream: puts nothing on a stream; all is done when it returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinter_builder_config_destroy(config: *mut SinterBuilderConfig) -> SinterStatus {
    guard("sinter_builder_config_destroy", || handle::destroy(config, "config"))
}

/// Turns a switch on or off.
///
/// Params: config (in/out); flag (in); on (in) 1 or 0.
/// Owns: nothing changes hands; memory that is passed in is read or copied before the call returns.
/// Result: OK; on failure no output is written and nothing has changed.
/// Status: OK, the errors of handles and arguments.
/// Thread: any, one at a time on the receiver.
/// Stream: puts nothing on a stream; all is done when it returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinter_builder_config_set_flag(
    config: *mut SinterBuilderConfig,
    flag: SinterBuilderFlag,
    on: i32,
) -> SinterStatus {
    guard("sinter_builder_config_set_flag", || {
        let mut c = handle::exclusive(config, "config")?;
        ensure!(on == 0 || on == 1, InvalidArgument, "on is {on}, expected 0 or 1");
        *flag_of(&mut c, flag)? = on == 1;
        Ok(())
    })
}

/// Asks whether a switch is on.
///
/// Params: config (in); flag (in); on_out (out) 1 or 0.
/// Owns: nothing changes hands; memory that is passed in is read or copied before the call returns.
/// Result: OK; on failure no output is written and nothing has changed.
/// Status: OK, the errors of handles and arguments.
/// Thread: any, also several at once on one handle.
/// Stream: puts nothing on a stream; all is done when it returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinter_builder_config_get_flag(
    config: *const SinterBuilderConfig,
    flag: SinterBuilderFlag,
    on_out: *mut i32,
) -> SinterStatus {
    guard("sinter_builder_config_get_flag", || {
        let out = handle::out(on_out, "on_out")?;
        let c = handle::shared(config, "config")?;
        let mut copy = Config { rust: c.rust.clone(), progress: None, no_timing_cache: c.no_timing_cache };
        out.set(*flag_of(&mut copy, flag)? as i32);
        Ok(())
    })
}

fn flag_of(c: &mut Config, flag: SinterBuilderFlag) -> Result<&mut bool> {
    match flag {
        SinterBuilderFlag::FP16 => Ok(&mut c.rust.options.fp16),
        SinterBuilderFlag::TF32 => Ok(&mut c.rust.options.tf32),
        SinterBuilderFlag::NO_TIMING_CACHE => Ok(&mut c.no_timing_cache),
        SinterBuilderFlag(n) => Err(err!(InvalidArgument, "builder flag {n} is none of 0 to 2")),
    }
}

/// Adds an optimization profile; the first gets index 0. Without one, inputs of dynamic shape accept any shape and
/// kernels are chosen for size 1.
///
/// Params: config (in/out); profile (in); index_out (out) may be NULL.
/// Owns: nothing changes hands; the profile is copied as it is now.
/// Result: OK; whether the ranges fit the network is checked when building.
/// Status: OK, the errors of handles and arguments.
/// Thread: any, one at a time on the receiver.
/// Stream: puts nothing on a stream; all is done when it returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinter_builder_config_add_profile(
    config: *mut SinterBuilderConfig,
    profile: *const SinterProfile,
    index_out: *mut usize,
) -> SinterStatus {
    guard("sinter_builder_config_add_profile", || {
        let mut c = handle::exclusive(config, "config")?;
        let p = handle::shared(profile, "profile")?;
        if !index_out.is_null() {
            handle::out(index_out, "index_out")?.set(c.rust.profiles.len());
        }
        c.rust.profiles.push(p.clone());
        Ok(())
    })
}

/// Leaves a source of kernels out of the choice.
///
/// Params: config (in/out); source (in) "kernels" (Sinter's own), "cublaslt", "cpu" or "reference".
/// Owns: nothing changes hands; memory that is passed in is read or copied before the call returns.
/// Result: OK; on failure no output is written and nothing has changed.
/// Status: OK, the errors of handles and arguments; NOT_FOUND for another name.
/// Thread: any, one at a time on the receiver.
/// Stream: puts nothing on a stream; all is done when it returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinter_builder_config_exclude_tactic_source(
    config: *mut SinterBuilderConfig,
    source: *const c_char,
) -> SinterStatus {
    guard("sinter_builder_config_exclude_tactic_source", || {
        let mut c = handle::exclusive(config, "config")?;
        let name = handle::text(source, "source")?;
        let known: Vec<&str> = TacticSource::ALL.iter().map(|s| s.name()).collect();
        ensure!(known.contains(&name), NotFound, "there is no tactic source {name:?}; there are {}", known.join(", "));
        let list = &mut c.rust.options.excluded_sources;
        if !list.iter().any(|s| s == name) {
            list.push(name.to_string());
        }
        Ok(())
    })
}

/// Sets who hears how a build goes on, and may cancel it.
///
/// Params: config (in/out); callback (in) or NULL for none; userdata (in) passed to it, may be NULL.
/// Owns: userdata stays the caller's and is used while builds with this config run.
/// Result: OK; on failure no output is written and nothing has changed.
/// Status: OK, the errors of handles and arguments.
/// Thread: any, one at a time on the receiver.
/// Stream: puts nothing on a stream; all is done when it returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinter_builder_config_set_progress(
    config: *mut SinterBuilderConfig,
    callback: SinterProgressCallback,
    userdata: *mut c_void,
) -> SinterStatus {
    guard("sinter_builder_config_set_progress", || {
        handle::exclusive(config, "config")?.progress = callback.map(|f| (f, userdata));
        Ok(())
    })
}

/// Makes a builder for a device.
///
/// Params: device (in); builder_out (out).
/// Owns: on success the caller owns the new handle and destroys it; it keeps alive what it was made from.
/// Result: OK and the handle; on failure the handle output is NULL.
/// Status: OK, the errors of handles and arguments.
/// Thread: any, also several at once on one handle.
/// Stream: puts nothing on a stream; all is done when it returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinter_builder_create(
    device: *const SinterDevice,
    builder_out: *mut *mut SinterBuilder,
) -> SinterStatus {
    guard("sinter_builder_create", || {
        let out = handle::out_handle(builder_out, "builder_out")?;
        out.give(handle::shared(device, "device")?.device.clone());
        Ok(())
    })
}

/// Destroys a builder.
///
/// Params: builder (in) or NULL, which does nothing.
/// Owns: the handle is gone; what it built stays.
/// Result: OK; on failure nothing has changed.
/// Status: OK; INVALID_ARGUMENT for a wrong or destroyed handle; INVALID_STATE while another call uses it.
/// Thread: any, one at a time on the receiver.
/// Stream: puts nothing on a stream; all is done when it returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinter_builder_destroy(builder: *mut SinterBuilder) -> SinterStatus {
    guard("sinter_builder_destroy", || handle::destroy(builder, "builder"))
}

/// Builds a network into the bytes of an engine, which are an engine file too.
///
/// Params: builder (in/out); network (in) with at least one output; config (in) or NULL for the defaults; engine_out
/// (out).
/// Owns: on success the caller owns the new handle and destroys it; it keeps alive what it was made from.
/// Result: OK and the handle; on failure the handle output is NULL.
/// Status: OK, the errors of handles and arguments; INVALID_CONFIG when profiles do not fit the network; UNSUPPORTED
/// for what the device cannot do; CANCELLED when the progress callback said so; CUDA, OUT_OF_MEMORY or NOT_FOUND (no
/// NVRTC) on a GPU.
/// Thread: any, one at a time on the receiver.
/// Stream: synchronous; on a GPU kernels are timed on streams of the library's own.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinter_builder_build(
    builder: *mut SinterBuilder,
    network: *const SinterNetwork,
    config: *const SinterBuilderConfig,
    engine_out: *mut *mut SinterHostMemory,
) -> SinterStatus {
    guard("sinter_builder_build", || {
        let out = handle::out_handle(engine_out, "engine_out")?;
        let (image, _) = build(builder, network, config)?;
        out.give(Bytes::new(image.to_bytes()?));
        Ok(())
    })
}

/// Builds a network into an engine that is ready to run on the builder's device.
///
/// Params: builder (in/out); network (in) with at least one output; config (in) or NULL for the defaults; engine_out
/// (out).
/// Owns: on success the caller owns the new handle and destroys it; it keeps alive what it was made from.
/// Result: OK and the handle; on failure the handle output is NULL.
/// Status: OK, the errors of handles and arguments; as for sinter_builder_build.
/// Thread: any, one at a time on the receiver.
/// Stream: synchronous; on a GPU kernels are timed on streams of the library's own.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinter_builder_build_engine(
    builder: *mut SinterBuilder,
    network: *const SinterNetwork,
    config: *const SinterBuilderConfig,
    engine_out: *mut *mut SinterEngine,
) -> SinterStatus {
    guard("sinter_builder_build_engine", || {
        let out = handle::out_handle(engine_out, "engine_out")?;
        let (image, device) = build(builder, network, config)?;
        let engine = crate::engine::Engine::load(image, &device, crate::engine::OtherDevice::Error)?;
        out.give(super::engine::LoadedEngine::new(engine)?);
        Ok(())
    })
}

fn build(
    builder: *mut SinterBuilder,
    network: *const SinterNetwork,
    config: *const SinterBuilderConfig,
) -> Result<(EngineImage, DeviceRef)> {
    let device = handle::exclusive(builder, "builder")?;
    let net = handle::shared(network, "network")?;
    let config = handle::shared_opt(config, "config")?;
    let default = Config::default();
    let c = config.as_deref().unwrap_or(&default);
    let mut progress = |stage: &str, done: f32| match c.progress {
        None => true,
        Some((f, userdata)) => {
            let stage = CString::new(stage.replace('\0', "\\0")).unwrap_or_default();
            // SAFETY: the application's function, called as its type says.
            unsafe { f(userdata, stage.as_ptr(), done) != 0 }
        }
    };
    let mut config = c.rust.clone();
    if c.no_timing_cache {
        config.tuning.cache = CacheUse::Off;
    }
    let image = builder::build(&net.graph, &config, &device, &mut progress)?;
    Ok((image, device.clone()))
}
