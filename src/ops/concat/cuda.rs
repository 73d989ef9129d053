//! CUDA: one launch of `concat_copy.cu` per input.

use super::Concat;
use crate::base::Result;
use crate::base::dims::normalize_axis;
use crate::device::DeviceProps;
use crate::ops::transpose::cuda::{THREADS, grid_1d, unit, widest};
use crate::ops::{Arg, DeviceOp, KernelSpec, Launch, Problem, StepProgram, Tactic, TacticOptions, TacticSource};
use crate::{ensure, err};

/// Bytes of one row of each input, and the number of rows.
fn rows(op: &Concat, p: &Problem) -> Result<(usize, Vec<usize>)> {
    let out = &p.outputs[0];
    let axis = normalize_axis(op.axis, out.dims.len())?;
    let lens = p.inputs.iter().flatten().map(|x| x.dims[axis..].iter().product::<usize>() * x.dtype.size());
    Ok((out.dims[..axis].iter().product(), lens.collect()))
}

pub fn tactics(op: &Concat, p: &Problem, opt: &TacticOptions) -> Vec<Tactic> {
    let Ok((_, lens)) = rows(op, p) else { return vec![] };
    let bytes = if opt.dynamic { p.outputs[0].dtype.size() } else { widest(lens) };
    let kernel = KernelSpec::new("concat_copy.cu").define("T_UNIT", unit(bytes)).define("THREADS", THREADS);
    vec![Tactic {
        name: format!("concat_copy/{}b", 8 * bytes),
        source: TacticSource::Kernels,
        kernels: vec![kernel],
        params: vec![bytes as i64],
    }]
}

pub fn program(op: &Concat, tactic: &Tactic, p: &Problem, dev: &DeviceProps) -> Result<StepProgram> {
    let bytes = tactic.params.first().map_or(0, |b| *b as usize);
    let (n_rows, lens) = rows(op, p)?;
    ensure!(
        bytes > 0 && lens.iter().all(|l| l % bytes == 0),
        InvalidState,
        "tactic {} does not fit rows of {lens:?} bytes",
        tactic.name
    );
    let pitch = lens.iter().sum::<usize>() / bytes;
    let mut program = StepProgram::default();
    let mut at = 0;
    for (i, len) in lens.iter().enumerate() {
        let cols = len / bytes;
        if cols > 0 && n_rows > 0 {
            let numbers = [n_rows, cols, cols, pitch, 0, at];
            let mut args = vec![Arg::In(i), Arg::Out(0)];
            for n in numbers {
                args.push(Arg::I64(i64::try_from(n).map_err(|_| err!(Unsupported, "a row is too long"))?));
            }
            program.ops.push(DeviceOp::Launch(Launch {
                kernel: 0,
                grid: grid_1d(n_rows * cols, THREADS, dev),
                block: [THREADS as u32, 1, 1],
                smem: 0,
                args,
            }));
        }
        at += cols;
    }
    Ok(program)
}
