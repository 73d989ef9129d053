//! What there is to choose: the device nodes of a graph and of those inside of its nodes, equal problems together, with
//! the candidates that the operators offer.

use super::cache::{Key, key_of_text};
use crate::base::dims::Bindings;
use crate::base::{Error, ErrorCode, Result, knobs};
use crate::device::DeviceRef;
use crate::device::cuda::cublaslt;
use crate::engine::BuildOptions;
use crate::network::{Graph, Node, NodeId, ValueId};
use crate::ops::{Problem, Tactic, TacticOptions, TacticSource};
use crate::plan::host::wanted_of;
use crate::plan::{host_set, problem_of};
use crate::{err, log_info};
use std::collections::{HashMap, HashSet};

/// Nodes with one problem.
pub struct Group {
    /// Numbers of the nodes in the order of `Graph::visit`.
    pub nodes: Vec<usize>,
    /// The first of them.
    pub node: Node,
    pub problem: Problem,
    /// Best first, by the operator's ranking.
    pub candidates: Vec<Tactic>,
    /// The problem as text.
    text: String,
}

/// All groups, and what they have in common.
pub struct Groups {
    pub list: Vec<Group>,
    /// Number of all nodes, those of the host too.
    pub n_nodes: usize,
    /// An inference touches so much that a layer's weights are not in the L2 cache when it starts.
    pub cold_weights: bool,
    options: String,
}

impl Groups {
    /// The key of a group in a timing cache.
    pub fn key(&self, g: &Group) -> Key {
        key_of_text(&format!("sinter timing 1\n{}\ncold {}\n{}", self.options, self.cold_weights, g.text))
    }
}

/// Gathers the groups. Nodes without a kernel run on the host, unless that is excluded: then all of them are named in the
/// error.
pub fn groups(graph: &Graph, options: &BuildOptions, opt: &Bindings, device: &DeviceRef) -> Result<Groups> {
    let excluded: HashSet<&str> = options.excluded_sources.iter().map(|s| s.as_str()).collect();
    let library = matches!(device, DeviceRef::Cuda(_)) && !excluded.contains(TacticSource::CublasLt.name());
    let mut e = Enumerator {
        opt,
        device,
        tactics: TacticOptions {
            tf32: options.tf32,
            cublaslt: library && cublaslt::is_present().is_ok(),
            level: options.level,
            ..TacticOptions::default()
        },
        excluded,
        groups: Vec::new(),
        by_text: HashMap::new(),
        refused: Vec::new(),
        n_nodes: 0,
        touched: 0,
        weights: HashSet::new(),
    };
    e.graph(graph, &[])?;
    match e.refused.len() {
        0 => {}
        1 => return Err(e.refused.remove(0)),
        k => {
            let lines: Vec<String> = e.refused.iter().take(100).map(|e| format!("\n  {e}")).collect();
            return Err(Error::new(ErrorCode::Unsupported, format!("{k} nodes cannot run on CUDA:{}", lines.concat())));
        }
    }
    let mut excluded: Vec<&str> = e.excluded.iter().copied().collect();
    excluded.sort_unstable();
    let common = format!(
        "level {} tf32 {} cublaslt {} scratch {} without {} overlap {}",
        options.level,
        options.tf32,
        e.tactics.cublaslt,
        options.workspace,
        excluded.join(","),
        knobs::OVERLAP.get().unwrap_or_default()
    );
    let cold_weights = e.touched > device.props().l2_bytes / 2;
    Ok(Groups { list: e.groups, n_nodes: e.n_nodes, cold_weights, options: common })
}

struct Enumerator<'a> {
    opt: &'a Bindings,
    device: &'a DeviceRef,
    tactics: TacticOptions,
    excluded: HashSet<&'a str>,
    groups: Vec<Group>,
    by_text: HashMap<String, usize>,
    refused: Vec<Error>,
    n_nodes: usize,
    /// Bytes of weights and results, each once.
    touched: usize,
    /// Weights that are counted, by address.
    weights: HashSet<usize>,
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
        for t in problem.known.iter().flatten() {
            if self.weights.insert(t.bytes().as_ptr() as usize) {
                self.touched = self.touched.saturating_add(t.bytes().len());
            }
        }
        self.touched = problem.outputs.iter().fold(self.touched, |sum, d| sum.saturating_add(d.bytes()));
        let values = node.inputs.iter().flatten().chain(&node.outputs);
        let dynamic = values.into_iter().any(|v| !graph.fact(*v).shape.is_concrete());
        let text = text_of(node, &problem, dynamic);
        if let Some(&g) = self.by_text.get(&text) {
            self.groups[g].nodes.push(number);
            return Ok(());
        }
        let opts = TacticOptions { dynamic, ..self.tactics.clone() };
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
        self.by_text.insert(text.clone(), self.groups.len());
        self.groups.push(Group { nodes: vec![number], node: node.clone(), problem, candidates, text });
        Ok(())
    }
}

/// Text that is equal for nodes with the same problem. Known host values count; weights do not, only that they are known.
fn text_of(node: &Node, p: &Problem, dynamic: bool) -> String {
    use std::fmt::Write;
    let mut text = format!("{} {} {dynamic}", node.op.name(), node.op.attrs());
    for (i, d) in p.inputs.iter().enumerate() {
        let _ = match d {
            Some(d) => write!(text, " {d}{}", if p.known(i).is_some() { "!" } else { "" }),
            None => write!(text, " -"),
        };
    }
    for i in node.op.def().host_inputs() {
        if let Some(t) = p.known(i) {
            let _ = write!(text, " {i}={:?}", t.bytes());
        }
    }
    text
}
