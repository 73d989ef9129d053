//! Import of Einsum: transposes, reshapes, sums and matrix products.
//!
//! Operands are contracted from left to right. Before each step an operand loses what nobody needs any more: the places off
//! a diagonal (a repeated letter) and letters that stand in it alone (a sum). Two operands become one batched product:
//! letters of both that stay are the batch, letters of both that end are summed, the others are rows and columns.

use super::MatMul;
use crate::base::{DType, Result};
use crate::network::ValueId;
use crate::ops::ImportCx;
use crate::ops::compose::{along, cast, counting, pointwise, reduce, reshape, squeeze, transpose, unsqueeze};
use crate::ops::pointwise::Func;
use crate::ops::reduce::ReduceKind;
use crate::{ensure, err};

/// An axis of an operand: a letter, or the n-th axis from the end of what an ellipsis covers.
type Label = u32;

/// Labels of an ellipsis start here, above every character.
const ELLIPSIS: Label = 1 << 24;

/// The terms of an equation.
struct Equation {
    inputs: Vec<Vec<Label>>,
    output: Vec<Label>,
}

/// One term, as labels and the place of its ellipsis.
fn term(text: &str) -> Result<(Vec<Label>, Option<usize>)> {
    let mut labels = Vec::new();
    let mut ellipsis = None;
    let mut rest = text.chars().filter(|c| !c.is_whitespace()).peekable();
    while let Some(c) = rest.next() {
        match c {
            '.' => {
                let whole = rest.next() == Some('.') && rest.next() == Some('.');
                ensure!(whole && ellipsis.is_none(), InvalidArgument, "the term {text:?} has dots that are no ellipsis");
                ellipsis = Some(labels.len());
            }
            c if c.is_ascii_alphabetic() => labels.push(c as Label),
            c => return Err(err!(InvalidArgument, "the term {text:?} has the character {c:?}")),
        }
    }
    Ok((labels, ellipsis))
}

impl Equation {
    fn parse(text: &str, ranks: &[usize]) -> Result<Equation> {
        let (left, right) = match text.split_once("->") {
            Some((l, r)) => (l, Some(r)),
            None => (text, None),
        };
        let terms: Vec<&str> = left.split(',').collect();
        ensure!(
            terms.len() == ranks.len(),
            InvalidArgument,
            "the equation {text:?} has {} terms for {} operands",
            terms.len(),
            ranks.len()
        );
        let mut inputs = Vec::new();
        let mut widest = 0;
        for (t, rank) in terms.iter().zip(ranks) {
            let (mut labels, ellipsis) = term(t)?;
            let covered = rank.checked_sub(labels.len()).filter(|n| *n == 0 || ellipsis.is_some());
            let n = covered.ok_or_else(|| err!(InvalidArgument, "the term {t:?} does not fit an operand of rank {rank}"))?;
            if let Some(at) = ellipsis {
                labels.splice(at..at, (0..n as Label).rev().map(|i| ELLIPSIS + i));
                widest = widest.max(n);
            }
            inputs.push(labels);
        }
        let dots = || (0..widest as Label).rev().map(|i| ELLIPSIS + i);
        let output = match right {
            Some(r) => {
                let (mut labels, ellipsis) = term(r)?;
                if let Some(at) = ellipsis {
                    labels.splice(at..at, dots());
                }
                labels
            }
            None => {
                // Letters that stand once, in alphabetical order, behind the ellipsis.
                let all: Vec<Label> = inputs.iter().flatten().copied().filter(|l| *l < ELLIPSIS).collect();
                let mut once: Vec<Label> = all.iter().copied().filter(|l| all.iter().filter(|k| *k == l).count() == 1).collect();
                once.sort_unstable();
                dots().chain(once).collect()
            }
        };
        for (i, l) in output.iter().enumerate() {
            ensure!(!output[..i].contains(l), InvalidArgument, "a letter stands twice in the output of {text:?}");
            ensure!(
                inputs.iter().any(|t| t.contains(l)),
                InvalidArgument,
                "the output of {text:?} has a letter that no operand has"
            );
        }
        Ok(Equation { inputs, output })
    }
}

/// A value with the labels of its axes.
struct Operand {
    value: ValueId,
    labels: Vec<Label>,
}

pub(super) fn einsum(cx: &mut ImportCx<'_>) -> Result<Vec<ValueId>> {
    let text = cx.attrs.string("equation")?.ok_or_else(|| err!(InvalidArgument, "attribute equation is missing"))?;
    let n = cx.inputs.len();
    ensure!(n > 0, InvalidArgument, "Einsum needs an operand");
    let values: Vec<ValueId> = (0..n).map(|i| cx.input(i)).collect::<Result<_>>()?;
    let ranks: Vec<usize> = values.iter().map(|v| cx.shape(*v).rank()).collect();
    let equation = Equation::parse(&text, &ranks)?;
    let dtype = cx.fact(values[0]).dtype;
    ensure!(dtype.is_float() || dtype.is_int(), Unsupported, "Einsum does not take {dtype}");
    ensure!(
        values.iter().all(|v| cx.fact(*v).dtype == dtype),
        InvalidArgument,
        "the operands of Einsum are of different types"
    );
    // Products have no 8- and 16-bit integers; the low bits of a wider sum are those of a narrow one.
    let narrow = dtype.is_int() && dtype.size() < 4;
    let mut operands = Vec::new();
    for (v, labels) in values.iter().zip(equation.inputs) {
        let value = if narrow { cast(cx, *v, DType::I32)? } else { *v };
        operands.push(diagonal(cx, Operand { value, labels })?);
    }
    drop_broadcast(cx, &mut operands)?;
    let mut rest = operands.into_iter();
    let Some(mut acc) = rest.next() else { return Err(err!(InvalidArgument, "Einsum needs an operand")) };
    let mut later: Vec<Operand> = rest.collect();
    loop {
        let needed = |l: &Label, others: &[Operand]| equation.output.contains(l) || others.iter().any(|o| o.labels.contains(l));
        acc = sum_out(cx, acc, |l| !needed(l, &later))?;
        if later.is_empty() {
            break;
        }
        let next = later.remove(0);
        let next = sum_out(cx, next, |l| !needed(l, &later) && !acc.labels.contains(l))?;
        acc = contract(cx, acc, next, |l| needed(l, &later))?;
    }
    // Each letter of the output stands in an operand, and what stood nowhere else was summed.
    let perm: Vec<usize> = equation
        .output
        .iter()
        .map(|l| acc.labels.iter().position(|k| k == l).ok_or_else(|| err!(Internal, "a letter of {text:?} was lost")))
        .collect::<Result<_>>()?;
    let y = transpose(cx, acc.value, &perm)?;
    Ok(vec![cast(cx, y, dtype)?])
}

/// Keeps the elements whose places along axes of the same letter are equal.
fn diagonal(cx: &mut ImportCx<'_>, mut o: Operand) -> Result<Operand> {
    while let Some((i, j)) = repeated(&o.labels) {
        let shape = cx.shape(o.value);
        ensure!(
            crate::ops::compose::may_equal(&shape[i], &shape[j]),
            InvalidArgument,
            "a diagonal of {shape} along axes {i} and {j}, which differ"
        );
        let (a, b) = (counting(cx, o.value, i)?, counting(cx, o.value, j)?);
        let (a, b) = (along(cx, a, i, shape.rank())?, along(cx, b, j, shape.rank())?);
        let kept = pointwise(cx, &[o.value, a, b], |p| {
            let t = p.inputs[0];
            let zero = p.push_const(0.0, t)?;
            let on = p.push(Func::Equal, &[1, 2])?;
            p.push(Func::Select, &[on, 0, zero])
        })?;
        o.value = reduce(cx, ReduceKind::Sum, kept, &[j as i64], false)?;
        o.labels.remove(j);
    }
    Ok(o)
}

fn repeated(labels: &[Label]) -> Option<(usize, usize)> {
    (0..labels.len()).find_map(|j| labels[..j].iter().position(|l| *l == labels[j]).map(|i| (i, j)))
}

/// An axis of size 1 whose letter is longer elsewhere broadcasts: it goes.
fn drop_broadcast(cx: &mut ImportCx<'_>, operands: &mut [Operand]) -> Result<()> {
    for i in 0..operands.len() {
        let shape = cx.shape(operands[i].value);
        let longer = |l: &Label| {
            operands.iter().enumerate().any(|(k, o)| {
                let at = o.labels.iter().position(|m| m == l);
                k != i && at.is_some_and(|at| !cx.graph.fact(o.value).shape[at].is(1))
            })
        };
        let gone: Vec<usize> =
            (0..shape.rank()).filter(|a| shape[*a].is(1) && longer(&operands[i].labels[*a])).collect();
        let axes: Vec<i64> = gone.iter().map(|a| *a as i64).collect();
        operands[i].value = squeeze(cx, operands[i].value, &axes)?;
        let mut at = 0..;
        operands[i].labels.retain(|_| at.next().is_some_and(|a| !gone.contains(&a)));
    }
    Ok(())
}

/// Adds along the axes whose letters are over.
fn sum_out(cx: &mut ImportCx<'_>, mut o: Operand, is_over: impl Fn(&Label) -> bool) -> Result<Operand> {
    let axes: Vec<i64> = (0..o.labels.len()).filter(|a| is_over(&o.labels[*a])).map(|a| a as i64).collect();
    if !axes.is_empty() {
        o.value = reduce(cx, ReduceKind::Sum, o.value, &axes, false)?;
        o.labels.retain(|l| !is_over(l));
    }
    Ok(o)
}

/// The product of two operands, summed over the letters of both that are not needed later.
fn contract(cx: &mut ImportCx<'_>, a: Operand, b: Operand, needed: impl Fn(&Label) -> bool) -> Result<Operand> {
    let in_both = |l: &Label| a.labels.contains(l) && b.labels.contains(l);
    let pick = |o: &Operand, f: &dyn Fn(&Label) -> bool| -> Vec<Label> { o.labels.iter().copied().filter(f).collect() };
    let batch = pick(&a, &|l| in_both(l) && needed(l));
    let summed = pick(&a, &|l| in_both(l) && !needed(l));
    let rows = pick(&a, &|l| !in_both(l));
    let columns = pick(&b, &|l| !in_both(l));
    if summed.is_empty() {
        return multiply(cx, a, b, [batch, rows, columns].concat());
    }
    let axis = |o: &Operand, l: &Label| o.labels.iter().position(|k| k == l).unwrap_or(0);
    let sizes = |o: &Operand, group: &[Label]| group.iter().map(|l| (o.value, axis(o, l))).collect::<Vec<_>>();
    // [batch, rows, summed] and [batch, summed, columns], each group one axis.
    let side = |cx: &mut ImportCx<'_>, o: &Operand, groups: [&[Label]; 3]| -> Result<ValueId> {
        let perm: Vec<usize> = groups.concat().iter().map(|l| axis(o, l)).collect();
        let v = transpose(cx, o.value, &perm)?;
        if groups.iter().all(|g| g.len() == 1) {
            return Ok(v);
        }
        reshape(cx, v, &groups.map(|g| sizes(o, g)))
    };
    // Operands that lie the other way round are left as they are: a product reads them so.
    let (trans_a, left) = match (&batch[..], &rows[..], &summed[..]) {
        ([], [r], [s]) if a.labels == [*s, *r] => (true, a.value),
        _ if batch.is_empty() && rows.len() == 1 && summed.len() == 1 => (false, a.value),
        _ => (false, side(cx, &a, [&batch, &rows, &summed])?),
    };
    let (trans_b, right) = match (&batch[..], &summed[..], &columns[..]) {
        ([], [s], [c]) if b.labels == [*c, *s] => (true, b.value),
        _ if batch.is_empty() && columns.len() == 1 && summed.len() == 1 => (false, b.value),
        _ => (false, side(cx, &b, [&batch, &summed, &columns])?),
    };
    let mut y = cx.add(MatMul { trans_a, trans_b, alpha: 1.0, epilogue: None }, &[left, right])?;
    let labels = [batch.clone(), rows.clone(), columns.clone()].concat();
    if cx.shape(y).rank() != labels.len() || batch.len() > 1 || rows.len() != 1 || columns.len() != 1 {
        let mut dims: Vec<Vec<(ValueId, usize)>> = Vec::new();
        dims.extend([&batch, &rows].into_iter().flatten().map(|l| vec![(a.value, axis(&a, l))]));
        dims.extend(columns.iter().map(|l| vec![(b.value, axis(&b, l))]));
        y = reshape(cx, y, &dims)?;
    }
    Ok(Operand { value: y, labels })
}

/// The product without a sum: both are laid out over all labels and multiplied.
fn multiply(cx: &mut ImportCx<'_>, a: Operand, b: Operand, labels: Vec<Label>) -> Result<Operand> {
    let laid_out = |cx: &mut ImportCx<'_>, o: &Operand| -> Result<ValueId> {
        let present: Vec<usize> = labels.iter().filter_map(|l| o.labels.iter().position(|k| k == l)).collect();
        let missing: Vec<i64> = (0..labels.len()).filter(|i| !o.labels.contains(&labels[*i])).map(|i| i as i64).collect();
        let v = transpose(cx, o.value, &present)?;
        unsqueeze(cx, v, &missing)
    };
    let (x, y) = (laid_out(cx, &a)?, laid_out(cx, &b)?);
    let value = crate::ops::compose::binary(cx, Func::Mul, x, y)?;
    Ok(Operand { value, labels })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str, ranks: &[usize]) -> Option<(Vec<Vec<Label>>, Vec<Label>)> {
        Equation::parse(text, ranks).ok().map(|e| (e.inputs, e.output))
    }

    #[test]
    fn an_ellipsis_stands_for_the_axes_that_are_left() {
        let (i, j, k) = ('i' as Label, 'j' as Label, 'k' as Label);
        let (inputs, output) = parse("...ij, ...jk", &[4, 3]).unwrap();
        assert_eq!(inputs, [vec![ELLIPSIS + 1, ELLIPSIS, i, j], vec![ELLIPSIS, j, k]]);
        assert_eq!(output, [ELLIPSIS + 1, ELLIPSIS, i, k]);
        assert_eq!(parse("ba", &[2]).unwrap().1, ['a' as Label, 'b' as Label]);
        assert_eq!(parse("ii", &[2]).unwrap().1, []);
        for (wrong, ranks) in [("ij,jk", &[2][..]), ("ij->ijz", &[2]), ("i.j", &[2]), ("ij", &[3]), ("ij->ii", &[2])] {
            assert!(parse(wrong, ranks).is_none(), "{wrong}");
        }
    }
}
