//! Import of RotaryEmbedding, of the standard domain and of com.microsoft.

use super::Rotary;
use crate::base::Result;
use crate::network::ValueId;
use crate::ops::{ImportCx, OnnxOp, onnx};
use crate::{bail, ensure};

pub const TABLE: &[OnnxOp] = &[
    onnx("RotaryEmbedding", 23, rotary),
    OnnxOp { domain: "com.microsoft", name: "RotaryEmbedding", since: 1, import: contrib },
];

fn rotary(cx: &mut ImportCx<'_>) -> Result<Vec<ValueId>> {
    let inputs = [Some(cx.input(0)?), Some(cx.input(1)?), Some(cx.input(2)?), cx.opt(3)];
    let interleaved = cx.int("interleaved", 0)? != 0;
    let op = Rotary { interleaved, heads: cx.int("num_heads", 0)?, dim: cx.int("rotary_embedding_dim", 0)? };
    let n = if inputs[3].is_some() { 4 } else { 3 };
    Ok(vec![cx.add_opt(op, &inputs[..n])?])
}

/// Positions stand before the tables, and the number of heads follows from the tables' width where it is not given.
fn contrib(cx: &mut ImportCx<'_>) -> Result<Vec<ValueId>> {
    let (x, positions, cos, sin) = (cx.input(0)?, cx.input(1)?, cx.input(2)?, cx.input(3)?);
    let interleaved = cx.int("interleaved", 0)? != 0;
    let (mut heads, dim) = (cx.int("num_heads", 0)?, cx.int("rotary_embedding_dim", 0)?);
    ensure!(!cx.flag("is_packed_batching", false)?, Unsupported, "attribute is_packed_batching = 1 is not supported");
    // Declared, and used by no implementation.
    cx.float("scale", 1.0)?;
    let (shape, width) = (cx.shape(x), cx.shape(cos).last().and_then(|d| d.as_const()));
    if shape.rank() == 3 && heads == 0 {
        let (Some(hidden), Some(half)) = (shape[2].as_const(), width.filter(|w| *w > 0)) else {
            bail!(Unsupported, "x of shape {shape} needs the attribute num_heads or a known width of cos_cache")
        };
        heads = hidden / half.saturating_mul(2);
    }
    Ok(vec![cx.add(Rotary { interleaved, heads, dim }, &[x, cos, sin, positions])?])
}
