//! Convolution on CUDA: as a matrix product for filters of one element, as an implicit product on tensor cores (f16, bf16,
//! from sm_80) or scalar units, channel by channel for depthwise filters, and directly for everything.
//!
//! Parameters of a tactic: the kind, then its tile, whether the sum is split over blocks, and whether filters are loaded
//! in vectors; for products those of [`DeviceGemm`]. Filter sizes are compiled in: they never change with the shapes.

use super::{Conv, ConvGeometry, FIRST_EXTRA};
use crate::base::{DType, Result};
use crate::device::DeviceProps;
use crate::ops::epilogue::cuda::{
    CudaEpilogue, ExtraStrides, Fusion, Parts, accumulator, joint_stride, magic, parts, strides_in,
};
use crate::ops::matmul::gemm::{DeviceGemm, finish_launch, finish_spec};
use crate::ops::window::ChannelOrder;
use crate::ops::{
    Arg, DeviceOp, KernelSpec, Launch, Problem, StepProgram, Tactic, TacticOptions, TacticSource, i32_struct, i64_struct,
};
use crate::{bail, ensure, internal};

const PRODUCT: i64 = 0;
const MMA: i64 = 1;
const SIMT: i64 = 2;
const DEPTHWISE: i64 = 3;
const DIRECT: i64 = 4;

/// Parameters of all kinds but products: kind, tile m, n, k, two more of the tile, split, vector loads.
const N_PARAMS: usize = 8;

const MAX_SPLITS: i64 = 32;
/// Bytes of partial sums at most.
const MAX_PARTS: i64 = 64 << 20;
/// Blocks along the second and third axis of a grid.
const MAX_GRID_YZ: i64 = 65_535;
/// Filter sizes up to this are compiled in.
const MAX_BAKED: usize = 11;
/// Longer sums in f32 are made in parts of this length, as on the CPU.
const SUM_PART: i64 = 128;
/// Candidates that compete, the generic one included.
const MAX_TACTICS: usize = 6;
/// Candidates of a product with channels last, which has no other kernels.
const MAX_PRODUCTS: usize = 9;

/// Block tile (channels, pixels, k) and warps or thread outputs along the first two.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Tile {
    kind: i64,
    m: i64,
    n: i64,
    k: i64,
    x: i64,
    y: i64,
    /// Share of the peak, for ranking.
    quality: f64,
}

const fn tile(kind: i64, m: i64, n: i64, k: i64, x: i64, y: i64, quality: f64) -> Tile {
    Tile { kind, m, n, k, x, y, quality }
}

const TILES: &[Tile] = &[
    tile(MMA, 128, 128, 32, 2, 4, 1.0),
    tile(MMA, 64, 128, 32, 2, 4, 0.85),
    tile(MMA, 128, 64, 32, 4, 2, 0.85),
    tile(MMA, 64, 64, 32, 2, 2, 0.7),
    tile(MMA, 32, 64, 32, 2, 2, 0.45),
    tile(MMA, 64, 32, 32, 2, 2, 0.45),
    tile(MMA, 32, 32, 32, 2, 2, 0.3),
    tile(SIMT, 128, 128, 8, 8, 8, 1.0),
    tile(SIMT, 64, 128, 8, 4, 8, 0.85),
    tile(SIMT, 64, 64, 8, 4, 4, 0.7),
    tile(SIMT, 32, 64, 16, 2, 4, 0.5),
    tile(SIMT, 32, 32, 16, 2, 2, 0.35),
    tile(SIMT, 16, 64, 16, 1, 4, 0.35),
];

impl Tile {
    fn threads(&self) -> i64 {
        if self.kind == MMA { 32 * self.x * self.y } else { (self.m / self.x) * (self.n / self.y) }
    }

    fn smem(&self) -> i64 {
        if self.kind == MMA { 4 * (self.m * (self.k + 8) + self.k * (self.n + 8)) } else { 0 }
    }

    fn static_smem(&self, dtype: DType) -> i64 {
        let size = accumulator(dtype).size() as i64;
        if self.kind == SIMT { 2 * self.k * (self.m + self.n + 2 * (16 / size)) * size } else { 0 }
    }

    /// Blocks along pixels, channels and groups.
    fn grid(&self, g: &ConvGeometry) -> [i64; 3] {
        let up = |a: i64, b: i64| (a + b - 1) / b;
        [up(pixels(g) * g.n as i64, self.n), up((g.m / g.group) as i64, self.m), g.group as i64]
    }

    fn tiles(&self, g: &ConvGeometry) -> i64 {
        self.grid(g).iter().product::<i64>().max(1)
    }

    fn splits(&self, g: &ConvGeometry, dtype: DType, dev: &DeviceProps) -> i64 {
        let total = (pixels(g) * (g.n * g.m) as i64).max(1);
        let by_memory = MAX_PARTS / total.saturating_mul(accumulator(dtype).size() as i64);
        let by_k = crs(g) / (4 * self.k);
        let by_grid = MAX_GRID_YZ / (g.group as i64).max(1);
        (2 * dev.n_sm as i64 / self.tiles(g)).min(by_k).min(by_memory).min(by_grid).clamp(1, MAX_SPLITS)
    }

    fn cost(&self, g: &ConvGeometry, splits: i64, dev: &DeviceProps) -> f64 {
        let rounds = ((self.tiles(g) * splits) as f64 / dev.n_sm.max(1) as f64).ceil();
        rounds * (self.m * self.n) as f64 / self.quality / splits as f64
    }
}

/// Output pixels of one image.
pub(super) fn pixels(g: &ConvGeometry) -> i64 {
    g.window.output.iter().product::<usize>() as i64
}

/// Length of one sum.
fn crs(g: &ConvGeometry) -> i64 {
    (g.c / g.group * g.window.taps()) as i64
}

/// What enumeration and launches share.
pub(super) struct Context<'a> {
    pub(super) p: &'a Problem,
    pub(super) dev: &'a DeviceProps,
    pub(super) g: ConvGeometry,
    pub(super) dtype: DType,
    pub(super) has_bias: bool,
    pub(super) e: CudaEpilogue<'a>,
    /// Strides by (image, channel, pixel, 0, 0); `None`: these do not reach an operand.
    pub(super) extra: Option<ExtraStrides>,
}

pub(super) fn tactics(op: &Conv, p: &Problem, dev: &DeviceProps, opt: &TacticOptions) -> Vec<Tactic> {
    with_context(op, p, dev, |cx| Ok(cx.tactics(opt))).unwrap_or_default()
}

pub(super) fn program(op: &Conv, tactic: &Tactic, p: &Problem, dev: &DeviceProps) -> Result<StepProgram> {
    with_context(op, p, dev, |cx| cx.program(tactic))
}

fn with_context<R>(
    op: &Conv,
    p: &Problem,
    dev: &DeviceProps,
    f: impl FnOnce(&Context<'_>) -> Result<R>,
) -> Result<R> {
    let (Some(x), Some(w), Some(y)) = (p.input(0), p.input(1), p.outputs.first()) else {
        return Err(internal!("a convolution without operands"));
    };
    let g = op.geometry(&x.dims, &w.dims, &y.dims)?;
    let bias_dims = bias_dims(g.m, y.dims.len(), op.order);
    let e = CudaEpilogue { program: op.epilogue.as_ref(), first: FIRST_EXTRA, bias_dims: &bias_dims };
    let extra = plane_strides(&e, p, op.order);
    f(&Context { p, dev, g, dtype: x.dtype, has_bias: p.input(2).is_some(), e, extra })
}

/// Shape under which a number for each channel broadcasts to an output of this rank.
pub(crate) fn bias_dims(channels: usize, rank: usize, order: ChannelOrder) -> Vec<usize> {
    let axis = order.output_channels(rank);
    (1..rank).map(|i| if i == axis { channels } else { 1 }).collect()
}

/// Strides of the epilogue's operands by (image, channel, pixel).
pub(crate) fn plane_strides(e: &CudaEpilogue<'_>, p: &Problem, order: ChannelOrder) -> Option<ExtraStrides> {
    let out = &p.outputs.first()?.dims;
    let (channels, spatial) = (order.output_channels(out.len()), order.output_spatial(out.len()));
    e.shapes(p)?
        .iter()
        .map(|s| {
            let s = strides_in(s, out);
            Some([s[0], s[channels], joint_stride(&out[spatial.clone()], &s[spatial.clone()])?, 0, 0])
        })
        .collect()
}

/// ConvNdParams of `kernels/common/conv_nd.cuh`.
pub(crate) fn nd_params(n: usize, c: usize, k: usize, group: usize, w: &crate::ops::window::Window3) -> Arg {
    let (input, output): (usize, usize) = (w.input.iter().product(), w.output.iter().product());
    let head = [n, c, k, group];
    let lists = [w.input, w.output, w.kernel, w.stride, w.pad_begin, w.dilation];
    let all = head.into_iter().chain(lists.into_iter().flatten()).chain([c * input, k * output]);
    i64_struct(all.map(|v| v as i64))
}

/// Fails when a size is beyond the 32-bit coordinates of the generic kernels.
pub(crate) fn check_nd(n: usize, m: usize, w: &crate::ops::window::Window3) -> Result<()> {
    let limit = i32::MAX as usize;
    let pixels = |v: &[usize; 3]| v.iter().try_fold(1usize, |a, b| a.checked_mul(*b)).is_some_and(|p| p < limit);
    ensure!(
        n < limit && m < limit && pixels(&w.output) && pixels(&w.input),
        Unsupported,
        "an image of {:?} with {m} channels is too large for the kernels",
        w.output
    );
    Ok(())
}

pub(crate) const DIRECT_THREADS: usize = 256;

/// Blocks of a kernel that strides over `total` elements.
pub(crate) fn striding_grid(total: usize, threads: usize, dev: &DeviceProps) -> u32 {
    total.div_ceil(threads).clamp(1, dev.max_grid[0] as usize) as u32
}

impl Context<'_> {
    /// The filter has one element and reads each input pixel once.
    pub(super) fn is_product(&self) -> bool {
        let w = &self.g.window;
        self.g.order != ChannelOrder::FirstToLast && self.g.group == 1 && w.taps() == 1 && w.stride == [1; 3] && w.pad_begin == [0; 3] && w.input == w.output
    }

    /// One or two spatial axes, of sizes that 32-bit indices hold.
    pub(super) fn is_planar(&self) -> bool {
        let (g, w) = (&self.g, &self.g.window);
        let fits = |v: usize| v < i32::MAX as usize / 2;
        w.input[0] == 1
            && w.output[0] == 1
            && w.kernel[0] == 1
            && w.pad_begin[0] == 0
            && fits(g.n * pixels(g) as usize)
            && fits(g.c * w.input[1] * w.input[2])
            && fits(g.m * pixels(g) as usize)
            && [w.stride, w.dilation, w.pad_begin].iter().flatten().all(|v| fits(*v))
    }

    fn as_product(&self) -> DeviceGemm {
        let (c, pixels) = (self.g.c as i64, pixels(&self.g));
        if self.g.order == ChannelOrder::Last {
            return self.as_product_of_pixels();
        }
        DeviceGemm {
            dtype: self.dtype,
            m: self.g.m as i64,
            n: pixels,
            k: c,
            trans_a: false,
            trans_b: false,
            batch: [1, 1, self.g.n as i64],
            stride_a: [0; 3],
            stride_b: [0, 0, c * pixels],
            alpha: 1.0,
            a: Arg::In(1),
            b: Arg::In(0),
            bias: self.has_bias.then_some(Arg::In(2)),
            bias_rows: true,
            extra: self.extra.as_ref().map(|x| x.iter().map(|s| [0, 0, s[0], s[1], s[2]]).collect()),
        }
    }

    /// Channels last: pixels [n * pixels, c] by filters [m, c] transposed. Images are joined where every operand of the
    /// epilogue goes along.
    pub(super) fn as_product_of_pixels(&self) -> DeviceGemm {
        let (n, c, m, pixels) = (self.g.n as i64, self.g.c as i64, self.g.m as i64, pixels(&self.g));
        let out = &self.p.outputs[0].dims;
        let rows = out.len().saturating_sub(1);
        let joined: Option<ExtraStrides> = self.e.shapes(self.p).and_then(|shapes| {
            let strides = |s: &&[usize]| {
                let s = strides_in(s, out);
                Some([0, 0, 0, joint_stride(&out[..rows], &s[..rows])?, s[rows]])
            };
            shapes.iter().map(strides).collect()
        });
        let by_image = || self.extra.as_ref().map(|x| x.iter().map(|s| [0, 0, s[0], s[2], s[1]]).collect());
        let one = joined.is_some() || n == 1;
        DeviceGemm {
            dtype: self.dtype,
            m: if one { n * pixels } else { pixels },
            n: m,
            k: c,
            trans_a: false,
            trans_b: true,
            batch: [1, 1, if one { 1 } else { n }],
            stride_a: [0, 0, if one { 0 } else { c * pixels }],
            stride_b: [0; 3],
            alpha: 1.0,
            a: Arg::In(0),
            b: Arg::In(1),
            bias: self.has_bias.then_some(Arg::In(2)),
            bias_rows: false,
            extra: joined.or_else(by_image),
        }
    }

    // ---- enumeration ------------------------------------------------------------------------------------------

    fn tactics(&self, opt: &TacticOptions) -> Vec<Tactic> {
        let mut out = Vec::new();
        if self.is_product() {
            let products = self.as_product().tactics(&self.e, self.p, self.dev, opt);
            // The generic product gives way to the generic convolution.
            let most = if self.g.order == ChannelOrder::Last { MAX_PRODUCTS } else { 3 };
            let n = products.len().saturating_sub(1).min(most);
            out.extend(products.into_iter().take(n).map(|mut t| {
                t.params.insert(0, PRODUCT);
                t
            }));
        }
        let Some(fusion) = self.e.plan(self.p, self.extra.is_some(), self.dev, opt) else { return out };
        let (g, w) = (&self.g, &self.g.window);
        let mut n_more = out.len().saturating_sub(3);
        if self.g.order != ChannelOrder::First {
            let mut last = if self.is_product() { Vec::new() } else { super::wgmma::tactics(self, opt) };
            last.append(&mut super::nhwc::tactics(self, opt));
            n_more += last.len();
            out.append(&mut last);
        } else if self.is_planar() && !(opt.dynamic && self.p.outputs[0].dims.len() > 4) {
            // Of three spatial axes that may change, none is known to stay 1.
            if g.c == g.group && g.m / g.group <= 4 {
                let wide = [4, 2, 1].into_iter().find(|o| w.output[2] >= 4 * o).unwrap_or(1);
                out.push(self.kernel_tactic(DEPTHWISE, wide as i64, &fusion));
                if wide > 1 {
                    out.push(self.kernel_tactic(DEPTHWISE, 1, &fusion));
                }
            } else {
                out.extend(self.tiled(&fusion));
            }
        }
        out.truncate(MAX_TACTICS - 1 + n_more);
        out.push(self.kernel_tactic(DIRECT, 0, &fusion));
        out
    }

    /// The best tiles, and the best one that splits its sums when that promises more.
    fn tiled(&self, fusion: &Fusion) -> Vec<Tactic> {
        let g = &self.g;
        let half = matches!(self.dtype, DType::F16 | DType::BF16);
        let kind = if half && self.dev.sm >= 80 { MMA } else { SIMT };
        let launchable = |t: &&Tile| {
            let [x, y, z] = t.grid(g);
            t.kind == kind
                && t.static_smem(self.dtype) <= 48 << 10
                && t.smem() <= self.dev.max_smem_per_block as i64
                && x <= self.dev.max_grid[0] as i64
                && y <= MAX_GRID_YZ
                && z <= MAX_GRID_YZ
        };
        let mut tiles: Vec<Tile> = TILES.iter().filter(launchable).copied().collect();
        tiles.sort_by(|a, b| a.cost(g, 1, self.dev).total_cmp(&b.cost(g, 1, self.dev)));
        let split_cost = |t: &Tile| t.cost(g, t.splits(g, self.dtype, self.dev), self.dev);
        let split = tiles
            .iter()
            .filter(|t| t.tiles(g) * 2 <= self.dev.n_sm as i64 && t.splits(g, self.dtype, self.dev) > 1)
            .min_by(|a, b| split_cost(a).total_cmp(&split_cost(b)))
            .copied();
        let mut out = Vec::new();
        if let (Some(s), Some(t)) = (split, tiles.first()) {
            // The parts are written and read once more.
            if split_cost(&s) * 1.5 < t.cost(g, 1, self.dev) {
                out.push(self.tile_tactic(s, true, fusion));
            }
        }
        out.extend(tiles.iter().take(3).map(|t| self.tile_tactic(*t, false, fusion)));
        out
    }

    pub(super) fn stored(&self, fusion: &Fusion) -> DType {
        if matches!(fusion, Fusion::After(_)) { self.dtype } else { self.p.outputs[0].dtype }
    }

    pub(super) fn spec(&self, file: &str, split: bool, fusion: &Fusion) -> KernelSpec {
        let out = if split { accumulator(self.dtype) } else { self.stored(fusion) };
        let s = KernelSpec::new(file)
            .define_type("T_IN", self.dtype)
            .define_type("T_OUT", out)
            .define_type("T_BIAS", self.dtype)
            .define("HAS_BIAS", (self.has_bias && !split) as i64);
        if split { s.define("EPILOGUE", 0) } else { fusion.define(s) }
    }

    fn filter(&self, s: KernelSpec) -> KernelSpec {
        let [_, h, w] = self.g.window.kernel;
        let baked = h <= MAX_BAKED && w <= MAX_BAKED;
        s.define("FILTER_H", if baked { h } else { 0 }).define("FILTER_W", if baked { w } else { 0 })
    }

    fn tile_tactic(&self, t: Tile, split: bool, fusion: &Fusion) -> Tactic {
        // Filters lie in memory as one row of crs elements for each channel.
        let aligned = t.kind == MMA && crs(&self.g) % 8 == 0;
        let file = if t.kind == MMA { "conv_igemm_mma_sm80.cu" } else { "conv_igemm_simt.cu" };
        let mut s = self.filter(self.spec(file, split, fusion)).define("BLOCK_M", t.m).define("BLOCK_N", t.n).define("BLOCK_K", t.k);
        s = if t.kind == MMA {
            s.define("WARPS_M", t.x).define("WARPS_N", t.y).define("ALIGNED", aligned as i64)
        } else {
            let part = if self.dtype == DType::F32 && crs(&self.g) > SUM_PART { SUM_PART } else { 0 };
            s.define("THREAD_M", t.x).define("THREAD_N", t.y).define("SUM_PART", part)
        };
        let mut kernels = vec![s];
        if split {
            kernels.push(finish_spec(self.dtype, self.stored(fusion), self.has_bias, 1, fusion));
        }
        let name = format!(
            "conv_igemm_{}_{}x{}x{}_{}x{}{}{}{}",
            if t.kind == MMA { "mma_sm80" } else { "simt" },
            t.m,
            t.n,
            t.k,
            t.x,
            t.y,
            if t.kind == MMA && !aligned { "_elements" } else { "" },
            if split { "_split" } else { "" },
            fusion.text()
        );
        let params = vec![t.kind, t.m, t.n, t.k, t.x, t.y, split as i64, aligned as i64];
        fusion.complete(Tactic { name, source: TacticSource::Kernels, kernels, params })
    }

    /// The depthwise kernel with `outputs` pixels a thread, or the direct one.
    fn kernel_tactic(&self, kind: i64, outputs: i64, fusion: &Fusion) -> Tactic {
        let (name, spec) = if kind == DEPTHWISE {
            let s = self.filter(self.spec("conv_depthwise.cu", false, fusion));
            (format!("conv_depthwise_x{outputs}"), s.define("THREADS", DEPTHWISE_THREADS).define("OUTPUTS", outputs))
        } else {
            let s = self.spec("conv_direct.cu", false, fusion);
            let (name, order) = match self.g.order {
                ChannelOrder::First => ("conv_direct", "ORDER_FIRST"),
                ChannelOrder::Last => ("conv_direct_nhwc", "ORDER_LAST"),
                ChannelOrder::FirstToLast => ("conv_direct_to_nhwc", "ORDER_FIRST_TO_LAST"),
            };
            (name.to_string(), s.define("THREADS", DIRECT_THREADS).define("ORDER", order))
        };
        let params = vec![kind, outputs, 0, 0, 0, 0, 0, 0];
        let name = format!("{name}{}", fusion.text());
        fusion.complete(Tactic { name, source: TacticSource::Kernels, kernels: vec![spec], params })
    }

    // ---- launches ---------------------------------------------------------------------------------------------

    fn program(&self, tactic: &Tactic) -> Result<StepProgram> {
        ensure!(!tactic.params.is_empty(), CorruptData, "tactic {} has no parameters", tactic.name);
        if tactic.params[0] == PRODUCT {
            ensure!(self.is_product(), Unsupported, "tactic {} takes filters of one element", tactic.name);
            let mut inner = tactic.clone();
            inner.params.remove(0);
            return self.as_product().program(&inner, &self.e, self.p, self.dev);
        }
        if tactic.params[0] == super::wgmma::KIND {
            return super::wgmma::program(self, tactic);
        }
        if super::nhwc::is_kind(tactic.params[0]) {
            return super::nhwc::program(self, tactic);
        }
        let parts = parts(tactic, N_PARAMS)?;
        let extra = match (&self.extra, parts.code) {
            (Some(x), 1) => x.clone(),
            (None, 1) => bail!(Unsupported, "tactic {} does not reach an operand at these shapes", tactic.name),
            _ => Vec::new(),
        };
        let mut step = StepProgram::default();
        let out = &self.p.outputs[0];
        let result = match &parts.after {
            Some(_) if out.dtype != self.dtype => {
                step.workspace = (out.numel() * self.dtype.size()).next_multiple_of(256);
                Arg::Work(0)
            }
            _ => Arg::Out(0),
        };
        match tactic.params[0] {
            MMA | SIMT => self.tiles(tactic, &parts, &extra, &result, &mut step)?,
            DEPTHWISE => self.depthwise(tactic, &extra, &result, &mut step)?,
            DIRECT => self.direct(&extra, &result, &mut step)?,
            k => bail!(CorruptData, "tactic {} is of unknown kind {k}", tactic.name),
        }
        if let Some(after) = &parts.after {
            self.e.append_after(&mut step, after, parts.n_kernels, &result, false, self.p, self.dev)?;
        }
        Ok(step)
    }

    pub(super) fn args(&self, y: &Arg, params: Arg, extra: &ExtraStrides) -> Vec<Arg> {
        let bias = if self.has_bias { Arg::In(2) } else { Arg::Null };
        let mut args = vec![Arg::In(0), Arg::In(1), bias, y.clone(), params];
        args.extend(self.e.args(extra));
        args
    }

    pub(super) fn planar(&self, tactic: &Tactic) -> Result<()> {
        ensure!(self.is_planar(), Unsupported, "sizes {:?} are beyond tactic {}", self.g.window.output, tactic.name);
        Ok(())
    }

    fn tiles(
        &self,
        tactic: &Tactic,
        parts: &Parts,
        extra: &ExtraStrides,
        result: &Arg,
        step: &mut StepProgram,
    ) -> Result<()> {
        self.planar(tactic)?;
        ensure!(self.g.order == ChannelOrder::First, Unsupported, "tactic {} has channels first", tactic.name);
        let v = &tactic.params;
        let t = tile(v[0], v[1], v[2], v[3], v[4], v[5], 1.0);
        let known = TILES.iter().any(|k| Tile { quality: 1.0, ..*k } == t);
        ensure!(known, CorruptData, "tactic {} has no tile that is known", tactic.name);
        ensure!(v[7] == 0 || crs(&self.g) % 8 == 0, Unsupported, "tactic {} needs rows of whole vectors", tactic.name);
        let split = v[6] != 0;
        let splits = if split { t.splits(&self.g, self.dtype, self.dev) } else { 1 };
        let [x, y, z] = t.grid(&self.g);
        ensure!(
            x <= self.dev.max_grid[0] as i64 && y <= MAX_GRID_YZ && z * splits <= MAX_GRID_YZ,
            Unsupported,
            "a convolution of {x} x {y} x {z} tiles is too large for one launch"
        );
        let part = Arg::Work(step.workspace);
        let args = if split {
            let mut args = self.args(&part, self.plane_params(), &Vec::new());
            args[2] = Arg::Null;
            args
        } else {
            self.args(result, self.plane_params(), extra)
        };
        step.ops.push(DeviceOp::Launch(Launch {
            kernel: 0,
            grid: [x as u32, y as u32, (z * splits) as u32],
            block: [t.threads() as u32, 1, 1],
            smem: t.smem() as u32,
            args,
        }));
        if split {
            let g = &self.g;
            let pixels = pixels(g) as usize;
            step.workspace += splits as usize * g.n * g.m * pixels * accumulator(self.dtype).size();
            let bias = if self.has_bias { Arg::In(2) } else { Arg::Null };
            let mut args = vec![part, bias, result.clone()];
            args.extend(self.e.args(extra));
            let launch = finish_launch(parts.last_kernel(tactic)?, [g.n, g.m, pixels, 1, 1], splits, args, self.dev)?;
            step.ops.push(DeviceOp::Launch(launch));
        }
        Ok(())
    }

    fn depthwise(&self, tactic: &Tactic, extra: &ExtraStrides, result: &Arg, step: &mut StepProgram) -> Result<()> {
        self.planar(tactic)?;
        ensure!(self.g.order == ChannelOrder::First, Unsupported, "tactic {} has channels first", tactic.name);
        let outputs = tactic.params[1];
        ensure!(matches!(outputs, 1 | 2 | 4 | 8), CorruptData, "tactic {} has no tile that is known", tactic.name);
        let (g, [_, h, w]) = (&self.g, self.g.window.output);
        let planes = g.n * g.m;
        let limit = MAX_GRID_YZ as usize;
        ensure!(planes <= limit * limit, Unsupported, "{planes} planes are too many for one launch");
        let items = h * w.div_ceil(outputs as usize);
        step.ops.push(DeviceOp::Launch(Launch {
            kernel: 0,
            grid: [
                items.div_ceil(DEPTHWISE_THREADS).max(1) as u32,
                planes.min(limit) as u32,
                planes.div_ceil(limit).max(1) as u32,
            ],
            block: [DEPTHWISE_THREADS as u32, 1, 1],
            smem: 0,
            args: self.args(result, self.plane_params(), extra),
        }));
        Ok(())
    }

    fn direct(&self, extra: &ExtraStrides, result: &Arg, step: &mut StepProgram) -> Result<()> {
        let g = &self.g;
        check_nd(g.n, g.m, &g.window)?;
        step.ops.push(DeviceOp::Launch(Launch {
            kernel: 0,
            grid: [striding_grid(self.p.outputs[0].numel(), DIRECT_THREADS, self.dev), 1, 1],
            block: [DIRECT_THREADS as u32, 1, 1],
            smem: 0,
            args: self.args(result, nd_params(g.n, g.c, g.m, g.group, &g.window), extra),
        }));
        Ok(())
    }

    /// ConvParams of `kernels/common/conv.cuh`.
    pub(super) fn plane_params(&self) -> Arg {
        let (g, w) = (&self.g, &self.g.window);
        let ([_, h, wd], [_, p, q], [_, r, s]) = (w.input, w.output, w.kernel);
        let cg = g.c / g.group;
        let sizes = [
            g.n, g.c, h, wd, g.m, p, q, r, s, g.group, w.stride[1], w.stride[2], w.pad_begin[1], w.pad_begin[2],
            w.dilation[1], w.dilation[2], cg, g.m / g.group, g.c * h * wd, g.m * p * q, p * q, cg * r * s,
        ];
        let magics = [p * q, q, r * s, s].into_iter().flat_map(|d| <[i32; 2]>::from(magic(d)));
        i32_struct(sizes.into_iter().map(|v| v as i32).chain(magics))
    }
}

const DEPTHWISE_THREADS: usize = 128;
