//! Removes nodes whose results nobody reads.
//!
//! Patches sweep behind themselves; this pass is for what the description already contained.

use crate::base::Result;
use crate::network::Graph;
use crate::passes::{Pass, PassCx};

/// See the module's text.
pub struct EliminateDead;

impl Pass for EliminateDead {
    fn name(&self) -> &'static str {
        "eliminate_dead"
    }

    fn run(&self, g: &mut Graph, _cx: &PassCx<'_>) -> Result<usize> {
        Ok(g.remove_dead())
    }
}
