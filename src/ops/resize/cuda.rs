//! CUDA: `resize.cu` along one to three innermost axes, `resize_nhwc.cu` along two with channels behind them. A resize of more axes runs on the host, and so does one whose
//! scales or sizes are not known while the engine is built.

use super::axis::AxisPlan;
use super::{CoordinateMode, NearestMode, Resize, ResizeMode};
use crate::base::Result;
use crate::device::DeviceProps;
use crate::ops::per_output::weighted_type;
use crate::ops::transpose::cuda::{filled, unit};
use crate::ops::{Arg, KernelSpec, Launch, Problem, StepProgram, Tactic, TacticOptions, TacticSource, blocks, i32_struct};
use crate::{ensure, err};

const THREADS: usize = 256;
/// Bytes of one access at most.
const VECTOR: usize = 16;
/// Channels of a thread at least, where there are as many.
const MIN_PER: usize = 8;
/// First parameter of the tactic for channels behind the axes.
const LAST: i64 = -1;

fn plan(op: &Resize, p: &Problem) -> Result<Vec<AxisPlan>> {
    let x = p.input(0).ok_or_else(|| err!(InvalidArgument, "input 0 is missing"))?;
    for i in 1..4 {
        ensure!(p.input(i).is_none() || p.known(i).is_some(), InvalidState, "operand {i} of a resize is not known");
    }
    let known = |i: usize| p.known(i).map(|t| &**t);
    op.plan_of(&x.dims, known(1), known(2), known(3))
}

/// Innermost axes from the first one that changes.
fn active(plan: &[AxisPlan]) -> usize {
    let first = plan.iter().position(|a| !a.is_identity()).unwrap_or(plan.len().saturating_sub(1));
    (plan.len() - first).max(1)
}

pub fn tactics(op: &Resize, p: &Problem, opt: &TacticOptions) -> Vec<Tactic> {
    let (Some(x), Ok(plan)) = (p.input(0), plan(op, p)) else { return vec![] };
    let coord = match op.coordinates {
        CoordinateMode::HalfPixel => 0,
        CoordinateMode::PytorchHalfPixel => 1,
        CoordinateMode::AlignCorners => 2,
        CoordinateMode::Asymmetric => 3,
        CoordinateMode::TfCropAndResize => 4,
        CoordinateMode::HalfPixelSymmetric => 5,
        CoordinateMode::TfHalfPixelForNn => 6,
    };
    let crops = op.coordinates == CoordinateMode::TfCropAndResize;
    let mut active = active(&plan);
    if opt.dynamic && !crops {
        // An axis that stays at this shape may change at another.
        active = active.max(plan.len().saturating_sub(2).clamp(1, 3).min(plan.len()));
    }
    if active > 3 || plan.is_empty() {
        return vec![];
    }
    let (mode, ty) = match op.mode {
        // Nearest moves elements; only the extrapolated value needs the type.
        ResizeMode::Nearest if crops && !x.dtype.is_small() => (0, crate::ops::cuda_type(x.dtype)),
        ResizeMode::Nearest if crops => return vec![],
        ResizeMode::Nearest => (0, unit(x.dtype.size())),
        ResizeMode::Linear => (1, crate::ops::cuda_type(x.dtype)),
        ResizeMode::Cubic => (2, crate::ops::cuda_type(x.dtype)),
    };
    let mut kernel = KernelSpec::new("resize.cu").define("T_IN", ty).define("MODE", mode).define("COORD", coord);
    if op.mode == ResizeMode::Nearest {
        let round = NearestMode::ALL.iter().position(|m| *m == op.nearest).expect("every mode is listed");
        kernel = kernel.define("ROUND", round);
    }
    if op.mode != ResizeMode::Nearest {
        kernel = kernel.define("EXCLUDE_OUTSIDE", op.exclude_outside as i64);
    }
    let kernel = kernel.define("T_ACC", weighted_type(x.dtype)).define("THREADS", THREADS);
    let mut out = Vec::new();
    if is_last(op, &plan) {
        let mut vec = (VECTOR / x.dtype.size()).clamp(1, 16);
        while x.dims[3] % vec != 0 {
            vec /= 2;
        }
        // Short vectors: several of them share their pixel's coordinates.
        let per = if vec >= MIN_PER / 2 { vec } else { x.dims[3].next_power_of_two().clamp(vec, MIN_PER) };
        out.push(Tactic {
            name: format!("resize_nhwc/{}_{}_{}_{ty}_x{vec}_{per}", op.mode.name(), op.coordinates.name(), op.nearest.name()),
            source: TacticSource::Kernels,
            kernels: vec![KernelSpec { file: "resize_nhwc.cu".into(), ..kernel.clone() }.define("VEC", vec).define("PER", per)],
            params: vec![LAST, vec as i64, per as i64],
        });
    }
    let kernel = kernel.define("ANTIALIAS", op.antialias as i64).define("ACTIVE", active);
    out.push(Tactic {
        name: format!(
            "resize/{}{}_{}_{}_active{active}_{ty}",
            op.mode.name(),
            if op.antialias { "_antialias" } else { "" },
            op.coordinates.name(),
            op.nearest.name()
        ),
        source: TacticSource::Kernels,
        kernels: vec![kernel],
        params: vec![active as i64],
    });
    out
}

/// Rows and columns of [n, h, w, c] change, and nothing else.
fn is_last(op: &Resize, plan: &[AxisPlan]) -> bool {
    plan.len() == 4 && plan[0].is_identity() && plan[3].is_identity() && !op.antialias && !plan[1..3].iter().all(|a| a.is_identity())
}

fn program_last(op: &Resize, tactic: &Tactic, plan: &[AxisPlan], size: usize) -> Result<StepProgram> {
    let [_, vec, per] = tactic.params[..] else {
        return Err(err!(CorruptData, "tactic {} has not the parameters that it needs", tactic.name));
    };
    let known = matches!(vec, 1 | 2 | 4 | 8 | 16) && (vec..=16).contains(&per) && per % vec == 0;
    ensure!(known, CorruptData, "tactic {} has vectors of {vec} in {per}", tactic.name);
    let (vec, per) = (vec as usize, per as usize);
    let unchanged = plan.len() == 4 && plan[0].is_identity() && plan[3].is_identity();
    ensure!(
        unchanged && plan[3].input % vec == 0 && vec * size <= VECTOR.max(size),
        Unsupported,
        "{} takes whole vectors of channels behind two axes",
        tactic.name
    );
    let (n, h, w, c) = (plan[0].output, &plan[1], &plan[2], plan[3].output);
    let pixels = n.saturating_mul(h.output).saturating_mul(w.output);
    ensure!(
        pixels.max(h.input.saturating_mul(w.input)) <= i32::MAX as usize,
        Unsupported,
        "{pixels} pixels are too many to resize"
    );
    if pixels * c == 0 {
        return Ok(StepProgram::default());
    }
    let args = vec![Arg::In(0), Arg::Out(0), Arg::I64(n as i64), Arg::I64(c as i64), params(op, &plan[1..3])];
    let grid = [blocks(pixels * c.div_ceil(per), THREADS), 1, 1];
    Ok(StepProgram::one(Launch { kernel: 0, grid, block: [THREADS as u32, 1, 1], smem: 0, args }))
}

/// ResizeParams of `kernels/common/resize.cuh`.
fn params(op: &Resize, inner: &[AxisPlan]) -> Arg {
    let inner = filled(inner, 3, AxisPlan::identity(1));
    let bits = |f: &dyn Fn(&AxisPlan) -> f32| inner.iter().map(|a| f(a).to_bits() as i32).collect::<Vec<_>>();
    let mut words: Vec<i32> = inner.iter().map(|a| a.input as i32).collect();
    words.extend(inner.iter().map(|a| a.output as i32));
    words.extend(bits(&|a| a.scale));
    words.extend(bits(&|a| a.roi.0));
    words.extend(bits(&|a| a.roi.1));
    words.push(op.cubic_coeff_a.to_bits() as i32);
    words.push(op.extrapolation_value.to_bits() as i32);
    i32_struct(words)
}

pub fn program(op: &Resize, tactic: &Tactic, p: &Problem, _dev: &DeviceProps) -> Result<StepProgram> {
    let plan = plan(op, p)?;
    if tactic.params.first() == Some(&LAST) {
        return program_last(op, tactic, &plan, p.input(0).map_or(1, |x| x.dtype.size()));
    }
    let n_active = tactic.params.first().map_or(0, |v| *v as usize);
    ensure!(
        (1..=3).contains(&n_active) && n_active <= plan.len() && active(&plan) <= n_active,
        Unsupported,
        "{} resizes {n_active} innermost axes, here {} change",
        tactic.name,
        active(&plan)
    );
    let (outer, inner) = plan.split_at(plan.len() - n_active);
    let planes: usize = outer.iter().map(|a| a.output).product();
    let pixels: usize = inner.iter().map(|a| a.output).product();
    let in_pixels: usize = inner.iter().map(|a| a.input).product();
    if planes * pixels == 0 {
        return Ok(StepProgram::default());
    }
    ensure!(
        pixels.max(in_pixels) <= i32::MAX as usize,
        Unsupported,
        "a plane of {} elements is too large to resize",
        pixels.max(in_pixels)
    );
    Ok(StepProgram::one(Launch {
        kernel: 0,
        grid: [blocks(planes * pixels, THREADS), 1, 1],
        block: [THREADS as u32, 1, 1],
        smem: 0,
        args: vec![Arg::In(0), Arg::Out(0), Arg::I64(planes as i64), params(op, inner)],
    }))
}
