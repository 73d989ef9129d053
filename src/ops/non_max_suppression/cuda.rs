//! CUDA: candidates of each batch and class are sorted by score (`nms.cu`, with `sort_step.cu` where they are many), then
//! one block a class picks the best that is left and drops what overlaps with it, in parallel. The number that each
//! class keeps is counted; the second phase writes the lists one behind the other.

use super::NonMaxSuppression;
use crate::base::Result;
use crate::device::DeviceProps;
use crate::ops::nonzero::cuda::{scan, scan_kernel};
use crate::ops::topk::cuda::{sort_kernel, sort_steps};
use crate::ops::transpose::cuda::THREADS;
use crate::ops::{Arg, DeviceOp, KernelSpec, Launch, Problem, StepProgram, Tactic, TacticOptions, TacticSource};
use crate::{ensure, err};

/// Threads of a block that works on one class.
const BLOCK: usize = 1024;
/// Candidates that one block sorts by itself.
const ONE_BLOCK: usize = 8192;
/// What a launch of `nms.cu` does, as bits.
const FILL: i64 = 1;
const SORT: i64 = 2;
const SELECT: i64 = 4;

struct Extents {
    rows: usize,
    classes: usize,
    n: usize,
    pad: usize,
    /// Offsets of the scratch: candidates, dropped ones as bits, selected ones, number of each class; and its size.
    dropped: usize,
    selected: usize,
    counts: usize,
    bytes: usize,
}

fn extents(p: &Problem) -> Result<Extents> {
    let scores = p.input(1).ok_or_else(|| err!(InvalidArgument, "input 1 is missing"))?;
    let [batch, classes, n] = scores.dims[..] else { return Err(err!(InvalidArgument, "expected rank 3, got {scores}")) };
    ensure!(n < 1 << 30 && batch * classes < 1 << 30, Unsupported, "selection among {scores} on a device");
    let rows = batch * classes;
    let pad = n.max(1).next_power_of_two();
    let up = |bytes: usize| bytes.next_multiple_of(256);
    let dropped = up(8 * rows * pad);
    let selected = dropped + up(4 * rows * n.div_ceil(32).max(1));
    let counts = selected + up(4 * rows * n.max(1));
    Ok(Extents { rows, classes, n, pad, dropped, selected, counts, bytes: counts + up(8 * rows.max(1)) })
}

pub fn tactics(op: &NonMaxSuppression, _p: &Problem, _opt: &TacticOptions) -> Vec<Tactic> {
    let kernels = vec![
        KernelSpec::new("nms.cu").define("CENTER", op.center as i64).define("THREADS", BLOCK),
        sort_kernel(4),
        scan_kernel(),
        KernelSpec::new("nms_write.cu").define("THREADS", THREADS),
    ];
    let name = format!("nms/{}", if op.center { "center" } else { "corners" });
    vec![Tactic { name, source: TacticSource::Kernels, kernels, params: vec![] }]
}

pub fn count_program(_tactic: &Tactic, p: &Problem, dev: &DeviceProps) -> Result<StepProgram> {
    let e = extents(p)?;
    let mut ops = Vec::new();
    let optional = |i: usize| if p.input(i).is_some() { Arg::In(i) } else { Arg::Null };
    let launch = |ops: &mut Vec<DeviceOp>, phases: i64| {
        let mut args = vec![Arg::In(0), Arg::In(1), optional(2), optional(3), optional(4)];
        args.extend([Arg::Work(0), Arg::Work(e.dropped), Arg::Work(e.selected), Arg::Work(e.counts)]);
        args.extend([e.classes, e.n, e.pad].map(|v| Arg::I64(v as i64)));
        args.push(Arg::I64(phases));
        let (grid, block) = ([e.rows as u32, 1, 1], [BLOCK as u32, 1, 1]);
        ops.push(DeviceOp::Launch(Launch { kernel: 0, grid, block, smem: 0, args }));
    };
    if e.rows > 0 && e.pad <= ONE_BLOCK {
        launch(&mut ops, FILL | SORT | SELECT);
    } else if e.rows > 0 {
        launch(&mut ops, FILL);
        ops.extend(sort_steps(1, Arg::Work(0), e.rows, e.pad, dev));
        launch(&mut ops, SELECT);
    }
    ops.push(scan(2, Arg::Work(e.counts), Arg::Count(0), e.rows));
    Ok(StepProgram { ops, workspace: e.bytes })
}

pub fn program(_tactic: &Tactic, p: &Problem, _dev: &DeviceProps) -> Result<StepProgram> {
    let e = extents(p)?;
    let total = p.outputs[0].dims[0];
    if total == 0 || e.rows == 0 {
        return Ok(StepProgram { ops: vec![], workspace: e.bytes });
    }
    let mut args = vec![Arg::Work(e.selected), Arg::Work(e.counts), Arg::Out(0)];
    args.extend([e.rows, e.classes, e.n, total].map(|v| Arg::I64(v as i64)));
    let (grid, block) = ([e.rows as u32, 1, 1], [THREADS as u32, 1, 1]);
    let launch = DeviceOp::Launch(Launch { kernel: 3, grid, block, smem: 0, args });
    Ok(StepProgram { ops: vec![launch], workspace: e.bytes })
}
