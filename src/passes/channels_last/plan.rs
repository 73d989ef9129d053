//! Which nodes of a graph work with channels last.
//!
//! Costs are times in nanoseconds, roughly those of a large device: what matters is that a transpose between two large
//! convolutions is dear and that of a few numbers, or of axes of size 1, is not.

use super::min_cut::{INFINITE, MinCut, SINK, SOURCE};
use crate::base::{DType, Dim, Result, Shape};
use crate::network::{Graph, Node, NodeId, ValueId};
use crate::ops::Op;
use crate::ops::conv::Conv;
use crate::ops::window::ChannelOrder;
use crate::passes::PassCx;
use crate::passes::axes::perm_of;
use crate::passes::query::const_ints;
use std::collections::{BTreeMap, HashMap, HashSet};

/// Channels up to which a convolution reads them first and gives them last.
pub const FEW_CHANNELS: i64 = 4;
/// A launch.
const LAUNCH: u64 = 2000;
/// Bytes that a copy moves in a nanosecond.
const BYTES: u64 = 2500;
/// What a convolution with channels first loses: at least, and by its work (operations of a nanosecond).
const SLOW_CONV: u64 = 4000;
const SLOW_DEPTHWISE: u64 = 1500;
const SLOW_FLOPS: u64 = 250_000;
/// A reshape: no work, but the fewer the better.
const VIEW: u64 = 20;
/// What an element-wise node loses behind another than its producer: it may have become an epilogue.
const APART: u64 = 1;

/// The permutation that brings axis 1 to the end: axis i of the result is axis `perm[i]`.
pub fn to_last(rank: usize) -> Vec<usize> {
    std::iter::once(0).chain(2..rank).chain([1]).collect()
}

/// The permutation that brings the last axis to the second place.
pub fn to_first(rank: usize) -> Vec<usize> {
    [0, rank - 1].into_iter().chain(1..rank - 1).collect()
}

/// Bringing axis 1 to the end moves axes of size 1 only.
pub fn moves_nothing(shape: &Shape) -> bool {
    let moved: Vec<usize> = to_last(shape.rank()).into_iter().filter(|a| !shape[*a].is(1)).collect();
    moved.is_sorted()
}

/// What a node has to do with the order of channels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Role {
    /// A convolution; with few channels it can read them first.
    Conv { few: bool },
    /// Goes with its neighbours; `keeps` says whether its output has an order (a reduction may take it away).
    Follows { keeps: bool },
    /// A transpose that brings axis 1 to the end.
    ToLast,
    /// A transpose that brings the last axis to the second place: what it reads is its output with channels last.
    ToFirst,
    /// Any other transpose; reads any order.
    Permutes,
    /// Looks at the shape alone.
    Shape,
    /// Everything else: channels first.
    Fixed,
}

/// What was decided.
pub struct Plan {
    pub order: Vec<NodeId>,
    roles: HashMap<NodeId, Role>,
    last: HashSet<NodeId>,
    /// Convolutions with channels last.
    pub convolutions: usize,
}

impl Plan {
    /// Decides; nodes of `fixed` keep their order.
    pub fn new(g: &Graph, cx: &PassCx<'_>, fixed: &HashSet<NodeId>) -> Result<Plan> {
        let order = g.order()?;
        let mut plan = Plan { order, roles: HashMap::new(), last: HashSet::new(), convolutions: 0 };
        for n in &plan.order {
            let role = if fixed.contains(n) { Role::Fixed } else { role(g, cx, g.node(*n)) };
            plan.roles.insert(*n, role);
        }
        if plan.roles.values().any(|r| matches!(r, Role::Conv { .. })) {
            plan.cut(g, cx);
        }
        Ok(plan)
    }

    pub fn role(&self, n: NodeId) -> Role {
        self.roles.get(&n).copied().unwrap_or(Role::Fixed)
    }

    /// The node works with channels last.
    pub fn is_last(&self, n: NodeId) -> bool {
        self.last.contains(&n)
    }

    /// The value is made with channels last.
    pub fn made_last(&self, g: &Graph, v: ValueId) -> bool {
        let Some(n) = g.value(v).producer else { return false };
        self.is_last(n) && self.role(n) != Role::Follows { keeps: false }
    }

    fn cut(&mut self, g: &Graph, cx: &PassCx<'_>) {
        let mut net = MinCut::new();
        let mut places: BTreeMap<NodeId, usize> = BTreeMap::new();
        for n in &self.order {
            let node = g.node(*n);
            let cost = match self.role(*n) {
                Role::Conv { .. } => conv_cost(g, node),
                Role::Follows { .. } => APART,
                Role::ToFirst => copy_cost(g, node.outputs[0]),
                _ => continue,
            };
            let at = net.place();
            net.edge(SOURCE, at, cost);
            places.insert(*n, at);
        }
        for (n, at) in &places {
            let node = g.node(*n);
            for v in lower_operands(g, node, self.role(*n)) {
                // Its axes are lined up and moved for this reader alone.
                let rank = g.fact(node.outputs[0]).rank();
                let shape = aligned(&g.fact(v).shape, rank);
                net.edge(*at, SINK, if moves_nothing(&shape) { VIEW } else { copy_cost(g, v) });
            }
        }
        for v in g.value_ids() {
            if g.fact(v).rank() >= 3 && g.as_const(v).is_none() {
                self.value_edges(g, v, &places, &mut net);
            }
        }
        let kept = net.cut();
        self.last = places.iter().filter(|(_, at)| kept[**at]).map(|(n, _)| *n).collect();
        for n in &self.order {
            if matches!(self.role(*n), Role::Conv { .. }) {
                if self.is_last(*n) {
                    self.convolutions += 1;
                } else {
                    cx.refuse(&g.node(*n).name, "transposes around it would cost more than channels last save");
                }
            }
        }
    }

    /// The value is copied into the other order, once, when a reader wants it so.
    fn value_edges(&self, g: &Graph, v: ValueId, places: &BTreeMap<NodeId, usize>, net: &mut MinCut) {
        let producer = g.value(v).producer;
        let made = match producer {
            Some(n) if self.role(n) != (Role::Follows { keeps: false }) => places.get(&n).copied().unwrap_or(SINK),
            _ => SINK,
        };
        let cost = if moves_nothing(&g.fact(v).shape) { VIEW } else { copy_cost(g, v) };
        let mut readers = HashSet::new();
        if g.is_output(v) {
            readers.insert(SINK);
        }
        for n in &g.value(v).consumers {
            let node = g.node(*n);
            match self.role(*n) {
                Role::Fixed | Role::ToFirst => _ = readers.insert(SINK),
                // It is the copy, or nothing.
                Role::ToLast => net.edge(SOURCE, made, cost),
                Role::Permutes | Role::Shape => {}
                role @ (Role::Conv { .. } | Role::Follows { .. }) => {
                    if ordered_operands(g, node, role).any(|o| o == v) {
                        readers.insert(places[n]);
                    } else if role != (Role::Conv { few: true }) || node.inputs[0] != Some(v) {
                        readers.insert(SINK);
                    }
                }
            }
        }
        readers.remove(&made);
        if readers.remove(&SINK) {
            net.edge(made, SINK, cost);
        } else if let [one] = readers.iter().copied().collect::<Vec<_>>()[..] {
            let apart = fusion_cost(g, v);
            net.edge(made, one, cost + apart);
            net.edge(one, made, cost + apart);
            return;
        } else if made != SINK && !readers.is_empty() {
            let to_first = net.place();
            net.edge(made, to_first, cost);
            readers.iter().for_each(|r| net.edge(to_first, *r, INFINITE));
        }
        if !readers.is_empty() {
            let to_last = net.place();
            net.edge(to_last, made, cost);
            readers.iter().for_each(|r| net.edge(*r, to_last, INFINITE));
        }
    }
}

/// The operands that have to be in the node's own order.
pub fn ordered_operands<'a>(g: &'a Graph, node: &'a Node, role: Role) -> impl Iterator<Item = ValueId> + 'a {
    let rank = node.inputs.first().copied().flatten().map_or(0, |v| g.fact(v).rank());
    let slots: Vec<usize> = match (&node.op, role) {
        (_, Role::Conv { few: true }) => (3..node.inputs.len()).collect(),
        (_, Role::Conv { few: false }) => std::iter::once(0).chain(3..node.inputs.len()).collect(),
        (Op::Pointwise(_) | Op::Concat(_), _) => (0..node.inputs.len()).collect(),
        _ => vec![0],
    };
    let out = if matches!(node.op, Op::Pointwise(_) | Op::Conv(_)) { g.fact(node.outputs[0]).rank() } else { rank };
    slots.into_iter().filter_map(|i| node.inputs[i]).filter(move |v| g.as_const(*v).is_none() && g.fact(*v).rank() == out)
}

/// Operands that broadcast and have fewer axes, but for constants and single elements.
fn lower_operands(g: &Graph, node: &Node, role: Role) -> Vec<ValueId> {
    let first = match (&node.op, role) {
        (Op::Conv(_), _) => 3,
        (Op::Pointwise(_), _) => 0,
        _ => return vec![],
    };
    let rank = g.fact(node.outputs[0]).rank();
    let lower = |v: &ValueId| g.fact(*v).rank() < rank && !g.fact(*v).shape.numel().is(1) && g.as_const(*v).is_none();
    node.inputs.iter().skip(first).flatten().copied().filter(lower).collect()
}

/// The shape with sizes of 1 in front.
pub fn aligned(shape: &Shape, rank: usize) -> Shape {
    let mut dims = vec![Dim::ONE; rank.saturating_sub(shape.rank())];
    dims.extend(shape.iter().cloned());
    Shape(dims)
}

fn role(g: &Graph, cx: &PassCx<'_>, node: &Node) -> Role {
    let rank = |v: Option<ValueId>| v.map_or(0, |v| g.fact(v).rank());
    let r = rank(node.inputs.first().copied().flatten());
    let keeps = Role::Follows { keeps: true };
    let follows = |fits: bool| if fits { keeps } else { Role::Fixed };
    match &node.op {
        Op::Conv(c) => conv_role(g, cx, node, c),
        Op::Transpose(_) => match perm_of(g, node) {
            Some(p) if r >= 3 && p == to_last(r) => Role::ToLast,
            Some(p) if r >= 3 && p == to_first(r) => Role::ToFirst,
            Some(_) => Role::Permutes,
            None => Role::Fixed,
        },
        Op::Shape(_) => Role::Shape,
        Op::Pointwise(_) => {
            let out = rank(node.outputs.first().copied());
            follows(out >= 3 && node.inputs.iter().all(|v| v.is_some()) && node.outputs.iter().all(|v| rank(Some(*v)) == out))
        }
        Op::Concat(_) => follows(r >= 3 && node.inputs.iter().all(|v| rank(*v) == r)),
        Op::Pad(_) | Op::Slice(_) => follows(r >= 3),
        Op::Resize(_) => follows((3..=4).contains(&r)),
        Op::Softmax(s) => follows(r >= 3 && !s.flatten),
        Op::Gather(_) => follows(r >= 3 && rank(node.inputs[1]) == 1),
        Op::Pool(p) => follows((3..=5).contains(&r) && p.order == ChannelOrder::First && !p.indices),
        Op::Reduce(_) => reduce_role(g, node, r),
        Op::DepthToSpace(_) => {
            let x = node.inputs[0].map(|v| &g.fact(v).shape);
            follows(x.is_some_and(|s| s.iter().skip(1).all(|d| d.as_const().is_some())))
        }
        Op::Reshape(_) => {
            let (Some(x), y) = (node.inputs[0], node.outputs[0]) else { return Role::Fixed };
            let (from, to) = (&g.fact(x).shape, &g.fact(y).shape);
            follows(from.rank() >= 3 && to.rank() >= 3 && from[..2] == to[..2])
        }
        _ => Role::Fixed,
    }
}

fn conv_role(g: &Graph, cx: &PassCx<'_>, node: &Node, c: &Conv) -> Role {
    let (Some(x), Some(w)) = (node.inputs[0], node.inputs[1]) else { return Role::Fixed };
    let fact = g.fact(x);
    if c.order != ChannelOrder::First || !matches!(fact.dtype, DType::F16 | DType::BF16) {
        return Role::Fixed;
    }
    if !(3..=4).contains(&fact.rank()) {
        cx.refuse(&node.name, "three spatial axes have no kernels with channels last");
        return Role::Fixed;
    }
    if g.as_const(w).is_none() {
        cx.refuse(&node.name, "its weights are no constant, and would be transposed at each run");
        return Role::Fixed;
    }
    let channels = g.fact(w).shape[1].as_const().unwrap_or(i64::MAX);
    Role::Conv { few: c.group == 1 && channels <= FEW_CHANNELS }
}

fn reduce_role(g: &Graph, node: &Node, rank: usize) -> Role {
    let Op::Reduce(r) = &node.op else { return Role::Fixed };
    let Some(axes) = r.axes.clone().or_else(|| const_ints(g, node, 1)) else { return Role::Fixed };
    let Ok(axes) = r.resolve(Some(&axes), rank) else { return Role::Fixed };
    if rank < 3 || axes.is_empty() {
        return Role::Fixed;
    }
    if r.keepdims {
        return Role::Follows { keeps: true };
    }
    // What is left of the axes, in the order that it has with channels last.
    let left: Vec<usize> = to_last(rank).into_iter().filter(|a| !axes.contains(a)).collect();
    if left.is_sorted() {
        return Role::Follows { keeps: false };
    }
    let ranks: Vec<usize> = left.iter().map(|a| left.iter().filter(|b| *b < a).count()).collect();
    if ranks.len() >= 3 && ranks == to_last(ranks.len()) { Role::Follows { keeps: true } } else { Role::Fixed }
}

/// A size, a guess where it is not known.
fn size(d: &Dim, axis: usize) -> u64 {
    let guess = if axis == 0 { 4 } else { 56 };
    let mut symbols = BTreeMap::new();
    d.symbols(&mut |s| _ = symbols.insert(s.clone(), guess));
    d.eval(&symbols).map_or(guess as u64, |v| v.max(0) as u64)
}

fn numel(shape: &Shape) -> u64 {
    shape.iter().enumerate().fold(1u64, |n, (i, d)| n.saturating_mul(size(d, i))).min(1 << 40)
}

/// What is lost when an element-wise node does not stand right behind the product whose epilogue it may become.
fn fusion_cost(g: &Graph, v: ValueId) -> u64 {
    let joined = |n: NodeId, of: fn(&Op) -> bool| of(&g.node(n).op);
    let from = g.value(v).producer.is_some_and(|n| joined(n, |op| matches!(op, Op::Conv(_) | Op::Pointwise(_))));
    let into = g.value(v).consumers.iter().all(|n| joined(*n, |op| matches!(op, Op::Pointwise(_))));
    if from && into { LAUNCH / 2 } else { 0 }
}

fn copy_cost(g: &Graph, v: ValueId) -> u64 {
    let f = g.fact(v);
    LAUNCH + 2 * numel(&f.shape) * f.dtype.size() as u64 / BYTES
}

fn conv_cost(g: &Graph, node: &Node) -> u64 {
    let Op::Conv(c) = &node.op else { return 0 };
    let (y, w) = (&g.fact(node.outputs[0]).shape, node.inputs[1].map(|w| &g.fact(w).shape));
    let sum: u64 = w.map_or(1, |w| w.iter().skip(1).map(|d| size(d, 1)).product());
    if c.group > 1 && w.is_some_and(|w| w[1].is(1)) {
        return SLOW_DEPTHWISE + 2 * numel(y) / BYTES;
    }
    SLOW_CONV + (2 * numel(y)).saturating_mul(sum) / SLOW_FLOPS
}
