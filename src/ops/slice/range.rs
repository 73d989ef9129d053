//! One sliced axis: from start, end and step, which may be negative or far out of range, to what is taken.

use crate::base::{Dim, Result};
use crate::ensure;

/// The elements `start`, `start + step`, .. (`len` of them) of an axis.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Range {
    pub start: usize,
    pub step: i64,
    pub len: usize,
}

/// ONNX's rule: negative positions count from the end, then both ends are clamped to the axis. It is numpy's but for a
/// negative step from before the front, which starts at the first element instead of giving nothing.
pub fn resolve(size: usize, start: i64, end: i64, step: i64) -> Result<Range> {
    ensure!(step != 0, InvalidArgument, "a step is 0");
    let d = size as i64;
    let from_end = |v: i64| if v < 0 { v.saturating_add(d) } else { v };
    let (lo, hi) = if step > 0 { (0, d) } else { (-1, d - 1) };
    let start = from_end(start).clamp(0, hi.max(0));
    let end = from_end(end).clamp(lo, hi.max(lo));
    let len = if step > 0 {
        (end - start).max(0) as u64
    } else {
        (start - end).max(0) as u64
    }
    .div_ceil(step.unsigned_abs()) as usize;
    let len = if size == 0 { 0 } else { len };
    // The start of an empty range is never read; it may be one off the axis.
    Ok(Range { start: start.max(0) as usize, step, len })
}

/// Positions from here on mean "to the end" whatever the axis.
const FAR: i64 = i32::MAX as i64 - 1;

/// Length of the slice of a symbolic axis; `None` when it cannot be expressed.
///
/// With numbers it is exact. A symbolic bound is taken to lie inside the axis (it comes from arithmetic on shapes), and
/// so is a number that is cut off a symbolic axis (`x[1:]`, `x[:-1]`); `x[:k]` is the smaller of both.
pub fn length(size: &Dim, start: &Dim, end: &Dim, step: i64) -> Result<Option<Dim>> {
    ensure!(step != 0, InvalidArgument, "a step is 0");
    if let (Some(d), Some(s), Some(e)) = (size.as_const(), start.as_const(), end.as_const()) {
        let d = usize::try_from(d).unwrap_or(0);
        return Ok(Some(Dim::from(resolve(d, s, e, step)?.len)));
    }
    let (first, last) = if step > 0 { (start, end) } else { (end, start) };
    // Lower bound (inclusive) and upper bound (exclusive) of what is taken, as positions from the front.
    let near = |v: &Dim, far_is: Dim, shift: i64| match v.as_const() {
        Some(v) if v >= FAR => size.clone(),
        Some(v) if v <= -FAR => far_is,
        Some(v) if v < 0 => size + v.saturating_add(shift),
        Some(v) => Dim::from(v + shift),
        None => v + shift,
    };
    let shift = (step < 0) as i64;
    let low = near(first, Dim::ZERO, shift);
    let high = near(last, Dim::ZERO, shift);
    // A count from the end of `x[-k:]`: everything when the axis is shorter.
    if let (Some(k), true) = (first.as_const(), step == 1) {
        if (-FAR..-1).contains(&k) && high == *size && size.as_const().is_none() {
            return Ok(Some(size.min_of(&Dim::from(-k))));
        }
    }
    let high = match (high.as_const(), size.as_const()) {
        (Some(_), None) => high.min_of(size),
        _ => high,
    };
    let span = &high - &low;
    let step = step.unsigned_abs().min(i64::MAX as u64) as i64;
    let len = if step == 1 { span } else { span.ceil_div(step) };
    Ok(match len.as_const() {
        Some(v) => Some(Dim::from(v.max(0))),
        None => Some(len),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_follow_numpy() {
        let r = |d, s, e, t| {
            let r = resolve(d, s, e, t).unwrap();
            (r.start, r.len)
        };
        assert_eq!(r(10, 2, 7, 1), (2, 5));
        assert_eq!(r(10, 2, 7, 2), (2, 3));
        assert_eq!(r(10, -3, i64::MAX, 1), (7, 3));
        assert_eq!(r(10, 7, 2, 1).1, 0);
        assert_eq!(r(10, 7, 2, -2), (7, 3));
        assert_eq!(r(10, -1, i64::MIN, -1), (9, 10));
        assert_eq!(r(10, 20, -20, -3), (9, 4));
        assert_eq!(r(10, -100, 3, 1), (0, 3));
        assert_eq!(r(10, -40, -40, -2), (0, 1), "a negative step from before the front");
        assert_eq!(r(0, 0, 5, 1).1, 0);
        assert_eq!(r(0, -1, i64::MIN, -1).1, 0);
        assert_eq!(r(5, 0, 5, i64::MAX), (0, 1));
        assert_eq!(r(5, 4, -9, i64::MIN), (4, 1));
        assert!(resolve(5, 0, 5, 0).is_err());
    }

    #[test]
    fn every_small_case_agrees_with_walking() {
        for d in 0..5i64 {
            for s in -7..8 {
                for e in -7..8 {
                    for t in [-3i64, -2, -1, 1, 2, 3] {
                        let r = resolve(d as usize, s, e, t).unwrap();
                        let norm = |v: i64| if v < 0 { v + d } else { v };
                        let (lo, hi) = if t > 0 { (0, d) } else { (-1, d - 1) };
                        let (mut at, end) = (norm(s).max(0).min(hi.max(0)), norm(e).max(lo).min(hi.max(lo)));
                        let mut want = Vec::new();
                        while d > 0 && ((t > 0 && at < end) || (t < 0 && at > end)) {
                            want.push(at);
                            at += t;
                        }
                        let got: Vec<i64> = (0..r.len as i64).map(|k| r.start as i64 + k * t).collect();
                        assert_eq!(got, want, "{d} [{s}:{e}:{t}]");
                    }
                }
            }
        }
    }

    #[test]
    fn symbols_stay_short() {
        let n = Dim::sym("n");
        let len = |s: i64, e: i64, t: i64| length(&n, &s.into(), &e.into(), t).unwrap().unwrap();
        assert_eq!(len(0, i64::MAX, 1), n);
        assert_eq!(len(1, i64::MAX, 1), &n - &Dim::ONE);
        assert_eq!(len(0, -1, 1), &n - &Dim::ONE);
        assert_eq!(len(-1, i64::MAX, 1), Dim::ONE);
        assert_eq!(len(-5, i64::MAX, 1), n.min_of(&5.into()));
        assert_eq!(len(0, 5, 1), Dim::from(5).min_of(&n));
        assert_eq!(len(-1, i64::MIN, -1), n);
        let half = len(0, i64::MAX, 2);
        assert_eq!(half.eval(&[("n".into(), 7)].into()).unwrap(), 4);
        assert_eq!(length(&1024.into(), &0.into(), &n, 1).unwrap().unwrap(), n);
        assert_eq!(length(&n, &0.into(), &n, 1).unwrap().unwrap(), n);
    }
}
