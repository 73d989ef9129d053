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
use crate::network::{Graph, Node, NodeId, ValueId};
use crate::ops::{KernelSpec, Problem, Tactic, TacticOptions, TacticSource};
use crate::plan::host::wanted_of;
use crate::plan::{host_set, problem_of};
use crate::runtime::kernels::LoadedKernels;
use crate::{ensure, err, internal, log_info, log_verbose};
use std::collections::{HashMap, HashSet};

/// The tactic of each device node, and the kernels that they launch.
#[derive(Default)]
pub struct Choices {
    /// In the order of `Graph::visit`; `None` for nodes that need none.
    pub tactics: Vec<Option<Tactic>>,
    pub kernels: Vec<KernelImage>,
}

struct Group {
    /// Numbers of the nodes in the order of `Graph::visit`.
    nodes: Vec<usize>,
    node: Node,
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
    let (mut groups, n_nodes) = enumerate(graph, options, opt, device)?;
    let specs = distinct_kernels(groups.iter().flat_map(|g| &g.candidates));
    ensure!(progress("compiling kernels", 0.2), Cancelled, "the build was cancelled");
    let compiled = compile(&specs, device)?;
    drop_uncompiled(&mut groups, &compiled)?;
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
                out.push(measure::fastest(cuda, &g.node, &g.problem, &g.candidates, &kernels)?);
            }
            out
        }
        _ => vec![0; groups.len()],
    };
    let mut choices = Choices { tactics: vec![None; n_nodes], ..Choices::default() };
    for (g, k) in groups.into_iter().zip(chosen) {
        for n in g.nodes {
            choices.tactics[n] = Some(g.candidates[k].clone());
        }
    }
    for s in distinct_kernels(choices.tactics.iter().flatten()) {
        let image = images.get(&s).ok_or_else(|| internal!("kernel {} was not compiled", s.file))?;
        choices.kernels.push(image.clone());
    }
    Ok(choices)
}

/// Walks over a graph and those inside of its nodes, and gathers problems.
struct Enumerator<'a> {
    opt: &'a Bindings,
    device: &'a DeviceRef,
    tf32: bool,
    cublaslt: bool,
    level: u8,
    excluded: HashSet<&'a str>,
    groups: Vec<Group>,
    by_key: HashMap<String, usize>,
    refused: Vec<Error>,
    n_nodes: usize,
}

/// Device nodes with their candidates, equal problems together, and the number of all nodes.
fn enumerate(graph: &Graph, options: &BuildOptions, opt: &Bindings, device: &DeviceRef) -> Result<(Vec<Group>, usize)> {
    let excluded: HashSet<&str> = options.excluded_sources.iter().map(|s| s.as_str()).collect();
    let library = matches!(device, DeviceRef::Cuda(_)) && !excluded.contains(TacticSource::CublasLt.name());
    let mut e = Enumerator {
        opt,
        device,
        tf32: options.tf32,
        cublaslt: library && cublaslt::is_present().is_ok(),
        level: options.level,
        excluded,
        groups: Vec::new(),
        by_key: HashMap::new(),
        refused: Vec::new(),
        n_nodes: 0,
    };
    e.graph(graph, &[])?;
    match e.refused.len() {
        0 => Ok((e.groups, e.n_nodes)),
        1 => Err(e.refused.remove(0)),
        k => {
            let lines: Vec<String> = e.refused.iter().take(100).map(|e| format!("\n  {e}")).collect();
            Err(Error::new(ErrorCode::Unsupported, format!("{k} nodes cannot run on CUDA:{}", lines.concat())))
        }
    }
}

impl Enumerator<'_> {
    fn graph(&mut self, graph: &Graph, wanted: &[ValueId]) -> Result<()> {
        let host = host_set(graph, self.opt, wanted)?;
        for n in graph.order()? {
            let node = graph.node(n);
            let number = self.n_nodes;
            self.n_nodes += 1;
            let bodies = node.op.def().bodies();
            for body in &bodies {
                self.graph(body, &wanted_of(&node.op, body))?;
            }
            if bodies.is_empty() && !host.nodes.contains(&n) && !node.op.def().is_view() {
                self.node(graph, n, number)?;
            }
        }
        Ok(())
    }

    fn node(&mut self, graph: &Graph, n: NodeId, number: usize) -> Result<()> {
        let node = graph.node(n);
        let problem = problem_of(graph, n, self.opt)?;
        let values = node.inputs.iter().flatten().chain(&node.outputs);
        let dynamic = values.into_iter().any(|v| !graph.fact(*v).shape.is_concrete());
        let key = key_of(node, &problem, dynamic);
        if let Some(&g) = self.by_key.get(&key) {
            self.groups[g].nodes.push(number);
            return Ok(());
        }
        let opts = TacticOptions { tf32: self.tf32, cublaslt: self.cublaslt, dynamic, level: self.level };
        let mut candidates = node.op.def().cuda_tactics(&problem, self.device.props(), &opts);
        candidates.retain(|t| !self.excluded.contains(t.source.name()));
        candidates.truncate(opts.max_candidates());
        if candidates.is_empty() {
            let ins: Vec<String> =
                problem.inputs.iter().map(|d| d.as_ref().map_or("-".into(), |d| d.to_string())).collect();
            let what = format!("node {:?} ({}) with inputs {}", node.name, node.op.name(), ins.join(", "));
            if self.excluded.contains(TacticSource::Reference.name()) {
                self.refused.push(err!(Unsupported, "{what} has no CUDA kernel"));
                return Ok(());
            }
            log_info!("{what} has no CUDA kernel: it runs on the host, with copies there and back");
            candidates.push(Tactic::on_host());
        }
        self.by_key.insert(key, self.groups.len());
        self.groups.push(Group { nodes: vec![number], node: node.clone(), problem, candidates });
        Ok(())
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
    if let DeviceRef::Null(_) = device {
        // Nothing is launched there; the images only carry the specs.
        return Ok(specs.iter().map(|s| (s.clone(), Ok(KernelImage::new(s, "null", Vec::new())))).collect());
    }
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
    let start = std::time::Instant::now();
    let out = kernel_cache::compile_each(specs, &kernel_cache::arch_of(device.props().sm), threads);
    log_info!("{} kernels compiled or found in {:.2} s", specs.len(), start.elapsed().as_secs_f64());
    Ok(specs.iter().zip(out).map(|(s, r)| (s.clone(), r.map(|c| KernelImage::new(s, &c.entry, c.bytes.clone())))).collect())
}

/// Leaves out candidates whose kernels did not compile; a node without any left fails with the compiler's words.
fn drop_uncompiled(groups: &mut [Group], compiled: &Compiled) -> Result<()> {
    let failed: HashMap<&KernelSpec, &Error> =
        compiled.iter().filter_map(|(s, r)| r.as_ref().err().map(|e| (s, e))).collect();
    for g in groups {
        let name = &g.node.name;
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

