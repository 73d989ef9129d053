//! Import of Attention of the standard domain (opsets 23 and 24).

use super::parts::*;
use super::{Attention, Causal, Scores};
use crate::base::{DType, Result};
use crate::network::ValueId;
use crate::ops::ImportCx;
use crate::ops::pointwise::Func;
use crate::{bail, ensure};

/// Whether a `softmax_precision` names a floating-point type. What is computed here is in f32 at least, and in f64 for
/// operands of f64, whatever it names.
pub(super) fn check_precision(cx: &ImportCx<'_>) -> Result<()> {
    match cx.attrs.int("softmax_precision")? {
        None | Some(1 | 10 | 11 | 16) => Ok(()),
        Some(v) => bail!(InvalidArgument, "softmax_precision {v} is no floating-point type"),
    }
}

pub fn attention(cx: &mut ImportCx<'_>) -> Result<Vec<ValueId>> {
    let (q, k, v) = (cx.input(0)?, cx.input(1)?, cx.input(2)?);
    check_precision(cx)?;
    let (q_heads, kv_heads) = (cx.int("q_num_heads", 0)?, cx.int("kv_num_heads", 0)?);
    let causal = cx.flag("is_causal", false)?;
    let mode = cx.int("qk_matmul_output_mode", 0)?;
    let modes = [Scores::Raw, Scores::Capped, Scores::Masked, Scores::Softmax];
    ensure!((0..4).contains(&mode), InvalidArgument, "qk_matmul_output_mode {mode} is not 0, 1, 2 or 3");
    let scores = if cx.n_outputs > 3 { modes[mode as usize] } else { Scores::None };
    let op = Attention {
        q_heads,
        kv_heads,
        scale: cx.attrs.float("scale")?,
        softcap: cx.float("softcap", 0.0)?,
        causal: if causal { Causal::Exclude } else { Causal::No },
        pad_mask: cx.opset >= 24,
        scores,
        ..Attention::plain()
    };
    let (past_k, past_v, nonpad) = (cx.opt(4), cx.opt(5), cx.opt(6));
    ensure!(past_k.is_some() == past_v.is_some(), InvalidArgument, "only one of past_key and past_value is given");
    ensure!(
        nonpad.is_none() || past_k.is_none(),
        InvalidArgument,
        "past_key and nonpad_kv_seqlen cannot be used together"
    );
    let (mut k, mut v, mut offset) = (k, v, None);
    if past_k.is_some() || cx.n_outputs > 1 {
        for x in [&mut k, &mut v] {
            if rank(cx, *x) == 3 {
                ensure!(kv_heads > 0, InvalidArgument, "operands of rank 3 need kv_num_heads");
                *x = split_heads(cx, *x, kv_heads)?;
            }
        }
    }
    if let (Some(past_k), Some(past_v)) = (past_k, past_v) {
        k = concat(cx, 2, &[past_k, k])?;
        v = concat(cx, 2, &[past_v, v])?;
        if causal {
            offset = Some(dim(cx, past_k, 2)?);
        }
    }
    if let (Some(n), true) = (nonpad, causal) {
        // The queries are the last of the keys that are no padding: what decoding with a cache outside of the operator
        // needs, and the same as counting from the first key when there are as many.
        let length = dim(cx, q, if rank(cx, q) == 3 { 1 } else { 2 })?;
        offset = Some(pointwise(cx, &[n, length], |p| p.push(Func::Sub, &[0, 1]))?);
    }
    let t = dtype(cx, q);
    let mask = match cx.opt(3) {
        Some(m) if dtype(cx, m) != DType::Bool => Some(cast(cx, m, t)?),
        m => m,
    };
    let present = [k, v];
    let v = cast(cx, v, t)?;
    let out = cx.add_multi(op, &[Some(q), Some(k), Some(v), mask, nonpad, offset])?;
    let mut all = vec![out[0], present[0], present[1]];
    all.extend(out.get(1));
    Ok(all)
}
