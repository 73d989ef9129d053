//! What stands around an attention node and costs nothing inside of it: transposes between [batch, length, heads, size]
//! and [batch, heads, length, size], factors of q and k, keys and values repeated for several heads of q, operands that are
//! cut from one tensor, masks that are repeated.

use super::attention_terms::{LOW, Terms};
use super::axes::perm_of;
use super::query::{const_ints, is_absent, only_reader};
use super::recognize_attention::reshaped;
use crate::base::{DType, Dim, Result, Shape};
use crate::network::{Graph, Node, NodeId, Patch, ValueId};
use crate::ops::Op;
use crate::ops::attention::{Attention, Causal, Output, Packed};
use crate::passes::PassCx;

/// [batch, heads, length, size] from [batch, length, heads, size] and back.
const SWAP: [usize; 4] = [0, 2, 1, 3];
/// Place of the mask.
const MASK: usize = 3;

/// One edit of an attention node, when there is any.
pub fn fold(g: &Graph, cx: &PassCx<'_>, n: NodeId, op: &Attention) -> Result<Option<Patch>> {
    let node = g.node(n);
    for edit in [scale, rows, shared_heads, packed, mask, output] {
        let mut patch = cx.patch(g, &node.name);
        // An edit that shapes with symbols do not allow leaves room for the others.
        match edit(g, node, op, &mut patch) {
            Ok(true) => return Ok(Some(patch)),
            Ok(false) => {}
            Err(e) => cx.refuse(&node.name, &e.to_string()),
        }
    }
    Ok(None)
}

/// The node again with other attributes and operands.
fn again(g: &Graph, node: &Node, patch: &mut Patch, op: Attention, mut inputs: Vec<Option<ValueId>>) -> Result<Vec<ValueId>> {
    while inputs.last() == Some(&None) {
        inputs.pop();
    }
    patch.add_node(g, &node.name, op.into(), &inputs)
}

/// The same, in place of the node. The output keeps its form.
fn replace(g: &Graph, node: &Node, patch: &mut Patch, op: Attention, inputs: Vec<Option<ValueId>>) -> Result<bool> {
    for (old, new) in node.outputs.iter().zip(again(g, node, patch, op, inputs)?) {
        patch.shunt(*old, new);
    }
    Ok(true)
}

fn operand(node: &Node, i: usize) -> Option<ValueId> {
    node.inputs.get(i).copied().flatten()
}

fn first_operand<'a>(g: &'a Graph, v: ValueId) -> Option<(&'a Node, ValueId)> {
    let (_, node) = g.producer(v)?;
    Some((node, operand(node, 0)?))
}

/// The output's form said outright, so that it stays when q changes.
fn explicit(g: &Graph, node: &Node, op: &Attention) -> Attention {
    let rank = operand(node, 0).map_or(4, |q| g.fact(q).rank());
    let output = if op.gives_rows(rank) { Output::Rows } else { Output::Heads };
    Attention { output, ..op.clone() }
}

/// Factors of q and k go into the scale, also from behind a reshape.
fn scale(g: &Graph, node: &Node, op: &Attention, patch: &mut Patch) -> Result<bool> {
    if op.packed != Packed::No {
        return Ok(false);
    }
    for i in [0, 1] {
        let Some(v) = operand(node, i) else { continue };
        let terms = Terms::new(g);
        let direct = g.producer(v).and_then(|(id, _)| terms.scaled(id));
        let behind = || {
            let (outer, x) = first_operand(g, v)?;
            let (id, _) = g.producer(x).filter(|_| matches!(outer.op, Op::Reshape(_)))?;
            terms.scaled(id)
        };
        let Some((x, factor)) = direct.or_else(behind) else { continue };
        let size = match (g.fact(v).rank(), if i == 0 { op.q_heads } else { op.kv_heads }) {
            (3, heads) if heads > 0 => g.fact(v).shape[2].as_const().map(|d| d / heads),
            _ => g.fact(v).shape[3..].first().and_then(|d| d.as_const()),
        };
        let scale = match (op.scale, size) {
            (Some(s), _) => s as f64,
            (None, Some(size)) => op.scale_for(size.max(0) as usize),
            (None, None) => continue,
        };
        let scale = (scale * factor) as f32;
        if !scale.is_finite() || scale == 0.0 {
            continue;
        }
        let x = reshaped(g, patch, &format!("{}/unscaled{i}", node.name), x, &g.fact(v).shape)?;
        let mut inputs = node.inputs.clone();
        inputs[i] = Some(x);
        return replace(g, node, patch, Attention { scale: Some(scale), ..op.clone() }, inputs);
    }
    Ok(false)
}

/// [batch, length, heads * size] of a value [batch, length, heads, size]; the value that it was made from when that has
/// this shape.
fn as_rows(g: &Graph, patch: &mut Patch, name: &str, x: ValueId) -> Result<Option<ValueId>> {
    let [b, s, h, d] = &g.fact(x).shape[..] else { return Ok(None) };
    let to = Shape(vec![b.clone(), s.clone(), h * d]);
    let mut from = x;
    while let Some((_, inner)) = first_operand(g, from).filter(|(node, _)| matches!(node.op, Op::Reshape(_))) {
        from = inner;
    }
    if let Ok(v) = reshaped(g, patch, name, from, &to) {
        return Ok(Some(v));
    }
    reshaped(g, patch, name, x, &to).map(Some)
}

/// A transposed operand of rank 4 becomes one of rank 3.
fn rows(g: &Graph, node: &Node, op: &Attention, patch: &mut Patch) -> Result<bool> {
    if op.packed == Packed::Qkv {
        return Ok(false);
    }
    for i in 0..3 {
        let Some((t, x)) = operand(node, i).and_then(|v| first_operand(g, v)) else { continue };
        if perm_of(g, t).as_deref() != Some(&SWAP) {
            continue;
        }
        let shape = &g.fact(x).shape;
        let (Some(heads), Some(_)) = (shape[2].as_const(), shape[3].as_const()) else { continue };
        if heads <= 0 {
            continue;
        }
        let mut new = explicit(g, node, op);
        if i == 0 { new.q_heads = heads } else { new.kv_heads = heads }
        let Some(v) = as_rows(g, patch, &format!("{}/rows{i}", node.name), x)? else { continue };
        let mut inputs = node.inputs.clone();
        inputs[i] = Some(v);
        return replace(g, node, patch, new, inputs);
    }
    Ok(false)
}

/// [batch, heads, length, size] that [batch, heads * n, length, size] repeats, each head n times in a row.
fn repeated(g: &Graph, v: ValueId) -> Option<ValueId> {
    let (flat, five) = first_operand(g, v)?;
    let (expand, one) = first_operand(g, five)?;
    let is_chain = matches!(flat.op, Op::Reshape(_)) && matches!(expand.op, Op::Expand(_));
    let (to, full, from) = (&g.fact(v).shape, &g.fact(five).shape, &g.fact(one).shape);
    if !is_chain || to.rank() != 4 || full.rank() != 5 || from.rank() != 5 {
        return None;
    }
    let fits = from[2].is(1)
        && [0, 1, 3, 4].iter().all(|i| full[*i] == from[*i])
        && to[0] == full[0]
        && to[2..] == full[3..]
        && to[1] == &full[1] * &full[2];
    let (reshape, x) = first_operand(g, one)?;
    let shape = &g.fact(x).shape;
    let is_plain = matches!(reshape.op, Op::Reshape(_)) && shape.rank() == 4 && shape[..2] == from[..2] && shape[2..] == from[3..];
    (fits && is_plain).then_some(x)
}

/// Keys and values that are repeated for several heads of q.
fn shared_heads(g: &Graph, node: &Node, op: &Attention, patch: &mut Patch) -> Result<bool> {
    if op.packed != Packed::No {
        return Ok(false);
    }
    let (Some(k), Some(v)) = (operand(node, 1), operand(node, 2)) else { return Ok(false) };
    let (Some(k), Some(v)) = (repeated(g, k), repeated(g, v)) else { return Ok(false) };
    if g.fact(k).shape[1] != g.fact(v).shape[1] {
        return Ok(false);
    }
    let mut inputs = node.inputs.clone();
    (inputs[1], inputs[2]) = (Some(k), Some(v));
    replace(g, node, patch, op.clone(), inputs)
}

/// One range of one axis: the tensor that it is cut from, the axis, its bounds.
fn cut(g: &Graph, v: ValueId) -> Option<(ValueId, usize, i64, i64)> {
    let (node, x) = first_operand(g, v)?;
    let shape = &g.fact(x).shape;
    match &node.op {
        Op::Slice(_) => {
            let (starts, ends) = (const_ints(g, node, 1)?, const_ints(g, node, 2)?);
            let axes = if is_absent(node, 3) { vec![0] } else { const_ints(g, node, 3)? };
            let is_dense = is_absent(node, 4) || const_ints(g, node, 4)?.iter().all(|s| *s == 1);
            let ([start], [end], [axis], true) = (&starts[..], &ends[..], &axes[..], is_dense) else { return None };
            let axis = crate::base::dims::normalize_axis(*axis, shape.rank()).ok()?;
            let size = shape[axis].as_const()?;
            let at = |i: i64| (if i < 0 { i.saturating_add(size) } else { i }).clamp(0, size);
            Some((x, axis, at(*start), at(*end)))
        }
        Op::Gather(gather) => {
            let index = operand(node, 1)?;
            let axis = crate::base::dims::normalize_axis(gather.axis, shape.rank()).ok()?;
            let i = g.as_const(index).filter(|t| t.numel() == 1)?.scalar_f64()? as i64;
            let i = if i < 0 { i + shape[axis].as_const()? } else { i };
            Some((x, axis, i, i + 1))
        }
        _ => None,
    }
}

/// `v` or, behind reshapes, the value that it is another shape of and that is cut out.
fn cut_behind(g: &Graph, mut v: ValueId) -> Option<(ValueId, usize, i64, i64)> {
    loop {
        if let Some(found) = cut(g, v) {
            return Some(found);
        }
        let (node, x) = first_operand(g, v)?;
        if !matches!(node.op, Op::Reshape(_)) {
            return None;
        }
        v = x;
    }
}

/// Operands that lie side by side in one tensor.
fn packed(g: &Graph, node: &Node, op: &Attention, patch: &mut Patch) -> Result<bool> {
    if op.packed != Packed::No {
        return Ok(false);
    }
    let [Some(q), Some(k), Some(v)] = [0, 1, 2].map(|i| operand(node, i)) else { return Ok(false) };
    let cuts = [q, k, v].map(|v| cut_behind(g, v));
    let [_, Some(kc), Some(vc)] = cuts else { return Ok(false) };
    if kc.0 != vc.0 || kc.1 != vc.1 {
        return Ok(false);
    }
    let all: Vec<_> = match cuts[0] {
        Some(qc) if qc.0 == kc.0 && qc.1 == kc.1 => vec![(q, qc), (k, kc), (v, vc)],
        _ => vec![(k, kc), (v, vc)],
    };
    // They follow each other and take all of the axis.
    let (x, axis) = (kc.0, kc.1);
    let shape = &g.fact(x).shape;
    let size = shape[axis].as_const().unwrap_or(-1);
    let mut at = 0;
    for (_, c) in &all {
        if c.2 != at {
            return Ok(false);
        }
        at = c.3;
    }
    if at != size {
        return Ok(false);
    }
    let Some((x, heads)) = side_by_side(g, patch, node, op, x, axis, &all)? else { return Ok(false) };
    let mut new = explicit(g, node, op);
    let mut inputs = node.inputs.clone();
    (inputs[1], inputs[2]) = (Some(x), None);
    (new.packed, new.kv_heads) = (Packed::Kv, heads[heads.len() - 1]);
    if all.len() == 3 {
        (inputs[0], inputs[1]) = (Some(x), None);
        (new.packed, new.q_heads) = (Packed::Qkv, heads[0]);
    }
    replace(g, node, patch, new, inputs)
}

/// The tensor that the operands are cut from as [batch, length, all heads * size], and the heads of each.
fn side_by_side(
    g: &Graph,
    patch: &mut Patch,
    node: &Node,
    op: &Attention,
    x: ValueId,
    axis: usize,
    all: &[(ValueId, (ValueId, usize, i64, i64))],
) -> Result<Option<(ValueId, Vec<i64>)>> {
    let shape = &g.fact(x).shape;
    let n_q = all.len() - 2;
    let mut heads = Vec::new();
    let mut sizes = Vec::new();
    let mut rows: Option<[Dim; 2]> = None;
    for (i, (v, c)) in all.iter().enumerate() {
        let own = &g.fact(*v).shape;
        let (h, lead) = match &own[..] {
            [b, s, _] => (if i < n_q { op.q_heads } else { op.kv_heads }, [b.clone(), s.clone()]),
            [b, h, s, _] => (h.as_const().unwrap_or(0), [b.clone(), s.clone()]),
            _ => return Ok(None),
        };
        let width = match own.rank() {
            3 => own[2].as_const(),
            _ => own[3].as_const().map(|d| d * h),
        };
        let Some(width) = width.filter(|w| h > 0 && w % h == 0) else { return Ok(None) };
        // Of an axis of its own each is one entry; of the last axis each is its columns.
        let is_rows = own.rank() == 3 && axis + 1 == shape.rank() && c.3 - c.2 == width;
        let is_entry = own.rank() == 4 && axis == 0 && c.3 - c.2 == 1;
        if !(is_rows || is_entry) || rows.as_ref().is_some_and(|r| *r != lead) {
            return Ok(None);
        }
        rows = Some(lead);
        heads.push(h);
        sizes.push(width / h);
    }
    let Some([b, s]) = rows.filter(|_| sizes.iter().all(|d| *d == sizes[0])) else { return Ok(None) };
    let total: i64 = heads.iter().map(|h| h * sizes[0]).sum();
    let to = Shape(vec![b.clone(), s.clone(), Dim::from(total)]);
    let name = format!("{}/packed", node.name);
    if axis + 1 == shape.rank() && g.fact(all[0].0).rank() == 3 {
        return reshaped(g, patch, &name, x, &to).map(|x| Some((x, heads)));
    }
    // [n, batch, heads, length, size], transposed from [batch, length, n, heads, size].
    let Some((t, from)) = first_operand(g, x) else { return Ok(None) };
    let is_transposed = perm_of(g, t).as_deref() == Some(&[2, 0, 3, 1, 4]);
    let f = &g.fact(from).shape;
    if !is_transposed || f[0] != b || f[1] != s || heads.iter().any(|h| *h != heads[0]) || !f[3].is(heads[0]) {
        return Ok(None);
    }
    reshaped(g, patch, &name, from, &to).map(|x| Some((x, heads)))
}

/// A constant by which a query sees all keys up to its own and no other.
fn is_causal(g: &Graph, m: ValueId) -> bool {
    let Some(t) = g.as_const(m).filter(|t| t.rank() >= 2) else { return false };
    let (lead, last) = t.shape().split_at(t.rank() - 2);
    if lead.iter().any(|d| *d != 1) || last[0] != last[1] || last[0] < 2 {
        return false;
    }
    let (none, low) = if t.dtype() == DType::Bool { (1.0, 0.0) } else { (0.0, LOW) };
    let n = last[0];
    t.to_f64s().iter().enumerate().all(|(i, x)| if i % n <= i / n { *x == none } else { *x <= low })
}

/// A mask that was repeated to the size of the scores, or is a causal one.
fn mask(g: &Graph, node: &Node, op: &Attention, patch: &mut Patch) -> Result<bool> {
    let Some(m) = operand(node, MASK).filter(|_| !op.pad_mask) else { return Ok(false) };
    if op.causal == Causal::No && is_causal(g, m) {
        let mut inputs = node.inputs.clone();
        inputs[MASK] = None;
        let has_offsets = operand(node, MASK + 2).is_some();
        return if has_offsets { Ok(false) } else { replace(g, node, patch, Attention { causal: Causal::Exclude, ..op.clone() }, inputs) };
    }
    let Some((expand, x)) = first_operand(g, m) else { return Ok(false) };
    let (from, to) = (&g.fact(x).shape, &g.fact(m).shape);
    let repeats = |i: usize, d: &Dim| d.is(1) || to[to.rank() - from.rank() + i] == *d;
    let fits = matches!(expand.op, Op::Expand(_)) && from.rank() <= to.rank() && from.iter().enumerate().all(|(i, d)| repeats(i, d));
    if !fits {
        return Ok(false);
    }
    let mut inputs = node.inputs.clone();
    inputs[MASK] = Some(x);
    replace(g, node, patch, op.clone(), inputs)
}

/// A transpose behind the node, also behind a reshape that drops a batch of 1.
fn output(g: &Graph, node: &Node, op: &Attention, patch: &mut Patch) -> Result<bool> {
    let y = node.outputs[0];
    let rank = operand(node, 0).map_or(3, |q| g.fact(q).rank());
    if op.gives_rows(rank) {
        return Ok(false);
    }
    let Some(mut reader) = only_reader(g, y).map(|n| g.node(n)) else { return Ok(false) };
    let shape = &g.fact(y).shape;
    let mut perm: &[usize] = &SWAP;
    if matches!(reader.op, Op::Reshape(_)) && shape[0].is(1) && g.fact(reader.outputs[0]).shape[..] == shape[1..] {
        let Some(next) = only_reader(g, reader.outputs[0]).map(|n| g.node(n)) else { return Ok(false) };
        reader = next;
        perm = &[1, 0, 2];
    }
    if perm_of(g, reader).as_deref() != Some(perm) {
        return Ok(false);
    }
    let new = Attention { output: Output::Rows, ..op.clone() };
    let outs = again(g, node, patch, new, node.inputs.clone())?;
    let to = reader.outputs[0];
    let v = reshaped(g, patch, &format!("{}/rows", node.name), outs[0], &g.fact(to).shape)?;
    patch.shunt(to, v);
    if let (Some(old), Some(new)) = (node.outputs.get(1), outs.get(1)) {
        patch.shunt(*old, *new);
    }
    Ok(true)
}
