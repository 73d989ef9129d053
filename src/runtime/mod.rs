//! Running an engine: contexts, and the hot path in a file of its own.

pub mod context;
mod control;
mod counted;
mod dynamic;
pub mod enqueue;
pub mod exec;
pub mod kernels;
mod staged;

pub use context::{Context, LayerTimes, OutputAllocator};
