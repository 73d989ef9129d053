//! The patch that a plan stands for.
//!
//! Every value that is asked for has up to two versions, one with channels first and one last; what is missing is made
//! when it is wanted. Nodes that keep their order are not touched: their operands are shunted to the new values.

use super::plan::{Plan, Role, aligned, ordered_operands, to_first, to_last};
use crate::base::{Dim, Result, Shape as Sizes, Tensor};
use crate::network::{Graph, Node, NodeId, Patch, ValueId};
use crate::ops::Op;
use crate::ops::depth_to_space::{DepthMode, DepthToSpace};
use crate::ops::gather::Gather;
use crate::ops::reshape::{Reshape, ReshapeMode};
use crate::ops::shape::Shape;
use crate::ops::transpose::transposed;
use crate::ops::window::ChannelOrder;
use crate::passes::axes::{perm_of, pushed, transpose};
use crate::passes::simplify_shapes::reshape_spec;
use crate::{bail, internal};
use std::collections::{HashMap, HashSet};

#[derive(Clone, Copy, Default)]
struct Versions {
    first: Option<ValueId>,
    last: Option<ValueId>,
}

pub struct Rewrite<'a> {
    g: &'a Graph,
    plan: &'a Plan,
    patch: Patch,
    versions: HashMap<ValueId, Versions>,
    /// Old values whose readers get a new one.
    shunts: Vec<(ValueId, ValueId)>,
    /// Values that became a graph output.
    outputs: HashSet<ValueId>,
    transposes: usize,
}

impl<'a> Rewrite<'a> {
    pub fn new(g: &'a Graph, plan: &'a Plan, patch: Patch) -> Rewrite<'a> {
        let (versions, shunts, outputs) = (HashMap::new(), Vec::new(), HashSet::new());
        Rewrite { g, plan, patch, versions, shunts, outputs, transposes: 0 }
    }

    /// The patch, and the transposes that it adds.
    pub fn finish(mut self) -> (Patch, usize) {
        for (old, new) in self.shunts {
            self.patch.shunt(old, new);
        }
        (self.patch, self.transposes)
    }

    fn shape_of(&self, v: ValueId) -> Result<Sizes> {
        self.patch.shape_of(self.g, v).cloned().ok_or_else(|| internal!("a value without a shape"))
    }

    /// A node with one output.
    fn add(&mut self, name: &str, op: impl Into<Op>, inputs: &[ValueId]) -> Result<ValueId> {
        self.patch.add(self.g, name, op.into(), inputs)
    }

    /// The value under another shape, where that can be said.
    fn reshaped(&mut self, name: &str, v: ValueId, to: &Sizes) -> Result<ValueId> {
        let from = self.shape_of(v)?;
        if from == *to {
            return Ok(v);
        }
        let Some(spec) = reshape_spec(&from, to) else { bail!(Unsupported, "{from} as {to} has more than one open size") };
        let op = Reshape { mode: ReshapeMode::Shape, spec: Some(spec), allow_zero: false };
        let new = self.add(name, op, &[v])?;
        match self.shape_of(new)? == *to {
            true => Ok(new),
            false => bail!(Unsupported, "{from} as {to} has sizes that depend on data"),
        }
    }

    /// A transpose, or the reshape that does the same.
    fn permuted(&mut self, name: &str, v: ValueId, perm: &[usize]) -> Result<ValueId> {
        let from = self.shape_of(v)?;
        let moved: Vec<usize> = perm.iter().copied().filter(|p| !from[*p].is(1)).collect();
        if moved.is_sorted() {
            let to = Sizes(perm.iter().map(|p| from[*p].clone()).collect());
            if let Ok(v) = self.reshaped(name, v, &to) {
                return Ok(v);
            }
        }
        self.transposes += 1;
        self.add(name, transpose(perm), &[v])
    }

    /// The value with channels last, or first.
    fn version(&mut self, v: ValueId, last: bool) -> Result<ValueId> {
        let have = self.versions.entry(v).or_insert(Versions { first: Some(v), last: None });
        if let Some(v) = if last { have.last } else { have.first } {
            return Ok(v);
        }
        let rank = self.g.fact(v).rank();
        let name = &self.g.value(v).name;
        let new = match (self.g.as_const(v), if last { have.first } else { have.last }) {
            (Some(t), _) => self.patch.add_const(name, transposed(t, &to_last(rank))?),
            (None, Some(other)) if last => self.permuted(&format!("{name}/to_last"), other, &to_last(rank))?,
            (None, Some(other)) => self.permuted(&format!("{name}/to_first"), other, &to_first(rank))?,
            (None, None) => return Err(internal!("a value of no order")),
        };
        let have = self.versions.entry(v).or_default();
        if last { have.last = Some(new) } else { have.first = Some(new) }
        Ok(new)
    }

    /// An operand that broadcasts to a result of this rank with channels last.
    fn operand(&mut self, v: ValueId, rank: usize) -> Result<ValueId> {
        let fact = self.g.fact(v);
        if fact.rank() == rank {
            return self.version(v, true);
        }
        if fact.shape.iter().all(|d| d.is(1)) {
            return self.version(v, false);
        }
        let name = &self.g.value(v).name;
        if let Some(t) = self.g.as_const(v) {
            let mut shape = vec![1; rank - t.rank()];
            shape.extend(t.shape());
            let t = transposed(&t.reshaped(&shape)?, &to_last(rank))?;
            return Ok(self.patch.add_const(name, t));
        }
        let first = self.version(v, false)?;
        let to = aligned(&fact.shape, rank);
        let wide = self.reshaped(&format!("{name}/aligned"), first, &to)?;
        self.permuted(&format!("{name}/to_last"), wide, &to_last(rank))
    }

    /// Notes the versions of a node's new output and gives old readers what they want.
    fn made(&mut self, old: ValueId, new: ValueId, last: bool) -> Result<()> {
        let have = if last { Versions { first: None, last: Some(new) } } else { Versions { first: Some(new), last: None } };
        self.versions.insert(old, have);
        let g = self.g;
        let wants_first = |n: &NodeId| {
            let (node, role) = (g.node(*n), self.plan.role(*n));
            match role {
                Role::Fixed | Role::ToFirst => true,
                Role::ToLast | Role::Permutes | Role::Shape => !last,
                // Few channels are read in the order that there is.
                Role::Conv { few: true } if last && self.plan.is_last(*n) && node.inputs[0] == Some(old) => false,
                Role::Conv { .. } | Role::Follows { .. } => {
                    !self.plan.is_last(*n) || !last || !ordered_operands(g, node, role).any(|v| v == old)
                }
            }
        };
        if g.is_output(old) || g.value(old).consumers.iter().any(wants_first) {
            let first = self.version(old, false)?;
            self.replace(old, first)?;
        }
        Ok(())
    }

    /// Readers of `old` read `new`; a graph output keeps a node of its own.
    fn replace(&mut self, old: ValueId, mut new: ValueId) -> Result<()> {
        if self.g.is_output(old) {
            let is_older = new.idx() < self.g.n_values();
            if is_older || !self.outputs.insert(new) {
                new = self.add(&format!("{}/output", self.g.value(old).name), Reshape::identity(), &[new])?;
                self.outputs.insert(new);
            }
        }
        self.shunts.push((old, new));
        Ok(())
    }

    /// Rewrites one node; those that it reads from have been.
    pub fn node(&mut self, n: NodeId) -> Result<()> {
        let node = self.g.node(n);
        let is_last = self.plan.is_last(n);
        let reads_last = |x: &Option<ValueId>| x.is_some_and(|v| self.plan.made_last(self.g, v));
        match self.plan.role(n) {
            Role::Conv { few } if is_last => self.conv(node, few),
            Role::Follows { keeps } if is_last => self.follow(node, keeps),
            Role::ToFirst if is_last => {
                let (Some(x), out) = (node.inputs[0], node.outputs[0]) else { return Ok(()) };
                let last = self.version(x, false)?;
                self.versions.insert(out, Versions { first: Some(out), last: Some(last) });
                Ok(())
            }
            Role::ToLast => {
                let (Some(x), out) = (node.inputs[0], node.outputs[0]) else { return Ok(()) };
                if reads_last(&node.inputs[0]) {
                    let new = self.version(x, true)?;
                    self.versions.insert(out, Versions { first: Some(new), last: None });
                    return self.replace(out, new);
                }
                // The node makes what others may want.
                self.version(x, false)?;
                self.versions.entry(x).or_default().last.get_or_insert(out);
                Ok(())
            }
            Role::Permutes if reads_last(&node.inputs[0]) => {
                let (Some(x), out) = (node.inputs[0], node.outputs[0]) else { return Ok(()) };
                let Some(perm) = perm_of(self.g, node) else { return Ok(()) };
                let x = self.version(x, true)?;
                let back = to_first(perm.len());
                let joint: Vec<usize> = perm.iter().map(|p| back[*p]).collect();
                let new = self.permuted(&node.name, x, &joint)?;
                self.made(out, new, false)
            }
            Role::Shape if reads_last(&node.inputs[0]) => self.shape(node),
            _ => Ok(()),
        }
    }

    fn conv(&mut self, node: &Node, few: bool) -> Result<()> {
        let (Op::Conv(c), Some(x), Some(w)) = (&node.op, node.inputs[0], node.inputs[1]) else {
            return Err(internal!("no convolution"));
        };
        let rank = self.g.fact(x).rank();
        let mut op = c.clone();
        let mut inputs = node.inputs.clone();
        let has_last = self.versions.get(&x).is_some_and(|v| v.last.is_some());
        op.order = if few && !has_last { ChannelOrder::FirstToLast } else { ChannelOrder::Last };
        let last = op.order == ChannelOrder::Last;
        inputs[0] = Some(self.version(x, last)?);
        if last {
            inputs[1] = Some(self.version(w, true)?);
        }
        for v in inputs.iter_mut().skip(3).flatten() {
            *v = self.operand(*v, rank)?;
        }
        let new = self.patch.add_node(self.g, &node.name, op.into(), &inputs)?[0];
        self.made(node.outputs[0], new, true)
    }

    fn follow(&mut self, node: &Node, keeps: bool) -> Result<()> {
        let Some(x) = node.inputs[0] else { return Err(internal!("a node without operands")) };
        let rank = self.g.fact(x).rank();
        let mut inputs = node.inputs.clone();
        let new = match &node.op {
            Op::Pointwise(_) => {
                let rank = self.g.fact(node.outputs[0]).rank();
                for v in inputs.iter_mut().flatten() {
                    *v = self.operand(*v, rank)?;
                }
                self.patch.add_node(self.g, &node.name, node.op.clone(), &inputs)?
            }
            Op::Pool(p) => {
                let mut p = p.clone();
                p.order = ChannelOrder::Last;
                let x = self.version(x, true)?;
                vec![self.add(&node.name, p, &[x])?]
            }
            Op::Reshape(_) => {
                let x = self.version(x, true)?;
                let to = &self.g.fact(node.outputs[0]).shape;
                let to = Sizes(to_last(to.rank()).into_iter().map(|a| to[a].clone()).collect());
                vec![self.reshaped(&node.name, x, &to)?]
            }
            Op::DepthToSpace(d) => {
                let x = self.version(x, true)?;
                vec![self.depth_to_space(node, d, x)?]
            }
            op => {
                let joined = matches!(op, Op::Concat(_));
                for v in inputs.iter_mut().take(if joined { usize::MAX } else { 1 }).flatten() {
                    *v = self.version(*v, true)?;
                }
                let Some(p) = pushed(self.g, node, inputs, to_first(rank), &mut self.patch)? else {
                    bail!(Unsupported, "{} does not follow a transpose here", op.name())
                };
                let as_planned = if keeps { p.perm.len() >= 3 && p.perm == to_first(p.perm.len()) } else { p.perm.is_sorted() };
                if !as_planned {
                    bail!(Unsupported, "{} gives another order of axes", op.name());
                }
                self.patch.add_node(self.g, &node.name, p.op, &p.inputs)?
            }
        };
        for (old, new) in node.outputs.iter().zip(new) {
            self.made(*old, new, keeps)?;
        }
        Ok(())
    }

    /// Blocks of channels and of space, as axes that change places.
    fn depth_to_space(&mut self, node: &Node, op: &DepthToSpace, x: ValueId) -> Result<ValueId> {
        let (from, out) = (self.shape_of(x)?, &self.g.fact(node.outputs[0]).shape);
        let to = Sizes(to_last(4).into_iter().map(|a| out[a].clone()).collect());
        let num = |s: &Sizes, i: usize| s[i].clone();
        let b = Dim::from(op.block);
        // The smaller image's rows and columns, and the channels of the larger one.
        let (small, large) = if op.inverse { (&to, &from) } else { (&from, &to) };
        let (n, h, w, c) = (num(small, 0), num(small, 1), num(small, 2), num(large, 3));
        let (dims, perm) = match (op.inverse, op.mode) {
            (false, DepthMode::Dcr) => (vec![n, h, w, b.clone(), b, c], [0, 1, 3, 2, 4, 5]),
            (false, DepthMode::Crd) => (vec![n, h, w, c, b.clone(), b], [0, 1, 4, 2, 5, 3]),
            (true, DepthMode::Dcr) => (vec![n, h, b.clone(), w, b, c], [0, 1, 3, 2, 4, 5]),
            (true, DepthMode::Crd) => (vec![n, h, b.clone(), w, b, c], [0, 1, 3, 5, 2, 4]),
        };
        let blocks = self.reshaped(&format!("{}/blocks", node.name), x, &Sizes(dims))?;
        let moved = self.add(&node.name, transpose(&perm), &[blocks])?;
        self.reshaped(&format!("{}/joined", node.name), moved, &to)
    }

    /// The shape, picked together from that of the value with channels last.
    fn shape(&mut self, node: &Node) -> Result<()> {
        let (Op::Shape(s), Some(x)) = (&node.op, node.inputs[0]) else { return Err(internal!("no shape")) };
        let last = self.version(x, true)?;
        let out = node.outputs[0];
        if s.size {
            let new = self.add(&node.name, s.clone(), &[last])?;
            return self.made(out, new, false);
        }
        let rank = self.g.fact(x).rank();
        let whole = self.add(&format!("{}/last", node.name), Shape { start: 0, end: None, size: false }, &[last])?;
        let places: Vec<i64> = to_first(rank).into_iter().map(|a| a as i64).collect();
        let (start, end) = s.range(rank);
        let places = &places[start..end];
        let index = self.patch.add_const(&format!("{}/axes", node.name), Tensor::from_slice(&[places.len()], places));
        let new = self.add(&node.name, Gather { axis: 0 }, &[whole, index])?;
        self.made(out, new, false)
    }
}
