//! Convolutions with channels last by kernels that every device has: depthwise filters, first layers of few channels, and
//! an implicit product on tensor cores (`mma.sync`) for all others. What Hopper's own kernel serves best is in `wgmma.rs`.
//!
//! Each kind has its file, its kernel and its number, the first parameter of a tactic. Filter sizes and channels are the
//! operator's own and never change with the shapes, so with dynamic shapes the filters must be constants.

mod depthwise;
mod first;
mod patches;
mod product;

use super::cuda::Context;
use crate::base::{DType, Result};
use crate::ops::epilogue::cuda::{ExtraStrides, Fusion, Parts, magic};
use crate::ops::window::ChannelOrder;
use crate::ops::{Arg, KernelSpec, StepProgram, Tactic, TacticOptions, i32_struct};
use crate::{bail, ensure, err};

const DEPTHWISE: i64 = 32;
const FIRST: i64 = 33;
const PRODUCT: i64 = 34;
const PATCHES: i64 = 35;

/// Whether a tactic whose parameters begin with this number is one of this module.
pub(super) fn is_kind(kind: i64) -> bool {
    (DEPTHWISE..=PATCHES).contains(&kind)
}

/// Tactics for a problem whose output has its channels last, best guess first.
pub(super) fn tactics(cx: &Context<'_>, opt: &TacticOptions) -> Vec<Tactic> {
    enumerate(cx, opt).unwrap_or_default()
}

fn enumerate(cx: &Context<'_>, opt: &TacticOptions) -> Option<Vec<Tactic>> {
    let typed = matches!(cx.dtype, DType::F16 | DType::BF16 | DType::F32);
    // Of three spatial axes that may change, none is known to stay 1.
    let fixed = !opt.dynamic || (cx.p.known(1).is_some() && cx.p.outputs[0].dims.len() <= 4);
    if cx.g.order == ChannelOrder::First || !typed || !fixed || !cx.is_planar() || cx.p.outputs[0].numel() == 0 {
        return None;
    }
    let fusion = cx.e.plan(cx.p, cx.extra.is_some(), cx.dev, opt)?;
    if depthwise::takes(cx) {
        return Some(depthwise::tactics(cx, opt, &fusion));
    }
    let mut out = first::tactics(cx, opt, &fusion);
    if out.is_empty() {
        out = patches::tactics(cx, opt);
    }
    out.extend(product::tactics(cx, opt, &fusion, !out.is_empty()));
    Some(out)
}

/// What a tactic of this module launches.
pub(super) fn program(cx: &Context<'_>, tactic: &Tactic) -> Result<StepProgram> {
    cx.planar(tactic)?;
    ensure!(cx.g.order != ChannelOrder::First, Unsupported, "tactic {} has channels last", tactic.name);
    match tactic.params[0] {
        DEPTHWISE => depthwise::program(cx, tactic),
        FIRST => first::program(cx, tactic),
        PRODUCT => product::program(cx, tactic),
        PATCHES => patches::program(cx, tactic),
        k => bail!(CorruptData, "tactic {} is of unknown kind {k}", tactic.name),
    }
}

/// The numbers of a tactic behind its kind.
fn own<'t, const N: usize>(tactic: &'t Tactic) -> Result<&'t [i64; N]> {
    let all = tactic.params.get(1..1 + N).and_then(|v| v.try_into().ok());
    all.ok_or_else(|| err!(CorruptData, "tactic {} has not the parameters that it needs", tactic.name))
}

fn unknown_tile(tactic: &Tactic) -> crate::base::Error {
    err!(CorruptData, "tactic {} has no tile that is known", tactic.name)
}

/// Strides of the epilogue's operands, where the kernel applies it.
fn extra(cx: &Context<'_>, tactic: &Tactic, parts: &Parts) -> Result<ExtraStrides> {
    match (&cx.extra, parts.code) {
        (Some(x), 1) => Ok(x.clone()),
        (None, 1) => bail!(Unsupported, "tactic {} does not reach an operand at these shapes", tactic.name),
        _ => Ok(Vec::new()),
    }
}

/// A program without launches, and where its result lies: in the output unless a kernel follows that changes the type.
fn result(cx: &Context<'_>, parts: &Parts) -> (StepProgram, Arg) {
    let mut step = StepProgram::default();
    let out = &cx.p.outputs[0];
    if parts.after.is_some() && out.dtype != cx.dtype {
        step.workspace = (out.numel() * cx.dtype.size()).next_multiple_of(256);
        return (step, Arg::Work(0));
    }
    (step, Arg::Out(0))
}

/// Appends what follows the kernel.
fn finish(cx: &Context<'_>, parts: &Parts, mut step: StepProgram, result: &Arg) -> Result<StepProgram> {
    if let Some(after) = &parts.after {
        cx.e.append_after(&mut step, after, parts.n_kernels, result, false, cx.p, cx.dev)?;
    }
    Ok(step)
}

/// A kernel with what all of them define.
fn spec(cx: &Context<'_>, file: &str, split: bool, fusion: &Fusion) -> KernelSpec {
    cx.spec(file, split, fusion).define("CONST_W", cx.p.known(1).is_some() as i64)
}

/// A struct of numbers, then of divisors as (magic, shift).
fn params(sizes: &[usize], divisors: &[usize]) -> Arg {
    let magics = divisors.iter().flat_map(|d| <[i32; 2]>::from(magic(*d)));
    i32_struct(sizes.iter().map(|v| *v as i32).chain(magics))
}

/// Largest of 8, 4, 2, 1 that divides all of them.
fn vector(of: &[usize]) -> usize {
    [8, 4, 2].into_iter().find(|v| of.iter().all(|n| n % v == 0)).unwrap_or(1)
}
