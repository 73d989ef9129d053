//! Import of MatMul, Gemm, and FusedMatMul of com.microsoft.

use super::MatMul;
use crate::base::tensor::convert;
use crate::base::{Attrs, DType, Dim, Result, Tensor};
use crate::network::ValueId;
use crate::ops::compose::{pointwise, transpose};
use crate::ops::pointwise::{Func, Pointwise, Program};
use crate::ops::reshape::{Reshape, ReshapeMode};
use crate::ops::{ImportCx, OnnxOp, onnx};
use crate::{dispatch, ensure, err};

pub(super) const TABLE: &[OnnxOp] = &[
    onnx("MatMul", 1, matmul),
    onnx("Gemm", 1, gemm),
    onnx("Einsum", 12, super::einsum::einsum),
    OnnxOp { domain: "com.microsoft", name: "FusedMatMul", since: 1, import: fused_matmul },
    OnnxOp { domain: "com.microsoft", name: "TransposeMatMul", since: 1, import: fused_matmul },
    OnnxOp { domain: "com.microsoft", name: "GemmFastGelu", since: 1, import: gemm_fast_gelu },
    OnnxOp { domain: "com.microsoft", name: "FusedGemm", since: 1, import: fused_gemm },
];

fn reshape(mode: ReshapeMode, axes: &[i64]) -> Reshape {
    Reshape { mode, spec: Some(axes.to_vec()), allow_zero: false }
}

fn matmul(cx: &mut ImportCx<'_>) -> Result<Vec<ValueId>> {
    product(cx, MatMul { trans_a: false, trans_b: false, alpha: 1.0, epilogue: None })
}

fn fused_matmul(cx: &mut ImportCx<'_>) -> Result<Vec<ValueId>> {
    let (trans_a, trans_b) = (cx.flag("transA", false)?, cx.flag("transB", false)?);
    let alpha = cx.float("alpha", 1.0)?;
    for (i, name) in ["transBatchA", "transBatchB"].into_iter().enumerate() {
        let rank = cx.shape(cx.input(i)?).rank();
        if cx.flag(name, false)? && rank > 2 {
            // The first axis goes behind the other batch axes, which is where the rows are.
            let perm: Vec<usize> = (1..rank - 1).chain([0, rank - 1]).collect();
            let v = cx.input(i)?;
            cx.inputs[i] = Some(transpose(cx, v, &perm)?);
        }
    }
    product(cx, MatMul { trans_a, trans_b, alpha, epilogue: None })
}

/// GemmFastGelu of com.microsoft: fast_gelu(x w + bias).
fn gemm_fast_gelu(cx: &mut ImportCx<'_>) -> Result<Vec<ValueId>> {
    let y = matmul(cx)?[0];
    let inputs: Vec<ValueId> = std::iter::once(y).chain(cx.opt(2)).collect();
    let y = pointwise(cx, &inputs, |p| {
        let sum = if inputs.len() == 2 { p.push(Func::Add, &[0, 1])? } else { 0 };
        p.push(Func::GeluTanh, &[sum])
    })?;
    Ok(vec![y])
}

/// A vector counts as a row on the left and as a column on the right, whether it is transposed or not; its axis is not in
/// the result.
fn product(cx: &mut ImportCx<'_>, mut op: MatMul) -> Result<Vec<ValueId>> {
    let (mut a, mut b) = (cx.input(0)?, cx.input(1)?);
    let (row, column) = (cx.shape(a).rank() == 1, cx.shape(b).rank() == 1);
    for v in [a, b] {
        ensure!(cx.shape(v).rank() >= 1, InvalidArgument, "a matrix product takes no scalars");
    }
    if row {
        a = cx.add(reshape(ReshapeMode::Unsqueeze, &[0]), &[a])?;
        op.trans_a = false;
    }
    if column {
        b = cx.add(reshape(ReshapeMode::Unsqueeze, &[1]), &[b])?;
        op.trans_b = false;
    }
    let y = cx.add(op, &[a, b])?;
    let drop: &[i64] = match (row, column) {
        (false, false) => return Ok(vec![y]),
        (true, false) => &[-2],
        (false, true) => &[-1],
        (true, true) => &[-2, -1],
    };
    Ok(vec![cx.add(reshape(ReshapeMode::Squeeze, drop), &[y])?])
}

/// Y = alpha * op(A) op(B) + beta * C.
fn gemm(cx: &mut ImportCx<'_>) -> Result<Vec<ValueId>> {
    let (a, b, c) = (cx.input(0)?, cx.input(1)?, cx.opt(2));
    for v in [a, b] {
        ensure!(cx.shape(v).rank() == 2, InvalidArgument, "expected two matrices, got shape {}", cx.shape(v));
    }
    let (trans_a, trans_b) = (cx.flag("transA", false)?, cx.flag("transB", false)?);
    let (alpha, beta) = (cx.float("alpha", 1.0)?, cx.float("beta", 1.0)?);
    // Before opset 7 C is broadcast only on demand; what is refused then is not a smaller set of results.
    cx.int("broadcast", 0)?;
    let dtype = cx.fact(a).dtype;
    if dtype.is_int() && (alpha != 1.0 || (beta != 1.0 && beta != 0.0)) {
        let y = cx.add(MatMul { trans_a, trans_b, alpha: 1.0, epilogue: None }, &[a, b])?;
        return scaled_integers(cx, y, c, alpha as f64, beta as f64);
    }
    let op = MatMul { trans_a, trans_b, alpha, epilogue: None };
    let Some(c) = c.filter(|_| beta != 0.0) else { return Ok(vec![cx.add(op, &[a, b])?]) };
    let n = cx.shape(b)[if trans_b { 0 } else { 1 }].clone();
    if let Some(bias) = as_bias(cx, c, &n, beta)? {
        return Ok(vec![cx.add(op, &[a, b, bias])?]);
    }
    let y = cx.add(op, &[a, b])?;
    let mut p = Program { inputs: vec![dtype, dtype], instrs: vec![], outputs: vec![] };
    let mut term = 1;
    if beta != 1.0 {
        let beta = p.push_const(beta as f64, dtype)?;
        term = p.push(Func::Mul, &[1, beta])?;
    }
    p.outputs = vec![p.push(Func::Add, &[0, term])?];
    Ok(vec![cx.add(Pointwise { program: p }, &[y, c])?])
}

/// FusedGemm of com.microsoft: Gemm, then the activation that an attribute names.
fn fused_gemm(cx: &mut ImportCx<'_>) -> Result<Vec<ValueId>> {
    let activation = cx.string("activation", "")?;
    let mut attrs = Attrs::new();
    for (name, to) in [("activation_alpha", "alpha"), ("activation_beta", "beta"), ("activation_gamma", "gamma")] {
        if let Some(v) = cx.attrs.float(name)? {
            attrs.set(to, &v);
        }
    }
    let y = gemm(cx)?[0];
    match activation.as_str() {
        "" => Ok(vec![y]),
        "Relu" | "Tanh" | "Sigmoid" | "LeakyRelu" | "Elu" | "Selu" | "Softplus" | "Softsign" | "HardSigmoid"
        | "ThresholdedRelu" => cx.call(&activation, 14, &attrs, &[Some(y)], 1),
        a => Err(err!(Unsupported, "attribute activation: {a:?} is not known")),
    }
}

/// `alpha y + beta c` of integers: scaled in f64, and truncated at the end.
fn scaled_integers(cx: &mut ImportCx<'_>, y: ValueId, c: Option<ValueId>, alpha: f64, beta: f64) -> Result<Vec<ValueId>> {
    let dtype = cx.fact(y).dtype;
    let inputs: Vec<ValueId> = std::iter::once(y).chain(c).collect();
    let y = pointwise(cx, &inputs, |p| {
        let mut sum = p.push_cast(0, DType::F64)?;
        let alpha = p.push_const(alpha, DType::F64)?;
        sum = p.push(Func::Mul, &[sum, alpha])?;
        if inputs.len() == 2 {
            let (c, beta) = (p.push_cast(1, DType::F64)?, p.push_const(beta, DType::F64)?);
            let c = p.push(Func::Mul, &[c, beta])?;
            sum = p.push(Func::Add, &[sum, c])?;
        }
        p.push_cast(sum, dtype)
    })?;
    Ok(vec![y])
}

/// `beta * c` as a row vector of `n` numbers, when it is one: a constant of shape [], [1], [n], [1,1] or [1,n], or
/// anything of shape [n] that needs no scaling.
fn as_bias(cx: &mut ImportCx<'_>, c: ValueId, n: &Dim, beta: f32) -> Result<Option<ValueId>> {
    let Some(len) = n.as_const().and_then(|n| usize::try_from(n).ok()) else { return Ok(None) };
    if let Some(t) = cx.as_const(c) {
        let row = match t.shape() {
            [] | [1] | [1, 1] => true,
            [k] | [1, k] => *k == len,
            _ => false,
        };
        if !row || t.dtype() != cx.fact(cx.input(0)?).dtype {
            return Ok(None);
        }
        if t.shape() == [len] && beta == 1.0 {
            return Ok(Some(c));
        }
        let mut out = Tensor::zeros(t.dtype(), &[len]);
        dispatch!(t.dtype(), T => {
            let src = t.slice::<T>();
            for (i, d) in out.slice_mut::<T>().iter_mut().enumerate() {
                let v = src[if src.len() == 1 { 0 } else { i }];
                // An integer is never scaled, and must not pass through a float.
                *d = if beta == 1.0 { v } else { convert::<f64, T>(convert::<T, f64>(v) * beta as f64) };
            }
        });
        return Ok(Some(cx.constant(out)));
    }
    let shape = cx.shape(c);
    Ok((shape.rank() == 1 && shape[0] == *n && beta == 1.0).then_some(c))
}
