//! What kinds of layers there are: the numbers that the functions of `layers.rs` and `layers_move.rs` take.

/// Kinds of pooling.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SinterPooling(pub i32);

impl SinterPooling {
    pub const MAX: Self = Self(0);
    pub const AVERAGE: Self = Self(1);
}

/// Activation functions; alpha and beta are used where the comment says so.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SinterActivation(pub i32);

impl SinterActivation {
    /// max(x, 0)
    pub const RELU: Self = Self(0);
    pub const SIGMOID: Self = Self(1);
    pub const TANH: Self = Self(2);
    /// x below zero times alpha.
    pub const LEAKY_RELU: Self = Self(3);
    /// alpha (exp x - 1) below zero.
    pub const ELU: Self = Self(4);
    /// beta (max(0, x) + min(0, alpha (exp x - 1))).
    pub const SELU: Self = Self(5);
    /// max(0, x) + min(0, alpha (exp(x / alpha) - 1)).
    pub const CELU: Self = Self(6);
    /// min(max(x, alpha), beta).
    pub const CLIP: Self = Self(7);
    /// log(1 + exp x)
    pub const SOFTPLUS: Self = Self(8);
    /// x / (1 + |x|)
    pub const SOFTSIGN: Self = Self(9);
    /// clip(alpha x + beta, 0, 1)
    pub const HARD_SIGMOID: Self = Self(10);
    /// x clip(x / 6 + 1/2, 0, 1)
    pub const HARD_SWISH: Self = Self(11);
    /// x above alpha, otherwise 0.
    pub const THRESHOLDED_RELU: Self = Self(12);
    /// x/2 (1 + erf(x / sqrt 2))
    pub const GELU_ERF: Self = Self(13);
    /// The approximation of GELU by tanh.
    pub const GELU_TANH: Self = Self(14);
    /// x sigmoid(x)
    pub const SILU: Self = Self(15);
    /// x tanh(softplus x)
    pub const MISH: Self = Self(16);
    /// x + beta below -alpha, x - beta above alpha, otherwise 0.
    pub const SHRINK: Self = Self(17);
}

/// Functions of two tensors, element by element, with numpy's broadcasting.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SinterBinary(pub i32);

impl SinterBinary {
    pub const ADD: Self = Self(0);
    pub const SUB: Self = Self(1);
    pub const MUL: Self = Self(2);
    pub const DIV: Self = Self(3);
    pub const POW: Self = Self(4);
    pub const MIN: Self = Self(5);
    pub const MAX: Self = Self(6);
    /// Remainder with the sign of the divisor; integers only.
    pub const MOD: Self = Self(7);
    /// To bool, as the next four.
    pub const EQUAL: Self = Self(8);
    pub const LESS: Self = Self(9);
    pub const LESS_EQUAL: Self = Self(10);
    pub const GREATER: Self = Self(11);
    pub const GREATER_EQUAL: Self = Self(12);
    /// Of bools, as the next two.
    pub const AND: Self = Self(13);
    pub const OR: Self = Self(14);
    pub const XOR: Self = Self(15);
}

/// Functions of one tensor, element by element.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SinterUnary(pub i32);

impl SinterUnary {
    pub const NEG: Self = Self(0);
    pub const ABS: Self = Self(1);
    pub const SIGN: Self = Self(2);
    pub const EXP: Self = Self(3);
    pub const LOG: Self = Self(4);
    pub const SQRT: Self = Self(5);
    pub const RECIPROCAL: Self = Self(6);
    pub const FLOOR: Self = Self(7);
    pub const CEIL: Self = Self(8);
    /// Half to even.
    pub const ROUND: Self = Self(9);
    pub const ERF: Self = Self(10);
    pub const SIN: Self = Self(11);
    pub const COS: Self = Self(12);
    pub const TAN: Self = Self(13);
    pub const ASIN: Self = Self(14);
    pub const ACOS: Self = Self(15);
    pub const ATAN: Self = Self(16);
    pub const SINH: Self = Self(17);
    pub const COSH: Self = Self(18);
    pub const ASINH: Self = Self(19);
    pub const ACOSH: Self = Self(20);
    pub const ATANH: Self = Self(21);
    /// Of bools.
    pub const NOT: Self = Self(22);
    /// To bool, as the next.
    pub const IS_NAN: Self = Self(23);
    pub const IS_INF: Self = Self(24);
}

/// What a reduction makes of the elements along its axes.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SinterReduction(pub i32);

impl SinterReduction {
    pub const SUM: Self = Self(0);
    pub const MEAN: Self = Self(1);
    pub const MAX: Self = Self(2);
    pub const MIN: Self = Self(3);
    pub const PROD: Self = Self(4);
    /// Sum of absolute values.
    pub const L1: Self = Self(5);
    /// Root of the sum of squares.
    pub const L2: Self = Self(6);
}

/// How a resize makes new elements.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SinterResize(pub i32);

impl SinterResize {
    /// The element at floor(x / scale).
    pub const NEAREST: Self = Self(0);
    /// Linear between neighbours, with half-pixel centres.
    pub const LINEAR: Self = Self(1);
    /// Linear, with the corner elements kept.
    pub const LINEAR_ALIGN_CORNERS: Self = Self(2);
}

/// What padding is filled with.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SinterPadding(pub i32);

impl SinterPadding {
    /// A value.
    pub const CONSTANT: Self = Self(0);
    /// The mirror image, without the element at the edge.
    pub const REFLECT: Self = Self(1);
    /// The element at the edge.
    pub const EDGE: Self = Self(2);
}
