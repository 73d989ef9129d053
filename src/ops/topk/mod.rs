//! The k largest or smallest elements along an axis, with their positions. Inputs: x of any numeric type, k (one
//! integer, host). Outputs: elements, positions (i64).
//!
//! Results are always sorted, best first; of equal elements the lower position wins. NaN is behind every number.

mod cpu;
pub(crate) mod cuda;

use crate::base::dims::normalize_axis;
use crate::base::tensor::{Number, Scalar};
use crate::base::{DType, Fact, Result, Tensor};
use crate::device::DeviceProps;
use crate::device::cpu::{SharedMut, for_each_task};
use crate::network::ValueId;
use crate::ops::{
    CpuStep, EvalCx, ImportCx, InferCx, OnnxOp, OpDef, PackCache, Problem, StepProgram, Tactic, TacticOptions,
    fresh_dim, onnx,
};
use crate::{ensure, err, op_home, op_struct};

op_struct! {
    /// The k largest or smallest elements along an axis, with their positions. Inputs: x, k (host).
    pub struct TopK {
        pub axis: i64,
        pub largest: bool,
    }
}

op_home!(
    TopK,
    "TopK",
    &[
        onnx("TopK", 1, import_1),
        onnx("TopK", 10, import),
        OnnxOp { domain: "com.microsoft", name: "TopK", since: 1, import },
    ]
);

/// An unsigned number that grows with the element; -0 and 0 are equal, NaN is `None`.
pub fn order_key(n: Number) -> Option<u64> {
    const SIGN: u64 = 1 << 63;
    Some(match n {
        Number::Float(v) if v.is_nan() => return None,
        Number::Float(v) => {
            let bits = (v + 0.0).to_bits();
            if bits & SIGN != 0 { !bits } else { bits | SIGN }
        }
        Number::Int(v) => v as u64 ^ SIGN,
        Number::Uint(v) => v,
    })
}

thread_local! {
    /// Items of this thread, kept between rows.
    static ITEMS: std::cell::Cell<Vec<u128>> = const { std::cell::Cell::new(Vec::new()) };
}

/// Calls `f` with rank and position of the k best of `row`, best first.
fn for_each_best(row: impl Iterator<Item = Number>, k: usize, largest: bool, mut f: impl FnMut(usize, usize)) {
    // Key and position in one number. No float has the key that NaN takes here.
    let key = |n: Number| match order_key(n) {
        Some(key) if largest => !key,
        Some(key) => key,
        None => u64::MAX,
    };
    let mut items = ITEMS.take();
    items.clear();
    items.extend(row.enumerate().map(|(i, n)| (key(n) as u128) << 64 | i as u128));
    if k > 0 && k < items.len() {
        items.select_nth_unstable(k - 1);
    }
    items.truncate(k);
    items.sort_unstable();
    items.iter().enumerate().for_each(|(rank, item)| f(rank, *item as u64 as usize));
    ITEMS.set(items);
}

impl TopK {
    fn run<T: Scalar>(&self, dims: &[usize], k: usize, x: &[T], y: &mut [T], at: &mut [i64]) -> Result<()> {
        let axis = normalize_axis(self.axis, dims.len())?;
        let (outer, length): (usize, usize) = (dims[..axis].iter().product(), dims[axis]);
        let inner: usize = dims[axis + 1..].iter().product();
        ensure!(k <= length, InvalidArgument, "the best {k} of {length} elements");
        let (n_y, n_at) = (y.len(), at.len());
        let (y, at) = (SharedMut(y.as_mut_ptr(), n_y), SharedMut(at.as_mut_ptr(), n_at));
        for_each_task(outer * inner, |row| {
            let (o, i) = (row / inner, row % inner);
            let element = |j: usize| x[(o * length + j) * inner + i];
            for_each_best((0..length).map(|j| element(j).to_number()), k, self.largest, |rank, j| {
                let to = (o * k + rank) * inner + i;
                // SAFETY: each row has positions of its own.
                unsafe {
                    y.slice(to, 1)[0] = element(j);
                    at.slice(to, 1)[0] = j as i64;
                }
            });
        });
        Ok(())
    }
}

impl OpDef for TopK {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Vec<Fact>> {
        cx.arity(2, 2)?;
        let (x, k) = (cx.input(0)?, cx.input(1)?);
        ensure!(x.dtype.is_float() || x.dtype.is_int(), Unsupported, "the best of {} are not supported", x.dtype);
        let axis = x.shape.axis(self.axis)?;
        let one = k.rank() <= 1 && k.shape.numel().as_const().is_none_or(|n| n == 1);
        ensure!(k.dtype.is_int() && one, InvalidArgument, "input 1: expected one integer, got {k}");
        let mut shape = x.shape.clone();
        shape.0[axis] = match cx.dims(1)? {
            Some(k) => {
                let (k, n) = (k[0].clone(), x.shape[axis].as_const());
                if let Some(k) = k.as_const() {
                    let fits = k >= 0 && n.is_none_or(|n| k <= n);
                    ensure!(fits, InvalidArgument, "the best {k} of {} elements along axis {axis}", x.shape[axis]);
                }
                k
            }
            None => fresh_dim("topk"),
        };
        Ok(vec![Fact::new(x.dtype, shape.clone()), Fact::new(DType::I64, shape)])
    }

    fn eval(&self, cx: &EvalCx<'_>) -> Result<Vec<Tensor>> {
        let x = cx.input(0)?;
        let k = cx.ints(1)?.first().copied().unwrap_or(-1);
        let k = usize::try_from(k).map_err(|_| err!(InvalidArgument, "the best {k} elements"))?;
        let (mut y, mut at) = (cx.output(0)?, cx.output(1)?);
        crate::dispatch!(x.dtype(), T => self.run::<T>(x.shape(), k, x.slice(), y.slice_mut(), at.slice_mut()))?;
        Ok(vec![y, at])
    }

    fn host_inputs(&self) -> Vec<usize> {
        vec![1]
    }

    fn cpu(&self, p: &Problem, _pack: &dyn PackCache) -> Result<Option<Box<dyn CpuStep>>> {
        cpu::step(self, p)
    }

    fn cuda_tactics(&self, p: &Problem, _dev: &DeviceProps, opt: &TacticOptions) -> Vec<Tactic> {
        cuda::tactics(self, p, opt)
    }

    fn cuda_program(&self, tactic: &Tactic, p: &Problem, dev: &DeviceProps) -> Result<StepProgram> {
        cuda::program(self, tactic, p, dev)
    }
}

/// Before opset 10 k is an attribute.
fn import_1(cx: &mut ImportCx<'_>) -> Result<Vec<ValueId>> {
    let x = cx.input(0)?;
    let k = cx.attrs.int("k")?.ok_or_else(|| err!(InvalidArgument, "attribute k is missing"))?;
    let axis = cx.int("axis", -1)?;
    let k = cx.constant(Tensor::from_slice(&[1], &[k]));
    cx.add_multi(TopK { axis, largest: true }, &[Some(x), Some(k)])
}

fn import(cx: &mut ImportCx<'_>) -> Result<Vec<ValueId>> {
    let (x, k) = (cx.input(0)?, cx.input(1)?);
    let axis = cx.int("axis", -1)?;
    let largest = cx.flag("largest", true)?;
    // Sorted results are right where any order will do.
    cx.flag("sorted", true)?;
    cx.add_multi(TopK { axis, largest }, &[Some(x), Some(k)])
}
