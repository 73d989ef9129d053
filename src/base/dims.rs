//! Dimensions: a number, a symbol, or an expression over symbols, kept in a canonical form.
//!
//! A dimension is a polynomial with integer coefficients over *atoms*; an atom is a symbol or an operation that is
//! not polynomial (floor division, minimum, maximum) of two dimensions. The canonical form makes `==` prove equality:
//! `2*n + n == 3*n`. Symbols are equal when their names are; a name from a model (`batch`) ties inputs together.

use crate::base::{Error, Result};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// One dimension, or one element of a shape vector (so it may be negative, as in `Reshape`'s -1).
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Dim {
    Const(i64),
    /// A canonical polynomial that is not constant.
    Expr(Arc<Poly>),
}

/// A product of atoms, sorted; empty for the constant term.
type Monomial = Vec<Atom>;

/// Sum of coefficient times monomial; no zero coefficients.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Poly(BTreeMap<Monomial, i64>);

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Atom {
    Sym(Arc<str>),
    FloorDiv(Box<(Dim, Dim)>),
    Max(Box<(Dim, Dim)>),
    Min(Box<(Dim, Dim)>),
}

/// A product of more terms is replaced by a symbol of its own: equality with it is not proved any more, but expressions
/// cannot grow exponentially.
const MAX_PRODUCT_TERMS: usize = 1024;

/// Values of symbols.
pub type Bindings = BTreeMap<Arc<str>, i64>;

impl Dim {
    pub const ONE: Dim = Dim::Const(1);
    pub const ZERO: Dim = Dim::Const(0);

    pub fn sym(name: &str) -> Dim {
        Poly(BTreeMap::from([(vec![Atom::Sym(name.into())], 1)])).into()
    }

    /// A symbol that equals no other.
    fn opaque() -> Dim {
        use std::sync::atomic::{AtomicU64, Ordering};
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Dim::sym(&format!("?product{}", NEXT.fetch_add(1, Ordering::Relaxed)))
    }

    pub fn as_const(&self) -> Option<i64> {
        match self {
            Dim::Const(v) => Some(*v),
            Dim::Expr(_) => None,
        }
    }

    /// The name, when this is a lone symbol.
    pub fn as_sym(&self) -> Option<&Arc<str>> {
        let Dim::Expr(p) = self else { return None };
        match p.0.iter().next() {
            Some((m, 1)) if p.0.len() == 1 => match m.as_slice() {
                [Atom::Sym(s)] => Some(s),
                _ => None,
            },
            _ => None,
        }
    }

    pub fn is(&self, v: i64) -> bool {
        self.as_const() == Some(v)
    }

    fn poly(&self) -> Poly {
        match self {
            Dim::Const(0) => Poly(BTreeMap::new()),
            Dim::Const(v) => Poly(BTreeMap::from([(vec![], *v)])),
            Dim::Expr(p) => (**p).clone(),
        }
    }

    fn atom(a: Atom) -> Dim {
        Poly(BTreeMap::from([(vec![a], 1)])).into()
    }

    /// Exact quotient when `self` is provably a multiple of `by`.
    pub fn exact_div(&self, by: &Dim) -> Option<Dim> {
        if let (Some(a), Some(b)) = (self.as_const(), by.as_const()) {
            return (b != 0 && a % b == 0).then(|| Dim::Const(a / b));
        }
        if self == by {
            return Some(Dim::ONE);
        }
        let d = by.poly();
        if d.0.len() != 1 {
            return None;
        }
        let (dm, dc) = d.0.iter().next()?;
        let mut out = BTreeMap::new();
        for (m, c) in &self.poly().0 {
            if c % dc != 0 {
                return None;
            }
            let mut rest = m.clone();
            for a in dm {
                let at = rest.iter().position(|x| x == a)?;
                rest.remove(at);
            }
            out.insert(rest, c / dc);
        }
        Some(Poly(out).into())
    }

    /// Division rounding down; `None` when the divisor is zero.
    pub fn floor_div(&self, by: &Dim) -> Option<Dim> {
        if by.is(0) {
            return None;
        }
        if let (Some(a), Some(b)) = (self.as_const(), by.as_const()) {
            return Some(Dim::Const(floor_div(a, b)?));
        }
        Some(match self.exact_div(by) {
            Some(d) => d,
            None => Dim::atom(Atom::FloorDiv(Box::new((self.clone(), by.clone())))),
        })
    }

    /// Division rounding up by a positive number.
    pub fn ceil_div(&self, by: i64) -> Dim {
        (self + (by - 1)).floor_div(&Dim::Const(by)).expect("the divisor is positive")
    }

    pub fn max_of(&self, other: &Dim) -> Dim {
        match (self.as_const(), other.as_const()) {
            (Some(a), Some(b)) => Dim::Const(a.max(b)),
            _ if self == other => self.clone(),
            _ => Dim::atom(Atom::Max(Box::new((self.clone(), other.clone())))),
        }
    }

    pub fn min_of(&self, other: &Dim) -> Dim {
        match (self.as_const(), other.as_const()) {
            (Some(a), Some(b)) => Dim::Const(a.min(b)),
            _ if self == other => self.clone(),
            _ => Dim::atom(Atom::Min(Box::new((self.clone(), other.clone())))),
        }
    }

    /// Replaces symbols by their values; symbols without a value stay.
    pub fn bind(&self, b: &Bindings) -> Dim {
        let Dim::Expr(p) = self else { return self.clone() };
        let mut sum = Dim::ZERO;
        for (m, c) in &p.0 {
            let mut term = Dim::Const(*c);
            for a in m {
                let v = match a {
                    Atom::Sym(s) => b.get(s).map(|v| Dim::Const(*v)).unwrap_or_else(|| Dim::atom(a.clone())),
                    Atom::FloorDiv(ab) => {
                        let (x, y) = (ab.0.bind(b), ab.1.bind(b));
                        x.floor_div(&y).unwrap_or_else(|| Dim::atom(a.clone()))
                    }
                    Atom::Max(ab) => ab.0.bind(b).max_of(&ab.1.bind(b)),
                    Atom::Min(ab) => ab.0.bind(b).min_of(&ab.1.bind(b)),
                };
                term = &term * &v;
            }
            sum = &sum + &term;
        }
        sum
    }

    /// The value under these bindings.
    pub fn eval(&self, b: &Bindings) -> Result<i64> {
        match self.bind(b) {
            Dim::Const(v) => Ok(v),
            d => Err(crate::err!(InvalidState, "dimension {d} has no value yet")),
        }
    }

    /// Takes the terms and factors of the expression from `room`; false when they do not fit, or when divisions, minima
    /// and maxima are nested more than `depth` deep.
    pub fn spend_terms(&self, room: &mut usize, depth: usize) -> bool {
        let n = match self {
            Dim::Const(_) => 1,
            Dim::Expr(p) => p.0.keys().map(|m| m.len().max(1)).sum(),
        };
        let Some(left) = room.checked_sub(n) else { return false };
        *room = left;
        let Dim::Expr(p) = self else { return true };
        p.0.keys().flatten().all(|a| match a {
            Atom::Sym(_) => true,
            Atom::FloorDiv(ab) | Atom::Max(ab) | Atom::Min(ab) => {
                depth > 0 && ab.0.spend_terms(room, depth - 1) && ab.1.spend_terms(room, depth - 1)
            }
        })
    }

    /// Calls `f` with each symbol's name.
    pub fn symbols(&self, f: &mut dyn FnMut(&Arc<str>)) {
        let Dim::Expr(p) = self else { return };
        for a in p.0.keys().flatten() {
            match a {
                Atom::Sym(s) => f(s),
                Atom::FloorDiv(ab) | Atom::Max(ab) | Atom::Min(ab) => {
                    ab.0.symbols(f);
                    ab.1.symbols(f);
                }
            }
        }
    }

    /// A number that this is never below when every symbol is a size (so at least 0); `None` when none is evident.
    pub fn lower_bound(&self) -> Option<i64> {
        let Dim::Expr(p) = self else { return self.as_const() };
        let mut bound = 0i64;
        for (m, c) in &p.0 {
            if m.is_empty() {
                bound = bound.saturating_add(*c);
                continue;
            }
            // A term is not negative when its factors are not.
            let sign = |a: &Atom| match a {
                Atom::Sym(_) => true,
                Atom::FloorDiv(ab) => {
                    ab.0.lower_bound().is_some_and(|b| b >= 0) && ab.1.lower_bound().is_some_and(|b| b >= 0)
                }
                Atom::Max(ab) => ab.0.lower_bound().max(ab.1.lower_bound()).is_some_and(|b| b >= 0),
                Atom::Min(ab) => ab.0.lower_bound().min(ab.1.lower_bound()).is_some_and(|b| b >= 0),
            };
            if *c < 0 || !m.iter().all(sign) {
                return None;
            }
        }
        Some(bound)
    }

    /// The dimension of a broadcast of both (numpy rules); fails when both are known and disagree.
    pub fn broadcast(&self, other: &Dim) -> Result<Dim> {
        match (self.as_const(), other.as_const()) {
            _ if self == other => Ok(self.clone()),
            (Some(1), _) => Ok(other.clone()),
            (_, Some(1)) => Ok(self.clone()),
            (Some(_), None) => Ok(self.clone()),
            (None, Some(_)) => Ok(other.clone()),
            (Some(a), Some(b)) => Err(crate::err!(InvalidArgument, "dimensions {a} and {b} do not broadcast")),
            (None, None) => Ok(self.max_of(other)),
        }
    }
}

fn floor_div(a: i64, b: i64) -> Option<i64> {
    let q = a.checked_div(b)?;
    Some(if a % b != 0 && (a < 0) != (b < 0) { q - 1 } else { q })
}

impl From<Poly> for Dim {
    fn from(mut p: Poly) -> Dim {
        p.0.retain(|_, c| *c != 0);
        match p.0.len() {
            0 => Dim::ZERO,
            1 if p.0.contains_key(&vec![] as &Monomial) => Dim::Const(p.0[&vec![] as &Monomial]),
            _ => Dim::Expr(Arc::new(p)),
        }
    }
}

macro_rules! from_int {
    ($($t:ty),*) => { $(impl From<$t> for Dim { fn from(v: $t) -> Dim { Dim::Const(v as i64) } })* };
}
from_int!(i64, i32, usize, u32);

impl From<&str> for Dim {
    fn from(name: &str) -> Dim {
        Dim::sym(name)
    }
}

// Constants saturate: a hostile model must not overflow, and a size near i64::MAX fails wherever memory is checked.
impl std::ops::Add for &Dim {
    type Output = Dim;
    fn add(self, o: &Dim) -> Dim {
        if let (Some(a), Some(b)) = (self.as_const(), o.as_const()) {
            return Dim::Const(a.saturating_add(b));
        }
        let mut p = self.poly();
        for (m, c) in o.poly().0 {
            let e = p.0.entry(m).or_insert(0);
            *e = e.saturating_add(c);
        }
        p.into()
    }
}

impl std::ops::Mul for &Dim {
    type Output = Dim;
    fn mul(self, o: &Dim) -> Dim {
        if let (Some(a), Some(b)) = (self.as_const(), o.as_const()) {
            return Dim::Const(a.saturating_mul(b));
        }
        let (a, b) = (self.poly(), o.poly());
        if a.0.len().saturating_mul(b.0.len()) > MAX_PRODUCT_TERMS {
            return Dim::opaque();
        }
        let mut out: BTreeMap<Monomial, i64> = BTreeMap::new();
        for (m, c) in &a.0 {
            for (n, d) in &b.0 {
                let mut mn: Monomial = m.iter().chain(n).cloned().collect();
                mn.sort();
                let e = out.entry(mn).or_insert(0);
                *e = e.saturating_add(c.saturating_mul(*d));
            }
        }
        Poly(out).into()
    }
}

impl std::ops::Sub for &Dim {
    type Output = Dim;
    fn sub(self, o: &Dim) -> Dim {
        self + &(o * &Dim::Const(-1))
    }
}

macro_rules! owned_ops {
    ($($tr:ident $f:ident),*) => { $(
        impl std::ops::$tr<Dim> for Dim { type Output = Dim; fn $f(self, o: Dim) -> Dim { (&self).$f(&o) } }
        impl std::ops::$tr<&Dim> for Dim { type Output = Dim; fn $f(self, o: &Dim) -> Dim { (&self).$f(o) } }
        impl std::ops::$tr<i64> for Dim { type Output = Dim; fn $f(self, o: i64) -> Dim { (&self).$f(&Dim::Const(o)) } }
        impl std::ops::$tr<i64> for &Dim { type Output = Dim; fn $f(self, o: i64) -> Dim { self.$f(&Dim::Const(o)) } }
    )* };
}
owned_ops!(Add add, Sub sub, Mul mul);

impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let p = match self {
            Dim::Const(v) => return write!(f, "{v}"),
            Dim::Expr(p) => p,
        };
        let many = p.0.len() > 1;
        if many {
            f.write_str("(")?;
        }
        for (i, (m, c)) in p.0.iter().rev().enumerate() {
            if i > 0 {
                f.write_str("+")?;
            }
            if m.is_empty() || *c != 1 {
                write!(f, "{c}{}", if m.is_empty() { "" } else { "*" })?;
            }
            for (j, a) in m.iter().enumerate() {
                if j > 0 {
                    f.write_str("*")?;
                }
                match a {
                    Atom::Sym(s) => f.write_str(s)?,
                    Atom::FloorDiv(ab) => write!(f, "floor({}/{})", ab.0, ab.1)?,
                    Atom::Max(ab) => write!(f, "max({},{})", ab.0, ab.1)?,
                    Atom::Min(ab) => write!(f, "min({},{})", ab.0, ab.1)?,
                }
            }
        }
        if many {
            f.write_str(")")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// The dimensions of a value, outermost first.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct Shape(pub Vec<Dim>);

impl Shape {
    pub fn from_usizes(dims: &[usize]) -> Shape {
        Shape(dims.iter().map(|d| Dim::from(*d)).collect())
    }

    pub fn rank(&self) -> usize {
        self.0.len()
    }

    /// All dimensions as numbers, when they are.
    pub fn concrete(&self) -> Option<Vec<usize>> {
        self.0.iter().map(|d| d.as_const().and_then(|v| usize::try_from(v).ok())).collect()
    }

    /// The dimensions as numbers, or an error that names the open one.
    pub fn to_concrete(&self) -> Result<Vec<usize>> {
        self.concrete().ok_or_else(|| crate::err!(InvalidState, "shape {self} is not fully known"))
    }

    pub fn is_concrete(&self) -> bool {
        self.concrete().is_some()
    }

    pub fn numel(&self) -> Dim {
        self.0.iter().fold(Dim::ONE, |a, b| &a * b)
    }

    pub fn bind(&self, b: &Bindings) -> Shape {
        Shape(self.0.iter().map(|d| d.bind(b)).collect())
    }

    /// Numpy broadcasting of two shapes.
    pub fn broadcast(&self, other: &Shape) -> Result<Shape> {
        let rank = self.rank().max(other.rank());
        let at = |s: &Shape, i: usize| (i + s.rank()).checked_sub(rank).map(|i| s.0[i].clone()).unwrap_or(Dim::ONE);
        (0..rank)
            .map(|i| at(self, i).broadcast(&at(other, i)))
            .collect::<Result<Vec<_>>>()
            .map(Shape)
            .map_err(|e: Error| e.context(format!("shapes {self} and {other}")))
    }

    /// The axis as an index, counting from the end when negative.
    pub fn axis(&self, axis: i64) -> Result<usize> {
        normalize_axis(axis, self.rank())
    }
}

/// An axis in `[-rank, rank)` as an index.
pub fn normalize_axis(axis: i64, rank: usize) -> Result<usize> {
    let r = rank as i64;
    crate::ensure!((-r..r).contains(&axis), InvalidArgument, "axis {axis} is outside [{}, {})", -r, r);
    Ok(if axis < 0 { axis + r } else { axis } as usize)
}

impl From<Vec<Dim>> for Shape {
    fn from(v: Vec<Dim>) -> Shape {
        Shape(v)
    }
}

impl From<&[usize]> for Shape {
    fn from(v: &[usize]) -> Shape {
        Shape::from_usizes(v)
    }
}

impl<const N: usize> From<[i64; N]> for Shape {
    fn from(v: [i64; N]) -> Shape {
        Shape(v.into_iter().map(Dim::from).collect())
    }
}

impl std::ops::Deref for Shape {
    type Target = [Dim];
    fn deref(&self) -> &[Dim] {
        &self.0
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[")?;
        for (i, d) in self.0.iter().enumerate() {
            write!(f, "{}{d}", if i > 0 { "," } else { "" })?;
        }
        f.write_str("]")
    }
}

impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canonical_form_proves_equality() {
        let (n, m) = (Dim::sym("n"), Dim::sym("m"));
        assert_eq!(&(&n + &n) + &n, &n * 3);
        assert_eq!((&n + 1) * (&m - 1), &(&(&n * &m) - &n) + &(&m - 1));
        assert_eq!(&n - &n, Dim::ZERO);
        assert_ne!(n, m);
    }

    #[test]
    fn division_is_exact_where_it_can_be_and_evaluates_elsewhere() {
        let n = Dim::sym("n");
        assert_eq!((&n * 6).exact_div(&Dim::Const(3)), Some(&n * 2));
        assert_eq!((&n * 19).exact_div(&n), Some(Dim::Const(19)));
        let half = (&n + 1).floor_div(&Dim::Const(2)).unwrap();
        let b = Bindings::from([("n".into(), 7)]);
        assert_eq!(half.eval(&b).unwrap(), 4);
        assert!(half.eval(&Bindings::new()).is_err());
        assert_eq!(Dim::Const(-7).floor_div(&Dim::Const(2)), Some(Dim::Const(-4)));
        assert_eq!(n.floor_div(&Dim::ZERO), None);
    }

    #[test]
    fn broadcasting_follows_numpy() {
        let s = Shape(vec!["n".into(), 1.into(), 4.into()]);
        let t = Shape::from([3, 1]);
        assert_eq!(s.broadcast(&t).unwrap().to_string(), "[n,3,4]");
        assert!(Shape::from([2]).broadcast(&Shape::from([3])).is_err());
    }
}
