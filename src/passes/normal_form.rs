//! A normal form of expressions in one variable, so that one pattern finds every way of writing an activation.
//!
//! An expression is a sum of terms; a term is a number times a product of atoms; an atom is the variable or a function
//! of expressions. Products are multiplied out, divisions by numbers become factors, `1/(1+exp(-u))` becomes
//! `sigmoid(u)`, and clips are scaled to [0, 1]. Two expressions are the same function when their normal forms agree
//! to the rounding of f32 constants. This proves equality of real functions; rounding may differ, as anywhere.

use crate::ops::pointwise::{Func, Program};

/// Terms of one expression and factors of one term, at most: what is larger is no activation.
const MAX_TERMS: usize = 16;
const MAX_DEGREE: usize = 6;

#[derive(Clone, Debug, PartialEq, PartialOrd)]
enum Atom {
    X,
    Call(&'static str, Vec<Expr>),
}

/// Sum of number times product of atoms, sorted, no zero numbers.
#[derive(Clone, Debug, PartialEq, PartialOrd)]
pub struct Expr(Vec<(Vec<Atom>, f64)>);

fn sorted<T: PartialOrd>(mut v: Vec<T>) -> Vec<T> {
    v.sort_by(|a, b| a.partial_cmp(b).unwrap_or(std::cmp::Ordering::Equal));
    v
}

impl Expr {
    pub fn x() -> Expr {
        Expr(vec![(vec![Atom::X], 1.0)])
    }

    pub fn number(v: f64) -> Expr {
        Expr(vec![(vec![], v)].into_iter().filter(|(_, v)| *v != 0.0).collect())
    }

    pub fn as_number(&self) -> Option<f64> {
        match self.0.as_slice() {
            [] => Some(0.0),
            [(atoms, v)] if atoms.is_empty() => Some(*v),
            _ => None,
        }
    }

    pub fn call(f: Func, args: Vec<Expr>) -> Expr {
        Expr(vec![(vec![Atom::Call(f.name(), args)], 1.0)])
    }

    pub fn scaled(&self, k: f64) -> Expr {
        Expr(self.0.iter().map(|(a, v)| (a.clone(), v * k)).filter(|(_, v)| *v != 0.0).collect())
    }

    pub fn plus(&self, o: &Expr) -> Expr {
        let mut terms = self.0.clone();
        for (atoms, v) in &o.0 {
            match terms.iter_mut().find(|(a, _)| a == atoms) {
                Some((_, sum)) => *sum += v,
                None => terms.push((atoms.clone(), *v)),
            }
        }
        terms.retain(|(_, v)| *v != 0.0);
        Expr(sorted(terms))
    }

    /// `None` when the product is too large.
    pub fn times(&self, o: &Expr) -> Option<Expr> {
        let mut sum = Expr(vec![]);
        for (a, v) in &self.0 {
            for (b, w) in &o.0 {
                let atoms = sorted(a.iter().chain(b).cloned().collect());
                sum = sum.plus(&Expr(vec![(atoms, v * w)]));
                if a.len() + b.len() > MAX_DEGREE || sum.0.len() > MAX_TERMS {
                    return None;
                }
            }
        }
        Some(sum)
    }

    /// The arguments, when this is exactly one call of `name`, and the number in front of it.
    pub fn as_call(&self, f: Func) -> Option<(f64, &[Expr])> {
        match self.0.as_slice() {
            [(atoms, v)] => match atoms.as_slice() {
                [Atom::Call(name, args)] if *name == f.name() => Some((*v, args)),
                _ => None,
            },
            _ => None,
        }
    }

    /// `(a, b)` of `a x + b`.
    pub fn as_affine(&self) -> Option<(f64, f64)> {
        let (mut a, mut b) = (0.0, 0.0);
        for (atoms, v) in &self.0 {
            match atoms.as_slice() {
                [] => b = *v,
                [Atom::X] => a = *v,
                _ => return None,
            }
        }
        Some((a, b))
    }

    /// `u` of `1 + exp(u)`.
    fn as_one_plus_exp(&self) -> Option<Expr> {
        let rest = self.plus(&Expr::number(-1.0));
        let (k, args) = rest.as_call(Func::Exp)?;
        (k == 1.0).then(|| args[0].clone())
    }

    /// Equal up to the rounding of constants to f32.
    pub fn is_near(&self, o: &Expr) -> bool {
        let near = |a: f64, b: f64| a == b || (a - b).abs() <= 2e-5 * a.abs().max(b.abs());
        self.0.len() == o.0.len()
            && self.0.iter().zip(&o.0).all(|((a, v), (b, w))| {
                near(*v, *w)
                    && a.len() == b.len()
                    && a.iter().zip(b).all(|(a, b)| match (a, b) {
                        (Atom::X, Atom::X) => true,
                        (Atom::Call(f, xs), Atom::Call(g, ys)) => {
                            f == g && xs.len() == ys.len() && xs.iter().zip(ys).all(|(x, y)| x.is_near(y))
                        }
                        _ => false,
                    })
            })
    }

    /// The normal form of `f(args)`.
    pub fn apply(f: Func, args: &[Expr]) -> Option<Expr> {
        let number = |i: usize| args[i].as_number();
        Some(match f {
            Func::Add => args[0].plus(&args[1]),
            Func::Sub => args[0].plus(&args[1].scaled(-1.0)),
            Func::Neg => args[0].scaled(-1.0),
            Func::Mul => args[0].times(&args[1])?,
            Func::Div => match number(1) {
                Some(0.0) => return None,
                Some(d) => args[0].scaled(1.0 / d),
                None => args[0].times(&Expr::apply(Func::Reciprocal, &args[1..])?)?,
            },
            Func::Pow => match number(1)? {
                2.0 => args[0].times(&args[0])?,
                3.0 => args[0].times(&args[0])?.times(&args[0])?,
                _ => return None,
            },
            Func::Reciprocal => match args[0].as_one_plus_exp() {
                Some(u) => Expr::call(Func::Sigmoid, vec![u.scaled(-1.0)]),
                None => Expr::call(f, args.to_vec()),
            },
            Func::Log => match args[0].as_one_plus_exp() {
                Some(u) => Expr::call(Func::Softplus, vec![u]),
                None => Expr::call(f, args.to_vec()),
            },
            Func::Max if number(1) == Some(0.0) => Expr::call(Func::Relu, vec![args[0].clone()]),
            Func::Max if number(0) == Some(0.0) => Expr::call(Func::Relu, vec![args[1].clone()]),
            Func::Min => {
                let (u, high) = match (number(0), number(1)) {
                    (None, Some(high)) => (&args[0], high),
                    (Some(high), None) => (&args[1], high),
                    _ => return None,
                };
                let (k, inner) = u.as_call(Func::Relu)?;
                Expr::clip(&inner[0].scaled(k), k, high)?
            }
            Func::Clip => {
                let (low, high) = (number(1)?, number(2)?);
                if low == 0.0 && high == f64::INFINITY {
                    return Some(Expr::call(Func::Relu, vec![args[0].clone()]));
                }
                if low != 0.0 {
                    return None;
                }
                Expr::clip(&args[0], 1.0, high)?
            }
            Func::HardSigmoid => {
                let u = args[0].times(&args[1])?.plus(&args[2]);
                Expr::clip(&u, 1.0, 1.0)?
            }
            Func::Sigmoid | Func::Tanh | Func::Exp | Func::Erf | Func::Softplus | Func::Relu => {
                Expr::call(f, args.to_vec())
            }
            _ => return None,
        })
    }

    /// `clip(u, 0, high)` as `high * clip(u / high, 0, 1)`; `sign` must be positive for the relu that it came from.
    fn clip(u: &Expr, sign: f64, high: f64) -> Option<Expr> {
        (sign > 0.0 && high > 0.0 && high.is_finite()).then(|| {
            let unit = vec![u.scaled(1.0 / high), Expr::number(0.0), Expr::number(1.0)];
            Expr::call(Func::Clip, unit).scaled(high)
        })
    }

    /// The normal form of a program's output as a function of its one input; `None` when it has none here.
    pub fn of_program(p: &Program) -> Option<Expr> {
        let dtype = *p.inputs.first()?;
        if p.inputs.len() != 1 || p.outputs.len() != 1 || !dtype.is_float() {
            return None;
        }
        let mut regs = vec![Expr::x()];
        for ins in &p.instrs {
            if ins.dtype != dtype {
                return None;
            }
            let e = match ins.func {
                Func::Const if ins.value.is_nan() => return None,
                Func::Const => Expr::number(ins.value),
                f => {
                    let args: Vec<Expr> = ins.args.iter().map(|r| regs[*r as usize].clone()).collect();
                    Expr::apply(f, &args)?
                }
            };
            regs.push(e);
        }
        regs.get(p.outputs[0] as usize).cloned()
    }
}
