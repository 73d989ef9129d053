//! CUDA: `grid_sample.cu`, a thread an output position of some channels.

use super::{GridSample, Geometry};
use crate::base::Result;
use crate::device::DeviceProps;
use crate::internal;
use crate::ops::per_output::{THREADS, tactic, weighted_type, zeros};
use crate::ops::{Arg, KernelSpec, Launch, Problem, StepProgram, Tactic, blocks, cuda_type, i64_struct};

/// Channels of one thread at least, so that coordinates are not computed for each.
const CHANNELS: usize = 8;
const MAX_GRID_Y: usize = 65_535;

pub fn tactics(op: &GridSample, p: &Problem) -> Vec<Tactic> {
    let (Some(x), Some(grid)) = (p.input(0), p.input(1)) else { return vec![] };
    let spec = KernelSpec::new("grid_sample.cu")
        .define_type("T_X", x.dtype)
        .define_type("T_GRID", grid.dtype)
        .define("T_ACC", weighted_type(x.dtype))
        .define("MODE", format!("MODE_{}", op.mode.name().to_uppercase()))
        .define("PADDING", format!("PADDING_{}", op.padding.name().to_uppercase()))
        .define("ALIGN_CORNERS", op.align_corners as i64)
        .define("RANK", x.dims.len() - 2);
    let align = if op.align_corners { "_align" } else { "" };
    let types = format!("{}_{}", cuda_type(x.dtype), cuda_type(grid.dtype));
    tactic(format!("grid_sample/{}_{}{align}_{types}", op.mode.name(), op.padding.name()), spec)
}

pub fn program(p: &Problem, dev: &DeviceProps) -> Result<StepProgram> {
    let (Some(x), Some(y)) = (p.input(0), p.outputs.first()) else {
        return Err(internal!("a grid sample without operands"));
    };
    if y.numel() == 0 {
        return Ok(StepProgram::default());
    }
    if x.numel() == 0 {
        return Ok(zeros(y.bytes()));
    }
    let g = Geometry::new(&x.dims, &y.dims);
    let params = [g.n, g.c, g.points].into_iter().chain(g.input).map(|v| v as i64);
    Ok(StepProgram::one(Launch {
        kernel: 0,
        grid: [
            blocks(g.n * g.points, THREADS).min(dev.max_grid[0].max(1) as u32),
            g.c.div_ceil(CHANNELS).clamp(1, MAX_GRID_Y) as u32,
            1,
        ],
        block: [THREADS as u32, 1, 1],
        smem: 0,
        args: vec![Arg::In(0), Arg::In(1), Arg::Out(0), i64_struct(params)],
    }))
}
