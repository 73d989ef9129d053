//! CUDA: positions are sorted by their slices, equal neighbours grouped and counted; then the groups are written and
//! gathered.

use super::Unique;
use crate::base::{DType, Result};
use crate::device::DeviceProps;
use crate::ops::transpose::cuda::{THREADS, grid_1d, unit};
use crate::ops::{Arg, DeviceOp, KernelSpec, Launch, Problem, StepProgram, Tactic, TacticSource, TensorDesc};
use crate::{ensure, err};

/// Positions that one block sorts in one launch.
const ONE_BLOCK: usize = 2048;
const WIDE_BLOCK: usize = 1024;

/// Offsets of the scratch: order, group, start, rank; and its size.
struct Scratch {
    pad: usize,
    group: usize,
    start: usize,
    rank: usize,
    bytes: usize,
}

fn scratch(n: usize) -> Scratch {
    let pad = n.max(1).next_power_of_two();
    let (order, each) = ((4 * pad).next_multiple_of(256), (4 * n.max(1)).next_multiple_of(256));
    Scratch { pad, group: order, start: order + each, rank: order + 2 * each, bytes: order + 3 * each }
}

fn input(p: &Problem) -> Result<&TensorDesc> {
    p.input(0).ok_or_else(|| err!(InvalidArgument, "input 0 is missing"))
}

/// Bools are bytes of 0 and 1 there.
fn kernel_type(dtype: DType) -> DType {
    if dtype == DType::Bool { DType::U8 } else { dtype }
}

pub fn tactics(op: &Unique, p: &Problem) -> Vec<Tactic> {
    let Some(x) = p.input(0) else { return vec![] };
    let dtype = kernel_type(x.dtype);
    let kernels = vec![
        KernelSpec::new("unique_sort.cu").define_type("T_DATA", dtype).define("THREADS", WIDE_BLOCK),
        KernelSpec::new("unique_groups.cu").define_type("T_DATA", dtype).define("THREADS", WIDE_BLOCK),
        KernelSpec::new("unique_write.cu").define("SORTED", op.sorted as i64).define("THREADS", THREADS),
        KernelSpec::new("gather.cu")
            .define("T_UNIT", unit(x.dtype.size()))
            .define("T_INDEX", "i64")
            .define("THREADS", THREADS),
    ];
    let name = format!("unique/{}{}", x.dtype, if op.sorted { "_sorted" } else { "" });
    vec![Tactic { name, source: TacticSource::Kernels, kernels, params: vec![] }]
}

pub fn count_program(op: &Unique, _tactic: &Tactic, p: &Problem, dev: &DeviceProps) -> Result<StepProgram> {
    let x = input(p)?;
    let [outer, n, inner] = op.extents(&x.dims)?;
    ensure!(n < 1 << 30, Unsupported, "{n} slices to be compared on a device");
    let s = scratch(n);
    let mut ops = Vec::new();
    let mut sort = |size: usize, stride: usize, threads: usize| {
        let mut args = vec![Arg::In(0), Arg::Work(0)];
        args.extend([outer, n, inner, s.pad, size, stride, threads].map(|v| Arg::I64(v as i64)));
        let grid = if size == 0 && stride == 1 { [1, 1, 1] } else { grid_1d(threads, WIDE_BLOCK, dev) };
        ops.push(DeviceOp::Launch(Launch { kernel: 0, grid, block: [WIDE_BLOCK as u32, 1, 1], smem: 0, args }));
    };
    if s.pad <= ONE_BLOCK {
        sort(0, 1, s.pad);
    } else {
        sort(0, 0, s.pad);
        let mut size = 2;
        while size <= s.pad {
            let mut stride = size / 2;
            while stride > 0 {
                sort(size, stride, s.pad / 2);
                stride /= 2;
            }
            size *= 2;
        }
    }
    let mut args = vec![Arg::In(0), Arg::Work(0), Arg::Work(s.group), Arg::Work(s.start), Arg::Work(s.rank), Arg::Count(0)];
    args.extend([outer, n, inner].map(|v| Arg::I64(v as i64)));
    ops.push(DeviceOp::Launch(Launch { kernel: 1, grid: [1, 1, 1], block: [WIDE_BLOCK as u32, 1, 1], smem: 0, args }));
    Ok(StepProgram { ops, workspace: s.bytes })
}

pub fn program(op: &Unique, _tactic: &Tactic, p: &Problem, dev: &DeviceProps) -> Result<StepProgram> {
    let x = input(p)?;
    let [outer, n, inner] = op.extents(&x.dims)?;
    let s = scratch(n);
    let total = p.outputs[1].dims[0];
    let mut ops = Vec::new();
    let block = [THREADS as u32, 1, 1];
    if n > 0 {
        let mut args = vec![Arg::Work(0), Arg::Work(s.group), Arg::Work(s.start), Arg::Work(s.rank)];
        args.extend([Arg::Out(1), Arg::Out(2), Arg::Out(3), Arg::I64(total as i64), Arg::I64(n as i64)]);
        ops.push(DeviceOp::Launch(Launch { kernel: 2, grid: grid_1d(n, THREADS, dev), block, smem: 0, args }));
    }
    let moved = outer * total * inner;
    if moved > 0 {
        let mut args = vec![Arg::In(0), Arg::Out(1), Arg::Out(0)];
        args.extend([outer, n, total, inner].map(|v| Arg::I64(v as i64)));
        ops.push(DeviceOp::Launch(Launch { kernel: 3, grid: grid_1d(moved, THREADS, dev), block, smem: 0, args }));
    }
    Ok(StepProgram { ops, workspace: s.bytes })
}
