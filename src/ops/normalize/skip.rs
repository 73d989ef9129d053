//! Import of the com.microsoft forms that normalize a sum: behind a residual connection, and of embeddings.

use super::{Affine, Normalize};
use crate::base::{DType, Result, Tensor};
use crate::network::ValueId;
use crate::ops::ImportCx;
use crate::ops::compose::{binary, cast, pointwise, reduce, size_of, squeeze};
use crate::ops::fill::Fill;
use crate::ops::gather::Gather;
use crate::ops::pointwise::Func;
use crate::ops::range::Range;
use crate::ops::reduce::ReduceKind;
use crate::{bail, ensure};
use std::sync::Arc;

/// Epsilon of these operators where the model gives none.
const EPSILON: f32 = 1e-12;

fn row_norm(centered: bool, epsilon: f32) -> Normalize {
    Normalize { axis: -1, groups: 0, affine: Affine::Row, centered, epsilon, stats: false, sum: false }
}

/// SkipLayerNormalization (input, skip, gamma, beta, bias) and its simplified form (input, skip, gamma, bias). Outputs: y,
/// mean, inverse deviation, sum.
pub(super) fn skip_layer(cx: &mut ImportCx<'_>) -> Result<Vec<ValueId>> {
    let centered = cx.op_type == "SkipLayerNormalization";
    let (x, skip, gamma) = (cx.input(0)?, cx.input(1)?, cx.input(2)?);
    let (beta, bias) = if centered { (cx.opt(3), cx.opt(4)) } else { (None, cx.opt(3)) };
    let mut op = row_norm(centered, cx.float("epsilon", EPSILON)?);
    op.stats = cx.n_outputs > 1;
    op.sum = cx.n_outputs > 3;
    let (xs, ss) = (cx.shape(x), cx.shape(skip));
    ensure!(xs.rank() >= 1 && ss.rank() <= xs.rank(), InvalidArgument, "skip {ss} does not broadcast to input {xs}");
    let mut out = match xs == ss {
        true => cx.add_multi(op, &[Some(x), Some(gamma), beta, Some(skip), bias])?,
        false => {
            // A skip that is shared by the batch is added first.
            let sum = binary(cx, Func::Add, x, skip)?;
            cx.add_multi(op, &[Some(sum), Some(gamma), beta, None, bias])?
        }
    };
    for i in 1..out.len().min(3) {
        out[i] = cast(cx, out[i], DType::F32)?;
    }
    Ok(out)
}

/// EmbedLayerNormalization (input_ids, segment_ids, word, position, segment embeddings, gamma, beta, mask, position_ids).
/// Outputs: y, the number of tokens that the mask keeps in each row, and the sum that was normalized.
pub(super) fn embed_layer(cx: &mut ImportCx<'_>) -> Result<Vec<ValueId>> {
    let (ids, segments) = (cx.input(0)?, cx.opt(1));
    let (word, position, gamma, beta) = (cx.input(2)?, cx.input(3)?, cx.input(5)?, cx.input(6)?);
    let (mask, position_ids) = (cx.opt(7), cx.opt(8));
    let op = row_norm(true, cx.float("epsilon", EPSILON)?);
    let mask_type = cx.int("mask_index_type", if mask.is_some() { 1 } else { 0 })?;
    ensure!(matches!(mask_type, 0 | 1), Unsupported, "attribute mask_index_type: expected 0 or 1, got {mask_type}");
    ensure!(cx.shape(ids).rank() == 2, InvalidArgument, "input_ids: expected rank 2, got {}", cx.shape(ids));
    let mut sum = cx.add(Gather { axis: 0 }, &[word, ids])?;
    let places = match position_ids {
        Some(v) => v,
        None => {
            let length = size_of(cx, ids, 1)?;
            let length = squeeze(cx, length, &[0])?;
            let (zero, one) = (cx.constant(Tensor::scalar(0i64)), cx.constant(Tensor::scalar(1i64)));
            cx.add(Range {}, &[zero, length, one])?
        }
    };
    let positions = cx.add(Gather { axis: 0 }, &[position, places])?;
    sum = binary(cx, Func::Add, sum, positions)?;
    match (segments, cx.opt(4)) {
        (Some(ids), Some(table)) => {
            let parts = cx.add(Gather { axis: 0 }, &[table, ids])?;
            sum = binary(cx, Func::Add, sum, parts)?;
        }
        (None, None) => {}
        _ => bail!(InvalidArgument, "segment_ids and segment_embedding come together"),
    }
    let y = cx.add(op, &[sum, gamma, beta])?;
    if cx.n_outputs < 2 {
        return Ok(vec![y]);
    }
    let counts = match mask {
        Some(mask) => {
            let t = cx.fact(mask).dtype;
            let kept = pointwise(cx, &[mask], |p| {
                let zero = p.push_const(0.0, t)?;
                let is_zero = p.push(Func::Equal, &[0, zero])?;
                let kept = p.push(Func::Not, &[is_zero])?;
                p.push_cast(kept, DType::I32)
            })?;
            reduce(cx, ReduceKind::Sum, kept, &[1], false)?
        }
        None => {
            let batch = size_of(cx, ids, 0)?;
            cx.add(Fill { value: Arc::new(Tensor::scalar(0i32)) }, &[batch])?
        }
    };
    Ok(vec![y, counts, sum])
}
