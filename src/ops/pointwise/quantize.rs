//! Import of QuantizeLinear, DequantizeLinear and DynamicQuantizeLinear: programs like any other, so that they fuse.
//!
//! `y = saturate(round(x / scale) + zero)` and `y = (x - zero) * scale`. A quotient in half precision is rounded to it
//! before it is rounded to an integer, as the standard's precision of the division has it; all else is computed in f32
//! (f64 where a f64 takes part). A scale that is one number broadcasts; one along an axis gets dimensions behind it; scales
//! of blocks are repeated by a gather, which folds away where they are constants.

use super::cast::numbered_type;
use super::onnx::{Imported, dtype, node, program, unsqueeze_back};
use super::{Func, Pointwise, Program, Reg};
use crate::base::dims::normalize_axis;
use crate::base::small::CastMode;
use crate::base::{AttrValue, Attrs, DType, Result, Tensor};
use crate::network::ValueId;
use crate::ops::ImportCx;
use crate::ops::gather::Gather;
use crate::ops::range::Range;
use crate::ops::reshape::{Reshape, ReshapeMode};
use crate::ops::shape::Shape;
use crate::{bail, ensure};

/// Blocks of an axis up to this length get constant indices.
const MAX_INDICES: i64 = 1 << 22;

/// An attribute that is an element type; 0 stands for none.
fn type_attr(cx: &ImportCx<'_>, name: &str) -> Result<Option<DType>> {
    match cx.int(name, 0)? {
        0 => Ok(None),
        code => numbered_type(name, code).map(Some),
    }
}

/// Scales and zero points as operands that broadcast over `x`.
struct Grain {
    x: ValueId,
    axis: i64,
    block: i64,
}

impl Grain {
    fn new(cx: &ImportCx<'_>, x: ValueId) -> Result<Grain> {
        let (axis, block) = (cx.int("axis", 1)?, cx.int("block_size", 0)?);
        ensure!(block >= 0, InvalidArgument, "attribute block_size: {block} is negative");
        Ok(Grain { x, axis, block })
    }

    fn spread(&self, cx: &mut ImportCx<'_>, v: ValueId) -> Result<ValueId> {
        let (xs, vs) = (cx.shape(self.x), cx.shape(v));
        let rank = xs.rank();
        if vs.numel().is(1) {
            // The result must keep x's rank.
            let scalar = Reshape { mode: ReshapeMode::Shape, spec: Some(vec![]), allow_zero: false };
            return if vs.rank() > rank { cx.add(scalar, &[v]) } else { Ok(v) };
        }
        ensure!(rank > 0, InvalidArgument, "a scale or zero point of shape {vs} for a single number");
        // A vector has one axis, whatever the attribute says.
        let axis = if rank == 1 { 0 } else { normalize_axis(self.axis, rank)? };
        let differ = |a: usize, b: usize| match (xs[a].as_const(), vs[b].as_const()) {
            (Some(a), Some(b)) => a != b,
            _ => false,
        };
        if vs.rank() == 1 && (rank > 1 || self.block == 0) {
            ensure!(!differ(axis, 0), InvalidArgument, "a scale or zero point of shape {vs} along axis {axis} of {xs}");
            return unsqueeze_back(cx, v, rank - 1 - axis);
        }
        ensure!(
            vs.rank() == rank && self.block > 0,
            InvalidArgument,
            "a scale or zero point of shape {vs} does not fit {xs} with block_size {}",
            self.block
        );
        for d in (0..rank).filter(|d| *d != axis) {
            ensure!(!differ(d, d), InvalidArgument, "a scale or zero point of shape {vs} does not fit {xs}");
        }
        let index = match xs[axis].as_const() {
            Some(n) => {
                let blocks = n.div_euclid(self.block) + (n % self.block != 0) as i64;
                let given = vs[axis].as_const().unwrap_or(blocks);
                ensure!(given == blocks, InvalidArgument, "axis {axis}: {n} elements are {blocks} blocks of {}, not {given}", self.block);
                (n <= MAX_INDICES).then(|| (0..n).map(|i| i / self.block).collect::<Vec<i64>>())
            }
            None => None,
        };
        let index = match index {
            Some(i) => cx.constant(Tensor::from_slice(&[i.len()], &i)),
            None => self.running_index(cx, axis)?,
        };
        cx.add(Gather { axis: axis as i64 }, &[v, index])
    }

    /// The block of each element along the axis, when its length is known at run time.
    fn running_index(&self, cx: &mut ImportCx<'_>, axis: usize) -> Result<ValueId> {
        let axis = axis as i64;
        let n = cx.add(Shape { start: axis, end: Some(axis + 1), size: false }, &[self.x])?;
        let (zero, one) = (cx.constant(Tensor::from_slice(&[1], &[0i64])), cx.constant(Tensor::from_slice(&[1], &[1i64])));
        let i = cx.add(Range {}, &[zero, n, one])?;
        let block = self.block as f64;
        let p = program(&[DType::I64], |p| {
            let b = p.push_const(block, DType::I64)?;
            p.push(Func::Div, &[0, b])
        })?;
        Ok(node(cx, p, &[i])?[0])
    }
}

/// A zero point that is known to be zero says nothing.
fn zero_point(cx: &ImportCx<'_>, i: usize) -> Option<ValueId> {
    let is_zero = |v: &ValueId| {
        cx.as_const(*v).is_some_and(|t| t.dtype() != DType::F8E8M0 && t.to_f64s().iter().all(|z| *z == 0.0))
    };
    cx.opt(i).filter(|v| !is_zero(v))
}

/// Smallest and largest number of an integer type that is quantized to.
fn limits(d: DType) -> Option<(f64, f64)> {
    Some(match d {
        DType::I8 => (-128.0, 127.0),
        DType::U8 => (0.0, 255.0),
        DType::I16 => (-32768.0, 32767.0),
        DType::U16 => (0.0, 65535.0),
        DType::I4 => (-8.0, 7.0),
        DType::U4 => (0.0, 15.0),
        DType::I2 => (-2.0, 1.0),
        DType::U2 => (0.0, 3.0),
        _ => return None,
    })
}

pub(super) fn quantize(cx: &mut ImportCx<'_>) -> Imported {
    let (x, scale) = (cx.input(0)?, cx.input(1)?);
    let grain = Grain::new(cx, x)?;
    let saturate = cx.flag("saturate", true)?;
    let (wanted, precision) = (type_attr(cx, "output_dtype")?, type_attr(cx, "precision")?);
    let given = cx.opt(2).map(|z| dtype(cx, z));
    let to = given.or(wanted).unwrap_or(DType::U8);
    ensure!(wanted.is_none_or(|w| w == to), InvalidArgument, "output_dtype and the zero point's type {to} differ");
    let (tx, ts) = (dtype(cx, x), dtype(cx, scale));
    ensure!(tx.is_float() || tx == DType::I32, Unsupported, "{tx} is not quantized: floats and i32 are");
    // The type of the division: the scale's, where that is one to divide in.
    let by = match precision.unwrap_or(ts) {
        d if d.is_float() => d,
        DType::F8E8M0 if tx.is_float() => tx,
        DType::F8E8M0 => DType::F32,
        DType::I32 => DType::F64,
        d => bail!(Unsupported, "a division in {d}"),
    };
    ensure!(ts.is_float() || matches!(ts, DType::I32 | DType::F8E8M0), Unsupported, "a scale of {ts}");
    let zero = zero_point(cx, 2);
    let mut inputs = vec![x, grain.spread(cx, scale)?];
    if let Some(z) = zero {
        inputs.push(grain.spread(cx, z)?);
    }
    let types: Vec<DType> = inputs.iter().map(|v| dtype(cx, *v)).collect();
    let p = program(&types, |p| {
        let wide = if by == DType::F64 { DType::F64 } else { DType::F32 };
        let q = divide(p, by, wide)?;
        let zero = zero.map(|_| p.push_cast(2, wide)).transpose()?;
        match limits(to) {
            Some((low, high)) => {
                let mut r = p.push(Func::Round, &[q])?;
                if let Some(z) = zero {
                    r = p.push(Func::Add, &[r, z])?;
                }
                let (low, high) = (p.push_const(low, wide)?, p.push_const(high, wide)?);
                let r = p.push(Func::Clip, &[r, low, high])?;
                p.push_cast(r, to)
            }
            None if to.is_f8() || to == DType::F4E2M1 => {
                let mut r = q;
                if let Some(z) = zero {
                    // A zero point of zero must not change the sign of a zero.
                    let none = p.push_const(0.0, wide)?;
                    let (is_none, sum) = (p.push(Func::Equal, &[z, none])?, p.push(Func::Add, &[q, z])?);
                    r = p.push(Func::Select, &[is_none, q, sum])?;
                }
                p.push_cast_mode(r, to, CastMode { saturate, ..Default::default() })
            }
            None => bail!(Unsupported, "quantization to {to}"),
        }
    })?;
    node(cx, p, &inputs)
}

/// Input 0 by input 1 with the rounding of type `by`, in a register of type `wide`.
fn divide(p: &mut Program, by: DType, wide: DType) -> Result<Reg> {
    let mut operand = |r: Reg| {
        let rounded = p.push_cast(r, by)?;
        p.push_cast(rounded, wide)
    };
    let (a, b) = (operand(0)?, operand(1)?);
    let q = p.push(Func::Div, &[a, b])?;
    // A quotient of two halves in f32, rounded to half, is the half that is nearest to the exact one.
    let q = p.push_cast(q, by)?;
    p.push_cast(q, wide)
}

pub(super) fn dequantize(cx: &mut ImportCx<'_>) -> Imported {
    let (x, scale) = (cx.input(0)?, cx.input(1)?);
    let grain = Grain::new(cx, x)?;
    let to = type_attr(cx, "output_dtype")?;
    let (tx, ts) = (dtype(cx, x), dtype(cx, scale));
    ensure!(
        tx.is_int() || (tx.is_small() && tx != DType::F8E8M0),
        Unsupported,
        "{tx} is not dequantized: integers and small floats are"
    );
    if let Some(z) = cx.opt(2) {
        let tz = dtype(cx, z);
        ensure!(tz == tx, InvalidArgument, "the zero point is {tz}, and x is {tx}");
    }
    let to = to.unwrap_or(ts);
    ensure!(to.is_float() && (ts.is_float() || ts == DType::F8E8M0), Unsupported, "a scale of {ts} and a result of {to}");
    let zero = zero_point(cx, 2);
    let mut inputs = vec![x, grain.spread(cx, scale)?];
    if let Some(z) = zero {
        inputs.push(grain.spread(cx, z)?);
    }
    let types: Vec<DType> = inputs.iter().map(|v| dtype(cx, *v)).collect();
    let p = program(&types, |p| {
        let wide = if to == DType::F64 || ts == DType::F64 { DType::F64 } else { DType::F32 };
        let mut r = p.push_cast(0, wide)?;
        if zero.is_some() {
            let z = p.push_cast(2, wide)?;
            r = p.push(Func::Sub, &[r, z])?;
        }
        let s = p.push_cast(1, wide)?;
        let r = p.push(Func::Mul, &[r, s])?;
        p.push_cast(r, to)
    })?;
    node(cx, p, &inputs)
}

/// Scale and zero point from the range of x, which is widened to contain 0; then QuantizeLinear.
pub(super) fn dynamic_quantize(cx: &mut ImportCx<'_>) -> Imported {
    let x = cx.input(0)?;
    let t = dtype(cx, x);
    ensure!(t == DType::F32, Unsupported, "{t} is not quantized dynamically: f32 is");
    let mut attrs = Attrs::default();
    attrs.0.insert("keepdims".into(), AttrValue::Int(0));
    let (low, high) = (cx.call1("ReduceMin", 18, &attrs, &[x])?, cx.call1("ReduceMax", 18, &attrs, &[x])?);
    let mut p = Program { inputs: vec![t, t], instrs: vec![], outputs: vec![] };
    let (none, most) = (p.push_const(0.0, t)?, p.push_const(255.0, t)?);
    let (low_0, high_0) = (p.push(Func::Min, &[0, none])?, p.push(Func::Max, &[1, none])?);
    let range = p.push(Func::Sub, &[high_0, low_0])?;
    let scale = p.push(Func::Div, &[range, most])?;
    let offset = p.push(Func::Div, &[low_0, scale])?;
    let zero = p.push(Func::Sub, &[none, offset])?;
    let zero = p.push(Func::Clip, &[zero, none, most])?;
    let zero = p.push(Func::Round, &[zero])?;
    let zero = p.push_cast(zero, DType::U8)?;
    p.outputs = vec![scale, zero];
    let made = cx.add_multi(Pointwise { program: p }, &[Some(low), Some(high)])?;
    let inputs = [Some(x), Some(made[0]), Some(made[1])];
    let y = cx.call("QuantizeLinear", 13, &Attrs::default(), &inputs, 1)?;
    Ok(vec![y[0], made[0], made[1]])
}
