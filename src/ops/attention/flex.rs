//! Import of FlexAttention of ai.onnx.preview: matrix products and a softmax with the given subgraphs between them.

use super::onnx::check_precision;
use super::parts::*;
use crate::base::{DType, Result};
use crate::network::ValueId;
use crate::ops::def::ImportValue;
use crate::ops::matmul::MatMul;
use crate::ops::softmax::Softmax;
use crate::ops::ImportCx;
use crate::{bail, ensure};

pub fn flex_attention(cx: &mut ImportCx<'_>) -> Result<Vec<ValueId>> {
    let (q, k, v) = (cx.input(0)?, cx.input(1)?, cx.input(2)?);
    for x in [q, k, v] {
        ensure!(rank(cx, x) == 4, InvalidArgument, "expected operands of rank 4, got {}", cx.shape(x));
    }
    let t = dtype(cx, q);
    check_precision(cx)?;
    let precision = match cx.attrs.int("softmax_precision")? {
        Some(10) => DType::F16,
        Some(16) => DType::BF16,
        Some(11) => DType::F64,
        Some(_) => DType::F32,
        None if t == DType::F64 => t,
        None => DType::F32,
    };
    let scale = match (cx.attrs.float("scale")?, cx.shape(q)[3].as_const()) {
        (Some(s), _) => s,
        (None, Some(size)) => 1.0 / (size.max(1) as f32).sqrt(),
        (None, None) => bail!(Unsupported, "a head of unknown size needs the attribute scale"),
    };
    // Heads of q that share one of k and v stand one behind the other.
    let (shape, kv_shape) = (cx.shape(q), cx.shape(k));
    let (heads, kv_heads) = (shape[1].as_const(), kv_shape[1].as_const());
    let shares = match (heads, kv_heads) {
        _ if shape[1] == kv_shape[1] => None,
        (Some(h), Some(n)) if n > 0 && h % n == 0 => Some((h, n)),
        _ => bail!(InvalidArgument, "{} heads of q cannot share {} heads of k and v", shape[1], kv_shape[1]),
    };
    let (mut k, mut v) = (k, v);
    if let Some((h, n)) = shares {
        for x in [&mut k, &mut v] {
            let each = unsqueeze(cx, *x, &[2])?;
            let sizes = ints(cx, &[1, 1, h / n, 1, 1]);
            let each = cx.add(crate::ops::expand::Expand {}, &[each, sizes])?;
            let Some(size) = cx.shape(*x)[3].as_const() else { bail!(Unsupported, "heads of unknown size are shared") };
            *x = reshape(cx, each, &[0, h, -1, size])?;
        }
    }
    // Products of half types are rounded only once: they are taken in the precision of the softmax where that is wider.
    let wide = if precision.size() > t.size() { precision } else { t };
    let (q, k) = (cast(cx, q, wide)?, cast(cx, k, wide)?);
    let scores = cx.add(MatMul { trans_a: false, trans_b: true, alpha: scale, epilogue: None }, &[q, k])?;
    let mut scores = cast(cx, scores, precision)?;
    scores = modified(cx, "score_mod", scores)?;
    let weights = cx.add(Softmax { axis: -1, log: false, flatten: false }, &[scores])?;
    let weights = modified(cx, "prob_mod", weights)?;
    let v = cast(cx, v, precision)?;
    let y = cx.add(MatMul { trans_a: false, trans_b: false, alpha: 1.0, epilogue: None }, &[weights, v])?;
    Ok(vec![cast(cx, y, t)?])
}

/// The value that a graph attribute makes of `x`; `x` itself where there is none.
fn modified(cx: &mut ImportCx<'_>, attr: &str, x: ValueId) -> Result<ValueId> {
    let Some(subgraphs) = cx.subgraphs.as_deref_mut() else { return Ok(x) };
    if subgraphs.arity(attr).is_err() {
        return Ok(x);
    }
    cx.attrs.ignore(attr);
    let out = subgraphs.inline(cx.graph, attr, &[ImportValue::Tensor(x)])?;
    let [ImportValue::Tensor(y)] = out[..] else { bail!(InvalidArgument, "{attr} must give one tensor") };
    let (have, want) = (cx.fact(y), cx.fact(x));
    ensure!(
        have.dtype == want.dtype && have.rank() == want.rank(),
        InvalidArgument,
        "{attr} makes {have} of {want}"
    );
    Ok(y)
}
