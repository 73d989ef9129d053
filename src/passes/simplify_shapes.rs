//! Nodes that only say something about shapes: those that change nothing go, two in a row become one, and targets
//! that are known move from an operand into the attributes.
//!
//! "Changes nothing" is proved: dimensions are compared in their canonical form, so `[n,3]` reshaped to `[n,3]` goes
//! for every n. What elements a shape vector has is found by inference; `fold_constants` turns those that are numbers
//! into constants.

use super::query::{const_ints, is_absent, may_forward, pointwise, same_shape};
use crate::base::{Result, Shape};
use crate::network::{Graph, Node, NodeId, Patch, ValueId};
use crate::ops::Op;
use crate::ops::reshape::{Reshape, ReshapeMode};
use crate::ops::resize::CoordinateMode;
use crate::passes::{NodePass, PassCx};

/// See the module's text.
pub struct SimplifyShapes;

impl NodePass for SimplifyShapes {
    fn name(&self) -> &'static str {
        "simplify_shapes"
    }

    fn rewrite(&self, g: &Graph, cx: &PassCx<'_>, n: NodeId) -> Result<Option<Patch>> {
        let node = g.node(n);
        if let Some(x) = unchanged_operand(g, node) {
            let out = node.outputs[0];
            if may_forward(g, out, x) {
                let mut patch = cx.patch(g, &node.name);
                patch.shunt(out, x);
                return Ok(Some(patch));
            }
        }
        match &node.op {
            Op::Reshape(r) => shorten_reshape(g, cx, node, r),
            Op::Pointwise(_) => drop_expand(g, cx, node),
            _ => Ok(None),
        }
    }
}

/// The operand that the node's only output provably equals.
fn unchanged_operand(g: &Graph, node: &Node) -> Option<ValueId> {
    let x = node.inputs.first().copied().flatten()?;
    let [out] = node.outputs.as_slice() else { return None };
    let same = same_shape(g, x, *out) && g.fact(x).dtype == g.fact(*out).dtype;
    let unchanged = match &node.op {
        Op::Reshape(_) | Op::Expand(_) => same,
        Op::Concat(_) => node.inputs.len() == 1,
        Op::Transpose(t) => t.perm.iter().enumerate().all(|(i, p)| i as i64 == *p),
        // Of equal size and with positive steps there is nothing that a slice can leave out.
        Op::Slice(_) => {
            let steps_are_positive =
                is_absent(node, 4) || const_ints(g, node, 4).is_some_and(|s| s.iter().all(|s| *s > 0));
            same && steps_are_positive
        }
        Op::Pad(_) => same && const_ints(g, node, 1).is_some_and(|p| p.iter().all(|p| *p == 0)),
        // At scale 1 each output coordinate is an input coordinate, in every mode but the cropping one.
        Op::Resize(r) => {
            let exact = match node.inputs.get(2).copied().flatten().and_then(|v| g.as_const(v)) {
                Some(scales) if scales.numel() > 0 => scales.to_f64s().iter().all(|s| *s == 1.0),
                _ => !is_absent(node, 3),
            };
            same && exact && r.coordinates != CoordinateMode::TfCropAndResize
        }
        _ => false,
    };
    unchanged.then_some(x)
}

/// A reshape without a shape operand, and straight from what an earlier reshape read.
fn shorten_reshape(g: &Graph, cx: &PassCx<'_>, node: &Node, r: &Reshape) -> Result<Option<Patch>> {
    let (Some(mut x), out) = (node.inputs[0], node.outputs[0]) else { return Ok(None) };
    let mut shorter = false;
    while let Some((_, inner)) = g.producer(x) {
        match (&inner.op, inner.inputs.first().copied().flatten()) {
            (Op::Reshape(_), Some(first)) => x = first,
            _ => break,
        }
        shorter = true;
    }
    let takes_operand = r.mode == ReshapeMode::Shape && !is_absent(node, 1);
    if !shorter && !takes_operand {
        return Ok(None);
    }
    let (from, to) = (&g.fact(x).shape, &g.fact(out).shape);
    let mut patch = cx.patch(g, &node.name);
    if shorter && from == to && may_forward(g, out, x) {
        patch.shunt(out, x);
        return Ok(Some(patch));
    }
    let Some(spec) = reshape_spec(from, to) else { return Ok(None) };
    let op = Reshape { mode: ReshapeMode::Shape, spec: Some(spec), allow_zero: false };
    let new = patch.add(g, &node.name, op.into(), &[x])?;
    if patch.shape_of(g, new) != Some(to) {
        return Ok(None);
    }
    patch.shunt(out, new);
    Ok(Some(patch))
}

/// The target `to` as numbers, with 0 for "as in the input" and one -1 for "what is left"; `None` when that does not
/// describe it.
pub fn reshape_spec(from: &Shape, to: &Shape) -> Option<Vec<i64>> {
    let mut spec = Vec::new();
    let mut open = 0;
    for (i, d) in to.iter().enumerate() {
        spec.push(match d.as_const() {
            Some(0) => return None,
            Some(v) => v,
            None if from.get(i) == Some(d) => 0,
            None => {
                open += 1;
                -1
            }
        });
    }
    (open <= 1).then_some(spec)
}

/// Broadcasting does what an `Expand` in front of an element-wise node did.
fn drop_expand(g: &Graph, cx: &PassCx<'_>, node: &Node) -> Result<Option<Patch>> {
    if pointwise(node).is_none() {
        return Ok(None);
    }
    let out = node.outputs[0];
    for (i, v) in node.inputs.iter().enumerate() {
        let Some((_, producer)) = v.and_then(|v| g.producer(v)) else { continue };
        let (Op::Expand(_), Some(small)) = (&producer.op, producer.inputs[0]) else { continue };
        let mut ins = node.inputs.clone();
        ins[i] = Some(small);
        let mut patch = cx.patch(g, &node.name);
        let new = patch.add_node(g, &node.name, node.op.clone(), &ins)?[0];
        if patch.shape_of(g, new) == Some(&g.fact(out).shape) {
            patch.shunt(out, new);
            return Ok(Some(patch));
        }
    }
    Ok(None)
}
