//! Import of RNN, GRU and LSTM: the input projections of all steps become one matrix product, the rest is the home.

use super::activation::defaults;
use super::*;
use crate::base::Attrs;
use crate::bail;
use crate::network::ValueId;
use crate::ops::matmul::MatMul;
use crate::ops::ml;
use crate::ops::reshape::{Reshape, ReshapeMode};
use crate::ops::transpose::Transpose;
use crate::ops::{ImportCx, OnnxOp, onnx};

pub(super) const TABLE: &[OnnxOp] = &[
    onnx("RNN", 1, import),
    onnx("GRU", 1, import),
    onnx("LSTM", 1, import),
    OnnxOp { domain: "com.microsoft", name: "DynamicQuantizeLSTM", since: 1, import: quantized },
];

/// Opset of the operators that an expansion calls.
const OPSET: i64 = 13;

/// Activations by name, with alpha and beta: those that take numbers consume the lists in their order.
fn activations(cx: &ImportCx<'_>, kind: RecurrentKind, dirs: usize) -> Result<(Vec<String>, Vec<f32>, Vec<f32>)> {
    let per = kind.n_activations();
    let names = match cx.attrs.strings("activations")? {
        None => {
            let one: &[&str] = match kind {
                RecurrentKind::Rnn => &["tanh"],
                RecurrentKind::Gru => &["sigmoid", "tanh"],
                RecurrentKind::Lstm => &["sigmoid", "tanh", "tanh"],
            };
            one.repeat(dirs).iter().map(|s| s.to_string()).collect()
        }
        Some(mut v) => {
            // The operator's own default for an RNN names two, whatever the direction.
            if kind == RecurrentKind::Rnn && v.len() == 2 && dirs == 1 {
                v.truncate(1);
            }
            v
        }
    };
    let want = per * dirs;
    ensure!(names.len() == want, InvalidArgument, "expected {want} activations, got {}", names.len());
    let names: Vec<String> = names.iter().map(|n| n.to_lowercase()).collect();
    let mut lists = Vec::new();
    for (list, name) in ["activation_alpha", "activation_beta"].into_iter().enumerate() {
        let mut given = cx.attrs.floats(name)?.unwrap_or_default().into_iter();
        let mut values = Vec::new();
        for n in &names {
            let (alpha, beta) = defaults(n)?;
            let default = if list == 0 { alpha } else { beta };
            values.push(default.map_or(0.0, |d| given.next().unwrap_or(d)));
        }
        lists.push(values);
    }
    let beta = lists.pop().unwrap_or_default();
    Ok((names, lists.pop().unwrap_or_default(), beta))
}

fn reshape(cx: &mut ImportCx<'_>, v: ValueId, spec: &[i64]) -> Result<ValueId> {
    cx.add(Reshape { mode: ReshapeMode::Shape, spec: Some(spec.to_vec()), allow_zero: false }, &[v])
}

/// Elements `from .. to` of one axis.
fn slice(cx: &mut ImportCx<'_>, v: ValueId, axis: i64, from: i64, to: i64) -> Result<ValueId> {
    let mut inputs = vec![v];
    for n in [from, to, axis] {
        inputs.push(cx.constant(Tensor::from_slice(&[1], &[n])));
    }
    cx.call1("Slice", OPSET, &Attrs::new(), &inputs)
}

/// The bias of the products with W, and for a GRU that resets after the product its recurrent bias.
fn biases(cx: &mut ImportCx<'_>, op: &Recurrent, b: ValueId) -> Result<(ValueId, Option<ValueId>)> {
    let (dirs, gates) = (op.n_directions() as i64, op.kind.gates() as i64);
    let dtype = cx.fact(b).dtype;
    let parts = reshape(cx, b, &[dirs, 2, gates, -1])?;
    let input = slice(cx, parts, 1, 0, 1)?;
    let mut recurrent = slice(cx, parts, 1, 1, 2)?;
    let mut apart = None;
    if op.reset_after {
        let hidden = slice(cx, recurrent, 2, 2, 3)?;
        apart = Some(reshape(cx, hidden, &[dirs, -1])?);
        let mask = Tensor::from_slice(&[1, 1, 3, 1], &[1.0f32, 1.0, 0.0]).cast(dtype);
        let mask = cx.constant(mask);
        recurrent = cx.call1("Mul", OPSET, &Attrs::new(), &[recurrent, mask])?;
    }
    let sum = cx.call1("Add", OPSET, &Attrs::new(), &[input, recurrent])?;
    Ok((reshape(cx, sum, &[-1])?, apart))
}

/// The operator that the attributes describe.
fn layer(cx: &ImportCx<'_>, kind: RecurrentKind) -> Result<Recurrent> {
    let direction = cx.string("direction", "forward")?;
    let direction = match direction.as_str() {
        // The default of the first GRU lacks a letter.
        "foward" => RecurrentDirection::Forward,
        name => match RecurrentDirection::from_name(name) {
            Some(d) => d,
            None => bail!(InvalidArgument, "attribute direction: {name:?} is no direction"),
        },
    };
    let dirs = if direction == RecurrentDirection::Both { 2 } else { 1 };
    let (activations, alpha, beta) = activations(cx, kind, dirs)?;
    Ok(Recurrent {
        kind,
        direction,
        batch_first: cx.flag("layout", false)?,
        activations,
        alpha,
        beta,
        clip: cx.attrs.float("clip")?,
        coupled: kind == RecurrentKind::Lstm && cx.flag("input_forget", false)?,
        reset_after: kind == RecurrentKind::Gru && cx.int("linear_before_reset", 0)? != 0,
    })
}

/// Adds the layer behind its input projections `x` and the transposed recurrent weights.
fn add_layer(cx: &mut ImportCx<'_>, op: Recurrent, x: ValueId, r: ValueId, apart: Option<ValueId>) -> Result<Vec<ValueId>> {
    let is_lstm = op.kind == RecurrentKind::Lstm;
    let (c0, peepholes) = (cx.opt(6).filter(|_| is_lstm), cx.opt(7).filter(|_| is_lstm));
    let inputs = [Some(x), Some(r), apart, cx.opt(4), cx.opt(5), c0, peepholes];
    let n = 1 + inputs.iter().rposition(|v| v.is_some()).unwrap_or(0);
    cx.add_multi(op, &inputs[..n])
}

fn product(trans_b: bool) -> MatMul {
    MatMul { trans_a: false, trans_b, alpha: 1.0, epilogue: None }
}

fn import(cx: &mut ImportCx<'_>) -> Result<Vec<ValueId>> {
    let kind = match cx.op_type {
        "RNN" => RecurrentKind::Rnn,
        "GRU" => RecurrentKind::Gru,
        _ => RecurrentKind::Lstm,
    };
    if cx.opset < 7 {
        // Whether y is wanted; the model's outputs say that as well.
        cx.flag("output_sequence", false)?;
    }
    let op = layer(cx, kind)?;
    let dirs = op.n_directions();
    let (x, w, r) = (cx.input(0)?, cx.input(1)?, cx.input(2)?);
    for (i, v) in [x, w, r].into_iter().enumerate() {
        ensure!(cx.shape(v).rank() == 3, InvalidArgument, "input {i}: expected rank 3, got {}", cx.shape(v));
    }
    let gates = kind.gates() as i64;
    if let Some(hidden) = cx.attrs.int("hidden_size")? {
        ensure!((1..=1 << 30).contains(&hidden), InvalidArgument, "hidden_size is {hidden}");
        let want = Shape::from([dirs as i64, gates * hidden, hidden]);
        let fits = want.iter().zip(cx.shape(r).iter()).all(|(a, b)| agree(a, b));
        ensure!(fits, InvalidArgument, "hidden_size is {hidden}, but the recurrent weights are {}", cx.shape(r));
    }
    let (w_shape, r_shape) = (cx.shape(w), cx.shape(r));
    let fits = agree(&w_shape[0], &r_shape[0]) && agree(&w_shape[1], &r_shape[1]) && agree(&w_shape[0], &Dim::from(dirs));
    ensure!(fits, InvalidArgument, "weights {w_shape} and recurrent weights {r_shape} do not fit {dirs} directions");
    let (mut bias, mut apart) = (None, None);
    if let Some(b) = cx.opt(3) {
        let sum = biases(cx, &op, b)?;
        (bias, apart) = (Some(sum.0), sum.1);
    }
    // [directions, gates * hidden, inputs] as one matrix; its columns come out in the order that the home wants.
    let rows = &w_shape[0] * &w_shape[1];
    let spec = match (rows.as_const(), w_shape[2].as_const()) {
        (Some(n), _) => vec![n, w_shape[2].as_const().unwrap_or(-1)],
        (None, Some(n)) => vec![-1, n],
        (None, None) => bail!(Unsupported, "the input weights need a known size, got {w_shape}"),
    };
    let w = reshape(cx, w, &spec)?;
    let x = cx.add_opt(product(true), &[Some(x), Some(w), bias])?;
    let r = cx.add(Transpose { perm: vec![0, 2, 1] }, &[r])?;
    add_layer(cx, op, x, r, apart)
}

/// Weights [directions, k, gates * hidden] in real numbers; scales and zero points are for each direction or each column.
fn dequantized(cx: &mut ImportCx<'_>, at: usize, scale: usize) -> Result<ValueId> {
    let (w, zero) = (cx.input(at)?, cx.opt(scale + 1));
    let scale = cx.input(scale)?;
    let dirs = cx.shape(w)[0].as_const().unwrap_or(1);
    let dtype = cx.fact(scale).dtype;
    let mut w = ml::cast(cx, w, dtype)?;
    if let Some(zero) = zero {
        let zero = ml::cast(cx, zero, dtype)?;
        let zero = reshape(cx, zero, &[dirs, 1, -1])?;
        w = cx.call1("Sub", OPSET, &Attrs::new(), &[w, zero])?;
    }
    let scale = reshape(cx, scale, &[dirs, 1, -1])?;
    cx.call1("Mul", OPSET, &Attrs::new(), &[w, scale])
}

/// DynamicQuantizeLSTM: an LSTM whose weights come in 8 bits, transposed. It quantizes inputs and states on the way, to
/// have products of integers; here they keep their precision.
fn quantized(cx: &mut ImportCx<'_>) -> Result<Vec<ValueId>> {
    let op = layer(cx, RecurrentKind::Lstm)?;
    cx.attrs.int("hidden_size")?;
    for i in [1, 2] {
        let shape = cx.shape(cx.input(i)?);
        ensure!(shape.rank() == 3 && shape[0].is(op.n_directions() as i64), InvalidArgument, "input {i}: weights are {shape}");
    }
    let (w, r) = (dequantized(cx, 1, 8)?, dequantized(cx, 2, 10)?);
    let bias = match cx.opt(3) {
        Some(b) => Some(biases(cx, &op, b)?.0),
        None => None,
    };
    let w_shape = cx.shape(w);
    let Some(n) = (&w_shape[0] * &w_shape[2]).as_const() else {
        bail!(Unsupported, "the input weights need a known size, got {w_shape}")
    };
    let w = cx.add(Transpose { perm: vec![1, 0, 2] }, &[w])?;
    let w = reshape(cx, w, &[-1, n])?;
    let x = cx.input(0)?;
    let x = cx.add_opt(product(false), &[Some(x), Some(w), bias])?;
    add_layer(cx, op, x, r, None)
}
