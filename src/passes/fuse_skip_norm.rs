//! A residual sum computed inside the normalization that reads it.
//!
//! `Normalize` takes a second tensor that is added first, and gives the sum too when there are other readers. Only sums
//! that are a kernel of their own are taken: one that is a product's epilogue costs nothing there, and one behind other
//! element-wise nodes is better fused with them.

use super::query::{join_names, only_reader, operands, pointwise, same_shape};
use crate::base::Result;
use crate::bail;
use crate::network::{Graph, NodeId, Patch, ValueId};
use crate::ops::Op;
use crate::ops::normalize::{Affine, Normalize};
use crate::ops::pointwise::Func;
use crate::passes::{NodePass, PassCx};

/// See the module's text.
pub struct FuseSkipNorm;

/// Position of the tensor that is added, behind x, scale and bias.
const SKIP: usize = 3;

impl NodePass for FuseSkipNorm {
    fn name(&self) -> &'static str {
        "fuse_skip_norm"
    }

    fn rewrite(&self, g: &Graph, cx: &PassCx<'_>, n: NodeId) -> Result<Option<Patch>> {
        let node = g.node(n);
        let Op::Normalize(op) = &node.op else { return Ok(None) };
        if op.groups > 0 || op.affine != Affine::Row || op.stats || op.sum || node.inputs.len() > SKIP {
            return Ok(None);
        }
        let Some(x) = node.inputs[0] else { return Ok(None) };
        let Some((_, sum)) = g.producer(x) else { return Ok(None) };
        if pointwise(sum).and_then(|p| p.as_single()) != Some(Func::Add) {
            return Ok(None);
        }
        let ins = operands(sum);
        let same = |v: &ValueId| same_shape(g, *v, x) && g.fact(*v).dtype == g.fact(x).dtype;
        if !ins.iter().all(same) || ins[0] == ins[1] {
            bail!(Unsupported, "{:?} adds tensors of other shapes", sum.name);
        }
        if let Some((_, p)) = ins.iter().filter_map(|v| g.producer(*v).filter(|_| only_reader(g, *v).is_some())).find(|(_, p)| pointwise(p).is_some()) {
            bail!(Unsupported, "{:?} is fused with {:?} in front of it instead", sum.name, p.name);
        }
        // Another reader of the sum could lead here.
        if node.inputs.iter().skip(1).flatten().any(|v| g.as_const(*v).is_none()) {
            bail!(Unsupported, "scale or bias is computed");
        }
        let keeps = only_reader(g, x).is_none();
        let op = Normalize { sum: keeps, ..op.clone() };
        let mut inputs = node.inputs.clone();
        inputs[0] = Some(ins[0]);
        inputs.resize(SKIP, None);
        inputs.push(Some(ins[1]));
        let mut patch = cx.patch(g, &node.name);
        let new = patch.add_node(g, &join_names(&sum.name, &node.name), op.into(), &inputs)?;
        patch.shunt(node.outputs[0], new[0]);
        if keeps {
            patch.shunt(x, new[1]);
        }
        Ok(Some(patch))
    }
}
