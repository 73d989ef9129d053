//! Repeats a tensor along its axes. Inputs: x of any type, repeats (a vector with one integer per axis, host).

use crate::base::tensor::strides_of;
use crate::base::{Dim, Fact, Result, Tensor};
use crate::network::ValueId;
use crate::ops::transpose::cpu::ViewStep;
use crate::ops::transpose::cuda;
use crate::ops::transpose::strided::View;
use crate::device::DeviceProps;
use crate::ops::{HalfRole, CpuStep, EvalCx, ImportCx, InferCx, OpDef, PackCache, Problem, StepProgram, Tactic, TacticOptions, fresh_dim, onnx};
use crate::ops::shape::{MAX_KNOWN, with_known};
use crate::{ensure, op_home, op_struct};

op_struct! {
    /// Repeats a tensor along its axes. Inputs: x, repeats (host).
    pub struct Tile {
    }
}

op_home!(Tile, "Tile", &[onnx("Tile", 1, import_1), onnx("Tile", 6, import_6)]);

impl Tile {
    /// The copy for these dimensions, with two axes for each of the input's: the repeats (stride 0) and the elements.
    pub fn view(dims: &[usize], repeats: &[i64]) -> View {
        let strides = strides_of(dims);
        let mut v = View { dims: vec![], strides: vec![], offset: 0 };
        for (k, d) in dims.iter().enumerate() {
            v.dims.extend([repeats[k].max(0) as usize, *d]);
            v.strides.extend([0, strides[k] as i64]);
        }
        v
    }
}

impl OpDef for Tile {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Vec<Fact>> {
        cx.arity(2, 2)?;
        let (x, repeats) = (cx.input(0)?, cx.input(1)?);
        ensure!(
            repeats.dtype.is_int() && repeats.rank() == 1,
            InvalidArgument,
            "input 1: expected a vector of integers, got {repeats}"
        );
        let Some(r) = cx.dims(1)? else {
            let shape: Vec<Dim> = x.shape.iter().map(|_| fresh_dim("tile")).collect();
            return Ok(vec![Fact::new(x.dtype, shape)]);
        };
        ensure!(r.len() == x.rank(), InvalidArgument, "{} repeats for an input of rank {}", r.len(), x.rank());
        ensure!(
            r.iter().all(|v| v.as_const().is_none_or(|v| v >= 0)),
            InvalidArgument,
            "a repeat in {repeats} is negative"
        );
        let shape: Vec<Dim> = x.shape.iter().zip(&r).map(|(d, r)| d * r).collect();
        let known = match (x.as_dims(), r.as_slice()) {
            (Some(d), [n]) => n
                .as_const()
                .filter(|n| (d.len() as i64).saturating_mul(*n) <= MAX_KNOWN as i64)
                .map(|n| std::iter::repeat_n(d, n as usize).flatten().collect()),
            _ => None,
        };
        Ok(vec![with_known(Fact::new(x.dtype, shape), known)])
    }

    fn half(&self, _n_inputs: usize) -> Option<(HalfRole, Vec<usize>)> {
        Some((HalfRole::Follows, vec![0]))
    }

    fn eval(&self, cx: &EvalCx<'_>) -> Result<Vec<Tensor>> {
        let x = cx.input(0)?;
        let mut out = cx.output(0)?;
        Tile::view(x.shape(), &cx.ints(1)?).copy(x, &mut out);
        Ok(vec![out])
    }

    fn host_inputs(&self) -> Vec<usize> {
        vec![1]
    }

    fn cpu(&self, p: &Problem, _pack: &dyn PackCache) -> Result<Option<Box<dyn CpuStep>>> {
        let (Some(x), Some(r)) = (p.input(0), p.known(1)) else { return Ok(None) };
        Ok(ViewStep::boxed("tile", p, &Tile::view(&x.dims, &r.to_i64s())))
    }

    fn cuda_tactics(&self, p: &Problem, _dev: &DeviceProps, opt: &TacticOptions) -> Vec<Tactic> {
        let (Some(x), Some(view)) = (p.input(0), p.input(0).zip(p.known(1)).map(|(x, r)| Tile::view(&x.dims, &r.to_i64s()))) else { return vec![] };
        cuda::tactics(&view, x.dtype.size(), opt)
    }

    fn cuda_program(&self, tactic: &Tactic, p: &Problem, dev: &DeviceProps) -> Result<StepProgram> {
        let (Some(x), Some(view)) = (p.input(0), p.input(0).zip(p.known(1)).map(|(x, r)| Tile::view(&x.dims, &r.to_i64s()))) else {
            return Err(crate::err!(InvalidState, "an operand of a tile is not known"));
        };
        cuda::program(tactic, &view, x.dtype.size(), dev)
    }
}

/// Opset 1: a count and an axis, both as operands.
fn import_1(cx: &mut ImportCx<'_>) -> Result<Vec<ValueId>> {
    let x = cx.input(0)?;
    let (tiles, axis) = (cx.const_ints(1)?, cx.const_ints(2)?);
    ensure!(tiles.len() == 1 && axis.len() == 1, InvalidArgument, "tiles and axis must be one integer each");
    let shape = cx.shape(x);
    let mut repeats = vec![1i64; shape.rank()];
    repeats[shape.axis(axis[0])?] = tiles[0];
    let repeats = cx.constant(Tensor::from_slice(&[repeats.len()], &repeats));
    Ok(vec![cx.add(Tile {}, &[x, repeats])?])
}

fn import_6(cx: &mut ImportCx<'_>) -> Result<Vec<ValueId>> {
    let (x, repeats) = (cx.input(0)?, cx.input(1)?);
    Ok(vec![cx.add(Tile {}, &[x, repeats])?])
}
