//! Scales and shifts by constants move into the weights and the bias of the product beside them.
//!
//! This is how a batch normalization disappears: it arrives as `mul` and `add` with constants `[c,1,1]`. The
//! element-wise node is read as `scale * x + shift` with one value a channel, whatever it was written as (`sub`, `div`
//! and `neg` count too); the fold is computed in f64 and rounded once. Folds that would not stay finite are refused.
//!
//! *After* a product: weights and bias are scaled. A lone shift becomes the bias, also of a product of two inputs.
//! *Before* it: weights are scaled along their input channels; a shift adds to the bias, which is right only where no
//! zero padding is mixed in.

use super::query::{along_axis, const_scalar, only_reader, operands, pointwise, same_shape, tensor_from};
use super::simplify_pointwise::merge_equal;
use crate::base::{DType, Result, Tensor};
use crate::network::{Graph, Node, NodeId, Patch, ValueId};
use crate::ops::Op;
use crate::ops::pointwise::{Func, Program};
use crate::ops::window::{AutoPad, ChannelOrder};
use crate::passes::{NodePass, PassCx};
use crate::{bail, ensure};

/// Folds `scale * product + shift`; see the module's text.
pub struct FoldScaleAfter;

/// Folds `product(scale * x + shift)`; see the module's text.
pub struct FoldScaleBefore;

/// `scale * x + shift`; each has one element, or one for each channel.
#[derive(Clone, Debug)]
struct Affine {
    scale: Vec<f64>,
    shift: Vec<f64>,
}

impl Affine {
    fn constant(v: Vec<f64>) -> Affine {
        Affine { scale: vec![0.0], shift: v }
    }

    fn is_constant(&self) -> bool {
        self.scale.iter().all(|s| *s == 0.0)
    }

    fn scales(&self) -> bool {
        self.scale.iter().any(|s| *s != 1.0)
    }

    fn shifts(&self) -> bool {
        self.shift.iter().any(|s| *s != 0.0)
    }

    fn scale_at(&self, i: usize) -> f64 {
        self.scale[i % self.scale.len()]
    }

    fn shift_at(&self, i: usize) -> f64 {
        self.shift[i % self.shift.len()]
    }

    /// True when both parts have one element or `n`.
    fn fits(&self, n: usize) -> bool {
        [self.scale.len(), self.shift.len()].iter().all(|l| *l == 1 || *l == n)
    }
}

/// `f` on two vectors of which either may have one element that stands for all.
fn zip(a: &[f64], b: &[f64], f: impl Fn(f64, f64) -> f64) -> Option<Vec<f64>> {
    let n = a.len().max(b.len());
    let fits = [a.len(), b.len()].iter().all(|l| *l == 1 || *l == n);
    fits.then(|| (0..n).map(|i| f(a[i % a.len()], b[i % b.len()])).collect())
}

fn product(a: &Affine, b: &Affine, f: fn(f64, f64) -> f64) -> Option<Affine> {
    if !b.is_constant() {
        return None;
    }
    Some(Affine { scale: zip(&a.scale, &b.shift, f)?, shift: zip(&a.shift, &b.shift, f)? })
}

/// The program as an affine function of operand `x`, the others being constants along `axis` of rank `rank`.
fn affine(g: &Graph, program: &Program, ins: &[ValueId], x: ValueId, rank: usize, axis: usize) -> Option<Affine> {
    let mut regs: Vec<Affine> = Vec::new();
    for v in ins {
        regs.push(match *v == x {
            true => Affine { scale: vec![1.0], shift: vec![0.0] },
            false => Affine::constant(along_axis(g.as_const(*v)?, rank, axis)?),
        });
    }
    for ins in &program.instrs {
        let arg = |i: usize| &regs[ins.args[i] as usize];
        regs.push(match ins.func {
            Func::Const => Affine::constant(vec![ins.value]),
            Func::Add => Affine {
                scale: zip(&arg(0).scale, &arg(1).scale, |a, b| a + b)?,
                shift: zip(&arg(0).shift, &arg(1).shift, |a, b| a + b)?,
            },
            Func::Sub => Affine {
                scale: zip(&arg(0).scale, &arg(1).scale, |a, b| a - b)?,
                shift: zip(&arg(0).shift, &arg(1).shift, |a, b| a - b)?,
            },
            Func::Mul => product(arg(0), arg(1), |a, b| a * b).or_else(|| product(arg(1), arg(0), |a, b| a * b))?,
            Func::Div => product(arg(0), arg(1), |a, b| a / b)?,
            Func::Neg => product(arg(0), &Affine::constant(vec![-1.0]), |a, b| a * b)?,
            _ => return None,
        });
    }
    Some(regs[program.outputs[0] as usize].clone())
}

/// A node with a product, in the terms that the folds need.
struct Product<'a> {
    node: &'a Node,
    kind: Kind,
    dtype: DType,
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Conv { group: usize, padded: bool },
    ConvTranspose { group: usize },
    MatMul { trans_a: bool, trans_b: bool, alpha: f32 },
}

impl<'a> Product<'a> {
    fn of(g: &Graph, node: &'a Node) -> Option<Product<'a>> {
        let kind = match &node.op {
            Op::Conv(c) if c.order != ChannelOrder::First => return None,
            Op::Conv(c) => {
                let same = matches!(c.auto_pad, AutoPad::SameUpper | AutoPad::SameLower);
                let explicit = c.auto_pad == AutoPad::NotSet && c.pads.iter().any(|p| *p != 0);
                Kind::Conv { group: usize::try_from(c.group).ok()?, padded: same || explicit }
            }
            Op::ConvTranspose(c) => Kind::ConvTranspose { group: usize::try_from(c.group).ok()? },
            Op::MatMul(m) => Kind::MatMul { trans_a: m.trans_a, trans_b: m.trans_b, alpha: m.alpha },
            _ => return None,
        };
        let dtype = g.fact(node.inputs.first().copied().flatten()?).dtype;
        matches!(dtype, DType::F32 | DType::F64).then_some(Product { node, kind, dtype })
    }

    fn weights<'g>(&self, g: &'g Graph) -> Option<&'g Tensor> {
        g.as_const(self.node.inputs.get(1).copied().flatten()?).map(|t| t.as_ref())
    }

    /// Constant bias; `Err` when there is one that is not constant.
    fn bias(&self, g: &Graph) -> Result<Option<Vec<f64>>> {
        let Some(v) = self.node.inputs.get(2).copied().flatten() else { return Ok(None) };
        let Some(t) = g.as_const(v) else { bail!(Unsupported, "the bias is no constant") };
        Ok(Some(t.to_f64s()))
    }

    /// The channel axis of results and inputs of rank `rank`.
    fn channel_axis(&self, rank: usize) -> usize {
        if matches!(self.kind, Kind::MatMul { .. }) { rank - 1 } else { 1 }
    }

    /// Calls `f(element, output channel, input channel)` on each weight; the numbers of output and input channels.
    fn for_weights(&self, w: &Tensor, mut f: impl FnMut(usize, usize, usize)) -> Result<(usize, usize)> {
        let s = w.shape();
        ensure!(s.len() >= 2 && w.numel() > 0, Unsupported, "weights of shape {s:?} do not fold");
        let inner: usize = s[2..].iter().product();
        Ok(match self.kind {
            Kind::Conv { group, .. } => {
                ensure!(group > 0 && s[0] % group == 0, Unsupported, "{} outputs in {group} groups", s[0]);
                let per_group = s[0] / group;
                for i in 0..w.numel() {
                    let m = i / (inner * s[1]);
                    f(i, m, m / per_group * s[1] + i / inner % s[1]);
                }
                (s[0], s[1] * group)
            }
            Kind::ConvTranspose { group } => {
                ensure!(group > 0 && s[0] % group == 0, Unsupported, "{} inputs in {group} groups", s[0]);
                let per_group = s[0] / group;
                for i in 0..w.numel() {
                    let c = i / (inner * s[1]);
                    f(i, c / per_group * s[1] + i / inner % s[1], c);
                }
                (s[1] * group, s[0])
            }
            Kind::MatMul { trans_b, .. } => {
                let (rows, cols) = (s[s.len() - 2], s[s.len() - 1]);
                for i in 0..w.numel() {
                    let (r, c) = (i / cols % rows, i % cols);
                    if trans_b { f(i, r, c) } else { f(i, c, r) }
                }
                if trans_b { (rows, cols) } else { (cols, rows) }
            }
        })
    }

    /// Output channels, from the weights' shape alone.
    fn n_out(&self, g: &Graph) -> Option<usize> {
        let shape = &g.fact(self.node.inputs[1]?).shape;
        let at = |i: usize| shape.get(i).and_then(|d| d.as_const()).and_then(|d| usize::try_from(d).ok());
        match self.kind {
            Kind::Conv { .. } => at(0),
            Kind::ConvTranspose { group } => Some(at(1)? * group),
            Kind::MatMul { .. } if shape.rank() < 2 => None,
            Kind::MatMul { trans_b, .. } => at(shape.rank() - if trans_b { 2 } else { 1 }),
        }
    }

    /// Adds the node again with other weights, bias or alpha.
    fn rebuild(&self, g: &Graph, patch: &mut Patch, new: Parts) -> Result<ValueId> {
        let mut ins = self.node.inputs.clone();
        ins.resize(ins.len().max(3), None);
        if let Some(x) = new.x {
            ins[0] = Some(x);
        }
        if let Some(w) = new.w {
            ins[1] = Some(w);
        }
        if let Some(b) = new.bias {
            let dtype = self.dtype;
            let Some(t) = tensor_from(dtype, &[b.len()], &b) else { bail!(Unsupported, "the bias is not finite") };
            ins[2] = Some(patch.add_const(&format!("{}/bias", self.node.name), t));
        }
        while ins.last() == Some(&None) {
            ins.pop();
        }
        let mut op = self.node.op.clone();
        if let (Op::MatMul(m), Some(alpha)) = (&mut op, new.alpha) {
            ensure!(alpha.is_finite(), Unsupported, "alpha is not finite");
            m.alpha = alpha;
        }
        Ok(patch.add_node(g, &self.node.name, op, &ins)?[0])
    }
}

/// What a rebuilt product has that the old one had not.
#[derive(Default)]
struct Parts {
    x: Option<ValueId>,
    w: Option<ValueId>,
    bias: Option<Vec<f64>>,
    alpha: Option<f32>,
}

fn scaled_weights(w: &Tensor, factors: Vec<f64>, patch: &mut Patch, name: &str) -> Result<ValueId> {
    let data: Vec<f64> = w.to_f64s().iter().zip(&factors).map(|(a, b)| a * b).collect();
    let Some(t) = tensor_from(w.dtype(), w.shape(), &data) else { bail!(Unsupported, "the weights are not finite") };
    Ok(patch.add_const(&format!("{name}/weights"), t))
}

impl NodePass for FoldScaleAfter {
    fn name(&self) -> &'static str {
        "fold_scale_after"
    }

    fn rewrite(&self, g: &Graph, cx: &PassCx<'_>, n: NodeId) -> Result<Option<Patch>> {
        let node = g.node(n);
        let Some(program) = pointwise(node) else { return Ok(None) };
        let out = node.outputs[0];
        let (program, ins) = merge_equal(program.clone(), operands(node));
        let Some(x) = single_variable(g, &ins) else { return Ok(None) };
        let Some((_, producer)) = g.producer(x) else { return Ok(None) };
        let Some(p) = Product::of(g, producer) else { return Ok(None) };
        if only_reader(g, x) != Some(n) || !same_shape(g, x, out) || g.fact(out).dtype != p.dtype {
            return Ok(None);
        }
        let rank = g.fact(out).rank();
        if rank < 2 || super::fuse_epilogue::epilogue(&producer.op).flatten().is_some() {
            return Ok(None);
        }
        let Some(a) = affine(g, &program, &ins, x, rank, p.channel_axis(rank)) else { return Ok(None) };
        let Some(n_out) = p.n_out(g) else { bail!(Unsupported, "the number of channels is not known") };
        ensure!(a.fits(n_out), Unsupported, "the constants do not have one element for each of {n_out} channels");

        let mut patch = cx.patch(g, &node.name);
        let mut parts = Parts::default();
        if a.scales() {
            match (p.kind, a.scale.as_slice(), p.weights(g)) {
                (Kind::MatMul { alpha, .. }, [s], _) => parts.alpha = Some((alpha as f64 * s) as f32),
                (_, _, Some(w)) => {
                    let mut factors = vec![1.0; w.numel()];
                    p.for_weights(w, |i, m, _| factors[i] = a.scale_at(m))?;
                    parts.w = Some(scaled_weights(w, factors, &mut patch, &producer.name)?);
                }
                _ => bail!(Unsupported, "the weights are no constant"),
            }
        }
        let old = p.bias(g)?;
        if old.is_some() || a.shifts() {
            let old = old.unwrap_or_else(|| vec![0.0; n_out]);
            let bias = (0..n_out).map(|m| old[m % old.len()] * a.scale_at(m) + a.shift_at(m));
            parts.bias = Some(bias.collect());
        }
        let new = p.rebuild(g, &mut patch, parts)?;
        patch.shunt(out, new);
        Ok(Some(patch))
    }
}

/// The one operand that is no constant.
fn single_variable(g: &Graph, ins: &[ValueId]) -> Option<ValueId> {
    let mut free = ins.iter().filter(|v| g.as_const(**v).is_none());
    let x = *free.next()?;
    free.next().is_none().then_some(x)
}

impl NodePass for FoldScaleBefore {
    fn name(&self) -> &'static str {
        "fold_scale_before"
    }

    fn rewrite(&self, g: &Graph, cx: &PassCx<'_>, n: NodeId) -> Result<Option<Patch>> {
        let node = g.node(n);
        let Some(p) = Product::of(g, node) else { return Ok(None) };
        let (Some(y), Some(w)) = (node.inputs[0], p.weights(g)) else { return Ok(None) };
        let Some((x, a)) = scaled(g, n, &p, y) else { return Ok(None) };
        if matches!(p.kind, Kind::MatMul { trans_a: true, .. }) {
            return Ok(None);
        }
        let mut factors = vec![1.0; w.numel()];
        let mut n_in = 0;
        let (n_out, channels) = p.for_weights(w, |i, _, c| {
            factors[i] = a.scale_at(c);
            n_in = n_in.max(c + 1);
        })?;
        ensure!(a.fits(channels), Unsupported, "the constants do not have one element for each of {channels} channels");
        let mut parts = Parts { x: Some(x), ..Parts::default() };
        if a.shifts() {
            let alpha = match p.kind {
                Kind::Conv { padded: false, .. } => 1.0,
                Kind::MatMul { alpha, .. } if w.rank() == 2 => alpha as f64,
                Kind::MatMul { .. } => bail!(Unsupported, "a shift in front of a batched product"),
                _ => bail!(Unsupported, "a shift in front of zero padding is not the same everywhere"),
            };
            let mut bias = p.bias(g)?.unwrap_or_else(|| vec![0.0; n_out]);
            ensure!(bias.len() == n_out, Unsupported, "the bias has {} elements, not {n_out}", bias.len());
            let data = w.to_f64s();
            p.for_weights(w, |i, m, c| bias[m] += alpha * data[i] * a.shift_at(c))?;
            parts.bias = Some(bias);
        }
        let mut patch = cx.patch(g, &node.name);
        if a.scales() {
            parts.w = Some(scaled_weights(w, factors, &mut patch, &node.name)?);
        }
        let new = p.rebuild(g, &mut patch, parts)?;
        patch.shunt(node.outputs[0], new);
        Ok(Some(patch))
    }
}

/// What `y`, read by `n` alone, is an affine function of.
fn scaled(g: &Graph, n: NodeId, p: &Product<'_>, y: ValueId) -> Option<(ValueId, Affine)> {
    let (_, producer) = g.producer(y)?;
    let program = pointwise(producer)?;
    let (program, ins) = merge_equal(program.clone(), operands(producer));
    let x = single_variable(g, &ins)?;
    let rank = g.fact(y).rank();
    if only_reader(g, y) != Some(n) || !same_shape(g, x, y) || g.fact(x).dtype != p.dtype || rank < 2 {
        return None;
    }
    Some((x, affine(g, &program, &ins, x, rank, p.channel_axis(rank))?))
}

/// Folds `matmul(s * a, b)` and `matmul(a, s * b)` with a number s, as in attention, into the product's alpha.
pub struct FoldScaleIntoAlpha;

impl NodePass for FoldScaleIntoAlpha {
    fn name(&self) -> &'static str {
        "fold_scale_into_alpha"
    }

    fn rewrite(&self, g: &Graph, cx: &PassCx<'_>, n: NodeId) -> Result<Option<Patch>> {
        let node = g.node(n);
        let (Op::MatMul(m), Some(p)) = (&node.op, Product::of(g, node)) else { return Ok(None) };
        for side in [0, 1] {
            let Some(y) = node.inputs[side] else { continue };
            let Some((_, producer)) = g.producer(y) else { continue };
            let numbers = operands(producer).iter().all(|v| g.as_const(*v).is_none() || const_scalar(g, *v).is_some());
            let Some((x, a)) = scaled(g, n, &p, y).filter(|_| numbers) else { continue };
            let ([s], false) = (a.scale.as_slice(), a.shifts()) else { continue };
            let mut m = m.clone();
            m.alpha = (m.alpha as f64 * s) as f32;
            ensure!(m.alpha.is_finite(), Unsupported, "alpha is not finite");
            let mut ins = node.inputs.clone();
            ins[side] = Some(x);
            let mut patch = cx.patch(g, &node.name);
            let new = patch.add_node(g, &node.name, m.into(), &ins)?[0];
            patch.shunt(node.outputs[0], new);
            return Ok(Some(patch));
        }
        Ok(None)
    }
}
