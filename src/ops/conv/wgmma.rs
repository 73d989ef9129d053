//! Convolutions with channels last by `conv_wgmma_sm90.cu`: an implicit product on Hopper's tensor cores, whose left operand
//! a tensor map gathers from the image (im2col).
//!
//! For f16, bf16 and, where TF32 is allowed, f32, of pixels and filter taps that are whole 16-byte pieces. Edges need no
//! care, so one kernel serves every size of the image. Filters of one element that read each pixel once are plain products
//! and no matter of this file.
//!
//! Parameters of a tactic: the kind, those of [`Config`], whether the epilogue's operands are found by image, the operand
//! that lies as the output (or -1), operands that are rows of channels as bits, and whether there is a second kernel that
//! finds all operands by their strides.

use super::cuda::{Context, pixels};
use crate::base::{DType, Result};
use crate::ops::epilogue::cuda::{ExtraStrides, Fusion, joint_stride, magic, parts, strides_in};
use crate::ops::matmul::sm90::{Config, MAX_TILES, Sizes, ranked};
use crate::ops::tactic::{Im2col, Swizzle, TensorMap};
use crate::ops::window::ChannelOrder;
use crate::ops::{Arg, DeviceOp, KernelSpec, Launch, StepProgram, Tactic, TacticOptions, TacticSource, i32_struct};
use crate::{ensure, err};

/// First parameter of a tactic.
pub(super) const KIND: i64 = 16;
const N_TILE_PARAMS: usize = 5;
const N_PARAMS: usize = 1 + N_TILE_PARAMS + 4;

/// Row tiles that are walked before the next column of tiles.
const GROUP_M: i64 = 1;
/// Steps of one sum at most.
const MAX_STEPS: i64 = 1 << 20;

/// How the kernel finds the operands of the epilogue, as it is compiled.
#[derive(Clone, Debug, PartialEq)]
struct Operands {
    /// Coordinates are (image, pixel) instead of the row.
    by_image: bool,
    /// The operand that lies as the output.
    residual: Option<usize>,
    /// Operands that are one row of channels, as bits.
    rows: i64,
}

impl Operands {
    /// All by their strides.
    const ANY: Operands = Operands { by_image: true, residual: None, rows: 0 };

    fn kind(&self, j: usize) -> i64 {
        match self.residual {
            Some(r) if r == j => 1,
            _ if self.rows >> j & 1 == 1 => 2,
            _ => 0,
        }
    }
}

/// What the driver accepts of this problem, whatever the sizes of the image; `None`: the kernel does not take it.
fn takes(cx: &Context<'_>, opt: Option<&TacticOptions>) -> Option<()> {
    let (g, w) = (&cx.g, &cx.g.window);
    let size = cx.dtype.size();
    let typed = match cx.dtype {
        DType::F16 | DType::BF16 => true,
        DType::F32 => opt.is_none_or(|o| o.tf32),
        _ => false,
    };
    let [_, h, wd] = w.stride;
    let windows = (1..3).all(|i| {
        let span = (w.kernel[i] - 1) * w.dilation[i];
        span <= Im2col::max_offset(2) as usize && span + w.stride[i] <= 127 && w.pad_begin[i] <= 127 && w.pad_end[i] <= 127
    });
    let fits = cx.dev.sm == 90
        && typed
        && g.order == ChannelOrder::Last
        && g.group == 1
        && g.c > 0
        && g.c * size % 16 == 0
        && g.m % 2 == 0
        && cx.is_planar()
        && windows
        && h.max(wd) <= Im2col::MAX_STRIDE
        && w.input[1..].iter().chain(&w.output[1..]).all(|v| *v > 0)
        && steps(cx) <= MAX_STEPS;
    fits.then_some(())
}

/// Pieces of 128 bytes of one tap, rounded up.
fn c_blocks(cx: &Context<'_>) -> i64 {
    (cx.g.c * cx.dtype.size()).div_ceil(128) as i64
}

fn steps(cx: &Context<'_>) -> i64 {
    c_blocks(cx) * cx.g.window.taps() as i64
}

fn rows(cx: &Context<'_>) -> i64 {
    cx.g.n as i64 * pixels(&cx.g)
}

/// A type that results are stored in, of rows that a tensor map can say.
fn stores(cx: &Context<'_>, out: DType) -> bool {
    matches!(out, DType::F16 | DType::BF16 | DType::F32) && cx.g.m * out.size() % 16 == 0
}

/// Strides of every operand of the epilogue by (image, pixel, 0, row, channel): by row where `by_image` is false. `None`: these
/// do not reach one.
fn strides(cx: &Context<'_>, by_image: bool) -> Option<ExtraStrides> {
    let out = &cx.p.outputs.first()?.dims;
    let last = out.len().checked_sub(1)?;
    let of = |dims: &&[usize]| {
        let s = strides_in(dims, out);
        Some(match by_image {
            true => [s[0], joint_stride(&out[1..last], &s[1..last])?, 0, 0, s[last]],
            false => [0, 0, 0, joint_stride(&out[..last], &s[..last])?, s[last]],
        })
    };
    cx.e.shapes(cx.p)?.iter().map(of).collect()
}

/// Whether operand `j` of the epilogue lies as the output, and whether it is one row of channels.
fn operand(cx: &Context<'_>, j: usize, stored: DType) -> Option<(bool, bool)> {
    let d = cx.p.input(cx.e.first + j)?;
    let out = &cx.p.outputs.first()?.dims;
    // It broadcasts to the output, so as many elements lie in the same way.
    let as_output = d.numel() == out.iter().product::<usize>() && d.dtype == stored;
    Some((as_output, d.dims.last() == Some(&cx.g.m) && d.numel() == cx.g.m))
}

/// The way that suits these shapes.
fn operands(cx: &Context<'_>, stored: DType, opt: &TacticOptions) -> Option<Operands> {
    let n = cx.e.shapes(cx.p)?.len();
    let mut o = Operands { by_image: opt.dynamic || strides(cx, false).is_none(), residual: None, rows: 0 };
    for j in 0..n {
        let (as_output, row) = operand(cx, j, stored)?;
        if as_output && o.residual.is_none() {
            o.residual = Some(j);
        } else if row {
            o.rows |= 1 << j;
        }
    }
    Some(o)
}

/// Whether the operands are still found the way that a kernel is compiled for.
fn suits(cx: &Context<'_>, o: &Operands, stored: DType) -> bool {
    let found = |j: usize| {
        operand(cx, j, stored).is_some_and(|(as_output, row)| match o.kind(j) {
            1 => as_output,
            2 => row,
            _ => true,
        })
    };
    let n = cx.e.shapes(cx.p).map_or(0, |s| s.len());
    (0..n).all(found) && strides(cx, o.by_image).is_some()
}

pub(super) fn tactics(cx: &Context<'_>, opt: &TacticOptions) -> Vec<Tactic> {
    enumerate(cx, opt).unwrap_or_default()
}

fn enumerate(cx: &Context<'_>, opt: &TacticOptions) -> Option<Vec<Tactic>> {
    takes(cx, Some(opt))?;
    let is_const = cx.p.known(1).is_some();
    // The filter's sizes and channels must stay.
    if opt.dynamic && !is_const {
        return None;
    }
    let inside = strides(cx, true).is_some() && stores(cx, cx.p.outputs[0].dtype);
    let fusion = match inside {
        true => cx.e.plan(cx.p, true, cx.dev, opt)?,
        false => cx.e.after(cx.p, false, cx.dev, opt)?,
    };
    let stored = cx.stored(&fusion);
    if !stores(cx, stored) {
        return None;
    }
    let own = match &fusion {
        Fusion::Inside(_) => operands(cx, stored, opt)?,
        _ => Operands { by_image: false, residual: None, rows: 0 },
    };
    // Shapes may come where an operand broadcasts in another way.
    let twin = opt.dynamic && (own.residual.is_some() || own.rows != 0);
    let fits = |c: &Config| c.takes(true) && c.smem(stored) <= cx.dev.max_smem_per_block as i64;
    let list = ranked(&sizes(cx, own.residual.is_some(), stored), fits, cx.dev, opt).into_iter().map(|c| {
        let spec = |o: &Operands| fusion.define(spec(cx, &c, o, stored, is_const, &fusion));
        let mut kernels = vec![spec(&own)];
        if twin {
            kernels.push(spec(&Operands::ANY));
        }
        let mut params = vec![KIND];
        params.extend(c.params());
        params.extend([own.by_image as i64, own.residual.map_or(-1, |r| r as i64), own.rows, twin as i64]);
        let name = format!("conv_wgmma_sm90_{}{}", c.name(), fusion.text());
        fusion.complete(Tactic { name, source: TacticSource::Kernels, kernels, params })
    });
    Some(list.collect())
}

fn sizes(cx: &Context<'_>, residual: bool, out: DType) -> Sizes {
    let g = &cx.g;
    let input = g.n * g.c * g.window.input.iter().product::<usize>() + g.m * g.c * g.window.taps();
    let output = rows(cx) as usize * g.m * (1 + residual as usize);
    let bytes = (input * cx.dtype.size() + output * out.size()) as f64;
    Sizes { m: rows(cx), n: g.m as i64, steps: steps(cx), batch: 1, bytes, residual }
}

fn spec(cx: &Context<'_>, c: &Config, o: &Operands, out: DType, is_const: bool, fusion: &Fusion) -> KernelSpec {
    let spec = c
        .define(KernelSpec::new("conv_wgmma_sm90.cu"), cx.dtype, out)
        .define_type("T_BIAS", cx.dtype)
        .define("HAS_BIAS", cx.has_bias as i64)
        .define("BIAS_ROWS", 0)
        .define("TRANS_A", 0)
        .define("TRANS_B", 1)
        .define("BATCHED", 0)
        .define("BY_IMAGE", o.by_image as i64)
        .define("RESIDUAL", o.residual.is_some() as i64)
        .define("CONST_A", 0)
        .define("CONST_B", is_const as i64);
    let n = match fusion {
        Fusion::Inside(_) => cx.e.shapes(cx.p).map_or(0, |s| s.len()),
        _ => 0,
    };
    // Constants start at multiples of 256 bytes; what an application binds need not.
    let constant = |i: usize| cx.p.known(i).is_some();
    let pairs = (!cx.has_bias || constant(2)) && (0..n).all(|j| o.kind(j) != 2 || constant(cx.e.first + j));
    let spec = spec.define("PAIRS", pairs as i64);
    (0..n).fold(spec, |s, j| s.define(&format!("EXTRA_KIND{j}"), o.kind(j)))
}

pub(super) fn program(cx: &Context<'_>, tactic: &Tactic) -> Result<StepProgram> {
    let parts = parts(tactic, N_PARAMS)?;
    takes(cx, None).ok_or_else(|| err!(Unsupported, "tactic {} does not take sizes {:?}", tactic.name, cx.g.window))?;
    let v = &tactic.params[1..N_PARAMS];
    let corrupt = || err!(CorruptData, "tactic {} has not the parameters that it needs", tactic.name);
    let c = Config::of_params(&v[..N_TILE_PARAMS]).ok_or_else(corrupt)?;
    let [by_image, residual, rows, twin] = v[N_TILE_PARAMS..] else { return Err(corrupt()) };
    let n_operands = if parts.code == 1 { cx.e.shapes(cx.p).map_or(0, |s| s.len()) } else { 0 };
    ensure!(
        (-1..n_operands as i64).contains(&residual) && (0..1 << n_operands).contains(&rows),
        CorruptData,
        "tactic {} names operands that are not there",
        tactic.name
    );
    let own = Operands { by_image: by_image != 0, residual: usize::try_from(residual).ok(), rows };
    let out = &cx.p.outputs[0];
    let mut step = StepProgram::default();
    let (result, stored) = match &parts.after {
        Some(_) if out.dtype != cx.dtype => {
            step.workspace = (out.numel() * cx.dtype.size()).next_multiple_of(256);
            (Arg::Work(0), cx.dtype)
        }
        Some(_) => (Arg::Out(0), cx.dtype),
        None => (Arg::Out(0), out.dtype),
    };
    ensure!(stores(cx, stored), Unsupported, "tactic {} does not store {} channels of {stored}", tactic.name, cx.g.m);
    let (kernel, o) = match parts.code {
        1 if suits(cx, &own, stored) => (0, own),
        1 if twin != 0 && parts.n_kernels > 1 && suits(cx, &Operands::ANY, stored) => (1, Operands::ANY),
        1 => return Err(err!(Unsupported, "tactic {} does not reach an operand at these shapes", tactic.name)),
        _ => (0, own),
    };
    let extra = if parts.code == 1 { strides(cx, o.by_image).unwrap_or_default() } else { Vec::new() };
    step.ops.push(DeviceOp::Launch(launch(cx, &c, &o, kernel, &result, stored, extra)?));
    if let Some(after) = &parts.after {
        cx.e.append_after(&mut step, after, parts.n_kernels, &result, false, cx.p, cx.dev)?;
    }
    Ok(step)
}

fn launch(
    cx: &Context<'_>,
    c: &Config,
    o: &Operands,
    kernel: usize,
    result: &Arg,
    stored: DType,
    extra: ExtraStrides,
) -> Result<Launch> {
    let (rows, m) = (rows(cx), cx.g.m as i64);
    let sizes = sizes(cx, false, stored);
    let tiles = c.tiles(&sizes);
    ensure!(
        tiles.0.checked_mul(tiles.1).is_some_and(|t| (1..=MAX_TILES).contains(&t)) && rows < i32::MAX as i64,
        Unsupported,
        "a convolution of {} x {} tiles is too large for one launch",
        tiles.0,
        tiles.1
    );
    let grid = c.grid(&sizes, cx.dev) as u32;
    let (row_bytes, epi_cols) = c.stored_block(stored);
    let swizzle = if row_bytes == 128 { Swizzle::Bytes128 } else { Swizzle::Bytes64 };
    let matrix = |base: &Arg| TensorMap::matrix(base.clone(), stored, rows as u64, m as u64, [64, epi_cols as u32], swizzle);
    let y = matrix(result);
    let residual = o.residual.map_or_else(|| y.clone(), |j| matrix(&Arg::In(cx.e.first + j)));
    let bias = if cx.has_bias { Arg::In(2) } else { Arg::Null };
    let mut args = vec![map_x(cx, c)?, map_w(cx, c), y, residual, bias, result.clone(), params(cx, c, tiles)];
    args.extend(cx.e.args(&extra));
    Ok(Launch { kernel, grid: [grid, 1, 1], block: [c.threads() as u32, 1, 1], smem: c.smem(stored) as u32, args })
}

/// The image, from which each load gathers what one tap reads for the pixels of a tile.
fn map_x(cx: &Context<'_>, c: &Config) -> Result<Arg> {
    let (g, w, size) = (&cx.g, &cx.g.window, cx.dtype.size() as u64);
    let [_, h, wd] = w.input.map(|v| v as u64);
    let (n, channels) = (g.n as u64, g.c as u64);
    let corners = |axis: usize| -> Result<[i32; 2]> {
        let lower = -(w.pad_begin[axis] as i64);
        // As many positions as outputs are left.
        let upper = lower + (w.output[axis] as i64 - 1) * w.stride[axis] as i64 - (w.input[axis] as i64 - 1);
        let fits = [lower, upper].iter().all(|v| Im2col::corners(2).contains(v));
        ensure!(fits, Unsupported, "a window of {:?} with padding {:?} is beyond a tensor map", w.kernel, w.pad_begin);
        Ok([lower as i32, upper as i32])
    };
    let (of_w, of_h) = (corners(2)?, corners(1)?);
    Ok(Arg::TensorMap(Box::new(TensorMap {
        base: Arg::In(0),
        dtype: cx.dtype,
        dims: vec![channels, wd, h, n],
        strides_bytes: vec![channels * size, wd * channels * size, h * wd * channels * size],
        tile: vec![128 / size as u32, c.m as u32],
        swizzle: Swizzle::Bytes128,
        im2col: Some(Im2col {
            lower: vec![of_w[0], of_h[0]],
            upper: vec![of_w[1], of_h[1]],
            strides: vec![w.stride[2] as u32, w.stride[1] as u32],
        }),
    })))
}

/// The filters [m, taps, c].
fn map_w(cx: &Context<'_>, c: &Config) -> Arg {
    let size = cx.dtype.size() as u64;
    let (channels, taps) = (cx.g.c as u64, cx.g.window.taps() as u64);
    Arg::TensorMap(Box::new(TensorMap {
        base: Arg::In(1),
        dtype: cx.dtype,
        dims: vec![channels, taps, cx.g.m as u64],
        strides_bytes: vec![channels * size, taps * channels * size],
        tile: vec![128 / size as u32, 1, (c.n / c.cluster) as u32],
        swizzle: Swizzle::Bytes128,
        im2col: None,
    }))
}

/// ConvTileParams.
fn params(cx: &Context<'_>, c: &Config, tiles: (i64, i64)) -> Arg {
    let w = &cx.g.window;
    let ([_, p, q], [_, _, s]) = (w.output, w.kernel);
    let k_steps = (steps(cx) + c.k - 1) / c.k;
    let tile = [rows(cx), cx.g.m as i64, k_steps, tiles.0, tiles.1, GROUP_M];
    let sizes = [p * q, q, w.stride[1], w.stride[2], w.pad_begin[1], w.pad_begin[2], w.dilation[1], w.dilation[2], s];
    let taps = sizes.iter().map(|v| *v as i64).chain([c_blocks(cx), steps(cx)]);
    let magics = [p * q, q, s, c_blocks(cx) as usize].into_iter().flat_map(|d| <[i32; 2]>::from(magic(d)));
    i32_struct(tile.into_iter().chain(taps).map(|v| v as i32).chain(magics))
}

#[cfg(test)]
mod tests {
    use super::super::Conv;
    use super::*;
    use crate::base::Tensor;
    use crate::device::DeviceProps;
    use crate::ops::pointwise::{Func, Program};
    use crate::ops::window::AutoPad;
    use crate::ops::{OpDef, Problem, TensorDesc};
    use std::sync::Arc;

    fn conv(f: impl FnOnce(&mut Conv)) -> Conv {
        let mut op = Conv {
            strides: vec![],
            pads: vec![1; 4],
            dilations: vec![],
            group: 1,
            auto_pad: AutoPad::NotSet,
            order: ChannelOrder::Last,
            epilogue: None,
        };
        f(&mut op);
        op
    }

    fn added(n: usize) -> Option<Program> {
        let mut p = Program { inputs: vec![DType::F16; n + 1], instrs: vec![], outputs: vec![] };
        let r = (1..=n).fold(0, |r, i| p.push(Func::Add, &[r, i as u16]).unwrap());
        p.outputs = vec![r];
        Some(p)
    }

    /// A 3x3 convolution, whose filters are a constant.
    fn problem(dtype: DType, x: &[usize], m: usize, y: &[usize], extra: &[&[usize]]) -> Problem {
        let desc = |dims: &[usize]| Some(TensorDesc { dtype, dims: dims.to_vec() });
        let w = [m, 3, 3, *x.last().unwrap()];
        let mut inputs = vec![desc(x), desc(&w), None];
        inputs.extend(extra.iter().map(|d| desc(d)));
        let mut known = vec![None; inputs.len()];
        known[1] = Some(Arc::new(Tensor::zeros(dtype, &w)));
        Problem { inputs, outputs: desc(y).into_iter().collect(), known }
    }

    fn own(op: &Conv, p: &Problem, sm: u32, opt: &TacticOptions) -> Vec<Tactic> {
        let dev = DeviceProps { sm, ..DeviceProps::example_h200() };
        op.cuda_tactics(p, &dev, opt).into_iter().filter(|t| t.name.contains("conv_wgmma")).collect()
    }

    #[test]
    fn what_a_map_cannot_say_is_left_to_others() {
        let opt = TacticOptions::default();
        let n = |f: &dyn Fn(&mut Conv), c: usize, m: usize| {
            own(&conv(f), &problem(DType::F16, &[2, 30, 30, c], m, &[2, 30, 30, m], &[]), 90, &opt).len()
        };
        assert!((4..=9).contains(&n(&|_| {}, 64, 64)));
        assert!(n(&|_| {}, 8, 8) > 0);
        assert_eq!((n(&|_| {}, 12, 64), n(&|_| {}, 64, 12), n(&|_| {}, 64, 7)), (0, 0, 0), "pieces of 16 bytes");
        let y = |size: usize| vec![2, size, size, 64];
        let sized = |f: &dyn Fn(&mut Conv), size: usize| {
            own(&conv(f), &problem(DType::F16, &[2, 300, 300, 64], 64, &y(size), &[]), 90, &opt).len()
        };
        assert!(sized(&|c| c.strides = vec![8, 8], 38) > 0);
        assert_eq!(sized(&|c| c.strides = vec![9, 9], 34), 0, "a stride of 9");
        assert_eq!(sized(&|c| c.dilations = vec![100, 1], 102), 0, "taps 200 apart");
        assert_eq!(sized(&|c| c.pads = vec![130, 1, 1, 1], 429), 0, "a corner of 130");
        let p = problem(DType::F16, &[2, 30, 30, 64], 64, &[2, 30, 30, 64], &[]);
        assert!(own(&conv(|_| {}), &p, 80, &opt).is_empty() && own(&conv(|_| {}), &p, 100, &opt).is_empty());
        let mut unknown = p.clone();
        unknown.known[1] = None;
        assert!(!own(&conv(|_| {}), &unknown, 90, &opt).is_empty());
        let dynamic = TacticOptions { dynamic: true, ..TacticOptions::default() };
        assert!(own(&conv(|_| {}), &unknown, 90, &dynamic).is_empty() && !own(&conv(|_| {}), &p, 90, &dynamic).is_empty());
        // f32 goes through TF32 or not at all.
        let p = problem(DType::F32, &[2, 30, 30, 4], 4, &[2, 30, 30, 4], &[]);
        assert!(own(&conv(|_| {}), &p, 90, &opt).is_empty());
        assert!(!own(&conv(|_| {}), &p, 90, &TacticOptions { tf32: true, ..TacticOptions::default() }).is_empty());
    }

    #[test]
    fn filters_of_a_constant_are_loaded_ahead() {
        let mut p = problem(DType::F16, &[2, 30, 30, 64], 64, &[2, 30, 30, 64], &[]);
        let ahead = |p: &Problem| {
            let list = own(&conv(|_| {}), p, 90, &TacticOptions::default());
            list[0].kernels[0].defines.contains(&("CONST_B".to_string(), "1".to_string()))
        };
        assert!(ahead(&p));
        p.known[1] = None;
        assert!(!ahead(&p));
    }

    #[test]
    fn a_tactic_serves_other_shapes_or_refuses() {
        let dev = DeviceProps::example_h200();
        let opt = TacticOptions { dynamic: true, ..TacticOptions::default() };
        let op = conv(|c| c.epilogue = added(2));
        let at = |n: usize, size: usize, e: &[usize]| {
            let y = [n, size, size, 64];
            problem(DType::F16, &[n, size, size, 128], 64, &y, &[&y, e])
        };
        let kernel = |t: &Tactic, p: &Problem| {
            let step = op.cuda_program(t, p, &dev).unwrap_or_else(|e| panic!("{}: {e}", t.name));
            let [DeviceOp::Launch(l)] = step.ops.as_slice() else { panic!("{}: one launch", t.name) };
            let rows = p.outputs[0].numel() / 64;
            let Arg::TensorMap(y) = &l.args[2] else { panic!("{:?}", l.args[2]) };
            assert_eq!(y.dims, [64, rows as u64]);
            l.kernel
        };
        let tactics = own(&op, &at(1, 14, &[1, 1, 1, 64]), 90, &opt);
        assert!(!tactics.is_empty());
        for t in &tactics {
            assert_eq!(t.kernels.len(), 2);
            for (n, size) in [(1, 14), (1, 1), (7, 13), (128, 56)] {
                assert_eq!(kernel(t, &at(n, size, &[1, 1, 1, 64])), 0);
                // A number for each image and channel: only with one image is that a row.
                assert_eq!(kernel(t, &at(n, size, &[n, 1, 1, 64])), (n > 1) as usize);
            }
            assert!(op.cuda_program(t, &at(3000, 1000, &[64]), &dev).is_err(), "rows beyond 32 bits");
            assert!(op.cuda_program(t, &problem(DType::F16, &[1, 0, 5, 128], 64, &[1, 0, 5, 64], &[&[1], &[1]]), &dev).is_err());
        }
    }
}
