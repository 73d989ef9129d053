//! The different elements of a tensor, or its different slices along an axis. Input: x of any numeric type or bool.
//!
//! Outputs: the elements; the position of the first of each; for each element of x which one it is; how many of each there
//! are. In ascending order (slices lexicographically) or, unsorted, in the order of first occurrence. NaN is equal to NaN
//! here, and last. How many there are depends on the data.

mod cuda;

use crate::base::tensor::Scalar;
use crate::base::{DType, Fact, Result, Tensor};
use crate::device::DeviceProps;
use crate::network::ValueId;
use crate::ops::topk::order_key;
use crate::ops::{
    EvalCx, ImportCx, InferCx, OnnxOp, OpDef, Problem, StepProgram, Tactic, TacticOptions, fresh_dim, onnx,
};
use crate::{ensure, err, op_home, op_struct};

op_struct! {
    /// The different elements, or slices along an axis. Inputs: x.
    pub struct Unique {
        /// Absent: the elements of x, flattened.
        pub axis: Option<i64>,
        pub sorted: bool,
    }
}

op_home!(
    Unique,
    "Unique",
    &[onnx("Unique", 11, import), OnnxOp { domain: "com.microsoft", name: "Unique", since: 1, import: import_ms }]
);

impl Unique {
    /// x as [outer, n, inner], whose n slices are compared.
    pub fn extents(&self, dims: &[usize]) -> Result<[usize; 3]> {
        let Some(axis) = self.axis else { return Ok([1, dims.iter().product(), 1]) };
        let axis = crate::base::dims::normalize_axis(axis, dims.len())?;
        Ok([dims[..axis].iter().product(), dims[axis], dims[axis + 1..].iter().product()])
    }

    /// Shapes of the outputs when there are `n` different ones.
    pub fn shapes(&self, dims: &[usize], n: usize) -> Result<Vec<Vec<usize>>> {
        let mut shape = dims.to_vec();
        match self.axis {
            Some(axis) => shape[crate::base::dims::normalize_axis(axis, dims.len())?] = n,
            None => shape = vec![n],
        }
        Ok(vec![shape, vec![n], vec![self.extents(dims)?[1]], vec![n]])
    }
}

fn keys<T: Scalar>(x: &[T]) -> Vec<u128> {
    x.iter().map(|v| order_key(v.to_number()).map_or(u128::MAX, |k| k as u128)).collect()
}

impl OpDef for Unique {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Vec<Fact>> {
        cx.arity(1, 1)?;
        let x = cx.input(0)?;
        let plain = x.dtype.is_float() || x.dtype.is_int() || x.dtype == DType::Bool;
        ensure!(plain, Unsupported, "unique elements of {} are not supported", x.dtype);
        let n = fresh_dim("unique");
        let (mut shape, length) = match self.axis {
            Some(axis) => (x.shape.clone(), x.shape[x.shape.axis(axis)?].clone()),
            None => (vec![n.clone()].into(), x.shape.numel()),
        };
        if let Some(axis) = self.axis {
            let axis = x.shape.axis(axis)?;
            shape.0[axis] = n.clone();
        }
        let vector = |d: &crate::base::Dim| Fact::new(DType::I64, vec![d.clone()]);
        Ok(vec![Fact::new(x.dtype, shape), vector(&n), vector(&length), vector(&n)])
    }

    fn eval(&self, cx: &EvalCx<'_>) -> Result<Vec<Tensor>> {
        let x = cx.input(0)?;
        let [outer, n, inner] = self.extents(x.shape())?;
        let keys = crate::dispatch!(x.dtype(), T => keys::<T>(x.slice()));
        let slice = |j: usize| (0..outer).flat_map(move |o| (0..inner).map(move |i| (o * n + j) * inner + i));
        let compare = |a: usize, b: usize| slice(a).map(|k| keys[k]).cmp(slice(b).map(|k| keys[k]));
        let mut order: Vec<usize> = (0..n).collect();
        match outer * inner {
            1 => order.sort_unstable_by_key(|j| (keys[*j], *j)),
            _ => order.sort_by(|a, b| compare(*a, *b).then(a.cmp(b))),
        }
        // Groups as their members, the first one lowest.
        let mut groups: Vec<Vec<usize>> = Vec::new();
        for j in order {
            match groups.last_mut() {
                Some(g) if compare(g[0], j).is_eq() => g.push(j),
                _ => groups.push(vec![j]),
            }
        }
        if !self.sorted {
            groups.sort_by_key(|g| g[0]);
        }
        let (mut inverse, u) = (vec![0i64; n], groups.len());
        for (g, members) in groups.iter().enumerate() {
            members.iter().for_each(|j| inverse[*j] = g as i64);
        }
        let first: Vec<i64> = groups.iter().map(|g| g[0] as i64).collect();
        let counts: Vec<i64> = groups.iter().map(|g| g.len() as i64).collect();
        let mut y = Tensor::zeros(x.dtype(), &self.shapes(x.shape(), u)?[0]);
        let row = inner * x.dtype().size();
        let dst = y.bytes_mut();
        for o in 0..outer {
            for (g, members) in groups.iter().enumerate() {
                let (to, from) = ((o * u + g) * row, (o * n + members[0]) * row);
                dst[to..to + row].copy_from_slice(&x.bytes()[from..from + row]);
            }
        }
        Ok(vec![
            y,
            Tensor::from_slice(&[u], &first),
            Tensor::from_slice(&[n], &inverse),
            Tensor::from_slice(&[u], &counts),
        ])
    }

    fn is_data_dependent(&self) -> bool {
        true
    }

    fn count_program(&self, tactic: &Tactic, p: &Problem, dev: &DeviceProps) -> Result<StepProgram> {
        cuda::count_program(self, tactic, p, dev)
    }

    fn counted_shapes(&self, p: &Problem, counts: &[i64]) -> Result<Vec<Vec<usize>>> {
        let x = p.input(0).ok_or_else(|| err!(InvalidArgument, "input 0 is missing"))?;
        self.shapes(&x.dims, counts.first().map_or(0, |n| *n as usize))
    }

    fn cuda_tactics(&self, p: &Problem, _dev: &DeviceProps, _opt: &TacticOptions) -> Vec<Tactic> {
        cuda::tactics(self, p)
    }

    fn cuda_program(&self, tactic: &Tactic, p: &Problem, dev: &DeviceProps) -> Result<StepProgram> {
        cuda::program(self, tactic, p, dev)
    }
}

fn import(cx: &mut ImportCx<'_>) -> Result<Vec<ValueId>> {
    let x = cx.input(0)?;
    let axis = cx.attrs.int("axis")?;
    let sorted = cx.flag("sorted", true)?;
    cx.add_multi(Unique { axis, sorted }, &[Some(x)])
}

/// The form of com.microsoft: a vector, in the order of first occurrence; elements, inverse and counts.
fn import_ms(cx: &mut ImportCx<'_>) -> Result<Vec<ValueId>> {
    let x = cx.input(0)?;
    let out = cx.add_multi(Unique { axis: None, sorted: false }, &[Some(x)])?;
    Ok(vec![out[0], out[2], out[3]])
}
