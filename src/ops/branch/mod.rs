//! One of two graphs, by a condition. Inputs: condition (bool, one element), what the first graph reads, what the
//! second reads. Both graphs are closed: everything from outside comes in as an operand.
//!
//! The runtime runs the graph that the condition selects; a dimension in which the two disagree is known only then.

use crate::base::{DType, Dim, Fact, Result, Shape, Tensor};
use crate::network::{Graph, ValueId};
use crate::ops::assume::Assume;
use crate::ops::{Body, EvalCx, ImportCx, ImportValue, InferCx, Op, OpDef, StructuralOp, fresh_dim, structural};
use crate::{bail, ensure, log_info, op_home, op_struct};
use std::sync::Arc;

op_struct! {
    /// One of two graphs. Inputs: condition, `n_then` operands of the first graph, operands of the second.
    pub struct If {
        pub then_body: Arc<Graph>,
        pub else_body: Arc<Graph>,
        pub n_then: usize,
    }
}

op_home!(If, "If", &[]);

pub const STRUCTURAL: &[StructuralOp] = &[structural("If", 1, import)];

impl If {
    /// The graph for a condition, and where its operands start and end among the node's inputs.
    pub fn branch(&self, condition: bool, n_inputs: usize) -> (&Arc<Graph>, std::ops::Range<usize>) {
        match condition {
            true => (&self.then_body, 1..1 + self.n_then),
            false => (&self.else_body, 1 + self.n_then..n_inputs),
        }
    }
}

/// The condition of a control-flow node.
pub fn condition_of(t: &Tensor) -> Result<bool> {
    ensure!(
        t.dtype() == DType::Bool && t.numel() == 1,
        InvalidArgument,
        "a condition must be one bool, got {}{:?}",
        t.dtype(),
        t.shape()
    );
    Ok(t.slice::<bool>()[0])
}

/// What holds of a value that is either of two.
fn either(a: &Fact, b: &Fact) -> Result<Fact> {
    ensure!(
        a.dtype == b.dtype && a.rank() == b.rank(),
        Unsupported,
        "the branches give {a} and {b}: they must agree in element type and rank unless the condition is constant"
    );
    let dims = a.shape.iter().zip(b.shape.iter());
    let dims: Vec<Dim> = dims.map(|(a, b)| if a == b { a.clone() } else { fresh_dim("if") }).collect();
    Ok(Fact::new(a.dtype, Shape(dims)))
}

impl OpDef for If {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Vec<Fact>> {
        let (a, b) = (&self.then_body, &self.else_body);
        let n = 1 + a.inputs().len() + b.inputs().len();
        ensure!(cx.n_inputs() == n && self.n_then == a.inputs().len(), InvalidArgument, "the branches read {n} operands");
        ensure!(a.outputs().len() == b.outputs().len(), InvalidArgument, "the branches differ in their number of outputs");
        let condition = cx.input(0)?;
        ensure!(condition.dtype == DType::Bool, InvalidArgument, "the condition is {condition}, not bool");
        let ports = a.inputs().iter().map(|p| a.fact(p.value)).chain(b.inputs().iter().map(|p| b.fact(p.value)));
        for (i, f) in ports.enumerate() {
            let x = cx.input(1 + i)?;
            ensure!(x.dtype == f.dtype && x.rank() == f.rank(), InvalidArgument, "operand {}: expected {f}, got {x}", 1 + i);
        }
        a.outputs().iter().zip(b.outputs()).map(|(p, q)| either(a.fact(p.value), b.fact(q.value))).collect()
    }

    fn eval(&self, cx: &EvalCx<'_>) -> Result<Vec<Tensor>> {
        let (body, range) = self.branch(condition_of(cx.input(0)?)?, cx.inputs.len());
        let inputs: Vec<Arc<Tensor>> = range.map(|i| cx.input(i).map(|t| Arc::new(t.clone()))).collect::<Result<_>>()?;
        Ok(body.eval_list(&inputs)?.into_iter().map(Arc::unwrap_or_clone).collect())
    }

    fn bodies(&self) -> Vec<&Arc<Graph>> {
        vec![&self.then_body, &self.else_body]
    }

    fn with_bodies(&self, bodies: Vec<Arc<Graph>>) -> Option<Op> {
        let [then_body, else_body] = bodies.try_into().ok()?;
        Some(If { then_body, else_body, n_then: self.n_then }.into())
    }
}

/// Branches of different rank, as exporters write a squeeze of an axis that might not be 1: the one of the lower rank is
/// what the network was written for. That the condition agrees is checked when shapes are set.
fn assume(cx: &mut ImportCx<'_>, condition: ValueId, holds: bool) -> Result<Vec<ImportValue>> {
    let branch = if holds { "then_branch" } else { "else_branch" };
    log_info!("{:?}: the branches give different ranks; {branch} is taken, and its condition checked with the shapes", cx.name);
    let what = format!("the other branch than {branch} of {:?}", cx.name);
    let mut out = Vec::new();
    for v in cx.inline(branch, &[])? {
        let ImportValue::Tensor(v) = v else { bail!(Unsupported, "a branch gives a sequence") };
        out.push(ImportValue::Tensor(cx.add(Assume { holds, what: what.clone() }, &[v, condition])?));
    }
    Ok(out)
}

fn import(cx: &mut ImportCx<'_>) -> Result<Vec<ImportValue>> {
    let condition = cx.input(0)?;
    cx.attrs.ignore("then_branch");
    cx.attrs.ignore("else_branch");
    if let Some(t) = cx.graph.const_value(condition) {
        return cx.inline(if condition_of(&t)? { "then_branch" } else { "else_branch" }, &[]);
    }
    let a = cx.body("then_branch", &[])?;
    let b = cx.body("else_branch", &[])?;
    let ranks = |b: &Body| b.graph.outputs().iter().map(|p| b.graph.fact(p.value).rank()).collect::<Vec<_>>();
    let (in_a, in_b) = (ranks(&a), ranks(&b));
    if in_a != in_b && in_a.len() == in_b.len() && cx.graph.follows_from_shapes(condition) {
        return assume(cx, condition, in_a.iter().sum::<usize>() < in_b.iter().sum());
    }
    let mut inputs = vec![Some(condition)];
    inputs.extend(a.captures.iter().chain(&b.captures).map(|v| Some(*v)));
    let n_then = a.captures.len();
    let op = If { then_body: Arc::new(a.graph), else_body: Arc::new(b.graph), n_then };
    Ok(cx.add_multi(op, &inputs)?.into_iter().map(ImportValue::Tensor).collect())
}
