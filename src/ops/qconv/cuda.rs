//! CUDA: an implicit product (`qconv_igemm.cu`) where a group has several channels, and one thread an output
//! (`qconv_direct.cu`) for everything. Filter sizes are compiled in: they never change with the shapes.

use super::QConv;
use crate::base::Result;
use crate::device::DeviceProps;
use crate::ops::conv::cuda::{check_nd, nd_params, striding_grid};
use crate::ops::requant;
use crate::ops::{Arg, KernelSpec, Launch, Problem, StepProgram, Tactic, TacticSource, blocks};
use crate::{bail, ensure};

const IGEMM: i64 = 0;
const DIRECT: i64 = 1;

const TILE: usize = 64;
const THREADS: usize = 256;
/// Channels of a group from which the product's tiles are worth their waste.
const MIN_CHANNELS: usize = 8;
/// Blocks along the second and third axis of a grid.
const MAX_GRID_YZ: usize = 65_535;

pub(super) fn tactics(op: &QConv, p: &Problem) -> Vec<Tactic> {
    let (Ok(g), Some(x), Some(w)) = (op.problem(p), p.input(0), p.input(1)) else { return vec![] };
    let (bias, zero) = requant::cuda_types(p);
    let [f0, f1, f2] = g.window.kernel;
    let spec = |file: &str| {
        KernelSpec::new(file)
            .define_type("T_X", x.dtype)
            .define_type("T_W", w.dtype)
            .define_type("T_BIAS", bias)
            .define_type("T_ZERO", zero)
            .define("OUT", op.out.define())
            .define("F0", f0)
            .define("F1", f1)
            .define("F2", f2)
    };
    let types = format!("{}_{}_{}", x.dtype, w.dtype, op.out.name());
    let tactic = |name: &str, kernel: KernelSpec, kind: i64| Tactic {
        name: format!("{name}/{types}_{f0}x{f1}x{f2}"),
        source: TacticSource::Kernels,
        kernels: vec![kernel],
        params: vec![kind],
    };
    let mut list = Vec::new();
    let per_group = g.m / g.group;
    if (MIN_CHANNELS..=MAX_GRID_YZ * TILE).contains(&per_group) && g.group <= MAX_GRID_YZ {
        let sums = !requant::is_known_zero(p, requant::W_ZERO) as i64;
        list.push(tactic("qconv_igemm", spec("qconv_igemm.cu").define("X_SUMS", sums), IGEMM));
    }
    list.push(tactic("qconv_direct", spec("qconv_direct.cu").define("THREADS", THREADS), DIRECT));
    list
}

pub(super) fn program(op: &QConv, tactic: &Tactic, p: &Problem, dev: &DeviceProps) -> Result<StepProgram> {
    let g = op.problem(p)?;
    let Some(y) = p.outputs.first() else { return Ok(StepProgram::default()) };
    if y.numel() == 0 {
        return Ok(StepProgram::default());
    }
    check_nd(g.n, g.m, &g.window)?;
    let optional = |i: usize| if p.input(i).is_some() { Arg::In(i) } else { Arg::Null };
    let step = |i: usize| Arg::I32(p.input(i).is_some_and(|d| d.numel() > 1) as i32);
    let mut args = vec![Arg::In(0), Arg::In(1)];
    args.extend((requant::X_ZERO..requant::N_INPUTS).map(optional));
    args.push(Arg::Out(0));
    args.push(nd_params(g.n, g.c, g.m, g.group, &g.window));
    args.extend([step(requant::W_ZERO), step(requant::W_SCALE)]);
    let grid = match tactic.params.first() {
        Some(&IGEMM) => {
            let pixels = g.n * g.window.output.iter().product::<usize>();
            ensure!(pixels + TILE < i32::MAX as usize, Unsupported, "{pixels} output pixels are too many for the kernel");
            let (rows, groups) = ((g.m / g.group).div_ceil(TILE), g.group);
            ensure!(rows.max(groups) <= MAX_GRID_YZ, Unsupported, "{} channels are too many for one launch", g.m);
            [blocks(pixels, TILE), rows as u32, groups as u32]
        }
        Some(&DIRECT) => [striding_grid(y.numel(), THREADS, dev), 1, 1],
        _ => bail!(InvalidState, "tactic {} has no kind", tactic.name),
    };
    Ok(StepProgram::one(Launch { kernel: 0, grid, block: [THREADS as u32, 1, 1], smem: 0, args }))
}
