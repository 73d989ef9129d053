//! Pooling on CUDA: one thread an output, for every size; with channels last a vector of channels a thread.
//!
//! Parameters of a tactic: none with channels first; with channels last the channels of a thread, and the sizes of the
//! window that are compiled in (0: by argument).

use super::{Pool, PoolKind};
use crate::base::Result;
use crate::device::DeviceProps;
use crate::ops::conv::cuda::{check_nd, striding_grid};
use crate::ops::window::ChannelOrder;
use crate::ops::{
    Arg, KernelSpec, Launch, Problem, StepProgram, Tactic, TacticOptions, TacticSource, TensorDesc, i64_struct,
};
use crate::{ensure, err, internal};

const THREADS: usize = 256;
/// Threads of a block with channels last: small images still fill many blocks.
const LAST_THREADS: usize = 128;
/// Bytes of one access at most.
const VECTOR: usize = 16;
/// Windows with up to this many elements along an axis are compiled in.
const MAX_BAKED: usize = 7;

fn code(kind: PoolKind) -> &'static str {
    match kind {
        PoolKind::Max => "POOL_MAX",
        PoolKind::Average => "POOL_AVERAGE",
        PoolKind::Lp => "POOL_LP",
    }
}

pub(super) fn tactics(op: &Pool, p: &Problem, opt: &TacticOptions) -> Vec<Tactic> {
    let Some(x) = p.input(0) else { return Vec::new() };
    if op.order == ChannelOrder::Last {
        let widest = widest(x);
        let mut out = vec![last_tactic(op, x, widest)];
        if opt.dynamic && widest > 1 {
            out.push(last_tactic(op, x, 1));
        }
        return out;
    }
    let spec = KernelSpec::new("pool.cu")
        .define_type("T_IN", x.dtype)
        .define("OP", code(op.kind))
        .define("HAS_INDEX", op.indices as i64)
        .define("COLUMN_MAJOR", op.storage_order)
        .define("THREADS", THREADS);
    let name = format!("pool_{}{}", op.kind.name(), if op.indices { "_index" } else { "" });
    vec![Tactic { name, source: TacticSource::Kernels, kernels: vec![spec], params: vec![] }]
}

/// The most channels that one access moves.
fn widest(x: &TensorDesc) -> usize {
    let channels = x.dims.last().copied().unwrap_or(1);
    let mut vec = (VECTOR / x.dtype.size()).max(1);
    while channels % vec != 0 {
        vec /= 2;
    }
    vec
}

fn last_tactic(op: &Pool, x: &TensorDesc, vec: usize) -> Tactic {
    let at = |back: usize| op.kernel.len().checked_sub(back).map_or(1, |i| op.kernel[i] as usize);
    let (h, w) = (at(2), at(1));
    let baked = h <= MAX_BAKED && w <= MAX_BAKED;
    let (h, w) = if baked { (h, w) } else { (0, 0) };
    let spec = KernelSpec::new("pool_nhwc.cu")
        .define_type("T_IN", x.dtype)
        .define("OP", code(op.kind))
        .define("VEC", vec)
        .define("WINDOW_H", h)
        .define("WINDOW_W", w)
        .define("THREADS", LAST_THREADS);
    let window = if baked { format!("_{h}x{w}") } else { String::new() };
    let name = format!("pool_nhwc_{}{window}_x{vec}", op.kind.name());
    Tactic { name, source: TacticSource::Kernels, kernels: vec![spec], params: vec![vec as i64, h as i64, w as i64] }
}

pub(super) fn program(op: &Pool, tactic: &Tactic, p: &Problem, dev: &DeviceProps) -> Result<StepProgram> {
    let (Some(x), Some(y)) = (p.input(0), p.outputs.first()) else {
        return Err(internal!("a pooling without operands"));
    };
    let w = op.window(&x.dims, &y.dims)?;
    let channels = x.dims[op.order.input_channels(x.dims.len())];
    check_nd(x.dims[0], channels, &w)?;
    let lists = [w.input, w.output, w.kernel, w.stride, w.pad_begin, w.pad_end, w.dilation];
    let sizes = lists.into_iter().flatten().chain([op.count_include_pad as usize]);
    let (params, index, total, threads) = if op.order == ChannelOrder::Last {
        let [vec, h, b] = tactic.params[..] else {
            return Err(err!(CorruptData, "tactic {} has not the parameters that it needs", tactic.name));
        };
        let baked = h == 0 && b == 0 || [h, b] == [w.kernel[1] as i64, w.kernel[2] as i64];
        ensure!(matches!(vec, 1 | 2 | 4 | 8 | 16) && baked, CorruptData, "tactic {} has no window that is known", tactic.name);
        let vec = vec as usize;
        ensure!(
            channels % vec == 0 && vec * x.dtype.size() <= VECTOR.max(x.dtype.size()),
            Unsupported,
            "{channels} channels are not whole vectors of tactic {}",
            tactic.name
        );
        let pixels = x.dims[0].saturating_mul(w.output.iter().product());
        ensure!(pixels < i32::MAX as usize, Unsupported, "{pixels} pixels are too many for tactic {}", tactic.name);
        let params = i64_struct([x.dims[0], channels].into_iter().chain(sizes).map(|v| v as i64));
        (params, None, y.numel() / vec, LAST_THREADS)
    } else {
        let params = i64_struct(std::iter::once(x.dims[0] * channels).chain(sizes).map(|v| v as i64));
        (params, Some(if op.indices { Arg::Out(1) } else { Arg::Null }), y.numel(), THREADS)
    };
    let mut args = vec![Arg::In(0), Arg::Out(0)];
    args.extend(index);
    args.extend([params, Arg::F32(op.p as f32)]);
    Ok(StepProgram::one(Launch {
        kernel: 0,
        grid: [striding_grid(total, threads, dev), 1, 1],
        block: [threads as u32, 1, 1],
        smem: 0,
        args,
    }))
}
