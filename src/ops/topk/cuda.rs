//! CUDA: `topk.cu`, one block a row; where more is kept than shared memory sorts, the steps of `sort_step.cu` follow.

use super::TopK;
use crate::base::Result;
use crate::base::dims::normalize_axis;
use crate::device::DeviceProps;
use crate::ops::transpose::cuda::{THREADS, grid_1d, unit};
use crate::ops::{Arg, DeviceOp, KernelSpec, Launch, Problem, StepProgram, Tactic, TacticOptions, TacticSource};
use crate::{ensure, err};

/// Items that one block sorts in shared memory.
const MAX_SHARED: usize = 2048;
/// Rows up to this length are sorted whole instead of searched first.
const MAX_DIRECT: usize = 512;

/// [outer, length, inner, k].
fn extents(op: &TopK, p: &Problem) -> Result<[usize; 4]> {
    let x = p.input(0).ok_or_else(|| err!(InvalidArgument, "input 0 is missing"))?;
    let axis = normalize_axis(op.axis, x.dims.len())?;
    let (outer, inner) = (x.dims[..axis].iter().product(), x.dims[axis + 1..].iter().product());
    Ok([outer, x.dims[axis], inner, p.outputs[0].dims[axis]])
}

/// Bytes of an item with keys of elements of this size.
pub fn item_bytes(element: usize) -> usize {
    if element == 8 { 16 } else { 8 }
}

/// The steps that sort `rows` rows of `pad` items, by kernel `kernel` (`sort_step.cu`).
pub fn sort_steps(kernel: usize, items: Arg, rows: usize, pad: usize, dev: &DeviceProps) -> Vec<DeviceOp> {
    let mut ops = Vec::new();
    let n = rows * pad / 2;
    let mut size = 2;
    while size <= pad {
        let mut stride = size / 2;
        while stride > 0 {
            let mut args = vec![items.clone()];
            args.extend([pad, size, stride, n].map(|v| Arg::I64(v as i64)));
            let grid = grid_1d(n, THREADS, dev);
            ops.push(DeviceOp::Launch(Launch { kernel, grid, block: [THREADS as u32, 1, 1], smem: 0, args }));
            stride /= 2;
        }
        size *= 2;
    }
    ops
}

/// The kernel of [`sort_steps`].
pub fn sort_kernel(element: usize) -> KernelSpec {
    KernelSpec::new("sort_step.cu").define("WIDE", (element == 8) as i64).define("THREADS", THREADS)
}

pub fn tactics(op: &TopK, p: &Problem, opt: &TacticOptions) -> Vec<Tactic> {
    let (Some(x), Ok([_, length, _, k])) = (p.input(0), extents(op, p)) else { return vec![] };
    let wide = (x.dtype.size() == 8) as i64;
    let make = |threads: usize| {
        let select = |shared: i64| {
            KernelSpec::new("topk.cu")
                .define_type("T_DATA", x.dtype)
                .define("WIDE", wide)
                .define("LARGEST", op.largest as i64)
                .define("SHARED", shared)
                .define("THREADS", threads)
        };
        let mut kernels = vec![select(1)];
        if opt.dynamic || k.next_power_of_two() > MAX_SHARED {
            let write = KernelSpec::new("topk_write.cu")
                .define("T_UNIT", unit(x.dtype.size()))
                .define("WIDE", wide)
                .define("THREADS", THREADS);
            kernels.extend([select(0), sort_kernel(x.dtype.size()), write]);
        }
        let (order, any) = (["smallest", "largest"][op.largest as usize], if kernels.len() > 1 { "_any" } else { "" });
        Tactic {
            name: format!("topk/{order}_{}_t{threads}{any}", x.dtype),
            source: TacticSource::Kernels,
            kernels,
            params: vec![threads as i64],
        }
    };
    match length {
        0..=64 => vec![make(32), make(256)],
        65..=4096 => vec![make(256), make(1024)],
        _ => vec![make(1024), make(256)],
    }
}

pub fn program(op: &TopK, tactic: &Tactic, p: &Problem, dev: &DeviceProps) -> Result<StepProgram> {
    let [outer, length, inner, k] = extents(op, p)?;
    let x = p.input(0).ok_or_else(|| err!(InvalidArgument, "input 0 is missing"))?;
    let threads = tactic.params.first().map_or(0, |t| *t as usize);
    let rows = outer * inner;
    if rows * k == 0 {
        return Ok(StepProgram::default());
    }
    ensure!(k <= length, InvalidArgument, "the best {k} of {length} elements");
    ensure!(length < u32::MAX as usize && rows < i32::MAX as usize, Unsupported, "TopK of {x} on a device");
    let direct = length <= MAX_DIRECT || k == length;
    let pad = if direct { length } else { k }.next_power_of_two();
    let shared = pad <= MAX_SHARED;
    ensure!(shared || tactic.kernels.len() == 4, InvalidState, "tactic {} does not keep {k} elements", tactic.name);
    let item = item_bytes(x.dtype.size());
    let items = if shared { Arg::Null } else { Arg::Work(0) };
    let mut args = vec![Arg::In(0), items.clone(), Arg::Out(0), Arg::Out(1)];
    args.extend([length, inner, k, pad, direct as usize].map(|v| Arg::I64(v as i64)));
    let mut ops = vec![DeviceOp::Launch(Launch {
        kernel: if shared { 0 } else { 1 },
        grid: [rows as u32, 1, 1],
        block: [threads as u32, 1, 1],
        smem: if shared { (pad * item) as u32 } else { 0 },
        args,
    })];
    if shared {
        return Ok(StepProgram { ops, workspace: 0 });
    }
    ops.extend(sort_steps(2, items.clone(), rows, pad, dev));
    let n = rows * k;
    let mut args = vec![Arg::In(0), items, Arg::Out(0), Arg::Out(1)];
    args.extend([length, inner, k, pad, n].map(|v| Arg::I64(v as i64)));
    let grid = grid_1d(n, THREADS, dev);
    ops.push(DeviceOp::Launch(Launch { kernel: 3, grid, block: [THREADS as u32, 1, 1], smem: 0, args }));
    Ok(StepProgram { ops, workspace: rows * pad * item })
}
