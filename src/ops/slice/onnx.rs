//! Import of Slice (attributes before opset 10, operands from there on) and of Split, which becomes one slice a part.

use super::Slice;
use crate::base::{Attrs, Result, Tensor};
use crate::network::ValueId;
use crate::ops::gather::Gather;
use crate::ops::{ImportCx, OnnxOp, onnx};
use crate::{ensure, err};

pub const TABLE: &[OnnxOp] = &[
    onnx("Slice", 1, slice_1),
    onnx("Slice", 10, slice_10),
    onnx("Split", 1, split_1),
    onnx("Split", 2, split_2),
    onnx("Split", 13, split_13),
    onnx("Split", 18, split_18),
    onnx("CenterCropPad", 18, super::center::center_crop_pad),
];

fn ints(cx: &mut ImportCx<'_>, v: &[i64]) -> ValueId {
    cx.constant(Tensor::from_slice(&[v.len()], v))
}

fn slice_1(cx: &mut ImportCx<'_>) -> Result<Vec<ValueId>> {
    let x = cx.input(0)?;
    let need = |v: Option<Vec<i64>>, name: &str| v.ok_or_else(|| err!(InvalidArgument, "attribute {name} is missing"));
    let (starts, ends) = (need(cx.ints("starts")?, "starts")?, need(cx.ints("ends")?, "ends")?);
    let axes = cx.ints("axes")?.unwrap_or_else(|| (0..starts.len() as i64).collect());
    let operands = [starts, ends, axes].map(|v| ints(cx, &v));
    Ok(vec![cx.add(Slice {}, &[x, operands[0], operands[1], operands[2]])?])
}

fn slice_10(cx: &mut ImportCx<'_>) -> Result<Vec<ValueId>> {
    let (x, starts, ends) = (cx.input(0)?, cx.input(1)?, cx.input(2)?);
    let mut inputs = vec![Some(x), Some(starts), Some(ends), cx.opt(3), cx.opt(4)];
    while inputs.last() == Some(&None) {
        inputs.pop();
    }
    Ok(vec![cx.add_opt(Slice {}, &inputs)?])
}

/// Sizes of `n` equal parts; the last one is smaller where `uneven` is allowed and needed.
fn equal_parts(size: i64, n: i64, uneven: bool) -> Result<Vec<i64>> {
    ensure!(n >= 1, InvalidArgument, "a split into {n} parts");
    if size % n == 0 {
        return Ok(vec![size / n; n as usize]);
    }
    ensure!(uneven, InvalidArgument, "an axis of size {size} does not split into {n} equal parts");
    let part = size / n + 1;
    Ok((0..n).map(|i| part.min(size - i * part).max(0)).collect())
}

fn split(cx: &mut ImportCx<'_>, axis: i64, parts: Option<Vec<i64>>, n: i64, uneven: bool) -> Result<Vec<ValueId>> {
    let x = cx.input(0)?;
    ensure!(parts.is_some() || n >= cx.n_outputs as i64, InvalidArgument, "{} outputs for {n} parts", cx.n_outputs);
    let shape = cx.shape(x);
    let axis = shape.axis(axis)?;
    let size = shape[axis].as_const();
    let parts = match (parts, size) {
        (Some(parts), _) => parts,
        (None, Some(size)) => equal_parts(size, n, uneven)?,
        (None, None) => return split_symbolic(cx, x, axis, n, uneven),
    };
    ensure!(parts.iter().all(|p| *p >= 0), InvalidArgument, "the split {parts:?} has a negative part");
    let total = parts.iter().fold(0i64, |a, b| a.saturating_add(*b));
    ensure!(
        size.is_none_or(|s| s == total),
        InvalidArgument,
        "the split {parts:?} does not add up to {}, the size of axis {axis}",
        shape[axis]
    );
    ensure!(
        parts.len() >= cx.n_outputs,
        InvalidArgument,
        "{} outputs for a split into {} parts",
        cx.n_outputs,
        parts.len()
    );
    let axes = ints(cx, &[axis as i64]);
    let mut out = Vec::new();
    let mut at = 0;
    for part in parts {
        let (start, end) = (ints(cx, &[at]), ints(cx, &[at.saturating_add(part)]));
        out.push(cx.add(Slice {}, &[x, start, end, axes])?);
        at = at.saturating_add(part);
    }
    Ok(out)
}

/// Slices of axis `axis` between neighbours of `bounds`, which are vectors of one integer.
fn parts_between(cx: &mut ImportCx<'_>, x: ValueId, axis: usize, bounds: &[ValueId]) -> Result<Vec<ValueId>> {
    let axes = ints(cx, &[axis as i64]);
    bounds.windows(2).map(|b| cx.add(Slice {}, &[x, b[0], b[1], axes])).collect()
}

/// Equal parts of an axis whose size is known when the network runs. The last part takes what is left.
fn split_symbolic(cx: &mut ImportCx<'_>, x: ValueId, axis: usize, n: i64, uneven: bool) -> Result<Vec<ValueId>> {
    ensure!((1..=1 << 16).contains(&n), Unsupported, "a split of a symbolic axis into {n} parts");
    let mut range = Attrs::new();
    range.set("start", &(axis as i64));
    range.set("end", &(axis as i64 + 1));
    let size = cx.call1("Shape", 15, &range, &[x])?;
    let none = Attrs::new();
    let (count, more) = (ints(cx, &[n]), ints(cx, &[if uneven { n - 1 } else { 0 }]));
    let up = cx.call1("Add", 14, &none, &[size, more])?;
    let part = cx.call1("Div", 14, &none, &[up, count])?;
    let mut bounds = vec![ints(cx, &[0])];
    for i in 1..n {
        let i = ints(cx, &[i]);
        bounds.push(cx.call1("Mul", 14, &none, &[part, i])?);
    }
    bounds.push(if uneven { ints(cx, &[i64::MAX]) } else { size });
    parts_between(cx, x, axis, &bounds)
}

/// Parts whose sizes are an operand that is not known yet: the bounds are its running sums.
fn split_by_operand(cx: &mut ImportCx<'_>, axis: i64, sizes: ValueId) -> Result<Vec<ValueId>> {
    let x = cx.input(0)?;
    let axis = cx.shape(x).axis(axis)?;
    let f = cx.fact(sizes);
    let fits = f.rank() == 1 && f.shape[0].as_const().is_none_or(|n| n == cx.n_outputs as i64);
    ensure!(fits, InvalidArgument, "sizes {f} for {} outputs", cx.n_outputs);
    let mut bounds = vec![ints(cx, &[0])];
    for i in 0..cx.n_outputs as i64 {
        let at = ints(cx, &[i]);
        let size = cx.add(Gather { axis: 0 }, &[sizes, at])?;
        let end = cx.call1("Add", 14, &Attrs::new(), &[bounds[bounds.len() - 1], size])?;
        bounds.push(end);
    }
    parts_between(cx, x, axis, &bounds)
}

/// The operand with the sizes of the parts: its numbers, or the operand itself when they are not known.
fn sizes_operand(cx: &ImportCx<'_>) -> (Option<Vec<i64>>, Option<ValueId>) {
    match (cx.opt(1), cx.const_ints(1)) {
        (Some(_), Ok(numbers)) => (Some(numbers), None),
        (operand, _) => (None, operand),
    }
}

fn split_1(cx: &mut ImportCx<'_>) -> Result<Vec<ValueId>> {
    let axis = cx.int("axis", 0)?;
    let parts = match cx.ints("split")? {
        Some(p) => Some(p),
        None if cx.opt(1).is_some() => Some(cx.const_ints(1)?),
        None => None,
    };
    let n = cx.n_outputs as i64;
    split(cx, axis, parts, n, false)
}

fn split_2(cx: &mut ImportCx<'_>) -> Result<Vec<ValueId>> {
    let axis = cx.int("axis", 0)?;
    let parts = cx.ints("split")?;
    let n = cx.n_outputs as i64;
    split(cx, axis, parts, n, false)
}

fn split_13(cx: &mut ImportCx<'_>) -> Result<Vec<ValueId>> {
    let axis = cx.int("axis", 0)?;
    let (parts, operand) = sizes_operand(cx);
    if let Some(sizes) = operand {
        return split_by_operand(cx, axis, sizes);
    }
    let n = cx.n_outputs as i64;
    split(cx, axis, parts, n, false)
}

fn split_18(cx: &mut ImportCx<'_>) -> Result<Vec<ValueId>> {
    let axis = cx.int("axis", 0)?;
    let (parts, operand) = sizes_operand(cx);
    let given = cx.attrs.int("num_outputs")?;
    ensure!(
        (parts.is_none() && operand.is_none()) || given.is_none(),
        InvalidArgument,
        "both num_outputs and the sizes of the parts are given"
    );
    if let Some(sizes) = operand {
        return split_by_operand(cx, axis, sizes);
    }
    let n = given.unwrap_or(cx.n_outputs as i64);
    ensure!((1..=1 << 20).contains(&n), InvalidArgument, "attribute num_outputs: {n} is out of range");
    split(cx, axis, parts, n, true)
}
