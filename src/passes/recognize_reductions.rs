//! Reductions that a model spells out become the one that does all of it: sums of squares and of magnitudes, their roots,
//! logarithms of sums, also of exponentials, and the logarithm of a softmax.
//!
//! The one node reads its operand once and keeps the sum in f32 or f64; a logarithm of exponentials that are summed first
//! overflows where the one node does not.

use super::query::{join_names, only_reader, operands, pointwise, same_shape};
use super::simplify_pointwise::merge_equal;
use crate::base::Result;
use crate::bail;
use crate::network::{Graph, Node, NodeId, Patch, ValueId};
use crate::ops::Op;
use crate::ops::pointwise::{Func, Program};
use crate::ops::reduce::{Reduce, ReduceKind};
use crate::ops::softmax::Softmax;
use crate::passes::{NodePass, PassCx};

/// See the module's text.
pub struct RecognizeReductions;

impl NodePass for RecognizeReductions {
    fn name(&self) -> &'static str {
        "recognize_reductions"
    }

    fn rewrite(&self, g: &Graph, cx: &PassCx<'_>, n: NodeId) -> Result<Option<Patch>> {
        let node = g.node(n);
        match &node.op {
            Op::Reduce(op) => match before(g, cx, node, op)? {
                Some(patch) => Ok(Some(patch)),
                None => after(g, cx, node, op),
            },
            Op::Softmax(op) if !op.log => log_softmax(g, cx, node, op),
            _ => Ok(None),
        }
    }
}

/// The function that a program of one operand is, and that operand; a product with itself counts as a square.
fn function(node: &Node) -> Option<(Function, ValueId)> {
    let (p, ins) = merge_equal(pointwise(node)?.clone(), operands(node));
    let [x] = ins[..] else { return None };
    Some((Function::of(&p)?, x))
}

#[derive(Clone, Copy, PartialEq)]
enum Function {
    Square,
    Abs,
    Exp,
    Log,
    Sqrt,
}

impl Function {
    fn of(p: &Program) -> Option<Function> {
        let [.., last] = &p.instrs[..] else { return None };
        let is_last = *p.outputs.first()? as usize == p.n_inputs() + p.instrs.len() - 1;
        let constant = |r: u16| (r as usize).checked_sub(p.n_inputs()).map(|i| &p.instrs[i]).filter(|i| i.func == Func::Const);
        Some(match (last.func, p.instrs.len()) {
            _ if !is_last => return None,
            (Func::Mul, 1) if last.args == [0, 0] => Function::Square,
            (Func::Pow, 2) if last.args[0] == 0 && constant(last.args[1]).is_some_and(|c| c.value == 2.0) => Function::Square,
            (Func::Abs, 1) => Function::Abs,
            (Func::Exp, 1) => Function::Exp,
            (Func::Log, 1) => Function::Log,
            (Func::Sqrt, 1) => Function::Sqrt,
            _ => return None,
        })
    }
}

/// What is summed is a square or a magnitude: the reduction's kind says so instead.
fn before(g: &Graph, cx: &PassCx<'_>, node: &Node, op: &Reduce) -> Result<Option<Patch>> {
    if op.kind != ReduceKind::Sum {
        return Ok(None);
    }
    let Some((_, producer)) = node.inputs[0].and_then(|v| g.producer(v)) else { return Ok(None) };
    let Some((f, x)) = function(producer) else { return Ok(None) };
    let kind = match f {
        Function::Square => ReduceKind::SumSquare,
        Function::Abs => ReduceKind::L1,
        _ => return Ok(None),
    };
    if only_reader(g, producer.outputs[0]).is_none() {
        bail!(Unsupported, "what {:?} gives has other readers", producer.name);
    }
    if !g.fact(x).dtype.is_float() {
        bail!(Unsupported, "{:?} is of {}, which wraps around", producer.name, g.fact(x).dtype);
    }
    let mut ins = node.inputs.clone();
    ins[0] = Some(x);
    replace(g, cx, &producer.name, node, Reduce { kind, ..op.clone() }.into(), &ins, node.outputs[0])
}

/// A root or a logarithm of the sum is its kind too.
fn after(g: &Graph, cx: &PassCx<'_>, node: &Node, op: &Reduce) -> Result<Option<Patch>> {
    let out = node.outputs[0];
    let Some(reader) = only_reader(g, out).map(|r| g.node(r)) else { return Ok(None) };
    let Some((f, _)) = function(reader) else { return Ok(None) };
    let mut ins = node.inputs.clone();
    let mut first = node.name.as_str();
    let kind = match (op.kind, f) {
        (ReduceKind::SumSquare, Function::Sqrt) => ReduceKind::L2,
        (ReduceKind::Sum, Function::Log) => {
            let producer = ins[0].and_then(|v| g.producer(v)).map(|(_, p)| p);
            match producer.and_then(|p| Some((p, function(p)?))) {
                Some((p, (Function::Exp, x))) if only_reader(g, p.outputs[0]).is_some() => {
                    ins[0] = Some(x);
                    first = &p.name;
                    ReduceKind::LogSumExp
                }
                _ => ReduceKind::LogSum,
            }
        }
        _ => return Ok(None),
    };
    if !g.fact(out).dtype.is_float() || !same_shape(g, out, reader.outputs[0]) {
        return Ok(None);
    }
    let name = if first == node.name { node.name.clone() } else { join_names(first, &node.name) };
    replace(g, cx, &name, reader, Reduce { kind, ..op.clone() }.into(), &ins, reader.outputs[0])
}

fn log_softmax(g: &Graph, cx: &PassCx<'_>, node: &Node, op: &Softmax) -> Result<Option<Patch>> {
    let Some(reader) = only_reader(g, node.outputs[0]).map(|r| g.node(r)) else { return Ok(None) };
    match function(reader) {
        Some((Function::Log, _)) => {
            replace(g, cx, &node.name, reader, Softmax { log: true, ..op.clone() }.into(), &node.inputs, reader.outputs[0])
        }
        _ => Ok(None),
    }
}

/// One node, named after `first` and `last`, in place of what gave `end`.
fn replace(
    g: &Graph,
    cx: &PassCx<'_>,
    first: &str,
    last: &Node,
    op: Op,
    ins: &[Option<ValueId>],
    end: ValueId,
) -> Result<Option<Patch>> {
    let mut patch = cx.patch(g, &last.name);
    let new = patch.add_node(g, &join_names(first, &last.name), op, ins)?[0];
    if patch.shape_of(g, new) != Some(&g.fact(end).shape) {
        return Ok(None);
    }
    patch.shunt(end, new);
    Ok(Some(patch))
}
