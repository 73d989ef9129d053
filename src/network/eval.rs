//! The reference executor: runs any graph on the host with the operators' own `eval`, one node at a time.
//!
//! Slow and plain on purpose: it is the oracle for passes and devices, and the engine of constant folding.

use super::graph::{Graph, Node, ValueId};
use crate::base::error::ResultExt;
use crate::base::{Fact, Result, Tensor};
use crate::ops::{EvalCx, InferCx};
use crate::{ensure, err};
use std::collections::HashMap;
use std::sync::Arc;

/// Computes one node from its inputs.
pub fn eval_node(node: &Node, inputs: &[Option<Arc<Tensor>>]) -> Result<Vec<Tensor>> {
    let facts: Vec<Option<Fact>> = inputs.iter().map(|t| t.clone().map(Fact::of_const)).collect();
    let refs: Vec<Option<&Fact>> = facts.iter().map(|f| f.as_ref()).collect();
    let run = || -> Result<Vec<Tensor>> {
        let out = node.op.def().infer(&InferCx::new(&refs))?;
        out.iter().try_for_each(Fact::check)?;
        let tensors: Vec<Option<&Tensor>> = inputs.iter().map(|t| t.as_deref()).collect();
        let result = node.op.def().eval(&EvalCx { inputs: &tensors, outputs: &out })?;
        for (t, f) in result.iter().zip(&out) {
            let want = f.shape.concrete();
            ensure!(
                t.dtype() == f.dtype && want.as_deref().is_none_or(|w| w == t.shape()),
                Internal,
                "eval gave {}{:?} where infer said {f}",
                t.dtype(),
                t.shape()
            );
        }
        Ok(result)
    };
    run().with_context(|| format!("{} {:?}", node.op.name(), node.name))
}

impl Graph {
    /// Runs the graph on inputs by name and returns the outputs in order.
    pub fn eval(&self, inputs: &HashMap<String, Arc<Tensor>>) -> Result<Vec<Arc<Tensor>>> {
        let mut values: HashMap<ValueId, Arc<Tensor>> = HashMap::new();
        for p in self.inputs() {
            let t = inputs.get(&p.name).ok_or_else(|| err!(InvalidArgument, "input {:?} is missing", p.name))?;
            let f = self.fact(p.value);
            ensure!(
                t.dtype() == f.dtype && t.rank() == f.rank(),
                InvalidArgument,
                "input {:?}: expected {f}, got {}{:?}",
                p.name,
                t.dtype(),
                t.shape()
            );
            values.insert(p.value, t.clone());
        }
        let fetch = |values: &HashMap<ValueId, Arc<Tensor>>, v: ValueId| {
            self.as_const(v).or_else(|| values.get(&v)).cloned()
        };
        for n in self.order()? {
            let node = self.node(n);
            let ins: Vec<Option<Arc<Tensor>>> =
                node.inputs.iter().map(|v| v.and_then(|v| fetch(&values, v))).collect();
            for (v, t) in node.outputs.iter().zip(eval_node(node, &ins)?) {
                values.insert(*v, Arc::new(t));
            }
        }
        self.outputs()
            .iter()
            .map(|p| fetch(&values, p.value).ok_or_else(|| err!(Internal, "output {:?} was not computed", p.name)))
            .collect()
    }
}
