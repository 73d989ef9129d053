//! An element-wise node computed inside its element-wise reader, so that what is between never reaches memory.
//!
//! A producer goes into its only reader when both give the same number of elements: across a broadcast it would be
//! computed again for every element. A lone conversion goes into each of its readers, however many: reading the
//! narrower type is what it saves. Programs stay within `MAX_INPUTS` operands and `MAX_FUSED` instructions.

use super::query::{is_cast, join_names, only_reader, operands, pointwise, same_numel};
use super::simplify_pointwise::{merge_equal, shorten};
use crate::base::Result;
use crate::bail;
use crate::network::{Graph, NodeId, Patch};
use crate::ops::pointwise::{Pointwise, Program};
use crate::passes::{NodePass, PassCx};

/// Operands of a fused program: each is a pointer with strides in a kernel's argument list.
pub const MAX_INPUTS: usize = 10;
/// Instructions of a fused program: beyond it registers spill and compile time grows, and nothing is won.
pub const MAX_FUSED: usize = 60;

/// See the module's text.
pub struct FusePointwise;

impl NodePass for FusePointwise {
    fn name(&self) -> &'static str {
        "fuse_pointwise"
    }

    fn rewrite(&self, g: &Graph, cx: &PassCx<'_>, n: NodeId) -> Result<Option<Patch>> {
        let node = g.node(n);
        let Some(outer) = pointwise(node) else { return Ok(None) };
        let out = node.outputs[0];
        // A value that is read twice is inlined once.
        let (outer, ins) = merge_equal(outer.clone(), operands(node));
        let mut reason = None;
        for (at, v) in ins.iter().enumerate() {
            let Some((_, producer)) = g.producer(*v) else { continue };
            let Some(inner) = pointwise(producer) else { continue };
            let alone = only_reader(g, *v) == Some(n);
            if !(alone && same_numel(g, *v, out) || is_cast(inner)) {
                continue;
            }
            let program = outer.inline(at, inner, 0)?;
            let mut joint = operands(producer);
            joint.extend(ins.iter().enumerate().filter(|(i, _)| *i != at).map(|(_, v)| *v));
            let (program, joint) = shorten(g, &program, &joint)?;
            if let Err(e) = check_limits(&program) {
                reason = Some(e);
                continue;
            }
            let name = if alone { join_names(&producer.name, &node.name) } else { node.name.clone() };
            let mut patch = cx.patch(g, &node.name);
            let new = patch.add(g, &name, Pointwise { program }.into(), &joint)?;
            if patch.shape_of(g, new) != Some(&g.fact(out).shape) {
                reason = Some(crate::err!(Unsupported, "without {:?} the result has another shape", producer.name));
                continue;
            }
            patch.shunt(out, new);
            return Ok(Some(patch));
        }
        reason.map_or(Ok(None), Err)
    }
}

/// Refuses programs that are too large for one kernel.
pub fn check_limits(p: &Program) -> Result<()> {
    if p.n_inputs() > MAX_INPUTS {
        bail!(Unsupported, "the fused program would have {} operands, more than {MAX_INPUTS}", p.n_inputs());
    }
    if p.instrs.len() > MAX_FUSED {
        bail!(Unsupported, "the fused program would have {} instructions, more than {MAX_FUSED}", p.instrs.len());
    }
    Ok(())
}
