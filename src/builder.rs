//! Building: from a network to an engine image, one call a stage.

use crate::autotune::{self, Tuning};
use crate::base::dims::Bindings;
use crate::base::{Result, knobs};
use crate::device::{DeviceKind, DeviceProps, DeviceRef};
use crate::engine::{BuildOptions, DevicePlan, Engine, EngineImage, OtherDevice};
use crate::network::Graph;
use crate::passes::{self, PassOptions, Target};
use crate::plan::{Plan, Profile};
use crate::{bail, ensure, log_info, log_warn};
use std::sync::Arc;
use std::time::Instant;

/// Called with the name of a stage and how much of the build is done (0 to 1); false cancels the build.
pub type Progress<'a> = dyn FnMut(&str, f32) -> bool + 'a;

/// What to build for.
#[derive(Clone, Debug, Default)]
pub struct BuilderConfig {
    pub options: BuildOptions,
    /// Ranges of dynamic shapes; none means one open profile.
    pub profiles: Vec<Profile>,
    /// How kernels are chosen.
    pub tuning: Tuning,
}

/// Builds an engine for a device.
pub fn build(
    graph: &Graph,
    config: &BuilderConfig,
    device: &DeviceRef,
    progress: &mut Progress<'_>,
) -> Result<EngineImage> {
    let start = Instant::now();
    let mut stage = |name: &str, done: f32| -> Result<()> {
        log_info!("{name} ({:.0} ms)", start.elapsed().as_secs_f64() * 1e3);
        ensure!(progress(name, done), Cancelled, "the build was cancelled during stage {name:?}");
        Ok(())
    };
    stage("verifying the network", 0.0)?;
    ensure!(!graph.outputs().is_empty(), InvalidArgument, "the network has no outputs: mark at least one");
    graph.verify()?;
    dump("network", graph);
    let profiles = complete_profiles(graph, &config.profiles)?;
    stage("rewriting the graph", 0.1)?;
    let mut portable = graph.clone();
    let report = passes::run_portable(&mut portable, &pass_options(&config.options, Target::Portable))?;
    log_info!("portable passes:\n{report}");
    dump("passes", &portable);
    let mut image = EngineImage {
        name: graph.name.clone(),
        options: config.options.clone(),
        profiles,
        built_on: device.props().name.clone(),
        graph: portable,
        plan: None,
    };
    if device.props().is_cuda() {
        image.plan = Some(plan_for_device(&image, &config.tuning, device, &mut |name, done| stage(name, 0.2 + 0.7 * done).is_ok())?);
    } else {
        // Planning proves that the network runs; the plan itself is made again when the engine is loaded.
        let opt = image.profiles[0].bindings(&image.graph, 1)?;
        let plan = Plan::new(lower(&image.graph, &image.options, device.props(), &opt)?, &opt, &mut std::iter::empty())?;
        dump("plan", &plan);
        if config.options.fp16 {
            log_info!("the CPU computes in f32; f16 stays allowed when the engine is loaded on a GPU");
        }
    }
    stage("done", 1.0)?;
    Ok(image)
}

/// Builds and makes the engine ready on the same device.
pub fn build_engine(
    graph: &Graph,
    config: &BuilderConfig,
    device: &DeviceRef,
    progress: &mut Progress<'_>,
) -> Result<Arc<Engine>> {
    Engine::load(build(graph, config, device, progress)?, device, OtherDevice::Error)
}

/// The portable graph rewritten for one device.
pub fn lower(graph: &Graph, options: &BuildOptions, props: &DeviceProps, opt: &Bindings) -> Result<Graph> {
    let target = match props.kind {
        DeviceKind::Cpu => Target::Cpu,
        _ => Target::Cuda { sm: props.sm },
    };
    let mut lowered = graph.clone();
    let mut pass_options = pass_options(options, target);
    if pass_options.fp16 && props.is_cuda() {
        pass_options.fp16 = autotune::rank::half_pays(graph, opt, props)?;
    }
    let report = passes::run_target(&mut lowered, &pass_options)?;
    log_info!("target passes:\n{report}");
    dump("lowered", &lowered);
    Ok(lowered)
}

/// Lowers, chooses tactics and compiles kernels for a CUDA (or null) device.
pub fn plan_for_device(
    image: &EngineImage,
    tuning: &Tuning,
    device: &DeviceRef,
    progress: &mut Progress<'_>,
) -> Result<DevicePlan> {
    let opt = image.profiles[0].bindings(&image.graph, 1)?;
    let graph = lower(&image.graph, &image.options, device.props(), &opt)?;
    if !progress("choosing kernels", 0.1) {
        bail!(Cancelled, "the build was cancelled");
    }
    let choices = autotune::select(&graph, &image.options, tuning, &opt, device, progress)?;
    let plan = Plan::new(graph.clone(), &opt, &mut choices.tactics.iter().cloned())?;
    dump("plan", &plan);
    Ok(DevicePlan {
        sm: device.props().sm,
        device_name: device.props().name.clone(),
        graph,
        tactics: choices.tactics,
        kernels: choices.kernels,
        choices: choices.choices,
    })
}

fn complete_profiles(graph: &Graph, given: &[Profile]) -> Result<Vec<Profile>> {
    let none = [Profile::default()];
    let list = if given.is_empty() { &none } else { given };
    let mut out = Vec::new();
    for (i, p) in list.iter().enumerate() {
        let (p, open) = p.complete(graph).map_err(|e| e.context(format!("profile {i}")))?;
        if !open.is_empty() {
            log_warn!(
                "profile {i}: no range for dynamic input {}; any shape is accepted and kernels are chosen for size 1",
                open.join(", ")
            );
        }
        out.push(p);
    }
    Ok(out)
}

fn pass_options(options: &BuildOptions, target: Target) -> PassOptions {
    let mut o = PassOptions::new(target);
    o.fp16 = options.fp16;
    o
}

/// Prints a stage when `SINTER_DUMP` names it.
fn dump(stage: &str, what: &dyn std::fmt::Display) {
    let Some(list) = knobs::DUMP.get() else { return };
    if !list.split(',').any(|s| s == stage || s == "all") {
        return;
    }
    match knobs::DUMP_DIR.get() {
        None => eprintln!("---- {stage} ----\n{what}"),
        Some(dir) => {
            let path = std::path::Path::new(&dir).join(format!("{stage}.txt"));
            if let Err(e) = std::fs::create_dir_all(&dir).and_then(|()| std::fs::write(&path, what.to_string())) {
                log_warn!("cannot write dump {}: {e}", path.display());
            }
        }
    }
}
