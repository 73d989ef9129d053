//! From the lowered graph and the chosen tactics to a linear list of steps, and from that to concrete shapes.
//!
//! A [`Plan`] is shape-independent: each step knows its node and how it runs. Given the shapes of the inputs,
//! [`shapes::specialize`] walks the steps once with the operators' own `infer`, computes shape arithmetic on the host,
//! decides where every value lives, and yields a [`shapes::ShapePlan`] that a context keeps and replays.
//!
//! Where shapes follow from data, or a node runs graphs of its own, the steps are cut into [`stages`]: each is made
//! concrete when the shapes of what it reads are known.

pub mod host;
pub mod lanes;
pub mod memory;
mod place;
pub mod profile;
pub mod shapes;
pub mod stages;

use crate::base::dims::Bindings;
use crate::base::{Dim, Fact, Result};
use crate::network::{Graph, NodeId, ValueId};
use crate::ops::{Problem, Tactic, TensorDesc};
use std::collections::{HashMap, HashSet};
use std::fmt;

pub use host::{HostSet, host_set};
pub use profile::{Profile, Range};
pub use shapes::{Loc, ShapePlan};
pub use stages::Stage;

/// How a step runs.
#[derive(Debug)]
pub enum StepKind {
    /// Shape arithmetic: computed by the reference eval when shapes are set, not when enqueued.
    Host,
    /// The output is the input's memory.
    View,
    /// On the device; `None` on the CPU, where the operator picks its core at concrete shapes.
    Device(Option<Tactic>),
    /// On the device, with output shapes that it decides itself.
    Counted(Option<Tactic>),
    /// Graphs inside of the node, as plans.
    Control(Vec<Plan>),
}

/// One node of the plan.
#[derive(Debug)]
pub struct Step {
    pub node: NodeId,
    pub kind: StepKind,
}

/// Steps in order; see the module's text.
#[derive(Debug)]
pub struct Plan {
    /// Number of this plan among those of an engine; 0 is the network, others are graphs inside of nodes.
    pub uid: u32,
    pub graph: Graph,
    pub steps: Vec<Step>,
    /// Graph inputs whose elements the host reads, by input index.
    pub host_inputs: Vec<usize>,
    /// Values whose elements the host has or reads back.
    pub host_values: HashSet<ValueId>,
    /// Constants that steps read, by their number in the engine's table of weights.
    pub consts: HashMap<ValueId, u32>,
    pub stages: Vec<Stage>,
}

/// Size of a dimension that nothing tells before the data is there, where kernels are chosen.
const TYPICAL_UNKNOWN: i64 = 16;

fn typical(d: &Dim, b: &Bindings) -> i64 {
    let d = d.bind(b);
    let mut rest = Bindings::new();
    d.symbols(&mut |s| {
        rest.insert(s.clone(), TYPICAL_UNKNOWN);
    });
    d.bind(&rest).as_const().unwrap_or(TYPICAL_UNKNOWN).max(0)
}

/// The node at concrete shapes, for tactics.
pub fn problem_of(graph: &Graph, n: NodeId, b: &Bindings) -> Result<Problem> {
    let node = graph.node(n);
    let desc = |f: &Fact| -> Result<TensorDesc> {
        Ok(TensorDesc { dtype: f.dtype, dims: f.shape.iter().map(|d| typical(d, b) as usize).collect() })
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

/// What plans of one engine share while they are made.
struct Making<'a> {
    opt: &'a Bindings,
    tactics: &'a mut dyn Iterator<Item = Option<Tactic>>,
    n_plans: u32,
    n_consts: u32,
}

impl Plan {
    /// Orders the steps. `tactics` gives the tactic of each node in the order of [`Graph::visit`], `None` for nodes that
    /// need none; on the CPU it gives nothing.
    pub fn new(graph: Graph, opt: &Bindings, tactics: &mut dyn Iterator<Item = Option<Tactic>>) -> Result<Plan> {
        Self::make(graph, &[], &mut Making { opt, tactics, n_plans: 0, n_consts: 0 })
    }

    fn make(graph: Graph, wanted: &[ValueId], m: &mut Making<'_>) -> Result<Plan> {
        let uid = m.n_plans;
        m.n_plans += 1;
        let host = host_set(&graph, m.opt, wanted)?;
        let mut steps = Vec::new();
        for n in graph.order()? {
            let node = graph.node(n);
            let def = node.op.def();
            let tactic = m.tactics.next().flatten();
            let bodies = def.bodies();
            let kind = if !bodies.is_empty() {
                let plans = bodies.iter().map(|b| Plan::make(Graph::clone(b), &host::wanted_of(&node.op, b), m));
                StepKind::Control(plans.collect::<Result<_>>()?)
            } else if host.nodes.contains(&n) {
                StepKind::Host
            } else if def.is_view() {
                StepKind::View
            } else if def.is_data_dependent() {
                StepKind::Counted(tactic)
            } else {
                StepKind::Device(tactic)
            };
            steps.push(Step { node: n, kind });
        }
        let mut plan = Plan {
            uid,
            steps,
            host_inputs: host.inputs.clone(),
            stages: Vec::new(),
            consts: HashMap::new(),
            host_values: host.values.iter().chain(&host.readbacks).copied().collect(),
            graph,
        };
        plan.stages = stages::split(&plan, &host);
        for v in plan.read_consts() {
            plan.consts.insert(v, m.n_consts);
            m.n_consts += 1;
        }
        Ok(plan)
    }

    /// Shapes follow from the inputs' shapes, and elements that the host reads are those of inputs.
    pub fn is_static(&self) -> bool {
        match self.stages.as_slice() {
            [] => true,
            [one] => !one.is_dynamic && one.readbacks.is_empty(),
            _ => false,
        }
    }

    /// Constants that device steps read, and those that are outputs.
    fn read_consts(&self) -> Vec<ValueId> {
        let g = &self.graph;
        let mut list: Vec<ValueId> = g.outputs().iter().map(|p| p.value).collect();
        for s in self.steps.iter().filter(|s| !matches!(s.kind, StepKind::Host)) {
            list.extend(g.node(s.node).inputs.iter().flatten());
        }
        list.retain(|v| g.as_const(*v).is_some());
        list.sort_unstable();
        list.dedup();
        list
    }

    /// This plan and those inside of its nodes.
    pub fn visit<'a>(&'a self, f: &mut dyn FnMut(&'a Plan)) {
        f(self);
        for s in &self.steps {
            if let StepKind::Control(plans) = &s.kind {
                plans.iter().for_each(|p| p.visit(f));
            }
        }
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
                StepKind::Counted(None) => "cpu, counted".to_string(),
                StepKind::Counted(Some(t)) => format!("{}:{}, counted", t.source.name(), t.name),
                StepKind::Control(_) => "control".to_string(),
            };
            writeln!(f, "  {i:4} {how:40} {} {:?}", node.op.name(), node.name)?;
            if let StepKind::Control(plans) = &s.kind {
                plans.iter().try_for_each(|p| write!(f, "{p}"))?;
            }
        }
        Ok(())
    }
}
