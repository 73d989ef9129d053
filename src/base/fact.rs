//! What is known of a value before it is computed: element type, shape, and sometimes its elements.

use crate::base::{DType, Dim, Result, Shape, Tensor};
use std::fmt;
use std::sync::Arc;

/// A tensor larger than this is refused before anything is allocated. The product of all dimensions that are not 0
/// counts, so that strides and offsets of every tensor that was accepted fit 64 bits many times over.
pub const MAX_TENSOR_BYTES: usize = 1 << 40;

/// Axes that a tensor may have.
pub const MAX_RANK: usize = 64;

/// Terms that the symbolic dimensions of one tensor may have, together with its elements known as expressions.
pub const MAX_TERMS: usize = 16 << 10;

/// How deep divisions, minima and maxima may be nested in a dimension: code that walks them recurses.
pub const MAX_DEPTH: usize = 128;

/// Elements known without running the network.
#[derive(Clone, Debug)]
pub enum Known {
    /// All elements, as numbers.
    Const(Arc<Tensor>),
    /// An integer scalar or vector whose elements may be symbolic: the result of shape arithmetic, row-major.
    Dims(Arc<[Dim]>),
}

/// Type, shape and, when known, elements of a value.
#[derive(Clone, Debug)]
pub struct Fact {
    pub dtype: DType,
    pub shape: Shape,
    pub known: Option<Known>,
}

impl Fact {
    pub fn new(dtype: DType, shape: impl Into<Shape>) -> Self {
        Fact { dtype, shape: shape.into(), known: None }
    }

    pub fn of_const(tensor: Arc<Tensor>) -> Self {
        let shape = Shape::from_usizes(tensor.shape());
        Fact { dtype: tensor.dtype(), shape, known: Some(Known::Const(tensor)) }
    }

    /// An i64 vector (or scalar when `shape` is empty) of symbolic elements.
    pub fn of_dims(shape: impl Into<Shape>, dims: Vec<Dim>) -> Self {
        Fact::new(DType::I64, shape).with_dims(dims)
    }

    pub fn with_dims(mut self, dims: Vec<Dim>) -> Self {
        debug_assert_eq!(self.shape.numel(), Dim::from(dims.len()));
        self.known = Some(Known::Dims(dims.into()));
        self
    }

    pub fn rank(&self) -> usize {
        self.shape.rank()
    }

    /// Fails on a shape that no tensor may have (see [`MAX_TENSOR_BYTES`], [`MAX_RANK`]) and on expressions that grew
    /// beyond [`MAX_TERMS`] or [`MAX_DEPTH`]. What a graph holds has passed this.
    pub fn check(&self) -> Result<()> {
        let rank = self.rank();
        crate::ensure!(rank <= MAX_RANK, Unsupported, "a tensor of rank {rank}: at most {MAX_RANK} is supported");
        let mut bytes = self.dtype.size();
        for d in self.shape.iter().filter_map(|d| d.as_const()).filter(|d| *d != 0) {
            crate::ensure!(d > 0, InvalidArgument, "a shape has the dimension {d}");
            bytes = bytes.saturating_mul(d as usize);
        }
        crate::ensure!(bytes <= MAX_TENSOR_BYTES, OutOfMemory, "a tensor {}{} is too large", self.dtype, self.shape);
        let mut room = MAX_TERMS;
        let known: &[Dim] = match &self.known {
            Some(Known::Dims(d)) => d,
            _ => &[],
        };
        let fits = self.shape.iter().chain(known).all(|d| d.spend_terms(&mut room, MAX_DEPTH));
        crate::ensure!(fits, Unsupported, "the dimensions of a tensor are too long expressions");
        Ok(())
    }

    /// The constant, when every element is a known number of any type.
    pub fn as_const(&self) -> Option<&Arc<Tensor>> {
        match &self.known {
            Some(Known::Const(t)) => Some(t),
            _ => None,
        }
    }

    /// The elements as dimensions, when this is an integer (or bool) value that is known, maybe symbolically.
    pub fn as_dims(&self) -> Option<Vec<Dim>> {
        match &self.known {
            Some(Known::Dims(d)) => Some(d.to_vec()),
            Some(Known::Const(t)) if !t.dtype().is_float_like() && t.numel() <= 4096 => {
                Some(t.to_i64s().into_iter().map(Dim::from).collect())
            }
            _ => None,
        }
    }

    /// Type and shape agree; what is known of the elements does not matter.
    pub fn same_type(&self, other: &Fact) -> bool {
        self.dtype == other.dtype && self.shape == other.shape
    }
}

impl fmt::Display for Fact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.dtype, self.shape)?;
        if let Some(Known::Dims(d)) = &self.known {
            f.write_str("=(")?;
            for (i, d) in d.iter().enumerate() {
                write!(f, "{}{d}", if i > 0 { "," } else { "" })?;
            }
            f.write_str(")")?;
        }
        Ok(())
    }
}
