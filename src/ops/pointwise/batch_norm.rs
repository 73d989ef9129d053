//! BatchNormalization. At inference it is `y = x * a + b` per channel, with a and b constants wherever the statistics are.

use super::Pointwise;
use super::func::Func;
use super::onnx::{skip_legacy, unsqueeze_back};
use super::program::Program;
use crate::base::{DType, Result, Tensor};
use crate::network::ValueId;
use crate::ops::ImportCx;
use crate::ensure;
use crate::ops::compose::{may_equal, squeeze, unsqueeze};
use crate::ops::normalize::batch::{Training, train};
use std::sync::Arc;

pub(super) fn batch_normalization(cx: &mut ImportCx<'_>) -> Result<Vec<ValueId>> {
    skip_legacy(cx)?;
    let epsilon = cx.float("epsilon", 1e-5)? as f64;
    let momentum = cx.float("momentum", 0.9)? as f64;
    let is_test = cx.opset < 7 && cx.flag("is_test", false)?;
    let spatial = cx.opset >= 9 || cx.flag("spatial", true)?;
    // Before opset 14 further outputs are what asks for training.
    let training = if cx.opset < 14 { cx.n_outputs > 1 && !is_test } else { cx.flag("training_mode", false)? };
    ensure!(training || cx.n_outputs <= 1, InvalidArgument, "{} outputs, but training_mode is 0", cx.n_outputs);
    let mut x = cx.input(0)?;
    if cx.shape(x).rank() == 1 {
        // A single dimension is that of the samples, of one channel.
        x = unsqueeze(cx, x, &[1])?;
        let mut out = normalized(cx, x, &Mode { epsilon, momentum, spatial: true, training })?;
        out[0] = squeeze(cx, out[0], &[1])?;
        return Ok(out);
    }
    normalized(cx, x, &Mode { epsilon, momentum, spatial, training })
}

struct Mode {
    epsilon: f64,
    momentum: f64,
    /// False: statistics for each place of a sample instead of each channel.
    spatial: bool,
    training: bool,
}

fn normalized(cx: &mut ImportCx<'_>, x: ValueId, mode: &Mode) -> Result<Vec<ValueId>> {
    let Mode { epsilon, momentum, spatial, training } = *mode;
    let f = cx.fact(x);
    ensure!(f.dtype.is_float(), Unsupported, "BatchNormalization does not take {}", f.dtype);
    ensure!(f.rank() >= 2, InvalidArgument, "x: expected rank 1 or more, got {f}");
    let params: Vec<ValueId> = (1..5).map(|i| cx.input(i)).collect::<Result<_>>()?;
    let places = if spatial { &f.shape[1..2] } else { &f.shape[1..] };
    for (v, what) in params.iter().zip(["scale", "bias", "mean", "variance"]) {
        let s = cx.shape(*v);
        let fits = s.rank() == places.len() && s.iter().zip(places).all(|(a, b)| may_equal(a, b));
        ensure!(fits, InvalidArgument, "{what}: got {s} for x {f}");
    }
    if training {
        let [scale, bias, running_mean, running_var] = params[..] else { unreachable!("four operands were read") };
        return train(cx, x, &Training { scale, bias, running_mean, running_var, epsilon, momentum, spatial });
    }
    if !spatial {
        return computed(cx, x, &params, epsilon);
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
        let rank = cx.shape(*v).rank();
        inputs.push(unsqueeze_back(cx, *v, f.rank() - 1 - rank)?);
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
