//! Brings facts up to date: a constant that appeared upstream may make shapes known that were not.

use crate::base::Result;
use crate::network::Graph;
use crate::passes::{Pass, PassCx};

/// See the module's text.
pub struct RefreshFacts;

impl Pass for RefreshFacts {
    fn name(&self) -> &'static str {
        "refresh_facts"
    }

    fn run(&self, g: &mut Graph, _cx: &PassCx<'_>) -> Result<usize> {
        g.refresh_facts()
    }
}
