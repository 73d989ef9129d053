//! Import of HannWindow, HammingWindow and BlackmanWindow: cosines of a range, in f64, rounded once.

use super::output_type;
use crate::base::{DType, Result, Tensor};
use crate::network::ValueId;
use crate::ops::ImportCx;
use crate::ops::pointwise::{Func, Pointwise, Program};
use crate::ops::range::Range;
use crate::ops::reshape::Reshape;
use crate::ensure;

/// `a[0] + a[1] cos(2 pi i / n) + a[2] cos(4 pi i / n)` for i below the size, where n is the size, or one less unless
/// the window is periodic.
fn cosines(cx: &mut ImportCx<'_>, a: [f64; 3]) -> Result<Vec<ValueId>> {
    let size = cx.input(0)?;
    let fact = cx.fact(size);
    ensure!(
        matches!(fact.dtype, DType::I32 | DType::I64) && fact.shape.numel().as_const() == Some(1),
        InvalidArgument,
        "input 0: expected one integer, got {fact}"
    );
    let dtype = output_type(cx)?;
    let periodic = cx.flag("periodic", true)?;
    let size = cx.add(Reshape::to_shape(vec![]), &[size])?;
    let number = |v: i64| Tensor::scalar(v).cast(fact.dtype);
    let (zero, one) = (cx.constant(number(0)), cx.constant(number(1)));
    let index = cx.add(Range {}, &[zero, size, one])?;
    let mut p = Program { inputs: vec![fact.dtype; 2], instrs: vec![], outputs: vec![] };
    let (i, mut n) = (p.push_cast(0, DType::F64)?, p.push_cast(1, DType::F64)?);
    if !periodic {
        let one = p.push_const(1.0, DType::F64)?;
        n = p.push(Func::Sub, &[n, one])?;
    }
    let share = p.push(Func::Div, &[i, n])?;
    let mut sum = p.push_const(a[0], DType::F64)?;
    for (k, factor) in a[1..].iter().enumerate().filter(|(_, f)| **f != 0.0) {
        let turn = p.push_const(std::f64::consts::TAU * (k + 1) as f64, DType::F64)?;
        let factor = p.push_const(*factor, DType::F64)?;
        let angle = p.push(Func::Mul, &[share, turn])?;
        let cosine = p.push(Func::Cos, &[angle])?;
        let term = p.push(Func::Mul, &[cosine, factor])?;
        sum = p.push(Func::Add, &[sum, term])?;
    }
    p.outputs = vec![p.push_cast(sum, dtype)?];
    Ok(vec![cx.add(Pointwise { program: p }, &[index, size])?])
}

pub fn hann(cx: &mut ImportCx<'_>) -> Result<Vec<ValueId>> {
    cosines(cx, [0.5, -0.5, 0.0])
}

pub fn hamming(cx: &mut ImportCx<'_>) -> Result<Vec<ValueId>> {
    cosines(cx, [25.0 / 46.0, -21.0 / 46.0, 0.0])
}

pub fn blackman(cx: &mut ImportCx<'_>) -> Result<Vec<ValueId>> {
    cosines(cx, [0.42, -0.5, 0.08])
}
