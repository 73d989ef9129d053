//! Computes at build time what does not depend on the inputs.
//!
//! A node folds when its outputs' elements are known from shape arithmetic alone, or when all of its operands are
//! constants and computing it does not blow the engine up: an output of at most 64 KiB, or of at most twice the bytes
//! that went in, or one that is only read where it folds on or serves as weights. No single result above 512 MiB, no
//! product of more than [`MAX_FLOPS`], and all results together within the run's share ([`PassCx::take_folded`]).
//! Random operators and nodes that give a graph output stay.

use super::query::n_bytes;
use crate::base::{DType, Dim, Fact, Known, Result, Tensor};
use crate::bail;
use crate::base::dims::Bindings;
use crate::network::{Graph, Node, NodeId, Patch, ValueId, eval};
use crate::ops::{CpuArgs, Op, PackCache, Packed, Problem};
use crate::passes::{NodePass, PassCx};
use crate::plan::problem_of;
use std::sync::Arc;

const SMALL_BYTES: usize = 64 << 10;
const MAX_BYTES: usize = 512 << 20;
/// Work of one node in the plain reference computation: about a second.
const MAX_FLOPS: f64 = 5e8;

/// Elements from which on an element-wise node is computed by its CPU step.
const LONG: usize = 1 << 16;

/// See the module's text.
pub struct FoldConstants;

impl NodePass for FoldConstants {
    fn name(&self) -> &'static str {
        "fold_constants"
    }

    fn rewrite(&self, g: &Graph, cx: &PassCx<'_>, n: NodeId) -> Result<Option<Patch>> {
        let node = g.node(n);
        // How long a graph inside of a node runs is not known.
        if node.op.def().is_stateful() || !node.op.def().bodies().is_empty() || node.outputs.iter().any(|v| g.is_output(*v)) {
            return Ok(None);
        }
        let known: Option<Vec<Arc<Tensor>>> = node.outputs.iter().map(|v| known_elements(g.fact(*v))).collect();
        let results = match known {
            Some(results) => results,
            None => {
                let ins: Option<Vec<Option<Arc<Tensor>>>> = node
                    .inputs
                    .iter()
                    .map(|v| v.map_or(Some(None), |v| g.as_const(v).cloned().map(Some)))
                    .collect();
                let Some(ins) = ins else { return Ok(None) };
                let bytes = check_size(g, node)?;
                let problem = problem_of(g, n, &Bindings::new()).ok();
                let flops = problem.as_ref().map_or(0.0, |p| node.op.def().flops(p));
                if flops > MAX_FLOPS {
                    bail!(Unsupported, "its constant result would take {flops:.1e} operations to compute");
                }
                if !cx.take_folded(bytes) {
                    bail!(OutOfMemory, "the constants that were computed take too much memory already");
                }
                let fast = problem.filter(|p| is_long(node, p)).map(|p| by_step(node, &p, &ins)).transpose()?.flatten();
                match fast {
                    Some(results) => results,
                    None => eval::eval_node(node, &ins)?,
                }
                .into_iter()
                .map(Arc::new)
                .collect()
            }
        };
        let mut patch = cx.patch(g, &node.name);
        for (v, t) in node.outputs.iter().zip(results) {
            if g.value(*v).consumers.is_empty() {
                continue;
            }
            let c = patch.add_const(&g.value(*v).name, t);
            patch.shunt(*v, c);
        }
        Ok(Some(patch))
    }
}

/// Element-wise and of so many elements that the reference would take its time: dequantized weights.
fn is_long(node: &Node, p: &Problem) -> bool {
    matches!(node.op, Op::Pointwise(_)) && p.outputs.iter().any(|d| d.numel() > LONG)
}

/// The results by the operator's CPU step, when it has one.
fn by_step(node: &Node, p: &Problem, ins: &[Option<Arc<Tensor>>]) -> Result<Option<Vec<Tensor>>> {
    struct NoPack;
    impl PackCache for NoPack {
        fn get_or_pack(&self, _slot: &str, make: &mut dyn FnMut() -> Packed) -> Packed {
            make()
        }
    }
    let same = ins.iter().zip(&p.inputs).all(|(t, d)| match (t, d) {
        (Some(t), Some(d)) => t.dtype() == d.dtype && t.shape() == d.dims,
        (t, d) => t.is_none() && d.is_none(),
    });
    if !same || ins.len() != p.inputs.len() {
        return Ok(None);
    }
    let Some(step) = node.op.def().cpu(p, &NoPack)? else { return Ok(None) };
    let mut work = Tensor::zeros(DType::U8, &[step.workspace()]);
    let mut out: Vec<Tensor> = p.outputs.iter().map(|d| Tensor::zeros(d.dtype, &d.dims)).collect();
    let inputs: Vec<*const u8> = ins.iter().map(|t| t.as_ref().map_or(std::ptr::null(), |t| t.bytes().as_ptr())).collect();
    let outputs: Vec<*mut u8> = out.iter_mut().map(|t| t.bytes_mut().as_mut_ptr()).collect();
    // SAFETY: operands, results and scratch are as the problem that the step was made for says.
    unsafe { step.run(&CpuArgs { inputs: &inputs, outputs: &outputs, work: work.bytes_mut().as_mut_ptr() }) };
    Ok(Some(out))
}

/// The elements, when inference knows all of them as numbers.
fn known_elements(f: &Fact) -> Option<Arc<Tensor>> {
    match f.known.as_ref()? {
        Known::Const(t) => Some(t.clone()),
        Known::Dims(dims) => {
            let ints: Option<Vec<i64>> = dims.iter().map(Dim::as_const).collect();
            let shape = f.shape.concrete()?;
            Some(Arc::new(Tensor::from_slice(&shape, &ints?).cast(f.dtype)))
        }
    }
}

/// Bytes of the results, when they are few enough.
fn check_size(g: &Graph, node: &Node) -> Result<usize> {
    let bytes_in: usize = node.inputs.iter().flatten().filter_map(|v| n_bytes(g, *v)).sum();
    let mut bytes_out = 0usize;
    for v in &node.outputs {
        // A shape that depends on data cannot be known before; its node is small in practice (NonZero, Range).
        bytes_out = bytes_out.saturating_add(n_bytes(g, *v).unwrap_or(0));
    }
    if bytes_out > MAX_BYTES {
        bail!(OutOfMemory, "its constant result of {bytes_out} bytes is above the limit of {MAX_BYTES}");
    }
    if bytes_out <= SMALL_BYTES.max(2 * bytes_in) || node.outputs.iter().all(|v| only_feeds_weights(g, *v)) {
        return Ok(bytes_out);
    }
    bail!(Unsupported, "its result of {bytes_out} bytes is much larger than its {bytes_in} bytes of operands")
}

/// Every reader folds too, or reads the value as weights.
fn only_feeds_weights(g: &Graph, v: ValueId) -> bool {
    g.value(v).consumers.iter().all(|c| {
        let node = g.node(*c);
        let is_weight = matches!(node.op, Op::Conv(_) | Op::ConvTranspose(_) | Op::MatMul(_))
            && node.inputs.first().copied().flatten() != Some(v);
        is_weight || node.inputs.iter().flatten().all(|i| *i == v || g.as_const(*i).is_some())
    })
}
