//! Products by `gemm_wgmma_sm90.cu`: Hopper's tensor cores, fed by tensor maps.
//!
//! For f16 and bf16, and f32 as TF32 where that is allowed, if all rows are whole 16-byte pieces. Edges need no care, so
//! one kernel serves every size. Where shapes may change after the build, the tactic carries a second kernel for those that
//! tensor maps, or the way in which the epilogue's operands are read, cannot say.

use super::gemm::DeviceGemm;
use super::sm90::{Config, GROUP_M, MAX_TILES, Sizes, ranked};
use crate::base::{DType, Result};
use crate::device::DeviceProps;
use crate::ensure;
use crate::ops::epilogue::cuda::{CudaEpilogue, Fusion};
use crate::ops::tactic::{Swizzle, TensorMap};
use crate::ops::{Arg, KernelSpec, Launch, Problem, TacticOptions, i32_struct};

/// How an operand of the epilogue is read, as `kernels/common/sm90_finish.cuh` numbers it.
const ANYWHERE: i64 = 0;
const RESIDUAL: i64 = 1;
const ROW: i64 = 2;
/// Operands of an epilogue; two bits each in a tactic's parameter.
const MAX_EXTRA: usize = 4;

/// What a kernel is compiled for, beside its tile.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Form {
    /// How each operand of the epilogue is read.
    kinds: [i64; MAX_EXTRA],
    /// The product has a batch that is not a part of the rows.
    batched: bool,
}

impl Form {
    /// The best form for these shapes.
    pub fn of(g: &DeviceGemm, e: &CudaEpilogue<'_>, fusion: &Fusion, p: &Problem, out: DType) -> Form {
        let mut form = Form { kinds: [ANYWHERE; MAX_EXTRA], batched: g.batch != [1; 3] };
        let Some(extra) = g.extra.as_ref().filter(|_| matches!(fusion, Fusion::Inside(_))) else { return form };
        for (j, strides) in extra.iter().enumerate().take(MAX_EXTRA) {
            let Some(dtype) = p.input(e.first + j).map(|d| d.dtype) else { continue };
            let free = !form.kinds.contains(&RESIDUAL);
            form.kinds[j] = match () {
                _ if g.m > 1 && free && dtype == out && fits(RESIDUAL, strides, g) => RESIDUAL,
                _ if fits(ROW, strides, g) => ROW,
                _ => ANYWHERE,
            };
        }
        form
    }

    fn residual(&self) -> Option<usize> {
        self.kinds.iter().position(|k| *k == RESIDUAL)
    }

    /// A number that a tactic stores.
    pub fn param(&self) -> i64 {
        self.kinds.iter().rev().fold(self.batched as i64, |all, k| all << 2 | k)
    }

    /// The form of [`Self::param`].
    pub fn of_param(v: i64) -> Option<Form> {
        let mut kinds = [0; MAX_EXTRA];
        kinds.iter_mut().enumerate().for_each(|(j, k)| *k = v >> (2 * j) & 3);
        let form = Form { kinds, batched: v >> (2 * MAX_EXTRA) & 1 == 1 };
        let known = kinds.iter().all(|k| *k <= ROW) && kinds.iter().filter(|k| **k == RESIDUAL).count() <= 1;
        (known && form.param() == v).then_some(form)
    }

    /// Whether the kernel computes the product at these shapes. `inside`: its epilogue reads operands.
    pub fn serves(&self, g: &DeviceGemm, inside: bool, e: &CudaEpilogue<'_>, p: &Problem, out: DType) -> bool {
        if !self.batched && g.batch != [1; 3] {
            return false;
        }
        let Some(extra) = g.extra.as_ref() else { return !inside };
        !inside
            || extra.len() <= MAX_EXTRA
                && extra.iter().zip(self.kinds).enumerate().all(|(j, (strides, kind))| {
                    fits(kind, strides, g) && (kind != RESIDUAL || p.input(e.first + j).is_some_and(|d| d.dtype == out))
                })
    }
}

/// Whether an operand with these strides along (b0, b1, b2, m, n) may be read as `kind`.
fn fits(kind: i64, strides: &[i64; 5], g: &DeviceGemm) -> bool {
    let sizes = [g.batch[0], g.batch[1], g.batch[2], g.m, g.n];
    let c = g.m.saturating_mul(g.n);
    let want = match kind {
        RESIDUAL => [c.saturating_mul(g.batch[1]).saturating_mul(g.batch[2]), c.saturating_mul(g.batch[2]), c, g.n, 1],
        ROW => [0, 0, 0, 0, 1],
        _ => return true,
    };
    (0..5).all(|d| sizes[d] == 1 || strides[d] == want[d])
}

/// Matrices of an operand between neighbours of each batch dimension, and how many it has; `None` where they do not lie
/// one behind the other.
fn matrices(g: &DeviceGemm, strides: [i64; 3], each: i64) -> Option<([i64; 3], i64)> {
    let mut steps = [0; 3];
    let mut count = 1i64;
    for i in (0..3).filter(|i| g.batch[*i] > 1) {
        if strides[i] < 0 || each <= 0 || strides[i] % each != 0 {
            return None;
        }
        steps[i] = strides[i] / each;
        count = count.checked_add((g.batch[i] - 1).checked_mul(steps[i])?)?;
    }
    (count <= i32::MAX as i64).then_some((steps, count))
}

fn batch(g: &DeviceGemm) -> i64 {
    g.batch.iter().fold(1i64, |n, b| n.saturating_mul(*b))
}

fn sizes(g: &DeviceGemm, out: DType, residual: bool) -> Sizes {
    let size = g.dtype.size() as i64;
    let outputs = if residual { 2.0 } else { 1.0 } * out.size() as f64;
    let (m, n, k, z) = (g.m as f64, g.n as f64, g.k as f64, batch(g) as f64);
    let bytes = z * ((m * k + n * k) * size as f64 + m * n * outputs);
    Sizes { m: g.m, n: g.n, steps: (g.k * size + 127) / 128, batch: batch(g), bytes, residual }
}

/// Whether the kernel takes this product, whatever the tile.
pub(super) fn takes(g: &DeviceGemm, out: DType, dev: &DeviceProps) -> bool {
    let typed = match g.dtype {
        DType::F16 | DType::BF16 => matches!(out, DType::F16 | DType::BF16 | DType::F32),
        DType::F32 => !g.trans_a && g.trans_b && matches!(out, DType::F16 | DType::BF16 | DType::F32),
        _ => false,
    };
    let piece = |elements: i64, d: DType| elements % (16 / d.size() as i64) == 0;
    let (a, b) = (if g.trans_a { g.m } else { g.k }, if g.trans_b { g.k } else { g.n });
    dev.sm == 90
        && typed
        && g.k > 0
        && batch(g) <= i32::MAX as i64
        && piece(a, g.dtype)
        && piece(b, g.dtype)
        && piece(g.n, out)
        && matrices(g, g.stride_a, g.m * g.k).is_some()
        && matrices(g, g.stride_b, g.n * g.k).is_some()
}

/// Tiles to offer, best guess first.
pub(super) fn configs(g: &DeviceGemm, form: &Form, out: DType, dev: &DeviceProps, opt: &TacticOptions) -> Vec<Config> {
    if !takes(g, out, dev) || (g.dtype == DType::F32 && !opt.tf32) {
        return Vec::new();
    }
    let fits = |c: &Config| c.takes(g.trans_b) && c.smem(out) <= dev.max_smem_per_block as i64;
    ranked(&sizes(g, out, form.residual().is_some()), fits, dev, opt)
}

/// The kernel without its epilogue.
pub(super) fn spec(
    c: &Config,
    form: &Form,
    g: &DeviceGemm,
    p: &Problem,
    out: DType,
    first_extra: usize,
    n_extra: usize,
) -> KernelSpec {
    let is_constant = |a: &Arg| matches!(a, Arg::In(i) if p.known(*i).is_some());
    // Constants start at multiples of 256 bytes; what an application binds need not.
    let row = |j: usize| form.kinds[j] == ROW && !is_constant(&Arg::In(first_extra + j));
    let pairs = g.bias.as_ref().is_none_or(is_constant) && !(0..n_extra.min(MAX_EXTRA)).any(row);
    let mut s = c
        .define(KernelSpec::new("gemm_wgmma_sm90.cu"), g.dtype, out)
        .define_type("T_BIAS", g.dtype)
        .define("TRANS_A", g.trans_a as i64)
        .define("TRANS_B", g.trans_b as i64)
        .define("BATCHED", form.batched as i64)
        .define("CONST_A", is_constant(&g.a) as i64)
        .define("CONST_B", is_constant(&g.b) as i64)
        .define("HAS_BIAS", g.bias.is_some() as i64)
        .define("BIAS_ROWS", g.bias_rows as i64)
        .define("RESIDUAL", form.residual().is_some() as i64)
        .define("PAIRS", pairs as i64);
    for (j, kind) in form.kinds.iter().enumerate().take(n_extra) {
        s = s.define(&format!("EXTRA_KIND{j}"), kind);
    }
    s
}

/// The launch of kernel 0 for a product that it [`takes`] and whose form [`Form::serves`] it; `epilogue` are the last five
/// arguments.
pub(super) fn launch(
    c: &Config,
    form: &Form,
    g: &DeviceGemm,
    out: DType,
    result: &Arg,
    epilogue: Vec<Arg>,
    dev: &DeviceProps,
) -> Result<Launch> {
    let sizes = sizes(g, out, false);
    let (tiles_m, tiles_n) = c.tiles(&sizes);
    let tiles = tiles_m.saturating_mul(tiles_n).saturating_mul(sizes.batch);
    ensure!((1..=MAX_TILES).contains(&tiles), Unsupported, "a product of {tiles} tiles is too large for one launch");
    let (steps_a, count_a) = matrices(g, g.stride_a, g.m * g.k).unwrap_or(([0; 3], 1));
    let (steps_b, count_b) = matrices(g, g.stride_b, g.n * g.k).unwrap_or(([0; 3], 1));
    // A box of `tile` rows and columns of `count` matrices.
    let map = |base: &Arg, dtype: DType, [rows, columns]: [i64; 2], count: i64, tile: [i64; 2], swizzle| {
        let size = dtype.size() as u64;
        let (rows, columns) = (rows as u64, columns as u64);
        let mut map = TensorMap {
            base: base.clone(),
            dtype,
            dims: vec![columns, rows],
            strides_bytes: vec![columns * size],
            tile: vec![tile[1] as u32, tile[0] as u32],
            swizzle,
            im2col: None,
        };
        if form.batched {
            map.dims.push(count as u64);
            map.strides_bytes.push(columns * rows * size);
            map.tile.push(1);
        }
        Arg::TensorMap(Box::new(map))
    };
    let wide = Swizzle::Bytes128;
    let k_block = 128 / g.dtype.size() as i64;
    let a = match g.trans_a {
        false => map(&g.a, g.dtype, [g.m, g.k], count_a, [c.m, k_block], wide),
        true => map(&g.a, g.dtype, [g.k, g.m], count_a, [64, 64], wide),
    };
    let b = match g.trans_b {
        true => map(&g.b, g.dtype, [g.n, g.k], count_b, [c.n / c.cluster, k_block], wide),
        false => map(&g.b, g.dtype, [g.k, g.n], count_b, [64 / c.cluster, 64], wide),
    };
    let (row_bytes, columns) = c.stored_block(out);
    let swizzle = if row_bytes == 128 { wide } else { Swizzle::Bytes64 };
    let stored = |base: &Arg| map(base, out, [g.m, g.n], sizes.batch, [64, columns], swizzle);
    let residual = form.residual().map_or(result, |j| &epilogue[j]);
    let head = [g.m, g.n, (sizes.steps + c.k - 1) / c.k, tiles_m, tiles_n, GROUP_M];
    let params = head.into_iter().chain(g.batch).chain(steps_a).chain(steps_b);
    let mut args = vec![
        a,
        b,
        stored(result),
        stored(residual),
        g.bias.clone().unwrap_or(Arg::Null),
        result.clone(),
        i32_struct(params.map(|v| v as i32)),
        Arg::F32(g.alpha),
    ];
    args.extend(epilogue);
    let grid = c.grid(&sizes, dev);
    Ok(Launch { kernel: 0, grid: [grid as u32, 1, 1], block: [c.threads() as u32, 1, 1], smem: c.smem(out) as u32, args })
}

#[cfg(test)]
mod tests {
    use super::super::sm90;
    use super::*;
    use crate::device::cuda::{kernel_cache, nvrtc};

    fn product(m: i64, n: i64, k: i64, dtype: DType, trans_b: bool) -> DeviceGemm {
        DeviceGemm {
            dtype,
            m,
            n,
            k,
            trans_a: false,
            trans_b,
            batch: [1; 3],
            stride_a: [0; 3],
            stride_b: [0; 3],
            alpha: 1.0,
            a: Arg::In(0),
            b: Arg::In(1),
            bias: Some(Arg::In(2)),
            bias_rows: false,
            extra: None,
        }
    }

    const PLAIN: Form = Form { kinds: [0; MAX_EXTRA], batched: false };

    #[test]
    fn forms_are_numbers() {
        for kinds in [[0, 0, 0, 0], [1, 0, 2, 0], [0, 2, 2, 1]] {
            for batched in [false, true] {
                let form = Form { kinds, batched };
                assert_eq!(Form::of_param(form.param()), Some(form));
            }
        }
        for v in [-1, 3, 5, 1 << 9, 1 << 40] {
            assert_eq!(Form::of_param(v), None, "{v}");
        }
    }

    #[test]
    fn operands_of_epilogues_are_told_apart() {
        let g = DeviceGemm { batch: [1, 1, 4], ..product(16, 24, 64, DType::F16, true) };
        let dense = [0, 0, 16 * 24, 24, 1];
        assert!(fits(RESIDUAL, &dense, &g) && !fits(ROW, &dense, &g));
        let row = [0, 0, 0, 0, 1];
        assert!(fits(ROW, &row, &g) && !fits(RESIDUAL, &row, &g));
        assert!(!fits(RESIDUAL, &[0, 0, 0, 24, 1], &g), "the same matrix for the whole batch");
        assert!(!fits(ROW, &[0, 0, 0, 1, 0], &g), "a column");
    }

    #[test]
    fn matrices_of_a_batch_lie_one_behind_the_other() {
        let g = DeviceGemm { batch: [2, 3, 4], ..product(16, 24, 64, DType::F16, true) };
        assert_eq!(matrices(&g, [12 * 100, 4 * 100, 100], 100), Some(([12, 4, 1], 24)));
        assert_eq!(matrices(&g, [0, 100, 0], 100), Some(([0, 1, 0], 3)));
        assert_eq!(matrices(&g, [0, 150, 0], 100), None);
    }

    /// Needs NVRTC, no GPU.
    #[test]
    fn every_tile_compiles() {
        if let Err(e) = nvrtc::is_present() {
            return eprintln!("SKIPPED: Hopper products are not compiled: {e}");
        }
        let p = Problem { inputs: vec![], outputs: vec![], known: vec![] };
        let mut specs = Vec::new();
        for (i, c) in sm90::configs().iter().enumerate() {
            let (dtype, out) = [(DType::F16, DType::F16), (DType::BF16, DType::F32), (DType::F32, DType::F32)][i % 3];
            let trans_b = dtype == DType::F32 || i % 2 == 0 || !c.takes(false);
            let mut g = product(64, 64, 64, dtype, trans_b);
            g.trans_a = dtype != DType::F32 && i % 5 == 0;
            let form = Form { batched: i % 4 == 0, ..PLAIN };
            specs.push(spec(c, &form, &g, &p, out, 3, 0).define("EPILOGUE", 0));
        }
        for (spec, r) in specs.iter().zip(kernel_cache::compile_each(&specs, "sm_90a", 2)) {
            assert!(r.is_ok(), "{spec:?}: {}", r.err().map(|e| e.to_string()).unwrap_or_default());
        }
    }
}
