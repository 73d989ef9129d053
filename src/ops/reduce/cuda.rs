//! CUDA: `reduce.cu` over merged axes, with one thread, a warp or a block for each output.

use super::cpu::Split;
use super::{Reduce, ReduceKind};
use crate::base::{DType, Result};
use crate::device::DeviceProps;
use crate::ops::transpose::cuda::{MAX_RANK, check_index, index64, shape_arg, strides_arg};
use crate::ops::{Arg, KernelSpec, Launch, Problem, StepProgram, Tactic, TacticOptions, TacticSource, blocks};
use crate::{ensure, err};

const THREADS: usize = 256;

fn op_number(kind: ReduceKind) -> i64 {
    ReduceKind::ALL.iter().position(|k| *k == kind).expect("every kind is listed") as i64
}

/// Bools are bytes of 0 and 1 there.
fn kernel_type(dtype: DType) -> DType {
    if dtype == DType::Bool { DType::U8 } else { dtype }
}

/// The reduced axes, where they are known.
fn axes(op: &Reduce, p: &Problem) -> Result<Vec<usize>> {
    let x = p.input(0).ok_or_else(|| err!(InvalidArgument, "input 0 is missing"))?;
    ensure!(
        op.axes.is_some() || p.input(1).is_none() || p.known(1).is_some(),
        InvalidState,
        "the axes are not known"
    );
    op.axes_of(x.dims.len(), p.known(1).map(|t| &**t))
}

/// One thread group size, vector width and pair of ranks.
#[derive(Clone, Copy)]
struct Params {
    lanes: usize,
    vec: usize,
    out_rank: usize,
    red_rank: usize,
    index64: i64,
}

fn tactic(op: &Reduce, p: &Problem, k: Params) -> Tactic {
    let kernel = KernelSpec::new("reduce.cu")
        .define_type("T_IN", kernel_type(p.input(0).map_or(DType::F32, |x| x.dtype)))
        .define_type("T_OUT", kernel_type(p.outputs[0].dtype))
        .define("OP", op_number(op.kind))
        .define("LANES", k.lanes)
        .define("THREADS", THREADS)
        .define("OUT_RANK", k.out_rank)
        .define("RED_RANK", k.red_rank)
        .define("VEC", k.vec)
        .define("INDEX64", k.index64)
        .define("SELECT_LAST", op.select_last_index as i64);
    let dtype = p.input(0).map_or("", |x| x.dtype.name());
    Tactic {
        name: format!(
            "reduce/{}_{dtype}_lanes{}_v{}_rank{}x{}_index{}",
            op.kind.name(),
            k.lanes,
            k.vec,
            k.out_rank,
            k.red_rank,
            32 << k.index64
        ),
        source: TacticSource::Kernels,
        kernels: vec![kernel],
        params: [k.lanes, k.vec, k.out_rank, k.red_rank].map(|v| v as i64).into_iter().chain([k.index64]).collect(),
    }
}

pub fn tactics(op: &Reduce, p: &Problem, dev: &DeviceProps, opt: &TacticOptions) -> Vec<Tactic> {
    let Some(x) = p.input(0) else { return vec![] };
    let rank = x.dims.len();
    let wide = index64(x.numel(), opt);
    if op.axes.is_none() && p.input(1).is_some() && p.known(1).is_none() {
        // Axes that come when the network runs: any of them may be kept or reduced.
        let walked = rank.clamp(1, MAX_RANK);
        let form = |lanes| Params { lanes, vec: 1, out_rank: walked, red_rank: walked, index64: wide };
        return vec![tactic(op, p, form(32)), tactic(op, p, form(THREADS))];
    }
    let Ok(axes) = axes(op, p) else { return vec![] };
    let split = Split::new(&x.dims, &axes);
    let (kept, reduced) = (&split.kept, &split.reduced);
    let (n_out, n_red) = (kept.numel(), reduced.numel());
    let inner = reduced.strides.last() == Some(&1) && n_red > 1;
    let (out_rank, red_rank) = match opt.dynamic {
        // Other shapes may merge fewer axes.
        true => ((rank - axes.len()).max(1), axes.len().max(1)),
        false => (kept.dims.len(), reduced.dims.len()),
    };
    if out_rank > MAX_RANK || red_rank > MAX_RANK {
        return vec![];
    }
    let vec = if inner && !opt.dynamic && red_rank == 1 && !op.kind.is_arg() {
        let size = x.dtype.size();
        let fits = |v: &usize| {
            n_red % v == 0 && kept.strides.iter().all(|s| *s as usize % v == 0)
        };
        [16 / size, 8 / size.min(8), 1].into_iter().find(|v| *v > 0 && fits(v)).unwrap_or(1)
    } else {
        1
    };
    let make = |lanes: usize| tactic(op, p, Params {
        lanes,
        vec: if lanes > 1 { vec } else { 1 },
        out_rank,
        red_rank,
        index64: wide,
    });
    // Fewer outputs than the device has threads want more threads each.
    let order: &[usize] = match (inner, n_red) {
        (true, n) if n > 1024 => &[THREADS, 32],
        (true, n) if n >= 16 => &[32, THREADS, 1],
        (false, n) if n > 64 && n_out < 32 * 1024 => &[32, 1, THREADS],
        _ => &[1, 32],
    };
    let mut out = super::columns::tactics(op, &axes, p, dev);
    out.extend(order.iter().map(|lanes| make(*lanes)));
    out
}

pub fn program(op: &Reduce, tactic: &Tactic, p: &Problem, dev: &DeviceProps) -> Result<StepProgram> {
    let x = p.input(0).ok_or_else(|| err!(InvalidArgument, "input 0 is missing"))?;
    let axes = axes(op, p)?;
    if tactic.params.first() == Some(&super::columns::MARK) {
        return super::columns::program(op, &axes, tactic, p, dev);
    }
    let split = Split::new(&x.dims, &axes);
    let [lanes, vec, out_rank, red_rank, wide] = tactic.params[..] else {
        return Err(err!(CorruptData, "tactic {} has {} parameters instead of 5", tactic.name, tactic.params.len()));
    };
    ensure!(vec > 0, CorruptData, "tactic {} has vectors of {vec} elements", tactic.name);
    let (kept, reduced) = (&split.kept, &split.reduced);
    let (lanes, vec, out_rank, red_rank) = (lanes as usize, vec as usize, out_rank as usize, red_rank as usize);
    let n_out = p.outputs[0].numel();
    // `Split` gives no elements for both views when one is empty; the counts come from the tensors.
    let n_red = if n_out == 0 { 0 } else { x.numel() / n_out };
    if n_out == 0 {
        return Ok(StepProgram::default());
    }
    let fits = kept.dims.len() <= out_rank && reduced.dims.len() <= red_rank && n_red % vec == 0;
    ensure!(
        fits && out_rank <= MAX_RANK && red_rank <= MAX_RANK && (1..=THREADS).contains(&lanes),
        InvalidState,
        "tactic {} does not fit {x}",
        tactic.name
    );
    check_index(x.numel(), wide)?;
    let per_block = THREADS / lanes;
    ensure!(n_out.div_ceil(per_block) <= i32::MAX as usize, Unsupported, "{n_out} results are more than one launch takes");
    Ok(StepProgram::one(Launch {
        kernel: 0,
        grid: [blocks(n_out, per_block), 1, 1],
        block: [THREADS as u32, 1, 1],
        smem: 0,
        args: vec![
            Arg::In(0),
            Arg::Out(0),
            shape_arg(&kept.dims, out_rank),
            strides_arg(&kept.strides, out_rank),
            shape_arg(&reduced.dims, red_rank),
            strides_arg(&reduced.strides, red_rank),
            Arg::I64(n_out as i64),
            Arg::I64(n_red as i64),
        ],
    }))
}
