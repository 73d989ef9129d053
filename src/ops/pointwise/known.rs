//! Elements of small integer results that follow from the operands' shapes: shape arithmetic stays symbolic here.
//!
//! Values are numbers, or fractions `dim / den` over symbolic dimensions: a float register holds a fraction while a
//! model computes `floor(n * 0.5)`. Symbols are sizes, so they count as not negative; narrowing a size to i32, or taking
//! it through f32, is taken to be exact. What cannot be followed exactly is unknown, never guessed.

use super::eval;
use super::func::Func;
use super::program::{Instr, Program};
use crate::base::tensor::Number;
use crate::base::{DType, Dim, Fact, Known, Tensor};
use std::sync::Arc;

/// More elements than this are not followed.
const MAX_ELEMENTS: usize = 1024;

/// Fills `known` of each output that is small and follows from known inputs.
pub(super) fn fill(p: &Program, inputs: &[&Fact], outputs: &mut [Fact]) {
    let Some(shape) = outputs[0].shape.concrete() else { return };
    if shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d)).is_none_or(|n| n > MAX_ELEMENTS) {
        return;
    }
    if let Some(tensors) = inputs.iter().map(|f| number_tensor(f)).collect::<Option<Vec<_>>>() {
        let refs: Vec<&Tensor> = tensors.iter().map(|t| &**t).collect();
        if let Ok(results) = eval::eval(p, &refs, &shape) {
            for (f, t) in outputs.iter_mut().zip(results) {
                f.known = Some(Known::Const(Arc::new(t)));
            }
        }
        return;
    }
    symbolic(p, inputs, &shape, outputs);
}

/// The input as a tensor, when all of its elements are numbers.
fn number_tensor(f: &Fact) -> Option<Arc<Tensor>> {
    if let Some(t) = f.as_const() {
        return Some(t.clone());
    }
    let v: Vec<i64> = f.as_dims()?.iter().map(|d| d.as_const()).collect::<Option<_>>()?;
    Some(Arc::new(Tensor::from_slice(&f.shape.concrete()?, &v).cast(f.dtype)))
}

/// One element: a number, or a fraction with a positive denominator.
#[derive(Clone, Debug)]
enum Sym {
    Num(Number),
    Frac(Dim, i64),
}

fn symbolic(p: &Program, inputs: &[&Fact], shape: &[usize], outputs: &mut [Fact]) {
    let mut operands: Vec<(Vec<Option<Sym>>, Vec<usize>)> = Vec::new();
    for f in inputs {
        let Some(dims) = f.shape.concrete() else { return };
        let n = dims.iter().product();
        operands.push((elements(f, n), eval::broadcast_strides(&dims, shape)));
    }
    if operands.iter().all(|(e, _)| e.iter().all(|e| e.is_none())) {
        return;
    }
    let n: usize = shape.iter().product();
    let mut results: Vec<Vec<Option<Dim>>> = vec![Vec::with_capacity(n); outputs.len()];
    for at in 0..n {
        let mut regs: Vec<Option<Sym>> = operands.iter().map(|(e, s)| e[offset(at, shape, s)].clone()).collect();
        for ins in &p.instrs {
            let arg_type = ins.args.last().map_or(ins.dtype, |r| p.dtype(*r));
            let args: Vec<Option<Sym>> = ins.args.iter().map(|r| regs[*r as usize].clone()).collect();
            regs.push(step(ins, arg_type, &args));
        }
        for (out, r) in results.iter_mut().zip(&p.outputs) {
            let (v, den) = regs[*r as usize].as_ref().and_then(as_frac).unzip();
            out.push(v.filter(|_| den == Some(1)));
        }
    }
    for (f, out) in outputs.iter_mut().zip(results) {
        if let Some(dims) = out.into_iter().collect::<Option<Vec<Dim>>>() {
            f.known = Some(Known::Dims(dims.into()));
        }
    }
}

fn elements(f: &Fact, n: usize) -> Vec<Option<Sym>> {
    if let Some(d) = f.as_dims() {
        return d.into_iter().map(|d| Some(from_dim(d))).collect();
    }
    match f.as_const() {
        Some(t) => t.to_f64s().into_iter().map(|v| Some(Sym::Num(Number::Float(v)))).collect(),
        None => vec![None; n],
    }
}

fn offset(mut flat: usize, shape: &[usize], strides: &[usize]) -> usize {
    let mut o = 0;
    for d in (0..shape.len()).rev() {
        o += flat % shape[d] * strides[d];
        flat /= shape[d];
    }
    o
}

fn from_dim(d: Dim) -> Sym {
    match d.as_const() {
        Some(v) => Sym::Num(Number::Int(v)),
        None => Sym::Frac(d, 1),
    }
}

/// As a fraction: integers, and floats that are a small integer over a power of two.
fn as_frac(v: &Sym) -> Option<(Dim, i64)> {
    match v {
        Sym::Frac(d, den) => Some((d.clone(), *den)),
        Sym::Num(Number::Int(v)) => Some((Dim::Const(*v), 1)),
        Sym::Num(Number::Uint(v)) => Some((Dim::Const(i64::try_from(*v).ok()?), 1)),
        Sym::Num(Number::Float(v)) => {
            let shift = (0..=16).find(|s| (v * (1i64 << s) as f64).fract() == 0.0)?;
            let num = v * (1i64 << shift) as f64;
            (num.abs() < 2f64.powi(40)).then(|| (Dim::Const(num as i64), 1 << shift))
        }
    }
}

fn fraction(d: Dim, den: i64) -> Sym {
    match d.exact_div(&Dim::Const(den)) {
        Some(d) => from_dim(d),
        None => Sym::Frac(d, den),
    }
}

/// Provably at least this, symbols being sizes.
fn at_least(d: &Dim, bound: i64) -> bool {
    d.lower_bound().is_some_and(|b| b >= bound)
}

fn negative(d: &Dim) -> Dim {
    d * &Dim::Const(-1)
}

/// Division that truncates, for a divisor above zero.
fn truncating_div(a: &Dim, b: &Dim) -> Option<Dim> {
    let down = a.floor_div(b)?;
    if at_least(a, 0) || a.exact_div(b).is_some() {
        return Some(down);
    }
    let up = negative(&negative(a).floor_div(b)?);
    Some(down.max_of(&Dim::ZERO) + up.min_of(&Dim::ZERO))
}

fn larger(a: &Dim, b: &Dim) -> Dim {
    let diff = a - b;
    match (at_least(&diff, 0), at_least(&negative(&diff), 0)) {
        (true, _) => a.clone(),
        (_, true) => b.clone(),
        _ => a.max_of(b),
    }
}

fn smaller(a: &Dim, b: &Dim) -> Dim {
    let diff = a - b;
    match (at_least(&diff, 0), at_least(&negative(&diff), 0)) {
        (true, _) => b.clone(),
        (_, true) => a.clone(),
        _ => a.min_of(b),
    }
}

/// What a comparison says of `a - b`, when that is provable.
fn compare(f: Func, diff: &Dim) -> Option<bool> {
    let (pos, neg) = (at_least(diff, 1), at_least(&negative(diff), 1));
    let (not_neg, not_pos) = (at_least(diff, 0), at_least(&negative(diff), 0));
    let decide = |yes: bool, no: bool| if yes { Some(true) } else if no { Some(false) } else { None };
    match f {
        Func::Equal => decide(diff.is(0), pos || neg),
        Func::Less => decide(neg, not_neg),
        Func::LessEqual => decide(not_pos, pos),
        Func::Greater => decide(pos, not_pos),
        Func::GreaterEqual => decide(not_neg, neg),
        _ => None,
    }
}

/// One instruction over elements that are known, partly known or not.
fn step(ins: &Instr, arg_type: DType, args: &[Option<Sym>]) -> Option<Sym> {
    let numbers: Option<Vec<Number>> = args
        .iter()
        .map(|a| match a {
            Some(Sym::Num(v)) => Some(*v),
            _ => None,
        })
        .collect();
    if let Some(v) = numbers {
        return Some(Sym::Num(eval::apply(ins, arg_type, &v)));
    }
    if ins.func == Func::Select {
        return match &args[0] {
            Some(Sym::Num(Number::Int(0) | Number::Uint(0))) => args[2].clone(),
            Some(Sym::Num(_)) => args[1].clone(),
            _ => None,
        };
    }
    let exact_type = |t: DType| matches!(t, DType::F32 | DType::F64 | DType::I32 | DType::U32 | DType::I64 | DType::U64);
    if !exact_type(arg_type) || !(exact_type(ins.dtype) || ins.dtype == DType::Bool) {
        return None;
    }
    let v: Vec<(Dim, i64)> = args.iter().map(|a| a.as_ref().and_then(as_frac)).collect::<Option<_>>()?;
    if v.iter().any(|(_, den)| *den > 1 << 24) {
        return None;
    }
    let (a, da) = v[0].clone();
    // The second and third argument over the same denominator as the first.
    let aligned = |i: usize| -> (Dim, Dim, i64) {
        let (b, db) = &v[i];
        if da == *db { (a.clone(), b.clone(), da) } else { (&a * &Dim::Const(*db), b * &Dim::Const(da), da * db) }
    };
    Some(match ins.func {
        Func::Add => {
            let (x, y, den) = aligned(1);
            fraction(x + y, den)
        }
        Func::Sub => {
            let (x, y, den) = aligned(1);
            fraction(x - y, den)
        }
        Func::Mul => fraction(&a * &v[1].0, da * v[1].1),
        Func::Div => divide(ins.dtype, (&a, da), (&v[1].0, v[1].1))?,
        Func::Mod if da == 1 && v[1].1 == 1 && at_least(&v[1].0, 1) => {
            from_dim(&a - &(&v[1].0 * &a.floor_div(&v[1].0)?))
        }
        Func::Neg => fraction(negative(&a), da),
        Func::Abs | Func::Relu if at_least(&a, 0) => fraction(a, da),
        Func::Max if da == 1 && v[1].1 == 1 => from_dim(larger(&a, &v[1].0)),
        Func::Min if da == 1 && v[1].1 == 1 => from_dim(smaller(&a, &v[1].0)),
        Func::Clip if da == 1 && v[1].1 == 1 && v[2].1 == 1 => from_dim(smaller(&larger(&a, &v[1].0), &v[2].0)),
        Func::Floor => from_dim(a.floor_div(&Dim::Const(da))?),
        Func::Ceil => from_dim(negative(&negative(&a).floor_div(&Dim::Const(da))?)),
        Func::Round if da == 1 => from_dim(a),
        Func::Cast if ins.dtype == DType::Bool => {
            compare(Func::Equal, &a).map(|zero| Sym::Num(Number::Uint(!zero as u64)))?
        }
        Func::Cast if ins.dtype.is_float() => fraction(a, da),
        Func::Cast => from_dim(truncating_div(&a, &Dim::Const(da))?),
        Func::Equal | Func::Less | Func::LessEqual | Func::Greater | Func::GreaterEqual => {
            let (x, y, _) = aligned(1);
            Sym::Num(Number::Uint(compare(ins.func, &(x - y))? as u64))
        }
        _ => return None,
    })
}

/// `(a/da) / (b/db)`, truncated for integers. A symbolic divisor counts as not zero.
fn divide(dtype: DType, (a, da): (&Dim, i64), (b, db): (&Dim, i64)) -> Option<Sym> {
    let (num, den) = (a * &Dim::Const(db), b * &Dim::Const(da));
    if let Some(q) = num.exact_div(&den) {
        return Some(from_dim(q));
    }
    match den.as_const() {
        // It has no opposite.
        Some(i64::MIN) => None,
        _ if dtype.is_int() && at_least(&den, 0) && !den.is(0) => truncating_div(&num, &den).map(from_dim),
        Some(c) if dtype.is_int() && c < 0 => Some(from_dim(negative(&truncating_div(&num, &Dim::Const(-c))?))),
        Some(c) if dtype.is_float() && c > 0 => Some(fraction(num, c)),
        Some(c) if dtype.is_float() && c < 0 => Some(fraction(negative(&num), -c)),
        _ => None,
    }
}
