//! ONNX import of Scan. Scanned axes other than the first are transposed in front and behind; the batch of opset 8 is
//! unrolled.

use super::Scan;
use crate::base::{Fact, Result, Shape, Tensor};
use crate::network::ValueId;
use crate::ops::loop_op::settle;
use crate::ops::{ImportCx, ImportValue};
use crate::{bail, ensure};
use std::sync::Arc;

/// The axis moved to the front, or back from there.
fn move_axis(cx: &mut ImportCx<'_>, v: ValueId, axis: i64, to_front: bool) -> Result<ValueId> {
    let shape = cx.shape(v);
    let axis = shape.axis(axis)?;
    if axis == 0 {
        return Ok(v);
    }
    let mut perm: Vec<i64> = (0..shape.rank() as i64).collect();
    let (from, to) = if to_front { (axis, 0) } else { (0, axis) };
    let moved = perm.remove(from);
    perm.insert(to, moved);
    cx.add(crate::ops::transpose::Transpose { perm }, &[v])
}

/// A list of 0 and 1, one for each of `n` values; absent means all 0.
fn directions(cx: &ImportCx<'_>, name: &str, n: usize) -> Result<Vec<i64>> {
    let list = cx.ints(name)?.unwrap_or_else(|| vec![0; n]);
    ensure!(
        list.len() == n && list.iter().all(|d| matches!(d, 0 | 1)),
        InvalidArgument,
        "attribute {name}: expected {n} times 0 or 1, got {list:?}"
    );
    Ok(list)
}

fn operands(cx: &ImportCx<'_>, from: usize) -> Result<Vec<ValueId>> {
    (from..cx.inputs.len()).map(|i| cx.input(i)).collect()
}

fn n_scan_inputs(cx: &ImportCx<'_>, n_operands: usize) -> Result<usize> {
    let n = cx.int("num_scan_inputs", 0)?;
    ensure!(n >= 1 && n as usize <= n_operands, InvalidArgument, "num_scan_inputs is {n} for {n_operands} operands");
    Ok(n as usize)
}

/// One scan over operands whose scanned axis is the first; gives the final state and the scanned outputs.
fn scan(cx: &mut ImportCx<'_>, operands: &[ValueId], n_scan: usize, dirs: (Vec<i64>, Vec<i64>)) -> Result<Vec<ValueId>> {
    let n_state = operands.len() - n_scan;
    let facts: Vec<Fact> = operands.iter().map(|v| cx.fact(*v)).collect();
    let state: Vec<Fact> = facts[..n_state].iter().map(|f| Fact::new(f.dtype, f.shape.clone())).collect();
    let mut slices = Vec::new();
    for f in &facts[n_state..] {
        ensure!(f.rank() > 0, InvalidArgument, "a scanned input has no axes");
        slices.push(Fact::new(f.dtype, Shape(f.shape[1..].to_vec())));
    }
    let body = settle(cx, "body", &[], state, &slices, 0)?;
    let mut inputs: Vec<_> = operands.iter().map(|v| Some(*v)).collect();
    inputs.extend(body.captures.iter().map(|v| Some(*v)));
    cx.add_multi(Scan { body: Arc::new(body.graph), n_state, reverse_in: dirs.0, reverse_out: dirs.1 }, &inputs)
}

pub fn import_9(cx: &mut ImportCx<'_>) -> Result<Vec<ImportValue>> {
    cx.attrs.ignore("body");
    let mut values = operands(cx, 0)?;
    let n_scan = n_scan_inputs(cx, values.len())?;
    let n_state = values.len() - n_scan;
    let (_, n_out) = cx.body_arity("body")?;
    ensure!(n_out >= n_state, InvalidArgument, "the body has {n_out} outputs for {n_state} carried values");
    let n_scanned = n_out - n_state;
    let dirs = (directions(cx, "scan_input_directions", n_scan)?, directions(cx, "scan_output_directions", n_scanned)?);
    let axes_in = cx.ints("scan_input_axes")?.unwrap_or_else(|| vec![0; n_scan]);
    let axes_out = cx.ints("scan_output_axes")?.unwrap_or_else(|| vec![0; n_scanned]);
    ensure!(axes_in.len() == n_scan && axes_out.len() == n_scanned, InvalidArgument, "one axis for each scanned value");
    for (v, axis) in values[n_state..].iter_mut().zip(&axes_in) {
        *v = move_axis(cx, *v, *axis, true)?;
    }
    let mut out = scan(cx, &values, n_scan, dirs)?;
    for (v, axis) in out[n_state..].iter_mut().zip(&axes_out) {
        *v = move_axis(cx, *v, *axis, false)?;
    }
    Ok(out.into_iter().map(ImportValue::Tensor).collect())
}

/// Opset 8: every operand has a batch axis in front, and there may be lengths.
pub fn import_8(cx: &mut ImportCx<'_>) -> Result<Vec<ImportValue>> {
    cx.attrs.ignore("body");
    ensure!(cx.opt(0).is_none(), Unsupported, "sequence_lens of Scan at opset 8 is not supported");
    let values = operands(cx, 1)?;
    let n_scan = n_scan_inputs(cx, values.len())?;
    let n_state = values.len() - n_scan;
    let (_, n_out) = cx.body_arity("body")?;
    ensure!(n_out >= n_state, InvalidArgument, "the body has {n_out} outputs for {n_state} carried values");
    let dirs = directions(cx, "directions", n_scan)?;
    let batch = values.first().and_then(|v| cx.shape(*v).first().and_then(|d| d.as_const()));
    let Some(batch @ 1..=256) = batch else {
        bail!(Unsupported, "Scan at opset 8 needs a constant batch of 1 to 256");
    };
    let mut parts: Vec<Vec<ImportValue>> = vec![Vec::new(); n_out];
    for b in 0..batch {
        let index = cx.constant(Tensor::scalar(b));
        let mut one = Vec::new();
        for v in &values {
            one.push(cx.add(crate::ops::gather::Gather { axis: 0 }, &[*v, index])?);
        }
        let out = scan(cx, &one, n_scan, (dirs.clone(), vec![0; n_out - n_state]))?;
        parts.iter_mut().zip(out).for_each(|(p, v)| p.push(ImportValue::Tensor(v)));
    }
    parts.iter().map(|p| crate::ops::sequence::concat(cx, p, 0, true).map(ImportValue::Tensor)).collect()
}
