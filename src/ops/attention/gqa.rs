//! Import of GroupQueryAttention of com.microsoft: packed or separate operands, rotary embedding, a cache that grows or
//! is a buffer of full length, batch entries of different lengths, a local window.

use super::contrib::scale;
use super::parts::*;
use super::{Attention, Causal, Scores};
use crate::base::{Attrs, DType, Result};
use crate::network::ValueId;
use crate::ops::ImportCx;
use crate::ops::cache_update::CacheUpdate;
use crate::ops::pointwise::Func;
use crate::ops::rotary::Rotary;
use crate::ops::slice::Slice;
use crate::{bail, ensure};

pub fn group_query(cx: &mut ImportCx<'_>) -> Result<Vec<ValueId>> {
    let (heads, kv_heads) = (cx.int("num_heads", 0)?, cx.int("kv_num_heads", 0)?);
    ensure!(
        kv_heads > 0 && heads > 0 && heads % kv_heads == 0,
        InvalidArgument,
        "num_heads {heads} and kv_num_heads {kv_heads} do not fit together"
    );
    refuse_quantized(cx)?;
    let causal = cx.flag("causal", true)?;
    let window = cx.int("local_window_size", -1)?;
    ensure!(window >= -1, InvalidArgument, "local_window_size is {window}");
    let (q, k, v) = operands(cx, heads, kv_heads)?;
    let (seqlens, total) = (cx.input(5)?, cx.input(6)?);
    let seqlens = reshape(cx, seqlens, &[-1])?;
    // Keys before the first query. The first prompt has none, whatever its padding is.
    let length = dim(cx, q, 1)?;
    let start = pointwise(cx, &[seqlens, total, length], |p| {
        let (len, total) = (p.push_cast(0, DType::I64)?, p.push_cast(1, DType::I64)?);
        let (zero, one) = (p.push_const(0.0, DType::I64)?, p.push_const(1.0, DType::I64)?);
        let is_prompt = p.push(Func::Equal, &[total, 2])?;
        let all = p.push(Func::Add, &[len, one])?;
        let before = p.push(Func::Sub, &[all, 2])?;
        let before = p.push(Func::Max, &[before, zero])?;
        p.push(Func::Select, &[is_prompt, zero, before])
    })?;
    let start = reshape(cx, start, &[-1])?;
    let lengths = pointwise(cx, &[seqlens], |p| {
        let (len, one) = (p.push_cast(0, DType::I64)?, p.push_const(1.0, DType::I64)?);
        p.push(Func::Add, &[len, one])
    })?;
    let (q, k) = normalized(cx, q, k, heads, kv_heads)?;
    let (q, k) = rotated(cx, q, k, heads, kv_heads, start, length)?;
    let (past_k, past_v) = (cx.opt(3), cx.opt(4));
    ensure!(past_k.is_some() == past_v.is_some(), InvalidArgument, "only one of past_key and past_value is given");
    let update = CacheUpdate { heads: kv_heads };
    let present_k = cx.add_opt(update.clone(), &[past_k, Some(k), Some(start), Some(total)])?;
    let present_v = cx.add_opt(update, &[past_v, Some(v), Some(start), Some(total)])?;
    let op = Attention {
        q_heads: heads,
        kv_heads,
        scale: scale(cx)?,
        softcap: cx.float("softcap", 0.0)?,
        causal: if causal { Causal::Exclude } else { Causal::No },
        window: window.max(0),
        pad_mask: true,
        smooth: cx.int("smooth_softmax", 0)? > 0,
        scores: match cx.int("qk_output", 0)? {
            _ if cx.n_outputs <= 3 => Scores::None,
            1 => Scores::Masked,
            2 => Scores::Softmax,
            mode => bail!(InvalidArgument, "attribute qk_output is {mode}, and scores are an output"),
        },
        ..Attention::plain()
    };
    let kind = op.scores;
    let (mask, sinks) = (cx.opt(10), cx.opt(11));
    let operands = [Some(q), Some(present_k), Some(present_v), mask, Some(lengths), Some(start), sinks];
    let out = cx.add_multi(op, &operands)?;
    let mut all = vec![out[0], present_k, present_v];
    if let Some(scores) = out.get(1) {
        // The cache may be longer than what is in it.
        let end = cast(cx, total, DType::I64)?;
        let (start, end, axis) = (ints(cx, &[0]), reshape(cx, end, &[1])?, ints(cx, &[3]));
        let mut scores = cx.add(Slice {}, &[*scores, start, end, axis])?;
        if kind == Scores::Masked {
            // Keys that take no part show 0.
            let t = dtype(cx, scores);
            scores = pointwise(cx, &[scores], |p| {
                let (none, zero) = (p.push_const(f64::NEG_INFINITY, t)?, p.push_const(0.0, t)?);
                let is_none = p.push(Func::Equal, &[0, none])?;
                p.push(Func::Select, &[is_none, zero, 0])
            })?;
        }
        all.push(scores);
    }
    Ok(all)
}

fn refuse_quantized(cx: &ImportCx<'_>) -> Result<()> {
    for name in ["k_quant_type", "v_quant_type"] {
        let kind = cx.string(name, "NONE")?;
        ensure!(kind == "NONE", Unsupported, "attribute {name} = {kind:?}: a quantized cache is not supported");
    }
    cx.int("kv_cache_bit_width", 0)?;
    ensure!(!cx.flag("sliding_window_cache", false)?, Unsupported, "attribute sliding_window_cache = 1 is not supported");
    ensure!(cx.opt(12).is_none() && cx.opt(13).is_none(), Unsupported, "a quantized cache is not supported");
    Ok(())
}

fn operands(cx: &mut ImportCx<'_>, heads: i64, kv_heads: i64) -> Result<(ValueId, ValueId, ValueId)> {
    let q = cx.input(0)?;
    let shape = cx.shape(q);
    ensure!(shape.rank() == 3, InvalidArgument, "query: expected rank 3, got {shape}");
    match (cx.opt(1), cx.opt(2)) {
        (Some(k), Some(v)) => Ok((q, k, v)),
        (None, None) => {
            let n = heads + 2 * kv_heads;
            let Some(size) = shape[2].as_const().filter(|d| d % n == 0).map(|d| d / n) else {
                bail!(InvalidArgument, "a packed query of shape {shape} does not divide into {n} heads")
            };
            let (a, b) = (heads * size, kv_heads * size);
            Ok((slice(cx, q, 2, 0, a)?, slice(cx, q, 2, a, a + b)?, slice(cx, q, 2, a + b, a + 2 * b)?))
        }
        _ => bail!(InvalidArgument, "only one of key and value is given"),
    }
}

/// Each head of q and k over its root mean square, when there are weights for it.
fn normalized(cx: &mut ImportCx<'_>, q: ValueId, k: ValueId, heads: i64, kv_heads: i64) -> Result<(ValueId, ValueId)> {
    let epsilon = cx.float("qk_norm_epsilon", 1e-6)?;
    let (Some(qw), Some(kw)) = (cx.opt(14), cx.opt(15)) else {
        ensure!(cx.opt(14).is_none() && cx.opt(15).is_none(), InvalidArgument, "only one of q_norm_weight and k_norm_weight");
        return Ok((q, k));
    };
    let mut out = [q, k];
    for (x, (n, w)) in out.iter_mut().zip([(heads, qw), (kv_heads, kw)]) {
        let split = reshape(cx, *x, &[0, 0, n, -1])?;
        let mut attrs = Attrs::new();
        attrs.set("axis", &-1i64);
        attrs.set("epsilon", &epsilon);
        let normed = cx.call1("RMSNormalization", 23, &attrs, &[split, w])?;
        *x = reshape(cx, normed, &[0, 0, -1])?;
    }
    Ok((out[0], out[1]))
}

fn rotated(
    cx: &mut ImportCx<'_>,
    q: ValueId,
    k: ValueId,
    heads: i64,
    kv_heads: i64,
    start: ValueId,
    length: ValueId,
) -> Result<(ValueId, ValueId)> {
    let interleaved = cx.flag("rotary_interleaved", false)?;
    if !cx.flag("do_rotary", false)? {
        return Ok((q, k));
    }
    let (cos, sin) = (cx.input(7)?, cx.input(8)?);
    let Some(half) = cx.shape(cos).last().and_then(|d| d.as_const()) else {
        bail!(Unsupported, "cos_cache of shape {}: the width is not known", cx.shape(cos))
    };
    let positions = match cx.opt(9) {
        Some(p) => p,
        None => {
            let at = count_to(cx, length)?;
            let start = unsqueeze(cx, start, &[1])?;
            add(cx, start, at)?
        }
    };
    let op = |heads| Rotary { interleaved, heads, dim: half.saturating_mul(2) };
    let q = cx.add(op(heads), &[q, cos, sin, positions])?;
    let k = cx.add(op(kv_heads), &[k, cos, sin, positions])?;
    Ok((q, k))
}
