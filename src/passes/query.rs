//! Questions that several passes ask of a graph, and the names of merged nodes.

use crate::base::{DType, Dim, Tensor};
use crate::network::{Graph, Node, NodeId, ValueId};
use crate::ops::Op;
use crate::ops::pointwise::{Func, Pointwise, Program};

/// The program of a `Pointwise` node with one output and no absent operand.
pub fn pointwise(node: &Node) -> Option<&Program> {
    match &node.op {
        Op::Pointwise(Pointwise { program })
            if node.outputs.len() == 1 && program.outputs.len() == 1 && node.inputs.iter().all(|v| v.is_some()) =>
        {
            Some(program)
        }
        _ => None,
    }
}

/// The operands of a node that has none absent.
pub fn operands(node: &Node) -> Vec<ValueId> {
    node.inputs.iter().flatten().copied().collect()
}

/// The node that alone reads `v`, however often it does; `None` when `v` is a graph output.
pub fn only_reader(g: &Graph, v: ValueId) -> Option<NodeId> {
    let consumers = &g.value(v).consumers;
    let first = *consumers.first()?;
    (consumers.iter().all(|c| *c == first) && !g.is_output(v)).then_some(first)
}

/// The element of a constant with one element.
pub fn const_scalar(g: &Graph, v: ValueId) -> Option<f64> {
    g.as_const(v).and_then(|t| t.scalar_f64())
}

/// The numbers of an integer operand when all are known.
pub fn const_ints(g: &Graph, node: &Node, i: usize) -> Option<Vec<i64>> {
    let v = node.inputs.get(i).copied().flatten()?;
    g.fact(v).as_dims()?.iter().map(|d| d.as_const()).collect()
}

/// True when the optional operand `i` is absent.
pub fn is_absent(node: &Node, i: usize) -> bool {
    node.inputs.get(i).copied().flatten().is_none()
}

/// True when every reader of `old` may read the older value `new` instead: an output keeps a node of its own.
pub fn may_forward(g: &Graph, old: ValueId, new: ValueId) -> bool {
    !g.is_output(old) || (g.value(new).producer.is_some() && !g.is_output(new))
}

/// The values of a constant along one axis of an output of rank `rank`, when it does not vary along the others.
/// One element when it does not vary at all.
pub fn along_axis(t: &Tensor, rank: usize, axis: usize) -> Option<Vec<f64>> {
    let lead = rank.checked_sub(t.rank())?;
    let varies_elsewhere = t.shape().iter().enumerate().any(|(i, d)| *d != 1 && i + lead != axis);
    (!varies_elsewhere && t.numel() > 0).then(|| t.to_f64s())
}

/// A program that only converts its one input.
pub fn is_cast(p: &Program) -> bool {
    p.as_single() == Some(Func::Cast)
}

/// The tensor's shape as numbers or symbols equals another's, provably.
pub fn same_shape(g: &Graph, a: ValueId, b: ValueId) -> bool {
    g.fact(a).shape == g.fact(b).shape
}

/// Bytes of a value, when its shape is known.
pub fn n_bytes(g: &Graph, v: ValueId) -> Option<usize> {
    let f = g.fact(v);
    f.shape.concrete()?.iter().try_fold(f.dtype.size(), |n, d| n.checked_mul(*d))
}

/// Equal number of elements whatever the symbols are.
pub fn same_numel(g: &Graph, a: ValueId, b: ValueId) -> bool {
    let n = |v: ValueId| -> Dim { g.fact(v).shape.numel() };
    n(a) == n(b)
}

/// A tensor of `dtype` from f64 elements; `None` when a finite one does not stay finite.
pub fn tensor_from(dtype: DType, shape: &[usize], data: &[f64]) -> Option<Tensor> {
    let t = Tensor::from_slice(shape, data).cast(dtype);
    t.to_f64s().iter().all(|v| v.is_finite()).then_some(t)
}

/// Name of a node made of two: `conv1 + relu1`, shortened in the middle when long.
pub fn join_names(a: &str, b: &str) -> String {
    const MAX: usize = 240;
    let mut parts: Vec<&str> = a.split(" + ").filter(|p| *p != "...").collect();
    let len = a.len() + b.len();
    if len <= MAX {
        return format!("{a} + {b}");
    }
    // The first names say where the work is, the last where the result goes.
    while parts.len() > 2 && parts.iter().map(|p| p.len() + 3).sum::<usize>() + b.len() + 6 > MAX {
        parts.pop();
    }
    format!("{} + ... + {}", parts.join(" + "), b.rsplit(" + ").next().unwrap_or(b))
}
