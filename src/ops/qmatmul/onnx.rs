//! Import of MatMulInteger and QLinearMatMul, and of QGemm, MatMulIntegerToFloat and DynamicQuantizeMatMul of
//! com.microsoft; the table also names the other operators on quantized tensors (`qlinear.rs`).

use super::{QMatMul, qlinear};
use crate::base::{Attrs, DType, Result, Tensor};
use crate::network::ValueId;
use crate::ops::requant::{self, QOut};
use crate::ops::reshape::{Reshape, ReshapeMode};
use crate::ops::{ImportCx, OnnxOp, onnx};
use crate::{bail, ensure};

type Imported = Result<Vec<ValueId>>;

const fn ms(name: &'static str, import: fn(&mut ImportCx<'_>) -> Imported) -> OnnxOp {
    OnnxOp { domain: "com.microsoft", name, since: 1, import }
}

pub(super) const TABLE: &[OnnxOp] = &[
    onnx("MatMulInteger", 10, matmul_integer),
    onnx("QLinearMatMul", 10, qlinear_matmul),
    ms("QGemm", qgemm),
    ms("MatMulIntegerToFloat", to_float),
    ms("DynamicQuantizeMatMul", dynamic_quantize),
    ms("QAttention", attention),
    ms("QLinearAdd", qlinear::add),
    ms("QLinearMul", qlinear::mul),
    ms("QLinearSigmoid", qlinear::sigmoid),
    ms("QLinearLeakyRelu", qlinear::leaky_relu),
    ms("QLinearSoftmax", qlinear::softmax),
    ms("QLinearWhere", qlinear::select),
    ms("QLinearConcat", qlinear::concat),
    ms("QLinearAveragePool", qlinear::average_pool),
    ms("QLinearGlobalAveragePool", qlinear::global_average_pool),
    ms("QLinearReduceMean", qlinear::reduce_mean),
];

fn reshaped(cx: &mut ImportCx<'_>, v: ValueId, mode: ReshapeMode, axes: &[i64]) -> Result<ValueId> {
    cx.add(Reshape { mode, spec: Some(axes.to_vec()), allow_zero: false }, &[v])
}

/// A parameter with one element for each row: a vector becomes a column.
fn by_row(cx: &mut ImportCx<'_>, v: Option<ValueId>) -> Result<Option<ValueId>> {
    let Some(v) = v else { return Ok(None) };
    if cx.shape(v).rank() != 1 || cx.shape(v)[0].is(1) {
        return Ok(Some(v));
    }
    reshaped(cx, v, ReshapeMode::Unsqueeze, &[1]).map(Some)
}

/// As f32: scales may be f16 or bf16.
pub(crate) fn as_f32(cx: &mut ImportCx<'_>, v: ValueId) -> Result<ValueId> {
    cast(cx, v, DType::F32)
}

fn cast(cx: &mut ImportCx<'_>, v: ValueId, to: DType) -> Result<ValueId> {
    let from = cx.fact(v).dtype;
    if from == to {
        return Ok(v);
    }
    if let Some(t) = cx.as_const(v) {
        return Ok(cx.constant(t.cast(to)));
    }
    let mut p = crate::ops::pointwise::Program::identity(from);
    let r = p.push_cast(0, to)?;
    p.outputs = vec![r];
    cx.add(crate::ops::pointwise::Pointwise { program: p }, &[v])
}

/// The zero point of an output whose type nothing else tells: u8.
pub(crate) fn zero_or_u8(cx: &mut ImportCx<'_>, v: Option<ValueId>) -> ValueId {
    match v {
        Some(v) => v,
        None => cx.constant(Tensor::scalar(0u8)),
    }
}

/// Adds the product; a vector counts as a row on the left and as a column on the right, and its axis is not in the result.
fn product(cx: &mut ImportCx<'_>, op: QMatMul, mut inputs: [Option<ValueId>; requant::N_INPUTS]) -> Imported {
    let mut drop = Vec::new();
    for (i, axis, out_axis) in [(requant::X, 0, -2), (requant::W, 1, -1)] {
        let Some(v) = inputs[i] else { bail!(InvalidArgument, "input {i} is missing") };
        let rank = cx.shape(v).rank();
        ensure!(rank >= 1, InvalidArgument, "a matrix product takes no scalars");
        if rank == 1 {
            inputs[i] = Some(reshaped(cx, v, ReshapeMode::Unsqueeze, &[axis])?);
            drop.push(out_axis);
        }
    }
    for i in [requant::X_ZERO, requant::X_SCALE, requant::Y_SCALE, requant::Y_ZERO] {
        inputs[i] = by_row(cx, inputs[i])?;
    }
    let n = inputs.iter().rposition(|v| v.is_some()).map_or(0, |i| i + 1);
    let y = cx.add_opt(op, &inputs[..n])?;
    if drop.is_empty() {
        return Ok(vec![y]);
    }
    Ok(vec![reshaped(cx, y, ReshapeMode::Squeeze, &drop)?])
}

fn plain(out: QOut) -> QMatMul {
    QMatMul { trans_a: false, trans_b: false, alpha: 1.0, out }
}

fn matmul_integer(cx: &mut ImportCx<'_>) -> Imported {
    let (a, b) = (cx.input(0)?, cx.input(1)?);
    let mut inputs = [None; requant::N_INPUTS];
    inputs[..4].copy_from_slice(&[Some(a), Some(b), cx.opt(2), cx.opt(3)]);
    product(cx, plain(QOut::I32), inputs)
}

fn qlinear_matmul(cx: &mut ImportCx<'_>) -> Imported {
    let v: Vec<ValueId> = (0..8).map(|i| cx.input(i)).collect::<Result<_>>()?;
    if !matches!(cx.fact(v[0]).dtype, DType::I8 | DType::U8) {
        return through_floats(cx, &v);
    }
    let [xs, ws, ys] = [as_f32(cx, v[1])?, as_f32(cx, v[4])?, as_f32(cx, v[6])?];
    let inputs = [v[0], v[3], v[2], v[5], v[5], xs, ws, ys, v[7]].map(Some);
    let inputs = std::array::from_fn(|i| if i == requant::BIAS { None } else { inputs[i] });
    product(cx, plain(QOut::Quantized), inputs)
}

/// The 8-bit floats: both operands are dequantized, and the product is quantized.
fn through_floats(cx: &mut ImportCx<'_>, v: &[ValueId]) -> Imported {
    for i in [1, 2, 4, 5, 6, 7] {
        ensure!(
            cx.shape(v[i]).numel().is(1),
            Unsupported,
            "input {i}: {} operands take one scale and zero point, got {}",
            cx.fact(v[0]).dtype,
            cx.shape(v[i])
        );
    }
    let none = Attrs::new();
    let a = cx.call1("DequantizeLinear", cx.opset, &none, &v[..3])?;
    let b = cx.call1("DequantizeLinear", cx.opset, &none, &v[3..6])?;
    let y = cx.call1("MatMul", cx.opset, &none, &[a, b])?;
    Ok(vec![cx.call1("QuantizeLinear", cx.opset, &none, &[y, v[6], v[7]])?])
}

/// y = alpha (a_scale b_scale) (op(A) op(B) + C), quantized when there is a scale for it.
fn qgemm(cx: &mut ImportCx<'_>) -> Imported {
    let (a, xs, az) = (cx.input(0)?, cx.input(1)?, cx.opt(2));
    let (b, ws, bz) = (cx.input(3)?, cx.input(4)?, cx.opt(5));
    for v in [a, b] {
        ensure!(cx.shape(v).rank() == 2, InvalidArgument, "expected two matrices, got shape {}", cx.shape(v));
    }
    let (c, ys) = (cx.opt(6), cx.opt(7));
    let op = QMatMul {
        trans_a: cx.flag("transA", false)?,
        trans_b: cx.flag("transB", false)?,
        alpha: cx.float("alpha", 1.0)?,
        out: if ys.is_some() { QOut::Quantized } else { QOut::F32 },
    };
    let yz = match ys {
        Some(_) => Some(zero_or_u8(cx, cx.opt(8))),
        None => None,
    };
    product(cx, op, [Some(a), Some(b), az, bz, c, Some(xs), Some(ws), ys, yz])
}

/// y = a_scale b_scale (A B) + bias.
fn to_float(cx: &mut ImportCx<'_>) -> Imported {
    let (a, b, xs, ws) = (cx.input(0)?, cx.input(1)?, cx.input(2)?, cx.input(3)?);
    let (az, bz, bias) = (cx.opt(4), cx.opt(5), cx.opt(6));
    let dtype = cx.fact(xs).dtype;
    scaled(cx, [a, b], [az, bz], [xs, ws], bias, dtype)
}

fn scaled(
    cx: &mut ImportCx<'_>,
    [a, b]: [ValueId; 2],
    [az, bz]: [Option<ValueId>; 2],
    [xs, ws]: [ValueId; 2],
    bias: Option<ValueId>,
    dtype: DType,
) -> Imported {
    for (what, v) in [("scale", Some(xs)), ("zero point", az)] {
        let Some(v) = v else { continue };
        ensure!(cx.shape(v).numel().is(1), Unsupported, "the {what} of A must have one element, got {}", cx.shape(v));
    }
    let (xs, ws) = (as_f32(cx, xs)?, as_f32(cx, ws)?);
    let bias = bias.map(|b| as_f32(cx, b)).transpose()?;
    let y = product(cx, plain(QOut::F32), [Some(a), Some(b), az, bz, bias, Some(xs), Some(ws), None, None])?;
    Ok(vec![cast(cx, y[0], dtype)?])
}

/// A is quantized as DynamicQuantizeLinear does.
fn dynamic_quantize(cx: &mut ImportCx<'_>) -> Imported {
    let (a, b, ws) = (cx.input(0)?, cx.input(1)?, cx.input(2)?);
    let (bz, bias) = (cx.opt(3), cx.opt(4));
    let dtype = cx.fact(a).dtype;
    let q = cx.call("DynamicQuantizeLinear", 11, &Attrs::new(), &[Some(a)], 3)?;
    let [x, scale, zero] = q[..] else { bail!(Internal, "DynamicQuantizeLinear has {} outputs", q.len()) };
    scaled(cx, [x, b], [Some(zero), bz], [scale, ws], bias, dtype)
}

/// Attention whose input and weight are quantized: the weight is a constant, so its dequantization costs nothing.
fn attention(cx: &mut ImportCx<'_>) -> Imported {
    let (x, w, bias, xs, ws) = (cx.input(0)?, cx.input(1)?, cx.input(2)?, cx.input(3)?, cx.input(4)?);
    let (mask, xz, wz, past) = (cx.opt(5), cx.opt(6), cx.opt(7), cx.opt(8));
    let dequantized = |cx: &mut ImportCx<'_>, v, scale, zero| -> Result<ValueId> {
        let mut attrs = Attrs::new();
        attrs.set("axis", &1i64);
        Ok(cx.call("DequantizeLinear", 19, &attrs, &[Some(v), Some(scale), zero], 1)?[0])
    };
    let (x, w) = (dequantized(cx, x, xs, xz)?, dequantized(cx, w, ws, wz)?);
    let mut attrs = Attrs::new();
    for name in ["num_heads", "unidirectional", "past_present_share_buffer", "do_rotary"] {
        if let Some(v) = cx.attrs.int(name)? {
            attrs.set(name, &v);
        }
    }
    for name in ["scale", "mask_filter_value"] {
        if let Some(v) = cx.attrs.float(name)? {
            attrs.set(name, &v);
        }
    }
    let n = cx.n_outputs;
    cx.call("com.microsoft.Attention", 1, &attrs, &[Some(x), Some(w), Some(bias), mask, past], n)
}
