//! Convolution of one plane of bytes by one filter: depthwise convolutions, whose sums are too short for a product.
//!
//! The plane is copied to f32, less its zero point and with its padding as zeros, each row split by the stride along the
//! last axis, so that the inputs of neighbouring outputs stand beside each other. Sums of up to [`MAX_TAPS`] products of
//! 9-bit numbers are whole numbers that f32 holds exactly in any order.

use super::Isa;
use super::multiversion::{fma, multiversion};
use super::with_scratch;

/// `MAX_TAPS * 255 * 255 <= 2^24`.
const MAX_TAPS: usize = 257;
/// Floats of a copied plane.
const MAX_PLANE: usize = 1 << 22;
/// Outputs that are summed in registers, and handed on at once.
const LANES: usize = 64;

/// Sizes by axis (depth, height, width).
#[derive(Clone, Copy, Debug)]
pub(crate) struct PlaneParams {
    pub input: [usize; 3],
    pub output: [usize; 3],
    pub kernel: [usize; 3],
    pub stride: [usize; 3],
    pub dilation: [usize; 3],
    pub pad: [usize; 3],
}

/// The filter as places in the copied plane.
pub(crate) struct PlaneConv {
    p: PlaneParams,
    /// Floats of one phase of a row.
    phase: usize,
}

impl PlaneConv {
    /// `None` when sums may not be exact, or the copy is too large.
    pub(crate) fn new(p: &PlaneParams) -> Option<PlaneConv> {
        let taps = p.kernel.iter().try_fold(1usize, |n, k| n.checked_mul(*k))?;
        if taps > MAX_TAPS || taps == 0 {
            return None;
        }
        let reach = (p.kernel[2] - 1).checked_mul(p.dilation[2])? / p.stride[2];
        let phase = p.output[2].checked_add(reach)?.checked_add(1 + LANES)?;
        let rows = p.input[0].checked_mul(p.input[1])?;
        let size = phase.checked_mul(p.stride[2])?.checked_mul(rows)?;
        (size <= MAX_PLANE).then_some(PlaneConv { p: *p, phase })
    }

    fn size(&self) -> usize {
        self.phase * self.p.stride[2] * self.p.input[0] * self.p.input[1]
    }

    /// Calls `store` with each finished run of sums and the pixel that it starts at. `weight` gives a filter's element
    /// less its zero point.
    #[allow(clippy::too_many_arguments)]
    pub(crate) fn run(
        &self,
        isa: Isa,
        x: &[u8],
        signed: bool,
        zero: i32,
        weight: &dyn Fn(usize) -> f32,
        store: &mut dyn FnMut(usize, &mut [i32]),
    ) {
        let p = &self.p;
        with_scratch(self.size(), |plane| {
            self.copy(isa, x, signed, zero, plane);
            let mut taps = [(0usize, 0f32); MAX_TAPS];
            let mut sums = [0i32; LANES];
            for od in 0..p.output[0] {
                for oh in 0..p.output[1] {
                    let n = self.taps_of(od, oh, weight, &mut taps);
                    for ow in (0..p.output[2]).step_by(LANES) {
                        let count = LANES.min(p.output[2] - ow);
                        row_sums(isa, plane, ow, &taps[..n], count, &mut sums);
                        store((od * p.output[1] + oh) * p.output[2] + ow, &mut sums[..count]);
                    }
                }
            }
        });
    }

    /// Places and weights of the filter's elements that lie in rows of the input, for one row of outputs.
    fn taps_of(&self, od: usize, oh: usize, weight: &dyn Fn(usize) -> f32, taps: &mut [(usize, f32)]) -> usize {
        let p = &self.p;
        let source = |axis: usize, o: usize, k: usize| {
            (o * p.stride[axis] + k * p.dilation[axis]).checked_sub(p.pad[axis]).filter(|i| *i < p.input[axis])
        };
        let mut n = 0;
        for a in 0..p.kernel[0] {
            let Some(d) = source(0, od, a) else { continue };
            for b in 0..p.kernel[1] {
                let Some(h) = source(1, oh, b) else { continue };
                for c in 0..p.kernel[2] {
                    let (at, stride) = (c * p.dilation[2], p.stride[2]);
                    let row = (d * p.input[1] + h) * stride + at % stride;
                    taps[n] = (row * self.phase + at / stride, weight((a * p.kernel[1] + b) * p.kernel[2] + c));
                    n += 1;
                }
            }
        }
        n
    }

    fn copy(&self, isa: Isa, x: &[u8], signed: bool, zero: i32, out: &mut [f32]) {
        let p = &self.p;
        let (width, stride, pad) = (p.input[2], p.stride[2], p.pad[2]);
        out[..self.size()].fill(0.0);
        if width == 0 {
            return;
        }
        for (line, rows) in x.chunks_exact(width).zip(out.chunks_exact_mut(self.phase * stride)) {
            for (s, row) in rows.chunks_exact_mut(self.phase).enumerate() {
                // Element t of this phase is input t * stride + s - pad.
                let first = pad.saturating_sub(s).div_ceil(stride).min(row.len());
                let Some(from) = (first * stride + s).checked_sub(pad) else { continue };
                if from < width {
                    widen(isa, &line[from..], stride, signed, zero, &mut row[first..]);
                }
            }
        }
    }
}

multiversion! {
    /// Every stride-th byte as a number less the zero point, as many as there are or fit.
    fn widen = widen_body(x: &[u8], stride: usize, signed: bool, zero: i32, out: &mut [f32]);
    /// out[j] = sum over taps of plane[place + first + j] * weight.
    fn row_sums = row_sums_body(plane: &[f32], first: usize, taps: &[(usize, f32)], n: usize, out: &mut [i32; LANES]);
}

#[inline(always)]
fn widen_body<const FMA: bool>(x: &[u8], stride: usize, signed: bool, zero: i32, out: &mut [f32]) {
    match (stride, signed) {
        (1, false) => out.iter_mut().zip(x).for_each(|(o, v)| *o = (*v as i32 - zero) as f32),
        (1, true) => out.iter_mut().zip(x).for_each(|(o, v)| *o = (*v as i8 as i32 - zero) as f32),
        (_, false) => out.iter_mut().zip(x.iter().step_by(stride)).for_each(|(o, v)| *o = (*v as i32 - zero) as f32),
        (_, true) => {
            out.iter_mut().zip(x.iter().step_by(stride)).for_each(|(o, v)| *o = (*v as i8 as i32 - zero) as f32)
        }
    }
}

#[inline(always)]
fn row_sums_body<const FMA: bool>(plane: &[f32], first: usize, taps: &[(usize, f32)], n: usize, out: &mut [i32; LANES]) {
    const PART: usize = 32;
    for part in (0..n).step_by(PART) {
        let mut sums = [0f32; PART];
        for (place, weight) in taps {
            let at = place + first + part;
            let x: &[f32; PART] = plane[at..at + PART].try_into().expect("a slice of PART");
            for j in 0..PART {
                sums[j] = fma::<FMA>(x[j], *weight, sums[j]);
            }
        }
        for j in 0..PART {
            out[part + j] = sums[j] as i32;
        }
    }
}
