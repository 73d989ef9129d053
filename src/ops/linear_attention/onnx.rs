//! Import of LinearAttention, of the standard domain and of com.microsoft.

use super::{LinearAttention, causal_conv};
use crate::base::Result;
use crate::network::ValueId;
use crate::ops::{ImportCx, OnnxOp, onnx};
use crate::{bail, ensure};

pub const TABLE: &[OnnxOp] = &[
    onnx("LinearAttention", 27, linear_attention),
    OnnxOp { domain: "com.microsoft", name: "LinearAttention", since: 1, import: contrib },
    onnx("CausalConvWithState", 27, causal_conv::causal_conv),
    OnnxOp { domain: "com.microsoft", name: "CausalConvWithState", since: 1, import: causal_conv::contrib },
];

fn contrib(cx: &mut ImportCx<'_>) -> Result<Vec<ValueId>> {
    let window = cx.int("state_window", 0)?;
    ensure!(window == 0, Unsupported, "attribute state_window = {window} is not supported");
    linear_attention(cx)
}

fn linear_attention(cx: &mut ImportCx<'_>) -> Result<Vec<ValueId>> {
    let (gated, delta) = match cx.string("update_rule", "gated_delta")?.as_str() {
        "linear" => (false, false),
        "gated" => (true, false),
        "delta" => (false, true),
        "gated_delta" => (true, true),
        rule => bail!(InvalidArgument, "update_rule {rule:?} is not linear, gated, delta or gated_delta"),
    };
    let (q_heads, kv_heads) = (cx.int("q_num_heads", 0)?, cx.int("kv_num_heads", 0)?);
    let fits = q_heads > 0 && kv_heads > 0 && (q_heads % kv_heads == 0 || kv_heads % q_heads == 0);
    ensure!(fits, InvalidArgument, "q_num_heads {q_heads} and kv_num_heads {kv_heads} do not fit together");
    // It says how to compute, not what.
    cx.int("chunk_size", 64)?;
    for (i, name, wanted) in [(4, "decay", gated), (5, "beta", delta)] {
        ensure!(
            cx.opt(i).is_some() == wanted,
            InvalidArgument,
            "{name} must {}be given for this update_rule",
            if wanted { "" } else { "not " }
        );
    }
    let mut inputs = vec![Some(cx.input(0)?), Some(cx.input(1)?), Some(cx.input(2)?), cx.opt(3), cx.opt(4), cx.opt(5)];
    while inputs.last() == Some(&None) {
        inputs.pop();
    }
    let op = LinearAttention { q_heads, kv_heads, scale: cx.float("scale", 0.0)? };
    cx.add_multi(op, &inputs)
}
