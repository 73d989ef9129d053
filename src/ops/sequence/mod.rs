//! Sequences and optionals of ONNX. They exist while a model is imported only: a sequence is a list of values of the
//! graph, and its operators rearrange the list. So its length, and every position in it, must be known then.

use crate::base::{AttrValue, Attrs, Result, Tensor};
use crate::network::ValueId;
use crate::ops::{ImportCx, ImportValue, StructuralOp, structural};
use crate::{bail, ensure, err};

/// The most elements that a sequence may have.
const MAX_LENGTH: usize = 4096;

pub const STRUCTURAL: &[StructuralOp] = &[
    structural("SequenceEmpty", 11, empty),
    structural("SequenceConstruct", 11, construct),
    structural("SequenceInsert", 11, insert),
    structural("SequenceErase", 11, erase),
    structural("SequenceAt", 11, at),
    structural("SequenceLength", 11, length),
    structural("SplitToSequence", 11, split),
    structural("ConcatFromSequence", 11, concat_from),
    structural("SequenceMap", 17, map),
    structural("Optional", 15, optional),
    structural("OptionalHasElement", 15, has_element),
    structural("OptionalGetElement", 15, get_element),
];

type Imported = Result<Vec<ImportValue>>;

fn attrs<const N: usize>(list: [(&str, AttrValue); N]) -> Attrs {
    Attrs(list.into_iter().map(|(k, v)| (k.to_string(), v)).collect())
}

/// Operand `i` as a list.
fn list(cx: &ImportCx<'_>, i: usize) -> Result<Vec<ImportValue>> {
    match cx.value(i) {
        Some(ImportValue::Sequence(s)) => Ok(s),
        Some(ImportValue::Optional(Some(v))) => match *v {
            ImportValue::Sequence(s) => Ok(s),
            _ => Err(err!(InvalidArgument, "input {i} is an optional tensor, not a sequence")),
        },
        Some(_) => Err(err!(InvalidArgument, "input {i} is not a sequence")),
        None => Err(err!(InvalidArgument, "input {i} is missing")),
    }
}

/// Joins tensors along an axis, a new one when asked.
pub fn concat(cx: &mut ImportCx<'_>, values: &[ImportValue], axis: i64, new_axis: bool) -> Result<ValueId> {
    let mut parts = Vec::new();
    for v in values {
        let ImportValue::Tensor(v) = v else { bail!(InvalidArgument, "an element of the sequence is no tensor") };
        parts.push(*v);
    }
    ensure!(!parts.is_empty(), Unsupported, "an empty sequence has nothing to join");
    if new_axis {
        let axes = cx.constant(Tensor::from_slice(&[1], &[axis]));
        for p in &mut parts {
            *p = cx.call1("Unsqueeze", 13, &Attrs::new(), &[*p, axes])?;
        }
    }
    match parts.as_slice() {
        [one] => Ok(*one),
        many => cx.call1("Concat", 13, &attrs([("axis", AttrValue::Int(axis))]), &many.to_vec()),
    }
}

/// The position that operand `i` names, counted from the end when negative; `None` when the operand is absent.
fn position(cx: &ImportCx<'_>, i: usize, len: usize, end: bool) -> Result<Option<usize>> {
    let Some(v) = cx.opt(i) else { return Ok(None) };
    let t = cx.graph.const_value(v);
    let t = t.ok_or_else(|| err!(Unsupported, "the position in a sequence (input {i}) must be a constant"))?;
    let p = t.to_i64s().first().copied().unwrap_or(0);
    let last = len as i64 - (!end) as i64;
    ensure!((-(len as i64)..=last).contains(&p), InvalidArgument, "position {p} in a sequence of {len}");
    Ok(Some((if p < 0 { p + len as i64 } else { p }) as usize))
}

fn empty(cx: &mut ImportCx<'_>) -> Imported {
    cx.attrs.ignore("dtype");
    Ok(vec![ImportValue::Sequence(vec![])])
}

fn construct(cx: &mut ImportCx<'_>) -> Imported {
    let values = (0..cx.inputs.len()).map(|i| cx.value(i).ok_or_else(|| err!(InvalidArgument, "input {i} is missing")));
    Ok(vec![ImportValue::Sequence(values.collect::<Result<_>>()?)])
}

fn insert(cx: &mut ImportCx<'_>) -> Imported {
    let mut s = list(cx, 0)?;
    ensure!(s.len() < MAX_LENGTH, Unsupported, "a sequence of more than {MAX_LENGTH} elements");
    let v = cx.value(1).ok_or_else(|| err!(InvalidArgument, "input 1 is missing"))?;
    let at = position(cx, 2, s.len(), true)?.unwrap_or(s.len());
    s.insert(at, v);
    Ok(vec![ImportValue::Sequence(s)])
}

fn erase(cx: &mut ImportCx<'_>) -> Imported {
    let mut s = list(cx, 0)?;
    ensure!(!s.is_empty(), InvalidArgument, "the sequence is empty");
    let at = position(cx, 1, s.len(), false)?.unwrap_or(s.len() - 1);
    s.remove(at);
    Ok(vec![ImportValue::Sequence(s)])
}

fn at(cx: &mut ImportCx<'_>) -> Imported {
    let s = list(cx, 0)?;
    let at = position(cx, 1, s.len(), false)?.ok_or_else(|| err!(InvalidArgument, "input 1 is missing"))?;
    Ok(vec![s[at].clone()])
}

fn length(cx: &mut ImportCx<'_>) -> Imported {
    let n = list(cx, 0)?.len() as i64;
    Ok(vec![ImportValue::Tensor(cx.constant(Tensor::scalar(n)))])
}

fn split(cx: &mut ImportCx<'_>) -> Imported {
    let x = cx.input(0)?;
    let axis = cx.int("axis", 0)?;
    let keep = cx.flag("keepdims", true)?;
    let shape = cx.shape(x);
    let n = shape[shape.axis(axis)?].as_const();
    let n = n.ok_or_else(|| err!(Unsupported, "the axis that is split must have a constant dimension"))?;
    let (sizes, squeeze) = match cx.opt(1) {
        None => (vec![1; n as usize], !keep),
        Some(v) => {
            let scalar = cx.fact(v).rank() == 0;
            let sizes = cx.const_ints(1)?;
            match (scalar, sizes.as_slice()) {
                (true, [k]) if *k > 0 => ((0..n).step_by(*k as usize).map(|at| (*k).min(n - at)).collect(), false),
                (false, s) => (s.to_vec(), false),
                _ => bail!(InvalidArgument, "split is {sizes:?}"),
            }
        }
    };
    ensure!(sizes.len() <= MAX_LENGTH, Unsupported, "a sequence of {} elements", sizes.len());
    ensure!(
        sizes.iter().all(|s| *s >= 0) && sizes.iter().sum::<i64>() == n,
        InvalidArgument,
        "split {sizes:?} does not add up to {n}"
    );
    let mut out = Vec::new();
    let one = |cx: &mut ImportCx<'_>, v: i64| cx.constant(Tensor::from_slice(&[1], &[v]));
    let axes = one(cx, axis);
    let mut from = 0;
    for s in sizes {
        let (start, end) = (one(cx, from), one(cx, from + s));
        let mut v = cx.call1("Slice", 13, &Attrs::new(), &[x, start, end, axes])?;
        if squeeze {
            v = cx.call1("Squeeze", 13, &Attrs::new(), &[v, axes])?;
        }
        out.push(ImportValue::Tensor(v));
        from += s;
    }
    Ok(vec![ImportValue::Sequence(out)])
}

fn concat_from(cx: &mut ImportCx<'_>) -> Imported {
    let s = list(cx, 0)?;
    let axis = cx.attrs.int("axis")?.ok_or_else(|| err!(InvalidArgument, "attribute axis is missing"))?;
    let new_axis = cx.flag("new_axis", false)?;
    Ok(vec![ImportValue::Tensor(concat(cx, &s, axis, new_axis)?)])
}

fn map(cx: &mut ImportCx<'_>) -> Imported {
    cx.attrs.ignore("body");
    let n = list(cx, 0)?.len();
    let (_, n_out) = cx.body_arity("body")?;
    let mut out = vec![Vec::new(); n_out];
    for k in 0..n {
        let mut inputs = Vec::new();
        for i in 0..cx.inputs.len() {
            inputs.push(match cx.value(i) {
                Some(ImportValue::Sequence(s)) => {
                    s.get(k).cloned().ok_or_else(|| err!(InvalidArgument, "input {i} has {} elements, not {n}", s.len()))?
                }
                Some(v) => v,
                None => bail!(InvalidArgument, "input {i} is missing"),
            });
        }
        let results = cx.inline("body", &inputs)?;
        out.iter_mut().zip(results).for_each(|(o, r)| o.push(r));
    }
    Ok(out.into_iter().map(ImportValue::Sequence).collect())
}

fn optional(cx: &mut ImportCx<'_>) -> Imported {
    cx.attrs.ignore("type");
    Ok(vec![ImportValue::Optional(cx.value(0).map(Box::new))])
}

fn has_element(cx: &mut ImportCx<'_>) -> Imported {
    let has = !matches!(cx.value(0), None | Some(ImportValue::Optional(None)));
    Ok(vec![ImportValue::Tensor(cx.constant(Tensor::scalar(has)))])
}

fn get_element(cx: &mut ImportCx<'_>) -> Imported {
    match cx.value(0) {
        Some(ImportValue::Optional(Some(v))) => Ok(vec![*v]),
        Some(ImportValue::Optional(None)) | None => Err(err!(InvalidArgument, "the optional is empty")),
        Some(v) => Ok(vec![v]),
    }
}
