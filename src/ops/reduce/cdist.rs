//! Import of com.microsoft's CDist: distances between the rows of two matrices.

use crate::base::{Attrs, Result, Tensor};
use crate::network::ValueId;
use crate::ops::ImportCx;
use crate::{bail, ensure};

const OPSET: i64 = 18;

/// Differences of every row of A [m, k] with every row of B [n, k], squared and summed: exact where rows are near.
pub fn cdist(cx: &mut ImportCx<'_>) -> Result<Vec<ValueId>> {
    let (a, b) = (cx.input(0)?, cx.input(1)?);
    let root = match cx.string("metric", "sqeuclidean")?.as_str() {
        "sqeuclidean" => false,
        "euclidean" => true,
        m => bail!(Unsupported, "attribute metric: expected euclidean or sqeuclidean, got {m:?}"),
    };
    ensure!(cx.shape(a).rank() == 2 && cx.shape(b).rank() == 2, InvalidArgument, "expected two matrices");
    let none = Attrs::new();
    let vector = |cx: &mut ImportCx<'_>, v: i64| cx.constant(Tensor::from_slice(&[1], &[v]));
    let (zero, one, two) = (vector(cx, 0), vector(cx, 1), vector(cx, 2));
    let a = cx.call1("Unsqueeze", OPSET, &none, &[a, one])?;
    let b = cx.call1("Unsqueeze", OPSET, &none, &[b, zero])?;
    let difference = cx.call1("Sub", OPSET, &none, &[a, b])?;
    let mut drop = Attrs::new();
    drop.set("keepdims", &0i64);
    let sum = cx.call1("ReduceSumSquare", OPSET, &drop, &[difference, two])?;
    Ok(vec![if root { cx.call1("Sqrt", OPSET, &none, &[sum])? } else { sum }])
}
