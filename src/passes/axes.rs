//! Operators under renamed axes: what a node becomes when a transpose of its operands moves behind it.
//!
//! Used by the passes that let transposes meet their inverses and that choose the order of channels.

use super::query::{const_ints, is_absent};
use crate::base::dims::normalize_axis;
use crate::base::{Result, Tensor};
use crate::network::{Graph, Node, Patch, ValueId};
use crate::ops::Op;
use crate::ops::transpose::{Transpose, transposed};

/// The permutation of a `Transpose` node: output axis i is input axis `perm[i]`.
pub fn perm_of(g: &Graph, node: &Node) -> Option<Vec<usize>> {
    let Op::Transpose(t) = &node.op else { return None };
    let rank = g.fact(node.outputs[0]).rank();
    if t.perm.is_empty() {
        return Some((0..rank).rev().collect());
    }
    t.perm.iter().map(|p| normalize_axis(*p, rank).ok()).collect()
}

/// The operator.
pub fn transpose(perm: &[usize]) -> Transpose {
    Transpose { perm: perm.iter().map(|p| *p as i64).collect() }
}

/// The permutation that undoes another.
pub fn inverse(perm: &[usize]) -> Vec<usize> {
    let mut inv = vec![0; perm.len()];
    for (i, p) in perm.iter().enumerate() {
        inv[*p] = i;
    }
    inv
}

/// What an operator becomes in front of the transpose, and the transpose that then follows it.
pub struct Pushed {
    pub op: Op,
    pub inputs: Vec<Option<ValueId>>,
    /// Axis i of what there was is axis `perm[i]` of what the operator gives now.
    pub perm: Vec<usize>,
}

/// Operands that a transpose can be pushed through; empty for operators that care about the order of axes.
pub fn data_operands(node: &Node) -> Vec<usize> {
    match &node.op {
        Op::Pointwise(_) | Op::Concat(_) => (0..node.inputs.len()).collect(),
        Op::Pad(_) | Op::Slice(_) | Op::Reduce(_) | Op::Gather(_) => vec![0],
        Op::Softmax(s) if !s.flatten => vec![0],
        _ => vec![],
    }
}

/// An operand without a transpose of its own, in the order of axes before `perm`: a constant is transposed now, one
/// element broadcasts in any order. `None` when it cannot follow.
pub fn other_operand(g: &Graph, node: &Node, i: usize, perm: &[usize], patch: &mut Patch) -> Result<Option<ValueId>> {
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
    Ok(Some(patch.add_const(&g.value(v).name, transposed(&t.reshaped(&shape)?, &inverse(perm))?)))
}

/// The operator with its axes renamed.
pub fn pushed(
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
        Op::Resize(r) => {
            let all: Vec<i64> = (0..rank as i64).collect();
            r.axes = Some(renamed(r.axes.as_ref().unwrap_or(&all))?);
        }
        Op::Gather(t) => {
            // A vector of indices keeps the rank.
            let Some(indices) = node.inputs[1] else { return Ok(None) };
            if g.fact(indices).rank() != 1 {
                return Ok(None);
            }
            t.axis = renamed(&[t.axis])?[0];
        }
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
