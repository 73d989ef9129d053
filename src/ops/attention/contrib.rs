//! Import of Attention, MultiHeadAttention and DecoderMaskedMultiHeadAttention of com.microsoft.
//!
//! Masks become numbers that are added to the scores, as the operators define them: a key that is masked gets
//! `mask_filter_value`, not -inf, so that a query all of whose keys are masked still has weights.

use super::parts::*;
use super::{Attention, Causal, Scores};
use crate::base::{DType, Dim, Result};
use crate::network::ValueId;
use crate::ops::ImportCx;
use crate::ops::cache_update::CacheUpdate;
use crate::ops::expand::Expand;
use crate::ops::matmul::MatMul;
use crate::ops::pointwise::Func;
use crate::{bail, ensure};

/// Scale as these operators give it: 0 or absent is the default.
pub(super) fn scale(cx: &ImportCx<'_>) -> Result<Option<f32>> {
    Ok(cx.attrs.float("scale")?.filter(|s| *s != 0.0))
}

fn heads(cx: &ImportCx<'_>) -> Result<i64> {
    let n = cx.int("num_heads", 0)?;
    ensure!(n > 0, InvalidArgument, "attribute num_heads is {n}");
    Ok(n)
}

/// Three operands in the forms that the home takes, k and v without their past.
struct Parts {
    q: ValueId,
    k: ValueId,
    v: ValueId,
}

struct Request {
    heads: i64,
    causal: bool,
    mask: Option<ValueId>,
    bias: Option<ValueId>,
    past: Option<(ValueId, ValueId)>,
    /// How much of the past is filled, where it is a buffer that has room for the new rows.
    filled: Option<ValueId>,
    /// Keys and values are wanted as outputs.
    present: bool,
    scores: Scores,
}

/// What masked keys get.
fn filter(cx: &ImportCx<'_>) -> Result<f64> {
    Ok((cx.float("mask_filter_value", -10000.0)? as f64).max(f32::MIN as f64))
}

/// The mask as numbers of type `t`, of a shape that broadcasts to [batch, heads, queries, keys]. `k` is the operand that
/// has all keys.
fn additive_mask(cx: &mut ImportCx<'_>, mask: ValueId, q: ValueId, k: ValueId, t: DType) -> Result<ValueId> {
    let value = filter(cx)?;
    let shape = cx.shape(mask);
    let batch = cx.shape(q)[0].clone();
    if shape.rank() != 1 {
        let axes: &[i64] = match shape.rank() {
            2 => &[1, 2],
            3 => &[1],
            _ => bail!(Unsupported, "a mask of shape {shape} is not supported"),
        };
        let mask = unsqueeze(cx, mask, axes)?;
        return pointwise(cx, &[mask], |p| {
            let zero = p.push_const(0.0, p.inputs[0])?;
            let taken = p.push(Func::Greater, &[0, zero])?;
            let (none, value) = (p.push_const(0.0, t)?, p.push_const(value, t)?);
            p.push(Func::Select, &[taken, none, value])
        });
    }
    // Ends of all batch entries, then perhaps their starts.
    let n = &shape[0];
    let packed = &(&batch * 3) + 2;
    let both = *n == &batch * 2;
    ensure!(
        *n == batch || both || ((n.as_const().is_none() || batch.as_const().is_none()) && *n != packed),
        Unsupported,
        "a mask of {n} lengths for a batch of {batch} is not supported"
    );
    let ends = if both { half_of(cx, mask, 0, &batch)? } else { mask };
    let ends = unsqueeze(cx, ends, &[1, 2, 3])?;
    let length = dim(cx, k, if rank(cx, k) == 3 { 1 } else { 2 })?;
    let at = count_to(cx, length)?;
    let mut inputs = vec![at, ends];
    if both {
        let starts = half_of(cx, mask, 1, &batch)?;
        inputs.push(unsqueeze(cx, starts, &[1, 2, 3])?);
    }
    pointwise(cx, &inputs, |p| {
        let end = p.push_cast(1, DType::I64)?;
        let mut taken = p.push(Func::Less, &[0, end])?;
        if both {
            let start = p.push_cast(2, DType::I64)?;
            let from = p.push(Func::GreaterEqual, &[0, start])?;
            taken = p.push(Func::And, &[taken, from])?;
        }
        let (none, value) = (p.push_const(0.0, t)?, p.push_const(value, t)?);
        p.push(Func::Select, &[taken, none, value])
    })
}

/// The first or second `batch` numbers of a vector of twice as many.
fn half_of(cx: &mut ImportCx<'_>, v: ValueId, which: i64, batch: &Dim) -> Result<ValueId> {
    let halves = match batch.as_const() {
        Some(b) => reshape(cx, v, &[2, b])?,
        None => reshape(cx, v, &[2, -1])?,
    };
    pick(cx, halves, 0, which)
}

/// The common end: past, mask and bias, and the node itself. Gives the output, then keys and values, then the scores.
fn finish(cx: &mut ImportCx<'_>, parts: Parts, r: Request) -> Result<Vec<ValueId>> {
    let Parts { q, mut k, mut v } = parts;
    filter(cx)?; // It may be given where there is no mask.
    if r.past.is_some() || r.present {
        for x in [&mut k, &mut v] {
            if rank(cx, *x) == 3 {
                *x = split_heads(cx, *x, r.heads)?;
            }
        }
    }
    let (mut offset, mut lengths) = (None, None);
    if let (Some((past_k, past_v)), Some(filled)) = (r.past, r.filled) {
        let n_new = dim(cx, k, 2)?;
        let (start, none) = (reshape(cx, filled, &[1])?, ints(cx, &[0]));
        let update = CacheUpdate { heads: r.heads };
        k = cx.add(update.clone(), &[past_k, k, start, none])?;
        v = cx.add(update, &[past_v, v, start, none])?;
        let batch = dim(cx, q, 0)?;
        // As many lengths as batch entries: all the same.
        lengths = Some(pointwise(cx, &[start, n_new], |p| {
            let start = p.push_cast(0, DType::I64)?;
            p.push(Func::Add, &[start, 1])
        })?);
        lengths = lengths.map(|n| cx.add(Expand {}, &[n, batch])).transpose()?;
        offset = Some(start);
    } else if let Some((past_k, past_v)) = r.past {
        k = concat(cx, 2, &[past_k, k])?;
        v = concat(cx, 2, &[past_v, v])?;
        offset = Some(dim(cx, past_k, 2)?).filter(|_| r.causal);
    }
    // Half types do not hold what masks add.
    let t = if dtype(cx, q) == DType::F64 { DType::F64 } else { DType::F32 };
    let mut mask = r.mask.map(|m| additive_mask(cx, m, q, k, t)).transpose()?;
    if let Some(bias) = r.bias {
        ensure!(rank(cx, bias) == 4, InvalidArgument, "attention_bias: expected rank 4, got {}", cx.shape(bias));
        mask = Some(match mask {
            Some(m) => {
                let bias = cast(cx, bias, t)?;
                add(cx, m, bias)?
            }
            None => bias,
        });
    }
    let causal = match (r.causal, r.mask) {
        (false, _) => Causal::No,
        // Only where a mask may take every key of a query, or where scores are shown, do the later ones count.
        (true, None) if r.scores == Scores::None => Causal::Exclude,
        (true, _) => Causal::Lowest,
    };
    let op = Attention {
        q_heads: r.heads,
        kv_heads: r.heads,
        scale: scale(cx)?,
        causal,
        pad_mask: r.filled.is_some() && causal != Causal::Lowest,
        scores: r.scores,
        ..Attention::plain()
    };
    let out = cx.add_multi(op, &[Some(q), Some(k), Some(v), mask, lengths, offset])?;
    let mut all = vec![out[0], k, v];
    all.extend(out.get(1));
    Ok(all)
}

/// The three parts of a row of q, k and v side by side, of these widths.
fn unpack(cx: &mut ImportCx<'_>, x: ValueId, axis: i64, widths: [i64; 3]) -> Result<[ValueId; 3]> {
    let [a, b, c] = widths;
    let (ab, abc) = (a.saturating_add(b), a.saturating_add(b).saturating_add(c));
    Ok([slice(cx, x, axis, 0, a)?, slice(cx, x, axis, a, ab)?, slice(cx, x, axis, ab, abc)?])
}

/// Attention: the products with the weights of q, k and v come first, as one.
pub fn attention(cx: &mut ImportCx<'_>) -> Result<Vec<ValueId>> {
    let (x, w, bias) = (cx.input(0)?, cx.input(1)?, cx.opt(2));
    let heads = heads(cx)?;
    ensure!(!cx.flag("do_rotary", false)?, Unsupported, "attribute do_rotary = 1 is not supported");
    cx.int("rotary_embedding_dim", 0)?;
    ensure!(
        !cx.flag("past_present_share_buffer", false)? && cx.opt(6).is_none(),
        Unsupported,
        "attribute past_present_share_buffer = 1 is not supported"
    );
    let shape = cx.shape(w);
    ensure!(rank(cx, x) == 3 && shape.rank() == 2, InvalidArgument, "expected an input of rank 3 and a matrix of weights");
    let Some(n) = shape[1].as_const() else { bail!(Unsupported, "weights of shape {shape}: the width is not known") };
    let widths = match cx.ints("qkv_hidden_sizes")?.as_deref() {
        None | Some([]) => [n / 3; 3],
        Some(&[q, k, v]) => [q, k, v],
        Some(v) => bail!(InvalidArgument, "qkv_hidden_sizes has {} numbers, not 3", v.len()),
    };
    let fits = widths.iter().all(|w| *w >= 0 && w % heads == 0) && widths.iter().fold(0i64, |a, w| a.saturating_add(*w)) == n;
    ensure!(fits, InvalidArgument, "weights of {n} columns do not divide into {widths:?} of {heads} heads");
    let op = MatMul { trans_a: false, trans_b: false, alpha: 1.0, epilogue: None };
    let qkv = match bias {
        Some(b) => cx.add(op, &[x, w, b])?,
        None => cx.add(op, &[x, w])?,
    };
    let [q, k, v] = unpack(cx, qkv, 2, widths)?;
    let causal = cx.flag("unidirectional", false)?;
    let past = match cx.opt(4) {
        Some(p) => Some((pick(cx, p, 0, 0)?, pick(cx, p, 0, 1)?)),
        None => None,
    };
    let (mask, bias, present) = (cx.opt(3), cx.opt(5), cx.n_outputs > 1);
    let r = Request { heads, causal, mask, bias, past, filled: None, present, scores: Scores::None };
    let out = finish(cx, Parts { q, k, v }, r)?;
    Ok(match present {
        true => vec![out[0], stack(cx, out[1], out[2])?],
        false => vec![out[0]],
    })
}

/// [batch, length, heads, n, size] as n tensors [batch, length, heads * size].
fn unpack_heads(cx: &mut ImportCx<'_>, x: ValueId, n: i64) -> Result<Vec<ValueId>> {
    ensure!(cx.shape(x)[3].is(n), InvalidArgument, "a packed operand of shape {}, expected {n} on axis 3", cx.shape(x));
    (0..n)
        .map(|i| {
            let part = pick(cx, x, 3, i)?;
            reshape(cx, part, &[0, 0, -1])
        })
        .collect()
}

/// Adds the parts of a bias of all three to those operands that are not cached ones already.
fn add_bias(cx: &mut ImportCx<'_>, parts: &mut Parts, bias: ValueId) -> Result<()> {
    let mut at = 0i64;
    let k_width = cx.shape(parts.q).last().and_then(|d| d.as_const());
    for x in [&mut parts.q, &mut parts.k, &mut parts.v] {
        let is_new = rank(cx, *x) == 3;
        let width = if is_new { cx.shape(*x)[2].as_const() } else { k_width };
        let Some(width) = width else { bail!(Unsupported, "a bias for an operand of unknown width") };
        if is_new {
            let part = slice(cx, bias, 0, at, at.saturating_add(width))?;
            ensure!(cx.shape(part)[0].is(width), InvalidArgument, "the bias of shape {} is too short", cx.shape(bias));
            *x = add(cx, *x, part)?;
        }
        at = at.saturating_add(width);
    }
    Ok(())
}

/// q, k and v of an operator that has them as operands 0 to 2, packed or not.
fn operands(cx: &mut ImportCx<'_>, heads: i64) -> Result<Parts> {
    let (q, k, v) = (cx.input(0)?, cx.opt(1), cx.opt(2));
    let shape = cx.shape(q);
    Ok(match (shape.rank(), k, v) {
        (5, None, None) => {
            let p = unpack_heads(cx, q, 3)?;
            Parts { q: p[0], k: p[1], v: p[2] }
        }
        (3, None, None) => {
            let Some(n) = shape[2].as_const().filter(|n| n % 3 == 0 && n / 3 % heads == 0) else {
                bail!(InvalidArgument, "a query of shape {shape} does not hold keys and values of {heads} heads")
            };
            let [q, k, v] = unpack(cx, q, 2, [n / 3; 3])?;
            Parts { q, k, v }
        }
        (3, Some(kv), None) if rank(cx, kv) == 5 => {
            let p = unpack_heads(cx, kv, 2)?;
            Parts { q, k: p[0], v: p[1] }
        }
        (3, Some(k), Some(v)) => Parts { q, k, v },
        _ => bail!(InvalidArgument, "a query of shape {shape} with these keys and values is not one of the known forms"),
    })
}

fn past(cx: &ImportCx<'_>, at: usize) -> Result<Option<(ValueId, ValueId)>> {
    let (k, v) = (cx.opt(at), cx.opt(at + 1));
    ensure!(k.is_some() == v.is_some(), InvalidArgument, "only one of past_key and past_value is given");
    Ok(k.zip(v))
}

pub fn multi_head(cx: &mut ImportCx<'_>) -> Result<Vec<ValueId>> {
    let heads = heads(cx)?;
    let causal = cx.flag("unidirectional", false)?;
    ensure!(cx.opt(9).is_none(), Unsupported, "beam search inside the operator (cache_indirection) is not supported");
    let mut parts = operands(cx, heads)?;
    if let Some(bias) = cx.opt(3) {
        add_bias(cx, &mut parts, bias)?;
    }
    let r = Request {
        heads,
        causal,
        mask: cx.opt(4),
        bias: cx.opt(5),
        past: past(cx, 6)?,
        filled: cx.opt(8),
        present: cx.n_outputs > 1,
        scores: if cx.n_outputs > 3 { Scores::Masked } else { Scores::None },
    };
    finish(cx, parts, r)
}

pub fn decoder_masked(cx: &mut ImportCx<'_>) -> Result<Vec<ValueId>> {
    let heads = heads(cx)?;
    let shares = cx.flag("past_present_share_buffer", false)?;
    let has_past = cx.opt(5).is_some();
    ensure!(
        !(shares && has_past) || cx.opt(7).is_some(),
        InvalidArgument,
        "past_present_share_buffer = 1 needs past_sequence_length"
    );
    ensure!(cx.opt(8).is_none() && cx.opt(9).is_none(), Unsupported, "beam search inside the operator is not supported");
    let wants_scores = cx.flag("output_qk", false)? && cx.n_outputs > 3;
    ensure!(
        !(wants_scores && shares && has_past),
        Unsupported,
        "scores against a cache that is a buffer of full length are not supported"
    );
    let mut parts = operands(cx, heads)?;
    if let Some(bias) = cx.opt(10) {
        add_bias(cx, &mut parts, bias)?;
    }
    let r = Request {
        heads,
        causal: false,
        mask: cx.opt(3),
        bias: cx.opt(4),
        past: past(cx, 5)?,
        filled: cx.opt(7).filter(|_| shares && has_past),
        present: cx.n_outputs > 1,
        scores: if wants_scores { Scores::Masked } else { Scores::None },
    };
    finish(cx, parts, r)
}
