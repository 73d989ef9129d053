//! The part of an image that a rectangle of output pixels reads, copied so that taps are constant offsets.
//!
//! With strides (sh, sw) the copy has sh * sw *phases* for each channel: phase (py, px) holds the padded image's rows
//! py, py + sh, ... and columns px, px + sw, .... The tap (kh, kw) of output pixel (r, c) then stands in phase
//! (kh*dh % sh, kw*dw % sw) at row r + kh*dh / sh and column c + kw*dw / sw: for consecutive positions r * pitch + c,
//! consecutive floats. Phases that no tap reads are left out. Values outside of the image are 0.

use super::super::Isa;
use super::super::multiversion::multiversion;
use super::ConvParams;

pub(super) struct Window<'a> {
    p: &'a ConvParams,
    start: [usize; 2],
    /// Rows and columns of a phase.
    height: usize,
    width: usize,
    /// Phases that are read, along each axis.
    n_phases: [usize; 2],
    /// Floats from one phase to the next.
    plane: usize,
}

impl<'a> Window<'a> {
    /// For the output pixels `start .. start + size`.
    pub(super) fn new(p: &'a ConvParams, start: [usize; 2], size: [usize; 2]) -> Self {
        let reach = |axis: usize| (p.kernel[axis].max(1) - 1) * p.dilations[axis] / p.strides[axis];
        // Phases of multiples of the dilation: those of taps 0 .. kernel, until they repeat.
        let phases = |axis: usize| p.kernel[axis].min(p.strides[axis] / gcd(p.strides[axis], p.dilations[axis]));
        let (height, width) = (size[0] + reach(0), size[1] + reach(1));
        // An odd number of cache lines, so that channels do not fall into the same cache sets.
        let lines = (height * width).div_ceil(16) | 1;
        Window { p, start, height, width, n_phases: [phases(0), phases(1)], plane: lines * 16 }
    }

    /// Makes the pitch a multiple of `n`, so that rows start at multiples of it.
    pub(super) fn with_pitch_of(mut self, n: usize) -> Self {
        self.width = self.width.next_multiple_of(n);
        self.plane = ((self.height * self.width).div_ceil(16) | 1) * 16;
        self
    }

    /// Floats of the copy, without what the microkernel reads behind it.
    pub(super) fn floats(&self, channels: usize) -> usize {
        channels * self.n_phases[0] * self.n_phases[1] * self.plane
    }

    /// Positions from one output row to the next.
    pub(super) fn pitch(&self) -> usize {
        self.width
    }

    /// Offset of each tap: index (channel, kernel row, kernel column).
    pub(super) fn fill_offsets(&self, channels: usize, offsets: &mut [u32]) {
        assert!(self.floats(channels) <= u32::MAX as usize, "a convolution's window is beyond 2^32 values");
        let [kh, kw] = self.p.kernel;
        let mut out = offsets.iter_mut();
        for channel in 0..channels {
            for y in 0..kh {
                for x in 0..kw {
                    if let Some(o) = out.next() {
                        *o = (channel * self.n_phases[0] * self.n_phases[1] * self.plane + self.tap(y, x)) as u32;
                    }
                }
            }
        }
    }

    /// Calls `f(tap, offset)` for the taps of one channel, those of the same phase and row one after the other.
    pub(super) fn for_each_tap(&self, mut f: impl FnMut(usize, usize)) {
        let ([kh, kw], [phases_y, phases_x]) = (self.p.kernel, self.n_phases);
        for y in (0..phases_y).flat_map(|phase| (phase..kh).step_by(phases_y)) {
            for x in (0..phases_x).flat_map(|phase| (phase..kw).step_by(phases_x)) {
                f(y * kw + x, self.tap(y, x));
            }
        }
    }

    /// Offset of tap (y, x) in a channel.
    fn tap(&self, y: usize, x: usize) -> usize {
        // Tap i has the phase of tap i % n_phases: that is the phase's index.
        let phase = (y % self.n_phases[0]) * self.n_phases[1] + x % self.n_phases[1];
        let row = y * self.p.dilations[0] / self.p.strides[0];
        let col = x * self.p.dilations[1] / self.p.strides[1];
        phase * self.plane + row * self.width + col
    }

    /// Copies the window of the first `channels` planes of `image`.
    pub(super) fn pack(&self, isa: Isa, image: &[f32], channels: usize, out: &mut [f32]) {
        pack(isa, self, isa, image, channels, out);
    }

    #[inline(always)]
    fn pack_here(&self, isa: Isa, image: &[f32], channels: usize, out: &mut [f32]) {
        let [in_h, in_w] = self.p.in_hw;
        let [stride_h, stride_w] = self.p.strides;
        let plane_in = in_h * in_w;
        for phase_x in 0..self.n_phases[1] {
            let x0 = self.start[1] * stride_w + phase_x * self.p.dilations[1] % stride_w;
            let cols = Span::new(x0, stride_w, self.p.pads[1], in_w, self.width);
            for phase_y in 0..self.n_phases[0] {
                let y0 = self.start[0] * stride_h + phase_y * self.p.dilations[0] % stride_h;
                let rows = Span::new(y0, stride_h, self.p.pads[0], in_h, self.height);
                for channel in 0..channels {
                    let phase = (channel * self.n_phases[0] + phase_y) * self.n_phases[1] + phase_x;
                    let to = &mut out[phase * self.plane..][..self.height * self.width];
                    let from = &image[channel * plane_in..(channel + 1) * plane_in];
                    to[..rows.lo * self.width].fill(0.0);
                    to[rows.hi * self.width..].fill(0.0);
                    if rows.hi <= rows.lo {
                        continue;
                    }
                    let from = &from[rows.first * in_w..];
                    let to = &mut to[rows.lo * self.width..rows.hi * self.width];
                    cols.copy_rows(isa, from, in_w * stride_h, stride_w, to, self.width);
                }
            }
        }
    }
}

multiversion! {
    fn pack = pack_body(window: &Window, row_isa: Isa, image: &[f32], channels: usize, out: &mut [f32]);
}

#[inline(always)]
fn pack_body<const FMA: bool>(window: &Window, row_isa: Isa, image: &[f32], channels: usize, out: &mut [f32]) {
    window.pack_here(row_isa, image, channels, out);
}

/// Which elements of a window's axis are inside of the image.
struct Span {
    /// Elements lo .. hi of the window are `first`, `first + stride`, ... of the image.
    lo: usize,
    hi: usize,
    first: usize,
}

impl Span {
    /// Window element j stands at image coordinate `start + j * stride - pad`.
    fn new(start: usize, stride: usize, pad: usize, in_size: usize, len: usize) -> Span {
        let lo = pad.saturating_sub(start).div_ceil(stride).min(len);
        let hi = (in_size + pad).saturating_sub(start).div_ceil(stride).clamp(lo, len);
        let first = if hi > lo { start + lo * stride - pad } else { 0 };
        Span { lo, hi, first }
    }

    /// Fills the rows of `to`, each `width` long, from rows of the image that are `pitch` apart.
    #[inline(always)]
    fn copy_rows(&self, isa: Isa, from: &[f32], pitch: usize, stride: usize, to: &mut [f32], width: usize) {
        // Nothing of the image, which may have no elements at all.
        if self.lo == self.hi {
            return to.fill(0.0);
        }
        #[cfg(target_arch = "x86_64")]
        if isa == Isa::Avx512 && stride <= 2 {
            let (n_rows, n) = (to.len() / width, self.hi - self.lo);
            let last = (n_rows.max(1) - 1) * pitch + self.first + (n.max(1) - 1) * stride;
            assert!(self.hi <= width && (n == 0 || last < from.len()), "a window's rows leave the image");
            // SAFETY: the machine has AVX-512; both ranges were checked.
            return unsafe { self.copy_rows_avx512(from, pitch, stride, to, width) };
        }
        let _ = isa;
        for (to, from) in to.chunks_exact_mut(width).zip(from.chunks(pitch)) {
            self.copy_row(from, stride, to);
        }
    }

    #[inline(always)]
    fn copy_row(&self, from: &[f32], stride: usize, to: &mut [f32]) {
        to[..self.lo].fill(0.0);
        to[self.hi..].fill(0.0);
        let to = &mut to[self.lo..self.hi];
        if to.is_empty() {
            return;
        }
        let from = &from[self.first..];
        match stride {
            1 => to.copy_from_slice(&from[..to.len()]),
            2 => {
                // Pairs, then the last one, whose partner may be outside.
                let pairs = from.as_chunks::<2>().0;
                let n = pairs.len().min(to.len());
                to[..n].iter_mut().zip(pairs).for_each(|(t, f)| *t = f[0]);
                (n..to.len()).for_each(|j| to[j] = from[2 * j]);
            }
            _ => to.iter_mut().zip(from.iter().step_by(stride)).for_each(|(t, f)| *t = *f),
        }
    }

    /// Copies and zeros by strips of 16 columns, so that a strip's masks serve all rows; a row is short, and calls of the
    /// C library's copy and fill for each would cost more than the values.
    /// # Safety
    /// The machine has AVX-512; `hi <= width`; `stride` is 1 or 2; the image's elements of all rows are inside of `from`.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f")]
    unsafe fn copy_rows_avx512(&self, from: &[f32], pitch: usize, stride: usize, to: &mut [f32], width: usize) {
        use std::arch::x86_64::*;
        let even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
        // Bits lo .. hi.
        let bits = |lo: usize, hi: usize| ((1u64 << hi) - 1) & !((1u64 << lo) - 1);
        for at in (0..width).step_by(16) {
            let n = 16.min(width - at);
            let (lo, hi) = (self.lo.clamp(at, at + n) - at, self.hi.clamp(at, at + n) - at);
            let loaded = if lo >= hi { 0 } else { bits(lo * stride, (hi - 1) * stride + 1) };
            let (low, high, stored) = (loaded as u16, (loaded >> 16) as u16, bits(0, n) as u16);
            let shift = (at as isize - self.lo as isize) * stride as isize + self.first as isize;
            let source = from.as_ptr().wrapping_offset(shift);
            for (row, to) in to.chunks_exact_mut(width).enumerate() {
                let source = source.wrapping_add(row * pitch);
                let to = to[at..].as_mut_ptr();
                // SAFETY: the masks hold elements of the image only, and lanes of `to`.
                unsafe {
                    let mut values = _mm512_maskz_loadu_ps(low, source);
                    if stride == 2 {
                        let behind = _mm512_maskz_loadu_ps(high, source.wrapping_add(16));
                        values = _mm512_permutex2var_ps(values, even, behind);
                    }
                    if n == 16 {
                        _mm512_storeu_ps(to, values);
                    } else {
                        _mm512_mask_storeu_ps(to, stored, values);
                    }
                }
            }
        }
    }
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}
