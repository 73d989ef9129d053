//! The kernel function of support vector machines, between each row of x and each support vector. Inputs: x
//! [rows, features], vectors [n, features], both f32. Output: [rows, n].

use crate::base::{DType, Fact, Result, Tensor};
use crate::device::DeviceProps;
use crate::device::cpu::{SharedMut, for_each_task};
use crate::ops::tactic::{Arg, KernelSpec, Launch, TacticSource};
use crate::ops::transpose::cuda::{THREADS, grid_1d};
use crate::ops::{
    CpuArgs, CpuStep, EvalCx, InferCx, OpDef, PackCache, Problem, StepProgram, Tactic, TacticOptions,
};
use crate::{attr_enum, ensure, err, op_home, op_struct};

attr_enum! {
    /// Which function of the dot product d, or of the distance.
    pub enum SvmFunction {
        /// d.
        Linear = "linear",
        /// (gamma d + coef0)^degree.
        Poly = "poly",
        /// e^(-gamma |x - v|^2).
        Rbf = "rbf",
        /// tanh(gamma d + coef0).
        Sigmoid = "sigmoid",
    }
}

op_struct! {
    /// See the module's text.
    pub struct SvmKernel {
        pub function: SvmFunction,
        pub gamma: f32,
        pub coef0: f32,
        pub degree: f32,
    }
}

op_home!(SvmKernel, "SvmKernel", &[]);

impl SvmKernel {
    fn value(&self, x: &[f32], v: &[f32]) -> f64 {
        let pairs = || x.iter().zip(v).map(|(x, v)| (*x as f64, *v as f64));
        let (gamma, coef0) = (self.gamma as f64, self.coef0 as f64);
        let dot = || pairs().map(|(x, v)| x * v).sum::<f64>();
        match self.function {
            SvmFunction::Linear => dot(),
            SvmFunction::Poly => (gamma * dot() + coef0).powf(self.degree as f64),
            SvmFunction::Rbf => (-gamma * pairs().map(|(x, v)| (x - v) * (x - v)).sum::<f64>()).exp(),
            SvmFunction::Sigmoid => (gamma * dot() + coef0).tanh(),
        }
    }

    fn row(&self, x: &[f32], vectors: &[f32], y: &mut [f32]) {
        let features = x.len();
        for (i, y) in y.iter_mut().enumerate() {
            *y = self.value(x, &vectors[i * features..][..features]) as f32;
        }
    }
}

impl OpDef for SvmKernel {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Vec<Fact>> {
        cx.arity(2, 2)?;
        for i in 0..2 {
            cx.rank(i, 2)?;
            let dtype = cx.input(i)?.dtype;
            ensure!(dtype == DType::F32, Unsupported, "input {i}: expected f32, got {dtype}");
        }
        let (x, v) = (cx.input(0)?, cx.input(1)?);
        let (a, b) = (&x.shape[1], &v.shape[1]);
        let fits = a == b || a.as_const().is_none() || b.as_const().is_none();
        ensure!(fits, InvalidArgument, "x has {a} features, the support vectors have {b}");
        Ok(vec![Fact::new(DType::F32, vec![x.shape[0].clone(), v.shape[0].clone()])])
    }

    fn eval(&self, cx: &EvalCx<'_>) -> Result<Vec<Tensor>> {
        let (x, v) = (cx.input(0)?, cx.input(1)?);
        let mut out = cx.output(0)?;
        let (features, n) = (x.shape()[1], v.shape()[0]);
        let rows = out.slice_mut::<f32>().chunks_exact_mut(n.max(1));
        for (r, y) in rows.enumerate() {
            self.row(&x.slice::<f32>()[r * features..][..features], v.slice(), y);
        }
        Ok(vec![out])
    }

    fn cpu(&self, p: &Problem, _pack: &dyn PackCache) -> Result<Option<Box<dyn CpuStep>>> {
        let (Some(x), Some(v)) = (p.input(0), p.input(1)) else { return Ok(None) };
        let (rows, features, n) = (x.dims[0], x.dims[1], v.dims[0]);
        Ok(Some(Box::new(KernelStep { op: self.clone(), rows, features, n })))
    }

    fn cuda_tactics(&self, _p: &Problem, _dev: &DeviceProps, _opt: &TacticOptions) -> Vec<Tactic> {
        let kernel = KernelSpec::new("svm.cu").define("MODE", 0).define("FUNCTION", self.function as i64).define("THREADS", THREADS);
        vec![Tactic {
            name: format!("svm_{}", self.function.name()),
            source: TacticSource::Kernels,
            kernels: vec![kernel],
            params: vec![],
        }]
    }

    fn cuda_program(&self, _tactic: &Tactic, p: &Problem, dev: &DeviceProps) -> Result<StepProgram> {
        let (Some(x), Some(v)) = (p.input(0), p.input(1)) else {
            return Err(err!(InvalidArgument, "a kernel needs rows and support vectors"));
        };
        let (rows, n, features) = (x.dims[0], v.dims[0], x.dims[1]);
        if rows * n == 0 {
            return Ok(StepProgram::default());
        }
        let args = vec![
            Arg::In(0),
            Arg::In(1),
            Arg::Null,
            Arg::Out(0),
            Arg::Null,
            Arg::I64(rows as i64),
            Arg::I64(n as i64),
            Arg::I64(features as i64),
            Arg::F32(self.gamma),
            Arg::F32(self.coef0),
            Arg::F32(self.degree),
        ];
        let grid = grid_1d(rows * n, THREADS, dev);
        Ok(StepProgram::one(Launch { kernel: 0, grid, block: [THREADS as u32, 1, 1], smem: 0, args }))
    }

    fn flops(&self, p: &Problem) -> f64 {
        2.0 * p.outputs[0].numel() as f64 * p.input(0).map_or(0, |x| x.dims[1]) as f64
    }
}

struct KernelStep {
    op: SvmKernel,
    rows: usize,
    features: usize,
    n: usize,
}

impl CpuStep for KernelStep {
    fn name(&self) -> String {
        format!("svm_{}", self.op.function.name())
    }

    unsafe fn run(&self, args: &CpuArgs<'_>) {
        let (rows, features, n) = (self.rows, self.features, self.n);
        if rows * n == 0 {
            return;
        }
        // SAFETY: the caller gives addresses of the tensors that the step was made for; empty ones are not read.
        let operand = |i: usize, len: usize| -> &[f32] {
            // SAFETY: as above.
            if len == 0 { &[] } else { unsafe { std::slice::from_raw_parts(args.inputs[i].cast(), len) } }
        };
        let (x, v) = (operand(0, rows * features), operand(1, n * features));
        let y = SharedMut(args.outputs[0].cast::<f32>(), rows * n);
        // About 64 thousand multiply-adds a task.
        let per_task = ((1 << 16) / (n * features).max(1)).clamp(1, rows);
        for_each_task(rows.div_ceil(per_task), |task| {
            for r in task * per_task..((task + 1) * per_task).min(rows) {
                // SAFETY: each row belongs to one task.
                self.op.row(&x[r * features..][..features], v, unsafe { y.slice(r * n, n) });
            }
        });
    }
}
