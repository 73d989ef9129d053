//! Scores of attention read backwards: from the weights over the softmax to the product of queries and keys.
//!
//! Element-wise nodes are looked at function by function, so it does not matter how many of them are one node already.

use super::query::pointwise;
use crate::base::{DType, Dim, Result, Shape, Tensor};
use crate::network::{Graph, NodeId, Patch, ValueId};
use crate::ops::Op;
use crate::ops::concat::Concat;
use crate::ops::pointwise::{Func, Pointwise, Program, Reg};
use crate::ops::shape::Shape as ShapeOf;
use crate::{bail, ensure};

use super::recognize_attention::{plain_operands, reshaped};

/// Functions between the softmax and the product that are looked at.
const MAX_DEPTH: usize = 24;
/// A score that is replaced by this or less has no weight beside any that is not.
pub const LOW: f64 = -1e4;

/// A scalar expression: a value that no element-wise node makes, or a register of one that does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Term {
    Value(ValueId),
    Reg(NodeId, Reg),
}

/// What one step does to the scores.
#[derive(Clone, Debug)]
pub enum Mask {
    /// Added, times the number.
    Add(Term, f64),
    /// Scores stay where the condition is `keeps`; the others are -inf, or so low that they have no weight.
    Keep { condition: Term, keeps: bool, is_infinite: bool },
}

/// The way from the softmax down.
#[derive(Debug)]
pub struct Found {
    pub product: NodeId,
    /// Masks with the shape of the scores where they apply.
    pub masks: Vec<(Mask, Shape)>,
    pub factor: f64,
    /// 0: none.
    pub cap: f64,
}

pub struct Terms<'a> {
    g: &'a Graph,
    /// Nodes on the way, and the values between them.
    nodes: Vec<NodeId>,
    values: Vec<ValueId>,
}

impl<'a> Terms<'a> {
    pub fn new(g: &'a Graph) -> Terms<'a> {
        Terms { g, nodes: vec![], values: vec![] }
    }

    /// The term itself, behind values that element-wise nodes make and registers that are inputs.
    fn resolve(&self, mut t: Term) -> Term {
        loop {
            let next = match t {
                Term::Value(v) => self.g.producer(v).and_then(|(n, node)| Some(Term::Reg(n, pointwise(node)?.outputs[0]))),
                Term::Reg(n, r) => {
                    let node = self.g.node(n);
                    let is_input = pointwise(node).is_some_and(|p| (r as usize) < p.n_inputs());
                    if is_input { node.inputs[r as usize].map(Term::Value) } else { None }
                }
            };
            match next {
                Some(next) => t = next,
                None => return t,
            }
        }
    }

    /// As [`Self::resolve`], and what lies on the way counts as part of the pattern.
    fn enter(&mut self, mut t: Term) -> Term {
        loop {
            match t {
                Term::Value(v) => {
                    self.values.push(v);
                    let Some((n, p)) = self.g.producer(v).and_then(|(n, node)| Some((n, pointwise(node)?))) else { return t };
                    self.nodes.push(n);
                    t = Term::Reg(n, p.outputs[0]);
                }
                Term::Reg(n, r) => {
                    let node = self.g.node(n);
                    let is_input = pointwise(node).is_some_and(|p| (r as usize) < p.n_inputs());
                    match node.inputs.get(r as usize).copied().flatten().filter(|_| is_input) {
                        Some(v) => t = Term::Value(v),
                        None => return t,
                    }
                }
            }
        }
    }

    /// Function and arguments of a term that is a call.
    fn call(&self, t: Term) -> Option<(Func, Vec<Term>)> {
        let Term::Reg(n, r) = self.resolve(t) else { return None };
        let p = pointwise(self.g.node(n))?;
        let i = p.instrs.get((r as usize).checked_sub(p.n_inputs())?)?;
        Some((i.func, i.args.iter().map(|a| Term::Reg(n, *a)).collect()))
    }

    /// The number that a term is everywhere.
    pub fn number(&self, t: Term) -> Option<f64> {
        match self.resolve(t) {
            Term::Value(v) => {
                let c = self.g.as_const(v)?;
                let all = if c.numel() <= 1 << 20 { c.to_f64s() } else { return None };
                let first = *all.first()?;
                all.iter().all(|x| *x == first).then_some(first)
            }
            Term::Reg(n, r) => {
                let p = pointwise(self.g.node(n))?;
                let i = p.instrs.get((r as usize).checked_sub(p.n_inputs())?)?;
                match i.func {
                    Func::Const => Some(i.value),
                    Func::Cast => self.number(Term::Reg(n, i.args[0])),
                    _ => None,
                }
            }
        }
    }

    /// Factor and the other argument of a product or quotient with a number.
    fn factor(&self, f: Func, args: &[Term]) -> Option<(f64, Term)> {
        match f {
            Func::Mul => match (self.number(args[0]), self.number(args[1])) {
                (None, Some(c)) => Some((c, args[0])),
                (Some(c), None) => Some((c, args[1])),
                _ => None,
            },
            Func::Div => self.number(args[1]).filter(|c| *c != 0.0).map(|c| (1.0 / c, args[0])),
            Func::Neg => Some((-1.0, args[0])),
            _ => None,
        }
    }

    /// The value and the number that the only function of a node multiplies it with.
    pub fn scaled(&self, n: NodeId) -> Option<(ValueId, f64)> {
        let p = pointwise(self.g.node(n))?;
        let (f, args) = self.call(Term::Reg(n, p.outputs[0]))?;
        let (c, x) = self.factor(f, &args)?;
        let Term::Reg(at, r) = x else { return None };
        let v = self.g.node(at).inputs.get(r as usize).copied().flatten().filter(|_| at == n && (r as usize) < p.n_inputs())?;
        let (from, to) = (self.g.fact(v), self.g.fact(self.g.node(n).outputs[0]));
        (from.shape == to.shape && from.dtype == to.dtype && c.is_finite() && c != 0.0).then_some((v, c))
    }

    /// The softmax whose result `v` is, behind conversions and guards against NaN.
    pub fn softmax_of(&mut self, v: ValueId) -> Option<NodeId> {
        let mut t = Term::Value(v);
        for _ in 0..MAX_DEPTH {
            match self.enter(t) {
                Term::Value(v) => {
                    let (n, node) = self.g.producer(v)?;
                    self.nodes.push(n);
                    match &node.op {
                        Op::Softmax(_) => return Some(n),
                        Op::Reshape(_) => t = Term::Value(self.same_rows(node.inputs[0]?, v)?),
                        _ => return None,
                    }
                }
                Term::Reg(..) => match self.call(t)? {
                    (Func::Cast, args) => t = args[0],
                    (Func::Select, args) if self.number(args[1]) == Some(0.0) => {
                        let (f, tested) = self.call(args[0])?;
                        if f != Func::IsNan || self.resolve(tested[0]) != self.resolve(args[2]) {
                            return None;
                        }
                        self.enter(args[0]);
                        t = args[2];
                    }
                    _ => return None,
                },
            }
        }
        None
    }

    /// `x`, where the reshape of it to `to` leaves the last two axes.
    fn same_rows(&self, x: ValueId, to: ValueId) -> Option<ValueId> {
        let (a, b) = (&self.g.fact(x).shape, &self.g.fact(to).shape);
        (a.rank() >= 2 && b.rank() >= 2 && a[a.rank() - 2..] == b[b.rank() - 2..]).then_some(x)
    }

    /// Whether a product of two computed matrices can be reached.
    fn leads(&self, t: Term, depth: usize) -> bool {
        if depth == 0 {
            return false;
        }
        match self.resolve(t) {
            Term::Value(v) => match self.g.producer(v) {
                Some((n, node)) => match &node.op {
                    Op::MatMul(_) => plain_operands(self.g, n).is_some_and(|(_, a, b)| {
                        [a, b].iter().all(|x| self.g.as_const(*x).is_none()) && self.g.fact(a).rank() == self.g.fact(b).rank()
                    }),
                    Op::Reshape(_) => node.inputs[0].is_some_and(|x| self.same_rows(x, v).is_some() && self.leads(Term::Value(x), depth - 1)),
                    _ => false,
                },
                None => false,
            },
            t => self.call(t).is_some_and(|(f, args)| match f {
                Func::Add | Func::Sub | Func::Mul | Func::Div | Func::Max | Func::Tanh | Func::Cast => {
                    args.iter().any(|a| self.leads(*a, depth - 1))
                }
                Func::Select => args[1..].iter().any(|a| self.leads(*a, depth - 1)),
                _ => false,
            }),
        }
    }

    /// The product of queries and keys that the scores are made of. `None`: there is none; an error: there is, and what is
    /// done to it is not what attention does.
    pub fn product_of(&mut self, scores: ValueId) -> Result<Option<Found>> {
        let g = self.g;
        if !self.leads(Term::Value(scores), MAX_DEPTH) {
            return Ok(None);
        }
        let mut shape = g.fact(scores).shape.clone();
        let mut found = Found { product: NodeId(0), masks: vec![], factor: 1.0, cap: 0.0 };
        let mut t = Term::Value(scores);
        for _ in 0..2 * MAX_DEPTH {
            let at = self.enter(t);
            let Term::Reg(..) = at else {
                let Term::Value(v) = at else { return Ok(None) };
                let Some((n, node)) = g.producer(v) else { return Ok(None) };
                ensure!(g.fact(v).shape == shape, Unsupported, "scores of shape {} are repeated to {shape}", g.fact(v).shape);
                self.nodes.push(n);
                match (&node.op, node.inputs[0]) {
                    (Op::MatMul(_), _) => {
                        found.product = n;
                        return Ok(Some(found));
                    }
                    (Op::Reshape(_), Some(x)) => {
                        shape = g.fact(x).shape.clone();
                        t = Term::Value(x);
                    }
                    _ => return Ok(None),
                }
                continue;
            };
            let Some((f, args)) = self.call(at) else { return Ok(None) };
            let leads = |a: &Term| self.leads(*a, MAX_DEPTH);
            if let Some((c, x)) = self.factor(f, &args) {
                ensure!(c.is_finite(), Unsupported, "scores are multiplied by {c}");
                found.factor *= c;
                t = x;
                continue;
            }
            // Masks stand outside of a cap and are not scaled.
            let is_plain = found.factor == 1.0 && found.cap == 0.0;
            let need_plain = || -> Result<()> {
                ensure!(is_plain, Unsupported, "scores are scaled or capped after they are masked");
                Ok(())
            };
            t = match f {
                Func::Cast => args[0],
                Func::Max if self.number(args[1]).is_some_and(|c| c < -1e30) => args[0],
                Func::Max if self.number(args[0]).is_some_and(|c| c < -1e30) => args[1],
                Func::Add => {
                    need_plain()?;
                    let (x, mask) = if leads(&args[0]) { (args[0], args[1]) } else { (args[1], args[0]) };
                    found.masks.push((Mask::Add(mask, 1.0), shape.clone()));
                    x
                }
                Func::Sub if leads(&args[0]) => {
                    need_plain()?;
                    found.masks.push((Mask::Add(args[1], -1.0), shape.clone()));
                    args[0]
                }
                Func::Select => {
                    need_plain()?;
                    let keeps = leads(&args[1]);
                    let (x, other) = if keeps { (args[1], args[2]) } else { (args[2], args[1]) };
                    let Some(low) = self.number(other) else { bail!(Unsupported, "masked scores are replaced by no number") };
                    ensure!(low <= LOW, Unsupported, "masked scores are replaced by {low}, which may have a weight");
                    let is_infinite = low == f64::NEG_INFINITY;
                    found.masks.push((Mask::Keep { condition: args[0], keeps, is_infinite }, shape.clone()));
                    x
                }
                Func::Tanh => {
                    ensure!(found.cap == 0.0 && found.factor > 0.0, Unsupported, "scores are capped twice, or by {}", found.factor);
                    found.cap = found.factor;
                    args[0]
                }
                f => bail!(Unsupported, "scores go through {}", f.name()),
            };
        }
        Ok(None)
    }

    /// Fails when anything but `last` and the nodes of the pattern reads what lies between them.
    pub fn check_readers(&self, last: NodeId) -> Result<()> {
        for v in &self.values {
            let value = self.g.value(*v);
            let is_inside = value.consumers.iter().all(|c| *c == last || self.nodes.contains(c));
            ensure!(is_inside && !self.g.is_output(*v), Unsupported, "scores or weights {:?} are read elsewhere", value.name);
        }
        Ok(())
    }
}

fn ints(v: &[i64]) -> Tensor {
    Tensor::from_slice(&[v.len()], v)
}

/// Makes one mask of several.
pub struct Masks<'a> {
    pub g: &'a Graph,
    pub name: &'a str,
    /// Batch, heads, queries, keys.
    pub full: &'a [Dim; 4],
    /// [batch, heads, queries, size].
    pub queries: ValueId,
}

impl Masks<'_> {
    pub fn join(&self, patch: &mut Patch, masks: &[(Mask, Shape)]) -> Result<Option<ValueId>> {
        let (mut added, mut kept): (Option<ValueId>, Option<ValueId>) = (None, None);
        for (i, (mask, shape)) in masks.iter().enumerate() {
            let name = format!("{}/mask{i}", self.name);
            let (v, is_bool) = match mask {
                Mask::Add(t, factor) => (self.number_mask(patch, &name, *t, *factor, masks.len() > 1)?, false),
                Mask::Keep { condition, keeps, is_infinite } => {
                    let c = self.value_of(patch, &name, *condition)?;
                    let v = match (keeps, is_infinite) {
                        (true, true) => c,
                        (false, true) => self.pointwise(patch, &name, &[c], |p| p.push(Func::Not, &[0]))?,
                        (_, false) => self.pointwise(patch, &name, &[c], |p| {
                            let (none, least) = (p.push_const(0.0, DType::F32)?, p.push_const(f32::MIN as f64, DType::F32)?);
                            p.push(Func::Select, &if *keeps { [0, none, least] } else { [0, least, none] })
                        })?,
                    };
                    (v, *is_infinite)
                }
            };
            let v = self.placed(patch, &name, v, shape)?;
            let slot = if is_bool { &mut kept } else { &mut added };
            let func = if is_bool { Func::And } else { Func::Add };
            *slot = Some(match *slot {
                None => v,
                Some(old) => self.pointwise(patch, &name, &[old, v], |p| p.push(func, &[0, 1]))?,
            });
        }
        Ok(match (added, kept) {
            (Some(a), Some(k)) => {
                let name = format!("{}/mask", self.name);
                Some(self.pointwise(patch, &name, &[k, a], |p| {
                    let never = p.push_const(f64::NEG_INFINITY, p.inputs[1])?;
                    p.push(Func::Select, &[0, 1, never])
                })?)
            }
            (a, k) => a.or(k),
        })
    }

    fn pointwise(
        &self,
        patch: &mut Patch,
        name: &str,
        inputs: &[ValueId],
        body: impl FnOnce(&mut Program) -> Result<Reg>,
    ) -> Result<ValueId> {
        let types = inputs.iter().map(|v| patch.dtype_of(self.g, *v)).collect::<Option<Vec<_>>>().unwrap_or_default();
        let mut program = Program { inputs: types, instrs: vec![], outputs: vec![] };
        let r = body(&mut program)?;
        program.outputs = vec![r];
        patch.add(self.g, name, Pointwise { program }.into(), inputs)
    }

    /// The term as a value: a register gets a node of its own.
    fn value_of(&self, patch: &mut Patch, name: &str, t: Term) -> Result<ValueId> {
        let Term::Reg(n, r) = t else {
            let Term::Value(v) = t else { unreachable!("a term is a value or a register") };
            return Ok(v);
        };
        let node = self.g.node(n);
        let Some(p) = pointwise(node) else { bail!(Internal, "a register of no element-wise node") };
        if let Some(v) = node.inputs.get(r as usize).copied().flatten().filter(|_| (r as usize) < p.n_inputs()) {
            return Ok(v);
        }
        let program = Program { outputs: vec![r], ..p.clone() };
        let inputs = super::query::operands(node);
        patch.add(self.g, name, Pointwise { program }.into(), &inputs)
    }

    /// What is added: in f32 when several are joined, since a sum of two least numbers of f16 is infinite.
    fn number_mask(&self, patch: &mut Patch, name: &str, t: Term, factor: f64, joins: bool) -> Result<ValueId> {
        let mut v = self.value_of(patch, name, t)?;
        let dtype = patch.dtype_of(self.g, v).unwrap_or(DType::F32);
        let to = if joins && dtype != DType::F64 { DType::F32 } else { dtype };
        if factor == 1.0 && to == dtype {
            // What an Expand in front repeats, the operator repeats.
            while let Some((_, node)) = if v.idx() < self.g.n_values() { self.g.producer(v) } else { None } {
                match (&node.op, node.inputs[0]) {
                    (Op::Expand(_), Some(x)) if self.g.fact(x).rank() <= 4 => v = x,
                    _ => break,
                }
            }
            return Ok(v);
        }
        self.pointwise(patch, name, &[v], |p| {
            let x = p.push_cast(0, to)?;
            if factor == 1.0 {
                return Ok(x);
            }
            let c = p.push_const(factor, to)?;
            p.push(Func::Mul, &[x, c])
        })
    }

    /// A mask that broadcasts to scores of `shape`, so that it broadcasts to [batch, heads, queries, keys].
    fn placed(&self, patch: &mut Patch, name: &str, v: ValueId, shape: &Shape) -> Result<ValueId> {
        let own = patch.shape_of(self.g, v).cloned().unwrap_or_default();
        let rank = shape.rank();
        let lead = own.iter().rev().skip(2).collect::<Vec<_>>();
        // Only the last two axes: right at any rank. Scores as they are in the operator: right as it stands.
        if lead.iter().all(|d| d.is(1)) && rank <= 4 || (rank == 4 && shape[..] == self.full[..]) {
            if own.rank() <= 4 {
                return Ok(v);
            }
        }
        match rank {
            3 if own.rank() == 3 && shape[0] == self.full[1] && self.full[0].is(1) => Ok(v),
            3 if own.rank() == 3 => {
                let to = vec![self.full[0].clone(), self.full[1].clone(), own[1].clone(), own[2].clone()];
                reshaped(self.g, patch, &format!("{name}_4d"), v, &Shape(to))
            }
            _ => {
                // More than one batch axis: the mask is repeated over all of them.
                let lead_of = |s: &Shape| s.iter().take(rank - 3).fold(Dim::from(1), |a, d| &a * d);
                let mut all = vec![Dim::from(1); rank.saturating_sub(own.rank())];
                all.extend(own.iter().cloned());
                let aligned = Shape(all);
                let joined = rank >= 4 && lead_of(shape) == self.full[0] && shape[rank - 3] == self.full[1];
                // The first axis may be a symbol: what is left of the batch that the queries have.
                let tail: Option<Vec<i64>> = shape.iter().take(rank - 3).skip(1).chain(&aligned[rank - 3..]).map(|d| d.as_const()).collect();
                let Some(tail) = tail.filter(|_| joined) else {
                    bail!(Unsupported, "a mask of shape {own} for scores of shape {shape} with batch and heads as one axis")
                };
                let inner: i64 = tail[..rank - 4].iter().product();
                let dims = match shape[0].as_const() {
                    Some(first) => {
                        let dims: Vec<i64> = std::iter::once(first).chain(tail).collect();
                        patch.add_const(&format!("{name}_dims"), ints(&dims))
                    }
                    None => {
                        ensure!(inner > 0, Unsupported, "scores of shape {shape}");
                        let batch = ShapeOf { start: 0, end: Some(1), size: false };
                        let batch = patch.add(self.g, &format!("{name}_batch"), batch.into(), &[self.queries])?;
                        let first = self.pointwise(patch, &format!("{name}_first"), &[batch], |p| {
                            let n = p.push_const(inner as f64, DType::I64)?;
                            p.push(Func::Div, &[0, n])
                        })?;
                        let tail = patch.add_const(&format!("{name}_tail"), ints(&tail));
                        patch.add(self.g, &format!("{name}_dims"), Concat { axis: 0 }.into(), &[first, tail])?
                    }
                };
                let x = patch.add(self.g, &format!("{name}_all"), crate::ops::expand::Expand {}.into(), &[v, dims])?;
                let mut to4 = vec![self.full[0].clone()];
                to4.extend(aligned[rank - 3..].iter().cloned());
                reshaped(self.g, patch, &format!("{name}_4d"), x, &Shape(to4))
            }
        }
    }
}
