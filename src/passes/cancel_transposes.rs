//! Transposes meet their inverses.
//!
//! Two in a row become one, or none. A transpose is pushed down through operators that do not care about the order of
//! axes (element-wise, `Concat`, `Pad`, `Slice`, `Reduce`, `Softmax`), when every other operand can follow it: chains
//! of a model converted from TensorFlow, NHWC to NCHW and back around each convolution, end with none in the middle.
//! It is pushed only when that adds no transpose, or when its inverse is in sight below.

use super::query::{const_ints, is_absent, may_forward, only_reader};
use crate::base::dims::normalize_axis;
use crate::base::{Result, Tensor};
use crate::network::{Graph, Node, NodeId, Patch, ValueId, eval};
use crate::ops::Op;
use crate::ops::transpose::Transpose;
use crate::passes::{NodePass, PassCx};
use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

/// Nodes that are looked at below for an inverse.
const HORIZON: usize = 24;

/// See the module's text.
pub struct CancelTransposes;

impl NodePass for CancelTransposes {
    fn name(&self) -> &'static str {
        "cancel_transposes"
    }

    fn rewrite(&self, g: &Graph, cx: &PassCx<'_>, n: NodeId) -> Result<Option<Patch>> {
        let node = g.node(n);
        match perm_of(g, node) {
            Some(perm) => merge(g, cx, node, &perm),
            None => push_down(g, cx, n),
        }
    }
}

/// The permutation of a `Transpose` node: output axis i is input axis `perm[i]`.
pub fn perm_of(g: &Graph, node: &Node) -> Option<Vec<usize>> {
    let Op::Transpose(t) = &node.op else { return None };
    let rank = g.fact(node.outputs[0]).rank();
    if t.perm.is_empty() {
        return Some((0..rank).rev().collect());
    }
    t.perm.iter().map(|p| normalize_axis(*p, rank).ok()).collect()
}

fn transpose(perm: &[usize]) -> Transpose {
    Transpose { perm: perm.iter().map(|p| *p as i64).collect() }
}

fn inverse(perm: &[usize]) -> Vec<usize> {
    let mut inv = vec![0; perm.len()];
    for (i, p) in perm.iter().enumerate() {
        inv[*p] = i;
    }
    inv
}

/// `transpose(transpose(x))` as one, or as x.
fn merge(g: &Graph, cx: &PassCx<'_>, node: &Node, outer: &[usize]) -> Result<Option<Patch>> {
    let (Some(y), out) = (node.inputs[0], node.outputs[0]) else { return Ok(None) };
    let Some((_, first)) = g.producer(y) else { return Ok(None) };
    let (Some(inner), Some(x)) = (perm_of(g, first), first.inputs.first().copied().flatten()) else {
        return Ok(None);
    };
    let joint: Vec<usize> = outer.iter().map(|p| inner[*p]).collect();
    let mut patch = cx.patch(g, &node.name);
    if joint.is_sorted() && may_forward(g, out, x) {
        patch.shunt(out, x);
    } else {
        let new = patch.add(g, &node.name, transpose(&joint).into(), &[x])?;
        patch.shunt(out, new);
    }
    Ok(Some(patch))
}

/// What an operator becomes in front of the transpose, and the transpose that then follows it.
struct Pushed {
    op: Op,
    inputs: Vec<Option<ValueId>>,
    perm: Vec<usize>,
}

fn push_down(g: &Graph, cx: &PassCx<'_>, n: NodeId) -> Result<Option<Patch>> {
    let node = g.node(n);
    let [out] = node.outputs.as_slice() else { return Ok(None) };
    let data = data_operands(node);
    if data.is_empty() {
        return Ok(None);
    }
    let transposed = |i: usize| -> Option<(Vec<usize>, ValueId, ValueId)> {
        let v = node.inputs[i]?;
        let (_, t) = g.producer(v)?;
        Some((perm_of(g, t)?, t.inputs.first().copied().flatten()?, v))
    };
    let Some((perm, _, _)) = data.iter().find_map(|i| transposed(*i)) else { return Ok(None) };
    let mut patch = cx.patch(g, &node.name);
    let mut inputs = node.inputs.clone();
    let mut read = HashSet::new();
    for i in &data {
        match transposed(*i) {
            Some((p, x, v)) if p == perm => {
                inputs[*i] = Some(x);
                read.insert(v);
            }
            Some(_) => return Ok(None),
            None => match other_operand(g, node, *i, &perm, &mut patch)? {
                Some(v) => inputs[*i] = Some(v),
                None => return Ok(None),
            },
        }
    }
    let adds_none = read.iter().all(|v| only_reader(g, *v) == Some(n)) && !matches!(node.op, Op::Softmax(_));
    if !adds_none && !meets_inverse(g, *out, &inverse(&perm)) {
        return Ok(None);
    }
    let Some(pushed) = pushed(g, node, inputs, perm, &mut patch)? else { return Ok(None) };
    let mid = patch.add_node(g, &node.name, pushed.op, &pushed.inputs)?[0];
    let new = patch.add(g, &format!("{}/transpose", node.name), transpose(&pushed.perm).into(), &[mid])?;
    patch.shunt(*out, new);
    Ok(Some(patch))
}

/// Operands that a transpose can be pushed through; empty for operators that care about the order of axes.
fn data_operands(node: &Node) -> Vec<usize> {
    match &node.op {
        Op::Pointwise(_) | Op::Concat(_) => (0..node.inputs.len()).collect(),
        Op::Pad(_) | Op::Slice(_) | Op::Reduce(_) => vec![0],
        Op::Softmax(s) if !s.flatten => vec![0],
        _ => vec![],
    }
}

/// An operand without a transpose of its own, in the order of axes before `perm`: a constant is transposed now, one
/// element broadcasts in any order. `None` when it cannot follow.
fn other_operand(g: &Graph, node: &Node, i: usize, perm: &[usize], patch: &mut Patch) -> Result<Option<ValueId>> {
    let Some(v) = node.inputs[i] else { return Ok(None) };
    let is_pointwise = matches!(node.op, Op::Pointwise(_));
    let f = g.fact(v);
    if is_pointwise && f.rank() <= perm.len() && f.shape.iter().all(|d| d.is(1)) {
        return Ok(Some(v));
    }
    let Some(t) = g.as_const(v) else { return Ok(None) };
    if t.rank() > perm.len() || (t.rank() < perm.len() && !is_pointwise) {
        return Ok(None);
    }
    let mut shape = vec![1; perm.len() - t.rank()];
    shape.extend(t.shape());
    let aligned = Arc::new(t.reshaped(&shape)?);
    Ok(Some(patch.add_const(&g.value(v).name, transposed_const(aligned, &inverse(perm))?)))
}

fn transposed_const(t: Arc<Tensor>, perm: &[usize]) -> Result<Tensor> {
    let node =
        Node { name: "constant".into(), op: transpose(perm).into(), inputs: vec![Some(ValueId(0))], outputs: vec![] };
    let mut out = eval::eval_node(&node, &[Some(t)])?;
    Ok(out.swap_remove(0))
}

/// The operator with its axes renamed.
fn pushed(
    g: &Graph,
    node: &Node,
    mut inputs: Vec<Option<ValueId>>,
    perm: Vec<usize>,
    patch: &mut Patch,
) -> Result<Option<Pushed>> {
    let rank = perm.len();
    let renamed = |axes: &[i64]| -> Result<Vec<i64>> {
        axes.iter().map(|a| Ok(perm[normalize_axis(*a, rank)?] as i64)).collect()
    };
    let mut op = node.op.clone();
    match &mut op {
        Op::Pointwise(_) => {
            // A transposed operand of lower rank than the result would line up differently.
            if g.fact(node.outputs[0]).rank() != rank {
                return Ok(None);
            }
        }
        Op::Concat(c) => c.axis = renamed(&[c.axis])?[0],
        Op::Softmax(s) => s.axis = renamed(&[s.axis])?[0],
        Op::Pad(_) | Op::Slice(_) => {
            // All axes in order where none are given; operand 3 holds them for both operators.
            let axes = if is_absent(node, 3) {
                let n = match (&node.op, const_ints(g, node, 1)) {
                    (Op::Slice(_), Some(starts)) => starts.len(),
                    (Op::Slice(_), None) => return Ok(None),
                    _ => rank,
                };
                (0..n as i64).collect()
            } else {
                let Some(axes) = const_ints(g, node, 3) else { return Ok(None) };
                axes
            };
            let axes = renamed(&axes)?;
            inputs.resize(inputs.len().max(4), None);
            let t = Tensor::from_slice(&[axes.len()], &axes);
            inputs[3] = Some(patch.add_const(&format!("{}/axes", node.name), t));
        }
        Op::Reduce(r) => {
            let axes = match (&r.axes, is_absent(node, 1)) {
                (Some(axes), _) => axes.clone(),
                (None, false) => match const_ints(g, node, 1) {
                    Some(axes) => axes,
                    None => return Ok(None),
                },
                (None, true) => vec![],
            };
            if axes.is_empty() {
                return Ok(None);
            }
            let renamed = renamed(&axes)?;
            inputs.truncate(1);
            r.axes = Some(renamed.clone());
            if !r.keepdims {
                let left: Vec<usize> = perm.iter().copied().filter(|p| !renamed.contains(&(*p as i64))).collect();
                let rank_among = |p: &usize| left.iter().filter(|q| *q < p).count();
                let perm = left.iter().map(rank_among).collect();
                return Ok(Some(Pushed { op, inputs, perm }));
            }
        }
        _ => return Ok(None),
    }
    Ok(Some(Pushed { op, inputs, perm }))
}

/// A transpose by `inverse` can be reached from `v` through operators that let one pass.
fn meets_inverse(g: &Graph, v: ValueId, inverse: &[usize]) -> bool {
    let mut queue = VecDeque::from([v]);
    let mut seen = HashSet::new();
    while let Some(v) = queue.pop_front() {
        for c in &g.value(v).consumers {
            if seen.len() >= HORIZON || !seen.insert(*c) {
                continue;
            }
            let node = g.node(*c);
            match perm_of(g, node) {
                Some(p) if p == inverse => return true,
                Some(_) => {}
                None if !data_operands(node).is_empty() => queue.extend(&node.outputs),
                None => {}
            }
        }
    }
    false
}
