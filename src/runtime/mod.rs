//! Running an engine: contexts, and the hot path in a file of its own.

pub mod context;
pub mod enqueue;
pub mod exec;
pub mod kernels;

pub use context::{Context, LayerTimes};
