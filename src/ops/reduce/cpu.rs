//! CPU steps: the vectorized core for f32 where the reduced axes are neighbours, a typed loop for everything else.

use super::{Reduce, ReduceKind};
use crate::base::tensor::{Scalar, convert};
use crate::base::{DType, Result};
use crate::device::cpu::rows::{self, AxisShape};
use crate::device::cpu::{SharedMut, for_each_task};
use crate::ops::transpose::strided::View;
use crate::ops::{CpuArgs, CpuStep, Problem};

/// The input's axes in two views: those that stay and those that are reduced, each merged.
pub struct Split {
    pub kept: View,
    pub reduced: View,
}

impl Split {
    pub fn new(dims: &[usize], axes: &[usize]) -> Split {
        let all = View::dense(dims);
        let pick = |reduced: bool| {
            let which: Vec<usize> = (0..dims.len()).filter(|i| axes.contains(i) == reduced).collect();
            all.permuted(&which)
        };
        Split { kept: pick(false).collapsed(), reduced: pick(true).collapsed() }
    }

    /// (outer, axis, inner) when the reduced axes are one run of the input.
    pub fn contiguous(&self) -> Option<AxisShape> {
        let [axis] = self.reduced.dims[..] else { return None };
        let inner = if axis == 1 { 1 } else { self.reduced.strides[0] as usize };
        let n_kept = self.kept.numel();
        let fits = match (&self.kept.dims[..], &self.kept.strides[..]) {
            _ if axis == 1 || n_kept == 1 => inner == 1 || n_kept == 1,
            ([_], [s]) => (inner == 1 && *s == axis as i64) || (*s == 1 && inner == n_kept),
            ([_, i], [s, 1]) => *i == inner && *s == (axis * inner) as i64,
            _ => false,
        };
        let inner = if n_kept == 1 { 1 } else { inner };
        (fits && n_kept % inner == 0).then(|| AxisShape { outer: n_kept / inner, axis, inner })
    }
}

/// Walks the offsets of a view of at most [`MAX`] axes without allocating.
struct Walk<'a> {
    view: &'a View,
    index: [usize; MAX],
}

/// Axes that a typed loop walks.
const MAX: usize = 16;

impl<'a> Walk<'a> {
    /// At the n-th index.
    fn at(view: &'a View, mut n: usize) -> (Walk<'a>, usize) {
        let mut index = [0; MAX];
        let mut offset = 0;
        for k in (0..view.dims.len()).rev() {
            index[k] = n % view.dims[k];
            n /= view.dims[k];
            offset += index[k] * view.strides[k] as usize;
        }
        (Walk { view, index }, offset)
    }

    /// The offset after the one given.
    fn next(&mut self, mut offset: usize) -> usize {
        for k in (0..self.view.dims.len()).rev() {
            self.index[k] += 1;
            offset += self.view.strides[k] as usize;
            if self.index[k] < self.view.dims[k] {
                return offset;
            }
            offset -= self.view.dims[k] * self.view.strides[k] as usize;
            self.index[k] = 0;
        }
        offset
    }
}

struct CoreStep {
    op: rows::Reduce,
    shape: AxisShape,
}

impl CpuStep for CoreStep {
    fn name(&self) -> String {
        format!("reduce_{:?}", self.op).to_lowercase()
    }

    unsafe fn run(&self, args: &CpuArgs<'_>) {
        let AxisShape { outer, axis, inner } = self.shape;
        if outer * inner == 0 {
            return;
        }
        // SAFETY: the caller gives addresses of the tensors that the step was made for.
        let (x, y) = unsafe {
            (
                std::slice::from_raw_parts(args.inputs[0].cast::<f32>(), outer * axis * inner),
                std::slice::from_raw_parts_mut(args.outputs[0].cast::<f32>(), outer * inner),
            )
        };
        rows::reduce(self.op, self.shape, x, y);
    }
}

struct LoopStep {
    kind: ReduceKind,
    select_last: bool,
    dtype: DType,
    split: Split,
    in_len: usize,
}

impl LoopStep {
    /// # Safety
    /// The addresses hold what the step was made for, the input as `T`.
    unsafe fn typed<T: Scalar>(&self, args: &CpuArgs<'_>) {
        let n = self.split.kept.numel();
        // SAFETY: the caller's promise.
        let x = unsafe { std::slice::from_raw_parts(args.inputs[0].cast::<T>(), self.in_len) };
        let arg = self.kind.is_arg();
        let y = SharedMut(args.outputs[0], n * if arg { 8 } else { size_of::<T>() });
        let per_task = (16384 / self.split.reduced.numel().max(1)).clamp(1, n);
        for_each_task(n.div_ceil(per_task), |task| {
            for o in task * per_task..((task + 1) * per_task).min(n) {
                let base = Walk::at(&self.split.kept, o).1;
                let m = self.split.reduced.numel();
                let each = |f: &mut dyn FnMut(usize, T)| {
                    let (mut walk, mut at) = Walk::at(&self.split.reduced, 0);
                    for i in 0..m {
                        f(i, x[base + at]);
                        at = walk.next(at);
                    }
                };
                if arg {
                    let at = position::<T>(self.kind, self.select_last, &each);
                    // SAFETY: each output belongs to one task.
                    unsafe { y.slice(o * 8, 8) }.copy_from_slice(&(at as i64).to_ne_bytes());
                } else {
                    let v: T = fold::<T>(self.kind, m, &each);
                    // SAFETY: as above; the address is that of an element.
                    unsafe { y.0.cast::<T>().add(o).write(v) };
                }
            }
        });
    }
}

type Each<'a, T> = dyn Fn(&mut dyn FnMut(usize, T)) + 'a;

/// `a > b` in the order of the type, a NaN above everything.
fn above<T: Scalar>(a: T, b: T) -> bool {
    use crate::base::tensor::Number::*;
    match (a.to_number(), b.to_number()) {
        (Float(a), Float(b)) => a > b || (a.is_nan() && !b.is_nan()),
        (Int(a), Int(b)) => a > b,
        (Uint(a), Uint(b)) => a > b,
        _ => false,
    }
}

/// `a < b`, a NaN below everything.
fn below<T: Scalar>(a: T, b: T) -> bool {
    use crate::base::tensor::Number::*;
    match (a.to_number(), b.to_number()) {
        (Float(a), Float(b)) => a < b || (a.is_nan() && !b.is_nan()),
        (Int(a), Int(b)) => a < b,
        (Uint(a), Uint(b)) => a < b,
        _ => false,
    }
}

fn position<T: Scalar>(kind: ReduceKind, select_last: bool, each: &Each<'_, T>) -> usize {
    let better: fn(T, T) -> bool = if kind == ReduceKind::ArgMax { above } else { below };
    let (mut best, mut at) = (T::default(), 0);
    each(&mut |i, v| {
        let replace = if select_last { !better(best, v) } else { better(v, best) };
        if i == 0 || replace {
            (best, at) = (v, i);
        }
    });
    at
}

fn fold<T: Scalar>(kind: ReduceKind, n: usize, each: &Each<'_, T>) -> T {
    use ReduceKind::*;
    if matches!(kind, Max | Min) && n > 0 {
        let better: fn(T, T) -> bool = if kind == Max { above } else { below };
        let mut best = T::default();
        each(&mut |i, v| {
            if i == 0 || better(v, best) {
                best = v;
            }
        });
        return best;
    }
    if T::DTYPE.is_float() || matches!(kind, L2 | LogSum | LogSumExp) {
        return convert::<f64, T>(fold_float(kind, n, each));
    }
    let int = |v: T| convert::<T, i64>(v);
    let mut sum = if kind == Prod { 1i64 } else { 0 };
    each(&mut |_, v| {
        sum = match kind {
            Prod => sum.wrapping_mul(int(v)),
            SumSquare => sum.wrapping_add(int(v).wrapping_mul(int(v))),
            L1 if T::DTYPE.is_signed() => sum.wrapping_add(int(v).wrapping_abs()),
            _ => sum.wrapping_add(int(v)),
        }
    });
    convert::<i64, T>(match kind {
        Mean if n == 0 => 0,
        Mean if T::DTYPE == DType::U64 => (sum as u64 / n as u64) as i64,
        Mean => sum / n as i64,
        _ => sum,
    })
}

fn fold_float<T: Scalar>(kind: ReduceKind, n: usize, each: &Each<'_, T>) -> f64 {
    use ReduceKind::*;
    let sum_of = |f: &dyn Fn(f64) -> f64| {
        let mut sum = 0.0;
        each(&mut |_, v| sum += f(convert::<T, f64>(v)));
        sum
    };
    match kind {
        Sum => sum_of(&|v| v),
        Mean => sum_of(&|v| v) / n as f64,
        Prod => {
            let mut product = 1.0;
            each(&mut |_, v| product *= convert::<T, f64>(v));
            product
        }
        SumSquare => sum_of(&|v| v * v),
        L1 => sum_of(&f64::abs),
        L2 => sum_of(&|v| v * v).sqrt(),
        LogSum => sum_of(&|v| v).ln(),
        // Only of no elements; the others were compared in their own type.
        Max => f64::NEG_INFINITY,
        Min => f64::INFINITY,
        LogSumExp | ArgMax | ArgMin => {
            let mut max = f64::NEG_INFINITY;
            each(&mut |_, v| {
                let v = convert::<T, f64>(v);
                max = if v.is_nan() || max.is_nan() { f64::NAN } else { max.max(v) };
            });
            if max.is_infinite() { max } else { sum_of(&|v| (v - max).exp()).ln() + max }
        }
    }
}

impl CpuStep for LoopStep {
    fn name(&self) -> String {
        format!("reduce_{}_loop", self.kind.name())
    }

    unsafe fn run(&self, args: &CpuArgs<'_>) {
        // SAFETY: the caller gives addresses of the tensors that the step was made for.
        crate::dispatch!(self.dtype, T => unsafe { self.typed::<T>(args) });
    }
}

fn core_op(kind: ReduceKind) -> Option<rows::Reduce> {
    Some(match kind {
        ReduceKind::Sum => rows::Reduce::Sum,
        ReduceKind::Mean => rows::Reduce::Mean,
        ReduceKind::Max => rows::Reduce::Max,
        ReduceKind::Min => rows::Reduce::Min,
        ReduceKind::Prod => rows::Reduce::Prod,
        ReduceKind::SumSquare => rows::Reduce::SumSquare,
        ReduceKind::L1 => rows::Reduce::L1,
        ReduceKind::L2 => rows::Reduce::L2,
        ReduceKind::LogSum => rows::Reduce::LogSum,
        ReduceKind::LogSumExp => rows::Reduce::LogSumExp,
        ReduceKind::ArgMax | ReduceKind::ArgMin => return None,
    })
}

pub fn step(op: &Reduce, p: &Problem) -> Result<Option<Box<dyn CpuStep>>> {
    let Some(x) = p.input(0) else { return Ok(None) };
    if p.input(1).is_some() && p.known(1).is_none() && op.axes.is_none() {
        return Ok(None);
    }
    let axes = op.axes_of(x.dims.len(), p.known(1).map(|t| &**t))?;
    // Empty groups and empty outputs are rare and left to the reference.
    if x.numel() == 0 {
        return Ok(None);
    }
    let split = Split::new(&x.dims, &axes);
    if let (DType::F32, Some(core), Some(shape)) = (x.dtype, core_op(op.kind), split.contiguous()) {
        return Ok(Some(Box::new(CoreStep { op: core, shape })));
    }
    if split.kept.dims.len() > MAX || split.reduced.dims.len() > MAX {
        return Ok(None);
    }
    Ok(Some(Box::new(LoopStep {
        kind: op.kind,
        select_last: op.select_last_index,
        dtype: x.dtype,
        split,
        in_len: x.numel(),
    })))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contiguous_reductions_are_recognized() {
        let of = |dims: &[usize], axes: &[usize]| Split::new(dims, axes).contiguous().map(|s| (s.outer, s.axis, s.inner));
        assert_eq!(of(&[2, 3, 5], &[2]), Some((6, 5, 1)));
        assert_eq!(of(&[2, 3, 5], &[1, 2]), Some((2, 15, 1)));
        assert_eq!(of(&[2, 3, 5], &[1]), Some((2, 3, 5)));
        assert_eq!(of(&[2, 3, 5], &[0]), Some((1, 2, 15)));
        assert_eq!(of(&[2, 3, 5], &[0, 1, 2]), Some((1, 30, 1)));
        assert_eq!(of(&[2, 3, 5], &[0, 2]), None);
        assert_eq!(of(&[1, 3, 1, 5], &[0, 2]), Some((15, 1, 1)));
        assert_eq!(of(&[1, 1, 5], &[1, 2]), Some((1, 5, 1)));
    }
}
