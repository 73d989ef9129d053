//! Shape arithmetic of the five modes, over symbolic dimensions.

use crate::base::dims::normalize_axis;
use crate::base::{Dim, Result};
use crate::{bail, ensure};

fn product(dims: &[Dim]) -> Dim {
    dims.iter().fold(Dim::ONE, |a, b| &a * b)
}

/// The shape that `spec` asks for.
///
/// The dimension for -1 is the exact quotient where that can be proved, and otherwise the quotient as an expression;
/// with numbers it must divide.
pub fn reshape(x: &[Dim], spec: &[Dim], allow_zero: bool) -> Result<Vec<Dim>> {
    let mut out = Vec::with_capacity(spec.len());
    let mut open = None;
    for (i, s) in spec.iter().enumerate() {
        match s.as_const() {
            Some(0) if !allow_zero => match x.get(i) {
                Some(d) => out.push(d.clone()),
                None => bail!(InvalidArgument, "entry {i} of the shape is 0, but the input has rank {}", x.len()),
            },
            Some(-1) => {
                ensure!(open.is_none(), InvalidArgument, "more than one entry of the shape is -1");
                open = Some(i);
                out.push(Dim::ONE);
            }
            Some(v) if v < -1 => bail!(InvalidArgument, "entry {i} of the shape is {v}"),
            _ => out.push(s.clone()),
        }
    }
    let zero = spec.iter().any(|d| d.is(0));
    ensure!(
        !(allow_zero && zero && open.is_some()),
        InvalidArgument,
        "the shape has both 0 and -1 while 0 means an empty axis, so -1 could be any size"
    );
    let Some(open) = open else {
        let (have, want) = (product(x), product(&out));
        if let (Some(a), Some(b)) = (have.as_const(), want.as_const()) {
            ensure!(a == b, InvalidArgument, "an input of {a} elements cannot have a shape of {b} elements");
        }
        return Ok(out);
    };
    // Equal dimensions cancel first: so products that are no monomials, and zeros, need no division.
    let mut have: Vec<Dim> = x.to_vec();
    let mut rest: Vec<Dim> = Vec::new();
    for (i, d) in out.iter().enumerate().filter(|(i, _)| *i != open) {
        match have.iter().position(|h| h == d) {
            Some(at) => drop(have.remove(at)),
            None => rest.push(out[i].clone()),
        }
    }
    let (have, rest) = (product(&have), product(&rest));
    out[open] = match (have.as_const(), rest.as_const()) {
        (Some(_), Some(_)) => match have.exact_div(&rest) {
            Some(d) => d,
            None => bail!(InvalidArgument, "{have} elements do not divide into {rest} for the entry that is -1"),
        },
        _ => match have.floor_div(&rest) {
            Some(d) => d,
            None => bail!(InvalidArgument, "an empty shape with -1 could be any size"),
        },
    };
    Ok(out)
}

fn distinct_axes(axes: &[i64], rank: usize) -> Result<Vec<usize>> {
    let mut v = axes.iter().map(|a| normalize_axis(*a, rank)).collect::<Result<Vec<_>>>()?;
    v.sort_unstable();
    ensure!(v.windows(2).all(|w| w[0] != w[1]), InvalidArgument, "an axis stands twice in {axes:?}");
    Ok(v)
}

/// Without `axes`: all dimensions of size 1 go, and each dimension must be a number.
pub fn squeeze(x: &[Dim], axes: Option<&[i64]>) -> Result<Vec<Dim>> {
    let axes = match axes {
        Some(axes) => distinct_axes(axes, x.len())?,
        None => {
            ensure!(
                x.iter().all(|d| d.as_const().is_some()),
                Unsupported,
                "squeeze without axes of an input with dimensions that are not known: the rank would depend on data"
            );
            (0..x.len()).filter(|i| x[*i].is(1)).collect()
        }
    };
    for &a in &axes {
        ensure!(
            x[a].as_const().is_none_or(|d| d == 1),
            InvalidArgument,
            "axis {a} has size {} and cannot be squeezed",
            x[a]
        );
    }
    Ok(x.iter().enumerate().filter(|(i, _)| !axes.contains(i)).map(|(_, d)| d.clone()).collect())
}

pub fn unsqueeze(x: &[Dim], axes: &[i64]) -> Result<Vec<Dim>> {
    let rank = x.len() + axes.len();
    let axes = distinct_axes(axes, rank)?;
    let mut old = x.iter();
    let out = (0..rank).map(|i| if axes.contains(&i) { Some(Dim::ONE) } else { old.next().cloned() });
    Ok(out.collect::<Option<Vec<_>>>().expect("as many axes are old as the input has"))
}

pub fn flatten(x: &[Dim], axis: i64) -> Result<Vec<Dim>> {
    let r = x.len() as i64;
    ensure!((-r..=r).contains(&axis), InvalidArgument, "axis {axis} is outside [{}, {r}]", -r);
    let at = if axis < 0 { axis + r } else { axis } as usize;
    Ok(vec![product(&x[..at]), product(&x[at..])])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dims(text: &str) -> Vec<Dim> {
        let one = |t: &str| t.parse::<i64>().map(Dim::from).unwrap_or_else(|_| Dim::sym(t));
        text.split(',').filter(|t| !t.is_empty()).map(one).collect()
    }

    fn check(x: &str, spec: &str, want: &str) {
        assert_eq!(reshape(&dims(x), &dims(spec), false).unwrap(), dims(want), "{x} as {spec}");
    }

    #[test]
    fn minus_one_takes_what_is_left() {
        check("2,3,4", "-1", "24");
        check("2,3,4", "4,-1", "4,6");
        check("n,3,4", "0,-1", "n,12");
        check("n,s,64", "n,s,4,-1", "n,s,4,16");
        let flat = reshape(&dims("n,s,64"), &dims("-1,64"), false).unwrap();
        assert_eq!(flat, [Dim::sym("n") * Dim::sym("s"), 64.into()]);
    }

    #[test]
    #[should_panic]
    fn helper_notices_a_difference() {
        check("2,3", "6", "5");
    }

    #[test]
    fn sums_cancel_as_whole_dimensions() {
        let s1 = Dim::sym("s") + 1;
        let out = reshape(&[2.into(), s1.clone(), 8.into()], &[2.into(), s1.clone(), 4.into(), (-1).into()], false);
        assert_eq!(out.unwrap(), [2.into(), s1, 4.into(), 2.into()]);
        check("0,3", "0,-1", "0,3");
    }

    #[test]
    fn contradictions_are_refused() {
        assert!(reshape(&dims("2,3"), &dims("5"), false).is_err());
        assert!(reshape(&dims("2,3"), &dims("4,-1"), false).is_err());
        assert!(reshape(&dims("2,3"), &dims("-1,-1"), false).is_err());
        assert!(reshape(&dims("2,3"), &dims("2,3,0"), false).is_err());
        assert!(reshape(&dims("2,3"), &dims("6,-2"), false).is_err());
        assert!(reshape(&dims("0,3"), &dims("0,-1"), true).is_err());
        assert_eq!(reshape(&dims("0,3"), &dims("3,0"), true).unwrap(), dims("3,0"));
    }

    #[test]
    fn axes_count_from_the_end_of_the_result() {
        assert_eq!(unsqueeze(&dims("n,3"), &[-1, 0]).unwrap(), dims("1,n,3,1"));
        assert_eq!(squeeze(&dims("1,n,1"), Some(&[-1])).unwrap(), dims("1,n"));
        assert_eq!(squeeze(&dims("1,4,1"), None).unwrap(), dims("4"));
        assert!(squeeze(&dims("1,n,1"), None).is_err());
        assert!(squeeze(&dims("1,4"), Some(&[1])).is_err());
        assert!(unsqueeze(&dims("2"), &[0, 0]).is_err());
        assert_eq!(flatten(&dims("n,3,4"), 1).unwrap(), dims("n,12"));
        assert_eq!(flatten(&dims("2,3,4"), -1).unwrap(), dims("6,4"));
        assert_eq!(flatten(&dims("2,3"), 0).unwrap(), dims("1,6"));
        assert_eq!(flatten(&dims("2,3"), 2).unwrap(), dims("6,1"));
        assert!(flatten(&dims("2,3"), 3).is_err());
    }
}
