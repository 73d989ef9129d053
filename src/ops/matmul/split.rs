//! The kernel behind a product or convolution whose sums are split over blocks: it adds the parts, and applies bias and
//! epilogue.

use crate::base::{DType, Result};
use crate::bail;
use crate::device::DeviceProps;
use crate::ops::epilogue::cuda::{Fusion, accumulator, magic};
use crate::ops::{Arg, KernelSpec, Launch, blocks, i32_struct};

const FINISH_THREADS: usize = 256;

/// `split_finish.cu` for parts of a product or convolution of this type; `bias_dim` is the coordinate of the bias.
pub fn finish_spec(dtype: DType, out: DType, has_bias: bool, bias_dim: i64, fusion: &Fusion) -> KernelSpec {
    let s = KernelSpec::new("split_finish.cu")
        .define_type("T_PART", accumulator(dtype))
        .define_type("T_OUT", out)
        .define_type("T_BIAS", dtype)
        .define("HAS_BIAS", has_bias as i64)
        .define("BIAS_DIM", bias_dim)
        .define("THREADS", FINISH_THREADS)
        .define("INDEX64", 0);
    fusion.define(s)
}

/// Launch of `split_finish.cu`. `args` are part, bias, y and the epilogue's five; the shape and the number of splits are
/// put in between.
pub fn finish_launch(
    kernel: usize,
    shape: [usize; 5],
    splits: i64,
    mut args: Vec<Arg>,
    dev: &DeviceProps,
) -> Result<Launch> {
    let total = shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d)).filter(|n| *n < i32::MAX as usize);
    let Some(total) = total else { bail!(Unsupported, "partial sums of {shape:?} are too many for their kernel") };
    args.insert(3, Arg::I32(splits as i32));
    args.insert(3, shape_struct(&shape));
    let grid = blocks(total, FINISH_THREADS).min(8 * dev.n_sm.max(1));
    Ok(Launch { kernel, grid: [grid, 1, 1], block: [FINISH_THREADS as u32, 1, 1], smem: 0, args })
}

/// `Shape` of `kernels/common/index.cuh`.
fn shape_struct(dims: &[usize]) -> Arg {
    let at = |i: usize| dims.get(i).copied().unwrap_or(1);
    let sizes = (0..8).map(|i| at(i) as i32);
    let magics = (0..8).map(|i| magic(at(i)).0);
    let shifts = (0..8).map(|i| magic(at(i)).1);
    i32_struct(sizes.chain(magics).chain(shifts))
}
