//! Which nodes of an f32 network may be computed in f16: what `lower_precision` asks before it touches a node.
//!
//! Two sets are found at first. *Exact* nodes lead, by sums, products and moves alone, into a logarithm: the front ends
//! that turn signals into decibels. A logarithm shows the relative error of its smallest arguments, which are what is left
//! when large terms cancel, so nothing on that way may be rounded to f16, the operands of products neither. An activation
//! or a normalization ends the way: behind it a network has learned to live with noise. *Tail* nodes are element-wise and
//! lead into f32 outputs only: they are computed in f32 from what the last product accumulated, which costs nothing where
//! they are a part of it.

use super::query::{is_cast, pointwise};
use crate::base::{DType, Result, Tensor};
use crate::network::{Graph, Node, NodeId, ValueId};
use crate::ops::pointwise::half::{F16_MAX, F16_MIN};
use crate::ops::pointwise::{Func, Program};
use crate::ops::reduce::ReduceKind;
use crate::ops::{HalfRole, Op};
use crate::{bail, ensure};
use std::collections::{HashMap, HashSet};

/// See the module's text.
pub struct HalfPlan {
    exact: HashSet<NodeId>,
    tail: HashSet<NodeId>,
}

impl HalfPlan {
    pub fn new(g: &Graph) -> Result<HalfPlan> {
        let order = g.order()?;
        Ok(HalfPlan { exact: exact(g, &order), tail: tail(g, &order) })
    }

    /// The node leads into a logarithm.
    pub fn is_exact(&self, n: NodeId) -> bool {
        self.exact.contains(&n)
    }

    /// The node leads into f32 outputs only.
    pub fn is_tail(&self, n: NodeId) -> bool {
        self.tail.contains(&n)
    }
}

/// Functions that neither bound nor bend values: an error in front of them is an error behind them.
fn is_linear(p: &Program) -> bool {
    use Func::*;
    let passes = |f: Func| {
        matches!(
            f,
            Const | Cast | Add | Sub | Mul | Div | Neg | Abs | Max | Min | Clip | Pow | Sqrt | Select | Log | Reciprocal
                | Equal | Less | LessEqual | Greater | GreaterEqual | And | Or | Not | IsNan | IsInf | Exp
        )
    };
    p.instrs.iter().all(|i| passes(i.func))
}

fn exact(g: &Graph, order: &[NodeId]) -> HashSet<NodeId> {
    let takes_log = |n: &Node| match &n.op {
        Op::Pointwise(p) => {
            p.program.instrs.iter().any(|i| i.func == Func::Log) && n.outputs.iter().all(|v| g.fact(*v).dtype.is_float())
        }
        Op::Reduce(r) => r.kind == ReduceKind::LogSum,
        _ => false,
    };
    let mut found = HashSet::new();
    let mut stack: Vec<NodeId> = order.iter().copied().filter(|n| takes_log(g.node(*n))).collect();
    while let Some(n) = stack.pop() {
        let node = g.node(n);
        let walks = match &node.op {
            Op::Pointwise(p) => is_linear(&p.program),
            Op::Reduce(_) => true,
            Op::Softmax(_) | Op::Normalize(_) | Op::Attention(_) => false,
            // Products, and what moves elements.
            _ => node.op.def().half(node.inputs.len()).is_some() || matches!(node.op, Op::Dft(_) | Op::Stft(_)),
        };
        let has_epilogue = super::fuse_epilogue::epilogue(&node.op).flatten().is_some_and(|e| !is_linear(e));
        if walks && !has_epilogue && found.insert(n) {
            stack.extend(node.inputs.iter().flatten().filter_map(|v| g.producer(*v)).map(|(id, _)| id));
        }
    }
    found
}

fn tail(g: &Graph, order: &[NodeId]) -> HashSet<NodeId> {
    let mut found: HashSet<NodeId> = HashSet::new();
    for n in order.iter().rev() {
        let node = g.node(*n);
        let fits = pointwise(node).is_some() || matches!(node.op, Op::Reshape(_));
        let leads_out = |v: &ValueId| {
            let readers = &g.value(*v).consumers;
            (g.is_output(*v) || !readers.is_empty()) && readers.iter().all(|c| found.contains(c))
        };
        if fits && node.outputs.iter().all(|v| g.fact(*v).dtype == DType::F32 && leads_out(v)) {
            found.insert(*n);
        }
    }
    found
}

/// Remembers which f32 values keep to the range of f16 by what made them.
#[derive(Default)]
pub struct Tame(HashMap<ValueId, bool>);

/// Steps back from a value at most: what is not found to be tame within them counts as wild.
const MAX_STEPS: usize = 64;

impl Tame {
    /// The value keeps to the range of f16 whatever the inputs are: a table's rows, what a normalization or a bounded
    /// function gave, and sums, moves and activations of these. `is_half` says whether a value was f16 before, or is
    /// converted for a product anyway.
    pub fn is_tame(&mut self, g: &Graph, v: ValueId, is_half: &dyn Fn(ValueId) -> bool) -> bool {
        self.within(g, v, is_half, MAX_STEPS)
    }

    fn within(&mut self, g: &Graph, v: ValueId, is_half: &dyn Fn(ValueId) -> bool, steps: usize) -> bool {
        if let Some(known) = self.0.get(&v) {
            return *known;
        }
        let tame = steps > 0 && self.decide(g, v, is_half, steps - 1);
        self.0.insert(v, tame);
        tame
    }

    fn decide(&mut self, g: &Graph, v: ValueId, is_half: &dyn Fn(ValueId) -> bool, steps: usize) -> bool {
        if let Some(t) = g.as_const(v) {
            return check_range(t).is_ok();
        }
        if is_half(v) {
            return true;
        }
        let Some((_, node)) = g.producer(v) else { return false };
        match &node.op {
            Op::Normalize(_) => node.outputs.first() == Some(&v) && params_fit(g, node),
            Op::Softmax(s) => !s.log,
            Op::Pointwise(p) if is_bounded(&p.program) => true,
            op => {
                let Some((HalfRole::Follows, slots)) = op.def().half(node.inputs.len()) else { return false };
                let data: Vec<ValueId> = slots.iter().filter_map(|i| node.inputs.get(*i).copied().flatten()).collect();
                !data.is_empty() && data.iter().all(|v| g.fact(*v).dtype != DType::F32 || self.within(g, *v, is_half, steps))
            }
        }
    }
}

/// Scale and bias are constants that f16 holds.
pub fn params_fit(g: &Graph, node: &Node) -> bool {
    node.inputs.iter().skip(1).take(2).flatten().all(|v| g.as_const(*v).is_some_and(|t| check_range(t).is_ok()))
}

/// The result lies in a small interval whatever the operands are.
fn is_bounded(p: &Program) -> bool {
    let made = |r: u16| (r as usize).checked_sub(p.n_inputs()).map(|i| &p.instrs[i]);
    p.outputs.iter().all(|r| {
        made(*r).is_some_and(|i| match i.func {
            Func::Sigmoid | Func::Tanh | Func::HardSigmoid | Func::Erf | Func::Sin | Func::Cos => true,
            Func::Clip => i.args[1..].iter().all(|a| {
                made(*a).is_some_and(|c| c.func == Func::Const && c.value.abs() <= F16_MAX)
            }),
            _ => false,
        })
    })
}

/// The value is a conversion from f16.
pub fn is_widened(g: &Graph, v: ValueId) -> bool {
    g.producer(v).is_some_and(|(_, node)| pointwise(node).is_some_and(|p| is_cast(p) && p.inputs[0] == DType::F16))
}

/// Refuses constants that f16 does not hold.
pub fn check_range(t: &Tensor) -> Result<()> {
    if t.dtype() != DType::F32 {
        return Ok(());
    }
    let largest = t.slice::<f32>().iter().filter(|v| v.is_finite()).fold(0f32, |m, v| m.max(v.abs())) as f64;
    ensure!(largest <= F16_MAX, Unsupported, "a constant reaches {largest:e}, beyond f16's {F16_MAX}; kept in f32");
    // A lone tiny number is an epsilon; weights may well contain a few.
    if t.numel() == 1 && largest > 0.0 && largest < F16_MIN {
        bail!(Unsupported, "the constant {largest:e} is below f16's normal numbers; kept in f32");
    }
    Ok(())
}
