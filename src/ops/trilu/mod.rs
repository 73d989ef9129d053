//! The upper or lower triangle of matrices, zero elsewhere. Inputs: x [.., rows, columns] of any type, optional k (one
//! i64, 0 without): the diagonal where the triangle begins.

use crate::base::{DType, Fact, Result, Tensor};
use crate::device::DeviceProps;
use crate::network::ValueId;
use crate::ops::transpose::cuda::{THREADS, grid_1d, unit};
use crate::ops::{
    Arg, EvalCx, ImportCx, InferCx, KernelSpec, Launch, OnnxOp, OpDef, Problem, StepProgram, Tactic, TacticOptions,
    TacticSource, onnx,
};
use crate::{ensure, err, op_home, op_struct};

op_struct! {
    /// The upper or lower triangle of matrices. Inputs: x, optional k.
    pub struct Trilu {
        pub upper: bool,
    }
}

op_home!(
    Trilu,
    "Trilu",
    &[onnx("Trilu", 14, import), OnnxOp { domain: "com.microsoft", name: "Trilu", since: 1, import }]
);

impl OpDef for Trilu {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Vec<Fact>> {
        cx.arity(1, 2)?;
        let x = cx.input(0)?;
        ensure!(x.rank() >= 2, InvalidArgument, "expected matrices, got {x}");
        if let Some(k) = cx.opt(1) {
            let one = k.shape.numel().as_const().is_none_or(|n| n == 1);
            ensure!(k.dtype == DType::I64 && one, InvalidArgument, "input 1: expected one i64, got {k}");
        }
        Ok(vec![Fact::new(x.dtype, x.shape.clone())])
    }

    fn half(&self, _n_inputs: usize) -> Option<(crate::ops::HalfRole, Vec<usize>)> {
        Some((crate::ops::HalfRole::Follows, vec![0]))
    }

    fn eval(&self, cx: &EvalCx<'_>) -> Result<Vec<Tensor>> {
        let x = cx.input(0)?;
        let mut out = cx.output(0)?;
        let k = cx.opt(1).map_or(0, |t| t.to_i64s()[0]);
        let [.., rows, columns] = *x.shape() else { return Err(err!(InvalidArgument, "expected matrices")) };
        let size = x.dtype().size();
        let dst = out.bytes_mut();
        for at in 0..x.numel() {
            let (row, column) = ((at / columns % rows) as i64, (at % columns) as i64);
            let kept = if self.upper { column >= row.saturating_add(k) } else { column <= row.saturating_add(k) };
            if kept {
                dst[at * size..(at + 1) * size].copy_from_slice(&x.bytes()[at * size..(at + 1) * size]);
            }
        }
        Ok(vec![out])
    }

    fn cuda_tactics(&self, p: &Problem, _dev: &DeviceProps, _opt: &TacticOptions) -> Vec<Tactic> {
        let Some(x) = p.input(0) else { return vec![] };
        let kernel = KernelSpec::new("trilu.cu")
            .define("T_UNIT", unit(x.dtype.size()))
            .define("UPPER", self.upper as i64)
            .define("THREADS", THREADS);
        vec![Tactic {
            name: format!("trilu/{}_{}b", if self.upper { "upper" } else { "lower" }, 8 * x.dtype.size()),
            source: TacticSource::Kernels,
            kernels: vec![kernel],
            params: vec![],
        }]
    }

    fn cuda_program(&self, _tactic: &Tactic, p: &Problem, dev: &DeviceProps) -> Result<StepProgram> {
        let x = p.input(0).ok_or_else(|| err!(InvalidArgument, "input 0 is missing"))?;
        let [.., rows, columns] = x.dims[..] else { return Err(err!(InvalidArgument, "expected matrices")) };
        let n = x.numel();
        if n == 0 {
            return Ok(StepProgram::default());
        }
        let k = if p.input(1).is_some() { Arg::In(1) } else { Arg::Null };
        let mut args = vec![Arg::In(0), k, Arg::Out(0)];
        args.extend([rows, columns, n].map(|v| Arg::I64(v as i64)));
        let grid = grid_1d(n, THREADS, dev);
        Ok(StepProgram::one(Launch { kernel: 0, grid, block: [THREADS as u32, 1, 1], smem: 0, args }))
    }
}

fn import(cx: &mut ImportCx<'_>) -> Result<Vec<ValueId>> {
    let x = cx.input(0)?;
    let upper = cx.flag("upper", true)?;
    let mut inputs = vec![Some(x)];
    inputs.extend(cx.opt(1).map(Some));
    Ok(vec![cx.add_opt(Trilu { upper }, &inputs)?])
}
