//! Makes element-wise programs short: scalar constants move into the program, equal operands become one, instructions
//! that are equal, dead or without effect go, conversions there and back go, and a program that returns its operand is
//! no node at all.
//!
//! Only what is exact is done here: a conversion is dropped when the type in between holds every value of the first.

use super::query::{const_scalar, may_forward, operands, pointwise, same_shape};
use crate::base::{DType, Result, Tensor};
use crate::network::{Graph, NodeId, Patch, ValueId};
use crate::ops::pointwise::{Func, Instr, Pointwise, Program, Reg};
use crate::passes::{NodePass, PassCx};
use std::collections::HashMap;

/// See the module's text.
pub struct SimplifyPointwise;

impl NodePass for SimplifyPointwise {
    fn name(&self) -> &'static str {
        "simplify_pointwise"
    }

    fn rewrite(&self, g: &Graph, cx: &PassCx<'_>, n: NodeId) -> Result<Option<Patch>> {
        let node = g.node(n);
        let Some(program) = pointwise(node) else { return Ok(None) };
        let out = node.outputs[0];
        let before = operands(node);
        let (short, ins) = shorten(g, program, &before)?;
        if short.is_identity() && same_shape(g, ins[0], out) {
            if !may_forward(g, out, ins[0]) {
                return Ok(None);
            }
            let mut patch = cx.patch(g, &node.name);
            patch.shunt(out, ins[0]);
            return Ok(Some(patch));
        }
        // Text is compared because a NaN constant does not equal itself.
        if ins == before && short.to_string() == program.to_string() {
            return Ok(None);
        }
        let mut patch = cx.patch(g, &node.name);
        let new = patch.add(g, &node.name, Pointwise { program: short }.into(), &ins)?;
        if patch.shape_of(g, new) != Some(&g.fact(out).shape) {
            // The operand that went was what gave the result its rank.
            return Ok(None);
        }
        patch.shunt(out, new);
        Ok(Some(patch))
    }
}

/// The same computation with scalars bound, equal operands merged and the program simplified. At least one operand
/// stays. The shape of the result may be smaller: the caller compares.
pub fn shorten(g: &Graph, program: &Program, operands: &[ValueId]) -> Result<(Program, Vec<ValueId>)> {
    let (mut p, mut ins) = (program.clone(), operands.to_vec());
    let mut i = 0;
    while i < ins.len() && ins.len() > 1 {
        match const_scalar(g, ins[i]).filter(|v| is_exact(*v, p.inputs[i])) {
            Some(v) => {
                p = p.bind_const(i, v)?;
                ins.remove(i);
            }
            None => i += 1,
        }
    }
    let (p, ins) = merge_equal(p, ins);
    let mut p = simplify(&p);
    let mut ins = ins;
    for i in (0..ins.len()).rev() {
        let used = p.instrs.iter().any(|ins| ins.args.contains(&(i as Reg))) || p.outputs.contains(&(i as Reg));
        if !used && ins.len() > 1 {
            // Merging into a neighbour drops the operand; nothing reads it, so the type does not matter.
            p = if i > 0 { p.merge_inputs(0, i) } else { drop_first(&p) };
            ins.remove(i);
        }
    }
    Ok((p, ins))
}

fn drop_first(p: &Program) -> Program {
    let mut p = p.clone();
    p.inputs.remove(0);
    let down = |r: &mut Reg| *r -= 1;
    p.instrs.iter_mut().flat_map(|i| &mut i.args).for_each(down);
    p.outputs.iter_mut().for_each(down);
    p
}

/// One operand for each value.
pub fn merge_equal(mut p: Program, mut ins: Vec<ValueId>) -> (Program, Vec<ValueId>) {
    let mut b = 1;
    while b < ins.len() {
        match ins[..b].iter().position(|v| *v == ins[b]) {
            Some(a) => {
                p = p.merge_inputs(a, b);
                ins.remove(b);
            }
            None => b += 1,
        }
    }
    (p, ins)
}

/// A program's constant is an f64: every float fits, and integers up to 2^53.
fn is_exact(v: f64, dtype: DType) -> bool {
    dtype.is_float() || v.abs() <= (1u64 << 53) as f64
}

/// Every value of `a` is a value of `b`.
fn is_lossless(a: DType, b: DType) -> bool {
    use DType::*;
    a == b
        || matches!(
            (a, b),
            (F16 | BF16, F32 | F64)
                | (F32, F64)
                | (I8, I16 | I32 | I64 | F16 | F32 | F64)
                | (U8, I16 | U16 | I32 | U32 | I64 | U64 | F16 | F32 | F64)
                | (I16, I32 | I64 | F32 | F64)
                | (U16, I32 | U32 | I64 | U64 | F32 | F64)
                | (I32, I64 | F64)
                | (U32, I64 | U64 | F64)
        )
}

/// The same program without equal, dead and useless instructions.
pub fn simplify(p: &Program) -> Program {
    let mut s = Simplifier { out: Program { instrs: vec![], ..p.clone() }, seen: HashMap::new() };
    let mut map: Vec<Reg> = (0..p.inputs.len() as Reg).collect();
    for ins in &p.instrs {
        let args: Vec<Reg> = ins.args.iter().map(|r| map[*r as usize]).collect();
        let r = s.add(Instr { args, ..ins.clone() });
        map.push(r);
    }
    s.out.outputs = p.outputs.iter().map(|r| map[*r as usize]).collect();
    drop_dead(&s.out)
}

struct Simplifier {
    out: Program,
    seen: HashMap<(Func, Vec<Reg>, DType, u64), Reg>,
}

impl Simplifier {
    fn producer(&self, r: Reg) -> Option<&Instr> {
        (r as usize).checked_sub(self.out.inputs.len()).map(|i| &self.out.instrs[i])
    }

    fn constant(&self, r: Reg) -> Option<f64> {
        self.producer(r).filter(|i| i.func == Func::Const).map(|i| i.value)
    }

    /// The register with this instruction's result; a new one only when there is none yet.
    fn add(&mut self, ins: Instr) -> Reg {
        let arg = |i: usize| ins.args[i];
        match ins.func {
            Func::Cast => {
                let x = arg(0);
                if self.out.dtype(x) == ins.dtype {
                    return x;
                }
                // What is no number has no cast to a small float that keeps it.
                let kept = |c: &f64| c.is_finite() || !self.out.dtype(x).is_small_float();
                if let Some(c) = self.constant(x).filter(kept) {
                    let through = Tensor::scalar(c).cast(self.out.dtype(x)).cast(ins.dtype);
                    let value = through.scalar_f64().unwrap_or(c);
                    if is_exact(value, ins.dtype) {
                        return self.add(Instr { func: Func::Const, args: vec![], value, ..ins });
                    }
                } else if let Some(inner) = self.producer(x).filter(|i| i.func == Func::Cast).cloned() {
                    let first = self.out.dtype(inner.args[0]);
                    // By way of a float, an integer saturates where it would wrap.
                    let saturates = inner.dtype.is_float() && !first.is_float() && ins.dtype.is_int();
                    if is_lossless(first, inner.dtype) && ins.dtype != DType::Bool && !saturates {
                        return self.add(Instr { args: inner.args, ..ins });
                    }
                }
            }
            Func::Mul if self.constant(arg(1)) == Some(1.0) => return arg(0),
            Func::Mul if self.constant(arg(0)) == Some(1.0) => return arg(1),
            Func::Div if self.constant(arg(1)) == Some(1.0) => return arg(0),
            Func::Sub if self.constant(arg(1)) == Some(0.0) => return arg(0),
            Func::Relu => {
                if self.producer(arg(0)).is_some_and(|i| matches!(i.func, Func::Relu | Func::Sigmoid)) {
                    return arg(0);
                }
            }
            _ => {}
        }
        let key = (ins.func, ins.args.clone(), ins.dtype, ins.value.to_bits());
        let next = (self.out.inputs.len() + self.out.instrs.len()) as Reg;
        let r = *self.seen.entry(key).or_insert(next);
        if r == next {
            self.out.instrs.push(ins);
        }
        r
    }
}

fn drop_dead(p: &Program) -> Program {
    let n_in = p.inputs.len();
    let mut live = vec![false; n_in + p.instrs.len()];
    p.outputs.iter().for_each(|r| live[*r as usize] = true);
    for (i, ins) in p.instrs.iter().enumerate().rev() {
        if live[n_in + i] {
            ins.args.iter().for_each(|r| live[*r as usize] = true);
        }
    }
    let mut map: Vec<Reg> = (0..n_in as Reg).collect();
    let mut out = Program { inputs: p.inputs.clone(), instrs: vec![], outputs: vec![] };
    for (i, ins) in p.instrs.iter().enumerate() {
        map.push((n_in + out.instrs.len()) as Reg);
        if live[n_in + i] {
            let args = ins.args.iter().map(|r| map[*r as usize]).collect();
            out.instrs.push(Instr { args, ..ins.clone() });
        }
    }
    out.outputs = p.outputs.iter().map(|r| map[*r as usize]).collect();
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_lose_what_has_no_effect() {
        let p = Program::parse("f16;cast(0):f32;relu(1):f32;relu(1):f32;add(2,3):f32;cast(1):f16;cast(4):f16;>6").unwrap();
        assert_eq!(simplify(&p).to_string(), "f16;cast(0):f32;relu(1):f32;add(2,2):f32;cast(3):f16;>4");
        let there_and_back = Program::parse("f16;cast(0):f32;cast(1):f16;>2").unwrap();
        assert!(simplify(&there_and_back).is_identity());
        let lossy = Program::parse("f32;cast(0):f16;cast(1):f32;>2").unwrap();
        assert_eq!(simplify(&lossy), lossy);
    }
}
