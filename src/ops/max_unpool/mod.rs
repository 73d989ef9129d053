//! Puts the results of a max pooling back to where they stood, zeros elsewhere. Inputs: x [n, c, spatial..], indices of
//! x's shape (i64), optional output_shape (integers, host). Output: the size before the pooling, or output_shape.
//!
//! An index counts in the flattened tensor that kernel, strides and pads give; with an output_shape that tensor lies at
//! the begin of every axis, as the standard's definition has it. An index out of range is an error on the host; devices
//! leave it out. Of several values for one place the last wins (on devices any).

use crate::base::tensor::strides_of;
use crate::base::{DType, Dim, Fact, Result, Shape, Tensor};
use crate::device::DeviceProps;
use crate::network::ValueId;
use crate::ops::per_output::{launch, tactic, zeros};
use crate::ops::transpose::cuda::{filled, unit};
use crate::ops::window::{AutoPad, MAX_SPATIAL, Windows};
use crate::ops::{
    Arg, DeviceOp, EvalCx, ImportCx, InferCx, KernelSpec, OpDef, Problem, StepProgram, Tactic, TacticOptions, fresh_dim,
    i64_struct, onnx,
};
use crate::{ensure, err, op_home, op_struct};

op_struct! {
    /// Puts the results of a max pooling back to where they stood. Inputs: x, indices, optional output_shape (host).
    pub struct MaxUnpool {
        pub kernel: Vec<i64>,
        /// One a spatial axis; empty: all 1.
        pub strides: Vec<i64>,
        /// Begins of all axes, then ends; empty: all 0.
        pub pads: Vec<i64>,
    }
}

op_home!(MaxUnpool, "MaxUnpool", &[onnx("MaxUnpool", 9, import)]);

/// Axes of a tensor with the most spatial ones.
const MAX_RANK: usize = MAX_SPATIAL + 2;

impl MaxUnpool {
    /// The shape that indices count in.
    fn counted(&self, x: &[Dim]) -> Result<Vec<Dim>> {
        let windows = Windows {
            strides: &self.strides,
            pads: &self.pads,
            dilations: &[],
            auto_pad: AutoPad::NotSet,
            ceil_mode: false,
        };
        let mut shape = x[..2].to_vec();
        for (axis, d) in windows.axes(&self.kernel)?.iter().zip(&x[2..]) {
            let rest = axis.kernel - axis.pad_begin - axis.pad_end;
            let size = &(&(d - &Dim::ONE) * &Dim::from(axis.stride)) + rest;
            ensure!(
                size.as_const().is_none_or(|s| s >= 0),
                InvalidArgument,
                "unpooling {d} elements leaves {size}"
            );
            shape.push(size);
        }
        Ok(shape)
    }

    fn counted_sizes(&self, x: &[usize]) -> Result<Vec<usize>> {
        let dims: Vec<Dim> = x.iter().map(|d| Dim::from(*d)).collect();
        Shape(self.counted(&dims)?).to_concrete()
    }
}

impl OpDef for MaxUnpool {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Vec<Fact>> {
        cx.arity(2, 3)?;
        let (x, indices) = (cx.input(0)?, cx.input(1)?);
        cx.float(0)?;
        cx.rank(0, self.kernel.len() + 2)?;
        let fits = |(a, b): (&Dim, &Dim)| a == b || a.as_const().is_none() || b.as_const().is_none();
        ensure!(
            indices.dtype == DType::I64 && indices.rank() == x.rank() && indices.shape.iter().zip(x.shape.iter()).all(fits),
            InvalidArgument,
            "input 1: expected i64 indices of shape {}, got {indices}",
            x.shape
        );
        let mut shape = self.counted(&x.shape)?;
        if let Some(f) = cx.opt(2) {
            ensure!(
                f.dtype.is_int() && f.rank() == 1 && f.shape[0].as_const().is_none_or(|n| n == x.rank() as i64),
                InvalidArgument,
                "input 2: expected {} integers, got {f}",
                x.rank()
            );
            shape = match cx.dims(2)? {
                Some(d) => d,
                None => x.shape.iter().map(|_| fresh_dim("max_unpool")).collect(),
            };
            ensure!(
                shape.iter().all(|d| d.as_const().is_none_or(|d| d >= 0)),
                InvalidArgument,
                "output_shape {f} has a negative size"
            );
        }
        Ok(vec![Fact::new(x.dtype, Shape(shape))])
    }

    fn eval(&self, cx: &EvalCx<'_>) -> Result<Vec<Tensor>> {
        let x = cx.input(0)?;
        let mut out = cx.output(0)?;
        let counted = self.counted_sizes(x.shape())?;
        let (from, to) = (strides_of(&counted), strides_of(out.shape()));
        let (total, sizes) = (counted.iter().product::<usize>(), out.shape().to_vec());
        let size = x.dtype().size();
        let dst = out.bytes_mut();
        for (element, index) in x.bytes().chunks_exact(size).zip(cx.ints(1)?) {
            ensure!((0..total as i64).contains(&index), InvalidArgument, "index {index} is outside of {counted:?}");
            let at = |d: usize| index as usize / from[d] % counted[d];
            if (0..sizes.len()).all(|d| at(d) < sizes[d]) {
                let place: usize = (0..sizes.len()).map(|d| at(d) * to[d]).sum();
                dst[place * size..(place + 1) * size].copy_from_slice(element);
            }
        }
        Ok(vec![out])
    }

    fn host_inputs(&self) -> Vec<usize> {
        vec![2]
    }

    fn cuda_tactics(&self, p: &Problem, _dev: &DeviceProps, _opt: &TacticOptions) -> Vec<Tactic> {
        let Some(x) = p.input(0) else { return vec![] };
        let spec = KernelSpec::new("max_unpool.cu").define("T_UNIT", unit(x.dtype.size()));
        tactic(format!("max_unpool/{}b", 8 * x.dtype.size()), spec)
    }

    fn cuda_program(&self, _tactic: &Tactic, p: &Problem, dev: &DeviceProps) -> Result<StepProgram> {
        let x = p.input(0).ok_or_else(|| err!(InvalidArgument, "input 0 is missing"))?;
        let y = &p.outputs[0];
        let mut program = zeros(y.bytes());
        let counted = filled(&self.counted_sizes(&x.dims)?, MAX_RANK, 1);
        if x.numel() > 0 && y.numel() > 0 && !counted.contains(&0) {
            let sizes = filled(&y.dims, MAX_RANK, 1);
            let params = [x.numel()].into_iter().chain(counted).chain(sizes).map(|v| v as i64);
            let args = vec![Arg::In(0), Arg::In(1), Arg::Out(0), i64_struct(params)];
            program.ops.push(DeviceOp::Launch(launch(x.numel(), args, dev)));
        }
        Ok(program)
    }
}

fn import(cx: &mut ImportCx<'_>) -> Result<Vec<ValueId>> {
    let (x, indices, shape) = (cx.input(0)?, cx.input(1)?, cx.opt(2));
    let kernel = cx.ints("kernel_shape")?.ok_or_else(|| err!(InvalidArgument, "attribute kernel_shape is missing"))?;
    let op = MaxUnpool {
        kernel,
        strides: cx.ints("strides")?.unwrap_or_default(),
        pads: cx.ints("pads")?.unwrap_or_default(),
    };
    let inputs = [Some(x), Some(indices), shape];
    Ok(vec![cx.add_opt(op, &inputs[..if shape.is_some() { 3 } else { 2 }])?])
}
