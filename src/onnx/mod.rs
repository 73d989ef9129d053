//! The ONNX container: files and messages, and nothing about any operator.
//!
//! [`model`] opens a model and answers for its opsets, types and constants; [`tensor`] turns one `TensorProto` into a
//! [`crate::base::Tensor`]; [`external`] finds weights that lie in files beside the model; [`attrs`] reads a node's
//! attributes with types. [`proto`] holds the generated messages.
//!
//! # Hostile input
//! A model is bytes from anywhere. What holds for every input, also a damaged one:
//! - decoding ends in a value or in an error: never a panic, and messages nest at most 100 deep;
//! - decoding takes at most 1500 bytes for each byte of the file (the worst case is a file full of empty messages, two
//!   bytes each); `raw_data` and external data are not copied while decoding;
//! - a tensor's memory is allocated only after its declared shape was found to agree with the bytes that are there;
//! - external data comes from regular files inside the model's folder, or not at all.
//!
//! Files are mapped. If another program shortens a mapped file while it is in use, the operating system ends the
//! process (SIGBUS), as with every mapped file; replacing a file by rename is safe.

pub mod attrs;
pub mod external;
pub mod importer;
pub mod model;
mod nested;
#[allow(clippy::all, missing_docs)]
#[rustfmt::skip]
pub mod proto;
mod scope;
pub mod tensor;

pub use attrs::AttrReader;
pub use external::ExternalFiles;
pub use model::{OnnxModel, value_info};
pub use tensor::{dtype_of, read_tensor_file, tensor_of, write_tensor_bytes};

#[cfg(test)]
mod tests;
