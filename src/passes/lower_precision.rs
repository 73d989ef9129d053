//! Computes an f32 network in f16 where that is safe.
//!
//! Products (`Conv`, `ConvTranspose`, `MatMul`) run in f16: they accumulate in f32. Operators that neither grow nor cancel
//! values follow their inputs: when one that is computed is f16 and the others keep to its range (`half_plan.rs`), they
//! are f16, so that no f32 tensor travels along a residual stream. Normalizations compute their statistics in f32 and
//! give f16 whatever they read. All others stay f32: powers, exponentials, logarithms, quotients, roots, sums over axes,
//! squares, and what has constants that f16 cannot hold. What leads into a logarithm stays f32 with its products, and so
//! do the element-wise nodes in front of f32 outputs. Weights beyond the range of f16 keep their product in f32. The log
//! says how many products stay and why.
//!
//! Types of graph inputs and outputs stay. One conversion serves all readers; fusion takes most of them away.

use super::half_plan::{HalfPlan, Tame, check_range, is_widened, params_fit};
use super::promote_half::Retyper;
use crate::base::{DType, ErrorCode, Result};
use crate::bail;
use crate::network::{Graph, Node, NodeId, ValueId};
use crate::ops::{HalfRole, Op};
use crate::passes::{Pass, PassCx};

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
        let plan = HalfPlan::new(g)?;
        let mut tame = Tame::default();
        let (mut n_patches, mut n_kept) = (0, 0);
        for n in g.order()? {
            let is_product = role_of(g, n) == Some(HalfRole::Product);
            let result = match decide(g, &retyper, &plan, &mut tame, n) {
                Ok(Some(slots)) => retyper.patch(g, cx, n, &slots, &lowered),
                Ok(None) => continue,
                Err(e) => {
                    n_kept += is_product as usize;
                    Err(e)
                }
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
        if n_kept > 0 {
            crate::log_info!("lower_precision: {n_kept} products stay in f32, each with its reason in the verbose log");
        }
        Ok(n_patches)
    }
}

fn role_of(g: &Graph, n: NodeId) -> Option<HalfRole> {
    let node = g.node(n);
    node.op.def().half(node.inputs.len()).map(|(role, _)| role)
}

/// Operands to convert when the node is to run in f16; an error says why a product cannot.
fn decide(g: &Graph, retyper: &Retyper, plan: &HalfPlan, tame: &mut Tame, n: NodeId) -> Result<Option<Vec<usize>>> {
    let node = g.node(n);
    let Some((role, slots)) = node.op.def().half(node.inputs.len()) else { return Ok(None) };
    if matches!(node.op, Op::Attention(_)) && is_cached(g, node) {
        return Ok(None);
    }
    let data: Vec<ValueId> = slots.iter().filter_map(|i| node.inputs.get(*i).copied().flatten()).collect();
    if !data.iter().any(|v| g.fact(*v).dtype == DType::F32) {
        return Ok(None);
    }
    if plan.is_exact(n) {
        match role {
            HalfRole::Product => bail!(Unsupported, "its result goes into a logarithm; kept in f32"),
            HalfRole::Follows => return Ok(None),
        }
    }
    let constants = || data.iter().filter_map(|v| g.as_const(*v));
    match role {
        HalfRole::Product => {
            for t in constants() {
                check_range(t)?;
            }
        }
        HalfRole::Follows => {
            let computed: Vec<ValueId> =
                data.iter().copied().filter(|v| g.fact(*v).dtype == DType::F32 && g.as_const(*v).is_none()).collect();
            let has_twin = |v: ValueId| retyper.twin(g, v).is_some_and(|t| g.fact(t).dtype == DType::F16);
            // A conversion of an f32 value for another reader is a twin too, but the value itself was f32.
            let is_half = |v: ValueId| is_widened(g, v) && has_twin(v);
            if computed.is_empty() || plan.is_tail(n) || constants().any(|t| check_range(t).is_err()) {
                return Ok(None);
            }
            if !computed.iter().any(|v| is_half(*v)) {
                return Ok(narrowing(g, node));
            }
            if !computed.iter().all(|v| tame.is_tame(g, *v, &has_twin)) {
                return Ok(None);
            }
        }
    }
    Ok(Some(slots))
}

/// A normalization of f32 rows gives f16 when its scale and bias are f16: what reads it then starts there.
fn narrowing(g: &Graph, node: &Node) -> Option<Vec<usize>> {
    let Op::Normalize(op) = &node.op else { return None };
    let has_params = node.inputs.iter().skip(1).take(2).any(|v| v.is_some());
    let for_products = |v: ValueId| {
        !g.is_output(v) && g.value(v).consumers.iter().any(|c| role_of(g, *c) == Some(HalfRole::Product))
    };
    (has_params && !op.stats && !op.sum && params_fit(g, node) && for_products(node.outputs[0])).then(|| vec![1, 2])
}

/// Keys come out of a cache in f32, which would be converted as a whole at every step; also under another shape or order
/// of axes, or repeated.
fn is_cached(g: &Graph, node: &Node) -> bool {
    let mut keys = node.inputs.get(1).copied().flatten();
    while let Some((_, from)) = keys.and_then(|k| g.producer(k)) {
        match &from.op {
            Op::CacheUpdate(_) => return true,
            // Along the last axis, parts of a head are put together.
            Op::Concat(c) => {
                let rank = g.fact(from.outputs[0]).rank();
                return crate::base::dims::normalize_axis(c.axis, rank).is_ok_and(|axis| axis + 1 < rank);
            }
            Op::Reshape(_) | Op::Transpose(_) | Op::Expand(_) => keys = from.inputs.first().copied().flatten(),
            _ => return false,
        }
    }
    false
}
