//! Import of NonZero, and of Compress, which gathers at the non-zero elements of its condition.

use super::NonZero;
use crate::base::{Attrs, Result, Tensor};
use crate::network::ValueId;
use crate::ops::gather::Gather;
use crate::ops::reshape::{Reshape, ReshapeMode};
use crate::ops::slice::Slice;
use crate::ops::{ImportCx, OnnxOp, onnx};
use crate::{ensure, internal};

pub const TABLE: &[OnnxOp] = &[onnx("NonZero", 9, import), onnx("Compress", 9, compress)];

fn import(cx: &mut ImportCx<'_>) -> Result<Vec<ValueId>> {
    let x = cx.input(0)?;
    Ok(vec![cx.add(NonZero {}, &[x])?])
}

fn compress(cx: &mut ImportCx<'_>) -> Result<Vec<ValueId>> {
    let (mut x, mut condition) = (cx.input(0)?, cx.input(1)?);
    ensure!(cx.shape(condition).rank() == 1, InvalidArgument, "expected a vector of bools, got {}", cx.fact(condition));
    let axis = match cx.attrs.int("axis")? {
        Some(axis) => cx.shape(x).axis(axis)?,
        None => {
            x = cx.add(Reshape::to_shape(vec![-1]), &[x])?;
            0
        }
    };
    // The condition may be shorter than the axis; what is longer does not count.
    let (n, size) = (cx.shape(condition)[0].clone(), cx.shape(x)[axis].clone());
    let fits = n == size || matches!((n.as_const(), size.as_const()), (Some(n), Some(size)) if n <= size);
    if !fits {
        let (start, axes) = (cx.constant(Tensor::from_slice(&[1], &[0i64])), cx.constant(Tensor::from_slice(&[1], &[0i64])));
        let mut attrs = Attrs::new();
        attrs.set("start", &(axis as i64));
        attrs.set("end", &(axis as i64 + 1));
        let end = cx.call1("Shape", 15, &attrs, &[x])?;
        condition = cx.add(Slice {}, &[condition, start, end, axes])?;
    }
    let at = cx.add(NonZero {}, &[condition])?;
    let squeeze = Reshape { mode: ReshapeMode::Squeeze, spec: Some(vec![0]), allow_zero: false };
    let at = cx.add(squeeze, &[at])?;
    let axis = i64::try_from(axis).map_err(|_| internal!("an axis is not small"))?;
    Ok(vec![cx.add(Gather { axis }, &[x, at])?])
}
