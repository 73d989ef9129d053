//! What the host computes: everything that a host operand depends on, as long as that is little work, and small results
//! of shape arithmetic. What is much work is computed on the device and read back.

use crate::base::Result;
use crate::base::dims::Bindings;
use crate::network::{Graph, Node, NodeId, ValueId};
use crate::ops::Op;
use crate::plan::problem_of;
use std::collections::HashSet;

/// Values up to this many elements that follow from shapes alone are computed on the host.
const MAX_ELEMENTS: i64 = 4096;
/// Operations of one node that the host does for a shape.
const MAX_FLOPS: f64 = 1e6;

/// Which values and nodes the host computes while shapes are set.
pub struct HostSet {
    pub nodes: HashSet<NodeId>,
    pub values: HashSet<ValueId>,
    /// Graph inputs that are read, by index.
    pub inputs: Vec<usize>,
    /// Values that a device step computes and the host reads.
    pub readbacks: HashSet<ValueId>,
}

/// Outputs of a node's graph that decide how the node goes on.
pub fn wanted_of(op: &Op, body: &Graph) -> Vec<ValueId> {
    match op {
        Op::Loop(l) if !l.goes_on() => vec![body.outputs()[0].value],
        _ => Vec::new(),
    }
}

/// See the module's text. `wanted` are values that the host needs besides host operands.
pub fn host_set(graph: &Graph, opt: &Bindings, wanted: &[ValueId]) -> Result<HostSet> {
    let order = graph.order()?;
    let small = |v: &ValueId| {
        graph.fact(*v).shape.numel().bind(opt).as_const().is_some_and(|n| n <= MAX_ELEMENTS)
    };
    let runs_graphs = |node: &Node| !node.op.def().bodies().is_empty();
    let cheap = |n: NodeId, node: &Node| -> Result<bool> {
        let def = node.op.def();
        if def.is_data_dependent() || runs_graphs(node) || def.is_stateful() {
            return Ok(false);
        }
        let sizes = node.inputs.iter().flatten().chain(&node.outputs).all(|v| graph.as_const(*v).is_some() || small(v));
        Ok(sizes && def.flops(&problem_of(graph, n, opt)?) <= MAX_FLOPS)
    };
    // Backward: host operands and all that they depend on. Shapes are free, so `known` values end the walk.
    let mut demanded: HashSet<ValueId> = HashSet::new();
    let mut readbacks: HashSet<ValueId> = HashSet::new();
    let mut stack: Vec<ValueId> = wanted.to_vec();
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
        match graph.value(v).producer {
            _ if f.known.is_some() => {}
            None => inputs.extend(graph.inputs().iter().position(|p| p.value == v)),
            Some(n) if cheap(n, graph.node(n))? => stack.extend(graph.node(n).inputs.iter().flatten()),
            Some(_) => drop(readbacks.insert(v)),
        }
    }
    inputs.sort_unstable();
    inputs.dedup();
    // Forward: demanded nodes, and small nodes all of whose inputs the host has without reading anything back.
    let mut host = HostSet { nodes: HashSet::new(), values: HashSet::new(), inputs, readbacks };
    for &i in &host.inputs {
        host.values.insert(graph.inputs()[i].value);
    }
    let mut late: HashSet<ValueId> = host.readbacks.clone();
    for &n in &order {
        let node = graph.node(n);
        let def = node.op.def();
        if node.outputs.iter().any(|v| host.readbacks.contains(v)) || runs_graphs(node) || def.is_data_dependent() {
            continue;
        }
        let known = node.outputs.iter().all(|v| graph.fact(*v).known.is_some());
        let wanted = node.outputs.iter().any(|v| demanded.contains(v));
        let has = |v: &ValueId| host.values.contains(v) || host.readbacks.contains(v) || graph.as_const(*v).is_some();
        let fed = node.inputs.iter().flatten().all(has);
        let waits = node.inputs.iter().flatten().any(|v| late.contains(v));
        let free = node.outputs.iter().all(small) && !waits && !def.is_stateful();
        if known || (fed && (wanted || free)) {
            host.nodes.insert(n);
            host.values.extend(node.outputs.iter().copied());
            if waits {
                late.extend(node.outputs.iter().copied());
            }
        }
    }
    Ok(host)
}
