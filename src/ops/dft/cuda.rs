//! CUDA: `fourier.cu`, a launch for the table of turns and one a stage; between stages results lie in scratch memory.

use super::transform::Transform;
use crate::base::{DType, Result};
use crate::device::DeviceProps;
use crate::ops::per_output::{THREADS, launch};
use crate::ops::{Arg, DeviceOp, KernelSpec, StepProgram, Tactic, TacticSource, cuda_type, i64_struct};
use crate::{ensure, err};

/// Radices up to this are made of smaller primes.
const RADIX: usize = 32;
/// Lengths up to this are one plain sum.
const PLAIN: usize = 64;

const TURNS: usize = 0;
const STAGE: usize = 1;

/// What is fixed for all shapes of a node.
pub struct Forms {
    pub dtype: DType,
    pub inverse: bool,
    pub half_spectrum: bool,
    pub window: bool,
}

pub fn tactics(f: &Forms) -> Vec<Tactic> {
    let spec = |mode: &str| {
        KernelSpec::new("fourier.cu")
            .define_type("T_IN", f.dtype)
            .define("MODE", mode)
            .define("INVERSE", f.inverse as i64)
            .define("HALF_SPECTRUM", f.half_spectrum as i64)
            .define("HAS_WINDOW", f.window as i64)
            .define("THREADS", THREADS)
    };
    let text = [(f.inverse, "_inverse"), (f.half_spectrum, "_half"), (f.window, "_window")];
    let text: String = text.iter().filter(|(on, _)| *on).map(|(_, t)| *t).collect();
    vec![Tactic {
        name: format!("fourier/stages{text}_{}", cuda_type(f.dtype)),
        source: TacticSource::Kernels,
        kernels: vec![spec("MODE_TURNS"), spec("MODE_STAGE")],
        params: vec![],
    }]
}

/// `window` is the input that multiplies the samples.
pub fn program(t: &Transform, dtype: DType, window: Option<usize>, dev: &DeviceProps) -> Result<StepProgram> {
    let count = t.count();
    if count * t.kept == 0 {
        return Ok(StepProgram::default());
    }
    let radices = if t.n <= PLAIN { vec![t.n] } else { Transform::radices(t.n, RADIX) };
    let number = if dtype == DType::F64 { 16 } else { 8 };
    let table = (t.n * number).next_multiple_of(256);
    let buffer = count
        .checked_mul(t.n * number)
        .and_then(|b| b.checked_next_multiple_of(256))
        .filter(|b| *b < 1 << 46)
        .ok_or_else(|| err!(OutOfMemory, "{count} transforms of {} need too much scratch", t.n))?;
    ensure!(t.n < 1 << 31, Unsupported, "a transform of {} samples is too long", t.n);
    let mut ops = Vec::new();
    let args = vec![Arg::Work(0), Arg::I64(t.n as i64)];
    ops.push(DeviceOp::Launch(crate::ops::Launch { kernel: TURNS, ..launch(t.n, args, dev) }));
    let at = |s: usize| Arg::Work(table + s % 2 * buffer);
    let mut l = 1;
    for (s, r) in radices.iter().enumerate() {
        let last = s + 1 == radices.len();
        let results = if last { t.kept } else { t.n };
        let params = [
            t.outer[0], t.outer[1], t.outer_stride[0], t.outer_stride[1], t.inner, t.step, 1 + t.complex as usize, t.available,
            t.n, results, l, *r,
        ];
        let args = vec![
            Arg::In(0),
            window.map_or(Arg::Null, Arg::In),
            Arg::Work(0),
            if s == 0 { Arg::Null } else { at(s - 1) },
            if last { Arg::Null } else { at(s) },
            Arg::Out(0),
            i64_struct(params.map(|v| v as i64)),
        ];
        ops.push(DeviceOp::Launch(crate::ops::Launch { kernel: STAGE, ..launch(count * results, args, dev) }));
        l *= r;
    }
    let buffers = (radices.len() - 1).min(2);
    Ok(StepProgram { ops, workspace: table + buffers * buffer })
}
