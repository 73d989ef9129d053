//! Sinter: an inference engine. It takes a trained network, rewrites it, chooses kernels, plans memory, and gives an
//! engine that is stored and then run again and again on an NVIDIA GPU or on the CPU.
//!
//! The modules stand in the order of the flow; `ARCHITECTURE.md` is the map.

#[cfg(panic = "abort")]
compile_error!("Sinter must be built with panic=unwind: the C boundary turns panics into statuses");

pub mod base;
pub mod device;
pub mod network;
pub mod ops;

pub mod onnx;
pub mod passes;

pub mod autotune;
pub mod builder;
pub mod engine;
pub mod plan;
pub mod runtime;

pub mod capi;

/// Version of this library: major * 1,000,000 + minor * 1,000 + patch.
pub const VERSION_PACKED: u32 =
    number(env!("CARGO_PKG_VERSION_MAJOR")) * 1_000_000 + number(env!("CARGO_PKG_VERSION_MINOR")) * 1_000 + number(env!("CARGO_PKG_VERSION_PATCH"));

/// A decimal number of Cargo's, at compile time.
const fn number(text: &str) -> u32 {
    let b = text.as_bytes();
    let (mut n, mut i) = (0, 0);
    while i < b.len() {
        n = n * 10 + (b[i] - b'0') as u32;
        i += 1;
    }
    n
}

/// `major.minor.patch` of a packed version.
pub fn version_text(packed: u32) -> String {
    format!("{}.{}.{}", packed / 1_000_000, packed / 1_000 % 1_000, packed % 1_000)
}
