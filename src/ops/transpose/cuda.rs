//! CUDA tactics of copies through strides (`strided_copy.cu`), and the argument forms that movers share.
//!
//! Movers know element sizes, not types: one kernel serves f32, i32 and u32. With fixed shapes the unit of a thread is
//! the widest that divides every run; addresses are aligned to 16 bytes (the context refuses others).

use super::strided::View;
use super::tiles;
use crate::base::Result;
use crate::device::DeviceProps;
use crate::ops::{
    Arg, KernelSpec, Launch, StepProgram, Tactic, TacticOptions, TacticSource, blocks, i32_struct, i64_struct,
};
use crate::{ensure, err};

/// Threads of a block of every mover.
pub const THREADS: usize = 256;
/// Axes that kernels walk.
pub const MAX_RANK: usize = 8;
/// Flat indices from here on need 64-bit division.
const INDEX32_LIMIT: usize = 1 << 31;

/// Name of an unsigned unit of this many bytes in `kernels/common/types.cuh`.
pub fn unit(bytes: usize) -> &'static str {
    match bytes {
        1 => "u8",
        2 => "u16",
        4 => "u32",
        8 => "u64",
        _ => "uint4",
    }
}

/// The widest unit in bytes, at most 16, that divides all of these byte counts.
pub fn widest(counts: impl IntoIterator<Item = usize>) -> usize {
    counts.into_iter().fold(16, |w, n| if n == 0 { w } else { w.min(1 << n.trailing_zeros().min(4)) })
}

/// The by-value `Shape` of `common/index.cuh`: sizes and the numbers that divide by them, filled up at the front with 1.
pub fn shape_arg(dims: &[usize], rank: usize) -> Arg {
    let mut words = [0i32; 3 * MAX_RANK];
    for (d, size) in filled(dims, rank, 1).into_iter().enumerate() {
        let n = (size as u64).max(1);
        let shift = 64 - (n - 1).leading_zeros().min(64);
        let magic = ((1u128 << 32) * ((1u128 << shift) - n as u128) / n as u128 + 1) as u32;
        words[d] = size as i32;
        words[MAX_RANK + d] = magic as i32;
        words[2 * MAX_RANK + d] = shift as i32;
    }
    i32_struct(words)
}

/// The by-value `Strides` of `common/index.cuh`.
pub fn strides_arg(strides: &[i64], rank: usize) -> Arg {
    let mut words = [0i64; MAX_RANK];
    words[..rank].copy_from_slice(&filled(strides, rank, 0));
    i64_struct(words)
}

/// `values` with `fill` in front, `rank` in all.
pub fn filled<T: Copy>(values: &[T], rank: usize, fill: T) -> Vec<T> {
    let mut v = vec![fill; rank - values.len()];
    v.extend_from_slice(values);
    v
}

/// A grid for kernels that stride over `n` elements.
pub fn grid_1d(n: usize, per_block: usize, dev: &DeviceProps) -> [u32; 3] {
    [blocks(n, per_block).min(dev.n_sm.max(1) * 32), 1, 1]
}

/// 1 where flat indices of `n` elements, or of other shapes of the same node, may leave 31 bits.
pub fn index64(n: usize, opt: &TacticOptions) -> i64 {
    (n >= if opt.dynamic { INDEX32_LIMIT / 4 } else { INDEX32_LIMIT }) as i64
}

/// Fails when a kernel with 32-bit indices meets more elements than it was chosen for.
pub fn check_index(n: usize, index64: i64) -> Result<()> {
    ensure!(
        index64 == 1 || n < INDEX32_LIMIT,
        Unsupported,
        "{n} elements are more than this engine's kernel counts: build with a profile whose optimum is nearer to them"
    );
    Ok(())
}

const FLAT: i64 = 0;
const TRANSPOSE: i64 = 1;

/// The view in wider units, where the innermost run and all steps allow it, and the bytes of a unit.
fn widened(v: &View, size: usize) -> (View, usize) {
    let (Some((last, outer)), Some(1)) = (v.strides.split_last().map(|(_, o)| (v.dims[o.len()], o)), v.strides.last())
    else {
        return (v.clone(), size);
    };
    let bytes = |n: usize| n * size;
    let steps = outer.iter().map(|s| bytes(s.unsigned_abs() as usize));
    let unit = widest(steps.chain([bytes(last), bytes(v.offset.unsigned_abs() as usize)]));
    let k = unit / size;
    if k <= 1 {
        return (v.clone(), size);
    }
    let mut w = View { offset: v.offset / k as i64, ..v.clone() };
    let n = w.dims.len();
    w.dims[n - 1] /= k;
    w.strides[..n - 1].iter_mut().for_each(|s| *s /= k as i64);
    (w.collapsed(), unit)
}

fn tactic(unit_bytes: usize, mode: i64, rank: usize, index64: i64) -> Tactic {
    let kernel = KernelSpec::new("strided_copy.cu")
        .define("T_UNIT", unit(unit_bytes))
        .define("MODE", mode)
        .define("RANK", rank)
        .define("THREADS", THREADS)
        .define("INDEX64", index64);
    let name = ["flat", "transpose"][mode as usize];
    Tactic {
        name: format!("strided_copy/{name}_{}b_rank{rank}_index{}", 8 * unit_bytes, if index64 == 1 { 64 } else { 32 }),
        source: TacticSource::Kernels,
        kernels: vec![kernel],
        params: vec![unit_bytes as i64, mode, rank as i64, index64],
    }
}

/// The copy kernel that walks up to `rank` axes element by element, whatever the view.
pub fn flat(unit_bytes: usize, rank: usize, index64: i64) -> Tactic {
    tactic(unit_bytes, FLAT, rank, index64)
}

/// Ways to copy `view`, given for the optimal shape, between elements of `size` bytes.
pub fn tactics(view: &View, size: usize, opt: &TacticOptions) -> Vec<Tactic> {
    let n = view.numel();
    if opt.dynamic {
        // Other shapes may merge fewer axes and divide by less.
        let rank = view.dims.len().clamp(1, MAX_RANK);
        return vec![tactic(size, FLAT, rank, index64(n, opt))];
    }
    let (v, unit_bytes) = widened(&view.collapsed(), size);
    if v.dims.len() > MAX_RANK {
        return vec![];
    }
    let i64 = index64(n, opt);
    let mut out = vec![tactic(unit_bytes, FLAT, v.dims.len(), i64)];
    let rank = v.dims.len();
    if rank >= 2 && v.strides[rank - 1] != 1 && v.strides[rank - 2] == 1 && v.dims[rank - 2].div_ceil(32) <= 65_535 {
        let transpose = tactic(unit_bytes, TRANSPOSE, rank, i64);
        let at = if v.dims[rank - 1] >= 8 && v.dims[rank - 2] >= 8 { 0 } else { 1 };
        out.insert(at, transpose);
    }
    if unit_bytes == size {
        if let Some(t) = tiles::tactic(view, size) {
            out.insert(0, t);
        }
    }
    out
}

/// The launch of one of [`tactics`] for a view at concrete shapes.
pub fn program(tactic: &Tactic, view: &View, size: usize, dev: &DeviceProps) -> Result<StepProgram> {
    if tiles::is_tiled(tactic) {
        return tiles::program(tactic, view, size, dev);
    }
    let [unit_bytes, mode, rank, index64] = tactic.params[..] else {
        return Err(err!(CorruptData, "tactic {} has {} parameters instead of 4", tactic.name, tactic.params.len()));
    };
    let (unit_bytes, rank) = (unit_bytes as usize, rank as usize);
    let mut v = view.collapsed();
    if unit_bytes != size {
        let (wide, bytes) = widened(&v, size);
        ensure!(bytes == unit_bytes, InvalidState, "tactic {} does not fit the view {view:?}", tactic.name);
        v = wide;
    }
    let n = v.numel();
    if n == 0 {
        return Ok(StepProgram::default());
    }
    check_index(n, index64)?;
    ensure!(
        (1..=MAX_RANK).contains(&rank) && v.dims.len() <= rank,
        Unsupported,
        "a copy over {} axes that do not merge; {} walks {rank}",
        v.dims.len(),
        tactic.name
    );
    let grid = match mode {
        TRANSPOSE => {
            let k = v.dims.len();
            ensure!(k >= 2 && v.dims[k - 2].div_ceil(32) <= 65_535, InvalidState, "{} needs two axes", tactic.name);
            let outer: usize = v.dims[..k - 2].iter().product();
            [blocks(v.dims[k - 1], 32), blocks(v.dims[k - 2], 32), outer.clamp(1, 65_535) as u32]
        }
        _ => grid_1d(n, THREADS, dev),
    };
    Ok(StepProgram::one(Launch {
        kernel: 0,
        grid,
        block: [THREADS as u32, 1, 1],
        smem: 0,
        args: vec![
            Arg::In(0),
            Arg::Out(0),
            shape_arg(&v.dims, rank),
            strides_arg(&v.strides, rank),
            Arg::I64(v.offset),
        ],
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(arg: Arg) -> Vec<i32> {
        let Arg::Bytes(b) = arg else { panic!("a struct") };
        b.chunks_exact(4).map(|c| i32::from_ne_bytes([c[0], c[1], c[2], c[3]])).collect()
    }

    #[test]
    fn the_magic_numbers_divide() {
        for d in [1usize, 2, 3, 5, 7, 10, 31, 32, 33, 641, 65_535, 65_536, 1_000_003, (1 << 31) - 1] {
            let w = words(shape_arg(&[d], 1));
            let (magic, shift) = (w[8] as u32 as u64, w[16] as u32);
            for n in [0u64, 1, d as u64 - 1, d as u64, d as u64 + 1, 12345, 999_999_937, (1 << 31) - 1] {
                let n = n.min((1 << 31) - 1);
                let q = (((n * magic) >> 32) + n) as u32 >> shift;
                assert_eq!(q as u64, n / d as u64, "{n} / {d}");
            }
        }
    }

    #[test]
    fn units_widen_only_where_everything_divides() {
        let v = View { dims: vec![3, 8], strides: vec![16, 1], offset: 4 };
        let (w, bytes) = widened(&v, 2);
        assert_eq!((w.dims, w.strides, w.offset, bytes), (vec![3, 2], vec![4, 1], 1, 8));
        let odd = View { dims: vec![3, 7], strides: vec![16, 1], offset: 0 };
        assert_eq!(widened(&odd, 4), (odd.clone(), 4));
        let flip = View { dims: vec![4], strides: vec![-1], offset: 3 };
        assert_eq!(widened(&flip, 4).1, 4);
    }

    #[test]
    fn a_transpose_uses_tiles_and_a_slice_does_not() {
        let dev = DeviceProps::example_h200();
        let opt = TacticOptions::default();
        let nhwc = View::dense(&[2, 64, 30, 30]).permuted(&[0, 2, 3, 1]);
        let t = tactics(&nhwc, 2, &opt);
        assert_eq!(t[0].name, "transpose_tiles_16b");
        assert_eq!(t[1].name, "strided_copy/transpose_16b_rank3_index32");
        let p = program(&t[1], &nhwc, 2, &dev).unwrap();
        let crate::ops::DeviceOp::Launch(l) = &p.ops[0] else { panic!("a launch") };
        assert_eq!(l.grid, [2, 29, 2]);
        let cut = View { dims: vec![4, 16], strides: vec![32, 1], offset: 16 };
        assert_eq!(tactics(&cut, 4, &opt)[0].name, "strided_copy/flat_128b_rank2_index32");
    }

    #[test]
    fn dynamic_shapes_take_any_merge() {
        let opt = TacticOptions { dynamic: true, ..TacticOptions::default() };
        let view = View::dense(&[1, 12, 64, 7]).permuted(&[0, 2, 1, 3]);
        let t = tactics(&view, 4, &opt);
        for dims in [[1, 12, 64, 7], [3, 12, 5, 8], [1, 1, 1, 1]] {
            let v = View::dense(&dims).permuted(&[0, 2, 1, 3]);
            assert_eq!(program(&t[0], &v, 4, &DeviceProps::example_h200()).unwrap().ops.len(), 1);
        }
    }
}
