//! What must hold of every graph, at every moment. Run after each patch in debug builds and tests.
//!
//! 1. Every operand and port names a value of the graph.
//! 2. A node's outputs name it as their producer, and no value has two producers.
//! 3. The consumer lists are exact: one entry per reading operand.
//! 4. A value without a producer is a graph input or a constant.
//! 5. There is no cycle.
//! 6. Every operator accepts its inputs and infers the facts that its outputs carry.
//! 7. Names of inputs are unique, and so are names of outputs.

use super::graph::{Graph, NodeId};
use super::patch::compatible;
use crate::base::Result;
use crate::base::error::ResultExt;
use crate::internal;
use std::collections::{HashMap, HashSet};

impl Graph {
    /// Checks all invariants; the error names the first one broken.
    pub fn verify(&self) -> Result<()> {
        let n_values = self.values.len();
        let mut readers: HashMap<(u32, NodeId), usize> = HashMap::new();
        let mut produced = HashSet::new();
        for n in self.node_ids() {
            let node = self.node(n);
            for v in node.inputs.iter().flatten() {
                if v.idx() >= n_values {
                    return Err(internal!("invariant 1: node {:?} reads unknown value {}", node.name, v.0));
                }
                *readers.entry((v.0, n)).or_default() += 1;
                let value = self.value(*v);
                if value.producer.is_none() && !self.is_input(*v) && value.fact.as_const().is_none() {
                    return Err(internal!(
                        "invariant 4: value {:?} is neither input, constant nor computed",
                        value.name
                    ));
                }
            }
            for v in &node.outputs {
                if v.idx() >= n_values || self.value(*v).producer != Some(n) || !produced.insert(*v) {
                    return Err(internal!("invariant 2: value {} is not produced by {:?} alone", v.0, node.name));
                }
            }
        }
        for v in self.value_ids() {
            let mut counts: HashMap<NodeId, usize> = HashMap::new();
            for c in &self.value(v).consumers {
                *counts.entry(*c).or_default() += 1;
            }
            for (c, count) in counts {
                if readers.remove(&(v.0, c)) != Some(count) {
                    return Err(internal!("invariant 3: consumers of value {:?} are not exact", self.value(v).name));
                }
            }
        }
        if !readers.is_empty() {
            return Err(internal!("invariant 3: {} operands are missing in consumer lists", readers.len()));
        }
        for p in self.inputs.iter().chain(&self.outputs) {
            if p.value.idx() >= n_values {
                return Err(internal!("invariant 1: port {:?} names unknown value {}", p.name, p.value.0));
            }
        }
        for p in &self.outputs {
            let v = self.value(p.value);
            let live = v.producer.is_none_or(|n| self.get_node(n).is_some());
            if !live || (v.producer.is_none() && !self.is_input(p.value) && v.fact.as_const().is_none()) {
                return Err(internal!("invariant 4: output {:?} is never computed", p.name));
            }
        }
        for n in self.order().with_context(|| "invariant 5")? {
            let node = self.node(n);
            let facts = self
                .infer(&node.op, &node.inputs)
                .with_context(|| format!("invariant 6: {} {:?}", node.op.name(), node.name))?;
            if facts.len() != node.outputs.len() {
                return Err(internal!("invariant 6: {:?} has {} outputs", node.name, node.outputs.len()));
            }
            for (f, v) in facts.iter().zip(&node.outputs) {
                if !compatible(f, self.fact(*v)) {
                    return Err(internal!(
                        "invariant 6: {:?} infers {f} but its output carries {}",
                        node.name,
                        self.fact(*v)
                    ));
                }
            }
        }
        for ports in [&self.inputs, &self.outputs] {
            let names: HashSet<&str> = ports.iter().map(|p| p.name.as_str()).collect();
            if names.len() != ports.len() {
                return Err(internal!("invariant 7: two inputs or two outputs share a name"));
            }
        }
        Ok(())
    }
}
