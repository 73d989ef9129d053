//! Computes an f32 network in f16 where that is safe.
//!
//! Products (`Conv`, `ConvTranspose`, `MatMul`) always run in f16: they accumulate in f32. Operators that neither grow
//! nor cancel values follow their inputs: when all that is computed among their operands is f16, so are they. All
//! others stay f32: powers, exponentials, logarithms, quotients, roots, sums over axes, squares, and what has
//! constants that f16 cannot hold. Weights beyond the range of f16 keep their product in f32, and the log says so.
//!
//! Types of graph inputs and outputs stay. One conversion serves all readers; fusion takes most of them away.

use super::promote_half::Retyper;
use crate::base::{DType, ErrorCode, Result, Tensor};
use crate::network::{Graph, Node, NodeId, ValueId};
use crate::ops::{HalfRole, Op};
use crate::passes::{Pass, PassCx};
use crate::{bail, ensure};

use crate::ops::pointwise::half::{F16_MAX, F16_MIN};

/// See the module's text.
pub struct LowerPrecision;

fn lowered(d: DType) -> DType {
    if d == DType::F32 { DType::F16 } else { d }
}

impl Pass for LowerPrecision {
    fn name(&self) -> &'static str {
        "lower_precision"
    }

    fn runs_once(&self) -> bool {
        true
    }

    fn run(&self, g: &mut Graph, cx: &PassCx<'_>) -> Result<usize> {
        let mut retyper = Retyper::default();
        let mut n_patches = 0;
        for n in g.order()? {
            let result = match decide(g, &retyper, n) {
                Ok(Some(slots)) => retyper.patch(g, cx, n, &slots, &lowered),
                Ok(None) => continue,
                Err(e) => Err(e),
            };
            match result {
                Ok((patch, memo)) => {
                    if !cx.apply(g, patch)? {
                        break;
                    }
                    retyper.twins.extend(memo);
                    n_patches += 1;
                }
                Err(e) if e.code == ErrorCode::Internal => return Err(e),
                Err(e) => cx.refuse(&g.node(n).name, &e.to_string()),
            }
        }
        Ok(n_patches)
    }
}

/// Operands to convert when the node is to run in f16; an error says why a product cannot.
fn decide(g: &Graph, retyper: &Retyper, n: NodeId) -> Result<Option<Vec<usize>>> {
    let node = g.node(n);
    let Some((role, slots)) = node.op.def().half(node.inputs.len()) else { return Ok(None) };
    if matches!(node.op, Op::Attention(_)) && is_cached(g, node) {
        return Ok(None);
    }
    let data: Vec<ValueId> = slots.iter().filter_map(|i| node.inputs.get(*i).copied().flatten()).collect();
    if !data.iter().any(|v| g.fact(*v).dtype == DType::F32) {
        return Ok(None);
    }
    let constants = || data.iter().filter_map(|v| g.as_const(*v));
    match role {
        HalfRole::Product => {
            for t in constants() {
                check_range(t)?;
            }
        }
        HalfRole::Follows => {
            let computed: Vec<&ValueId> =
                data.iter().filter(|v| g.fact(**v).dtype == DType::F32 && g.as_const(**v).is_none()).collect();
            let all_half = computed.iter().all(|v| retyper.twin(g, **v).is_some_and(|t| g.fact(t).dtype == DType::F16));
            // A conversion of an f32 value for another reader is a twin too, but the value itself was f32.
            let all_from_half = computed.iter().all(|v| is_widened(g, **v));
            if computed.is_empty() || !all_half || !all_from_half || constants().any(|t| check_range(t).is_err()) {
                return Ok(None);
            }
        }
    }
    Ok(Some(slots))
}

/// Keys come out of a cache in f32, which would be converted as a whole at every step.
fn is_cached(g: &Graph, node: &Node) -> bool {
    let keys = node.inputs.get(1).copied().flatten();
    let from = keys.and_then(|k| g.producer(k)).map(|(_, node)| &node.op);
    matches!(from, Some(Op::Concat(_) | Op::CacheUpdate(_)))
}

/// The value is a conversion from f16.
fn is_widened(g: &Graph, v: ValueId) -> bool {
    g.producer(v).is_some_and(|(_, node)| {
        super::query::pointwise(node).is_some_and(|p| super::query::is_cast(p) && p.inputs[0] == DType::F16)
    })
}

fn check_range(t: &Tensor) -> Result<()> {
    if t.dtype() != DType::F32 {
        return Ok(());
    }
    let largest = t.slice::<f32>().iter().filter(|v| v.is_finite()).fold(0f32, |m, v| m.max(v.abs())) as f64;
    ensure!(largest <= F16_MAX, Unsupported, "a constant reaches {largest:e}, beyond f16's {F16_MAX}; kept in f32");
    // A lone tiny number is an epsilon; weights may well contain a few.
    if t.numel() == 1 && largest > 0.0 && largest < F16_MIN {
        bail!(Unsupported, "the constant {largest:e} is below f16's normal numbers; kept in f32");
    }
    Ok(())
}

