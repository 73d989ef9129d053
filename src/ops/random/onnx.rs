//! Import of the random operators: numbers of a shape or like a tensor, Bernoulli, Multinomial, and Dropout while training.

use super::Random;
use crate::base::{Attrs, DType, Result, Tensor};
use crate::network::ValueId;
use crate::ops::{ImportCx, OnnxOp, onnx};
use crate::{ensure, err};
use std::hash::{Hash, Hasher};

pub const TABLE: &[OnnxOp] = &[
    onnx("RandomNormal", 1, of_shape),
    onnx("RandomUniform", 1, of_shape),
    onnx("RandomNormalLike", 1, like),
    onnx("RandomUniformLike", 1, like),
    onnx("Bernoulli", 15, bernoulli),
    onnx("Multinomial", 7, multinomial),
];

/// Opset whose operators these are made of.
const OPSET: i64 = 18;

/// A number that depends on the node's name alone, so that builds are repeatable.
fn salt(cx: &ImportCx<'_>) -> i64 {
    let mut h = std::collections::hash_map::DefaultHasher::new();
    cx.name.hash(&mut h);
    h.finish() as i64
}

fn dtype_attr(cx: &ImportCx<'_>, default: DType) -> Result<DType> {
    match cx.attrs.int("dtype")? {
        None => Ok(default),
        Some(code) => crate::onnx::tensor::dtype_of(i32::try_from(code).unwrap_or(-1)),
    }
}

fn numbers(cx: &mut ImportCx<'_>, dtype: DType, shape: ValueId) -> Result<ValueId> {
    let normal = cx.op_type.starts_with("RandomNormal");
    let (low, span) = match normal {
        true => (cx.float("mean", 0.0)?, cx.float("scale", 1.0)?),
        false => {
            let low = cx.float("low", 0.0)?;
            (low, cx.float("high", 1.0)? - low)
        }
    };
    let seed = cx.attrs.float("seed")?;
    let salt = salt(cx);
    cx.add(Random { dtype, normal, low, span, seed, salt }, &[shape])
}

fn of_shape(cx: &mut ImportCx<'_>) -> Result<Vec<ValueId>> {
    let dtype = dtype_attr(cx, DType::F32)?;
    let shape = cx.ints("shape")?.ok_or_else(|| err!(InvalidArgument, "attribute shape is missing"))?;
    let shape = cx.constant(Tensor::from_slice(&[shape.len()], &shape));
    Ok(vec![numbers(cx, dtype, shape)?])
}

fn like(cx: &mut ImportCx<'_>) -> Result<Vec<ValueId>> {
    let x = cx.input(0)?;
    let dtype = dtype_attr(cx, cx.fact(x).dtype)?;
    let shape = cx.call1("Shape", OPSET, &Attrs::new(), &[x])?;
    Ok(vec![numbers(cx, dtype, shape)?])
}

/// Uniform numbers in [0, 1) of this shape.
fn uniform(cx: &mut ImportCx<'_>, dtype: DType, seed: Option<f32>, shape: ValueId) -> Result<ValueId> {
    let salt = salt(cx);
    cx.add(Random { dtype, normal: false, low: 0.0, span: 1.0, seed, salt }, &[shape])
}

fn cast(cx: &mut ImportCx<'_>, v: ValueId, to: DType) -> Result<ValueId> {
    let mut attrs = Attrs::new();
    attrs.set("to", &(crate::onnx::tensor::onnx_code_of(to) as i64));
    cx.call1("Cast", OPSET, &attrs, &[v])
}

fn bernoulli(cx: &mut ImportCx<'_>) -> Result<Vec<ValueId>> {
    let p = cx.input(0)?;
    let to = dtype_attr(cx, cx.fact(p).dtype)?;
    let seed = cx.attrs.float("seed")?;
    let work = if cx.fact(p).dtype == DType::F64 { DType::F64 } else { DType::F32 };
    let shape = cx.call1("Shape", OPSET, &Attrs::new(), &[p])?;
    let u = uniform(cx, work, seed, shape)?;
    let p = cast(cx, p, work)?;
    let hit = cx.call1("Less", OPSET, &Attrs::new(), &[u, p])?;
    Ok(vec![cast(cx, hit, to)?])
}

/// The class of each sample: how many classes' summed probabilities lie at or below a uniform number.
fn multinomial(cx: &mut ImportCx<'_>) -> Result<Vec<ValueId>> {
    let x = cx.input(0)?;
    let samples = cx.int("sample_size", 1)?;
    let to = dtype_attr(cx, DType::I32)?;
    let seed = cx.attrs.float("seed")?;
    let f = cx.fact(x);
    ensure!(f.rank() == 2, InvalidArgument, "expected [batch, classes], got {f}");
    ensure!((0..=1 << 31).contains(&samples), InvalidArgument, "attribute sample_size: {samples}");
    let work = if f.dtype == DType::F64 { DType::F64 } else { DType::F32 };
    let none = Attrs::new();
    let vector = |cx: &mut ImportCx<'_>, v: i64| cx.constant(Tensor::from_slice(&[1], &[v]));
    let x = cast(cx, x, work)?;
    let mut axis = Attrs::new();
    axis.set("axis", &-1i64);
    let p = cx.call1("Softmax", OPSET, &axis, &[x])?;
    let one = vector(cx, 1);
    let sums = cx.call1("CumSum", OPSET, &none, &[p, one])?;
    let mut batch = Attrs::new();
    batch.set("end", &1i64);
    let batch = cx.call1("Shape", OPSET, &batch, &[x])?;
    let n = vector(cx, samples);
    let mut front = Attrs::new();
    front.set("axis", &0i64);
    let shape = cx.call1("Concat", OPSET, &front, &[batch, n])?;
    let u = uniform(cx, work, seed, shape)?;
    let two = vector(cx, 2);
    let sums = cx.call1("Unsqueeze", OPSET, &none, &[sums, one])?;
    let u = cx.call1("Unsqueeze", OPSET, &none, &[u, two])?;
    let below = cx.call1("LessOrEqual", OPSET, &none, &[sums, u])?;
    let below = cast(cx, below, DType::I64)?;
    let mut drop = Attrs::new();
    drop.set("keepdims", &0i64);
    let class = cx.call1("ReduceSum", OPSET, &drop, &[below, two])?;
    // The sum of all probabilities may round below 1.
    let mut classes = Attrs::new();
    classes.set("start", &1i64);
    let classes = cx.call1("Shape", OPSET, &classes, &[x])?;
    let last = cx.call1("Sub", OPSET, &none, &[classes, one])?;
    let class = cx.call1("Min", OPSET, &none, &[class, last])?;
    Ok(vec![cast(cx, class, to)?])
}

/// Dropout that trains, or decides when it runs: `training` is a bool. Gives the output and the mask of what is kept.
pub fn dropout(cx: &mut ImportCx<'_>, training: ValueId) -> Result<Vec<ValueId>> {
    let x = cx.input(0)?;
    // An integer in the standard, though other random operators have a float here.
    let seed = cx.attrs.int("seed")?.map(|s| s as f32);
    let dtype = cx.fact(x).dtype;
    let none = Attrs::new();
    let ratio = match cx.opt(1) {
        Some(r) => cast(cx, r, DType::F32)?,
        None => cx.constant(Tensor::scalar(0.5f32)),
    };
    let shape = cx.call1("Shape", OPSET, &none, &[x])?;
    let u = uniform(cx, DType::F32, seed, shape)?;
    let kept = cx.call1("GreaterOrEqual", OPSET, &none, &[u, ratio])?;
    let idle = cx.call1("Not", OPSET, &none, &[training])?;
    let kept = cx.call1("Or", OPSET, &none, &[kept, idle])?;
    let one = cx.constant(Tensor::scalar(1.0f32));
    let left = cx.call1("Sub", OPSET, &none, &[one, ratio])?;
    let scale = cx.call1("Div", OPSET, &none, &[one, left])?;
    let scale = cx.call1("Where", OPSET, &none, &[training, scale, one])?;
    let scale = cast(cx, scale, dtype)?;
    let scaled = cx.call1("Mul", OPSET, &none, &[x, scale])?;
    let zero = cx.constant(Tensor::scalar(0.0f32).cast(dtype));
    let out = cx.call1("Where", OPSET, &none, &[kept, scaled, zero])?;
    Ok(vec![out, kept])
}
