//! Which kernel for which node: candidates from the operators, compiled in parallel, timed on the device.
//!
//! Nodes with the same problem share one measurement. On the null device, and where only one candidate is left, the
//! operator's own order decides.

pub mod measure;
pub mod rank;

use crate::base::dims::Bindings;
use crate::base::{Error, ErrorCode, Result};
use crate::device::DeviceRef;
use crate::device::cuda::{cublaslt, kernel_cache};
use crate::engine::{BuildOptions, KernelImage, distinct_kernels};
use crate::network::{Graph, NodeId};
use crate::ops::{KernelSpec, Problem, Tactic, TacticOptions, TacticSource};
use crate::plan::{host_set, problem_of};
use crate::runtime::kernels::LoadedKernels;
use crate::{ensure, err, internal, log_info, log_verbose};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// Candidates of one node that are compiled and timed.
pub const MAX_CANDIDATES: usize = 6;

/// The tactic of each device node, and the kernels that they launch.
#[derive(Default)]
pub struct Choices {
    pub tactics: HashMap<NodeId, Tactic>,
    pub kernels: Vec<KernelImage>,
}

struct Group {
    nodes: Vec<NodeId>,
    problem: Problem,
    candidates: Vec<Tactic>,
}

/// Chooses a tactic for every node that runs on the device.
pub fn select(
    graph: &Graph,
    options: &BuildOptions,
    opt: &Bindings,
    device: &DeviceRef,
    progress: &mut dyn FnMut(&str, f32) -> bool,
) -> Result<Choices> {
    let mut groups = enumerate(graph, options, opt, device)?;
    let specs = distinct_kernels(groups.iter().flat_map(|g| &g.candidates));
    ensure!(progress("compiling kernels", 0.2), Cancelled, "the build was cancelled");
    let compiled = compile(&specs, device)?;
    drop_uncompiled(graph, &mut groups, &compiled)?;
    ensure!(progress("timing kernels", 0.6), Cancelled, "the build was cancelled");
    let images: HashMap<KernelSpec, KernelImage> =
        compiled.into_iter().filter_map(|(s, r)| r.ok().map(|image| (s, image))).collect();
    let chosen = match device {
        DeviceRef::Cuda(cuda) => {
            let all: Vec<KernelImage> = images.values().cloned().collect();
            let kernels = LoadedKernels::load_images(device, &all)?;
            let mut out = Vec::new();
            for (i, g) in groups.iter().enumerate() {
                let done = 0.6 + 0.4 * i as f32 / groups.len().max(1) as f32;
                ensure!(progress("timing kernels", done), Cancelled, "the build was cancelled");
                out.push(measure::fastest(cuda, graph.node(g.nodes[0]), &g.problem, &g.candidates, &kernels)?);
            }
            out
        }
        _ => vec![0; groups.len()],
    };
    let mut choices = Choices::default();
    for (g, k) in groups.into_iter().zip(chosen) {
        for n in g.nodes {
            choices.tactics.insert(n, g.candidates[k].clone());
        }
    }
    let order: Vec<&Tactic> = graph.order()?.iter().filter_map(|n| choices.tactics.get(n)).collect();
    for s in distinct_kernels(order) {
        let image = images.get(&s).ok_or_else(|| internal!("kernel {} was not compiled", s.file))?;
        choices.kernels.push(image.clone());
    }
    Ok(choices)
}

/// Device nodes with their candidates; equal problems together.
fn enumerate(graph: &Graph, options: &BuildOptions, opt: &Bindings, device: &DeviceRef) -> Result<Vec<Group>> {
    let host = host_set(graph, opt)?;
    let excluded: HashSet<&str> = options.excluded_sources.iter().map(|s| s.as_str()).collect();
    let library = matches!(device, DeviceRef::Cuda(_)) && !excluded.contains(TacticSource::CublasLt.name());
    let cublaslt = library && cublaslt::is_present().is_ok();
    let mut groups: Vec<Group> = Vec::new();
    let mut by_key: HashMap<String, usize> = HashMap::new();
    let mut refused: Vec<Error> = Vec::new();
    for n in graph.order()? {
        let node = graph.node(n);
        if host.nodes.contains(&n) || node.op.def().is_view() {
            continue;
        }
        let problem = problem_of(graph, n, opt)?;
        let values = node.inputs.iter().flatten().chain(&node.outputs);
        let dynamic = values.into_iter().any(|v| !graph.fact(*v).shape.is_concrete());
        let key = key_of(node, &problem, dynamic);
        if let Some(&g) = by_key.get(&key) {
            groups[g].nodes.push(n);
            continue;
        }
        let opts = TacticOptions { tf32: options.tf32, cublaslt, dynamic };
        let mut candidates = node.op.def().cuda_tactics(&problem, device.props(), &opts);
        candidates.retain(|t| !excluded.contains(t.source.name()));
        candidates.truncate(MAX_CANDIDATES);
        if candidates.is_empty() {
            let ins: Vec<String> =
                problem.inputs.iter().map(|d| d.as_ref().map_or("-".into(), |d| d.to_string())).collect();
            let what = format!("node {:?} ({}) with inputs {}", node.name, node.op.name(), ins.join(", "));
            if excluded.contains(TacticSource::Reference.name()) {
                refused.push(err!(Unsupported, "{what} has no CUDA kernel"));
                continue;
            }
            log_info!("{what} has no CUDA kernel: it runs on the host, with copies there and back");
            candidates.push(Tactic::on_host());
        }
        by_key.insert(key, groups.len());
        groups.push(Group { nodes: vec![n], problem, candidates });
    }
    match refused.len() {
        0 => Ok(groups),
        1 => Err(refused.remove(0)),
        k => {
            let lines: Vec<String> = refused.iter().take(100).map(|e| format!("\n  {e}")).collect();
            Err(Error::new(ErrorCode::Unsupported, format!("{k} nodes cannot run on CUDA:{}", lines.concat())))
        }
    }
}

/// Text that is equal for nodes with the same problem. Known host values count; weights do not.
fn key_of(node: &crate::network::Node, p: &Problem, dynamic: bool) -> String {
    use std::fmt::Write;
    let mut key = format!("{} {} {dynamic}", node.op.name(), node.op.attrs());
    for d in &p.inputs {
        let _ = match d {
            Some(d) => write!(key, " {d}"),
            None => write!(key, " -"),
        };
    }
    for i in node.op.def().host_inputs() {
        if let Some(t) = p.known(i) {
            let _ = write!(key, " {i}={:?}", t.bytes());
        }
    }
    key
}

type Compiled = Vec<(KernelSpec, Result<KernelImage>)>;

fn compile(specs: &[KernelSpec], device: &DeviceRef) -> Result<Compiled> {
    let image = |s: &KernelSpec, entry: &str, bytes: Vec<u8>| KernelImage {
        spec: s.clone(),
        entry: entry.to_string(),
        cubin: Arc::new(bytes),
    };
    if let DeviceRef::Null(_) = device {
        // Nothing is launched there; the images only carry the specs.
        return Ok(specs.iter().map(|s| (s.clone(), Ok(image(s, "null", Vec::new())))).collect());
    }
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
    let start = std::time::Instant::now();
    let out = kernel_cache::compile_each(specs, &kernel_cache::arch_of(device.props().sm), threads);
    log_info!("{} kernels compiled or found in {:.2} s", specs.len(), start.elapsed().as_secs_f64());
    Ok(specs.iter().zip(out).map(|(s, r)| (s.clone(), r.map(|c| image(s, &c.entry, c.bytes.clone())))).collect())
}

/// Leaves out candidates whose kernels did not compile; a node without any left fails with the compiler's words.
fn drop_uncompiled(graph: &Graph, groups: &mut [Group], compiled: &Compiled) -> Result<()> {
    let failed: HashMap<&KernelSpec, &Error> =
        compiled.iter().filter_map(|(s, r)| r.as_ref().err().map(|e| (s, e))).collect();
    for g in groups {
        let name = &graph.node(g.nodes[0]).name;
        let mut why = None;
        g.candidates.retain(|t| match t.kernels.iter().find_map(|k| failed.get(k)) {
            None => true,
            Some(e) => {
                log_verbose!("tactic {} of {name:?} is left out: {e}", t.name);
                why = Some((*e).clone());
                false
            }
        });
        if g.candidates.is_empty() {
            let e = why.unwrap_or_else(|| internal!("no candidates"));
            return Err(e.context(format!("no tactic of node {name:?} could be compiled")));
        }
    }
    Ok(())
}

