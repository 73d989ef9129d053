//! Operators: shape inference, reference computation, ONNX import and CPU steps, one module per operator.

mod cases;
mod conv;
mod conv_transpose;
mod cpu_cases;
mod cubin;
mod cuda;
mod cuda_cases;
mod cuda_sim;
mod einsum_import;
mod matmul;
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
