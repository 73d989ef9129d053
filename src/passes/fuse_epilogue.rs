//! An element-wise node computed on the results of a product before they are stored.
//!
//! `Conv`, `ConvTranspose` and `MatMul` take a program (the epilogue) whose operand 0 is the result and whose further
//! operands follow the bias. A `Pointwise` node that alone reads the result, gives the same shape and a floating-point
//! type becomes the epilogue, or the end of the one that is there. Its other operands cannot depend on the result: it
//! has no other reader.

use super::fuse_pointwise::check_limits;
use super::query::{is_cast, join_names, only_reader, operands, pointwise, same_shape};
use super::simplify_pointwise::{merge_equal, simplify};
use crate::base::{DType, Result};
use crate::bail;
use crate::network::{Graph, Node, NodeId, Patch, ValueId};
use crate::ops::Op;
use crate::ops::pointwise::Program;
use crate::passes::{NodePass, PassCx};

/// Index of the first operand that belongs to the epilogue: after x, weights and bias.
pub const FIRST_EXTRA: usize = 3;

/// See the module's text.
pub struct FuseEpilogue;

impl NodePass for FuseEpilogue {
    fn name(&self) -> &'static str {
        "fuse_epilogue"
    }

    fn rewrite(&self, g: &Graph, cx: &PassCx<'_>, n: NodeId) -> Result<Option<Patch>> {
        let node = g.node(n);
        let Some(first) = epilogue(&node.op) else { return Ok(None) };
        let out = node.outputs[0];
        let Some(reader) = only_reader(g, out) else { return Ok(None) };
        let reader = g.node(reader);
        let Some(next) = pointwise(reader) else { return Ok(None) };
        let end = reader.outputs[0];
        if !g.fact(out).dtype.is_float() {
            bail!(Unsupported, "the product is of {}", g.fact(out).dtype);
        }
        if !same_shape(g, out, end) {
            bail!(Unsupported, "{:?} broadcasts the result to another shape", reader.name);
        }
        if !next.output_dtype(0).is_float() {
            bail!(Unsupported, "{:?} gives {}, not a floating-point type", reader.name, next.output_dtype(0));
        }
        let (program, extra) = joined(g, node, reader, first, next)?;
        check_limits(&program)?;
        let mut ins = node.inputs.clone();
        ins.truncate(FIRST_EXTRA);
        if !extra.is_empty() {
            ins.resize(FIRST_EXTRA, None);
        }
        ins.extend(extra.into_iter().map(Some));
        let mut patch = cx.patch(g, &node.name);
        let name = join_names(&node.name, &reader.name);
        let new = patch.add_node(g, &name, with_epilogue(&node.op, program), &ins)?[0];
        if patch.shape_of(g, new) != Some(&g.fact(end).shape) {
            bail!(Unsupported, "with {:?} inside the result has another shape", reader.name);
        }
        patch.shunt(end, new);
        Ok(Some(patch))
    }
}

/// The program of what stands after the product, operand 0 its result, and the further operands.
fn joined(
    g: &Graph,
    node: &Node,
    reader: &Node,
    first: Option<&Program>,
    next: &Program,
) -> Result<(Program, Vec<ValueId>)> {
    let out = node.outputs[0];
    // The result may be read at several places of the program: one operand first.
    let (next, mut others) = merge_equal(next.clone(), operands(reader));
    let at = others.iter().position(|v| *v == out).expect("the reader reads the result");
    others.remove(at);
    let identity = Program::identity(g.fact(out).dtype);
    let mut program = next.inline(at, first.unwrap_or(&identity), 0)?;
    let mut extra: Vec<ValueId> = node.inputs.iter().skip(FIRST_EXTRA).flatten().copied().collect();
    extra.extend(others);
    // Operand 0 is no value of the graph here, so only the further ones are bound and merged.
    let mut i = 0;
    while i < extra.len() {
        // A lone conversion is done where the operand is read.
        if let Some((source, dtype)) = conversion_of(g, extra[i]) {
            program = program.convert_input(i + 1, dtype)?;
            extra[i] = source;
        }
        let scalar = super::query::const_scalar(g, extra[i]);
        let twin = extra[..i].iter().position(|v| *v == extra[i]);
        if let Some(v) = scalar.filter(|_| g.fact(extra[i]).dtype.is_float()) {
            program = program.bind_const(i + 1, v)?;
        } else if let Some(a) = twin {
            program = program.merge_inputs(a + 1, i + 1);
        } else {
            i += 1;
            continue;
        }
        extra.remove(i);
    }
    Ok((simplify(&program), extra))
}

/// What a value is converted from, when its producer does only that between floating-point types.
fn conversion_of(g: &Graph, v: ValueId) -> Option<(ValueId, DType)> {
    let (_, producer) = g.producer(v)?;
    let from = pointwise(producer).filter(|p| is_cast(p))?.inputs[0];
    (from.is_float() && !from.is_small() && g.fact(v).dtype.is_float()).then(|| (producer.inputs[0].expect("has no absent operand"), from))
}

/// The epilogue of an operator that takes one.
pub fn epilogue(op: &Op) -> Option<Option<&Program>> {
    match op {
        Op::Conv(c) => Some(c.epilogue.as_ref()),
        Op::ConvTranspose(c) => Some(c.epilogue.as_ref()),
        Op::MatMul(m) => Some(m.epilogue.as_ref()),
        _ => None,
    }
}

fn with_epilogue(op: &Op, program: Program) -> Op {
    let epilogue = (!program.is_identity()).then_some(program);
    match op.clone() {
        Op::Conv(mut c) => {
            c.epilogue = epilogue;
            c.into()
        }
        Op::ConvTranspose(mut c) => {
            c.epilogue = epilogue;
            c.into()
        }
        Op::MatMul(mut m) => {
            m.epilogue = epilogue;
            m.into()
        }
        other => other,
    }
}
