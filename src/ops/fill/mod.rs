//! A tensor of one repeated value. Input: the shape, a vector of integers (host).
//!
//! Also the home of ONNX `Constant`, which becomes a constant of the graph and no node at all.

mod cpu;
pub(crate) mod cuda;
mod eye_like;

use crate::base::{Dim, Fact, Result, Shape, Tensor};
use crate::network::ValueId;
use crate::ops::shape::{MAX_KNOWN, with_known};
use crate::device::DeviceProps;
use crate::ops::{CpuStep, EvalCx, ImportCx, InferCx, OpDef, PackCache, Problem, StepProgram, Tactic, TacticOptions, fresh_dim, onnx};
use crate::{bail, ensure, err, op_home, op_struct};
use std::sync::Arc;

op_struct! {
    /// A tensor of one repeated value. Inputs: shape (host).
    pub struct Fill {
        pub value: Arc<Tensor>,
    }
}

op_home!(
    Fill,
    "Fill",
    &[
        onnx("ConstantOfShape", 9, import_constant_of_shape),
        onnx("Constant", 1, import_constant),
        onnx("EyeLike", 9, eye_like::import),
    ]
);

/// The shape that a vector of `dims` describes, or one of fresh dimensions when only its length is known.
///
/// `what` names the operator in messages.
pub fn shape_from_operand(cx: &InferCx<'_>, i: usize, what: &str) -> Result<Shape> {
    let f = cx.input(i)?;
    ensure!(f.dtype.is_int(), InvalidArgument, "{what}: the shape must be of an integer type, got {}", f.dtype);
    ensure!(f.rank() == 1, InvalidArgument, "{what}: the shape must be a vector, got {}", f.shape);
    if let Some(dims) = f.as_dims() {
        for d in dims.iter().filter_map(|d| d.as_const()) {
            ensure!(d >= 0, InvalidArgument, "{what}: dimension {d} of the shape is negative");
        }
        return Ok(Shape(dims));
    }
    let rank = f.shape[0]
        .as_const()
        .ok_or_else(|| err!(Unsupported, "{what}: the rank of the result depends on data (shape operand {f})"))?;
    ensure!((0..=64).contains(&rank), Unsupported, "{what}: a result of rank {rank} is not supported");
    Ok(Shape((0..rank).map(|_| fresh_dim("fill")).collect()))
}

impl OpDef for Fill {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Vec<Fact>> {
        cx.arity(1, 1)?;
        ensure!(self.value.numel() == 1, InvalidArgument, "the value must be one element, got {:?}", self.value);
        let shape = shape_from_operand(cx, 0, "Fill")?;
        let known = match shape.numel().as_const() {
            Some(n) if self.value.dtype().is_int() && (0..=MAX_KNOWN as i64).contains(&n) => {
                Some(vec![Dim::from(self.value.to_i64s()[0]); n as usize])
            }
            _ => None,
        };
        Ok(vec![with_known(Fact::new(self.value.dtype(), shape), known)])
    }

    fn eval(&self, cx: &EvalCx<'_>) -> Result<Vec<Tensor>> {
        let mut out = cx.output(0)?;
        let size = out.dtype().size();
        for chunk in out.bytes_mut().chunks_exact_mut(size) {
            chunk.copy_from_slice(self.value.bytes());
        }
        Ok(vec![out])
    }

    fn host_inputs(&self) -> Vec<usize> {
        vec![0]
    }

    fn cpu(&self, p: &Problem, _pack: &dyn PackCache) -> Result<Option<Box<dyn CpuStep>>> {
        Ok(cpu::step(self, p))
    }

    fn cuda_tactics(&self, _p: &Problem, _dev: &DeviceProps, _opt: &TacticOptions) -> Vec<Tactic> {
        cuda::tactics(self)
    }

    fn cuda_program(&self, _tactic: &Tactic, p: &Problem, dev: &DeviceProps) -> Result<StepProgram> {
        cuda::program(self, p, dev)
    }
}

fn import_constant_of_shape(cx: &mut ImportCx<'_>) -> Result<Vec<ValueId>> {
    let shape = cx.input(0)?;
    let value = match cx.attrs.tensor("value")? {
        Some(t) => {
            ensure!(t.numel() == 1, InvalidArgument, "attribute value: expected one element, got {:?}", t.shape());
            Arc::new(t.reshaped(&[])?)
        }
        None => Arc::new(Tensor::scalar(0.0f32)),
    };
    Ok(vec![cx.add(Fill { value }, &[shape])?])
}

fn import_constant(cx: &mut ImportCx<'_>) -> Result<Vec<ValueId>> {
    let tensor = if let Some(t) = cx.attrs.tensor("value")? {
        (*t).clone()
    } else if let Some(v) = cx.attrs.float("value_float")? {
        Tensor::scalar(v)
    } else if let Some(v) = cx.attrs.floats("value_floats")? {
        Tensor::from_slice(&[v.len()], &v)
    } else if let Some(v) = cx.attrs.int("value_int")? {
        Tensor::scalar(v)
    } else if let Some(v) = cx.attrs.ints("value_ints")? {
        Tensor::from_slice(&[v.len()], &v)
    } else {
        bail!(
            Unsupported,
            "expected one of the attributes value, value_float, value_floats, value_int and value_ints: strings and \
             sparse tensors are not supported"
        );
    };
    Ok(vec![cx.constant(tensor)])
}
