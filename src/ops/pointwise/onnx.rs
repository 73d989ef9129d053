//! ONNX import: each element-wise operator becomes one node with one program.
//!
//! Scalar constants become part of the program, so that `x + 1` is a node of one input. Attributes of the operator that
//! are numbers are constants of the program too, of the operand's type. Old forms (`broadcast` and `axis` before opset 7,
//! bounds of Clip as attributes before opset 11) are handled by looking at `ImportCx::opset`.

use super::batch_norm::batch_normalization;
use super::{cast, quantize};
use super::func::Func;
use super::program::{Program, Reg};
use super::Pointwise;
use crate::base::{DType, Result, Tensor};
use crate::network::ValueId;
use crate::ops::reshape::{Reshape, ReshapeMode};
use crate::ops::{ImportCx, OnnxOp, onnx};
use crate::{bail, ensure, err};
use std::sync::Arc;

/// Operands of one node made from a variadic operator; more become several nodes.
const MAX_CHAIN: usize = 8;

pub(super) const TABLE: &[OnnxOp] = &[
    onnx("Add", 1, binary),
    onnx("Sub", 1, binary),
    onnx("Mul", 1, binary),
    onnx("Div", 1, binary),
    onnx("And", 1, binary),
    onnx("Or", 1, binary),
    onnx("Xor", 1, binary),
    onnx("BitwiseAnd", 18, binary),
    onnx("BitwiseOr", 18, binary),
    onnx("BitwiseXor", 18, binary),
    onnx("Equal", 1, binary),
    onnx("Less", 1, binary),
    onnx("LessOrEqual", 12, binary),
    onnx("Greater", 1, binary),
    onnx("GreaterOrEqual", 12, binary),
    onnx("Mod", 10, modulo),
    onnx("BitShift", 11, bit_shift),
    onnx("Pow", 1, pow),
    onnx("PRelu", 1, prelu),
    onnx("Max", 1, variadic),
    onnx("Min", 1, variadic),
    onnx("Sum", 1, variadic),
    onnx("Mean", 1, variadic),
    onnx("Neg", 1, unary),
    onnx("Abs", 1, unary),
    onnx("Sign", 9, unary),
    onnx("Relu", 1, unary),
    onnx("Sigmoid", 1, unary),
    onnx("Tanh", 1, unary),
    onnx("Exp", 1, unary),
    onnx("Log", 1, unary),
    onnx("Sqrt", 1, unary),
    onnx("Reciprocal", 1, unary),
    onnx("Floor", 1, unary),
    onnx("Ceil", 1, unary),
    onnx("Round", 11, unary),
    onnx("Erf", 9, unary),
    onnx("Softplus", 1, unary),
    onnx("Softsign", 1, unary),
    onnx("Mish", 18, unary),
    onnx("HardSwish", 14, unary),
    onnx("Sin", 7, unary),
    onnx("Cos", 7, unary),
    onnx("Tan", 7, unary),
    onnx("Asin", 7, unary),
    onnx("Acos", 7, unary),
    onnx("Atan", 7, unary),
    onnx("Sinh", 9, unary),
    onnx("Cosh", 9, unary),
    onnx("Asinh", 9, unary),
    onnx("Acosh", 9, unary),
    onnx("Atanh", 9, unary),
    onnx("Not", 1, unary),
    onnx("BitwiseNot", 18, unary),
    onnx("IsNaN", 9, unary),
    onnx("LeakyRelu", 1, with_attributes),
    onnx("Elu", 1, with_attributes),
    onnx("Celu", 12, with_attributes),
    onnx("Selu", 1, with_attributes),
    onnx("ThresholdedRelu", 1, with_attributes),
    onnx("Shrink", 9, with_attributes),
    onnx("HardSigmoid", 1, with_attributes),
    onnx("IsInf", 10, is_inf),
    onnx("Clip", 1, clip),
    onnx("Gelu", 20, gelu),
    onnx("Swish", 24, swish),
    onnx("Where", 9, select),
    onnx("Cast", 1, cast::cast),
    onnx("CastLike", 15, cast::cast_like),
    onnx("BitCast", 26, cast::bit_cast),
    onnx("QuantizeLinear", 10, quantize::quantize),
    onnx("DequantizeLinear", 10, quantize::dequantize),
    onnx("DynamicQuantizeLinear", 11, quantize::dynamic_quantize),
    onnx("BatchNormalization", 1, batch_normalization),
    OnnxOp { domain: "com.microsoft", name: "QuantizeLinear", since: 1, import: quantize::quantize },
    OnnxOp { domain: "com.microsoft", name: "DequantizeLinear", since: 1, import: quantize::dequantize },
    OnnxOp { domain: "com.microsoft", name: "Gelu", since: 1, import: gelu },
    OnnxOp { domain: "com.microsoft", name: "FastGelu", since: 1, import: biased_gelu },
    OnnxOp { domain: "com.microsoft", name: "BiasGelu", since: 1, import: biased_gelu },
    OnnxOp { domain: "com.microsoft", name: "QuickGelu", since: 1, import: quick_gelu },
    OnnxOp { domain: "com.microsoft", name: "BiasAdd", since: 1, import: super::contrib::bias_add },
    OnnxOp { domain: "com.microsoft", name: "BiasSplitGelu", since: 1, import: super::contrib::bias_split_gelu },
];

pub(super) type Imported = Result<Vec<ValueId>>;

/// Attributes of the first opsets that say nothing about the result.
pub(super) fn skip_legacy(cx: &ImportCx<'_>) -> Result<()> {
    if cx.opset < 7 {
        cx.ints("consumed_inputs")?;
    }
    Ok(())
}

/// Adds the node, with scalar constants bound into its program.
pub(super) fn node(cx: &mut ImportCx<'_>, mut program: Program, inputs: &[ValueId]) -> Imported {
    let mut inputs = inputs.to_vec();
    let mut i = 0;
    while i < inputs.len() {
        match bindable(cx, &inputs, i) {
            Some(v) => {
                program = program.bind_const(i, v)?;
                inputs.remove(i);
            }
            None => i += 1,
        }
    }
    Ok(vec![cx.add(Pointwise { program }, &inputs)?])
}

/// The number behind input `i`, when it may become a part of the program without changing the result's shape.
fn bindable(cx: &ImportCx<'_>, inputs: &[ValueId], i: usize) -> Option<f64> {
    let t = cx.as_const(inputs[i]).filter(|t| t.numel() == 1)?;
    // Another input must carry the shape.
    inputs.iter().enumerate().find(|(j, v)| *j != i && cx.graph.fact(**v).rank() >= t.rank())?;
    let v = t.scalar_f64()?;
    (t.dtype().is_float() || t.to_i64s()[0].unsigned_abs() <= 1 << 53).then_some(v)
}

/// A program over inputs of these types, written by `body`, which gets the input registers.
pub(super) fn program(inputs: &[DType], body: impl FnOnce(&mut Program) -> Result<Reg>) -> Result<Program> {
    let mut p = Program { inputs: inputs.to_vec(), instrs: vec![], outputs: vec![] };
    let r = body(&mut p)?;
    p.outputs = vec![r];
    Ok(p)
}

pub(super) fn dtype(cx: &ImportCx<'_>, v: ValueId) -> DType {
    cx.graph.fact(v).dtype
}

fn func_of(cx: &ImportCx<'_>) -> Result<Func> {
    Ok(match cx.op_type {
        "BitwiseAnd" => Func::BitAnd,
        "BitwiseOr" => Func::BitOr,
        "BitwiseXor" => Func::BitXor,
        "BitwiseNot" => Func::BitNot,
        "LessOrEqual" => Func::LessEqual,
        "GreaterOrEqual" => Func::GreaterEqual,
        "IsNaN" => Func::IsNan,
        "HardSwish" => Func::HardSwish,
        "HardSigmoid" => Func::HardSigmoid,
        "LeakyRelu" => Func::LeakyRelu,
        "ThresholdedRelu" => Func::ThresholdedRelu,
        name => Func::from_name(&name.to_lowercase()).ok_or_else(|| err!(Internal, "{name} is no function"))?,
    })
}

fn unary(cx: &mut ImportCx<'_>) -> Imported {
    skip_legacy(cx)?;
    let x = cx.input(0)?;
    let (func, t) = (func_of(cx)?, dtype(cx, x));
    let p = match func {
        Func::IsNan if t.is_small_float() => program(&[t], |p| {
            let wide = p.push_cast(0, DType::F32)?;
            p.push(func, &[wide])
        })?,
        _ => Program::single(func, &[t])?,
    };
    node(cx, p, &[x])
}

/// The two operands of a binary operator; in the form of opsets below 7, the second is aligned to the first as told.
fn operands(cx: &mut ImportCx<'_>) -> Result<(ValueId, ValueId)> {
    skip_legacy(cx)?;
    let (a, b) = (cx.input(0)?, cx.input(1)?);
    if cx.opset >= 7 {
        return Ok((a, b));
    }
    let aligned = cx.flag("broadcast", false)?;
    let axis = cx.attrs.int("axis")?;
    let (ra, rb) = (cx.shape(a).rank(), cx.shape(b).rank());
    match axis {
        Some(axis) if aligned => {
            let axis = crate::base::dims::normalize_axis(axis, ra)?;
            ensure!(axis + rb <= ra, InvalidArgument, "axis {axis}: an operand of rank {rb} does not fit in rank {ra}");
            Ok((a, unsqueeze_back(cx, b, ra - axis - rb)?))
        }
        _ => Ok((a, b)),
    }
}

/// Appends `n` dimensions of size 1.
pub(super) fn unsqueeze_back(cx: &mut ImportCx<'_>, v: ValueId, n: usize) -> Result<ValueId> {
    if n == 0 {
        return Ok(v);
    }
    if let Some(t) = cx.as_const(v) {
        let mut dims = t.shape().to_vec();
        dims.resize(dims.len() + n, 1);
        let t: Tensor = t.reshaped(&dims)?;
        return Ok(cx.graph.add_const(&format!("{}/aligned", cx.name), Arc::new(t)));
    }
    let rank = cx.shape(v).rank();
    let axes = (rank..rank + n).map(|a| a as i64).collect();
    cx.add(Reshape { mode: ReshapeMode::Unsqueeze, spec: Some(axes), allow_zero: false }, &[v])
}

fn binary(cx: &mut ImportCx<'_>) -> Imported {
    let (a, b) = operands(cx)?;
    let p = Program::single(func_of(cx)?, &[dtype(cx, a), dtype(cx, b)])?;
    node(cx, p, &[a, b])
}

fn modulo(cx: &mut ImportCx<'_>) -> Imported {
    let (a, b) = (cx.input(0)?, cx.input(1)?);
    let fmod = cx.flag("fmod", false)?;
    let t = dtype(cx, a);
    ensure!(fmod || !t.is_float(), InvalidArgument, "Mod of {t} needs the attribute fmod = 1");
    let p = Program::single(if fmod { Func::Fmod } else { Func::Mod }, &[t, dtype(cx, b)])?;
    node(cx, p, &[a, b])
}

fn bit_shift(cx: &mut ImportCx<'_>) -> Imported {
    let (a, b) = (cx.input(0)?, cx.input(1)?);
    let func = match cx.string("direction", "")?.as_str() {
        "LEFT" => Func::ShiftLeft,
        "RIGHT" => Func::ShiftRight,
        d => bail!(InvalidArgument, "attribute direction: expected LEFT or RIGHT, got {d:?}"),
    };
    let p = Program::single(func, &[dtype(cx, a), dtype(cx, b)])?;
    node(cx, p, &[a, b])
}

/// The result has the base's type. A constant exponent 2 is a product.
fn pow(cx: &mut ImportCx<'_>) -> Imported {
    let (x, e) = operands(cx)?;
    let (t, te) = (dtype(cx, x), dtype(cx, e));
    if bindable(cx, &[x, e], 1) == Some(2.0) {
        let p = program(&[t], |p| p.push(Func::Mul, &[0, 0]))?;
        return node(cx, p, &[x]);
    }
    let p = program(&[t, te], |p| {
        if t.is_int() && te.is_float() {
            // An integer base with a fractional exponent: the root is taken first, then truncated.
            let (base, exp) = (p.push_cast(0, DType::F64)?, p.push_cast(1, DType::F64)?);
            let r = p.push(Func::Pow, &[base, exp])?;
            return p.push_cast(r, t);
        }
        let exp = p.push_cast(1, t)?;
        p.push(Func::Pow, &[0, exp])
    })?;
    node(cx, p, &[x, e])
}

fn prelu(cx: &mut ImportCx<'_>) -> Imported {
    skip_legacy(cx)?;
    let (x, mut slope) = (cx.input(0)?, cx.input(1)?);
    let rank = cx.shape(x).rank();
    // Before opset 7 a slope of one dimension belongs to the channels.
    if cx.opset < 7 && cx.shape(slope).rank() == 1 && !cx.shape(slope)[0].is(1) && rank > 2 {
        slope = unsqueeze_back(cx, slope, rank - 2)?;
    }
    let (xs, ss) = (cx.shape(x), cx.shape(slope));
    ensure!(
        ss.rank() <= rank && xs.broadcast(&ss)?.rank() == rank,
        InvalidArgument,
        "the slope of shape {ss} does not broadcast to x of shape {xs}"
    );
    let p = Program::single(Func::LeakyRelu, &[dtype(cx, x), dtype(cx, slope)])?;
    node(cx, p, &[x, slope])
}

fn variadic(cx: &mut ImportCx<'_>) -> Imported {
    skip_legacy(cx)?;
    let n = cx.inputs.len();
    ensure!(n > 0, InvalidArgument, "{} needs at least one input", cx.op_type);
    let inputs: Vec<ValueId> = (0..n).map(|i| cx.input(i)).collect::<Result<_>>()?;
    let t = dtype(cx, inputs[0]);
    let mean = cx.op_type == "Mean";
    let func = match cx.op_type {
        "Sum" | "Mean" => Func::Add,
        _ => func_of(cx)?,
    };
    if n == 1 {
        return Ok(inputs);
    }
    let mut acc = inputs[0];
    let mut rest = &inputs[1..];
    loop {
        let (now, later) = rest.split_at(rest.len().min(MAX_CHAIN - 1));
        let operands: Vec<ValueId> = std::iter::once(acc).chain(now.iter().copied()).collect();
        let types: Vec<DType> = operands.iter().map(|v| dtype(cx, *v)).collect();
        let last = later.is_empty();
        let p = program(&types, |p| {
            let mut r = 0;
            for i in 1..types.len() {
                r = p.push(func, &[r, i as Reg])?;
            }
            if mean && last {
                let count = p.push_const(n as f64, t)?;
                r = p.push(Func::Div, &[r, count])?;
            }
            Ok(r)
        })?;
        let out = node(cx, p, &operands)?;
        if last {
            return Ok(out);
        }
        (acc, rest) = (out[0], later);
    }
}

/// Functions whose later arguments are attributes.
fn with_attributes(cx: &mut ImportCx<'_>) -> Imported {
    skip_legacy(cx)?;
    let x = cx.input(0)?;
    let selu = cx.opset >= 6;
    let values = match cx.op_type {
        "LeakyRelu" => vec![cx.float("alpha", 0.01)?],
        "Elu" | "Celu" | "ThresholdedRelu" => vec![cx.float("alpha", 1.0)?],
        "Selu" => vec![
            cx.float("alpha", if selu { 1.673_263_2 } else { 1.6732 })?,
            cx.float("gamma", if selu { 1.050_701 } else { 1.0507 })?,
        ],
        "Shrink" => vec![cx.float("lambd", 0.5)?, cx.float("bias", 0.0)?],
        "HardSigmoid" => vec![cx.float("alpha", 0.2)?, cx.float("beta", 0.5)?],
        name => bail!(Internal, "{name} has no attributes here"),
    };
    let func = func_of(cx)?;
    let t = dtype(cx, x);
    let p = program(&[t], |p| {
        let mut args = vec![0];
        for v in values {
            args.push(p.push_const(v as f64, t)?);
        }
        p.push(func, &args)
    })?;
    node(cx, p, &[x])
}

fn is_inf(cx: &mut ImportCx<'_>) -> Imported {
    let x = cx.input(0)?;
    let negative = cx.flag("detect_negative", true)?;
    let positive = cx.flag("detect_positive", true)?;
    let t = dtype(cx, x);
    let p = program(&[t], |p| {
        let wide = if t.is_small_float() { DType::F32 } else { t };
        let x = p.push_cast(0, wide)?;
        let n = p.push_const(negative as u8 as f64, wide)?;
        let y = p.push_const(positive as u8 as f64, wide)?;
        p.push(Func::IsInf, &[x, n, y])
    })?;
    node(cx, p, &[x])
}

fn clip(cx: &mut ImportCx<'_>) -> Imported {
    skip_legacy(cx)?;
    let x = cx.input(0)?;
    let t = dtype(cx, x);
    if cx.opset < 11 {
        let (low, high) = (cx.attrs.float("min")?, cx.attrs.float("max")?);
        // The defaults stand for "no bound".
        let low = low.filter(|v| *v > f32::MIN);
        let high = high.filter(|v| *v < f32::MAX);
        let p = program(&[t], |p| {
            let low = low.map(|v| p.push_const(v as f64, t)).transpose()?;
            let high = high.map(|v| p.push_const(v as f64, t)).transpose()?;
            push_clip(p, low, high)
        })?;
        return if p.instrs.is_empty() { Ok(vec![x]) } else { node(cx, p, &[x]) };
    }
    let (low, high) = (cx.opt(1), cx.opt(2));
    for (what, v) in [("min", low), ("max", high)] {
        let Some(v) = v else { continue };
        let f = cx.fact(v);
        ensure!(f.shape.numel().is(1), InvalidArgument, "{what} must have one element, got {f}");
    }
    let inputs: Vec<ValueId> = [Some(x), low, high].into_iter().flatten().collect();
    let types: Vec<DType> = inputs.iter().map(|v| dtype(cx, *v)).collect();
    let p = program(&types, |p| {
        let high_reg = 1 + low.is_some() as Reg;
        push_clip(p, low.map(|_| 1), high.map(|_| high_reg))
    })?;
    if p.instrs.is_empty() { Ok(vec![x]) } else { node(cx, p, &inputs) }
}

fn push_clip(p: &mut Program, low: Option<Reg>, high: Option<Reg>) -> Result<Reg> {
    match (low, high) {
        (Some(l), Some(h)) => p.push(Func::Clip, &[0, l, h]),
        (Some(l), None) => p.push(Func::Max, &[0, l]),
        (None, Some(h)) => p.push(Func::Min, &[0, h]),
        (None, None) => Ok(0),
    }
}

fn gelu(cx: &mut ImportCx<'_>) -> Imported {
    let x = cx.input(0)?;
    let func = match cx.string("approximate", "none")?.as_str() {
        "none" => Func::GeluErf,
        "tanh" => Func::GeluTanh,
        a => bail!(InvalidArgument, "attribute approximate: expected none or tanh, got {a:?}"),
    };
    let p = Program::single(func, &[dtype(cx, x)])?;
    node(cx, p, &[x])
}

/// FastGelu (bias optional) and BiasGelu of com.microsoft.
fn biased_gelu(cx: &mut ImportCx<'_>) -> Imported {
    let x = cx.input(0)?;
    let fast = cx.op_type == "FastGelu";
    let bias = if fast { cx.opt(1) } else { Some(cx.input(1)?) };
    let inputs: Vec<ValueId> = std::iter::once(x).chain(bias).collect();
    let types: Vec<DType> = inputs.iter().map(|v| dtype(cx, *v)).collect();
    let p = program(&types, |p| {
        let sum = if types.len() == 2 { p.push(Func::Add, &[0, 1])? } else { 0 };
        p.push(if fast { Func::GeluTanh } else { Func::GeluErf }, &[sum])
    })?;
    node(cx, p, &inputs)
}

fn swish(cx: &mut ImportCx<'_>) -> Imported {
    let alpha = cx.float("alpha", 1.0)?;
    scaled_silu(cx, alpha)
}

fn quick_gelu(cx: &mut ImportCx<'_>) -> Imported {
    let alpha = cx.float("alpha", 1.702)?;
    scaled_silu(cx, alpha)
}

/// x * sigmoid(alpha x).
fn scaled_silu(cx: &mut ImportCx<'_>, alpha: f32) -> Imported {
    let x = cx.input(0)?;
    let t = dtype(cx, x);
    let p = program(&[t], |p| {
        if alpha == 1.0 {
            return p.push(Func::Silu, &[0]);
        }
        let a = p.push_const(alpha as f64, t)?;
        let scaled = p.push(Func::Mul, &[0, a])?;
        let gate = p.push(Func::Sigmoid, &[scaled])?;
        p.push(Func::Mul, &[0, gate])
    })?;
    node(cx, p, &[x])
}

fn select(cx: &mut ImportCx<'_>) -> Imported {
    let (c, a, b) = (cx.input(0)?, cx.input(1)?, cx.input(2)?);
    let p = Program::single(Func::Select, &[dtype(cx, c), dtype(cx, a), dtype(cx, b)])?;
    node(cx, p, &[c, a, b])
}
