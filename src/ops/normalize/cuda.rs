//! CUDA: `normalize.cu`. A part of a warp or a block holds a row in registers; a block reads a very long row twice.

use super::{BIAS, Normalize, Rows, SCALE, SKIP, SKIP_BIAS};
use crate::base::Result;
use crate::device::DeviceProps;
use crate::ops::row_form::RowForm;
use crate::ops::{Arg, KernelSpec, Launch, Problem, StepProgram, Tactic, TacticOptions, TacticSource, blocks};
use crate::{ensure, err};

/// Scale and bias have an element for each place of a row, so that they are read in vectors.
fn row_params(g: &Rows) -> bool {
    g.period == 1 && g.run == 1
}

fn spec(op: &Normalize, p: &Problem, f: &RowForm, row_params: bool) -> Option<KernelSpec> {
    let x = p.input(0)?.dtype;
    let param = p.input(SCALE).or(p.input(BIAS)).map_or(x, |d| d.dtype);
    Some(
        KernelSpec::new("normalize.cu")
            .define_type("T_X", x)
            .define_type("T_PARAM", param)
            .define_type("T_Y", p.outputs.first()?.dtype)
            .define("CENTERED", op.centered as i64)
            .define("ROW_PARAMS", row_params as i64)
            .define("LANES", f.lanes)
            .define("THREADS", f.threads)
            .define("HOLD", f.hold)
            .define("VEC", f.vec),
    )
}

/// Parameters: whether scale and bias belong to places of a row, then each form.
fn tactic(op: &Normalize, p: &Problem, forms: &[RowForm], row_params: bool) -> Option<Tactic> {
    let x = p.input(0)?;
    let names: Vec<String> = forms.iter().map(RowForm::name).collect();
    Some(Tactic {
        name: format!("normalize/{}_{}", names.join("_"), x.dtype),
        source: TacticSource::Kernels,
        kernels: forms.iter().map(|f| spec(op, p, f, row_params)).collect::<Option<_>>()?,
        params: std::iter::once(row_params as i64).chain(forms.iter().flat_map(RowForm::params)).collect(),
    })
}

pub(super) fn tactics(op: &Normalize, p: &Problem, dev: &DeviceProps, opt: &TacticOptions) -> Vec<Tactic> {
    let Some(x) = p.input(0) else { return vec![] };
    let Ok(g) = op.geometry(&x.dims) else { return vec![] };
    // Rows of other lengths have other geometries; rows of whole places stay so.
    let by_place = row_params(&g) && op.affine == super::Affine::Row;
    let best = RowForm::ranked(g.rows, g.cols, x.dtype.size(), dev);
    if opt.dynamic {
        return tactic(op, p, &RowForm::for_any(&best), by_place).into_iter().collect();
    }
    best.iter().filter_map(|f| tactic(op, p, &[*f], by_place)).collect()
}

pub(super) fn program(op: &Normalize, tactic: &Tactic, p: &Problem, _dev: &DeviceProps) -> Result<StepProgram> {
    let x = p.input(0).ok_or_else(|| err!(InvalidArgument, "input 0 is missing"))?;
    let g = op.geometry(&x.dims)?;
    if g.rows == 0 || (g.cols == 0 && !op.stats) {
        return Ok(StepProgram::default());
    }
    let Some((by_place, params)) = tactic.params.split_first() else {
        return Err(err!(CorruptData, "tactic {} has no parameters", tactic.name));
    };
    let (at, f) = RowForm::choose(tactic, params, g.cols)?;
    ensure!(*by_place == 0 || row_params(&g), InvalidState, "tactic {} is for other scales than those of {x}", tactic.name);
    let grid = g.rows.div_ceil(f.threads / f.lanes);
    ensure!(
        grid <= i32::MAX as usize && g.cols <= i32::MAX as usize,
        Unsupported,
        "normalization of {} rows of {} is more than one launch takes",
        g.rows,
        g.cols
    );
    let operand = |i: usize| if p.input(i).is_some() { Arg::In(i) } else { Arg::Null };
    let output = |there: bool, i: usize| if there { Arg::Out(i) } else { Arg::Null };
    Ok(StepProgram::one(Launch {
        kernel: at,
        grid: [blocks(grid, 1), 1, 1],
        block: [f.threads as u32, 1, 1],
        smem: 0,
        args: vec![
            Arg::In(0),
            operand(SCALE),
            operand(BIAS),
            operand(SKIP),
            operand(SKIP_BIAS),
            Arg::Out(0),
            output(op.stats, 1),
            output(op.stats, 2),
            output(op.sum, 1 + 2 * op.stats as usize),
            Arg::I64(g.rows as i64),
            Arg::I32(g.cols as i32),
            Arg::I32(g.run as i32),
            Arg::I64(g.period as i64),
            Arg::I64(g.step as i64),
            Arg::F32(op.epsilon),
        ],
    }))
}
