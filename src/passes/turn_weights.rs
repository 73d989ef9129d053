//! Constant matrices on the right of a product lie with neighbours along the sum, where the device reads them faster so.
//!
//! On Hopper, in half types: tiles whose columns are no multiple of 64, and the kernel for few rows, load whole pieces
//! along k only. A constant that something else reads as it is stays, since it would be in memory twice.

use super::query::only_reader;
use crate::base::{DType, Result, Tensor};
use crate::ensure;
use crate::network::{Graph, NodeId, Patch};
use crate::ops::Op;
use crate::passes::{NodePass, PassCx, Target};

/// See the module's text.
pub struct TurnWeights;

/// Elements of a row that tensor maps need whole.
const PIECE: usize = 8;

impl NodePass for TurnWeights {
    fn name(&self) -> &'static str {
        "turn_weights"
    }

    fn rewrite(&self, g: &Graph, cx: &PassCx<'_>, n: NodeId) -> Result<Option<Patch>> {
        let node = g.node(n);
        let Op::MatMul(op) = &node.op else { return Ok(None) };
        if op.trans_b || !matches!(cx.options.target, Target::Cuda { sm: 90 }) {
            return Ok(None);
        }
        let Some(b) = node.inputs.get(1).copied().flatten() else { return Ok(None) };
        let Some(w) = g.as_const(b) else { return Ok(None) };
        let [k, columns] = *w.shape() else { return Ok(None) };
        if !matches!(w.dtype(), DType::F16 | DType::BF16) || k % PIECE != 0 || w.numel() == 0 {
            return Ok(None);
        }
        let reads = node.inputs.iter().filter(|v| **v == Some(b)).count();
        ensure!(only_reader(g, b) == Some(n) && reads == 1, Unsupported, "its weights have other readers");
        let mut patch = Patch::new(g, NodePass::name(self), &node.name);
        let turned = patch.add_const(&format!("{}_by_k", g.value(b).name), turned(w, k, columns));
        let mut op = op.clone();
        op.trans_b = true;
        let mut inputs = node.inputs.clone();
        inputs[1] = Some(turned);
        let outputs = patch.add_node(g, &node.name, op.into(), &inputs)?;
        patch.shunt(node.outputs[0], outputs[0]);
        Ok(Some(patch))
    }
}

/// The transpose of a matrix of elements of two bytes.
fn turned(w: &Tensor, rows: usize, columns: usize) -> Tensor {
    /// Side of the squares that are moved at a time, so that both sides stay in cache.
    const SIDE: usize = 32;
    let from = w.bytes();
    let mut to = Tensor::zeros(w.dtype(), &[columns, rows]);
    let out = to.bytes_mut();
    for r0 in (0..rows).step_by(SIDE) {
        for c0 in (0..columns).step_by(SIDE) {
            for c in c0..(c0 + SIDE).min(columns) {
                for r in r0..(r0 + SIDE).min(rows) {
                    let (i, o) = (2 * (r * columns + c), 2 * (c * rows + r));
                    out[o..o + 2].copy_from_slice(&from[i..i + 2]);
                }
            }
        }
    }
    to
}
