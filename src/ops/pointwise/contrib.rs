//! Import of com.microsoft's sums with a bias: BiasAdd and BiasSplitGelu.

use super::func::Func;
use crate::base::Result;
use crate::ensure;
use crate::network::ValueId;
use crate::ops::ImportCx;
use crate::ops::compose::{binary, pointwise};
use crate::base::{Attrs, Tensor};

/// x + bias + skip.
pub(super) fn bias_add(cx: &mut ImportCx<'_>) -> Result<Vec<ValueId>> {
    let inputs = [cx.input(0)?, cx.input(1)?, cx.input(2)?];
    let y = pointwise(cx, &inputs, |p| {
        let biased = p.push(Func::Add, &[0, 1])?;
        p.push(Func::Add, &[biased, 2])
    })?;
    Ok(vec![y])
}

/// The first half of the last axis of x + bias, times gelu of the second half.
pub(super) fn bias_split_gelu(cx: &mut ImportCx<'_>) -> Result<Vec<ValueId>> {
    let (x, bias) = (cx.input(0)?, cx.input(1)?);
    let sum = binary(cx, Func::Add, x, bias)?;
    let shape = cx.shape(sum);
    ensure!(shape.rank() >= 1, InvalidArgument, "x: expected rank 1 or more");
    let last = shape[shape.rank() - 1].as_const();
    let Some(n) = last.filter(|n| n % 2 == 0) else {
        return Err(crate::err!(Unsupported, "the last axis of x must be an even number, got {shape}"));
    };
    let mut half = |from: i64| -> Result<ValueId> {
        let vector = |cx: &mut ImportCx<'_>, v: i64| Some(cx.constant(Tensor::from_slice(&[1], &[v])));
        let ranges = [vector(cx, from), vector(cx, from + n / 2), vector(cx, -1)];
        Ok(cx.call("Slice", 13, &Attrs::new(), &[Some(sum), ranges[0], ranges[1], ranges[2]], 1)?[0])
    };
    let (value, gate) = (half(0)?, half(n / 2)?);
    let y = pointwise(cx, &[value, gate], |p| {
        let gate = p.push(Func::GeluErf, &[1])?;
        p.push(Func::Mul, &[0, gate])
    })?;
    Ok(vec![y])
}
