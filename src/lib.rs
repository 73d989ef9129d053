//! Sinter: an inference engine. See `ARCHITECTURE.md` for the map; the modules below stand in the order of the flow.

#[cfg(panic = "abort")]
compile_error!("Sinter must be built with panic=unwind: the C boundary turns panics into statuses");

pub mod base;
pub mod device;
pub mod network;
pub mod ops;
pub mod onnx;
