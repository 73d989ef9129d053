//! The graph: nodes that compute values from values.
//!
//! Ids are indices that stay valid for the graph's life; a removed node leaves a hole. A value without a producer is
//! either a graph input or a constant. Facts of node outputs always come from the operator's `infer`.

use crate::base::error::ResultExt;
use crate::base::attrs::AttrField;
use crate::base::{AttrValue, Fact, Result, Tensor};
use crate::ops::{InferCx, Op};
use crate::{ensure, internal};
use std::collections::HashSet;
use std::sync::Arc;

/// Inputs, and outputs, that a graph may have: they are looked up by name one after the other.
pub const MAX_PORTS: usize = 4096;

/// Index of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ValueId(pub u32);

/// Index of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub u32);

impl ValueId {
    pub fn idx(self) -> usize {
        self.0 as usize
    }
}

impl NodeId {
    pub fn idx(self) -> usize {
        self.0 as usize
    }
}

/// A tensor that exists while the network runs.
#[derive(Clone, Debug)]
pub struct Value {
    pub name: String,
    pub fact: Fact,
    /// The node that computes it; `None` for inputs and constants.
    pub producer: Option<NodeId>,
    /// Nodes that read it, once per reading operand.
    pub consumers: Vec<NodeId>,
}

/// One operation.
#[derive(Clone, Debug)]
pub struct Node {
    pub name: String,
    pub op: Op,
    /// `None` is an optional operand that is absent.
    pub inputs: Vec<Option<ValueId>>,
    pub outputs: Vec<ValueId>,
}

/// A named input or output of the graph.
#[derive(Clone, Debug)]
pub struct Port {
    pub name: String,
    pub value: ValueId,
}

/// See the module's text.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    pub name: String,
    pub(super) nodes: Vec<Option<Node>>,
    pub(super) values: Vec<Value>,
    pub(super) inputs: Vec<Port>,
    pub(super) outputs: Vec<Port>,
}

impl AttrField for Arc<Graph> {
    fn to_attr(&self) -> Option<AttrValue> {
        Some(AttrValue::Graph(self.clone()))
    }
    fn from_attr(v: Option<&AttrValue>) -> Option<Self> {
        match v {
            Some(AttrValue::Graph(g)) => g.clone().downcast().ok(),
            _ => None,
        }
    }
}

impl Graph {
    pub fn new(name: &str) -> Graph {
        Graph { name: name.into(), ..Graph::default() }
    }

    // ---- describing -------------------------------------------------------------------------------------------

    /// Declares a graph input. Names of inputs are unique and not empty.
    pub fn add_input(&mut self, name: &str, fact: Fact) -> Result<ValueId> {
        ensure!(!name.is_empty(), InvalidArgument, "an input needs a name");
        ensure!(self.inputs.len() < MAX_PORTS, Unsupported, "a network may have {MAX_PORTS} inputs");
        ensure!(self.input(name).is_none(), InvalidArgument, "there is already an input named {name:?}");
        fact.check().with_context(|| format!("input {name:?}"))?;
        let id = self.new_value(name, Fact { known: None, ..fact }, None);
        self.inputs.push(Port { name: name.into(), value: id });
        Ok(id)
    }

    /// Adds a constant.
    pub fn add_const(&mut self, name: &str, tensor: Arc<Tensor>) -> ValueId {
        self.new_value(name, Fact::of_const(tensor), None)
    }

    /// Adds a node; its outputs' facts are inferred. Fails, leaving the graph as it was, when the operator refuses.
    pub fn add_node(&mut self, name: &str, op: Op, inputs: &[Option<ValueId>]) -> Result<Vec<ValueId>> {
        let facts = self.infer(&op, inputs).with_context(|| format!("{} {name:?}", op.name()))?;
        let id = NodeId(self.nodes.len() as u32);
        let many = facts.len() > 1;
        let outputs: Vec<ValueId> = facts
            .into_iter()
            .enumerate()
            .map(|(i, f)| {
                let value_name = if many { format!("{name}.{i}") } else { name.to_string() };
                self.new_value(&value_name, f, Some(id))
            })
            .collect();
        for v in inputs.iter().flatten() {
            self.values[v.idx()].consumers.push(id);
        }
        self.nodes.push(Some(Node { name: name.into(), op, inputs: inputs.to_vec(), outputs: outputs.clone() }));
        Ok(outputs)
    }

    /// Marks a value as a graph output. Names of outputs are unique and not empty.
    pub fn add_output(&mut self, name: &str, value: ValueId) -> Result<()> {
        ensure!(!name.is_empty(), InvalidArgument, "an output needs a name");
        ensure!(self.outputs.len() < MAX_PORTS, Unsupported, "a network may have {MAX_PORTS} outputs");
        ensure!(value.idx() < self.values.len(), InvalidArgument, "there is no tensor with id {}", value.0);
        ensure!(self.output(name).is_none(), InvalidArgument, "there is already an output named {name:?}");
        self.outputs.push(Port { name: name.into(), value });
        Ok(())
    }

    /// Takes an output mark away.
    pub fn remove_output(&mut self, value: ValueId) {
        self.outputs.retain(|p| p.value != value);
    }

    /// Renames a value (and the input or output that it is).
    pub fn rename_value(&mut self, value: ValueId, name: &str) {
        self.values[value.idx()].name = name.into();
        for p in self.inputs.iter_mut().chain(&mut self.outputs).filter(|p| p.value == value) {
            p.name = name.into();
        }
    }

    fn new_value(&mut self, name: &str, fact: Fact, producer: Option<NodeId>) -> ValueId {
        let id = ValueId(self.values.len() as u32);
        self.values.push(Value { name: name.into(), fact, producer, consumers: Vec::new() });
        id
    }

    /// The facts of the outputs that `op` would have with these inputs.
    pub fn infer(&self, op: &Op, inputs: &[Option<ValueId>]) -> Result<Vec<Fact>> {
        for v in inputs.iter().flatten() {
            ensure!(v.idx() < self.values.len(), InvalidArgument, "there is no tensor with id {}", v.0);
        }
        let facts: Vec<Option<&Fact>> = inputs.iter().map(|v| v.map(|v| self.fact(v))).collect();
        let out = op.def().infer(&InferCx::new(&facts))?;
        out.iter().try_for_each(Fact::check)?;
        Ok(out)
    }

    /// Rewrites the graphs inside of nodes, those inside of these first.
    pub fn map_bodies(&mut self, f: &mut dyn FnMut(&mut Graph) -> Result<()>) -> Result<()> {
        for i in 0..self.nodes.len() {
            let Some(node) = &self.nodes[i] else { continue };
            let bodies: Vec<Arc<Graph>> = node.op.def().bodies().into_iter().cloned().collect();
            if bodies.is_empty() {
                continue;
            }
            let mut mapped = Vec::new();
            for b in bodies {
                let mut g = Arc::unwrap_or_clone(b);
                g.map_bodies(f)?;
                f(&mut g)?;
                mapped.push(Arc::new(g));
            }
            let op = node.op.def().with_bodies(mapped);
            let op = op.ok_or_else(|| internal!("{} does not take its bodies back", node.op.name()))?;
            self.nodes[i].as_mut().expect("seen just above").op = op;
        }
        Ok(())
    }

    /// Calls `f` for each node in order; nodes inside of a node's graphs follow that node.
    pub fn visit<'a>(&'a self, f: &mut dyn FnMut(&'a Graph, NodeId) -> Result<()>) -> Result<()> {
        for n in self.order()? {
            f(self, n)?;
            for body in self.node(n).op.def().bodies() {
                body.visit(f)?;
            }
        }
        Ok(())
    }

    // ---- reading ----------------------------------------------------------------------------------------------

    pub fn value(&self, v: ValueId) -> &Value {
        &self.values[v.idx()]
    }

    pub fn fact(&self, v: ValueId) -> &Fact {
        &self.values[v.idx()].fact
    }

    pub fn n_values(&self) -> usize {
        self.values.len()
    }

    pub fn value_ids(&self) -> impl Iterator<Item = ValueId> + use<> {
        (0..self.values.len() as u32).map(ValueId)
    }

    /// The node; panics on a removed one.
    pub fn node(&self, n: NodeId) -> &Node {
        self.nodes[n.idx()].as_ref().expect("node ids in use come from this graph and were not removed")
    }

    pub fn get_node(&self, n: NodeId) -> Option<&Node> {
        self.nodes.get(n.idx())?.as_ref()
    }

    /// Ids of all nodes that were not removed, in the order in which they were added.
    pub fn node_ids(&self) -> Vec<NodeId> {
        (0..self.nodes.len() as u32).map(NodeId).filter(|n| self.nodes[n.idx()].is_some()).collect()
    }

    pub fn n_nodes(&self) -> usize {
        self.nodes.iter().flatten().count()
    }

    pub fn inputs(&self) -> &[Port] {
        &self.inputs
    }

    pub fn outputs(&self) -> &[Port] {
        &self.outputs
    }

    pub fn input(&self, name: &str) -> Option<ValueId> {
        self.inputs.iter().find(|p| p.name == name).map(|p| p.value)
    }

    pub fn output(&self, name: &str) -> Option<ValueId> {
        self.outputs.iter().find(|p| p.name == name).map(|p| p.value)
    }

    pub fn is_input(&self, v: ValueId) -> bool {
        self.inputs.iter().any(|p| p.value == v)
    }

    pub fn is_output(&self, v: ValueId) -> bool {
        self.outputs.iter().any(|p| p.value == v)
    }

    /// The constant's elements.
    pub fn as_const(&self, v: ValueId) -> Option<&Arc<Tensor>> {
        self.fact(v).as_const()
    }

    pub fn producer(&self, v: ValueId) -> Option<(NodeId, &Node)> {
        let n = self.values[v.idx()].producer?;
        Some((n, self.node(n)))
    }

    /// The node that alone reads `v`, when there is exactly one reading operand and `v` is not a graph output.
    pub fn sole_consumer(&self, v: ValueId) -> Option<NodeId> {
        match self.values[v.idx()].consumers.as_slice() {
            [n] if !self.is_output(v) => Some(*n),
            _ => None,
        }
    }

    /// Live nodes in an order in which every node stands after those that it reads from; ties by age.
    pub fn order(&self) -> Result<Vec<NodeId>> {
        let ids = self.node_ids();
        let mut missing: Vec<usize> = vec![0; self.nodes.len()];
        let mut ready = std::collections::BTreeSet::new();
        for &n in &ids {
            let deps: HashSet<NodeId> =
                self.node(n).inputs.iter().flatten().filter_map(|v| self.value(*v).producer).collect();
            missing[n.idx()] = deps.len();
            if deps.is_empty() {
                ready.insert(n);
            }
        }
        let mut order = Vec::with_capacity(ids.len());
        while let Some(n) = ready.pop_first() {
            order.push(n);
            let readers: HashSet<NodeId> =
                self.node(n).outputs.iter().flat_map(|v| self.value(*v).consumers.iter().copied()).collect();
            for r in readers {
                missing[r.idx()] -= 1;
                if missing[r.idx()] == 0 {
                    ready.insert(r);
                }
            }
        }
        if order.len() != ids.len() {
            return Err(internal!("graph {:?} has a cycle", self.name));
        }
        Ok(order)
    }

    /// Infers all facts anew and keeps what is known better now: a dimension that became a number, elements that became
    /// known. Returns how many values changed. Editing never makes facts wrong, but it can make them out of date.
    pub fn refresh_facts(&mut self) -> Result<usize> {
        let mut n_changed = 0;
        for n in self.order()? {
            let node = self.node(n);
            let facts =
                self.infer(&node.op, &node.inputs).with_context(|| format!("{} {:?}", node.op.name(), node.name))?;
            for (v, new) in node.outputs.clone().into_iter().zip(facts) {
                let old = &mut self.values[v.idx()].fact;
                let n_numbers = |f: &Fact| f.shape.iter().filter(|d| d.as_const().is_some()).count();
                let better = n_numbers(&new) > n_numbers(old) || (old.known.is_none() && new.known.is_some());
                if better && super::patch::compatible(old, &new) {
                    *old = new;
                    n_changed += 1;
                }
            }
        }
        Ok(n_changed)
    }

    // ---- removing ---------------------------------------------------------------------------------------------

    /// Removes nodes that nothing reads, starting from `roots` and going up; returns how many.
    pub(super) fn sweep(&mut self, mut roots: Vec<NodeId>) -> usize {
        let mut n_removed = 0;
        while let Some(n) = roots.pop() {
            let Some(node) = &self.nodes[n.idx()] else { continue };
            if node.outputs.iter().any(|v| !self.value(*v).consumers.is_empty() || self.is_output(*v)) {
                continue;
            }
            let node = self.nodes[n.idx()].take().expect("checked just above");
            n_removed += 1;
            for v in node.inputs.iter().flatten() {
                let value = &mut self.values[v.idx()];
                if let Some(at) = value.consumers.iter().position(|c| *c == n) {
                    value.consumers.swap_remove(at);
                }
                roots.extend(value.producer);
            }
        }
        n_removed
    }

    /// Removes every node whose outputs nobody reads.
    pub fn remove_dead(&mut self) -> usize {
        self.sweep(self.node_ids())
    }
}
