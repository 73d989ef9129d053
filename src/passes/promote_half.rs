//! Computes f16 and bf16 tensors in f32, for a device whose kernels have no half types.
//!
//! Every node on a half type is made again on f32; a conversion stands where a graph input comes in and where an
//! output leaves, and types of inputs and outputs stay. Between nodes nothing is rounded to half any more, so results
//! are at least as close to exact arithmetic as the network asks for.

use crate::base::{DType, ErrorCode, Result};
use crate::network::{Graph, Node, NodeId, Patch, ValueId};
use crate::ops::Op;
use crate::ops::pointwise::{Func, Instr, Pointwise, Program};
use crate::passes::{Pass, PassCx};
use crate::passes::retype::retyped;
use std::collections::HashMap;
use std::sync::Arc;

/// See the module's text.
pub struct PromoteHalf;

fn is_half(d: DType) -> bool {
    matches!(d, DType::F16 | DType::BF16)
}

/// Its program computes with what it rounded to a half type: the rounding is a part of what it means.
fn rounds_on_purpose(node: &Node) -> bool {
    let Op::Pointwise(Pointwise { program: p }) = &node.op else { return false };
    p.instrs.iter().any(|i| {
        matches!(i.func, Func::Cast | Func::CastMode)
            && i.args.iter().any(|r| {
                let made = (*r as usize).checked_sub(p.n_inputs()).map(|k| &p.instrs[k]);
                made.is_some_and(|m| m.func == Func::Cast && is_half(m.dtype))
            })
    })
}

fn widened(d: DType) -> DType {
    if is_half(d) { DType::F32 } else { d }
}

impl Pass for PromoteHalf {
    fn name(&self) -> &'static str {
        "promote_half"
    }

    fn runs_once(&self) -> bool {
        true
    }

    fn run(&self, g: &mut Graph, cx: &PassCx<'_>) -> Result<usize> {
        let mut retyper = Retyper::default();
        let mut n_patches = 0;
        for n in g.order()? {
            let node = g.node(n);
            let touches_half = node.inputs.iter().flatten().chain(&node.outputs).any(|v| is_half(g.fact(*v).dtype));
            if !touches_half || rounds_on_purpose(node) {
                continue;
            }
            let all: Vec<usize> = (0..node.inputs.len()).collect();
            match retyper.patch(g, cx, n, &all, &widened) {
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

/// Makes nodes again on another element type; shared by the passes that change precision.
#[derive(Default)]
pub struct Retyper {
    /// For a value, the same value in the other type: where it came from or what it was converted to.
    pub twins: HashMap<ValueId, ValueId>,
}

impl Retyper {
    /// A patch that computes `n` with operands `slots` and results mapped by `map`, and the twins that exist once it
    /// is applied. Conversions are shared by all readers.
    pub fn patch(
        &self,
        g: &Graph,
        cx: &PassCx<'_>,
        n: NodeId,
        slots: &[usize],
        map: &dyn Fn(DType) -> DType,
    ) -> Result<(Patch, Vec<(ValueId, ValueId)>)> {
        let node = g.node(n);
        let mut patch = cx.patch(g, &node.name);
        let mut memo: Vec<(ValueId, ValueId)> = Vec::new();
        let mut ins = node.inputs.clone();
        for (i, slot) in ins.iter_mut().enumerate().filter(|(i, _)| slots.contains(i)) {
            let Some(v) = *slot else { continue };
            let to = map(g.fact(v).dtype);
            if to == g.fact(v).dtype {
                continue;
            }
            let known = self.twin(g, v).or_else(|| memo.iter().find(|(a, _)| *a == v).map(|(_, b)| *b));
            let twin = match known {
                Some(twin) => twin,
                None => {
                    let twin = converted(g, &mut patch, node, i, v, to)?;
                    memo.push((v, twin));
                    twin
                }
            };
            *slot = Some(twin);
        }
        let outs = patch.add_node(g, &node.name, retyped(&node.op, map)?, &ins)?;
        for (old, new) in node.outputs.iter().zip(outs) {
            let dtype = g.fact(*old).dtype;
            if map(dtype) == dtype {
                patch.shunt(*old, new);
                continue;
            }
            let name = format!("{}/to_{dtype}", node.name);
            let back = patch.add(g, &name, cast(map(dtype), dtype).into(), &[new])?;
            patch.shunt(*old, back);
            memo.push((back, new));
        }
        Ok((patch, memo))
    }

    /// The twin of a value, when it is still computed.
    pub fn twin(&self, g: &Graph, v: ValueId) -> Option<ValueId> {
        let twin = *self.twins.get(&v)?;
        let value = g.value(twin);
        let live = g.as_const(twin).is_some() || value.producer.is_some_and(|n| g.get_node(n).is_some());
        live.then_some(twin)
    }
}

fn converted(g: &Graph, patch: &mut Patch, node: &Node, i: usize, v: ValueId, to: DType) -> Result<ValueId> {
    match g.as_const(v) {
        Some(t) => Ok(patch.add_const(&g.value(v).name, Arc::new(t.cast(to)))),
        None => patch.add(g, &format!("{}/input{i}_to_{to}", node.name), cast(g.fact(v).dtype, to).into(), &[v]),
    }
}

/// A conversion as a node.
pub fn cast(from: DType, to: DType) -> Pointwise {
    let convert = Instr { func: crate::ops::pointwise::Func::Cast, args: vec![0], dtype: to, value: 0.0 };
    Pointwise { program: Program { inputs: vec![from], instrs: vec![convert], outputs: vec![1] } }
}
