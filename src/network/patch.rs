//! The only way in which a pass edits a graph.
//!
//! A patch adds nodes that read existing values (taps are simply their ids) and then shunts old values to new ones:
//! every reader of the old value, and the graph output that it may be, reads the new one. Shunted values must have the
//! same type and a compatible shape. Nodes that nobody reads any more are removed when the patch is applied. A patch is
//! checked whole before anything changes.

use super::graph::{Graph, Node, NodeId, Value, ValueId};
use crate::base::error::ResultExt;
use crate::base::{Fact, Result, Shape, Tensor};
use crate::ops::{InferCx, Op};
use crate::{ensure, internal};
use std::sync::Arc;

/// A pending edit; see the module's text.
#[derive(Debug)]
pub struct Patch {
    /// `pass@node`, for messages.
    pub name: String,
    n_old_values: usize,
    n_old_nodes: usize,
    values: Vec<Value>,
    nodes: Vec<Node>,
    shunts: Vec<(ValueId, ValueId)>,
}

impl Patch {
    pub fn new(graph: &Graph, pass: &str, at: &str) -> Patch {
        Patch {
            name: format!("{pass}@{at}"),
            n_old_values: graph.values.len(),
            n_old_nodes: graph.nodes.len(),
            values: Vec::new(),
            nodes: Vec::new(),
            shunts: Vec::new(),
        }
    }

    fn fact<'a>(&'a self, graph: &'a Graph, v: ValueId) -> Option<&'a Fact> {
        match v.idx().checked_sub(self.n_old_values) {
            None => graph.values.get(v.idx()).map(|v| &v.fact),
            Some(i) => self.values.get(i).map(|v| &v.fact),
        }
    }

    fn new_value(&mut self, name: &str, fact: Fact, producer: Option<NodeId>) -> ValueId {
        let id = ValueId((self.n_old_values + self.values.len()) as u32);
        self.values.push(Value { name: name.into(), fact, producer, consumers: Vec::new() });
        id
    }

    pub fn add_const(&mut self, name: &str, tensor: impl Into<Arc<Tensor>>) -> ValueId {
        self.new_value(name, Fact::of_const(tensor.into()), None)
    }

    /// Adds a node that reads values of the graph or of this patch.
    pub fn add_node(
        &mut self,
        graph: &Graph,
        name: &str,
        op: Op,
        inputs: &[Option<ValueId>],
    ) -> Result<Vec<ValueId>> {
        let mut facts = Vec::new();
        for v in inputs {
            facts.push(match v {
                None => None,
                Some(v) => Some(
                    self.fact(graph, *v).ok_or_else(|| internal!("patch {} reads unknown value {}", self.name, v.0))?,
                ),
            });
        }
        let out = op
            .def()
            .infer(&InferCx::new(&facts))
            .with_context(|| format!("patch {}: new {} {name:?}", self.name, op.name()))?;
        let id = NodeId((self.n_old_nodes + self.nodes.len()) as u32);
        let many = out.len() > 1;
        let outputs: Vec<ValueId> = out
            .into_iter()
            .enumerate()
            .map(|(i, f)| {
                let value_name = if many { format!("{name}.{i}") } else { name.to_string() };
                self.new_value(&value_name, f, Some(id))
            })
            .collect();
        self.nodes.push(Node { name: name.into(), op, inputs: inputs.to_vec(), outputs: outputs.clone() });
        Ok(outputs)
    }

    /// Adds a node with one output.
    pub fn add(&mut self, graph: &Graph, name: &str, op: Op, inputs: &[ValueId]) -> Result<ValueId> {
        let inputs: Vec<_> = inputs.iter().map(|v| Some(*v)).collect();
        let out = self.add_node(graph, name, op, &inputs)?;
        match out.as_slice() {
            [v] => Ok(*v),
            _ => Err(internal!("patch {}: {name:?} has {} outputs, not one", self.name, out.len())),
        }
    }

    /// The shape that a value of the graph or of this patch has.
    pub fn shape_of<'a>(&'a self, graph: &'a Graph, v: ValueId) -> Option<&'a Shape> {
        self.fact(graph, v).map(|f| &f.shape)
    }

    /// The element type of a value of the graph or of this patch.
    pub fn dtype_of(&self, graph: &Graph, v: ValueId) -> Option<crate::base::DType> {
        self.fact(graph, v).map(|f| f.dtype)
    }

    /// The ids that this patch's nodes have once it is applied.
    pub fn new_nodes(&self) -> impl DoubleEndedIterator<Item = NodeId> + use<> {
        (self.n_old_nodes as u32..(self.n_old_nodes + self.nodes.len()) as u32).map(NodeId)
    }

    /// Every reader of `old` reads `new` instead.
    pub fn shunt(&mut self, old: ValueId, new: ValueId) {
        self.shunts.push((old, new));
    }
}

/// Same type, same rank, and no dimension that is known to differ.
pub fn compatible(a: &Fact, b: &Fact) -> bool {
    a.dtype == b.dtype
        && a.rank() == b.rank()
        && a.shape.iter().zip(b.shape.iter()).all(|(x, y)| match (x.as_const(), y.as_const()) {
            (Some(x), Some(y)) => x == y,
            _ => true,
        })
}

impl Graph {
    /// Applies a patch. On error the graph is unchanged.
    pub fn apply(&mut self, patch: Patch) -> Result<()> {
        ensure!(
            patch.n_old_values == self.values.len() && patch.n_old_nodes == self.nodes.len(),
            Internal,
            "patch {} was made for another state of the graph",
            patch.name
        );
        for (old, new) in &patch.shunts {
            let (a, b) = (patch.fact(self, *old), patch.fact(self, *new));
            match (a, b) {
                (Some(a), Some(b)) if compatible(a, b) => {}
                (Some(a), Some(b)) => {
                    return Err(internal!("patch {} replaces {a} by {b}", patch.name));
                }
                _ => return Err(internal!("patch {} shunts an unknown value", patch.name)),
            }
        }
        self.values.extend(patch.values);
        for (i, node) in patch.nodes.into_iter().enumerate() {
            let id = NodeId((patch.n_old_nodes + i) as u32);
            for v in node.inputs.iter().flatten() {
                self.values[v.idx()].consumers.push(id);
            }
            self.nodes.push(Some(node));
        }
        let mut roots: Vec<NodeId> = (patch.n_old_nodes..self.nodes.len()).map(|i| NodeId(i as u32)).collect();
        for (old, new) in patch.shunts {
            roots.extend(self.values[old.idx()].producer);
            self.redirect(old, new, patch.n_old_nodes);
        }
        self.sweep(roots);
        Ok(())
    }

    /// Moves all readers of `old` to `new`, but for those that `new` itself is computed by in this patch.
    fn redirect(&mut self, old: ValueId, new: ValueId, n_old_nodes: usize) {
        if old == new {
            return;
        }
        // A new node may read the old value to compute the new one (x -> f(x)): such readers stay.
        let keep = self.ancestors_between(old, new, n_old_nodes);
        let readers = std::mem::take(&mut self.values[old.idx()].consumers);
        for n in readers {
            if keep.contains(&n) {
                self.values[old.idx()].consumers.push(n);
                continue;
            }
            let node = self.nodes[n.idx()].as_mut().expect("consumers are live");
            // One consumer entry stands for one operand: move exactly one per entry.
            if let Some(slot) = node.inputs.iter_mut().find(|i| **i == Some(old)) {
                *slot = Some(new);
                self.values[new.idx()].consumers.push(n);
            }
        }
        for p in self.outputs.iter_mut().filter(|p| p.value == old) {
            p.value = new;
        }
        // The replacement carries the user's name.
        if self.values[new.idx()].producer.is_some() && !self.values[old.idx()].name.is_empty() {
            self.values[new.idx()].name = self.values[old.idx()].name.clone();
        }
    }

    /// Nodes of the patch that read `old` and from which `new` is computed. Older nodes are not walked through: that
    /// would cost the whole graph at each patch.
    fn ancestors_between(
        &self,
        old: ValueId,
        new: ValueId,
        n_old_nodes: usize,
    ) -> std::collections::HashSet<NodeId> {
        let mut seen = std::collections::HashSet::new();
        if self.values[old.idx()].consumers.is_empty() {
            return seen;
        }
        let mut stack: Vec<NodeId> = self.values[new.idx()].producer.into_iter().collect();
        while let Some(n) = stack.pop() {
            if n.idx() >= n_old_nodes && seen.insert(n) {
                let node = self.node(n);
                stack.extend(node.inputs.iter().flatten().filter_map(|v| self.values[v.idx()].producer));
            }
        }
        seen.retain(|n| self.node(*n).inputs.contains(&Some(old)));
        seen
    }
}
