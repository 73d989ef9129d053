//! Analytic cost: how long a node must take at least, from its arithmetic and its bytes.
//!
//! Rough on purpose (within a factor of two of what our kernels reach); it decides questions that timing cannot be
//! asked yet, such as whether half precision can pay at all.

use crate::base::Result;
use crate::base::dims::Bindings;
use crate::device::DeviceProps;
use crate::network::{Graph, NodeId};
use crate::ops::HalfRole;
use crate::plan::problem_of;

/// Share of the f32 peak that plain (not tensor-core) kernels reach on middling sizes.
const REACHED: f64 = 0.3;
/// Bytes per second of memory traffic per multiprocessor: 4.3 TB/s over the 132 of an H200 (measured), times 0.7.
const BYTES_PER_SM: f64 = 4.3e12 / 132.0 * 0.7;
/// A product that takes less than this in f32 hides in what a launch costs anyway (0.5 to 1.3 us in a graph, measured).
const HIDDEN_SECONDS: f64 = 0.3e-6;

/// Seconds that a node's f32 arithmetic or its bytes take, whichever is longer.
pub fn seconds(graph: &Graph, n: NodeId, opt: &Bindings, dev: &DeviceProps) -> Result<f64> {
    let p = problem_of(graph, n, opt)?;
    let bytes: usize = p.inputs.iter().flatten().chain(&p.outputs).map(|d| d.bytes()).sum();
    // 128 lanes of a multiprocessor, two operations a lane and cycle.
    let peak = dev.n_sm as f64 * 256.0 * dev.clock_khz as f64 * 1e3;
    let arithmetic = graph.node(n).op.def().flops(&p) / (peak * REACHED).max(1.0);
    Ok(arithmetic.max(bytes as f64 / (dev.n_sm as f64 * BYTES_PER_SM).max(1.0)))
}

/// Mean seconds of the network's products, and how many there are.
pub fn mean_product_seconds(graph: &Graph, opt: &Bindings, dev: &DeviceProps) -> Result<(f64, usize)> {
    let mut sum = 0.0;
    let mut count = 0;
    for n in graph.node_ids() {
        let node = graph.node(n);
        if node.op.def().half(node.inputs.len()).is_some_and(|(role, _)| role == HalfRole::Product) {
            sum += seconds(graph, n, opt, dev)?;
            count += 1;
        }
    }
    Ok((if count > 0 { sum / count as f64 } else { 0.0 }, count))
}

/// Whether half precision can make the network faster: not when its products are so small that launching them is what
/// takes the time. Such a network keeps the accuracy of f32 at no cost.
pub fn half_pays(graph: &Graph, opt: &Bindings, dev: &DeviceProps) -> Result<bool> {
    let (mean, count) = mean_product_seconds(graph, opt, dev)?;
    let pays = count > 0 && mean >= HIDDEN_SECONDS;
    if !pays {
        crate::log_info!(
            "f16 is allowed but cannot pay here: {count} products take {:.2} us of f32 work on average, less than a launch; \
             the network stays in f32",
            mean * 1e6
        );
    }
    Ok(pays)
}
