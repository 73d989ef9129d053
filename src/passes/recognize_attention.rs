//! Attention spelled out as two products with a softmax between them becomes one node.
//!
//! `softmax(f(q kᵀ)) v`, where f is made of factors, a cap (`c tanh(x / c)`), masks that are added, and masks by which
//! scores are replaced (`Where`), in any order that the operator can express. Conversions, and guards against NaN behind
//! the softmax, go. Scores of rank 3 that were made of rank 4 (batch and heads as one axis) are seen as rank 4 again. What
//! stands around the new node, transposes and slices, is then folded into it by `fold_into_attention.rs`.
//!
//! A query none of whose keys take part gives zeros, where a softmax over nothing but -inf gave NaN.

use super::attention_terms::{Masks, Terms};
use super::axes::perm_of;
use super::fold_into_attention;
use super::simplify_shapes::reshape_spec;
use crate::base::{Dim, Result, Shape};
use crate::network::{Graph, Node, NodeId, Patch, ValueId};
use crate::ops::Op;
use crate::ops::attention::{Attention, Output};
use crate::ops::matmul::MatMul;
use crate::ops::reshape::{Reshape, ReshapeMode};
use crate::ops::transpose::Transpose;
use crate::passes::{NodePass, PassCx};
use crate::{bail, ensure};

/// See the module's text.
pub struct RecognizeAttention;

impl NodePass for RecognizeAttention {
    fn name(&self) -> &'static str {
        "recognize_attention"
    }

    fn rewrite(&self, g: &Graph, cx: &PassCx<'_>, n: NodeId) -> Result<Option<Patch>> {
        match &g.node(n).op {
            Op::MatMul(m) => recognize(g, cx, n, m),
            Op::Attention(a) => fold_into_attention::fold(g, cx, n, a),
            _ => Ok(None),
        }
    }
}

/// The operands of a product that has nothing else.
pub(super) fn plain_operands(g: &Graph, n: NodeId) -> Option<(&MatMul, ValueId, ValueId)> {
    let node = g.node(n);
    let Op::MatMul(m) = &node.op else { return None };
    match (node.inputs.as_slice(), &m.epilogue) {
        ([Some(a), Some(b)], None) | ([Some(a), Some(b), None], None) => Some((m, *a, *b)),
        _ => None,
    }
}

fn recognize(g: &Graph, cx: &PassCx<'_>, n: NodeId, m: &MatMul) -> Result<Option<Patch>> {
    let Some((_, weights, v)) = plain_operands(g, n) else { return Ok(None) };
    let mut terms = Terms::new(g);
    let Some(softmax) = terms.softmax_of(weights) else { return Ok(None) };
    let Op::Softmax(s) = &g.node(softmax).op else { return Ok(None) };
    let Some(scores) = g.node(softmax).inputs[0] else { return Ok(None) };
    let rank = g.fact(scores).rank();
    let Some(found) = terms.product_of(scores)? else { return Ok(None) };
    // From here on it is attention, so there is a reason when it stays as it is.
    let axis = crate::base::dims::normalize_axis(s.axis, rank)?;
    ensure!(axis + 1 == rank && !s.log, Unsupported, "the softmax is not along the keys");
    ensure!(!m.trans_a && m.alpha == 1.0, Unsupported, "the product with the values is scaled or transposed");
    let Some((qk, q, k)) = plain_operands(g, found.product) else { return Ok(None) };
    terms.check_readers(n)?;
    let dtype = g.fact(v).dtype;
    ensure!(
        [q, k].iter().all(|x| g.fact(*x).dtype == dtype),
        Unsupported,
        "queries and keys are of another type than the values"
    );
    let ranks = [q, k, v].map(|x| g.fact(x).rank());
    ensure!(ranks == [ranks[0]; 3], Unsupported, "operands of ranks {ranks:?}");

    let operand = |v, swapped, takes_factors| Operand { takes_factors, ..Operand::new(g, v, swapped) };
    let mut operands = [operand(q, qk.trans_a, true), operand(k, !qk.trans_b, true), operand(v, m.trans_b, false)];
    operands.iter_mut().for_each(|o| o.strip(g));
    if ranks[0] == 3 {
        let lifted = operands.each_ref().map(|o| o.lifted(g));
        if let [Some(a), Some(b), Some(c)] = lifted {
            let same = |x: &Operand| x.dims()[..2] == a.dims()[..2];
            if same(&b) && same(&c) {
                operands = [a, b, c];
            }
        }
    }
    let mut patch = cx.patch(g, &g.node(n).name);
    let name = g.node(n).name.clone();
    let mut heads = Vec::new();
    for (o, what) in operands.iter().zip(["q", "k", "v"]) {
        heads.push(o.emit(g, &mut patch, &format!("{name}/{what}"))?);
    }
    let shape = |v: ValueId, patch: &Patch| patch.shape_of(g, v).cloned().unwrap_or_default();
    let [qs, ks, vs] = [0, 1, 2].map(|i| shape(heads[i], &patch));
    for i in 0..2 {
        let fits = qs[i] == ks[i] && qs[i] == vs[i];
        ensure!(fits, Unsupported, "batch and heads of q {qs}, k {ks} and v {vs} are not provably equal");
    }
    ensure!(qs[3] == ks[3] && ks[2] == vs[2], Unsupported, "sizes of q {qs}, k {ks} and v {vs} are not provably equal");
    let full = [qs[0].clone(), qs[1].clone(), qs[2].clone(), ks[2].clone()];
    let mask = Masks { g, name: &name, full: &full, queries: heads[0] }.join(&mut patch, &found.masks)?;

    let factor = found.factor * qk.alpha as f64 * operands[0].factor * operands[1].factor;
    ensure!(factor.is_finite() && (factor as f32) != 0.0, Unsupported, "scores are multiplied by {factor}");
    let op = Attention { scale: Some(factor as f32), softcap: found.cap as f32, output: Output::Heads, ..Attention::plain() };
    let y = patch.add_node(g, &name, op.into(), &[Some(heads[0]), Some(heads[1]), Some(heads[2]), mask])?[0];
    let out = g.node(n).outputs[0];
    let y = reshaped(g, &mut patch, &format!("{name}/shape"), y, &g.fact(out).shape)?;
    patch.shunt(out, y);
    Ok(Some(patch))
}

/// The value under another shape; itself when it has that already.
pub(super) fn reshaped(g: &Graph, patch: &mut Patch, name: &str, v: ValueId, to: &Shape) -> Result<ValueId> {
    let from = patch.shape_of(g, v).cloned().unwrap_or_default();
    if from == *to {
        return Ok(v);
    }
    // Axes of size 1 in front come and go whatever the others are.
    let more = |long: &Shape, short: &Shape| {
        let n = long.rank().checked_sub(short.rank()).filter(|n| *n > 0)?;
        (long[..n].iter().all(|d| d.is(1)) && long[n..] == short[..]).then(|| (0..n as i64).collect::<Vec<_>>())
    };
    let (mode, spec) = match (more(to, &from), more(&from, to)) {
        (Some(axes), _) => (ReshapeMode::Unsqueeze, Some(axes)),
        (_, Some(axes)) => (ReshapeMode::Squeeze, Some(axes)),
        _ => (ReshapeMode::Shape, reshape_spec(&from, to)),
    };
    let Some(spec) = spec else { bail!(Unsupported, "a reshape of {from} to {to} depends on two symbols") };
    let op = Reshape { mode, spec: Some(spec), allow_zero: false };
    let new = patch.add(g, name, op.into(), &[v])?;
    let got = patch.shape_of(g, new);
    ensure!(got == Some(to), Unsupported, "a reshape of {from} to {to} is not provably that");
    Ok(new)
}

pub(super) fn transposed(g: &Graph, patch: &mut Patch, name: &str, v: ValueId, perm: &[usize]) -> Result<ValueId> {
    if perm.is_sorted() {
        return Ok(v);
    }
    let op = Transpose { perm: perm.iter().map(|p| *p as i64).collect() };
    patch.add(g, name, op.into(), &[v])
}

/// For a node that is a reshape of [n, b, a] to [.., b, a], made by a transpose of [n, a, b]: that value, and the shape
/// [.., a, b].
fn swapped_as_three(g: &Graph, node: &Node) -> Option<(ValueId, Shape)> {
    let (_, t) = g.producer(node.inputs.first().copied().flatten()?)?;
    let x = t.inputs.first().copied().flatten()?;
    let is_swap = matches!(node.op, Op::Reshape(_)) && perm_of(g, t).as_deref() == Some(&[0, 2, 1]);
    let (to, from) = (&g.fact(*node.outputs.first()?).shape, &g.fact(x).shape);
    let rank = to.rank();
    if !is_swap || rank < 3 || to[rank - 1] != from[1] || to[rank - 2] != from[2] {
        return None;
    }
    let mut shape = to.clone();
    shape.0.swap(rank - 2, rank - 1);
    Some((x, shape))
}

/// An operand of a product as an earlier value: its axis i, in the order [.., length, size], is axis `perm[i]` of `base`
/// under the shape `shape`.
#[derive(Clone, Debug)]
struct Operand {
    base: ValueId,
    shape: Shape,
    perm: Vec<usize>,
    factor: f64,
    /// Factors may be taken out: those of q and k go into the scale.
    takes_factors: bool,
}

impl Operand {
    fn new(g: &Graph, v: ValueId, swapped: bool) -> Operand {
        let shape = g.fact(v).shape.clone();
        let rank = shape.rank();
        let mut perm: Vec<usize> = (0..rank).collect();
        if swapped {
            perm.swap(rank - 2, rank - 1);
        }
        Operand { base: v, shape, perm, factor: 1.0, takes_factors: true }
    }

    /// Goes back over transposes, over factors that are numbers, and over swaps of the last two axes that were made with all
    /// others as one.
    fn strip(&mut self, g: &Graph) {
        while let Some((id, node)) = g.producer(self.base) {
            if self.shape != g.fact(self.base).shape {
                // Under another shape, until a reshape comes from the one that is looked for.
                match node.inputs.first().copied().flatten() {
                    Some(x) if matches!(node.op, Op::Reshape(_)) && g.fact(x).shape == self.shape => self.base = x,
                    _ => break,
                }
                continue;
            }
            if let (Some(p), Some(x)) = (perm_of(g, node), node.inputs[0]) {
                self.perm = self.perm.iter().map(|i| p[*i]).collect();
                (self.base, self.shape) = (x, g.fact(x).shape.clone());
                continue;
            }
            if let Some((x, shape)) = swapped_as_three(g, node) {
                let rank = shape.rank();
                let other = |i: usize| if i + 2 < rank { i } else { 2 * rank - 3 - i };
                self.perm = self.perm.iter().map(|i| other(*i)).collect();
                (self.base, self.shape) = (x, shape);
                continue;
            }
            let Some((x, factor)) = Terms::new(g).scaled(id).filter(|_| self.takes_factors) else { break };
            (self.base, self.factor) = (x, self.factor * factor);
        }
    }

    /// The same before batch and heads became one axis.
    fn lifted(&self, g: &Graph) -> Option<Operand> {
        let (_, node) = g.producer(self.base)?;
        let x = node.inputs.first().copied().flatten()?;
        let (from, to) = (g.fact(x).shape.clone(), &self.shape);
        let fits = matches!(node.op, Op::Reshape(_)) && from.rank() == 4 && self.perm[0] == 0 && from[2..] == to[1..];
        if !fits || self.shape != g.fact(self.base).shape {
            return None;
        }
        let mut o = Operand { base: x, shape: from, perm: vec![0, 1], ..self.clone() };
        o.perm.extend(self.perm[1..].iter().map(|p| p + 1));
        o.strip(g);
        Some(o)
    }

    /// Dimensions in the order of the product.
    fn dims(&self) -> Vec<Dim> {
        self.perm.iter().map(|p| self.shape[*p].clone()).collect()
    }

    /// The operand as [batch, heads, length, size].
    fn emit(&self, g: &Graph, patch: &mut Patch, name: &str) -> Result<ValueId> {
        let rank = self.perm.len();
        let base = reshaped(g, patch, &format!("{name}_view"), self.base, &self.shape)?;
        match rank {
            4 => transposed(g, patch, name, base, &self.perm),
            2 | 3 => {
                // Axes of size 1 in front; the batch of a product of rank 3 counts as heads.
                let more = 4 - rank;
                let mut to = vec![Dim::from(1); more];
                to.extend(self.shape.iter().cloned());
                let x = reshaped(g, patch, &format!("{name}_4d"), base, &Shape(to))?;
                let perm: Vec<usize> = (0..more).chain(self.perm.iter().map(|p| p + more)).collect();
                transposed(g, patch, name, x, &perm)
            }
            _ => {
                let x = transposed(g, patch, name, base, &self.perm)?;
                let dims = self.dims();
                let batch = dims[..rank - 3].iter().fold(Dim::from(1), |a, d| &a * d);
                let mut to = vec![batch];
                to.extend(dims[rank - 3..].iter().cloned());
                reshaped(g, patch, &format!("{name}_4d"), x, &Shape(to))
            }
        }
    }
}
