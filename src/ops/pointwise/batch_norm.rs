//! BatchNormalization at inference: `y = x * a + b` per channel, with a and b constants wherever the statistics are.

use super::Pointwise;
use super::func::Func;
use super::onnx::{skip_legacy, unsqueeze_back};
use super::program::Program;
use crate::base::{DType, Result, Tensor};
use crate::network::ValueId;
use crate::ops::ImportCx;
use crate::ensure;
use std::sync::Arc;

pub(super) fn batch_normalization(cx: &mut ImportCx<'_>) -> Result<Vec<ValueId>> {
    skip_legacy(cx)?;
    let epsilon = cx.float("epsilon", 1e-5)? as f64;
    cx.float("momentum", 0.9)?;
    let training = if cx.opset < 7 { !cx.flag("is_test", false)? && cx.n_outputs > 1 } else { cx.flag("training_mode", false)? };
    ensure!(!training, Unsupported, "BatchNormalization in training mode is not supported; export the model for inference");
    ensure!(
        cx.n_outputs <= 1,
        Unsupported,
        "BatchNormalization with {} outputs updates its statistics, which is training; export the model for inference",
        cx.n_outputs
    );
    if cx.opset < 9 {
        ensure!(cx.int("spatial", 1)? == 1, Unsupported, "BatchNormalization with spatial = 0 is not supported");
    }
    let x = cx.input(0)?;
    let f = cx.fact(x);
    ensure!(f.dtype.is_float(), Unsupported, "BatchNormalization does not take {}", f.dtype);
    ensure!(f.rank() >= 2, InvalidArgument, "x: expected rank 2 or more, got {f}");
    let params: Vec<ValueId> = (1..5).map(|i| cx.input(i)).collect::<Result<_>>()?;
    let channels = &f.shape[1];
    for (v, what) in params.iter().zip(["scale", "bias", "mean", "variance"]) {
        let s = cx.shape(*v);
        ensure!(s.rank() == 1, InvalidArgument, "{what}: expected rank 1, got {s}");
        let known = (s[0].as_const(), channels.as_const());
        ensure!(!matches!(known, (Some(a), Some(b)) if a != b), InvalidArgument, "{what}: expected [{channels}], got {s}");
    }
    let constants: Option<Vec<Arc<Tensor>>> = params.iter().map(|v| cx.as_const(*v)).collect();
    match constants {
        Some(c) => folded(cx, x, &c, epsilon),
        None => computed(cx, x, &params, epsilon),
    }
}

/// Two constants, computed in f64.
fn folded(cx: &mut ImportCx<'_>, x: ValueId, params: &[Arc<Tensor>], epsilon: f64) -> Result<Vec<ValueId>> {
    let f = cx.fact(x);
    let [scale, bias, mean, var] = [0, 1, 2, 3].map(|i| params[i].to_f64s());
    let mut dims = vec![1; f.rank() - 1];
    dims[0] = scale.len();
    let a: Vec<f64> = scale.iter().zip(&var).map(|(s, v)| s / (v + epsilon).sqrt()).collect();
    let b: Vec<f64> = bias.iter().zip(&mean).zip(&a).map(|((b, m), a)| b - m * a).collect();
    let [a, b] = [("scale", a), ("shift", b)].map(|(what, v)| {
        let t = Tensor::from_slice(&dims, &v).cast(f.dtype);
        cx.graph.add_const(&format!("{}/{what}", cx.name), Arc::new(t))
    });
    let t = f.dtype;
    let mut p = Program { inputs: vec![t; 3], instrs: vec![], outputs: vec![] };
    let scaled = p.push(Func::Mul, &[0, 1])?;
    let shifted = p.push(Func::Add, &[scaled, 2])?;
    p.outputs = vec![shifted];
    Ok(vec![cx.add(Pointwise { program: p }, &[x, a, b])?])
}

/// `(x - mean) / sqrt(var + epsilon) * scale + bias`, for statistics that are computed or given at run time.
fn computed(cx: &mut ImportCx<'_>, x: ValueId, params: &[ValueId], epsilon: f64) -> Result<Vec<ValueId>> {
    let f = cx.fact(x);
    let mut inputs = vec![x];
    for v in params {
        inputs.push(unsqueeze_back(cx, *v, f.rank() - 2)?);
    }
    let t = f.dtype;
    let types: Vec<DType> = inputs.iter().map(|v| cx.graph.fact(*v).dtype).collect();
    let mut p = Program { inputs: types, instrs: vec![], outputs: vec![] };
    // Statistics may be wider than x (opset 15): they meet in the wider of f32 and x's type.
    let wide = if t == DType::F64 { t } else { DType::F32 };
    let mut r = [0; 5];
    for (i, r) in r.iter_mut().enumerate() {
        *r = p.push_cast(i as u16, wide)?;
    }
    let [x, scale, bias, mean, var] = r;
    let eps = p.push_const(epsilon, wide)?;
    let var = p.push(Func::Add, &[var, eps])?;
    let dev = p.push(Func::Sqrt, &[var])?;
    let centered = p.push(Func::Sub, &[x, mean])?;
    let unit = p.push(Func::Div, &[centered, dev])?;
    let scaled = p.push(Func::Mul, &[unit, scale])?;
    let shifted = p.push(Func::Add, &[scaled, bias])?;
    let out = p.push_cast(shifted, t)?;
    p.outputs = vec![out];
    Ok(vec![cx.add(Pointwise { program: p }, &inputs)?])
}
