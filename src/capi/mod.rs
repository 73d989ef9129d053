//! The C API: the only place that says `extern "C"`. `include/sinter.h` is generated from these files.
//!
//! One file a C object, in the order of the header's sections; three files hold what makes the boundary safe:
//! - [`guard`]: every exported function's body is one guard. It turns an error into a status, keeps the sentence for
//!   `sinter_last_error_message`, sends it to the log, and stops panics.
//! - [`handle`]: every pointer that C passes goes through it: NULL, a handle of another type, a destroyed handle and
//!   one that another thread uses exclusively are recognized there.
//! - [`status`]: the numbers of the ABI.
//!
//! Invariants: no Rust type, panic or unwinding leaves; outputs are written on success only, but for handles, which
//! are NULL on failure; children hold counted references to their parents, so that handles are destroyed in any
//! order; a panic poisons the handle that was in exclusive use. A test scans these files for the guards and for the
//! parts of each function's comment.
//!
//! Nothing is computed here: each body translates arguments and calls the Rust API.

// Every exported function is `unsafe` because C's pointers are only as good as the caller's promises, which its comment
// states in words for C; a section "Safety" would say the same again.
#![allow(clippy::missing_safety_doc)]

pub mod attributes;
pub mod buffer;
pub mod builder;
pub mod context;
pub mod device;
pub mod engine;
mod guard;
mod handle;
pub mod layer_kinds;
pub mod layers;
pub mod layers_move;
pub mod logger;
pub mod memory;
pub mod network;
pub mod onnx;
pub mod output;
pub mod profile;
pub mod runtime;
pub mod status;
pub mod stream;
pub mod timing_cache;
pub mod tuning;
pub mod version;

/// The files whose public items make the header, in its order.
pub const HEADER_FILES: &[&str] = &[
    "version", "status", "logger", "memory", "device", "stream", "buffer", "profile", "attributes", "network",
    "layer_kinds", "layers", "layers_move", "onnx", "builder", "timing_cache", "tuning", "runtime", "engine", "context", "output",
];
