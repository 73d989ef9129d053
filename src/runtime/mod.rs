//! Running an engine: contexts, and the hot path in a file of its own.

pub mod context;
mod control;
mod counted;
mod dynamic;
pub mod enqueue;
pub mod exec;
mod growing;
pub mod kernels;
mod ready;
mod recorded;
mod replay;
mod staged;

pub use growing::GrowingOutput;

pub use context::{Context, LayerTimes, OutputAllocator};
