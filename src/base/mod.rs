//! The vocabulary that every other module uses. Nothing here knows a graph, an operator or a device.

pub mod attrs;
pub mod dims;
pub mod dtype;
pub mod error;
pub mod fact;
pub mod knobs;
pub mod log;
pub mod real;
pub mod small;
pub mod tensor;

pub use attrs::{AttrValue, Attrs};
pub use dims::{Dim, Shape};
pub use dtype::DType;
pub use error::{Error, ErrorCode, Result};
pub use fact::{Fact, Known};
pub use tensor::Tensor;
