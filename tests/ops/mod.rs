//! Operators: shape inference, reference computation, ONNX import and CPU steps, one module per operator.

mod conv;
mod conv_transpose;
mod cuda;
mod cuda_sim;
mod matmul;
mod pointwise;
mod pool;
mod steps;
