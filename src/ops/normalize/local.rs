//! LRN: each element over a power of the mean square of its neighbours along the channels.
//!
//! The mean is an average pool along the channels, which are laid out as a spatial axis.

use crate::base::Result;
use crate::network::ValueId;
use crate::ops::ImportCx;
use crate::ops::compose::{cast, pointwise, reshape, unsqueeze, wide};
use crate::ops::pointwise::Func;
use crate::ops::pool::{Pool, PoolKind};
use crate::ops::window::AutoPad;
use crate::{ensure, err};

/// y = x / (bias + alpha * mean of squares)^beta.
pub(super) fn import(cx: &mut ImportCx<'_>) -> Result<Vec<ValueId>> {
    let x = cx.input(0)?;
    let size = cx.attrs.int("size")?.ok_or_else(|| err!(InvalidArgument, "attribute size is missing"))?;
    let (mut alpha, beta) = (cx.float("alpha", 1e-4)? as f64, cx.float("beta", 0.75)? as f64);
    let bias = cx.float("bias", 1.0)? as f64;
    let (shape, dtype) = (cx.shape(x), cx.fact(x).dtype);
    ensure!(shape.rank() >= 2, InvalidArgument, "x: expected rank 2 or more, got {shape}");
    ensure!(dtype.is_float(), Unsupported, "LRN does not take {dtype}");
    ensure!((1..=i32::MAX as i64).contains(&size), InvalidArgument, "attribute size: expected at least 1, got {size}");
    let (mut below, mut above) = ((size - 1) / 2, size / 2);
    if let Some(c) = shape[1].as_const() {
        // A window that reaches further than all channels sees nothing more.
        (below, above) = (below.min(c.max(0)), above.min(c.max(0)));
    }
    let kernel = below + above + 1;
    alpha *= kernel as f64 / size as f64;
    let w = wide(dtype);
    let v = cast(cx, x, w)?;
    let mut squares = pointwise(cx, &[v], |p| p.push(Func::Mul, &[0, 0]))?;
    // [n, 1, channels, places]
    let places: Vec<(ValueId, usize)> = (2..shape.rank()).map(|a| (x, a)).collect();
    squares = reshape(cx, squares, &[vec![(x, 0)], vec![(x, 1)], places])?;
    squares = unsqueeze(cx, squares, &[1])?;
    let pool = Pool {
        kind: PoolKind::Average,
        kernel: vec![kernel, 1],
        strides: vec![],
        pads: vec![below, 0, above, 0],
        dilations: vec![],
        auto_pad: AutoPad::NotSet,
        ceil_mode: false,
        count_include_pad: true,
        p: 2,
        indices: false,
        storage_order: 0,
        order: Default::default(),
    };
    let mean = cx.add(pool, &[squares])?;
    let dims: Vec<Vec<(ValueId, usize)>> = (0..shape.rank()).map(|a| vec![(x, a)]).collect();
    let mean = reshape(cx, mean, &dims)?;
    let y = pointwise(cx, &[v, mean], |p| {
        let (alpha, bias) = (p.push_const(alpha, w)?, p.push_const(bias, w)?);
        let (scaled, beta) = (p.push(Func::Mul, &[1, alpha])?, p.push_const(beta, w)?);
        let base = p.push(Func::Add, &[scaled, bias])?;
        let power = p.push(Func::Pow, &[base, beta])?;
        let y = p.push(Func::Div, &[0, power])?;
        p.push_cast(y, dtype)
    })?;
    Ok(vec![y])
}
