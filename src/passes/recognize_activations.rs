//! Several element-wise nodes that together are one activation become that function.
//!
//! Exporters write silu as `mul(x, sigmoid(x))`, gelu as five nodes, hard swish in half a dozen ways. From each node
//! the pass gathers the element-wise nodes above whose results stay inside, until one tensor comes in, and compares
//! the normal form of the whole with those of the functions that we have. The one function is faster, and more
//! accurate than its parts (`softplus` as `log(1 + exp x)` overflows).

use super::normal_form::Expr;
use super::query::{operands, pointwise};
use super::simplify_pointwise::shorten;
use crate::base::{DType, Result};
use crate::network::{Graph, NodeId, Patch, ValueId};
use crate::ops::pointwise::{Func, Pointwise, Program};
use crate::passes::{NodePass, PassCx};
use std::collections::HashSet;
use std::sync::LazyLock;

/// Nodes gathered at most: the longest known form (gelu with tanh) has nine.
const MAX_NODES: usize = 12;

/// See the module's text.
pub struct RecognizeActivations;

impl NodePass for RecognizeActivations {
    fn name(&self) -> &'static str {
        "recognize_activations"
    }

    fn rewrite(&self, g: &Graph, cx: &PassCx<'_>, n: NodeId) -> Result<Option<Patch>> {
        let node = g.node(n);
        let Some(program) = pointwise(node) else { return Ok(None) };
        let out = node.outputs[0];
        let mut inside: HashSet<NodeId> = HashSet::from([n]);
        let (mut p, mut ins) = shorten(g, program, &operands(node))?;
        loop {
            if let (Some(found), true) = (recognize(&p), ins.len() == 1) {
                let mut patch = cx.patch(g, &node.name);
                let new = patch.add(g, &node.name, Pointwise { program: found }.into(), &ins)?;
                if patch.shape_of(g, new) != Some(&g.fact(out).shape) {
                    return Ok(None);
                }
                patch.shunt(out, new);
                return Ok(Some(patch));
            }
            let Some((at, id)) = next_inside(g, &ins, &inside) else { return Ok(None) };
            if inside.len() >= MAX_NODES || !inside.insert(id) {
                return Ok(None);
            }
            let producer = g.node(id);
            let inner = pointwise(producer).expect("next_inside gives such nodes only");
            p = p.inline(at, inner, 0)?;
            let rest: Vec<ValueId> = ins.iter().enumerate().filter(|(i, _)| *i != at).map(|(_, v)| *v).collect();
            let joint: Vec<ValueId> = operands(producer).into_iter().chain(rest).collect();
            (p, ins) = shorten(g, &p, &joint)?;
        }
    }
}

/// An operand whose producer is element-wise and is read from inside only.
fn next_inside(g: &Graph, ins: &[ValueId], inside: &HashSet<NodeId>) -> Option<(usize, NodeId)> {
    ins.iter().enumerate().find_map(|(at, v)| {
        let (id, producer) = g.producer(*v)?;
        pointwise(producer)?;
        let hidden = !g.is_output(*v) && g.value(*v).consumers.iter().all(|c| inside.contains(c));
        hidden.then_some((at, id))
    })
}

/// Functions of one argument with their normal forms.
static KNOWN: LazyLock<Vec<(Func, Expr)>> = LazyLock::new(|| {
    let x = Expr::x;
    let call = |f: Func, u: Expr| Expr::apply(f, &[u]).expect("these functions have a normal form");
    let times = |a: &Expr, b: &Expr| a.times(b).expect("these products are small");
    let one = Expr::number(1.0);
    let cube = times(&times(&x(), &x()), &x());
    let unit_clip = |u: Expr| Expr::call(Func::Clip, vec![u, Expr::number(0.0), Expr::number(1.0)]);
    let gelu = |inner: Expr| times(&x().scaled(0.5), &inner.plus(&one));
    let tanh_arg = x().plus(&cube.scaled(0.044715)).scaled((2.0 / std::f64::consts::PI).sqrt());
    vec![
        (Func::Sigmoid, call(Func::Sigmoid, x())),
        (Func::Relu, call(Func::Relu, x())),
        (Func::Softplus, call(Func::Softplus, x())),
        (Func::Silu, times(&x(), &call(Func::Sigmoid, x()))),
        (Func::HardSwish, times(&x(), &unit_clip(x().scaled(1.0 / 6.0).plus(&Expr::number(0.5))))),
        (Func::Mish, times(&x(), &call(Func::Tanh, call(Func::Softplus, x())))),
        (Func::GeluErf, gelu(call(Func::Erf, x().scaled(std::f64::consts::FRAC_1_SQRT_2)))),
        (Func::GeluTanh, gelu(call(Func::Tanh, tanh_arg))),
    ]
});

/// The shorter program that computes the same, when there is one.
pub fn recognize(p: &Program) -> Option<Program> {
    if p.instrs.iter().filter(|i| i.func != Func::Const).count() < 2 {
        return None;
    }
    let expr = Expr::of_program(p)?;
    let dtype = p.inputs[0];
    if let Some((f, _)) = KNOWN.iter().find(|(_, known)| known.is_near(&expr)) {
        return Program::single(*f, &[dtype]).ok();
    }
    let (k, args) = expr.as_call(Func::Clip)?;
    let (a, b) = args[0].as_affine()?;
    // clip(x, 0, k) was scaled to the unit; anything else in [0, 1] is a hard sigmoid.
    if b == 0.0 && (a * k - 1.0).abs() < 1e-6 {
        with_numbers(Func::Clip, dtype, &[0.0, k]).ok()
    } else if k == 1.0 {
        with_numbers(Func::HardSigmoid, dtype, &[a, b]).ok()
    } else {
        None
    }
}

fn with_numbers(f: Func, dtype: DType, numbers: &[f64]) -> Result<Program> {
    let mut p = Program { inputs: vec![dtype], instrs: vec![], outputs: vec![] };
    let mut args = vec![0];
    for v in numbers {
        args.push(p.push_const(*v, dtype)?);
    }
    let r = p.push(f, &args)?;
    p.outputs = vec![r];
    Ok(p)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A program over one f32 input from (function, arguments); numbers are added as constants.
    fn program(steps: &[(Func, &[Result<u16, f64>])]) -> Program {
        let mut p = Program { inputs: vec![DType::F32], instrs: vec![], outputs: vec![] };
        let mut results = vec![0];
        for (f, args) in steps {
            let args: Vec<u16> = args
                .iter()
                .map(|a| match a {
                    Ok(i) => results[*i as usize],
                    Err(v) => p.push_const(*v, DType::F32).unwrap(),
                })
                .collect();
            results.push(p.push(*f, &args).unwrap());
        }
        p.outputs = vec![*results.last().unwrap()];
        p
    }

    fn found(p: &Program) -> Option<String> {
        recognize(p).map(|p| p.label())
    }

    #[test]
    fn every_spelling_of_an_activation_is_found() {
        use Func::*;
        let relu6_plus_3: (Func, &[_]) = (Clip, &[Ok(1), Err(0.0), Err(6.0)]);
        let cases = [
            (program(&[(Sigmoid, &[Ok(0)]), (Mul, &[Ok(1), Ok(0)])]), "silu"),
            (program(&[(Neg, &[Ok(0)]), (Exp, &[Ok(1)]), (Add, &[Err(1.0), Ok(2)]), (Div, &[Ok(0), Ok(3)])]), "silu"),
            (program(&[(Add, &[Ok(0), Err(3.0)]), relu6_plus_3, (Div, &[Ok(2), Err(6.0)]), (Mul, &[Ok(0), Ok(3)])]), "hard_swish"),
            (program(&[(Add, &[Ok(0), Err(3.0)]), relu6_plus_3, (Mul, &[Ok(0), Ok(2)]), (Mul, &[Ok(3), Err(1.0 / 6.0)])]), "hard_swish"),
            (program(&[(HardSigmoid, &[Ok(0), Err(1.0 / 6.0), Err(0.5)]), (Mul, &[Ok(0), Ok(1)])]), "hard_swish"),
            (program(&[(Add, &[Ok(0), Err(3.0)]), relu6_plus_3, (Div, &[Ok(2), Err(6.0)])]), "hard_sigmoid"),
            (program(&[(Div, &[Ok(0), Err(1.4142135)]), (Erf, &[Ok(1)]), (Add, &[Ok(2), Err(1.0)]), (Mul, &[Ok(0), Ok(3)]), (Mul, &[Ok(4), Err(0.5)])]), "gelu_erf"),
            (program(&[(Mul, &[Ok(0), Err(0.5)]), (Mul, &[Ok(0), Err(0.70710677)]), (Erf, &[Ok(2)]), (Add, &[Err(1.0), Ok(3)]), (Mul, &[Ok(1), Ok(4)])]), "gelu_erf"),
            (program(&[(Pow, &[Ok(0), Err(3.0)]), (Mul, &[Ok(1), Err(0.044715)]), (Add, &[Ok(0), Ok(2)]), (Mul, &[Ok(3), Err(0.7978846)]), (Tanh, &[Ok(4)]), (Add, &[Ok(5), Err(1.0)]), (Mul, &[Ok(0), Ok(6)]), (Mul, &[Ok(7), Err(0.5)])]), "gelu_tanh"),
            (program(&[(Softplus, &[Ok(0)]), (Tanh, &[Ok(1)]), (Mul, &[Ok(0), Ok(2)])]), "mish"),
            (program(&[(Max, &[Ok(0), Err(0.0)]), (Min, &[Ok(1), Err(6.0)])]), "clip"),
        ];
        for (p, want) in cases {
            assert_eq!(found(&p).as_deref(), Some(want), "{p}");
        }
    }

    #[test]
    fn what_only_looks_alike_is_left() {
        use Func::*;
        assert_eq!(found(&program(&[(Sigmoid, &[Ok(0)]), (Mul, &[Ok(1), Ok(1)])])), None);
        assert_eq!(found(&program(&[(Mul, &[Ok(0), Err(1.702)]), (Sigmoid, &[Ok(1)]), (Mul, &[Ok(0), Ok(2)])])), None);
        assert_eq!(found(&program(&[(Add, &[Ok(0), Err(3.0)]), (Clip, &[Ok(1), Err(-1.0), Err(6.0)]), (Mul, &[Ok(0), Ok(2)])])), None);
    }
}
