//! One node for equal computations, one value for equal constants.
//!
//! Two nodes are equal when operator, attributes and operands are; operands are compared as values, so chains merge
//! from the inputs on. Constants are compared by type, shape and bytes. Random operators are never equal.

use super::query::may_forward;
use crate::base::{AttrValue, Result, Tensor};
use crate::network::{Graph, NodeId, Patch, ValueId};
use crate::passes::{NodePass, Pass, PassCx};
use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt::Write;
use xxhash_rust::xxh3::xxh3_64;

/// See the module's text.
pub struct MergeDuplicates;

impl Pass for MergeDuplicates {
    fn name(&self) -> &'static str {
        "merge_duplicates"
    }

    fn run(&self, g: &mut Graph, cx: &PassCx<'_>) -> Result<usize> {
        let n_constants = merge_constants(g, cx)?;
        let nodes = MergeNodes { seen: RefCell::default() };
        Ok(n_constants + Pass::run(&nodes, g, cx)?)
    }
}

fn merge_constants(g: &mut Graph, cx: &PassCx<'_>) -> Result<usize> {
    // Hashing is only for constants that have another of their type and shape.
    let mut by_type: HashMap<(crate::base::DType, Vec<usize>), Vec<ValueId>> = HashMap::new();
    for v in g.value_ids() {
        let value = g.value(v);
        let (None, Some(t)) = (value.producer, g.as_const(v)) else { continue };
        if !value.consumers.is_empty() {
            by_type.entry((t.dtype(), t.shape().to_vec())).or_default().push(v);
        }
    }
    let mut groups: Vec<Vec<ValueId>> = by_type.into_values().filter(|vs| vs.len() > 1).collect();
    groups.sort();
    let mut patch = cx.patch(g, "constants");
    let mut n = 0;
    for group in groups {
        let mut seen: HashMap<u64, Vec<ValueId>> = HashMap::new();
        for v in group {
            let tensor = |v: ValueId| -> &Tensor { g.as_const(v).expect("only constants are grouped") };
            let same = seen.entry(xxh3_64(tensor(v).bytes())).or_default();
            match same.iter().find(|first| tensor(**first).same(tensor(v))) {
                Some(first) if may_forward(g, v, *first) => {
                    patch.shunt(v, *first);
                    n += 1;
                }
                Some(_) => {}
                None => same.push(v),
            }
        }
    }
    Ok(if n > 0 && cx.apply(g, patch)? { 1 } else { 0 })
}

/// The walk over nodes; what it has seen lives as long as one walk.
struct MergeNodes {
    seen: RefCell<HashMap<String, NodeId>>,
}

impl NodePass for MergeNodes {
    fn name(&self) -> &'static str {
        "merge_duplicates"
    }

    fn rewrite(&self, g: &Graph, cx: &PassCx<'_>, n: NodeId) -> Result<Option<Patch>> {
        let node = g.node(n);
        if node.op.def().is_stateful() {
            return Ok(None);
        }
        let key = key_of(g, n);
        let mut seen = self.seen.borrow_mut();
        let Some(first) = seen.get(&key).and_then(|first| g.get_node(*first)) else {
            seen.insert(key, n);
            return Ok(None);
        };
        if !node.outputs.iter().zip(&first.outputs).all(|(old, new)| may_forward(g, *old, *new)) {
            return Ok(None);
        }
        let mut patch = cx.patch(g, &node.name);
        for (old, new) in node.outputs.iter().zip(&first.outputs) {
            patch.shunt(*old, *new);
        }
        Ok(Some(patch))
    }
}

/// Text that is equal for equal computations only.
fn key_of(g: &Graph, n: NodeId) -> String {
    let node = g.node(n);
    let mut key = format!("{}", node.op.id());
    for v in &node.inputs {
        let _ = match v {
            Some(v) => write!(key, ",{}", v.0),
            None => write!(key, ",-"),
        };
    }
    for (name, value) in &node.op.attrs().0 {
        let _ = match value {
            // Printed tensors are shortened, so their bytes are part of the key.
            AttrValue::Tensor(t) => write!(key, ";{name}={}{:?}{:x?}", t.dtype(), t.shape(), t.bytes()),
            other => write!(key, ";{name}={other}"),
        };
    }
    key
}
