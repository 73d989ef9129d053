//! Inverses of square matrices, com.microsoft's Inverse. Input: x [.., n, n] of a floating-point type; y of the same shape.
//!
//! Gauss-Jordan elimination with row exchanges, in f64 on every device. A singular matrix gives numbers that are not finite.

use crate::base::{DType, Fact, Result, Tensor};
use crate::device::DeviceProps;
use crate::network::ValueId;
use crate::ops::epilogue::round_to;
use crate::ops::{
    Arg, EvalCx, ImportCx, InferCx, KernelSpec, Launch, OnnxOp, OpDef, Problem, StepProgram, Tactic, TacticOptions,
    TacticSource,
};
use crate::{ensure, err, op_home, op_struct};

op_struct! {
    /// Inverses of square matrices. Input: x [.., n, n].
    pub struct Inverse {
    }
}

op_home!(
    Inverse,
    "Inverse",
    &[OnnxOp { domain: "com.microsoft", name: "Inverse", since: 1, import: import }]
);

const THREADS: usize = 256;

/// Inverts an n x n matrix into `y`; `a` is destroyed.
fn invert(a: &mut [f64], y: &mut [f64], n: usize) {
    for i in 0..n {
        y[i * n..(i + 1) * n].fill(0.0);
        y[i * n + i] = 1.0;
    }
    for k in 0..n {
        let mut pivot = k;
        for i in k + 1..n {
            if a[i * n + k].abs() > a[pivot * n + k].abs() {
                pivot = i;
            }
        }
        for j in 0..n {
            a.swap(k * n + j, pivot * n + j);
            y.swap(k * n + j, pivot * n + j);
        }
        let p = a[k * n + k];
        for j in 0..n {
            a[k * n + j] /= p;
            y[k * n + j] /= p;
        }
        for i in (0..n).filter(|i| *i != k) {
            let f = a[i * n + k];
            for j in 0..n {
                a[i * n + j] -= f * a[k * n + j];
                y[i * n + j] -= f * y[k * n + j];
            }
        }
    }
}

impl OpDef for Inverse {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Vec<Fact>> {
        cx.arity(1, 1)?;
        cx.float(0)?;
        let x = cx.input(0)?;
        let square = match &x.shape[..] {
            [.., a, b] => crate::ops::compose::may_equal(a, b),
            _ => false,
        };
        ensure!(square, InvalidArgument, "expected square matrices, got {x}");
        Ok(vec![Fact::new(x.dtype, x.shape.clone())])
    }

    fn eval(&self, cx: &EvalCx<'_>) -> Result<Vec<Tensor>> {
        let x = cx.input(0)?;
        let [.., n, columns] = *x.shape() else { return Err(err!(InvalidArgument, "expected matrices")) };
        ensure!(n == columns, InvalidArgument, "a matrix of {n} x {columns} has no inverse");
        let mut v = x.to_f64s();
        let mut y = vec![0.0; v.len()];
        if n > 0 {
            v.chunks_exact_mut(n * n).zip(y.chunks_exact_mut(n * n)).for_each(|(a, y)| invert(a, y, n));
        }
        Ok(vec![round_to(x.dtype(), x.shape(), &y)])
    }

    fn cuda_tactics(&self, p: &Problem, _dev: &DeviceProps, _opt: &TacticOptions) -> Vec<Tactic> {
        let dtype = p.input(0).map_or(DType::F32, |x| x.dtype);
        let kernel = KernelSpec::new("inverse.cu").define_type("T_DATA", dtype).define("THREADS", THREADS);
        let name = format!("inverse/{dtype}");
        vec![Tactic { name, source: TacticSource::Kernels, kernels: vec![kernel], params: vec![] }]
    }

    fn cuda_program(&self, _tactic: &Tactic, p: &Problem, _dev: &DeviceProps) -> Result<StepProgram> {
        let x = p.input(0).ok_or_else(|| err!(InvalidArgument, "input 0 is missing"))?;
        let [.., n, _] = x.dims[..] else { return Err(err!(InvalidArgument, "expected matrices, got {x}")) };
        if x.numel() == 0 {
            return Ok(StepProgram::default());
        }
        let count = x.numel() / (n * n);
        ensure!(count < 1 << 31, Unsupported, "{count} inverses in one launch");
        let mut step = StepProgram::one(Launch {
            kernel: 0,
            grid: [count as u32, 1, 1],
            block: [THREADS as u32, 1, 1],
            smem: 0,
            args: vec![Arg::In(0), Arg::Out(0), Arg::Work(0), Arg::I64(n as i64)],
        });
        step.workspace = 16 * x.numel();
        Ok(step)
    }
}

fn import(cx: &mut ImportCx<'_>) -> Result<Vec<ValueId>> {
    let x = cx.input(0)?;
    Ok(vec![cx.add(Inverse {}, &[x])?])
}
