//! The activation functions that ONNX names for recurrent layers.

use crate::base::Result;
use crate::device::cpu::recurrent as core;
use crate::device::cpu::vec::Unary;
use crate::err;

/// Which function. The numbers are those of `kernels/recurrent.cu`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ActivationKind {
    Tanh = 0,
    Sigmoid = 1,
    Relu = 2,
    Affine = 3,
    LeakyRelu = 4,
    ThresholdedRelu = 5,
    ScaledTanh = 6,
    HardSigmoid = 7,
    Elu = 8,
    Softsign = 9,
    Softplus = 10,
}

use ActivationKind::*;

/// Name in lower case, function, and the defaults of alpha and beta where it takes them.
const TABLE: &[(&str, ActivationKind, Option<f32>, Option<f32>)] = &[
    ("tanh", Tanh, None, None),
    ("sigmoid", Sigmoid, None, None),
    ("relu", Relu, None, None),
    ("affine", Affine, Some(1.0), Some(0.0)),
    ("leakyrelu", LeakyRelu, Some(0.01), None),
    ("thresholdedrelu", ThresholdedRelu, Some(1.0), None),
    ("scaledtanh", ScaledTanh, Some(1.0), Some(1.0)),
    ("hardsigmoid", HardSigmoid, Some(0.2), Some(0.5)),
    ("elu", Elu, Some(1.0), None),
    ("softsign", Softsign, None, None),
    ("softplus", Softplus, None, None),
];

/// A function with its numbers.
#[derive(Clone, Copy, Debug)]
pub struct Activation {
    pub kind: ActivationKind,
    pub alpha: f32,
    pub beta: f32,
}

fn find(name: &str) -> Result<&'static (&'static str, ActivationKind, Option<f32>, Option<f32>)> {
    TABLE.iter().find(|t| t.0 == name).ok_or_else(|| err!(Unsupported, "activation {name:?} is not known"))
}

/// Default alpha and beta of a function; `None` where it takes none.
pub fn defaults(name: &str) -> Result<(Option<f32>, Option<f32>)> {
    find(name).map(|t| (t.2, t.3))
}

impl Activation {
    pub fn new(name: &str, alpha: f32, beta: f32) -> Result<Activation> {
        find(name).map(|t| Activation { kind: t.1, alpha, beta })
    }

    pub fn tanh() -> Activation {
        Activation { kind: Tanh, alpha: 0.0, beta: 0.0 }
    }

    pub fn eval(&self, x: f64) -> f64 {
        let (a, b) = (self.alpha as f64, self.beta as f64);
        match self.kind {
            Tanh => x.tanh(),
            Sigmoid => 1.0 / (1.0 + (-x).exp()),
            Relu => if x < 0.0 { 0.0 } else { x },
            Affine => a * x + b,
            LeakyRelu => if x < 0.0 { a * x } else { x },
            ThresholdedRelu => if x >= a || x.is_nan() { x } else { 0.0 },
            ScaledTanh => a * (b * x).tanh(),
            HardSigmoid => (a * x + b).clamp(0.0, 1.0),
            Elu => if x < 0.0 { a * x.exp_m1() } else { x },
            Softsign => x / (1.0 + x.abs()),
            Softplus => x.max(0.0) + (-x.abs()).exp().ln_1p(),
        }
    }

    /// The same for the CPU's core.
    pub fn core(&self) -> core::Activation {
        core::Activation::Plain(match self.kind {
            Tanh => Unary::Tanh,
            Sigmoid => Unary::Sigmoid,
            Relu => Unary::Relu,
            Affine => Unary::Affine(self.alpha, self.beta),
            LeakyRelu => Unary::LeakyRelu(self.alpha),
            ThresholdedRelu => return core::Activation::ThresholdedRelu(self.alpha),
            ScaledTanh => return core::Activation::ScaledTanh(self.alpha, self.beta),
            HardSigmoid => Unary::HardSigmoid(self.alpha, self.beta),
            Elu => Unary::Elu(self.alpha),
            Softsign => Unary::Softsign,
            Softplus => Unary::Softplus,
        })
    }
}
