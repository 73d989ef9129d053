//! Operators: shape inference, reference computation, ONNX import and CPU steps, one module per operator.

mod conv;
mod conv_transpose;
mod cuda;
mod cuda_sim;
mod matmul;
mod mover_cases;
mod movers;
mod movers_import;
mod node;
mod pad;
mod pointwise;
mod pool;
mod product_cases;
mod products_import;
mod reduce;
mod reshape;
mod resize;
mod slice;
mod steps;
