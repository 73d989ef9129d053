//! Operators of `ai.onnx.ml` that are compositions of others, and what their importers share.
//!
//! Only numbers exist here: strings and maps are refused by name. Where ONNX's text leaves the results of classifiers
//! open, they follow ONNX Runtime.

mod features;
mod linear;
mod svm;
mod transform;

use crate::base::{Attrs, DType, Result, Tensor};
use crate::network::ValueId;
use crate::ops::pointwise::{Func, Pointwise, Program};
use crate::ops::reshape::{Reshape, ReshapeMode};
use crate::ops::{ImportCx, OnnxOp};
use crate::{bail, ensure};
pub use transform::Transform;

pub const DOMAIN: &str = "ai.onnx.ml";

/// Opset of the operators that an expansion calls.
const OPSET: i64 = 13;

type Import = fn(&mut ImportCx<'_>) -> Result<Vec<ValueId>>;

const fn ml(name: &'static str, import: Import) -> OnnxOp {
    OnnxOp { domain: DOMAIN, name, since: 1, import }
}

pub const TABLE: &[OnnxOp] = &[
    ml("LinearRegressor", linear::regressor),
    ml("LinearClassifier", linear::classifier),
    ml("SVMRegressor", svm::regressor),
    ml("SVMClassifier", svm::classifier),
    ml("Scaler", features::scaler),
    ml("Normalizer", features::normalizer),
    ml("Imputer", features::imputer),
    ml("Binarizer", features::binarizer),
    ml("OneHotEncoder", features::one_hot),
    ml("FeatureVectorizer", features::vectorizer),
    ml("ZipMap", refused),
    ml("DictVectorizer", refused),
    ml("CastMap", refused),
    ml("CategoryMapper", refused),
];

fn refused(cx: &mut ImportCx<'_>) -> Result<Vec<ValueId>> {
    let what = if cx.op_type == "CategoryMapper" { "strings" } else { "maps" };
    bail!(Unsupported, "{} works on {what}, which are no tensors of numbers: leave it out of the model", cx.op_type)
}

/// Adds a standard operator without attributes.
pub fn call(cx: &mut ImportCx<'_>, op: &str, inputs: &[ValueId]) -> Result<ValueId> {
    cx.call1(op, OPSET, &Attrs::new(), inputs)
}

fn attrs(ints: &[(&str, i64)]) -> Attrs {
    let mut a = Attrs::new();
    ints.iter().for_each(|(k, v)| a.set(k, v));
    a
}

/// Adds an element-wise function, written by `body` over the operands' registers.
fn pointwise(
    cx: &mut ImportCx<'_>,
    inputs: &[ValueId],
    body: impl FnOnce(&mut Program) -> Result<crate::ops::pointwise::Reg>,
) -> Result<ValueId> {
    let dtypes = inputs.iter().map(|v| cx.fact(*v).dtype).collect();
    let mut program = Program { inputs: dtypes, instrs: vec![], outputs: vec![] };
    let out = body(&mut program)?;
    program.outputs = vec![out];
    cx.add(Pointwise { program }, inputs)
}

/// The operand as rows of features: a vector is one row.
pub fn rows(cx: &mut ImportCx<'_>) -> Result<ValueId> {
    let x = cx.input(0)?;
    match cx.shape(x).rank() {
        2 => Ok(x),
        1 => cx.add(Reshape { mode: ReshapeMode::Unsqueeze, spec: Some(vec![0]), allow_zero: false }, &[x]),
        _ => bail!(Unsupported, "expected rows of features, got shape {}", cx.shape(x)),
    }
}

/// The operand as rows of f32.
fn f32_rows(cx: &mut ImportCx<'_>) -> Result<ValueId> {
    let x = rows(cx)?;
    cast(cx, x, DType::F32)
}

/// The number of features in a row; an error when it is not known now.
fn n_features(cx: &ImportCx<'_>, x: ValueId) -> Option<usize> {
    cx.shape(x).last().and_then(|d| d.as_const()).and_then(|n| usize::try_from(n).ok())
}

pub fn cast(cx: &mut ImportCx<'_>, v: ValueId, dtype: DType) -> Result<ValueId> {
    if cx.fact(v).dtype == dtype {
        return Ok(v);
    }
    pointwise(cx, &[v], |p| p.push_cast(0, dtype))
}

/// A constant of numbers in an element type.
fn constant(cx: &mut ImportCx<'_>, dtype: DType, shape: &[usize], values: &[f64]) -> ValueId {
    cx.constant(Tensor::from_slice(shape, values).cast(dtype))
}

/// Adds the same numbers to each row.
pub fn add_row(cx: &mut ImportCx<'_>, v: ValueId, row: &[f64]) -> Result<ValueId> {
    let dtype = cx.fact(v).dtype;
    let row = constant(cx, dtype, &[row.len()], row);
    call(cx, "Add", &[v, row])
}

/// One column of a matrix, as a matrix.
pub fn column(cx: &mut ImportCx<'_>, v: ValueId, i: i64) -> Result<ValueId> {
    columns(cx, v, i, i + 1)
}

fn columns(cx: &mut ImportCx<'_>, v: ValueId, from: i64, to: i64) -> Result<ValueId> {
    let mut inputs = vec![v];
    for n in [from, to, 1] {
        inputs.push(cx.constant(Tensor::from_slice(&[1], &[n])));
    }
    call(cx, "Slice", &inputs)
}

/// Matrices side by side.
pub fn join(cx: &mut ImportCx<'_>, parts: &[ValueId]) -> Result<ValueId> {
    cx.call1("Concat", OPSET, &attrs(&[("axis", 1)]), parts)
}

/// Labels of the classes; strings are refused.
pub fn labels(cx: &ImportCx<'_>, name: &str) -> Result<Vec<i64>> {
    let strings = cx.attrs.strings("classlabels_strings")?.unwrap_or_default();
    ensure!(strings.is_empty(), Unsupported, "classes with strings as labels are not supported: give them integers");
    let labels = cx.ints(name)?.unwrap_or_default();
    ensure!(!labels.is_empty(), InvalidArgument, "attribute {name} is missing");
    Ok(labels)
}

/// [rows, 1] without its second dimension.
fn squeezed(cx: &mut ImportCx<'_>, v: ValueId) -> Result<ValueId> {
    cx.add(Reshape { mode: ReshapeMode::Squeeze, spec: Some(vec![1]), allow_zero: false }, &[v])
}

/// The second label where the score [rows, 1] is above the threshold, else the first; [rows].
pub fn threshold_labels(cx: &mut ImportCx<'_>, score: ValueId, threshold: f64, labels: [i64; 2]) -> Result<ValueId> {
    let dtype = cx.fact(score).dtype;
    let above = pointwise(cx, &[score], |p| {
        let t = p.push_const(threshold, dtype)?;
        p.push(Func::Greater, &[0, t])
    })?;
    let above = squeezed(cx, above)?;
    let [first, second] = labels.map(|l| cx.constant(Tensor::from_slice(&[1], &[l])));
    call(cx, "Where", &[above, second, first])
}

/// The label of the largest score of each row, the first of equal ones.
pub fn best_labels(cx: &mut ImportCx<'_>, scores: ValueId, labels: &[i64]) -> Result<ValueId> {
    let best = cx.call1("ArgMax", OPSET, &attrs(&[("axis", 1), ("keepdims", 0)]), &[scores])?;
    if labels.iter().enumerate().all(|(i, l)| i as i64 == *l) {
        return Ok(best);
    }
    let table = cx.constant(Tensor::from_slice(&[labels.len()], labels));
    call(cx, "Gather", &[table, best])
}

/// Both columns of a two-class result from one score [rows, 1].
pub fn complement(cx: &mut ImportCx<'_>, score: ValueId, one_minus: bool, transform: Transform) -> Result<ValueId> {
    let dtype = cx.fact(score).dtype;
    let logistic = transform == Transform::Logistic;
    let other = pointwise(cx, &[score], |p| {
        if one_minus && !logistic {
            let one = p.push_const(1.0, dtype)?;
            return p.push(Func::Sub, &[one, 0]);
        }
        p.push(Func::Neg, &[0])
    })?;
    let both = join(cx, &[other, score])?;
    match transform {
        Transform::Logistic | Transform::Probit => transform.apply(cx, both),
        // A score and its complement are taken as they are.
        _ => Ok(both),
    }
}
