//! Products of one tensor with constant weights, made for one attention node, become one product with the weights side by
//! side: the node reads its operands packed, so nothing is cut apart afterwards.
//!
//! q, k and v of self-attention, or k and v where the queries come from elsewhere. Other siblings stay: their results
//! would have to be copied apart, which costs more than a launch saves.

use super::query::{only_reader, pointwise};
use super::recognize_attention::reshaped;
use crate::base::{Dim, Result, Shape, Tensor};
use crate::network::{Graph, Node, NodeId, ValueId, eval};
use crate::ops::Op;
use crate::ops::attention::{Attention, Output, Packed};
use crate::ops::concat::Concat;
use crate::ops::matmul::MatMul;
use crate::ops::pointwise::Func;
use crate::passes::{NodePass, PassCx};
use crate::network::Patch;
use crate::ensure;
use std::sync::Arc;

/// See the module's text.
pub struct MergeSiblings;

impl NodePass for MergeSiblings {
    fn name(&self) -> &'static str {
        "merge_siblings"
    }

    fn rewrite(&self, g: &Graph, cx: &PassCx<'_>, n: NodeId) -> Result<Option<Patch>> {
        let node = g.node(n);
        let Op::Attention(op) = &node.op else { return Ok(None) };
        let [Some(q), Some(k), Some(v)] = [0, 1, 2].map(|i| node.inputs.get(i).copied().flatten()) else { return Ok(None) };
        if op.packed != Packed::No || [k, v].iter().any(|x| g.fact(*x).rank() != 3) {
            return Ok(None);
        }
        let (Some(kp), Some(vp)) = (product(g, k, n), product(g, v, n)) else { return Ok(None) };
        if kp.x != vp.x {
            return Ok(None);
        }
        let qp = if g.fact(q).rank() == 3 { product(g, q, n) } else { None };
        let parts: Vec<(ValueId, Product)> = match qp {
            Some(qp) if qp.x == kp.x => vec![(q, qp), (k, kp), (v, vp)],
            _ => vec![(k, kp), (v, vp)],
        };
        merge(g, cx, n, op, parts).map(Some)
    }
}

/// `alpha x w + bias`, its weights and bias constants.
struct Product {
    x: ValueId,
    w: Arc<Tensor>,
    bias: Option<Arc<Tensor>>,
    op: MatMul,
    /// A value in between has other readers.
    is_shared: bool,
}

/// The product whose result `v` is, under another shape and with a bias of its own.
fn product(g: &Graph, mut v: ValueId, mut reader: NodeId) -> Option<Product> {
    let (mut bias, mut is_shared) = (None, false);
    loop {
        is_shared |= only_reader(g, v) != Some(reader);
        let (n, node) = g.producer(v)?;
        reader = n;
        match &node.op {
            Op::Reshape(_) => v = node.inputs[0]?,
            Op::Pointwise(_) if bias.is_none() => {
                let (x, b) = sum(g, node)?;
                bias = Some(b);
                v = x;
            }
            Op::MatMul(m) if !m.trans_a && m.epilogue.is_none() => {
                let w = g.as_const(node.inputs[1]?)?.clone();
                let width = w.shape().get(if m.trans_b { 0 } else { 1 }).copied()?;
                let own = match node.inputs.get(2).copied().flatten() {
                    Some(b) => Some(g.as_const(b)?.clone()),
                    None => None,
                };
                let fits = w.rank() == 2 && bias.as_ref().is_none_or(|b| b.numel() == width);
                if !fits || (own.is_some() && bias.is_some()) {
                    return None;
                }
                return Some(Product { x: node.inputs[0]?, w, bias: own.or(bias), op: m.clone(), is_shared });
            }
            _ => return None,
        }
    }
}

/// A value and the constant vector along its last axis that a node adds to it.
fn sum(g: &Graph, node: &Node) -> Option<(ValueId, Arc<Tensor>)> {
    if pointwise(node)?.as_single() != Some(Func::Add) {
        return None;
    }
    let [Some(a), Some(b)] = node.inputs[..] else { return None };
    let (x, c) = if g.as_const(b).is_some() { (a, b) } else { (b, a) };
    let t = g.as_const(c)?;
    let along_last = t.shape().iter().rev().skip(1).all(|d| *d == 1) && t.numel() > 1;
    let keeps = g.fact(x).shape == g.fact(node.outputs[0]).shape;
    let vector = t.reshaped(&[t.numel()]).ok()?;
    (along_last && keeps).then(|| (x, Arc::new(vector)))
}

/// Constants one behind the other along an axis.
fn joined(parts: Vec<Arc<Tensor>>, axis: i64) -> Result<Tensor> {
    let inputs = (0..parts.len() as u32).map(|i| Some(ValueId(i))).collect();
    let node = Node { name: "weights".into(), op: Concat { axis }.into(), inputs, outputs: vec![] };
    let parts: Vec<Option<Arc<Tensor>>> = parts.into_iter().map(Some).collect();
    Ok(eval::eval_node(&node, &parts)?.swap_remove(0))
}

fn merge(g: &Graph, cx: &PassCx<'_>, n: NodeId, op: &Attention, parts: Vec<(ValueId, Product)>) -> Result<Patch> {
    let node = g.node(n);
    let first = &parts[0].1;
    ensure!(parts.iter().all(|(_, p)| !p.is_shared), Unsupported, "a product, or what is made of it, is read elsewhere");
    ensure!(
        parts.iter().all(|(_, p)| p.op.trans_b == first.op.trans_b && p.op.alpha == first.op.alpha && p.w.dtype() == first.w.dtype()),
        Unsupported,
        "the products have weights of different forms, or different factors"
    );
    let axis = if first.op.trans_b { 0 } else { 1 };
    let n_q = parts.len() - 2;
    let widths: Vec<i64> = parts.iter().map(|(_, p)| p.w.shape()[axis] as i64).collect();
    let heads = |i: usize| if i < n_q { op.q_heads } else { op.kv_heads };
    let fits = |i: usize| heads(i) > 0 && widths[i] % heads(i) == 0 && g.fact(parts[i].0).shape[2].is(widths[i]);
    ensure!((0..parts.len()).all(fits), Unsupported, "products of widths {widths:?} are not the heads of the operands");
    let size = widths[0] / heads(0);
    ensure!((0..parts.len()).all(|i| widths[i] / heads(i) == size), Unsupported, "heads of keys and values differ in size");
    let bytes: usize = parts.iter().map(|(_, p)| p.w.bytes().len()).sum();
    ensure!(cx.take_folded(bytes), OutOfMemory, "{bytes} bytes of joined weights are more than is left for constants");

    let mut patch = cx.patch(g, &node.name);
    let name = format!("{}/products", node.name);
    let weights = joined(parts.iter().map(|(_, p)| p.w.clone()).collect(), axis as i64)?;
    let mut inputs = vec![Some(first.x), Some(patch.add_const(&format!("{name}/weights"), weights))];
    if parts.iter().any(|(_, p)| p.bias.is_some()) {
        let zeros = |w: i64| Arc::new(Tensor::zeros(first.w.dtype(), &[w as usize]));
        let all = parts.iter().zip(&widths).map(|((_, p), w)| p.bias.clone().unwrap_or_else(|| zeros(*w)));
        inputs.push(Some(patch.add_const(&format!("{name}/bias"), joined(all.collect(), 0)?)));
    }
    let y = patch.add_node(g, &name, first.op.clone().into(), &inputs)?[0];
    let shape = &g.fact(parts[n_q].0).shape;
    let to = Shape(vec![shape[0].clone(), shape[1].clone(), Dim::from(widths.iter().sum::<i64>())]);
    let y = reshaped(g, &mut patch, &format!("{name}/rows"), y, &to)?;

    let q_rank = node.inputs[0].map_or(3, |q| g.fact(q).rank());
    let output = if op.gives_rows(q_rank) { Output::Rows } else { Output::Heads };
    let packed = if n_q == 1 { Packed::Qkv } else { Packed::Kv };
    let mut operands = node.inputs.clone();
    (operands[1], operands[2]) = (Some(y), None);
    if n_q == 1 {
        (operands[0], operands[1]) = (Some(y), None);
    }
    while operands.last() == Some(&None) {
        operands.pop();
    }
    let new = Attention { packed, output, scale: Some(op.scale_for(size as usize) as f32), ..op.clone() };
    for (old, new) in node.outputs.iter().zip(patch.add_node(g, &node.name, new.into(), &operands)?) {
        patch.shunt(*old, new);
    }
    Ok(patch)
}
