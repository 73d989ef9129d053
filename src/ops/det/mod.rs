//! Determinants of square matrices. Input: x [.., n, n] of a floating-point type; the result has the leading axes.
//!
//! Gaussian elimination with row exchanges, in f64 on every device.

use crate::base::{DType, Fact, Result, Tensor};
use crate::device::DeviceProps;
use crate::network::ValueId;
use crate::ops::{
    Arg, EvalCx, ImportCx, InferCx, KernelSpec, Launch, OpDef, Problem, StepProgram, Tactic, TacticOptions,
    TacticSource, onnx,
};
use crate::{ensure, err, op_home, op_struct};

op_struct! {
    /// Determinants of square matrices. Inputs: x [.., n, n].
    pub struct Det {
    }
}

op_home!(Det, "Det", &[onnx("Det", 11, import)]);

const THREADS: usize = 256;

/// The determinant of an n x n matrix, which is destroyed.
fn determinant(a: &mut [f64], n: usize) -> f64 {
    let mut det = 1.0;
    for k in 0..n {
        let pivot = (k..n).max_by(|i, j| a[i * n + k].abs().total_cmp(&a[j * n + k].abs())).unwrap_or(k);
        if a[pivot * n + k] == 0.0 {
            return 0.0;
        }
        if pivot != k {
            (0..n).for_each(|j| a.swap(k * n + j, pivot * n + j));
            det = -det;
        }
        det *= a[k * n + k];
        for i in k + 1..n {
            let f = a[i * n + k] / a[k * n + k];
            for j in k + 1..n {
                a[i * n + j] -= f * a[k * n + j];
            }
        }
    }
    det
}

impl OpDef for Det {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Vec<Fact>> {
        cx.arity(1, 1)?;
        cx.float(0)?;
        let x = cx.input(0)?;
        let square = match &x.shape[..] {
            [.., a, b] => a == b || a.as_const().is_none() || b.as_const().is_none(),
            _ => false,
        };
        ensure!(square, InvalidArgument, "expected square matrices, got {x}");
        Ok(vec![Fact::new(x.dtype, x.shape[..x.rank() - 2].to_vec())])
    }

    fn eval(&self, cx: &EvalCx<'_>) -> Result<Vec<Tensor>> {
        let x = cx.input(0)?;
        let [.., n, columns] = *x.shape() else { return Err(err!(InvalidArgument, "expected matrices")) };
        ensure!(n == columns, InvalidArgument, "a matrix of {n} x {columns} has no determinant");
        let out = cx.output(0)?;
        let v = x.to_f64s();
        let dets: Vec<f64> =
            (0..out.numel()).map(|m| determinant(&mut v[m * n * n..(m + 1) * n * n].to_vec(), n)).collect();
        Ok(vec![Tensor::from_slice(out.shape(), &dets).cast(x.dtype())])
    }

    fn cuda_tactics(&self, p: &Problem, _dev: &DeviceProps, _opt: &TacticOptions) -> Vec<Tactic> {
        let dtype = p.input(0).map_or(DType::F32, |x| x.dtype);
        let kernel = KernelSpec::new("det.cu").define_type("T_DATA", dtype).define("THREADS", THREADS);
        let name = format!("det/{dtype}");
        vec![Tactic { name, source: TacticSource::Kernels, kernels: vec![kernel], params: vec![] }]
    }

    fn cuda_program(&self, _tactic: &Tactic, p: &Problem, _dev: &DeviceProps) -> Result<StepProgram> {
        let x = p.input(0).ok_or_else(|| err!(InvalidArgument, "input 0 is missing"))?;
        let n = x.dims.last().copied().unwrap_or(0);
        let count = p.outputs[0].numel();
        if count == 0 {
            return Ok(StepProgram::default());
        }
        ensure!(count < 1 << 31, Unsupported, "{count} determinants in one launch");
        let mut step = StepProgram::one(Launch {
            kernel: 0,
            grid: [count as u32, 1, 1],
            block: [THREADS as u32, 1, 1],
            smem: 0,
            args: vec![Arg::In(0), Arg::Out(0), Arg::Work(0), Arg::I64(n as i64)],
        });
        step.workspace = 8 * (count * n * n).max(1);
        Ok(step)
    }
}

fn import(cx: &mut ImportCx<'_>) -> Result<Vec<ValueId>> {
    let x = cx.input(0)?;
    Ok(vec![cx.add(Det {}, &[x])?])
}
