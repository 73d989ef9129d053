//! Device products: one description of a batched product with its epilogue, and every way to launch it.
//!
//! Used by `MatMul`, and by `Conv` for filters of one element. Ways: tensor-core tiles (`gemm_mma_sm80.cu`, and
//! `wgmma.rs` on Hopper), a kernel for few rows (`gemm_skinny_sm80.cu`), scalar tiles (`gemm_simt.cu`), cuBLASLt. A tile that needs aligned rows comes with its element-wise twin when shapes are dynamic.
//! Where the output has far fewer tiles than the chip has multiprocessors, k is split over blocks, with as many splits as
//! fill it; `split_finish.cu` adds the parts and applies bias and epilogue. Launches read concrete shapes only.

use crate::base::{DType, Result};
use crate::device::DeviceProps;
pub use super::split::{finish_launch, finish_spec};
use super::tiles::{GENERIC, LIBRARY, MMA, MMA_TILES, SIMT_TILES, SKINNY, SKINNY_TILES, Tile, WGMMA, WGMMA_TWIN, WGMMA_TWIN_F32, skinny_tiles};
use super::{sm90, wgmma};
use crate::ops::epilogue::cuda::{CudaEpilogue, ExtraStrides, Fusion, Parts, accumulator, parts};
use crate::ops::pointwise::Func;
use crate::ops::{
    Arg, DeviceOp, KernelSpec, Launch, LibraryGemm, Problem, StepProgram, Tactic, TacticOptions, TacticSource, i64_struct,
};
use crate::{bail, ensure, err};

/// `c[b,m,n] = epilogue(alpha * op(a) op(b) + bias)`, in the terms of `kernels/common/gemm.cuh`. C is dense.
#[derive(Clone, Debug)]
pub struct DeviceGemm {
    pub dtype: DType,
    pub m: i64,
    pub n: i64,
    pub k: i64,
    pub trans_a: bool,
    pub trans_b: bool,
    pub batch: [i64; 3],
    pub stride_a: [i64; 3],
    pub stride_b: [i64; 3],
    pub alpha: f32,
    pub a: Arg,
    pub b: Arg,
    pub bias: Option<Arg>,
    /// The bias has a number for each row instead of each column.
    pub bias_rows: bool,
    /// Operands of the epilogue by the coordinates (b0, b1, b2, m, n); `None`: these do not reach them.
    pub extra: Option<ExtraStrides>,
}

/// Own parameters of a tactic: algorithm, tile m, n, k, three more of the tile, split, aligned, twin; of the library relu,
/// rank and TF32.
const N_PARAMS: usize = 10;

impl DeviceGemm {
    /// All rows of both operands start at multiples of `v` elements.
    fn rows_aligned(&self, v: i64) -> bool {
        let (a_inner, b_inner) = (if self.trans_a { self.m } else { self.k }, if self.trans_b { self.k } else { self.n });
        let strides = (0..3).filter(|i| self.batch[*i] > 1).all(|i| self.stride_a[i] % v == 0 && self.stride_b[i] % v == 0);
        a_inner % v == 0 && b_inner % v == 0 && strides
    }

    /// Sizes that the kernels' 32-bit indices hold.
    fn fits(&self) -> bool {
        [self.m, self.n, self.k].iter().all(|v| *v < i32::MAX as i64 - 512)
    }

    fn lda(&self) -> i64 {
        if self.trans_a { self.m } else { self.k }
    }

    fn ldb(&self) -> i64 {
        if self.trans_b { self.k } else { self.n }
    }

    fn total(&self) -> i64 {
        self.batch.iter().product::<i64>() * self.m * self.n
    }

    /// Alignment in elements that the fast form of a tile needs.
    fn needed(&self, t: &Tile) -> i64 {
        if matches!(t.algo, MMA | SKINNY) { 8 } else { t.vector(self.dtype) }
    }

    // ---- enumeration ------------------------------------------------------------------------------------------

    /// Tactics, best guess first; the generic one last. Empty for types that no kernel takes.
    pub fn tactics(&self, e: &CudaEpilogue<'_>, p: &Problem, dev: &DeviceProps, opt: &TacticOptions) -> Vec<Tactic> {
        let typed = self.dtype.is_float() || matches!(self.dtype, DType::I32 | DType::U32 | DType::I64 | DType::U64);
        if !typed || !self.fits() {
            return Vec::new();
        }
        let mut own = Vec::new();
        if let Some(fusion) = e.plan(p, self.extra.is_some(), dev, opt) {
            let half = matches!(self.dtype, DType::F16 | DType::BF16);
            let table = if half && dev.sm >= 80 { MMA_TILES } else { SIMT_TILES };
            let mut tiles: Vec<Tile> = table
                .iter()
                .filter(|t| t.smem(self) <= dev.max_smem_per_block as i64)
                .filter(|t| t.algo == MMA || t.static_smem(self.dtype) <= 48 << 10)
                .copied()
                .collect();
            tiles.sort_by(|a, b| a.cost(self, dev).total_cmp(&b.cost(self, dev)));
            // With few tiles, larger tiles and split sums use the chip better than the smallest tiles.
            let split = tiles
                .iter()
                .filter(|t| self.dtype.is_float() && t.tiles(self) * 2 <= dev.n_sm as i64 && t.splits(self, dev) > 1)
                .min_by(|a, b| self.split_cost(a, dev).total_cmp(&self.split_cost(b, dev)))
                .copied();
            let first = tiles.first().copied();
            if let (Some(s), Some(t)) = (split, first) {
                if self.split_cost(&s, dev) * 1.5 < t.cost(self, dev) {
                    own.push(self.kernel_tactic(s, true, &fusion, p, opt));
                }
            }
            let form = wgmma::Form::of(self, e, &fusion, p, self.stored(&fusion, p));
            let mut hopper = wgmma::configs(self, &form, self.stored(&fusion, p), dev, opt);
            let mut few_rows = skinny_tiles(self, dev);
            if !hopper.is_empty() {
                // Tiles that Hopper has better ones for are worth a try where launching is what takes the time.
                own.clear();
                tiles.truncate(1);
            }
            if !few_rows.is_empty() && opt.level <= TacticOptions::DEFAULT_LEVEL {
                let (n_hopper, n_few) = if self.m <= 8 { (2, few_rows.len()) } else { (7, 2) };
                hopper.truncate(n_hopper);
                few_rows.truncate(n_few);
            }
            let hopper = hopper.iter().map(|c| self.wgmma_tactic(c, &form, &fusion, e, p, opt));
            own = hopper.chain(own).collect();
            let at = if self.m <= 8 { 0 } else { own.len().min(1) };
            own.splice(at..at, few_rows.into_iter().map(|t| self.kernel_tactic(t, false, &fusion, p, opt)));
            own.extend(tiles.iter().take(2).map(|t| self.kernel_tactic(*t, false, &fusion, p, opt)));
            own.push(self.kernel_tactic(GENERIC, false, &fusion, p, opt));
        }
        let library = if opt.cublaslt { self.library_tactics(e, p, dev, opt) } else { Vec::new() };
        // Large products are the library's ground where there are no tiles for the device; small ones gain from a fused
        // epilogue.
        let work = 2.0 * self.total() as f64 * self.k as f64;
        let at = if dev.sm == 90 { 4 } else if work > 1e9 { 0 } else { 1 };
        let rest = own.split_off(at.min(own.len().saturating_sub(1)));
        own.into_iter().chain(library).chain(rest).collect()
    }

    fn wgmma_tactic(
        &self,
        c: &sm90::Config,
        form: &wgmma::Form,
        fusion: &Fusion,
        e: &CudaEpilogue<'_>,
        p: &Problem,
        opt: &TacticOptions,
    ) -> Tactic {
        let n_extra = if matches!(fusion, Fusion::Inside(_)) { e.n_extra() } else { 0 };
        let mut kernels = vec![fusion.define(wgmma::spec(c, form, self, p, self.stored(fusion, p), e.first, n_extra))];
        if opt.dynamic {
            kernels.push(self.spec(&self.wgmma_twin(), false, false, fusion, p));
        }
        let [m, n, k, stages, flags] = c.params();
        let params = vec![WGMMA, m, n, k, stages, flags, form.param(), 0, 1, opt.dynamic as i64];
        let tf32 = if self.dtype == DType::F32 { "_tf32" } else { "" };
        let name = format!("gemm_wgmma_sm90_{}{tf32}{}", c.name(), fusion.text());
        fusion.complete(Tactic { name, source: TacticSource::Kernels, kernels, params })
    }

    fn wgmma_twin(&self) -> Tile {
        if self.dtype == DType::F32 { WGMMA_TWIN_F32 } else { WGMMA_TWIN }
    }

    fn split_cost(&self, t: &Tile, dev: &DeviceProps) -> f64 {
        let splits = t.splits(self, dev);
        let rounds = ((t.tiles(self) * splits) as f64 / dev.n_sm.max(1) as f64).ceil();
        rounds * (t.m * t.n) as f64 / t.quality / splits as f64
    }

    fn kernel_tactic(
        &self,
        t: Tile,
        split: bool,
        fusion: &Fusion,
        p: &Problem,
        opt: &TacticOptions,
    ) -> Tactic {
        let needed = self.needed(&t);
        let aligned = needed > 1 && self.rows_aligned(needed);
        let mut kernels = vec![self.spec(&t, aligned, split, fusion, p)];
        if aligned && opt.dynamic {
            kernels.push(self.spec(&t, false, split, fusion, p));
        }
        if split {
            kernels.push(self.finish_spec(fusion, p));
        }
        let form = if aligned { "" } else { "_elements" };
        let name = format!("{}{form}{}{}", t.name(), if split { "_split" } else { "" }, fusion.text());
        let params = vec![t.algo, t.m, t.n, t.k, t.x, t.y, t.z, split as i64, aligned as i64, opt.dynamic as i64];
        fusion.complete(Tactic { name, source: TacticSource::Kernels, kernels, params })
    }

    /// Type that a kernel stores when it is the last one before `fusion`'s pointwise kernel or the end.
    fn stored(&self, fusion: &Fusion, p: &Problem) -> DType {
        if matches!(fusion, Fusion::After(_)) { self.dtype } else { p.outputs[0].dtype }
    }

    fn spec(&self, t: &Tile, aligned: bool, split: bool, fusion: &Fusion, p: &Problem) -> KernelSpec {
        let has_bias = self.bias.is_some() && !split;
        let out = if split { accumulator(self.dtype) } else { self.stored(fusion, p) };
        let file = match t.algo {
            MMA => "gemm_mma_sm80.cu",
            SKINNY => "gemm_skinny_sm80.cu",
            _ => "gemm_simt.cu",
        };
        let mut s = KernelSpec::new(file)
            .define_type("T_IN", self.dtype)
            .define_type("T_OUT", out)
            .define_type("T_BIAS", self.dtype)
            .define("BLOCK_M", t.m)
            .define("BLOCK_N", t.n)
            .define("BLOCK_K", t.k)
            .define("TRANS_A", self.trans_a as i64)
            .define("TRANS_B", self.trans_b as i64)
            .define("HAS_BIAS", has_bias as i64)
            .define("BIAS_ROWS", self.bias_rows as i64);
        s = match t.algo {
            SKINNY => s
                .define("WARPS", t.x)
                .define("ALIGNED", aligned as i64)
                .define("CONST_B", matches!(&self.b, Arg::In(i) if p.known(*i).is_some()) as i64),
            MMA => s.define("WARPS_M", t.x).define("WARPS_N", t.y).define("STAGES", t.z).define("ALIGNED", aligned as i64),
            _ => s
                .define("THREAD_M", t.x)
                .define("THREAD_N", t.y)
                .define("VEC", if aligned { t.vector(self.dtype) } else { 1 }),
        };
        if split { s.define("EPILOGUE", 0) } else { fusion.define(s) }
    }

    fn finish_spec(&self, fusion: &Fusion, p: &Problem) -> KernelSpec {
        finish_spec(self.dtype, self.stored(fusion, p), self.bias.is_some(), if self.bias_rows { 3 } else { 4 }, fusion)
    }

    /// cuBLASLt: operands must be dense with one stride over the whole batch.
    fn library_tactics(
        &self,
        e: &CudaEpilogue<'_>,
        p: &Problem,
        dev: &DeviceProps,
        opt: &TacticOptions,
    ) -> Vec<Tactic> {
        let typed = matches!(self.dtype, DType::F32 | DType::F16 | DType::BF16);
        if !typed || self.k == 0 || self.batch[0] != 1 || self.batch[1] != 1 {
            return Vec::new();
        }
        let relu = e.program.is_some_and(|q| q.as_single() == Some(Func::Relu)) && !self.bias_after();
        let fusion = if relu { Some(Fusion::None) } else { e.after(p, self.bias_after(), dev, opt) };
        let Some(fusion) = fusion else { return Vec::new() };
        let tf32 = opt.tf32 && self.dtype == DType::F32;
        // The library need not have a second algorithm at every shape.
        (0..if opt.dynamic { 1 } else { 2 })
            .map(|rank| {
                let name = format!(
                    "cublaslt_{rank}{}{}{}",
                    if tf32 { "_tf32" } else { "" },
                    if relu { "_relu" } else { "" },
                    fusion.text()
                );
                let params = vec![LIBRARY, relu as i64, 0, 0, 0, 0, 0, 0, rank, tf32 as i64];
                fusion.complete(Tactic { name, source: TacticSource::CublasLt, kernels: vec![], params })
            })
            .collect()
    }

    /// The library adds a bias along n only.
    fn bias_after(&self) -> bool {
        self.bias.is_some() && self.bias_rows
    }

    // ---- launches ---------------------------------------------------------------------------------------------

    /// What a tactic of [`DeviceGemm::tactics`] launches for this product.
    pub fn program(&self, tactic: &Tactic, e: &CudaEpilogue<'_>, p: &Problem, dev: &DeviceProps) -> Result<StepProgram> {
        let parts = parts(tactic, N_PARAMS)?;
        ensure!(self.fits(), Unsupported, "a product of {} x {} x {} is too large for its kernels", self.m, self.n, self.k);
        let out = &p.outputs[0];
        let mut step = StepProgram::default();
        // A pointwise kernel that follows may work in place unless it changes the size of an element.
        let result = match &parts.after {
            Some(_) if out.dtype != self.dtype => {
                step.workspace = (self.total() as usize * self.dtype.size()).next_multiple_of(256);
                Arg::Work(0)
            }
            _ => Arg::Out(0),
        };
        let is_library = tactic.params[0] == LIBRARY;
        if is_library {
            self.library(tactic, &result, &mut step)?;
        } else {
            let stored = if parts.after.is_some() { self.dtype } else { out.dtype };
            self.kernels(tactic, &parts, e, p, &result, stored, &mut step, dev)?;
        }
        if let Some(after) = &parts.after {
            let with_bias = is_library && self.bias_after();
            e.append_after(&mut step, after, parts.n_kernels, &result, with_bias, p, dev)?;
        }
        Ok(step)
    }

    fn library(&self, tactic: &Tactic, result: &Arg, step: &mut StepProgram) -> Result<()> {
        ensure!(
            self.batch[0] == 1 && self.batch[1] == 1,
            Unsupported,
            "cuBLASLt takes one stride over the batch {:?}",
            self.batch
        );
        if self.k == 0 && self.bias.is_none() {
            // The library refuses an empty sum; zero bytes are zero in every type that it is offered for.
            let bytes = self.total() as usize * self.dtype.size();
            step.ops.push(DeviceOp::Fill { dst: result.clone(), value: 0, bytes });
            return Ok(());
        }
        ensure!(self.k > 0, Unsupported, "cuBLASLt takes no product with a bias over an empty sum (k = 0)");
        step.ops.push(DeviceOp::Gemm(LibraryGemm {
            batch: self.batch[2],
            m: self.m,
            n: self.n,
            k: self.k,
            trans_a: self.trans_a,
            trans_b: self.trans_b,
            stride_a: self.stride_a[2],
            stride_b: self.stride_b[2],
            stride_d: self.m * self.n,
            dtype: self.dtype,
            alpha: self.alpha,
            a: self.a.clone(),
            b: self.b.clone(),
            d: result.clone(),
            bias: self.bias.clone().filter(|_| !self.bias_rows),
            relu: tactic.params[1] != 0,
            tf32: tactic.params[9] != 0,
            algo_rank: tactic.params[8],
        }));
        Ok(())
    }

    fn kernels(
        &self,
        tactic: &Tactic,
        parts: &Parts,
        e: &CudaEpilogue<'_>,
        p: &Problem,
        result: &Arg,
        stored: DType,
        step: &mut StepProgram,
        dev: &DeviceProps,
    ) -> Result<()> {
        let v = &tactic.params;
        let mut t = Tile { algo: v[0], m: v[1], n: v[2], k: v[3], x: v[4], y: v[5], z: v[6], quality: 1.0 };
        let mut aligned_rows = true;
        if t.algo == WGMMA {
            let bad = || err!(CorruptData, "tactic {} has no tile that is known", tactic.name);
            let c = sm90::Config::of_params(&v[1..6]).ok_or_else(bad)?;
            let form = wgmma::Form::of_param(v[6]).ok_or_else(bad)?;
            if wgmma::takes(self, stored, dev) && c.takes(self.trans_b) && form.serves(self, parts.code == 1, e, p, stored) {
                let extra = self.extra.clone().filter(|_| parts.code == 1).unwrap_or_default();
                let launch = wgmma::launch(&c, &form, self, stored, result, e.args(&extra), dev)?;
                step.ops.push(DeviceOp::Launch(launch));
                return Ok(());
            }
            (t, aligned_rows) = (Tile { quality: 1.0, ..self.wgmma_twin() }, false);
        }
        let known = MMA_TILES.iter().chain(SIMT_TILES).chain(SKINNY_TILES).chain([&GENERIC]).any(|k| Tile { quality: 1.0, ..*k } == t);
        let known = known && (t.algo != SKINNY || !self.trans_a);
        ensure!(known, CorruptData, "tactic {} has no tile that is known", tactic.name);
        let (split, aligned, twin) = (v[7] != 0, v[8] != 0, v[9] != 0);
        let kernel = match (aligned, aligned_rows && self.rows_aligned(self.needed(&t)), twin) {
            (false, _, _) | (true, true, _) => 0,
            (true, false, true) => 1,
            (true, false, false) => bail!(Unsupported, "tactic {} needs rows of whole vectors", tactic.name),
        };
        let extra = match (&self.extra, parts.code) {
            (Some(x), 1) => x.clone(),
            (None, 1) => bail!(Unsupported, "tactic {} does not reach an operand at these shapes", tactic.name),
            _ => Vec::new(),
        };
        let splits = if split { t.splits(self, dev) } else { 1 };
        let grid = t.tiles(self);
        ensure!(grid <= dev.max_grid[0] as i64, Unsupported, "a product of {grid} tiles is too large for one launch");
        let bias = self.bias.clone().unwrap_or(Arg::Null);
        let none = CudaEpilogue { program: None, first: e.first, bias_dims: &[] };
        let part = Arg::Work(step.workspace);
        let mut args = vec![
            self.a.clone(),
            self.b.clone(),
            if split { Arg::Null } else { bias.clone() },
            if split { part.clone() } else { result.clone() },
            self.params(),
            Arg::F32(self.alpha),
        ];
        args.extend(if split { none.args(&[]) } else { e.args(&extra) });
        step.ops.push(DeviceOp::Launch(Launch {
            kernel,
            grid: [grid as u32, splits as u32, 1],
            block: [t.threads() as u32, 1, 1],
            smem: t.smem(self) as u32,
            args,
        }));
        if split {
            step.workspace += (splits * self.total()) as usize * accumulator(self.dtype).size();
            let shape = [self.batch[0], self.batch[1], self.batch[2], self.m, self.n].map(|v| v as usize);
            let mut args = vec![part, bias, result.clone()];
            args.extend(e.args(&extra));
            let launch = finish_launch(parts.last_kernel(tactic)?, shape, splits, args, dev)?;
            step.ops.push(DeviceOp::Launch(launch));
        }
        Ok(())
    }

    /// GemmParams.
    fn params(&self) -> Arg {
        let c = self.m * self.n;
        let stride_c = [self.batch[1] * self.batch[2] * c, self.batch[2] * c, c];
        let head = [self.m, self.n, self.k, self.lda(), self.ldb(), self.n];
        i64_struct(head.into_iter().chain(self.batch).chain(self.stride_a).chain(self.stride_b).chain(stride_c))
    }
}
