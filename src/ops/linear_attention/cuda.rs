//! CUDA: `linear_attention.cu`, a warp per column of the state.

use super::{BETA, DECAY, LinearAttention, PAST};
use crate::base::{DType, Result};
use crate::ops::{Arg, KernelSpec, Launch, Problem, StepProgram, Tactic, TacticSource, i64_struct};
use crate::ensure;

const WARPS: usize = 4;

fn acc(p: &Problem) -> DType {
    if p.outputs.iter().any(|o| o.dtype == DType::F64) { DType::F64 } else { DType::F32 }
}

pub fn tactics(p: &Problem) -> Vec<Tactic> {
    let [y, state] = &p.outputs[..] else { return vec![] };
    let kernel = KernelSpec::new("linear_attention.cu")
        .define_type("T_X", y.dtype)
        .define_type("T_STATE", state.dtype)
        .define_type("T_ACC", acc(p))
        .define("WARPS", WARPS);
    vec![Tactic {
        name: format!("linear_attention/{}_{}", y.dtype, state.dtype),
        source: TacticSource::Kernels,
        kernels: vec![kernel],
        params: vec![],
    }]
}

pub fn program(op: &LinearAttention, p: &Problem) -> Result<StepProgram> {
    let g = op.geometry(&p.inputs)?;
    let columns = g.batch * g.kv_heads * g.value;
    if columns == 0 || p.outputs.iter().all(|o| o.numel() == 0) {
        return Ok(StepProgram::default());
    }
    let blocks = columns.div_ceil(WARPS);
    ensure!(blocks <= i32::MAX as usize, Unsupported, "linear attention over {columns} columns is more than one launch takes");
    let n_out = g.out_heads();
    let numbers = [
        columns, g.length, g.q_heads, g.kv_heads, g.key, g.value, g.decay, g.beta, n_out / g.kv_heads, n_out / g.q_heads,
    ];
    let given = |i: usize| if p.input(i).is_some() { Arg::In(i) } else { Arg::Null };
    let mut args = vec![Arg::In(0), Arg::In(1), Arg::In(2)];
    args.extend([PAST, DECAY, BETA].map(given));
    args.extend([Arg::Out(0), Arg::Out(1), Arg::Work(0), i64_struct(numbers.map(|v| v as i64))]);
    let scale = op.scale_for(g.key);
    args.push(if acc(p) == DType::F64 { Arg::F64(scale) } else { Arg::F32(scale as f32) });
    let launch = Launch { kernel: 0, grid: [blocks as u32, 1, 1], block: [32 * WARPS as u32, 1, 1], smem: 0, args };
    let mut program = StepProgram::one(launch);
    program.workspace = (columns * g.key * acc(p).size()).max(16);
    Ok(program)
}
