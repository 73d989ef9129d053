//! ONNX import of Loop: a graph of its own whose state has the shapes that hold in every turn; unrolled where the state
//! is a sequence.

use super::{Loop, TURN};
use crate::base::{DType, Fact, Result, Shape, Tensor};
use crate::ops::branch::condition_of;
use crate::ops::{Body, ImportCx, ImportValue, fresh_dim};
use crate::{bail, ensure, err};
use std::sync::Arc;

/// The most turns that are unrolled.
const MAX_UNROLLED: i64 = 1024;

pub fn import(cx: &mut ImportCx<'_>) -> Result<Vec<ImportValue>> {
    cx.attrs.ignore("body");
    let n_in = cx.inputs.len().max(2);
    let state: Vec<ImportValue> = (2..n_in)
        .map(|i| cx.value(i).ok_or_else(|| err!(InvalidArgument, "state {} is missing", i - 2)))
        .collect::<Result<_>>()?;
    let (n_formal, n_out) = cx.body_arity("body")?;
    ensure!(
        n_formal == 2 + state.len() && n_out > state.len(),
        InvalidArgument,
        "the body has {n_formal} inputs and {n_out} outputs for {} carried values",
        state.len()
    );
    let tensors: Option<Vec<_>> =
        state.iter().map(|v| if let ImportValue::Tensor(v) = v { Some(*v) } else { None }).collect();
    let Some(tensors) = tensors else { return unroll(cx, state) };
    let facts: Vec<Fact> = tensors.iter().map(|v| cx.fact(*v)).collect();
    let lead = [Fact::new(DType::I64, Shape(vec![])), Fact::new(DType::Bool, Shape(vec![]))];
    let body = settle(cx, "body", &lead, facts, &[], 1)?;
    let mut inputs = vec![cx.opt(0), cx.opt(1)];
    for (slot, dtype) in [(0, DType::I64), (1, DType::Bool)] {
        if let Some(v) = inputs[slot] {
            let f = cx.fact(v);
            ensure!(f.dtype == dtype, InvalidArgument, "input {slot} is {f}, not {dtype}");
        }
    }
    inputs.extend(tensors.iter().chain(&body.captures).map(|v| Some(*v)));
    let op = Loop { n_state: tensors.len(), body: Arc::new(body.graph) };
    Ok(cx.add_multi(op, &inputs)?.into_iter().map(ImportValue::Tensor).collect())
}

/// Imports a body whose carried values keep their shapes: a dimension that a turn changes becomes unknown, until the
/// body gives what it takes. `first` is the output that state starts at.
pub(crate) fn settle(
    cx: &mut ImportCx<'_>,
    attr: &str,
    lead: &[Fact],
    mut state: Vec<Fact>,
    rest: &[Fact],
    first: usize,
) -> Result<Body> {
    // Each round makes at least one dimension unknown, so there are few.
    let rounds = 2 + state.iter().map(|f| f.rank()).sum::<usize>();
    for _ in 0..rounds {
        let inputs: Vec<Fact> = lead.iter().chain(&state).chain(rest).cloned().collect();
        let body = cx.body(attr, &inputs)?;
        let mut changed = false;
        for (i, s) in state.iter_mut().enumerate() {
            let out = body.graph.outputs().get(first + i).ok_or_else(|| err!(InvalidArgument, "state {i} has no output"))?;
            let f = body.graph.fact(out.value);
            ensure!(
                f.dtype == s.dtype && f.rank() == s.rank(),
                Unsupported,
                "the body turns carried value {i} from {s} into {f}; element type and rank must stay"
            );
            for (d, e) in s.shape.0.iter_mut().zip(f.shape.iter()) {
                let free = d.as_sym().is_some_and(|s| s.starts_with(&format!("?{TURN}")));
                if d != e && !free {
                    *d = fresh_dim(TURN);
                    changed = true;
                }
            }
        }
        if !changed {
            return Ok(body);
        }
    }
    bail!(Unsupported, "the shapes of carried values do not settle")
}

/// The number of turns must be known: each becomes a copy of the body.
fn unroll(cx: &mut ImportCx<'_>, mut state: Vec<ImportValue>) -> Result<Vec<ImportValue>> {
    let known = |cx: &ImportCx<'_>, i: usize| cx.opt(i).map(|v| cx.graph.const_value(v));
    let trips = match known(cx, 0) {
        None => MAX_UNROLLED,
        Some(Some(t)) => t.to_i64s().first().copied().unwrap_or(0),
        Some(None) => bail!(Unsupported, "a loop that carries a sequence needs a constant trip count"),
    };
    ensure!(trips <= MAX_UNROLLED, Unsupported, "a loop that carries a sequence has {trips} turns, at most {MAX_UNROLLED}");
    let mut go = match known(cx, 1) {
        None => true,
        Some(Some(t)) => condition_of(&t)?,
        Some(None) => bail!(Unsupported, "a loop that carries a sequence needs a constant condition"),
    };
    let mut scanned: Vec<Vec<ImportValue>> = Vec::new();
    let mut turn = 0i64;
    while go && turn < trips {
        let lead = [cx.constant(Tensor::scalar(turn)), cx.constant(Tensor::scalar(true))];
        let mut inputs: Vec<ImportValue> = lead.into_iter().map(ImportValue::Tensor).collect();
        inputs.extend(state.iter().cloned());
        let mut out = cx.inline("body", &inputs)?;
        let rest = out.split_off(1 + state.len());
        state = out.split_off(1);
        let condition = match out.as_slice() {
            [ImportValue::Tensor(v)] => cx.graph.const_value(*v),
            _ => None,
        };
        go = condition_of(condition.as_deref().ok_or_else(|| {
            err!(Unsupported, "a loop that carries a sequence needs a condition that does not depend on the data")
        })?)?;
        scanned.push(rest);
        turn += 1;
    }
    let n = scanned.first().map_or(0, |s| s.len());
    for k in 0..n {
        let turns: Vec<ImportValue> = scanned.iter().map(|s| s[k].clone()).collect();
        state.push(ImportValue::Tensor(crate::ops::sequence::concat(cx, &turns, 0, true)?));
    }
    Ok(state)
}
