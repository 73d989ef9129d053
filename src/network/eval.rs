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

/// Nodes that [`Graph::const_value`] computes at most.
const MAX_CONST_NODES: usize = 64;
/// Elements of each value that it looks at.
const MAX_CONST_ELEMENTS: usize = 1 << 16;

impl Graph {
    /// The elements of a value that depends on no input, where finding them is little work: for decisions that are made
    /// while a model is imported.
    pub fn const_value(&self, v: ValueId) -> Option<Arc<Tensor>> {
        self.const_within(v, &mut MAX_CONST_NODES.clone())
    }

    /// Whether a value depends on shapes and constants only: on the elements of no input.
    pub fn follows_from_shapes(&self, v: ValueId) -> bool {
        let mut seen = std::collections::HashSet::new();
        let mut stack = vec![v];
        while let Some(v) = stack.pop() {
            let f = self.fact(v);
            if f.known.is_some() || !seen.insert(v) {
                continue;
            }
            match self.producer(v) {
                Some((_, node)) if matches!(node.op, crate::ops::Op::Shape(_)) => {}
                Some((_, node)) if !node.op.def().is_stateful() => stack.extend(node.inputs.iter().flatten()),
                _ => return false,
            }
        }
        true
    }

    fn const_within(&self, v: ValueId, budget: &mut usize) -> Option<Arc<Tensor>> {
        let f = self.fact(v);
        if let Some(t) = f.as_const() {
            return Some(t.clone());
        }
        if let (Some(dims), Some(shape)) = (f.as_dims(), f.shape.concrete())
            && let Some(ints) = dims.iter().map(|d| d.as_const()).collect::<Option<Vec<i64>>>()
        {
            return Some(Arc::new(Tensor::from_slice(&shape, &ints).cast(f.dtype)));
        }
        *budget = budget.checked_sub(1)?;
        let (_, node) = self.producer(v)?;
        let small = |v: &ValueId| self.fact(*v).shape.concrete().is_some_and(|s| s.iter().product::<usize>() <= MAX_CONST_ELEMENTS);
        if node.op.def().is_stateful() || !node.op.def().bodies().is_empty() || !node.outputs.iter().chain(node.inputs.iter().flatten()).all(small) {
            return None;
        }
        let mut inputs = Vec::new();
        for v in &node.inputs {
            inputs.push(match v {
                None => None,
                Some(v) => Some(self.const_within(*v, budget)?),
            });
        }
        let at = node.outputs.iter().position(|o| *o == v)?;
        eval_node(node, &inputs).ok()?.into_iter().nth(at).map(Arc::new)
    }

    /// Runs the graph on inputs by name and returns the outputs in order.
    pub fn eval(&self, inputs: &HashMap<String, Arc<Tensor>>) -> Result<Vec<Arc<Tensor>>> {
        let list = self.inputs().iter().map(|p| {
            let t = inputs.get(&p.name).ok_or_else(|| err!(InvalidArgument, "input {:?} is missing", p.name))?;
            Ok(t.clone())
        });
        self.eval_list(&list.collect::<Result<Vec<_>>>()?)
    }

    /// Runs the graph on inputs in order and returns the outputs in order.
    pub fn eval_list(&self, inputs: &[Arc<Tensor>]) -> Result<Vec<Arc<Tensor>>> {
        let n = self.inputs().len();
        ensure!(inputs.len() == n, InvalidArgument, "{} inputs instead of {n}", inputs.len());
        let mut values: HashMap<ValueId, Arc<Tensor>> = HashMap::new();
        for (p, t) in self.inputs().iter().zip(inputs) {
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
