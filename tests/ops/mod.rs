//! Operators: shape inference, reference computation, ONNX import and CPU steps, one module per operator.

mod pointwise;
