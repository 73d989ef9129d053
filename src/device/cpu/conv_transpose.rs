//! Transposed convolution in f32, NCHW, two spatial dimensions, groups, strides, dilations, padding.
//!
//! Each input pixel adds its channels' product with the weights to the output pixels that its taps reach. A task owns a
//! few output channels of one image: for blocks of input rows it computes (output channel, tap) by (input pixel) as a
//! matrix product into scratch and adds the rows to its output planes. So no two tasks write the same plane, and sums
//! have a fixed order. Output padding only shows in the output's size.

use super::conv::ConvEpilogue;
use super::gemm::{Bias, Gemm, MatA, MatB, PackedA, gemm_f32, pack_a};
use super::scratch::with_scratch;
use super::vec::{Binary, zip_in_place};
use super::{SharedMut, for_each_task};

/// Sizes of a transposed convolution. Pairs are (height, width).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConvTransposeParams {
    pub batch: usize,
    pub c_in: usize,
    pub c_out: usize,
    pub groups: usize,
    pub in_hw: [usize; 2],
    /// Output size, output padding included.
    pub out_hw: [usize; 2],
    pub kernel: [usize; 2],
    pub strides: [usize; 2],
    /// Rows and columns cut off at the top and at the left.
    pub pads: [usize; 2],
    pub dilations: [usize; 2],
}

/// Weights, packed once for every image size.
#[derive(Debug)]
pub struct ConvTransposeWeights {
    c_in: usize,
    c_out: usize,
    groups: usize,
    kernel: [usize; 2],
    /// Output channels of a chunk (the last chunk of a group may have fewer).
    channels: usize,
    /// For each group its chunks: (output channel, tap) by input channel.
    chunks: Vec<PackedA>,
}

/// Rows of the matrix product that a chunk aims at.
const CHUNK_ROWS: usize = 128;
/// Input pixels of a block.
const BLOCK_PIXELS: usize = 1024;

impl ConvTransposeWeights {
    /// Packs weights of the shape (c_in, c_out_per_group, kernel height, kernel width).
    ///
    /// # Panics
    /// If the length is another or `groups` does not divide `c_in`.
    pub fn new(weights: &[f32], c_in: usize, c_out_per_group: usize, groups: usize, kernel: [usize; 2]) -> Self {
        let taps = kernel[0] * kernel[1];
        let row = c_out_per_group * taps;
        assert_eq!(weights.len(), c_in * row, "transposed convolution weights have another length");
        assert!(groups > 0 && c_in.is_multiple_of(groups), "{groups} groups do not divide {c_in} input channels");
        let per_group = c_in / groups;
        let channels = (CHUNK_ROWS / taps.max(1)).clamp(1, c_out_per_group.max(1));
        let mut chunks = Vec::new();
        for group in 0..groups {
            for first in (0..c_out_per_group).step_by(channels) {
                let n = channels.min(c_out_per_group - first) * taps;
                let start = group * per_group * row + first * taps;
                chunks.push(pack_a(n, per_group, weights.get(start..).unwrap_or(&[]), 1, row));
            }
        }
        ConvTransposeWeights { c_in, c_out: c_out_per_group * groups, groups, kernel, channels, chunks }
    }
}

/// y = transposed convolution of x (+ bias), then the epilogue on each finished plane.
///
/// `x` is (batch, c_in, height, width), `y` (batch, c_out, height, width), both dense; `bias` has `c_out` values.
///
/// # Panics
/// If a length or the packed weights do not agree with the parameters.
pub fn conv_transpose2d(
    p: &ConvTransposeParams,
    x: &[f32],
    w: &ConvTransposeWeights,
    bias: Option<&[f32]>,
    y: &mut [f32],
    epilogue: Option<&ConvEpilogue>,
) {
    assert!(
        w.c_in == p.c_in && w.c_out == p.c_out && w.groups == p.groups && w.kernel == p.kernel,
        "{p:?}: the packed weights are of {} to {} channels, {} groups, kernel {:?}",
        w.c_in,
        w.c_out,
        w.groups,
        w.kernel
    );
    let (in_plane, out_plane) = (p.in_hw[0] * p.in_hw[1], p.out_hw[0] * p.out_hw[1]);
    assert_eq!(x.len(), p.batch * p.c_in * in_plane, "{p:?}: the input has another length");
    assert_eq!(y.len(), p.batch * p.c_out * out_plane, "{p:?}: the output has another length");
    assert!(bias.is_none_or(|b| b.len() == p.c_out), "{p:?}: the bias has another length");
    if y.is_empty() {
        return;
    }
    let per_group = p.c_out / p.groups;
    let chunks = per_group.div_ceil(w.channels);
    let y = SharedMut::new(y);
    for_each_task(p.batch * p.groups * chunks, |task| {
        let (batch, index) = (task / (p.groups * chunks), task % (p.groups * chunks));
        let (group, chunk) = (index / chunks, index % chunks);
        let first = group * per_group + chunk * w.channels;
        let n = w.channels.min(per_group - chunk * w.channels);
        let start = (batch * p.c_out + first) * out_plane;
        // SAFETY: each task has output planes of its own.
        let out = unsafe { y.slice(start, n * out_plane) };
        for (i, plane) in out.chunks_exact_mut(out_plane).enumerate() {
            plane.fill(bias.map_or(0.0, |b| b[first + i]));
        }
        let c_in = p.c_in / p.groups;
        let image = &x[(batch * p.c_in + group * c_in) * in_plane..][..c_in * in_plane];
        add_products(p, image, &w.chunks[index], n, out);
        if let Some(epilogue) = epilogue {
            for (i, plane) in out.chunks_exact_mut(out_plane).enumerate() {
                epilogue(first + i, start + i * out_plane, plane);
            }
        }
    });
}

/// Adds all taps of `n_channels` output channels.
fn add_products(p: &ConvTransposeParams, image: &[f32], weights: &PackedA, n_channels: usize, out: &mut [f32]) {
    let [in_h, in_w] = p.in_hw;
    if in_h * in_w == 0 {
        return;
    }
    let taps = p.kernel[0] * p.kernel[1];
    let rows_at_once = (BLOCK_PIXELS / in_w).clamp(1, in_h);
    let out_plane = p.out_hw[0] * p.out_hw[1];
    with_scratch(n_channels * taps * rows_at_once * in_w, |columns| {
        for first in (0..in_h).step_by(rows_at_once) {
            let n_rows = rows_at_once.min(in_h - first);
            let n = n_rows * in_w;
            let product = Gemm {
                m: n_channels * taps,
                n,
                k: p.c_in / p.groups,
                a: MatA::Packed(weights),
                b: MatB::Strided { data: image.get(first * in_w..).unwrap_or(&[]), row_stride: in_h * in_w, col_stride: 1 },
                bias: Bias::None,
                accumulate: false,
                c_row_stride: n,
            };
            gemm_f32(&product, columns);
            for (row, values) in columns.chunks_exact(n).take(n_channels * taps).enumerate() {
                let (channel, tap) = (row / taps, row % taps);
                let plane = &mut out[channel * out_plane..(channel + 1) * out_plane];
                add_tap(p, first, [tap / p.kernel[1], tap % p.kernel[1]], values, plane);
            }
        }
    });
}

/// Adds one tap's values of the input rows from `first` on to an output plane.
fn add_tap(p: &ConvTransposeParams, first: usize, tap: [usize; 2], values: &[f32], plane: &mut [f32]) {
    let (in_w, out_w, stride) = (p.in_hw[1], p.out_hw[1], p.strides[1]);
    // Input columns lo .. hi land inside of the output.
    let shift = tap[1] * p.dilations[1];
    let lo = p.pads[1].saturating_sub(shift).div_ceil(stride).min(in_w);
    let hi = (out_w + p.pads[1]).saturating_sub(shift).div_ceil(stride).clamp(lo, in_w);
    if lo == hi {
        return;
    }
    let start = lo * stride + shift - p.pads[1];
    for (i, row) in values.chunks_exact(in_w).enumerate() {
        let y = (first + i) * p.strides[0] + tap[0] * p.dilations[0];
        if y < p.pads[0] || y - p.pads[0] >= p.out_hw[0] {
            continue;
        }
        let out = &mut plane[(y - p.pads[0]) * out_w + start..(y - p.pads[0] + 1) * out_w];
        if stride == 1 {
            zip_in_place(Binary::Add, &mut out[..hi - lo], &row[lo..hi]);
        } else {
            out.iter_mut().step_by(stride).zip(&row[lo..hi]).for_each(|(o, v)| *o += v);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sums of a few hundred f32 products.
    const SUM_TOLERANCE: f64 = 3e-6;

    fn values(n: usize, seed: u32) -> Vec<f32> {
        (0..n as u32).map(|i| ((i.wrapping_mul(2654435761) ^ seed.wrapping_mul(97)) >> 8) as f32 / (1 << 23) as f32 - 1.0).collect()
    }

    fn check(p: ConvTransposeParams) {
        let (ci, co) = (p.c_in / p.groups, p.c_out / p.groups);
        let (in_plane, out_plane) = (p.in_hw[0] * p.in_hw[1], p.out_hw[0] * p.out_hw[1]);
        let taps = p.kernel[0] * p.kernel[1];
        let x = values(p.batch * p.c_in * in_plane, 1);
        let w = values(p.c_in * co * taps, 2);
        let b = values(p.c_out, 3);
        let mut want: Vec<f64> = (0..p.batch * p.c_out * out_plane).map(|i| b[i / out_plane % p.c_out] as f64).collect();
        for n in 0..p.batch {
            for c in 0..p.c_in {
                for o in 0..co {
                    for iy in 0..p.in_hw[0] {
                        for ix in 0..p.in_hw[1] {
                            for t in 0..taps {
                                let at = |axis: usize, i: usize, t: usize| {
                                    (i * p.strides[axis] + t * p.dilations[axis]) as isize - p.pads[axis] as isize
                                };
                                let (oy, ox) = (at(0, iy, t / p.kernel[1]), at(1, ix, t % p.kernel[1]));
                                if oy < 0 || ox < 0 || oy >= p.out_hw[0] as isize || ox >= p.out_hw[1] as isize {
                                    continue;
                                }
                                let channel = n * p.c_out + c / ci * co + o;
                                let to = (channel * p.out_hw[0] + oy as usize) * p.out_hw[1] + ox as usize;
                                let from = ((n * p.c_in + c) * p.in_hw[0] + iy) * p.in_hw[1] + ix;
                                want[to] += x[from] as f64 * w[(c * co + o) * taps + t] as f64;
                            }
                        }
                    }
                }
            }
        }
        let packed = ConvTransposeWeights::new(&w, p.c_in, co, p.groups, p.kernel);
        let mut y = vec![f32::NAN; want.len()];
        let epilogue = |channel: usize, offset: usize, run: &mut [f32]| {
            assert_eq!(offset / out_plane % p.c_out, channel);
            run.iter_mut().for_each(|v| *v *= 2.0);
        };
        conv_transpose2d(&p, &x, &packed, Some(&b), &mut y, Some(&epilogue));
        for (i, (got, want)) in y.iter().zip(&want).enumerate() {
            assert!((*got as f64 - 2.0 * want).abs() <= SUM_TOLERANCE * (10.0 + want.abs()), "{p:?} at {i}: {got} {want}");
        }
    }

    #[test]
    fn strides_dilations_pads_groups_and_output_padding() {
        let p = ConvTransposeParams {
            batch: 2,
            c_in: 6,
            c_out: 4,
            groups: 1,
            in_hw: [5, 7],
            out_hw: [10, 14],
            kernel: [4, 4],
            strides: [2, 2],
            pads: [1, 1],
            dilations: [1, 1],
        };
        check(p);
        check(ConvTransposeParams { out_hw: [7, 9], kernel: [3, 3], strides: [1, 1], pads: [0, 0], ..p });
        check(ConvTransposeParams { groups: 2, out_hw: [11, 15], kernel: [3, 3], strides: [2, 2], pads: [0, 1], ..p });
        check(ConvTransposeParams { out_hw: [18, 15], kernel: [3, 2], strides: [3, 2], pads: [0, 2], dilations: [2, 3], ..p });
        check(ConvTransposeParams { c_in: 1, c_out: 1, in_hw: [1, 1], out_hw: [2, 3], kernel: [2, 3], pads: [0, 0], batch: 1, ..p });
        check(ConvTransposeParams { in_hw: [40, 50], out_hw: [80, 100], kernel: [2, 2], pads: [0, 0], c_out: 70, batch: 1, ..p });
    }
}
