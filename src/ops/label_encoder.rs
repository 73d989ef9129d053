//! A table from numbers to numbers. Inputs: x of any shape; keys [n] of x's type in ascending order, NaN last; values
//! [n + 1] of any type, of which the last is for what is no key. Output: x's shape, of the values' type.
//!
//! NaN is found as a key whatever its bits; -0 is 0.

use crate::base::{DType, Dim, Fact, Result, Tensor};
use crate::device::DeviceProps;
use crate::network::ValueId;
use crate::ops::ml::DOMAIN;
use crate::ops::tactic::{Arg, KernelSpec, Launch, TacticSource};
use crate::ops::transpose::cuda::{THREADS, grid_1d, unit};
use crate::ops::{EvalCx, ImportCx, InferCx, OnnxOp, OpDef, Problem, StepProgram, Tactic, TacticOptions};
use crate::{bail, ensure, err, op_home, op_struct};
use std::cmp::Ordering;
use std::sync::Arc;

op_struct! {
    /// See the module's text.
    pub struct LabelEncoder {}
}

op_home!(
    LabelEncoder,
    "LabelEncoder",
    &[
        OnnxOp { domain: DOMAIN, name: "LabelEncoder", since: 1, import: import_1 },
        OnnxOp { domain: DOMAIN, name: "LabelEncoder", since: 2, import: import_2 },
    ]
);

/// Keys in a form that has an order: integers exactly, floating-point numbers as f64.
enum Keys {
    Ints(Vec<i64>),
    Floats(Vec<f64>),
}

impl Keys {
    fn of(t: &Tensor) -> Keys {
        if t.dtype().is_float() { Keys::Floats(t.to_f64s()) } else { Keys::Ints(t.to_i64s()) }
    }

    fn len(&self) -> usize {
        match self {
            Keys::Ints(v) => v.len(),
            Keys::Floats(v) => v.len(),
        }
    }

    /// The order of element `i` and element `j` of `other`: as numbers, NaN behind all and equal to itself.
    fn order(&self, i: usize, other: &Keys, j: usize) -> Ordering {
        match (self, other) {
            (Keys::Ints(a), Keys::Ints(b)) => a[i].cmp(&b[j]),
            (Keys::Floats(a), Keys::Floats(b)) => {
                let (a, b) = (a[i], b[j]);
                a.partial_cmp(&b).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()))
            }
            _ => Ordering::Less,
        }
    }

    /// Index of the key that equals element `i` of `x`; the number of keys where none does.
    fn find(&self, x: &Keys, i: usize) -> usize {
        let (mut lo, mut hi) = (0, self.len());
        while lo < hi {
            let mid = (lo + hi) / 2;
            if self.order(mid, x, i) == Ordering::Less { lo = mid + 1 } else { hi = mid }
        }
        if lo < self.len() && self.order(lo, x, i) == Ordering::Equal { lo } else { self.len() }
    }
}

impl OpDef for LabelEncoder {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Vec<Fact>> {
        cx.arity(3, 3)?;
        cx.rank(1, 1)?;
        cx.rank(2, 1)?;
        let (x, keys, values) = (cx.input(0)?, cx.input(1)?, cx.input(2)?);
        ensure!(x.dtype == keys.dtype, InvalidArgument, "x is {}, the keys are {}", x.dtype, keys.dtype);
        ensure!(x.dtype != DType::U64, Unsupported, "keys of {}", x.dtype);
        let want = &keys.shape[0] + &Dim::from(1i64);
        let got = &values.shape[0];
        let fits = *got == want || got.as_const().is_none() || want.as_const().is_none();
        ensure!(fits, InvalidArgument, "{got} values for {} keys and a default", keys.shape[0]);
        Ok(vec![Fact::new(values.dtype, x.shape.clone())])
    }

    fn eval(&self, cx: &EvalCx<'_>) -> Result<Vec<Tensor>> {
        let mut out = cx.output(0)?;
        let (x, keys, values) = (Keys::of(cx.input(0)?), Keys::of(cx.input(1)?), cx.input(2)?);
        let size = values.dtype().size();
        for (i, to) in out.bytes_mut().chunks_exact_mut(size).enumerate() {
            let at = keys.find(&x, i) * size;
            to.copy_from_slice(&values.bytes()[at..at + size]);
        }
        Ok(vec![out])
    }

    fn cuda_tactics(&self, p: &Problem, _dev: &DeviceProps, _opt: &TacticOptions) -> Vec<Tactic> {
        let (Some(x), Some(values)) = (p.input(0), p.input(2)) else { return vec![] };
        let kernel = KernelSpec::new("label_encoder.cu")
            .define_type("T_KEY", x.dtype)
            .define("T_UNIT", unit(values.dtype.size()))
            .define("THREADS", THREADS);
        vec![Tactic {
            name: format!("labels/{}_{}", x.dtype, values.dtype),
            source: TacticSource::Kernels,
            kernels: vec![kernel],
            params: vec![],
        }]
    }

    fn cuda_program(&self, _tactic: &Tactic, p: &Problem, dev: &DeviceProps) -> Result<StepProgram> {
        let (Some(x), Some(keys)) = (p.input(0), p.input(1)) else {
            return Err(err!(InvalidArgument, "a table needs keys"));
        };
        let n = x.numel();
        if n == 0 {
            return Ok(StepProgram::default());
        }
        let numbers = [n, keys.numel()].map(|v| Arg::I64(v as i64));
        let mut args = vec![Arg::In(0), Arg::In(1), Arg::In(2), Arg::Out(0)];
        args.extend(numbers);
        let grid = grid_1d(n, THREADS, dev);
        Ok(StepProgram::one(Launch { kernel: 0, grid, block: [THREADS as u32, 1, 1], smem: 0, args }))
    }
}

fn import_1(_cx: &mut ImportCx<'_>) -> Result<Vec<ValueId>> {
    bail!(Unsupported, "the first LabelEncoder maps strings, which are not supported")
}

/// The attribute of numbers among `names` that is given: (integers, floats, tensor).
fn numbers(cx: &ImportCx<'_>, what: &str) -> Result<Arc<Tensor>> {
    let strings = cx.attrs.strings(&format!("{what}_strings"))?.unwrap_or_default();
    ensure!(strings.is_empty(), Unsupported, "{what} that are strings are not supported");
    let ints = cx.ints(&format!("{what}_int64s"))?.filter(|v| !v.is_empty());
    let floats = cx.attrs.floats(&format!("{what}_floats"))?.filter(|v| !v.is_empty());
    let tensor = cx.attrs.tensor(&format!("{what}_tensor"))?;
    match (ints, floats, tensor) {
        (Some(v), None, None) => Ok(Arc::new(Tensor::from_slice(&[v.len()], &v))),
        (None, Some(v), None) => Ok(Arc::new(Tensor::from_slice(&[v.len()], &v))),
        (None, None, Some(t)) => Ok(t),
        (None, None, None) => bail!(InvalidArgument, "there are no {what}"),
        _ => bail!(InvalidArgument, "the {what} are given twice"),
    }
}

/// Versions 2 and 4; in the latter the last of equal keys counts.
fn import_2(cx: &mut ImportCx<'_>) -> Result<Vec<ValueId>> {
    cx.string("default_string", "")?;
    let (keys, values) = (numbers(cx, "keys")?, numbers(cx, "values")?);
    let n = keys.numel();
    ensure!(n == values.numel(), InvalidArgument, "{n} keys for {} values", values.numel());
    let (int, float) = (cx.int("default_int64", -1)?, cx.float("default_float", -0.0)?);
    let default = match (cx.attrs.tensor("default_tensor")?, values.dtype()) {
        (Some(t), dtype) => {
            let fits = t.numel() == 1 && t.dtype() == dtype;
            ensure!(fits, InvalidArgument, "default_tensor is {t:?}, the values are {dtype}");
            t.cast(dtype)
        }
        (None, dtype) if dtype.is_float() => Tensor::scalar(float).cast(dtype),
        (None, dtype) => Tensor::scalar(int).cast(dtype),
    };
    let sorted = Keys::of(&keys);
    let mut order: Vec<usize> = (0..n).collect();
    if cx.opset >= 4 {
        order.reverse();
    }
    // Stable: of equal keys the one that counts stands first.
    order.sort_by(|a, b| sorted.order(*a, &sorted, *b));
    order.dedup_by(|b, a| sorted.order(*a, &sorted, *b) == Ordering::Equal);
    let pick = |t: &Tensor, end: Option<&Tensor>| -> Result<Tensor> {
        let size = t.dtype().size();
        let mut bytes: Vec<u8> = order.iter().flat_map(|i| t.bytes()[i * size..(i + 1) * size].to_vec()).collect();
        bytes.extend(end.map_or(&[][..], |e| e.bytes()));
        Tensor::from_bytes(t.dtype(), &[bytes.len() / size], &bytes)
    };
    let (keys, values) = (pick(&keys, None)?, pick(&values, Some(&default))?);
    let x = cx.input(0)?;
    let (keys, values) = (cx.constant(keys), cx.constant(values));
    Ok(vec![cx.add(LabelEncoder {}, &[x, keys, values])?])
}
