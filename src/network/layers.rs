//! The network as a user describes it by hand.

use super::graph::Graph;

/// A network under construction.
#[derive(Clone, Debug, Default)]
pub struct Network {
    pub graph: Graph,
}
