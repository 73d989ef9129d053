//! The operators of com.microsoft on quantized tensors that are compositions: dequantize, compute in f32, quantize. Each
//! element-wise one is a single node.

use super::onnx::as_f32;
use crate::base::{Attrs, DType, Result};
use crate::network::ValueId;
use crate::ops::ImportCx;
use crate::ops::pointwise::{Func, Pointwise, Program, Reg};
use crate::{bail, ensure};

type Imported = Result<Vec<ValueId>>;

/// A scale and a zero point; an absent one is 0.
#[derive(Clone, Copy)]
struct Scaling {
    scale: ValueId,
    zero: Option<ValueId>,
}

fn scaling(cx: &mut ImportCx<'_>, scale: usize, zero: usize) -> Result<Scaling> {
    let s = Scaling { scale: cx.input(scale)?, zero: cx.opt(zero) };
    for (what, v) in [("scale", Some(s.scale)), ("zero point", s.zero)] {
        let Some(v) = v else { continue };
        ensure!(cx.shape(v).numel().is(1), Unsupported, "a {what} must have one element, got {}", cx.shape(v));
    }
    Ok(Scaling { scale: as_f32(cx, s.scale)?, ..s })
}

/// An element-wise program under construction: operands first, then instructions.
struct Elementwise {
    p: Program,
    inputs: Vec<ValueId>,
}

/// An operand of a program: an input of the node, or a number that is part of the program.
#[derive(Clone, Copy)]
enum Slot {
    Input(Reg),
    Number(f64, DType),
}

impl Elementwise {
    fn new() -> Self {
        Elementwise { p: Program { inputs: vec![], instrs: vec![], outputs: vec![] }, inputs: vec![] }
    }

    fn tensor(&mut self, cx: &ImportCx<'_>, v: ValueId) -> Reg {
        self.inputs.push(v);
        self.p.inputs.push(cx.fact(v).dtype);
        self.inputs.len() as Reg - 1
    }

    fn scalar(&mut self, cx: &ImportCx<'_>, v: Option<ValueId>) -> Slot {
        let Some(v) = v else { return Slot::Number(0.0, DType::F32) };
        match cx.as_const(v).and_then(|t| t.scalar_f64()) {
            Some(n) => Slot::Number(n, DType::F32),
            None => Slot::Input(self.tensor(cx, v)),
        }
    }

    fn reg(&mut self, s: Slot) -> Result<Reg> {
        match s {
            Slot::Input(r) => self.p.push_cast(r, DType::F32),
            Slot::Number(v, d) => self.p.push_const(v, d),
        }
    }

    fn push(&mut self, f: Func, args: &[Reg]) -> Result<Reg> {
        self.p.push(f, args)
    }

    /// scale (x - zero).
    fn dequantize(&mut self, x: Reg, (scale, zero): (Slot, Slot)) -> Result<Reg> {
        let d = self.difference(x, zero)?;
        let scale = self.reg(scale)?;
        self.push(Func::Mul, &[d, scale])
    }

    /// x - zero, in f32, exact.
    fn difference(&mut self, x: Reg, zero: Slot) -> Result<Reg> {
        let x = self.p.push_cast(x, DType::F32)?;
        if matches!(zero, Slot::Number(0.0, _)) {
            return Ok(x);
        }
        let zero = self.reg(zero)?;
        self.push(Func::Sub, &[x, zero])
    }

    /// saturate(round(v / scale) + zero).
    fn quantize(&mut self, v: Reg, (scale, zero): (Slot, Slot), to: DType) -> Result<()> {
        let scale = self.reg(scale)?;
        let v = self.push(Func::Div, &[v, scale])?;
        let v = self.push(Func::Round, &[v])?;
        let zero = self.reg(zero)?;
        let v = self.push(Func::Add, &[v, zero])?;
        self.saturate(v, to)
    }

    /// Clips a whole number to an 8-bit type: the output.
    fn saturate(&mut self, v: Reg, to: DType) -> Result<()> {
        let (low, high) = if to == DType::I8 { (-128.0, 127.0) } else { (0.0, 255.0) };
        let (low, high) = (self.p.push_const(low, DType::F32)?, self.p.push_const(high, DType::F32)?);
        let v = self.push(Func::Clip, &[v, low, high])?;
        let v = self.p.push_cast(v, to)?;
        self.p.outputs = vec![v];
        Ok(())
    }

    fn finish(self, cx: &mut ImportCx<'_>) -> Result<ValueId> {
        cx.add(Pointwise { program: self.p }, &self.inputs)
    }

    fn scaling(&mut self, cx: &ImportCx<'_>, s: Scaling) -> (Slot, Slot) {
        (self.scalar(cx, Some(s.scale)), self.scalar(cx, s.zero))
    }
}

/// Fails unless the value is of an 8-bit integer type.
fn byte_type(cx: &ImportCx<'_>, v: ValueId) -> Result<DType> {
    let d = cx.fact(v).dtype;
    ensure!(matches!(d, DType::I8 | DType::U8), Unsupported, "expected i8 or u8, got {d}");
    Ok(d)
}

fn dequantized(cx: &mut ImportCx<'_>, x: ValueId, s: Scaling) -> Result<ValueId> {
    byte_type(cx, x)?;
    let mut e = Elementwise::new();
    let r = e.tensor(cx, x);
    let s = e.scaling(cx, s);
    let y = e.dequantize(r, s)?;
    e.p.outputs = vec![y];
    e.finish(cx)
}

fn quantized(cx: &mut ImportCx<'_>, x: ValueId, s: Scaling, to: DType) -> Result<ValueId> {
    let mut e = Elementwise::new();
    let r = e.tensor(cx, x);
    let s = e.scaling(cx, s);
    e.quantize(r, s, to)?;
    e.finish(cx)
}

/// (a_scale / c_scale) (a - a_zero) + (b_scale / c_scale) (b - b_zero) + c_zero; rounded last.
pub(super) fn add(cx: &mut ImportCx<'_>) -> Imported {
    let (a, b) = (cx.input(0)?, cx.input(3)?);
    let to = byte_type(cx, a)?;
    byte_type(cx, b)?;
    let (sa, sb, sc) = (scaling(cx, 1, 2)?, scaling(cx, 4, 5)?, scaling(cx, 6, 7)?);
    let mut e = Elementwise::new();
    let (a, b) = (e.tensor(cx, a), e.tensor(cx, b));
    let all = [sa, sb, sc].map(|s| e.scaling(cx, s));
    let v = match all {
        [(Slot::Number(sa, _), Slot::Number(za, _)), (Slot::Number(sb, _), Slot::Number(zb, _)), (Slot::Number(sc, _), Slot::Number(zc, _))] => {
            fused_sum(&mut e, [(a, sa, za), (b, sb, zb)], (sc, zc))?
        }
        [sa, sb, (scale, zero)] => {
            let scale = e.reg(scale)?;
            let term = |e: &mut Elementwise, x: Reg, (s, z): (Slot, Slot)| -> Result<Reg> {
                let d = e.difference(x, z)?;
                let s = e.reg(s)?;
                let ratio = e.push(Func::Div, &[s, scale])?;
                e.push(Func::Mul, &[d, ratio])
            };
            let (ta, tb) = (term(&mut e, a, sa)?, term(&mut e, b, sb)?);
            let sum = e.push(Func::Add, &[ta, tb])?;
            let zero = e.reg(zero)?;
            e.push(Func::Add, &[sum, zero])?
        }
    };
    let v = e.push(Func::Round, &[v])?;
    e.saturate(v, to)?;
    Ok(vec![e.finish(cx)?])
}

/// The sum with ONNX Runtime's roundings, for sums that lie near a half: `fma(a, ra, fma(b, rb, shift))` in f32, with the
/// zero points gathered in `shift`. A product of a byte and an f32 is exact in f64, so one rounding to f32 is the fma's.
fn fused_sum(e: &mut Elementwise, terms: [(Reg, f64, f64); 2], (scale, zero): (f64, f64)) -> Result<Reg> {
    let f32_of = |v: f64| v as f32 as f64;
    let [(_, sa, za), (_, sb, zb)] = terms;
    let (ra, rb) = (f32_of(sa / scale), f32_of(sb / scale));
    let shift = f32_of(zero - f32_of(ra * za + f32_of(rb * zb)));
    let mut sum = e.p.push_const(shift, DType::F64)?;
    for (x, ratio) in [(terms[1].0, rb), (terms[0].0, ra)] {
        let x = e.p.push_cast(x, DType::F64)?;
        let ratio = e.p.push_const(ratio, DType::F64)?;
        let product = e.push(Func::Mul, &[x, ratio])?;
        let wide = e.p.push_cast(sum, DType::F64)?;
        let wide = e.push(Func::Add, &[product, wide])?;
        sum = e.p.push_cast(wide, DType::F32)?;
    }
    Ok(sum)
}

/// (a - a_zero) (b - b_zero) (a_scale b_scale / c_scale) + c_zero; rounded last.
pub(super) fn mul(cx: &mut ImportCx<'_>) -> Imported {
    let (a, b) = (cx.input(0)?, cx.input(3)?);
    let to = byte_type(cx, a)?;
    byte_type(cx, b)?;
    let (sa, sb, sc) = (scaling(cx, 1, 2)?, scaling(cx, 4, 5)?, scaling(cx, 6, 7)?);
    let mut e = Elementwise::new();
    let (a, b) = (e.tensor(cx, a), e.tensor(cx, b));
    let [(sa, za), (sb, zb), (sc, zc)] = [sa, sb, sc].map(|s| e.scaling(cx, s));
    let (da, db) = (e.difference(a, za)?, e.difference(b, zb)?);
    let product = e.push(Func::Mul, &[da, db])?;
    let (sa, sb, sc) = (e.reg(sa)?, e.reg(sb)?, e.reg(sc)?);
    let scale = e.push(Func::Mul, &[sa, sb])?;
    let scale = e.push(Func::Div, &[scale, sc])?;
    let v = e.push(Func::Mul, &[product, scale])?;
    let zero = e.reg(zc)?;
    let v = e.push(Func::Add, &[v, zero])?;
    let v = e.push(Func::Round, &[v])?;
    e.saturate(v, to)?;
    Ok(vec![e.finish(cx)?])
}

/// A function of one dequantized operand, quantized again.
fn unary(cx: &mut ImportCx<'_>, f: impl Fn(&mut Elementwise, Reg) -> Result<Reg>) -> Imported {
    let x = cx.input(0)?;
    let to = byte_type(cx, x)?;
    let (sx, sy) = (scaling(cx, 1, 2)?, scaling(cx, 3, 4)?);
    let mut e = Elementwise::new();
    let r = e.tensor(cx, x);
    let [sx, sy] = [sx, sy].map(|s| e.scaling(cx, s));
    let v = e.dequantize(r, sx)?;
    let v = f(&mut e, v)?;
    e.quantize(v, sy, to)?;
    Ok(vec![e.finish(cx)?])
}

pub(super) fn sigmoid(cx: &mut ImportCx<'_>) -> Imported {
    unary(cx, |e, v| e.push(Func::Sigmoid, &[v]))
}

pub(super) fn leaky_relu(cx: &mut ImportCx<'_>) -> Imported {
    let alpha = cx.float("alpha", 0.01)?;
    unary(cx, |e, v| {
        let alpha = e.p.push_const(alpha as f64, DType::F32)?;
        e.push(Func::LeakyRelu, &[v, alpha])
    })
}

/// Softmax as the opset in the attribute defines it.
pub(super) fn softmax(cx: &mut ImportCx<'_>) -> Imported {
    let x = cx.input(0)?;
    let to = byte_type(cx, x)?;
    let opset = cx.int("opset", 13)?;
    let axis = cx.int("axis", if opset < 13 { 1 } else { -1 })?;
    let (sx, sy) = (scaling(cx, 1, 2)?, scaling(cx, 3, 4)?);
    let x = dequantized(cx, x, sx)?;
    let mut attrs = Attrs::new();
    attrs.set("axis", &axis);
    let y = cx.call1("Softmax", opset, &attrs, &[x])?;
    Ok(vec![quantized(cx, y, sy, to)?])
}

/// Each branch is requantized before one of them is taken.
pub(super) fn select(cx: &mut ImportCx<'_>) -> Imported {
    let (c, x, y) = (cx.input(0)?, cx.input(1)?, cx.input(4)?);
    let to = byte_type(cx, x)?;
    byte_type(cx, y)?;
    let (sx, sy, sz) = (scaling(cx, 2, 3)?, scaling(cx, 5, 6)?, scaling(cx, 7, 8)?);
    let mut e = Elementwise::new();
    let [c, x, y] = [c, x, y].map(|v| e.tensor(cx, v));
    let [sx, sy, sz] = [sx, sy, sz].map(|s| e.scaling(cx, s));
    let (x, y) = (e.dequantize(x, sx)?, e.dequantize(y, sy)?);
    let v = e.push(Func::Select, &[c, x, y])?;
    e.quantize(v, sz, to)?;
    Ok(vec![e.finish(cx)?])
}

/// Inputs: scale and zero point of the output, then (tensor, scale, zero point) for each operand.
pub(super) fn concat(cx: &mut ImportCx<'_>) -> Imported {
    let sy = scaling(cx, 0, 1)?;
    let to = byte_type(cx, cx.input(1)?)?;
    let axis = cx.int("axis", 0)?;
    let n = cx.inputs.len();
    ensure!(n >= 5 && (n - 2) % 3 == 0, InvalidArgument, "expected 2 inputs and 3 for each operand, got {n}");
    let mut parts = Vec::new();
    for i in (2..n).step_by(3) {
        let x = cx.input(i)?;
        let sx = scaling(cx, i + 1, i + 2)?;
        let from = byte_type(cx, x)?;
        parts.push(if from == to && same(cx, sx, sy) { x } else { requantized(cx, x, sx, sy, to)? });
    }
    let mut attrs = Attrs::new();
    attrs.set("axis", &axis);
    Ok(vec![cx.call1("Concat", 13, &attrs, &parts)?])
}

/// True when both are known to be equal.
fn same(cx: &ImportCx<'_>, a: Scaling, b: Scaling) -> bool {
    let number = |v: Option<ValueId>| match v {
        Some(v) => cx.as_const(v).and_then(|t| t.scalar_f64()),
        None => Some(0.0),
    };
    let equal = |a: Option<ValueId>, b: Option<ValueId>| number(a).is_some_and(|a| number(b) == Some(a));
    equal(Some(a.scale), Some(b.scale)) && equal(a.zero, b.zero)
}

fn requantized(cx: &mut ImportCx<'_>, x: ValueId, from: Scaling, to: Scaling, dtype: DType) -> Result<ValueId> {
    let mut e = Elementwise::new();
    let r = e.tensor(cx, x);
    let (from, to) = (e.scaling(cx, from), e.scaling(cx, to));
    let v = e.dequantize(r, from)?;
    e.quantize(v, to, dtype)?;
    e.finish(cx)
}

/// Moves the channels between their places: behind the batch, or last.
pub(crate) fn move_channels(cx: &mut ImportCx<'_>, x: ValueId, to_last: bool) -> Result<ValueId> {
    let rank = cx.shape(x).rank() as i64;
    ensure!(rank >= 2, InvalidArgument, "expected a batch and channels, got {}", cx.shape(x));
    let mut perm: Vec<i64> = (0..rank).collect();
    if to_last {
        perm[1..].rotate_left(1);
    } else {
        perm[1..].rotate_right(1);
    }
    let mut attrs = Attrs::new();
    attrs.set("perm", &perm);
    cx.call1("Transpose", 13, &attrs, &[x])
}

pub(super) fn average_pool(cx: &mut ImportCx<'_>) -> Imported {
    let mut x = cx.input(0)?;
    let to = byte_type(cx, x)?;
    let (sx, sy) = (scaling(cx, 1, 2)?, scaling(cx, 3, 4)?);
    let last = cx.flag("channels_last", false)?;
    if last {
        x = move_channels(cx, x, false)?;
    }
    let x = dequantized(cx, x, sx)?;
    let mut attrs = Attrs::new();
    for name in ["ceil_mode", "count_include_pad"] {
        if let Some(v) = cx.attrs.int(name)? {
            attrs.set(name, &v);
        }
    }
    for name in ["kernel_shape", "strides", "pads"] {
        if let Some(v) = cx.ints(name)? {
            attrs.set(name, &v);
        }
    }
    attrs.set("auto_pad", &cx.string("auto_pad", "NOTSET")?);
    let y = cx.call1("AveragePool", 13, &attrs, &[x])?;
    let y = quantized(cx, y, sy, to)?;
    Ok(vec![if last { move_channels(cx, y, true)? } else { y }])
}

/// The mean of whole numbers, which f32 holds exactly, scaled once.
fn mean(cx: &mut ImportCx<'_>, axes: Vec<i64>, keepdims: bool) -> Result<ValueId> {
    let x = cx.input(0)?;
    let to = byte_type(cx, x)?;
    let (sx, sy) = (scaling(cx, 1, 2)?, scaling(cx, 3, 4)?);
    let mut e = Elementwise::new();
    let r = e.tensor(cx, x);
    let zero = e.scalar(cx, sx.zero);
    let d = e.difference(r, zero)?;
    e.p.outputs = vec![d];
    let d = e.finish(cx)?;
    let mut attrs = Attrs::new();
    attrs.set("axes", &axes);
    attrs.set("keepdims", &(keepdims as i64));
    let m = cx.call1("ReduceMean", 13, &attrs, &[d])?;
    let mut e = Elementwise::new();
    let r = e.tensor(cx, m);
    let factor = e.scalar(cx, Some(sx.scale));
    let sy = e.scaling(cx, sy);
    let factor = e.reg(factor)?;
    let v = e.push(Func::Mul, &[r, factor])?;
    e.quantize(v, sy, to)?;
    e.finish(cx)
}

pub(super) fn global_average_pool(cx: &mut ImportCx<'_>) -> Imported {
    let rank = cx.shape(cx.input(0)?).rank() as i64;
    ensure!(rank >= 3, InvalidArgument, "expected a batch, channels and spatial axes, got rank {rank}");
    let axes = if cx.flag("channels_last", false)? { 1..rank - 1 } else { 2..rank };
    Ok(vec![mean(cx, axes.collect(), true)?])
}

pub(super) fn reduce_mean(cx: &mut ImportCx<'_>) -> Imported {
    let rank = cx.shape(cx.input(0)?).rank() as i64;
    let axes = cx.ints("axes")?.filter(|a| !a.is_empty()).unwrap_or_else(|| (0..rank).collect());
    let keepdims = cx.flag("keepdims", true)?;
    if axes.is_empty() {
        bail!(Unsupported, "a mean of a scalar");
    }
    Ok(vec![mean(cx, axes, keepdims)?])
}
