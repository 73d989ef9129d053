//! Transposes meet their inverses.
//!
//! Two in a row become one, or none. A transpose is pushed down through operators that do not care about the order of
//! axes (element-wise, `Concat`, `Pad`, `Slice`, `Reduce`, `Softmax`), when every other operand can follow it: chains
//! of a model converted from TensorFlow, NHWC to NCHW and back around each convolution, end with none in the middle.
//! It is pushed only when that adds no transpose, or when its inverse is in sight below.

use super::axes::{data_operands, inverse, other_operand, perm_of, pushed, transpose};
use super::query::{may_forward, only_reader};
use crate::base::Result;
use crate::network::{Graph, Node, NodeId, Patch, ValueId};
use crate::ops::Op;
use crate::passes::{NodePass, PassCx};
use std::collections::{HashSet, VecDeque};

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
