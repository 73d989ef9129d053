//! The same elements under another shape: Reshape, Squeeze, Unsqueeze, Flatten, Identity.
//!
//! Inputs: x of any type, and optionally the shape or the axes as a vector of integers (host). The same integers may
//! stand in `spec` instead, and do so whenever they are numbers while a model is read. On every device this is a view:
//! it has no step. [`shape`] holds the arithmetic, `onnx.rs` the import.

mod onnx;
mod shape;

use crate::base::{Dim, Fact, Result, Tensor};
use crate::ops::shape::with_known;
use crate::ops::{HalfRole, EvalCx, InferCx, OpDef, fresh_dim};
use crate::{attr_enum, bail, ensure, err, op_home, op_struct};

attr_enum! {
    /// How `spec` (or input 1) is read.
    pub enum ReshapeMode {
        /// The new shape; 0 copies the dimension (unless `allow_zero`), -1 takes what is left.
        Shape = "shape",
        /// Axes of size 1 that go; absent: all of them.
        Squeeze = "squeeze",
        /// Axes of the result that are new and of size 1.
        Unsqueeze = "unsqueeze",
        /// One axis a, in [-rank, rank]: the result is [product before a, product from a on].
        Flatten = "flatten",
        /// No spec: the shape stays.
        Identity = "identity",
    }
}

op_struct! {
    /// The same elements under another shape: Reshape, Squeeze, Unsqueeze, Flatten, Identity. Inputs: x, optional shape or axes (host).
    pub struct Reshape {
        pub mode: ReshapeMode,
        pub spec: Option<Vec<i64>>,
        pub allow_zero: bool,
    }
}

op_home!(Reshape, "Reshape", onnx::TABLE);

impl Reshape {
    /// The same value under the same shape.
    pub fn identity() -> Reshape {
        Reshape { mode: ReshapeMode::Identity, spec: None, allow_zero: false }
    }

    /// A fixed shape; -1 takes what is left, 0 is a size.
    pub fn to_shape(spec: Vec<i64>) -> Reshape {
        Reshape { mode: ReshapeMode::Shape, spec: Some(spec), allow_zero: true }
    }

    /// The spec, from the attribute or the operand; `Ok(None)` when there is one whose elements are not known.
    fn spec(&self, cx: &InferCx<'_>) -> Result<Option<Vec<Dim>>> {
        if let Some(spec) = &self.spec {
            ensure!(cx.opt(1).is_none(), InvalidArgument, "both the attribute spec and input 1 are given");
            return Ok(Some(spec.iter().map(|v| Dim::from(*v)).collect()));
        }
        let f = cx.input(1)?;
        ensure!(f.dtype.is_int(), InvalidArgument, "input 1: expected integers, got {}", f.dtype);
        ensure!(f.rank() <= 1, InvalidArgument, "input 1: expected a vector, got {}", f.shape);
        cx.dims(1)
    }

    /// The spec as axes, which must be numbers.
    fn axes(&self, cx: &InferCx<'_>) -> Result<Vec<i64>> {
        let spec = self.spec(cx)?.and_then(|s| s.iter().map(|d| d.as_const()).collect());
        spec.ok_or_else(|| err!(Unsupported, "{}: the axes depend on data", self.mode.name()))
    }

    fn has_unknown_axes(&self, cx: &InferCx<'_>) -> Result<bool> {
        Ok(self.spec.is_none() && cx.opt(1).is_some() && self.spec(cx)?.is_none())
    }

    fn shape(&self, cx: &InferCx<'_>) -> Result<Vec<Dim>> {
        let x = cx.input(0)?;
        match self.mode {
            ReshapeMode::Identity => Ok(x.shape.to_vec()),
            ReshapeMode::Shape => match self.spec(cx)? {
                Some(spec) => shape::reshape(&x.shape, &spec, self.allow_zero),
                None => {
                    let len = cx.input(1)?.shape.numel().as_const();
                    let Some(rank) = len.filter(|n| (0..=64).contains(n)) else {
                        bail!(Unsupported, "the rank of the result depends on data (shape operand {})", cx.input(1)?);
                    };
                    Ok((0..rank).map(|_| fresh_dim("reshape")).collect())
                }
            },
            ReshapeMode::Squeeze | ReshapeMode::Unsqueeze if self.has_unknown_axes(cx)? => {
                let f = cx.input(1)?;
                let n = f.shape.numel().as_const().filter(|n| *n >= 0).and_then(|n| usize::try_from(n).ok());
                let rank = match (n, self.mode) {
                    (Some(n), ReshapeMode::Squeeze) if n > 0 => x.rank().checked_sub(n),
                    (Some(n), ReshapeMode::Unsqueeze) => Some(x.rank() + n),
                    _ => None,
                };
                let Some(rank) = rank.filter(|r| *r <= 64) else {
                    bail!(Unsupported, "{}: the rank of the result depends on data (axes {f})", self.mode.name());
                };
                Ok((0..rank).map(|_| fresh_dim("reshape")).collect())
            }
            ReshapeMode::Squeeze => {
                let axes = if self.spec.is_none() && cx.opt(1).is_none() { None } else { Some(self.axes(cx)?) };
                shape::squeeze(&x.shape, axes.as_deref())
            }
            ReshapeMode::Unsqueeze => shape::unsqueeze(&x.shape, &self.axes(cx)?),
            ReshapeMode::Flatten => match self.axes(cx)?.as_slice() {
                [axis] => shape::flatten(&x.shape, *axis),
                other => bail!(InvalidArgument, "flatten takes one axis, got {}", other.len()),
            },
        }
    }
}

impl OpDef for Reshape {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Vec<Fact>> {
        cx.arity(1, 2)?;
        let x = cx.input(0)?;
        let shape = self.shape(cx)?;
        // Only shape arithmetic is followed; large integer constants are folded as tensors.
        Ok(vec![with_known(Fact::new(x.dtype, shape), x.as_dims())])
    }

    fn half(&self, _n_inputs: usize) -> Option<(HalfRole, Vec<usize>)> {
        Some((HalfRole::Follows, vec![0]))
    }

    fn eval(&self, cx: &EvalCx<'_>) -> Result<Vec<Tensor>> {
        let out = cx.outputs.first().ok_or_else(|| crate::internal!("there is no output 0"))?;
        Ok(vec![cx.input(0)?.reshaped(&out.shape.to_concrete()?)?])
    }

    fn host_inputs(&self) -> Vec<usize> {
        vec![1]
    }

    fn is_view(&self) -> bool {
        true
    }

    fn in_place(&self, i: usize) -> bool {
        i == 0
    }
}
