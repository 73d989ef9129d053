//! Moves blocks between channels and space; `inverse` is SpaceToDepth. Input: x [n,c,h,w] of any type.
//!
//! `DCR` has the channel blocks outermost among the channels (depth, column, row), `CRD` innermost.

use crate::base::{Dim, Fact, Result, Shape, Tensor};
use crate::network::ValueId;
use crate::ops::transpose::cpu::ViewStep;
use crate::ops::transpose::cuda;
use crate::ops::transpose::strided::View;
use crate::device::DeviceProps;
use crate::ops::{HalfRole, CpuStep, EvalCx, ImportCx, InferCx, OpDef, PackCache, Problem, StepProgram, Tactic, TacticOptions, onnx};
use crate::{attr_enum, ensure, err, op_home, op_struct};

attr_enum! {
    /// Order of the channel blocks.
    pub enum DepthMode { Dcr = "DCR", Crd = "CRD" }
}

op_struct! {
    /// Moves blocks between channels and space; `inverse` is SpaceToDepth. Inputs: x [n,c,h,w].
    pub struct DepthToSpace {
        pub block: i64,
        pub mode: DepthMode,
        pub inverse: bool,
    }
}

op_home!(
    DepthToSpace,
    "DepthToSpace",
    &[onnx("DepthToSpace", 1, import), onnx("SpaceToDepth", 1, import_inverse)]
);

impl DepthToSpace {
    /// The copy for an input of these dimensions, as six axes.
    pub fn view(&self, dims: &[usize]) -> View {
        let (n, c, h, w) = (dims[0], dims[1], dims[2], dims[3]);
        let b = self.block as usize;
        match (self.inverse, self.mode) {
            (false, DepthMode::Dcr) => View::dense(&[n, b, b, c / (b * b), h, w]).permuted(&[0, 3, 4, 1, 5, 2]),
            (false, DepthMode::Crd) => View::dense(&[n, c / (b * b), b, b, h, w]).permuted(&[0, 1, 4, 2, 5, 3]),
            (true, DepthMode::Dcr) => View::dense(&[n, c, h / b, b, w / b, b]).permuted(&[0, 3, 5, 1, 2, 4]),
            (true, DepthMode::Crd) => View::dense(&[n, c, h / b, b, w / b, b]).permuted(&[0, 1, 3, 5, 2, 4]),
        }
    }
}

impl OpDef for DepthToSpace {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Vec<Fact>> {
        cx.arity(1, 1)?;
        cx.rank(0, 4)?;
        ensure!((1..=1 << 20).contains(&self.block), InvalidArgument, "blocksize {} is not positive", self.block);
        let x = cx.input(0)?;
        let b = self.block;
        // A symbolic size is taken to be a multiple of the block; the numbers at run time are checked.
        let div = |d: &Dim, by: i64, what: &str| -> Result<Dim> {
            ensure!(
                d.as_const().is_none_or(|v| v % by == 0),
                InvalidArgument,
                "{what} of {} is not a multiple of {by}",
                x.shape
            );
            d.floor_div(&Dim::from(by)).ok_or_else(|| err!(InvalidArgument, "blocksize is 0"))
        };
        let [n, c, h, w] = [0, 1, 2, 3].map(|i| x.shape[i].clone());
        let shape = if self.inverse {
            vec![n, c * (b * b), div(&h, b, "height")?, div(&w, b, "width")?]
        } else {
            vec![n, div(&c, b * b, "channels")?, h * b, w * b]
        };
        Ok(vec![Fact::new(x.dtype, Shape(shape))])
    }

    fn half(&self, _n_inputs: usize) -> Option<(HalfRole, Vec<usize>)> {
        Some((HalfRole::Follows, vec![0]))
    }

    fn eval(&self, cx: &EvalCx<'_>) -> Result<Vec<Tensor>> {
        let x = cx.input(0)?;
        let mut out = cx.output(0)?;
        self.view(x.shape()).copy(x, &mut out);
        Ok(vec![out])
    }

    fn cpu(&self, p: &Problem, _pack: &dyn PackCache) -> Result<Option<Box<dyn CpuStep>>> {
        let Some(x) = p.input(0) else { return Ok(None) };
        Ok(ViewStep::boxed("depth_to_space", p, &self.view(&x.dims)))
    }

    fn cuda_tactics(&self, p: &Problem, _dev: &DeviceProps, opt: &TacticOptions) -> Vec<Tactic> {
        let (Some(x), Some(view)) = (p.input(0), p.input(0).map(|x| self.view(&x.dims))) else { return vec![] };
        cuda::tactics(&view, x.dtype.size(), opt)
    }

    fn cuda_program(&self, tactic: &Tactic, p: &Problem, dev: &DeviceProps) -> Result<StepProgram> {
        let (Some(x), Some(view)) = (p.input(0), p.input(0).map(|x| self.view(&x.dims))) else {
            return Err(crate::err!(InvalidState, "an operand of a depth_to_space is not known"));
        };
        cuda::program(tactic, &view, x.dtype.size(), dev)
    }
}

fn block_size(cx: &ImportCx<'_>) -> Result<i64> {
    cx.attrs.int("blocksize")?.ok_or_else(|| err!(InvalidArgument, "attribute blocksize is missing"))
}

fn import(cx: &mut ImportCx<'_>) -> Result<Vec<ValueId>> {
    let x = cx.input(0)?;
    let block = block_size(cx)?;
    let mode = cx.string("mode", "DCR")?;
    let mode = DepthMode::from_name(&mode)
        .ok_or_else(|| err!(InvalidArgument, "attribute mode: expected DCR or CRD, got {mode:?}"))?;
    Ok(vec![cx.add(DepthToSpace { block, mode, inverse: false }, &[x])?])
}

fn import_inverse(cx: &mut ImportCx<'_>) -> Result<Vec<ValueId>> {
    let x = cx.input(0)?;
    let block = block_size(cx)?;
    Ok(vec![cx.add(DepthToSpace { block, mode: DepthMode::Dcr, inverse: true }, &[x])?])
}
