//! From options to an engine that is ready: chooses the device, imports and builds or loads, saves.

use crate::console::{info, plain};
use crate::options::Options;
use crate::progress::Progress;
use crate::shapes;
use crate::test_data::{self, DataSet};
use sinter::autotune::cache::TimingCache;
use sinter::autotune::{CacheUse, Tuning};
use sinter::base::{Dim, Result, Shape};
use sinter::base::error::ResultExt;
use sinter::builder::{self, BuilderConfig};
use sinter::device::cuda::CudaDevice;
use sinter::device::{DeviceKind, DeviceProps, DeviceRef};
use sinter::engine::{BuildOptions, Engine, OtherDevice};
use sinter::onnx::importer::import_file;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

/// Bytes in MiB.
pub fn mib(bytes: usize) -> String {
    format!("{:.3} MiB", bytes as f64 / (1 << 20) as f64)
}

/// Opens the device that was asked for, or the best one, and says which and why.
pub fn choose_device(o: &Options) -> Result<DeviceRef> {
    let (device, why) = match o.device {
        Some(kind) => (DeviceRef::open(kind).with_context(|| format!("--device={kind}"))?, "as --device says".to_string()),
        None => match CudaDevice::open(0) {
            Ok(d) => (DeviceRef::Cuda(d), "the first CUDA device; --device chooses another".to_string()),
            Err(e) => (DeviceRef::open(DeviceKind::Cpu)?, format!("no CUDA device can be used: {e}")),
        },
    };
    let props = device.props();
    info!("=== Device Information ===");
    if props.is_cuda() {
        info!("Available Devices:");
        for p in CudaDevice::list() {
            info!("  {}: {}", p.kind, p.name);
        }
        info!("  cpu");
    }
    info!("Selected Device: {} ({})", props.kind, props.name);
    info!("Why: {why}");
    describe(props);
    info!("Sinter version: {}", env!("CARGO_PKG_VERSION"));
    Ok(device)
}

fn describe(p: &DeviceProps) {
    if !p.is_cuda() {
        info!("Threads: {}", p.n_sm);
        info!("Memory: {:.1} GiB", p.memory_bytes as f64 / (1u64 << 30) as f64);
        return;
    }
    let uuid: String = p.uuid.iter().map(|b| format!("{b:02x}")).collect();
    info!("Device UUID: GPU-{uuid}");
    info!("Compute Capability: {}.{}", p.sm / 10, p.sm % 10);
    info!("SMs: {}", p.n_sm);
    info!("Device Global Memory: {} MiB", p.memory_bytes >> 20);
    info!("Shared Memory per Block: {} KiB", p.max_smem_per_block >> 10);
    if p.clock_khz > 0 {
        info!("Application Compute Clock Rate: {:.3} GHz", p.clock_khz as f64 / 1e6);
    }
    info!("CUDA driver version: {}.{}", p.driver_version / 1000, p.driver_version % 1000 / 10);
}

/// Builds or loads the engine, prints what it is, and saves it when asked.
pub fn engine(o: &Options, device: &DeviceRef, sets: &[DataSet]) -> Result<Arc<Engine>> {
    let engine = match (&o.onnx, &o.load_engine) {
        (Some(path), _) => from_onnx(o, path, device, sets)?,
        (None, Some(path)) => from_file(path, device)?,
        (None, None) => return Err(sinter::internal!("no model, and the options were accepted")),
    };
    describe_engine(&engine);
    if let Some(path) = &o.save_engine {
        save(&engine, path)?;
    }
    Ok(engine)
}

fn from_onnx(o: &Options, path: &Path, device: &DeviceRef, sets: &[DataSet]) -> Result<Arc<Engine>> {
    info!("Start parsing network model.");
    let start = Instant::now();
    let graph = import_file(path)?;
    info!("Finished parsing network model. Parse time: {:.4} s", start.elapsed().as_secs_f64());
    let data = sets.iter().map(|s| test_data::input_shapes(s, &graph)).collect::<Result<Vec<_>>>()?;
    let profile = shapes::profile(o, &graph, &data)?;
    let options = build_options(o);
    let (tuning, cache) = tuning(o)?;
    let precision = match (o.fp16, o.tf32) {
        (true, _) => "f32 and f16",
        (false, true) => "f32, TF32 in products",
        (false, false) => "f32, TF32 off",
    };
    info!("Precision: {precision}; types that the network itself uses stay");
    let config = BuilderConfig { options, profiles: vec![profile], tuning };
    let start = Instant::now();
    let mut progress = Progress::new();
    let engine = builder::build_engine(&graph, &config, device, &mut |stage, done| {
        progress.step(stage, done);
        true
    })?;
    drop(progress);
    info!("Engine built in {:.4} s.", start.elapsed().as_secs_f64());
    if let (Some(path), Some(cache)) = (&o.timing_cache, cache) {
        cache.write_file(path)?;
        info!("Timing cache of {} entries saved to {}", cache.len(), path.display());
    }
    Ok(engine)
}

fn build_options(o: &Options) -> BuildOptions {
    let default = BuildOptions::default();
    BuildOptions {
        fp16: o.fp16,
        tf32: o.tf32,
        excluded_sources: o.excluded_sources.clone(),
        level: o.level.unwrap_or(default.level),
        workspace: o.workspace.unwrap_or(default.workspace),
    }
}

/// How kernels are chosen, and the cache that came from a file of the user's.
fn tuning(o: &Options) -> Result<(Tuning, Option<Arc<TimingCache>>)> {
    let mut t = Tuning::default();
    t.min_timing = o.min_timing.unwrap_or(t.min_timing);
    t.avg_timing = o.avg_timing.unwrap_or(t.avg_timing);
    t.max_threads = o.max_threads.unwrap_or(t.max_threads);
    if o.no_timing_cache {
        t.cache = CacheUse::Off;
    }
    let Some(path) = &o.timing_cache else { return Ok((t, None)) };
    let cache = Arc::new(match TimingCache::read_file(path)? {
        Some(c) => {
            info!("Loaded {} entries of timing cache from {}", c.len(), path.display());
            c
        }
        None => {
            info!("Timing cache file {} does not exist yet; it will be written", path.display());
            TimingCache::new()
        }
    });
    t.cache = CacheUse::Given { cache: cache.clone(), ignore_mismatch: false };
    Ok((t, Some(cache)))
}

/// When an engine file was opened.
static OPENED: OnceLock<Instant> = OnceLock::new();

/// Seconds since an engine file was opened; the first call only.
pub fn seconds_since_load() -> Option<f64> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    let at = OPENED.get()?;
    (!TAKEN.swap(true, Ordering::Relaxed)).then(|| at.elapsed().as_secs_f64())
}

fn from_file(path: &Path, device: &DeviceRef) -> Result<Arc<Engine>> {
    let start = *OPENED.get_or_init(Instant::now);
    let image = Engine::image_from_file(path)?;
    let bytes = std::fs::metadata(path).map_or(0, |m| m.len() as usize);
    info!("Engine loaded in {:.4} s.", start.elapsed().as_secs_f64());
    info!("Loaded engine with size: {} ({})", mib(bytes), path.display());
    info!("It was built on {}{}", image.built_on, if image.options.fp16 { ", f16 allowed" } else { "" });
    if device.props().is_cuda() && !image.plan.as_ref().is_some_and(|p| p.runs_on(device.props())) {
        info!("It has no plan for this device and is planned again; --saveEngine keeps the result");
    }
    let start = Instant::now();
    let engine = Engine::load(image, device, OtherDevice::Replan).with_context(|| format!("engine file {}", path.display()))?;
    info!("Engine deserialized in {:.4} s.", start.elapsed().as_secs_f64());
    Ok(engine)
}

fn describe_engine(engine: &Engine) {
    info!("Engine: {} layers, weights {}", engine.plan.steps.len(), mib(engine.weight_bytes()));
    let profile = engine.profiles().first();
    for t in engine.io_tensors() {
        let kind = if t.is_input { "Input" } else { "Output" };
        let mut range = String::new();
        if t.is_input
            && !t.shape.is_concrete()
            && let Some(r) = profile.and_then(|p| p.inputs.get(&t.name))
        {
            range = format!(", min {}, opt {}, max {}", shapes::text(&r.min), shapes::text(&r.opt), shapes::text(&r.max));
        }
        info!("  {kind} {}: {} {}{range}", t.name, t.dtype, shape_text(&t.shape));
    }
}

/// A declared shape; a dimension that is a long formula is a question mark.
fn shape_text(shape: &Shape) -> String {
    let one = |d: &Dim| Some(d.to_string()).filter(|t| t.len() <= 24).unwrap_or("?".into());
    if shape.rank() == 0 { "scalar".into() } else { format!("[{}]", shape.iter().map(one).collect::<Vec<_>>().join(", ")) }
}

/// Writes beside the target and renames: an engine that is mapped by a running program stays whole.
fn save(engine: &Engine, path: &Path) -> Result<()> {
    let bytes = engine.to_bytes()?;
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".{}.part", std::process::id()));
    let part = path.with_file_name(name);
    let written = std::fs::write(&part, &bytes).and_then(|()| std::fs::rename(&part, path));
    if written.is_err() {
        let _ = std::fs::remove_file(&part);
    }
    written.with_context(|| format!("writing engine file {}", path.display()))?;
    info!("Created engine with size: {} (saved to {})", mib(bytes.len()), path.display());
    Ok(())
}

/// An empty line between parts of the output.
pub fn gap() {
    plain!("");
}
