//! CUDA: one launch of `concat_rows.cu` for up to eight inputs.

use super::Concat;
use crate::base::Result;
use crate::base::dims::normalize_axis;
use crate::device::DeviceProps;
use crate::ops::transpose::cuda::{THREADS, grid_1d, unit, widest};
use crate::ops::{Arg, DeviceOp, KernelSpec, Launch, Problem, StepProgram, Tactic, TacticOptions, TacticSource, i64_struct};
use crate::{ensure, err};

/// Inputs of one launch.
const MAX_INPUTS: usize = 8;

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
    let kernel = KernelSpec::new("concat_rows.cu").define("T_UNIT", unit(bytes)).define("THREADS", THREADS);
    vec![Tactic {
        name: format!("concat_rows/{}b", 8 * bytes),
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
    let number = |n: usize| i64::try_from(n).map_err(|_| err!(Unsupported, "a row is too long"));
    let pitch = lens.iter().sum::<usize>() / bytes;
    let mut program = StepProgram::default();
    // Input, length of its rows, and where they go.
    let mut at = 0;
    let mut parts = Vec::new();
    for (i, len) in lens.iter().enumerate() {
        let cols = len / bytes;
        if cols > 0 && n_rows > 0 {
            parts.push((i, cols, at));
        }
        at += cols;
    }
    for parts in parts.chunks(MAX_INPUTS) {
        let mut args: Vec<Arg> = (0..MAX_INPUTS).map(|k| parts.get(k).map_or(Arg::Null, |p| Arg::In(p.0))).collect();
        args.extend([Arg::Out(0), Arg::I64(number(n_rows)?), Arg::I64(number(pitch)?)]);
        let mut numbers = [0; 2 * MAX_INPUTS];
        for (k, (_, cols, at)) in parts.iter().enumerate() {
            (numbers[k], numbers[MAX_INPUTS + k]) = (number(*cols)?, number(*at)?);
        }
        args.push(i64_struct(numbers));
        let longest = parts.iter().map(|p| p.1).max().unwrap_or(1);
        let [x, ..] = grid_1d(n_rows * longest, THREADS, dev);
        program.ops.push(DeviceOp::Launch(Launch {
            kernel: 0,
            grid: [x, parts.len() as u32, 1],
            block: [THREADS as u32, 1, 1],
            smem: 0,
            args,
        }));
    }
    Ok(program)
}
