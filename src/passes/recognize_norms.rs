//! Normalizations that a model spells out become one node.
//!
//! * `(x - mean(x)) / sqrt(mean((x - mean(x))²) + epsilon)` over the last axes is layer normalization, and without the mean
//!   root-mean-square normalization, however the quotient is written: by `div`, by `reciprocal` and `mul`, or by `pow`.
//! * What follows a normalization and scales or shifts each place of a row becomes its scale and bias.
//! * A conversion from a half type in front goes: statistics are computed in f32 whatever the rows are.
//! * An instance normalization between two reshapes that cut channels into groups, and the scale and shift of each
//!   channel behind it, are group normalization.

use super::query::{const_scalar, is_cast, join_names, only_reader, operands, pointwise, same_shape};
use super::simplify_pointwise::{merge_equal, shorten};
use crate::base::{DType, Result, Shape};
use crate::bail;
use crate::network::{Graph, Node, NodeId, Patch, ValueId};
use crate::ops::Op;
use crate::ops::normalize::{Affine, Normalize};
use crate::ops::pointwise::{Func, Program, Reg};
use crate::ops::reduce::ReduceKind;
use crate::passes::{NodePass, PassCx};
use std::collections::HashSet;

/// See the module's text.
pub struct RecognizeNorms;

/// Nodes between the variance and the quotient at most.
const MAX_NODES: usize = 6;

impl NodePass for RecognizeNorms {
    fn name(&self) -> &'static str {
        "recognize_norms"
    }

    fn rewrite(&self, g: &Graph, cx: &PassCx<'_>, n: NodeId) -> Result<Option<Patch>> {
        let node = g.node(n);
        match &node.op {
            Op::Pointwise(_) => from_statistics(g, cx, n),
            Op::Normalize(op) if op.groups == 0 && !op.stats && !op.sum && node.inputs.len() <= 3 => {
                if let Some(patch) = without_conversion(g, cx, node, op)? {
                    return Ok(Some(patch));
                }
                match op.affine {
                    Affine::Row => with_params(g, cx, node, op),
                    Affine::Channel => as_groups(g, cx, node, op),
                    Affine::Group => Ok(None),
                }
            }
            _ => Ok(None),
        }
    }
}

/// Axes of a mean that keeps its axes, sorted.
fn mean_axes(g: &Graph, node: &Node) -> Option<Vec<usize>> {
    let Op::Reduce(op) = &node.op else { return None };
    let rank = g.fact(node.inputs.first().copied().flatten()?).rank();
    let operand = node.inputs.get(1).copied().flatten();
    let known = match operand {
        Some(v) => Some(g.as_const(v)?.to_i64s()),
        None => None,
    };
    let axes = op.resolve(op.axes.as_deref().or(known.as_deref()), rank).ok()?;
    (op.kind == ReduceKind::Mean && op.keepdims && !axes.is_empty()).then_some(axes)
}

fn from_statistics(g: &Graph, cx: &PassCx<'_>, n: NodeId) -> Result<Option<Patch>> {
    let node = g.node(n);
    let out = node.outputs[0];
    let Some(program) = pointwise(node).filter(|p| p.output_dtype(0).is_float()) else { return Ok(None) };
    let Some((program, ins)) = gathered(g, n, program)? else { return Ok(None) };
    let [a, b] = ins[..] else { return Ok(None) };
    // One operand is the variance.
    let variance_of = |v: ValueId| g.producer(v).and_then(|(_, p)| Some((mean_axes(g, p)?, square_of(g, p)?)));
    let found = [(0, a, b), (1, b, a)].into_iter().find_map(|(at, v, d)| {
        let (axes, of) = variance_of(v)?;
        let epsilon = quotient(&program, at as Reg)?;
        (of == d).then_some((axes, d, epsilon))
    });
    let Some((axes, d, epsilon)) = found else { return Ok(None) };
    let rank = g.fact(d).rank();
    if axes != (rank - axes.len()..rank).collect::<Vec<_>>() {
        bail!(Unsupported, "axes {axes:?} of a normalization are not the last of {rank}");
    }
    let (x, centered) = match centered_from(g, d, &axes) {
        Some(x) => (x, true),
        None => (d, false),
    };
    let op = Normalize::rows((rank - axes.len()) as i64, centered, epsilon as f32);
    let mut patch = cx.patch(g, &node.name);
    let new = patch.add(g, &node.name, op.into(), &[x])?;
    if patch.shape_of(g, new) != Some(&g.fact(out).shape) {
        return Ok(None);
    }
    patch.shunt(out, new);
    Ok(Some(patch))
}

/// The element-wise nodes above `n` that are read from inside only, as one program of at most two operands.
fn gathered(g: &Graph, n: NodeId, program: &Program) -> Result<Option<(Program, Vec<ValueId>)>> {
    let mut inside: HashSet<NodeId> = HashSet::from([n]);
    let (mut p, mut ins) = shorten(g, program, &operands(g.node(n)))?;
    while inside.len() < MAX_NODES {
        let next = ins.iter().enumerate().find_map(|(at, v)| {
            let (id, producer) = g.producer(*v)?;
            let hidden = !g.is_output(*v) && g.value(*v).consumers.iter().all(|c| inside.contains(c));
            // The deviations are read by their square too; a root-mean-square row may not be.
            let is_small = g.fact(*v).shape != g.fact(g.node(n).outputs[0]).shape;
            (pointwise(producer).is_some() && hidden && is_small).then_some((at, id))
        });
        let Some((at, id)) = next else { break };
        inside.insert(id);
        let producer = g.node(id);
        p = p.inline(at, pointwise(producer).expect("was looked at"), 0)?;
        let rest = ins.iter().enumerate().filter(|(i, _)| *i != at).map(|(_, v)| *v);
        let joint: Vec<ValueId> = operands(producer).into_iter().chain(rest).collect();
        (p, ins) = shorten(g, &p, &joint)?;
    }
    Ok((ins.len() == 2).then_some((p, ins)))
}

/// What a mean takes the squares of.
fn square_of(g: &Graph, mean: &Node) -> Option<ValueId> {
    let (_, node) = g.producer(mean.inputs[0]?)?;
    let (p, ins) = merge_equal(pointwise(node)?.clone(), operands(node));
    let constant = |r: Reg| made(&p, r).filter(|i| i.func == Func::Const).map(|i| i.value);
    let last = made(&p, p.outputs[0])?;
    let squares = match last.func {
        Func::Mul => ins.len() == 1 && last.args == [0, 0],
        Func::Pow if ins.len() == 1 => last.args[0] == 0 && constant(last.args[1]) == Some(2.0),
        Func::Pow => last.args == [0, 1] && const_scalar(g, ins[1]) == Some(2.0),
        _ => false,
    };
    squares.then_some(ins[0])
}

fn made(p: &Program, r: Reg) -> Option<&crate::ops::pointwise::Instr> {
    (r as usize).checked_sub(p.n_inputs()).map(|i| &p.instrs[i])
}

/// Epsilon, when the program of two operands is `other / sqrt(operand `v` + epsilon)`.
fn quotient(p: &Program, v: Reg) -> Option<f64> {
    let d = 1 - v;
    let value = |r: Reg| made(p, r).filter(|i| i.func == Func::Const).map(|i| i.value);
    let shifted = |r: Reg| -> Option<f64> {
        if r == v {
            return Some(0.0);
        }
        let i = made(p, r).filter(|i| i.func == Func::Add)?;
        match (i.args[0] == v, i.args[1] == v) {
            (true, false) => value(i.args[1]),
            (false, true) => value(i.args[0]),
            _ => None,
        }
    };
    let root = |r: Reg| -> Option<f64> {
        let i = made(p, r)?;
        match i.func {
            Func::Sqrt => shifted(i.args[0]),
            Func::Pow if value(i.args[1]) == Some(0.5) => shifted(i.args[0]),
            _ => None,
        }
    };
    let inverse = |r: Reg| -> Option<f64> {
        let i = made(p, r)?;
        match i.func {
            Func::Reciprocal => root(i.args[0]),
            Func::Div if value(i.args[0]) == Some(1.0) => root(i.args[1]),
            Func::Pow if value(i.args[1]) == Some(-0.5) => shifted(i.args[0]),
            _ => None,
        }
    };
    let last = made(p, *p.outputs.first()?)?;
    let epsilon = match last.func {
        Func::Div if last.args[0] == d => root(last.args[1]),
        Func::Mul if last.args[0] == d => inverse(last.args[1]),
        Func::Mul if last.args[1] == d => inverse(last.args[0]),
        _ => None,
    };
    epsilon.filter(|e| *e >= 0.0)
}

/// The rows that `d` is the deviations of.
fn centered_from(g: &Graph, d: ValueId, axes: &[usize]) -> Option<ValueId> {
    let (_, node) = g.producer(d)?;
    if pointwise(node)?.as_single() != Some(Func::Sub) {
        return None;
    }
    let ins = operands(node);
    let (_, mean) = g.producer(ins[1])?;
    (mean_axes(g, mean)? == axes && mean.inputs[0] == Some(ins[0])).then_some(ins[0])
}

/// Reads a half type directly where it was converted first; without scale and bias the result must be converted back.
fn without_conversion(g: &Graph, cx: &PassCx<'_>, node: &Node, op: &Normalize) -> Result<Option<Patch>> {
    let Some(x) = node.inputs[0] else { return Ok(None) };
    let Some((_, producer)) = g.producer(x) else { return Ok(None) };
    let Some(p) = pointwise(producer).filter(|p| is_cast(p)) else { return Ok(None) };
    let (half, source) = (p.inputs[0], producer.inputs[0].expect("has no absent operand"));
    if !matches!(half, DType::F16 | DType::BF16) || g.fact(x).dtype != DType::F32 {
        return Ok(None);
    }
    let mut ins = node.inputs.clone();
    ins[0] = Some(source);
    let out = node.outputs[0];
    let has_params = ins.iter().skip(1).any(|v| v.is_some());
    let (end, name) = match has_params {
        true => (out, node.name.clone()),
        false => {
            let Some(reader) = only_reader(g, out).map(|r| g.node(r)) else { return Ok(None) };
            match pointwise(reader).filter(|p| is_cast(p)) {
                Some(p) if p.output_dtype(0) == half => (reader.outputs[0], join_names(&node.name, &reader.name)),
                _ => return Ok(None),
            }
        }
    };
    let mut patch = cx.patch(g, &node.name);
    let new = patch.add_node(g, &name, op.clone().into(), &ins)?[0];
    patch.shunt(end, new);
    Ok(Some(patch))
}

/// The shape without leading axes of size 1.
fn trimmed(shape: &Shape) -> &[crate::base::Dim] {
    let ones = shape.iter().take_while(|d| d.is(1)).count();
    &shape[ones.min(shape.rank())..]
}

/// The only reader's other operand, when the reader is `func` of the value and that.
fn joined_by(g: &Graph, v: ValueId, func: Func) -> Option<(&Node, ValueId)> {
    let reader = g.node(only_reader(g, v)?);
    if pointwise(reader)?.as_single() != Some(func) || !same_shape(g, v, reader.outputs[0]) {
        return None;
    }
    let ins = operands(reader);
    let other = if ins[0] == v { ins[1] } else { ins[0] };
    (other != v).then_some((reader, other))
}

/// A `mul` behind a normalization of whole places becomes its scale, an `add` its bias.
fn with_params(g: &Graph, cx: &PassCx<'_>, node: &Node, op: &Normalize) -> Result<Option<Patch>> {
    let out = node.outputs[0];
    let operand = |i: usize| node.inputs.get(i).copied().flatten();
    let found = match (operand(1), operand(2)) {
        (None, None) => joined_by(g, out, Func::Mul).map(|f| (1, f)).or_else(|| joined_by(g, out, Func::Add).map(|f| (2, f))),
        (Some(_), None) => joined_by(g, out, Func::Add).map(|f| (2, f)),
        _ => None,
    };
    let Some((slot, (reader, param))) = found else { return Ok(None) };
    let shape = &g.fact(out).shape;
    let row = &shape[shape.axis(op.axis)?..];
    if trimmed(&g.fact(param).shape) != trimmed(&Shape(row.to_vec())) {
        // A sum of two rows is a residual connection, which is no bias.
        return Ok(None);
    }
    let mut ins: Vec<Option<ValueId>> = (0..3).map(operand).collect();
    ins[slot] = Some(param);
    let mut patch = cx.patch(g, &node.name);
    let new = patch.add_node(g, &join_names(&node.name, &reader.name), op.clone().into(), &ins)?[0];
    patch.shunt(reader.outputs[0], new);
    Ok(Some(patch))
}

/// Every element of a constant is `value`.
fn is_all(g: &Graph, v: Option<ValueId>, value: f64) -> bool {
    v.is_none_or(|v| g.as_const(v).is_some_and(|t| t.to_f64s().iter().all(|x| *x == value)))
}

/// Instances that are groups of channels of a reshaped tensor.
fn as_groups(g: &Graph, cx: &PassCx<'_>, node: &Node, op: &Normalize) -> Result<Option<Patch>> {
    let Some(inner) = node.inputs[0] else { return Ok(None) };
    let Some((_, first)) = g.producer(inner) else { return Ok(None) };
    let reader = only_reader(g, node.outputs[0]).map(|r| g.node(r));
    let (Op::Reshape(_), Some(x), Some(last)) = (&first.op, first.inputs[0], reader) else { return Ok(None) };
    let (shape, cut) = (&g.fact(x).shape, &g.fact(inner).shape);
    if !matches!(last.op, Op::Reshape(_)) || &g.fact(last.outputs[0]).shape != shape || shape.rank() < 2 || cut.rank() < 2 {
        return Ok(None);
    }
    let (Some(groups), Some(channels)) = (cut[1].as_const(), shape[1].as_const()) else {
        bail!(Unsupported, "{:?} cuts channels into groups whose number is not known", first.name);
    };
    if cut[0] != shape[0] || groups < 1 || channels % groups != 0 {
        bail!(Unsupported, "{:?} cuts {shape} into {cut}, which are no groups of channels", first.name);
    }
    if !is_all(g, node.inputs.get(1).copied().flatten(), 1.0) || !is_all(g, node.inputs.get(2).copied().flatten(), 0.0) {
        bail!(Unsupported, "each group has a scale and a bias of its own");
    }
    // A vector of channels: [c, 1, ..] with as many ones as there are axes behind.
    let by_channel = |v: ValueId| {
        let s = trimmed(&g.fact(v).shape);
        s.len() == shape.rank() - 1 && s[0] == shape[1] && s[1..].iter().all(|d| d.is(1))
    };
    let mut end = last.outputs[0];
    let mut name = node.name.clone();
    let mut params = [None, None];
    for (slot, func) in [Func::Mul, Func::Add].into_iter().enumerate() {
        if let Some((reader, v)) = joined_by(g, end, func).filter(|(_, v)| by_channel(*v)) {
            params[slot] = Some(v);
            end = reader.outputs[0];
            name = join_names(&name, &reader.name);
        }
    }
    let op = Normalize { axis: 0, groups, affine: Affine::Channel, ..op.clone() };
    let mut patch = cx.patch(g, &node.name);
    let new = patch.add_node(g, &name, op.into(), &[Some(x), params[0], params[1]])?[0];
    patch.shunt(end, new);
    Ok(Some(patch))
}
