//! Convolutions and what is between them have their channels last.
//!
//! Tensor cores read channels of a pixel as vectors, so on CUDA a convolution of half precision wants its channels last,
//! and the network should change the order of channels where it begins and where it ends, not at each convolution. A
//! tensor of rank 3 or more has two orders: as it is written ([n, c, ..]), and with axis 1 last ([n, .., c]). Which nodes
//! work in which order is decided for the graph as a whole, by the cheapest cut (`plan.rs`): each convolution that keeps
//! its channels first costs what its slower kernel costs, each value that is wanted in another order than its own costs
//! a transpose, once. Operators that do not care about the order of axes go with their neighbours. Then the graph is
//! rewritten in one patch (`rewrite.rs`): weights are transposed now, a transpose that only moves axes of size 1 is a
//! reshape, a convolution of few channels reads them first and gives them last.

mod min_cut;
mod plan;
mod rewrite;

use super::driver::is_refusal;
use crate::base::Result;
use crate::network::{Graph, NodeId, Patch};
use crate::passes::{Pass, PassCx, Target};
use plan::Plan;
use rewrite::Rewrite;
use std::collections::HashSet;

/// Nodes that may turn out to keep their order before the pass gives up.
const MAX_TRIES: usize = 16;

/// See the module's text.
pub struct ChannelsLast;

impl Pass for ChannelsLast {
    fn name(&self) -> &'static str {
        "channels_last"
    }

    /// What was left as it is stays: with epilogues inside, its costs would no longer compare.
    fn runs_once(&self) -> bool {
        true
    }

    fn run(&self, g: &mut Graph, cx: &PassCx<'_>) -> Result<usize> {
        if !matches!(cx.options.target, Target::Cuda { sm } if sm >= 80) || cx.is_stopped() {
            return Ok(0);
        }
        let mut fixed = HashSet::new();
        for _ in 0..MAX_TRIES {
            let plan = Plan::new(g, cx, &fixed)?;
            if plan.convolutions == 0 {
                return Ok(0);
            }
            match patch(g, cx, &plan) {
                Ok((patch, transposes)) => {
                    let n = plan.convolutions;
                    if !cx.apply(g, patch)? {
                        return Ok(0);
                    }
                    crate::log_info!("channels_last: {n} convolutions, {transposes} transposes left");
                    return Ok(1);
                }
                Err((node, e)) if is_refusal(e.code) => {
                    cx.refuse(&g.node(node).name, &e.to_string());
                    fixed.insert(node);
                }
                Err((_, e)) => return Err(e),
            }
        }
        Ok(0)
    }
}

/// The patch and the transposes in it; on failure also the node that does not follow.
fn patch(g: &Graph, cx: &PassCx<'_>, plan: &Plan) -> std::result::Result<(Patch, usize), (NodeId, crate::base::Error)> {
    let mut r = Rewrite::new(g, plan, cx.patch(g, &g.name));
    for n in &plan.order {
        r.node(*n).map_err(|e| (*n, e))?;
    }
    Ok(r.finish())
}
