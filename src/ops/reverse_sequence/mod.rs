//! Reverses the first elements of each batch element along the time axis. Inputs: x [time, batch, ..] or [batch, time, ..]
//! of any type, lengths [batch] (i64, or i32).
//!
//! A length outside [0, time] is an error on the host; devices clamp it.

use crate::base::{Fact, Result, Tensor};
use crate::device::DeviceProps;
use crate::network::ValueId;
use crate::ops::gather_elements::check_indices;
use crate::ops::scatter_elements::check_same;
use crate::ops::transpose::cuda::{THREADS, grid_1d, unit, widest};
use crate::ops::{
    Arg, EvalCx, ImportCx, InferCx, KernelSpec, Launch, OpDef, Problem, StepProgram, Tactic, TacticOptions,
    TacticSource, onnx,
};
use crate::{ensure, err, op_home, op_struct};

op_struct! {
    /// Reverses the first elements of each batch element along the time axis. Inputs: x, lengths.
    pub struct ReverseSequence {
        /// x is [batch, time, ..], not [time, batch, ..].
        pub batch_first: bool,
    }
}

op_home!(ReverseSequence, "ReverseSequence", &[onnx("ReverseSequence", 10, import)]);

impl OpDef for ReverseSequence {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Vec<Fact>> {
        cx.arity(2, 2)?;
        check_indices(cx, 1)?;
        let (x, lengths) = (cx.input(0)?, cx.input(1)?);
        ensure!(x.rank() >= 2, InvalidArgument, "expected a time and a batch axis, got {x}");
        let batch = if self.batch_first { 0 } else { 1 };
        check_same("the batch and the number of lengths", &x.shape[batch..=batch], &lengths.shape)?;
        Ok(vec![Fact::new(x.dtype, x.shape.clone())])
    }

    fn half(&self, _n_inputs: usize) -> Option<(crate::ops::HalfRole, Vec<usize>)> {
        Some((crate::ops::HalfRole::Follows, vec![0]))
    }

    fn eval(&self, cx: &EvalCx<'_>) -> Result<Vec<Tensor>> {
        let (x, lengths) = (cx.input(0)?, cx.ints(1)?);
        let mut out = cx.output(0)?;
        let (first, second) = (x.shape()[0], x.shape()[1]);
        let time = if self.batch_first { second } else { first };
        let row = x.shape()[2..].iter().product::<usize>() * x.dtype().size();
        for n in &lengths {
            ensure!((0..=time as i64).contains(n), InvalidArgument, "length {n} is outside [0, {time}]");
        }
        let dst = out.bytes_mut();
        for at in 0..first * second {
            let (a, b) = (at / second, at % second);
            let (t, batch) = if self.batch_first { (b, a) } else { (a, b) };
            let n = lengths[batch] as usize;
            let from = if t < n { n - 1 - t } else { t };
            let from = if self.batch_first { a * second + from } else { from * second + b };
            dst[at * row..(at + 1) * row].copy_from_slice(&x.bytes()[from * row..(from + 1) * row]);
        }
        Ok(vec![out])
    }

    fn cuda_tactics(&self, p: &Problem, _dev: &DeviceProps, opt: &TacticOptions) -> Vec<Tactic> {
        let (Some(x), Some(lengths)) = (p.input(0), p.input(1)) else { return vec![] };
        let size = x.dtype.size();
        let row = x.dims[2..].iter().product::<usize>() * size;
        let bytes = if opt.dynamic { size } else { widest([row]) };
        let kernel = KernelSpec::new("reverse_sequence.cu")
            .define("T_UNIT", unit(bytes))
            .define_type("T_INDEX", lengths.dtype)
            .define("BATCH_FIRST", self.batch_first as i64)
            .define("THREADS", THREADS);
        vec![Tactic {
            name: format!(
                "reverse_sequence/{}b_{}_{}",
                8 * bytes,
                lengths.dtype,
                if self.batch_first { "batch_first" } else { "time_first" }
            ),
            source: TacticSource::Kernels,
            kernels: vec![kernel],
            params: vec![bytes as i64],
        }]
    }

    fn cuda_program(&self, tactic: &Tactic, p: &Problem, dev: &DeviceProps) -> Result<StepProgram> {
        let x = p.input(0).ok_or_else(|| err!(InvalidArgument, "input 0 is missing"))?;
        let row = x.dims[2..].iter().product::<usize>() * x.dtype.size();
        let bytes = tactic.params.first().map_or(0, |b| *b as usize);
        ensure!(bytes > 0 && row % bytes == 0, InvalidState, "tactic {} does not fit rows of {row} bytes", tactic.name);
        if x.numel() == 0 {
            return Ok(StepProgram::default());
        }
        let inner = row / bytes;
        let n = x.dims[0] * x.dims[1] * inner;
        let mut args = vec![Arg::In(0), Arg::In(1), Arg::Out(0)];
        args.extend([x.dims[0], x.dims[1], inner, n].map(|v| Arg::I64(v as i64)));
        let grid = grid_1d(n, THREADS, dev);
        Ok(StepProgram::one(Launch { kernel: 0, grid, block: [THREADS as u32, 1, 1], smem: 0, args }))
    }
}

fn import(cx: &mut ImportCx<'_>) -> Result<Vec<ValueId>> {
    let inputs = [cx.input(0)?, cx.input(1)?];
    let (batch, time) = (cx.int("batch_axis", 1)?, cx.int("time_axis", 0)?);
    ensure!(
        (batch, time) == (0, 1) || (batch, time) == (1, 0),
        InvalidArgument,
        "batch_axis {batch} and time_axis {time} are not 0 and 1"
    );
    Ok(vec![cx.add(ReverseSequence { batch_first: batch == 0 }, &inputs)?])
}
