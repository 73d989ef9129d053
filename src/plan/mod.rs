//! From the lowered graph and the chosen tactics to a linear list of steps, and from that to concrete shapes.
//!
//! A [`Plan`] is shape-independent: each step knows its node and how it runs. Given the shapes of the inputs,
//! [`shapes::specialize`] walks the steps once with the operators' own `infer`, computes shape arithmetic on the host,
//! decides where every value lives, and yields a [`shapes::ShapePlan`] that a context keeps and replays.

pub mod memory;
pub mod profile;
pub mod shapes;

use crate::base::dims::Bindings;
use crate::base::{Fact, Result};
use crate::network::{Graph, NodeId, ValueId};
use crate::ops::{Problem, Tactic, TensorDesc};
use std::collections::HashSet;
use std::fmt;

pub use profile::{Profile, Range};
pub use shapes::{Loc, ShapePlan};

/// Values up to this many elements that follow from shapes alone are computed on the host.
const HOST_MAX_ELEMENTS: i64 = 4096;

/// How a step runs.
#[derive(Clone, Debug)]
pub enum StepKind {
    /// Shape arithmetic: computed by the reference eval when shapes are set, not when enqueued.
    Host,
    /// The output is the input's memory.
    View,
    /// On the device; `None` on the CPU, where the operator picks its core at concrete shapes.
    Device(Option<Tactic>),
}

/// One node of the plan.
#[derive(Clone, Debug)]
pub struct Step {
    pub node: NodeId,
    pub kind: StepKind,
}

/// Steps in order; see the module's text.
#[derive(Debug)]
pub struct Plan {
    pub graph: Graph,
    pub steps: Vec<Step>,
    /// Graph inputs whose elements the host reads, by input index.
    pub host_inputs: Vec<usize>,
}

/// Which values and nodes the host computes while shapes are set.
pub struct HostSet {
    pub nodes: HashSet<NodeId>,
    pub values: HashSet<ValueId>,
    pub inputs: Vec<usize>,
}

/// Finds what must be, or may cheaply be, computed on the host: everything that a host operand depends on, and small
/// results of shape arithmetic.
pub fn host_set(graph: &Graph, opt: &Bindings) -> Result<HostSet> {
    let order = graph.order()?;
    // Backward: host operands and all that they depend on. Shapes are free, so `known` values end the walk.
    let mut demanded: HashSet<ValueId> = HashSet::new();
    let mut stack: Vec<ValueId> = Vec::new();
    for &n in &order {
        let node = graph.node(n);
        for i in node.op.def().host_inputs() {
            stack.extend(node.inputs.get(i).copied().flatten());
        }
    }
    let mut inputs = Vec::new();
    while let Some(v) = stack.pop() {
        let f = graph.fact(v);
        if f.as_const().is_some() || !demanded.insert(v) {
            continue;
        }
        match graph.producer(v) {
            _ if f.known.is_some() => {}
            None => inputs.extend(graph.inputs().iter().position(|p| p.value == v)),
            Some((_, node)) => stack.extend(node.inputs.iter().flatten()),
        }
    }
    inputs.sort_unstable();
    inputs.dedup();
    // Forward: demanded nodes, and small nodes all of whose inputs the host has.
    let mut host = HostSet { nodes: HashSet::new(), values: HashSet::new(), inputs };
    for &i in &host.inputs {
        host.values.insert(graph.inputs()[i].value);
    }
    for &n in &order {
        let node = graph.node(n);
        let known = node.outputs.iter().all(|v| graph.fact(*v).known.is_some());
        let wanted = node.outputs.iter().any(|v| demanded.contains(v));
        let fed = node.inputs.iter().flatten().all(|v| host.values.contains(v) || graph.as_const(*v).is_some());
        let small = node
            .outputs
            .iter()
            .all(|v| graph.fact(*v).shape.numel().bind(opt).as_const().is_some_and(|n| n <= HOST_MAX_ELEMENTS));
        if known || (fed && (wanted || small)) {
            host.nodes.insert(n);
            host.values.extend(node.outputs.iter().copied());
        }
    }
    Ok(host)
}

/// The node at concrete shapes, for tactics.
pub fn problem_of(graph: &Graph, n: NodeId, b: &Bindings) -> Result<Problem> {
    let node = graph.node(n);
    let desc = |f: &Fact| -> Result<TensorDesc> {
        Ok(TensorDesc { dtype: f.dtype, dims: f.shape.bind(b).to_concrete()? })
    };
    Ok(Problem {
        inputs: node.inputs.iter().map(|v| v.map(|v| desc(graph.fact(v))).transpose()).collect::<Result<_>>()?,
        outputs: node.outputs.iter().map(|v| desc(graph.fact(*v))).collect::<Result<_>>()?,
        known: node
            .inputs
            .iter()
            .map(|v| {
                v.and_then(|v| {
                    let f = graph.fact(v);
                    f.as_const().cloned().or_else(|| {
                        let dims: Option<Vec<i64>> = f.as_dims()?.iter().map(|d| d.bind(b).as_const()).collect();
                        let shape = f.shape.bind(b).concrete()?;
                        Some(std::sync::Arc::new(
                            crate::base::Tensor::from_slice(&shape, &dims?).cast(f.dtype),
                        ))
                    })
                })
            })
            .collect(),
    })
}

impl Plan {
    /// Orders the steps. `choose` gives the tactic of a device node.
    pub fn new(
        graph: Graph,
        opt: &Bindings,
        mut choose: impl FnMut(&Graph, NodeId) -> Result<Option<Tactic>>,
    ) -> Result<Plan> {
        let host = host_set(&graph, opt)?;
        let mut steps = Vec::new();
        for n in graph.order()? {
            let node = graph.node(n);
            let kind = if host.nodes.contains(&n) {
                StepKind::Host
            } else if node.op.def().is_view() {
                StepKind::View
            } else {
                StepKind::Device(choose(&graph, n)?)
            };
            steps.push(Step { node: n, kind });
        }
        Ok(Plan { graph, steps, host_inputs: host.inputs })
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "plan of {:?}: {} steps", self.graph.name, self.steps.len())?;
        for (i, s) in self.steps.iter().enumerate() {
            let node = self.graph.node(s.node);
            let how = match &s.kind {
                StepKind::Host => "host".to_string(),
                StepKind::View => "view".to_string(),
                StepKind::Device(None) => "cpu".to_string(),
                StepKind::Device(Some(t)) => format!("{}:{}", t.source.name(), t.name),
            };
            writeln!(f, "  {i:4} {how:40} {} {:?}", node.op.name(), node.name)?;
        }
        Ok(())
    }
}
