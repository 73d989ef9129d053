//! Import of CenterCropPad: each axis is cut around its middle, or padded with zeros on both sides.

use super::Slice;
use crate::base::{Attrs, DType, Result, Tensor};
use crate::ensure;
use crate::network::ValueId;
use crate::ops::ImportCx;
use crate::ops::gather::Gather;
use crate::ops::pad::{Pad, PadMode};

const OPSET: i64 = 18;

pub fn center_crop_pad(cx: &mut ImportCx<'_>) -> Result<Vec<ValueId>> {
    let (x, target) = (cx.input(0)?, cx.input(1)?);
    let rank = cx.shape(x).rank();
    let axes = match cx.ints("axes")? {
        Some(axes) => axes.iter().map(|a| Ok(cx.shape(x).axis(*a)? as i64)).collect::<Result<Vec<_>>>()?,
        None => (0..rank as i64).collect(),
    };
    let n = cx.shape(target).numel();
    let fits = n.as_const().is_none_or(|n| n == axes.len() as i64);
    ensure!(fits, InvalidArgument, "{n} sizes for {} axes", axes.len());
    let mut to = Attrs::new();
    to.set("to", &(crate::onnx::tensor::onnx_code_of(DType::I64) as i64));
    let target = cx.call1("Cast", OPSET, &to, &[target])?;
    let none = Attrs::new();
    let axes = cx.constant(Tensor::from_slice(&[axes.len()], &axes));
    let two = cx.constant(Tensor::scalar(2i64));
    let sizes = cx.call1("Shape", OPSET, &none, &[x])?;
    let sizes = cx.add(Gather { axis: 0 }, &[sizes, axes])?;
    let kept = cx.call1("Min", OPSET, &none, &[sizes, target])?;
    let cut = cx.call1("Sub", OPSET, &none, &[sizes, kept])?;
    let start = cx.call1("Div", OPSET, &none, &[cut, two])?;
    let end = cx.call1("Add", OPSET, &none, &[start, kept])?;
    let middle = cx.add(Slice {}, &[x, start, end, axes])?;
    let missing = cx.call1("Sub", OPSET, &none, &[target, kept])?;
    let before = cx.call1("Div", OPSET, &none, &[missing, two])?;
    let after = cx.call1("Sub", OPSET, &none, &[missing, before])?;
    let mut front = Attrs::new();
    front.set("axis", &0i64);
    let pads = cx.call1("Concat", OPSET, &front, &[before, after])?;
    let pad = Pad { mode: PadMode::Constant };
    Ok(vec![cx.add_opt(pad, &[Some(middle), Some(pads), None, Some(axes)])?])
}
