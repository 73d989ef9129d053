//! CUDA: `softmax.cu`. A part of a warp or a block holds a row in registers, a block reads a long row twice, and where the
//! axis is not the last one a thread walks along it.

use super::Softmax;
use crate::base::Result;
use crate::device::DeviceProps;
use crate::ops::row_form::RowForm;
use crate::ops::{Arg, KernelSpec, Launch, Problem, StepProgram, Tactic, TacticOptions, TacticSource, blocks};
use crate::{ensure, err};

const HELD: i64 = 0;
const BLOCK: i64 = 1;
const STRIDED: i64 = 2;
/// Threads of a block along the axis' neighbours.
const THREADS: usize = 128;

fn spec(op: &Softmax, p: &Problem, f: &RowForm, strided: bool) -> KernelSpec {
    let dtype = p.outputs[0].dtype;
    let mode = if strided { STRIDED } else if f.hold > 0 { HELD } else { BLOCK };
    let k = KernelSpec::new("softmax.cu")
        .define_type("T_IN", dtype)
        .define_type("T_OUT", dtype)
        .define("LOG", op.log as i64)
        .define("MODE", mode)
        .define("THREADS", f.threads)
        .define("VEC", f.vec);
    if mode == HELD { k.define("LANES", f.lanes).define("HOLD", f.hold) } else { k }
}

/// Parameters: 1 for strided, then each form.
fn tactic(op: &Softmax, p: &Problem, forms: &[RowForm], strided: bool) -> Tactic {
    let names: Vec<String> = forms.iter().map(RowForm::name).collect();
    let kind = if op.log { "log_softmax" } else { "softmax" };
    let way = if strided { "strided_" } else { "" };
    Tactic {
        name: format!("{kind}/{way}{}_{}", names.join("_"), p.outputs[0].dtype),
        source: TacticSource::Kernels,
        kernels: forms.iter().map(|f| spec(op, p, f, strided)).collect(),
        params: std::iter::once(strided as i64).chain(forms.iter().flat_map(RowForm::params)).collect(),
    }
}

pub fn tactics(op: &Softmax, p: &Problem, dev: &DeviceProps, opt: &TacticOptions) -> Vec<Tactic> {
    let Some(x) = p.input(0) else { return vec![] };
    let Ok((outer, cols, inner)) = op.extents(&x.dims) else { return vec![] };
    let is_row = op.flatten || op.axis == -1 || op.axis == x.dims.len() as i64 - 1;
    if !is_row && (opt.dynamic || inner > 1) {
        let widest = if opt.dynamic { 1 } else { (16 / x.dtype.size()).min(8) };
        let columns = |vec: usize| RowForm { lanes: THREADS, threads: THREADS, hold: 0, vec };
        // Wide accesses pay where enough blocks are left.
        let vecs = (0..4).map(|k| widest >> k).filter(|v| *v > 0 && inner % v == 0);
        let mut forms: Vec<RowForm> = vecs.map(columns).collect();
        let n_blocks = |f: &RowForm| outer * inner / (THREADS * f.vec);
        forms.sort_by_key(|f| n_blocks(f) < 2 * dev.n_sm as usize);
        return forms.iter().map(|f| tactic(op, p, &[*f], true)).collect();
    }
    let best = RowForm::ranked(outer * inner, cols, x.dtype.size(), dev);
    match opt.dynamic {
        true => vec![tactic(op, p, &RowForm::for_any(&best), false)],
        false => best.iter().map(|f| tactic(op, p, &[*f], false)).collect(),
    }
}

pub fn program(op: &Softmax, tactic: &Tactic, p: &Problem) -> Result<StepProgram> {
    let x = p.input(0).ok_or_else(|| err!(InvalidArgument, "input 0 is missing"))?;
    let (outer, cols, inner) = op.extents(&x.dims)?;
    let rows = outer * inner;
    if rows * cols == 0 {
        return Ok(StepProgram::default());
    }
    let Some((strided, params)) = tactic.params.split_first() else {
        return Err(err!(CorruptData, "tactic {} has no parameters", tactic.name));
    };
    let (at, grid, threads) = if *strided != 0 {
        let (at, f) = RowForm::choose(tactic, params, inner)?;
        (at, rows.div_ceil(f.threads * f.vec), f.threads)
    } else {
        ensure!(inner == 1, InvalidState, "tactic {} is for the last axis of {x}", tactic.name);
        let (at, f) = RowForm::choose(tactic, params, cols)?;
        (at, rows.div_ceil(f.threads / f.lanes), f.threads)
    };
    ensure!(grid <= i32::MAX as usize, Unsupported, "softmax over {rows} rows is more than one launch takes");
    Ok(StepProgram::one(Launch {
        kernel: at,
        grid: [blocks(grid, 1), 1, 1],
        block: [threads as u32, 1, 1],
        smem: 0,
        args: vec![
            Arg::In(0),
            Arg::Out(0),
            Arg::I64(rows as i64),
            Arg::I64(cols as i64),
            Arg::I64(inner as i64),
        ],
    }))
}
