//! The intermediate representation: what the user describes and what passes rewrite.
//!
//! A [`Graph`] is edited in two ways only: by adding nodes while it is being described, and by a [`Patch`] afterwards.

pub mod eval;
pub mod graph;
pub mod layers;
pub mod patch;
pub mod text;
pub mod verify;

pub use graph::{Graph, Node, NodeId, Port, Value, ValueId};
pub use layers::Network;
pub use patch::Patch;
