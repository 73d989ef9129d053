//! Windows that neither overlap nor leave gaps, as the patches of a vision transformer: `conv_patches.cu` makes a row of each,
//! and what follows is a matrix product with all its ways.
//!
//! Parameters of a tactic behind its kind: elements of an access, whether there is a second kernel that moves single ones, then
//! those of the product.

use super::{PATCHES, params, unknown_tile, vector};
use crate::base::{DType, Result};
use crate::ensure;
use crate::ops::conv::cuda::Context;
use crate::ops::matmul::gemm::DeviceGemm;
use crate::ops::window::ChannelOrder;
use crate::ops::{Arg, DeviceOp, KernelSpec, Launch, StepProgram, Tactic, TacticOptions, blocks};

const N_OWN: usize = 2;
const THREADS: usize = 256;
/// Products that are offered.
const OFFERED: usize = 3;

fn takes(cx: &Context<'_>) -> bool {
    let (g, w) = (&cx.g, &cx.g.window);
    let covers = (1..3).all(|i| w.stride[i] == w.kernel[i] && w.pad_begin[i] == 0 && w.output[i] * w.kernel[i] <= w.input[i]);
    let pieces = g.n * g.c * w.output.iter().product::<usize>() * w.taps();
    matches!(cx.dtype, DType::F16 | DType::BF16 | DType::F32)
        && g.order == ChannelOrder::FirstToLast
        && g.group == 1
        && w.dilation == [1; 3]
        && w.taps() > 1
        && covers
        && (1..i32::MAX as usize / 2).contains(&pieces)
}

/// The product of the rows; its left operand stands for the patches.
fn product(cx: &Context<'_>) -> DeviceGemm {
    let mut gemm = cx.as_product_of_pixels();
    gemm.k = (cx.g.c * cx.g.window.taps()) as i64;
    if gemm.batch[2] > 1 {
        gemm.stride_a[2] = gemm.k * gemm.m;
    }
    gemm
}

pub(super) fn tactics(cx: &Context<'_>, opt: &TacticOptions) -> Vec<Tactic> {
    // Padding that follows from the shapes may come.
    if !takes(cx) {
        return Vec::new();
    }
    let vec = vector(&[cx.g.window.kernel[2], cx.g.window.input[2]]).min(16 / cx.dtype.size());
    let twin = opt.dynamic && vec > 1;
    let spec = |vec: usize| {
        KernelSpec::new("conv_patches.cu").define_type("T_IN", cx.dtype).define("VEC", vec).define("THREADS", THREADS)
    };
    let mut own = vec![spec(vec)];
    if twin {
        own.push(spec(1));
    }
    let products = product(cx).tactics(&cx.e, cx.p, cx.dev, opt);
    // The generic product gives way to the generic convolution.
    let n = products.len().saturating_sub(1).min(OFFERED);
    let with_patches = |t: Tactic| Tactic {
        name: format!("conv_patches_{vec}_{}", t.name),
        kernels: own.iter().cloned().chain(t.kernels).collect(),
        params: [PATCHES, vec as i64, twin as i64].into_iter().chain(t.params).collect(),
        ..t
    };
    products.into_iter().take(n).map(with_patches).collect()
}

pub(super) fn program(cx: &Context<'_>, tactic: &Tactic) -> Result<StepProgram> {
    let own: &[i64; N_OWN] = super::own(tactic)?;
    let [vec, twin] = own.map(|v| usize::try_from(v).unwrap_or(usize::MAX));
    let n_own = 1 + twin;
    let known = matches!(vec, 1 | 2 | 4 | 8) && twin <= 1 && tactic.kernels.len() >= n_own;
    ensure!(known, CorruptData, "{}", unknown_tile(tactic).message);
    let (g, w) = (&cx.g, &cx.g.window);
    ensure!(takes(cx), Unsupported, "tactic {} takes windows of whole patches, not {w:?}", tactic.name);
    let whole = vector(&[w.kernel[2], w.input[2]]) >= vec;
    ensure!(whole || twin == 1, Unsupported, "tactic {} needs rows of whole vectors", tactic.name);
    let (kernel, vec) = if whole { (0, vec) } else { (1, 1) };

    let ([_, h, wd], [_, p, q], [_, r, s]) = (w.input, w.output, w.kernel);
    let across = q * s / vec;
    let pieces = g.n * g.c * p * r * across;
    let sizes = [pieces, g.c, h, wd, p, q, r, s, across, s / vec];
    let patches = (g.n * p * q * g.c * r * s * cx.dtype.size()).next_multiple_of(256);
    let mut step = StepProgram::default();
    step.ops.push(DeviceOp::Launch(Launch {
        kernel,
        grid: [blocks(pieces, THREADS).min(16 * cx.dev.n_sm.max(1)), 1, 1],
        block: [THREADS as u32, 1, 1],
        smem: 0,
        args: vec![Arg::In(0), Arg::Work(0), params(&sizes, &[across, s / vec, r, p, g.c])],
    }));

    let inner = Tactic {
        kernels: tactic.kernels[n_own..].to_vec(),
        params: tactic.params[1 + N_OWN..].to_vec(),
        name: tactic.name.clone(),
        source: tactic.source,
    };
    let rest = product(cx).program(&inner, &cx.e, cx.p, cx.dev)?;
    // The product's scratch lies behind the patches, which stand where it reads x.
    let place = |a: &mut Arg| {
        let address = a.address_mut();
        match address {
            Arg::In(0) => *address = Arg::Work(0),
            Arg::Work(at) => *at += patches,
            _ => {}
        }
    };
    for op in rest.ops {
        step.ops.push(match op {
            DeviceOp::Launch(mut l) => {
                l.kernel += n_own;
                l.args.iter_mut().for_each(place);
                DeviceOp::Launch(l)
            }
            DeviceOp::Gemm(mut m) => {
                [&mut m.a, &mut m.b, &mut m.d].into_iter().chain(m.bias.as_mut()).for_each(place);
                DeviceOp::Gemm(m)
            }
            DeviceOp::Copy { mut dst, mut src, bytes } => {
                [&mut dst, &mut src].into_iter().for_each(place);
                DeviceOp::Copy { dst, src, bytes }
            }
            DeviceOp::Fill { mut dst, value, bytes } => {
                place(&mut dst);
                DeviceOp::Fill { dst, value, bytes }
            }
        });
    }
    step.workspace = patches + rest.workspace;
    Ok(step)
}
