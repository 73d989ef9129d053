//! Import of Cast, CastLike and BitCast.

use super::onnx::{Imported, dtype, node, program};
use crate::base::error::ResultExt;
use crate::base::small::CastMode;
use crate::base::{DType, Result};
use crate::network::ValueId;
use crate::onnx::tensor::{dtype_of, onnx_name_of};
use crate::ops::ImportCx;
use crate::ops::bit_cast::BitCast;
use crate::{ensure, err};

pub(super) fn cast(cx: &mut ImportCx<'_>) -> Imported {
    let x = cx.input(0)?;
    let mode = cast_mode(cx)?;
    let to = if cx.opset < 6 {
        named_type(&cx.string("to", "")?)?
    } else {
        numbered_type("to", cx.attrs.int("to")?.ok_or_else(|| err!(InvalidArgument, "attribute to is missing"))?)?
    };
    cast_to(cx, x, to, mode)
}

pub(super) fn cast_like(cx: &mut ImportCx<'_>) -> Imported {
    let (x, like) = (cx.input(0)?, cx.input(1)?);
    let mode = cast_mode(cx)?;
    let to = dtype(cx, like);
    cast_to(cx, x, to, mode)
}

/// How 8-bit floats round and saturate.
fn cast_mode(cx: &ImportCx<'_>) -> Result<CastMode> {
    CastMode::new(cx.flag("saturate", true)?, &cx.string("round_mode", "up")?)
}

fn cast_to(cx: &mut ImportCx<'_>, x: ValueId, to: DType, mode: CastMode) -> Imported {
    let from = dtype(cx, x);
    if from == to {
        return Ok(vec![x]);
    }
    let p = program(&[from], |p| p.push_cast_mode(0, to, mode))?;
    node(cx, p, &[x])
}

/// The bits stay and get another type. Types under 8 bits take a byte each in memory, where their forms differ.
pub(super) fn bit_cast(cx: &mut ImportCx<'_>) -> Imported {
    let x = cx.input(0)?;
    let code = cx.attrs.int("to")?.ok_or_else(|| err!(InvalidArgument, "attribute to is missing"))?;
    let (from, to) = (dtype(cx, x), numbered_type("to", code)?);
    ensure!(
        from.bits() == to.bits(),
        InvalidArgument,
        "{from} has {} bits and {to} has {}: they must be as many",
        from.bits(),
        to.bits()
    );
    let view = |cx: &mut ImportCx<'_>, x: ValueId, to: DType| {
        if dtype(cx, x) == to { Ok(x) } else { cx.add(BitCast { to }, &[x]) }
    };
    let plain = CastMode::default();
    // Small integers: a conversion that wraps keeps the bits; a code of 4 bits is an unsigned integer.
    let mut x = x;
    if from.is_small_int() && from.is_signed() {
        let unsigned = if from == DType::I4 { DType::U4 } else { DType::U2 };
        x = cast_to(cx, x, unsigned, plain)?[0];
    }
    if to.is_small_int() {
        if dtype(cx, x) == DType::F4E2M1 {
            x = view(cx, x, DType::U4)?;
        }
        return cast_to(cx, x, to, plain);
    }
    if to == DType::Bool {
        // A byte that is neither 0 nor 1 is no bool; it counts as true.
        let bytes = if from == DType::Bool { x } else { view(cx, x, DType::U8)? };
        return cast_to(cx, bytes, to, plain);
    }
    Ok(vec![view(cx, x, to)?])
}

/// The element type with a number of ONNX.
pub(crate) fn numbered_type(attr: &str, code: i64) -> Result<DType> {
    i32::try_from(code)
        .map_err(|_| err!(Unsupported, "element type number {code} is not known"))
        .and_then(dtype_of)
        .with_context(|| format!("attribute {attr}"))
}

/// The element type with a name of ONNX, as the first opsets give it.
fn named_type(name: &str) -> Result<DType> {
    let found = DType::ALL.into_iter().find(|d| onnx_name_of(*d) == name);
    found.ok_or_else(|| err!(Unsupported, "attribute to: the element type {name:?} is not supported"))
}
