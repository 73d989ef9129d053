//! Transposes that cost nothing where they stand.
//!
//! One that swaps the last two axes in front of a `MatMul` becomes its flag, as does that part of a larger one; one that
//! only moves axes of size 1 moves no data and becomes a `Reshape`.

use super::axes::perm_of;
use super::simplify_shapes::reshape_spec;
use crate::base::Result;
use crate::network::{Graph, NodeId, Patch};
use crate::ops::Op;
use crate::ops::reshape::{Reshape, ReshapeMode};
use crate::ops::transpose::Transpose;
use crate::passes::{NodePass, PassCx};

/// See the module's text.
pub struct AbsorbTransposes;

impl NodePass for AbsorbTransposes {
    fn name(&self) -> &'static str {
        "absorb_transposes"
    }

    fn rewrite(&self, g: &Graph, cx: &PassCx<'_>, n: NodeId) -> Result<Option<Patch>> {
        match &g.node(n).op {
            Op::MatMul(_) => into_matmul(g, cx, n),
            Op::Transpose(_) => into_reshape(g, cx, n),
            _ => Ok(None),
        }
    }
}

fn into_matmul(g: &Graph, cx: &PassCx<'_>, n: NodeId) -> Result<Option<Patch>> {
    let node = g.node(n);
    for side in [0, 1] {
        let Some((_, t)) = node.inputs[side].and_then(|v| g.producer(v)) else { continue };
        let (Some(perm), Some(x)) = (perm_of(g, t), t.inputs.first().copied().flatten()) else { continue };
        let r = perm.len();
        // The axis that was innermost must be the last but one: the flag then brings it back to the end.
        if r < 2 || perm[r - 2] != r - 1 {
            continue;
        }
        let mut rest = perm.clone();
        rest.swap(r - 2, r - 1);
        let mut patch = cx.patch(g, &node.name);
        let operand = if rest.is_sorted() {
            x
        } else if g.value(t.outputs[0]).consumers.len() == 1 {
            // What is left moves whole rows, which is the cheaper copy.
            let op = Transpose { perm: rest.iter().map(|p| *p as i64).collect() };
            patch.add(g, &t.name, op.into(), &[x])?
        } else {
            continue;
        };
        let Op::MatMul(mut m) = node.op.clone() else { continue };
        if side == 0 { m.trans_a = !m.trans_a } else { m.trans_b = !m.trans_b }
        let mut ins = node.inputs.clone();
        ins[side] = Some(operand);
        let new = patch.add_node(g, &node.name, m.into(), &ins)?[0];
        patch.shunt(node.outputs[0], new);
        return Ok(Some(patch));
    }
    Ok(None)
}

fn into_reshape(g: &Graph, cx: &PassCx<'_>, n: NodeId) -> Result<Option<Patch>> {
    let node = g.node(n);
    let (Some(perm), Some(x)) = (perm_of(g, node), node.inputs[0]) else { return Ok(None) };
    let from = &g.fact(x).shape;
    let moved: Vec<usize> = perm.iter().copied().filter(|p| !from[*p].is(1)).collect();
    if !moved.is_sorted() {
        return Ok(None);
    }
    let out = node.outputs[0];
    let to = &g.fact(out).shape;
    let Some(spec) = reshape_spec(from, to) else { return Ok(None) };
    let op = Reshape { mode: ReshapeMode::Shape, spec: Some(spec), allow_zero: false };
    let mut patch = cx.patch(g, &node.name);
    let new = patch.add(g, &node.name, op.into(), &[x])?;
    if patch.shape_of(g, new) != Some(to) {
        return Ok(None);
    }
    patch.shunt(out, new);
    Ok(Some(patch))
}
