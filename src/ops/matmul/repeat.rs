//! Products on CUDA whose batch has more dimensions than kernels take: operands that broadcast are written out into
//! scratch, so that the batch is one dimension.

use super::MatMulGeometry;
use super::gemm::DeviceGemm;
use crate::base::{DType, Result};
use crate::device::DeviceProps;
use crate::ops::transpose::cuda::{MAX_RANK, flat, program as copy_program};
use crate::ops::transpose::strided::View;
use crate::ops::{Arg, DeviceOp, StepProgram, Tactic};
use crate::{ensure, err};

/// Batch dimensions that kernels take.
const KERNEL_BATCH: usize = 3;
/// Scratch starts at multiples of this.
const ALIGN: usize = 256;

/// Whether some shape of this rank needs what this file does. Its tactics carry a copy kernel then.
pub(super) fn may_repeat(g: &MatMulGeometry) -> bool {
    g.batch.len() > KERNEL_BATCH
}

/// The product over one batch dimension, with both operands dense.
pub(super) fn dense(g: &MatMulGeometry, base: DeviceGemm) -> DeviceGemm {
    let (a, b) = (base.m * base.k, base.k * base.n);
    DeviceGemm { batch: [1, 1, g.n_batch() as i64], stride_a: [0, 0, a], stride_b: [0, 0, b], extra: None, ..base }
}

/// Operand `i` written out for each element of the batch; `None` where it lies like that already.
fn view(g: &MatMulGeometry, base: &DeviceGemm, i: usize) -> Option<View> {
    let (steps, each) = if i == 0 { (&g.a_steps, base.m * base.k) } else { (&g.b_steps, base.k * base.n) };
    if g.uniform_step(steps) == Some(1) {
        return None;
    }
    let strides = steps.iter().map(|s| *s as i64 * each).chain([1]).collect();
    Some(View { dims: g.batch.iter().copied().chain([each as usize]).collect(), strides, offset: 0 })
}

/// Whether the copies fit their kernel.
pub(super) fn is_possible(g: &MatMulGeometry, base: &DeviceGemm) -> bool {
    (0..2).all(|i| view(g, base, i).is_none_or(|v| v.collapsed().dims.len() <= MAX_RANK))
}

/// The tactic with the copy kernel behind its own.
pub(super) fn with_copy(mut t: Tactic, dtype: DType) -> Tactic {
    // Operands that are written out may have any number of elements.
    let copy = flat(dtype.size(), MAX_RANK, 1);
    t.name.push_str("_repeated");
    t.kernels.extend(copy.kernels);
    t.params.extend(&copy.params);
    t.params.push(copy.params.len() as i64);
    t
}

/// A tactic of [`with_copy`] as the product's own and the copy's.
pub(super) fn split(t: &Tactic) -> Result<(Tactic, Tactic)> {
    let bad = || err!(CorruptData, "tactic {} has no copy kernel", t.name);
    let (n, rest) = t.params.split_last().ok_or_else(bad)?;
    let at = usize::try_from(*n).ok().and_then(|n| rest.len().checked_sub(n)).ok_or_else(bad)?;
    let kernels = t.kernels.len().checked_sub(1).ok_or_else(bad)?;
    let part = |kernels: &[_], params: &[i64]| Tactic {
        name: t.name.clone(),
        source: t.source,
        kernels: kernels.to_vec(),
        params: params.to_vec(),
    };
    Ok((part(&t.kernels[..kernels], &rest[..at]), part(&t.kernels[kernels..], &rest[at..])))
}

/// `step` reads the operands as [`dense`] has them: copies come first, and take their place.
pub(super) fn program(
    g: &MatMulGeometry,
    base: &DeviceGemm,
    mut step: StepProgram,
    copy: &Tactic,
    kernel: usize,
    dev: &DeviceProps,
) -> Result<StepProgram> {
    let mut copies = Vec::new();
    for i in 0..2 {
        let Some(v) = view(g, base, i) else { continue };
        let size = base.dtype.size();
        let fits = v.collapsed().dims.iter().all(|d| *d <= i32::MAX as usize);
        ensure!(fits, Unsupported, "an operand written out as {:?} is more than its kernel counts", v.dims);
        let bytes = v.dims.iter().try_fold(size, |n, d| n.checked_mul(*d)).filter(|n| *n <= isize::MAX as usize / 4);
        let bytes = bytes.ok_or_else(|| err!(OutOfMemory, "an operand written out as {:?} is too large", v.dims))?;
        let place = step.workspace.next_multiple_of(ALIGN);
        step.workspace = place + bytes;
        for op in &mut step.ops {
            replace(op, &Arg::In(i), &Arg::Work(place));
        }
        for mut op in copy_program(copy, &v, size, dev)?.ops {
            replace(&mut op, &Arg::In(0), &Arg::In(i));
            replace(&mut op, &Arg::Out(0), &Arg::Work(place));
            let DeviceOp::Launch(l) = &mut op else { continue };
            ensure!(l.kernel == 0, Internal, "a copy of more than one kernel");
            l.kernel = kernel;
            copies.push(op);
        }
    }
    copies.append(&mut step.ops);
    step.ops = copies;
    Ok(step)
}

fn replace(op: &mut DeviceOp, from: &Arg, to: &Arg) {
    let swap = |a: &mut Arg| {
        let a = a.address_mut();
        if a == from {
            *a = to.clone();
        }
    };
    match op {
        DeviceOp::Launch(l) => l.args.iter_mut().for_each(swap),
        DeviceOp::Gemm(g) => [&mut g.a, &mut g.b].into_iter().for_each(swap),
        _ => {}
    }
}
