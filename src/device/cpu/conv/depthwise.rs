//! Depthwise convolution: each output channel reads one input channel.
//!
//! A task takes some rows of one plane (or several small planes). The rows are copied, padded and split by stride
//! (`window`), so that an output row is a sum of shifted input rows and no loop handles borders. With AVX-512 the sums go
//! straight to the output rows; otherwise one long loop runs over all positions of the rows, and the few positions
//! between rows are dropped when the result is copied out.

use super::super::scratch::with_scratch;
use super::super::{Isa, SharedMut, for_each_task, n_threads};
use super::window::Window;
use super::{ConvEpilogue, ConvParams, balanced};

/// Positions of one pass: image and sums stay in the first cache.
const MAX_POSITIONS: usize = 2048;
/// Multiply-adds that are worth a task.
const MIN_TASK_WORK: usize = 1 << 15;

pub(super) fn run(
    isa: Isa,
    p: &ConvParams,
    x: &[f32],
    weights: &[f32],
    bias: Option<&[f32]>,
    y: &mut [f32],
    epilogue: Option<&ConvEpilogue>,
) {
    let y = SharedMut::new(y);
    let taps = p.kernel[0] * p.kernel[1];
    let out_plane = p.out_hw[0] * p.out_hw[1];
    let planes = p.batch * p.c_out;
    let rows = balanced(p.out_hw[0], (MAX_POSITIONS / p.out_hw[1]).max(1));
    let blocks = p.out_hw[0].div_ceil(rows);
    let n_units = planes * blocks;
    let unit_work = rows * p.out_hw[1] * taps;
    let per_task = if n_units * unit_work < 4 * MIN_TASK_WORK {
        n_units
    } else {
        MIN_TASK_WORK.div_ceil(unit_work).max(n_units / (16 * n_threads())).max(1)
    };
    for_each_task(n_units.div_ceil(per_task), |task| {
        for unit in task * per_task..((task + 1) * per_task).min(n_units) {
            let (plane, row) = (unit / blocks, (unit % blocks) * rows);
            let (batch, channel) = (plane / p.c_out, plane % p.c_out);
            let in_plane = batch * p.c_in + channel / (p.c_out / p.groups);
            let image = &x[in_plane * p.in_hw[0] * p.in_hw[1]..][..p.in_hw[0] * p.in_hw[1]];
            let n_rows = rows.min(p.out_hw[0] - row);
            let offset = plane * out_plane + row * p.out_hw[1];
            // SAFETY: each unit has rows of its own.
            let out = unsafe { y.slice(offset, n_rows * p.out_hw[1]) };
            let w = &weights[channel * taps..(channel + 1) * taps];
            rows_of_plane(isa, p, image, row, w, bias.map_or(0.0, |b| b[channel]), out);
            if let Some(epilogue) = epilogue {
                epilogue(channel, offset, out);
            }
        }
    });
}

/// Computes `out.len() / width` rows of one plane, from row `row`.
fn rows_of_plane(isa: Isa, p: &ConvParams, image: &[f32], row: usize, w: &[f32], bias: f32, out: &mut [f32]) {
    let width = p.out_hw[1];
    let n_rows = out.len() / width;
    let is_wide = isa == Isa::Avx512;
    let window = Window::new(p, [row, 0], [n_rows, width]).with_pitch_of(if is_wide { LANES } else { 1 });
    let (pitch, size) = (window.pitch(), window.floats(1));
    let n = (n_rows - 1) * pitch + width;
    let n_sums = if is_wide { 0 } else { n.next_multiple_of(CHUNK) };
    let taps = w.len().next_multiple_of(16);
    let slack = MAX_ROWS * pitch + 2 * CHUNK;
    with_scratch(2 * taps + n_sums + size + slack, |scratch| {
        let (offsets, scratch) = scratch.split_at_mut(taps);
        // SAFETY: u32 and f32 have the same size and alignment, and any bits are a value of both.
        let offsets = unsafe { std::slice::from_raw_parts_mut(offsets.as_mut_ptr().cast::<u32>(), w.len()) };
        let (ordered, scratch) = scratch.split_at_mut(taps);
        let (sums, pixels) = scratch.split_at_mut(n_sums);
        let mut i = 0;
        window.for_each_tap(|tap, offset| {
            (offsets[i], ordered[i]) = (offset as u32, w[tap]);
            i += 1;
        });
        window.pack(isa, image, 1, pixels);
        let taps = Taps { offsets, w: &ordered[..w.len()], bias };
        #[cfg(target_arch = "x86_64")]
        if is_wide {
            return taps.rows(pixels, pitch, width, out);
        }
        taps.shifted_sums(isa, pixels, sums);
        for (out, sums) in out.chunks_exact_mut(width).zip(sums.chunks(pitch)) {
            out.copy_from_slice(&sums[..width]);
        }
    });
}

/// The taps of one channel: where their values stand from an output's position on, and their weights.
struct Taps<'a> {
    offsets: &'a [u32],
    w: &'a [f32],
    bias: f32,
}

/// Positions that are summed together.
const CHUNK: usize = 64;
/// Floats of an AVX-512 register.
const LANES: usize = 16;
/// Most rows that are summed together.
const MAX_ROWS: usize = 4;

impl Taps<'_> {
    /// `sums[i] = bias + sum over taps t of w[t] * pixels[i + offsets[t]]`; the length of `sums` is whole chunks.
    fn shifted_sums(&self, isa: Isa, pixels: &[f32], sums: &mut [f32]) {
        assert!(sums.len().is_multiple_of(CHUNK) && self.offsets.len() == self.w.len());
        let reach = self.reach();
        assert!(reach + sums.len() <= pixels.len(), "taps reach {reach} + {} of {} pixels", sums.len(), pixels.len());
        #[cfg(target_arch = "x86_64")]
        if isa >= Isa::Avx2 {
            // SAFETY: the machine has the instruction set; every read is below reach + sums.len().
            return unsafe { shifted_sums_avx2(pixels, self, sums) };
        }
        let _ = isa;
        sums.fill(self.bias);
        for (offset, w) in self.offsets.iter().zip(self.w) {
            let row = &pixels[*offset as usize..][..sums.len()];
            sums.iter_mut().zip(row).for_each(|(s, x)| *s += w * x);
        }
    }

    fn reach(&self) -> usize {
        self.offsets.iter().max().map_or(0, |o| *o as usize)
    }

    /// Whole output rows with AVX-512: as many registers side by side, or rows together, as waste least.
    #[cfg(target_arch = "x86_64")]
    fn rows(&self, pixels: &[f32], pitch: usize, width: usize, out: &mut [f32]) {
        let n_rows = out.len() / width;
        let last = self.reach() + (n_rows + MAX_ROWS - 1) * pitch + width.next_multiple_of(CHUNK);
        assert!(self.offsets.len() == self.w.len() && pitch.is_multiple_of(LANES) && pitch >= width);
        // A last group may begin at most one chunk before the width's end and reads one register more.
        assert!(last + LANES <= pixels.len() + pitch, "taps reach {last} of {} pixels", pixels.len());
        let registers = width.div_ceil(LANES);
        let run = match registers {
            1 => rows_avx512::<4, 1>,
            2 => rows_avx512::<2, 2>,
            n if n.next_multiple_of(3) < n.next_multiple_of(4) => rows_avx512::<1, 3>,
            _ => rows_avx512::<1, 4>,
        };
        // SAFETY: only called with AVX-512; the reads were checked.
        unsafe { run(pixels, pitch, width, self, out) }
    }
}

/// # Safety
/// The machine has AVX2 and FMA; each offset + sums.len() is inside of `pixels`; `sums` is whole chunks.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn shifted_sums_avx2(pixels: &[f32], taps: &Taps, sums: &mut [f32]) {
    use std::arch::x86_64::*;
    for (at, out) in sums.chunks_exact_mut(CHUNK).enumerate() {
        let base = pixels[at * CHUNK..].as_ptr();
        let mut acc = [_mm256_set1_ps(taps.bias); 8];
        for (offset, w) in taps.offsets.iter().zip(taps.w) {
            let w = _mm256_set1_ps(*w);
            for (i, acc) in acc.iter_mut().enumerate() {
                // SAFETY: inside of `pixels` by the caller's promise.
                let x = unsafe { _mm256_loadu_ps(base.add(*offset as usize + i * 8)) };
                *acc = _mm256_fmadd_ps(w, x, *acc);
            }
        }
        for (i, acc) in acc.iter().enumerate() {
            // SAFETY: a chunk is as long as the registers together.
            unsafe { _mm256_storeu_ps(out.as_mut_ptr().add(i * 8), *acc) };
        }
    }
}

/// For each shift the lanes `shift .. shift + 16` of two registers.
#[cfg(target_arch = "x86_64")]
static SHIFTS: [[i32; LANES]; LANES] = {
    let mut table = [[0; LANES]; LANES];
    let mut i = 0;
    while i < LANES * LANES {
        table[i / LANES][i % LANES] = (i / LANES + i % LANES) as i32;
        i += 1;
    }
    table
};

/// Sums `R` rows of `N` registers at a time.
///
/// Most loads of 64 bytes at any address touch two cache lines and cost double. So only aligned registers are loaded, and
/// a tap's values are picked out of two neighbours; taps of one row share the loads.
/// # Safety
/// The machine has AVX-512; from each offset on, `pixels` has the rows (rounded up to `R`) of `pitch`, and behind the
/// start of the last group of `N` registers one register more.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
unsafe fn rows_avx512<const R: usize, const N: usize>(pixels: &[f32], pitch: usize, width: usize, taps: &Taps, out: &mut [f32]) {
    use std::arch::x86_64::*;
    const LANE_BITS: u32 = LANES as u32 - 1;
    let n_rows = out.len() / width;
    for row in (0..n_rows).step_by(R) {
        for col in (0..width).step_by(N * LANES) {
            let base = pixels[row * pitch + col..].as_ptr();
            let mut acc = [[_mm512_set1_ps(taps.bias); N]; R];
            let mut loaded = u32::MAX;
            let mut v = [[_mm512_setzero_ps(); N]; R];
            let mut behind = [_mm512_setzero_ps(); R];
            for (offset, w) in taps.offsets.iter().zip(taps.w) {
                let aligned = offset & !LANE_BITS;
                if aligned != loaded {
                    loaded = aligned;
                    for r in 0..R {
                        let from = base.wrapping_add(aligned as usize + r * pitch);
                        for (i, v) in v[r].iter_mut().enumerate() {
                            // SAFETY: inside of `pixels` by the caller's promise.
                            *v = unsafe { _mm512_loadu_ps(from.wrapping_add(i * LANES)) };
                        }
                        // SAFETY: as above.
                        behind[r] = unsafe { _mm512_loadu_ps(from.wrapping_add(N * LANES)) };
                    }
                }
                let w = _mm512_set1_ps(*w);
                if *offset == aligned {
                    for r in 0..R {
                        for i in 0..N {
                            acc[r][i] = _mm512_fmadd_ps(w, v[r][i], acc[r][i]);
                        }
                    }
                    continue;
                }
                // SAFETY: a row of the table is one register.
                let lanes = unsafe { _mm512_loadu_si512(SHIFTS[(offset & LANE_BITS) as usize].as_ptr().cast()) };
                for r in 0..R {
                    for i in 0..N {
                        let next = if i + 1 < N { v[r][i + 1] } else { behind[r] };
                        acc[r][i] = _mm512_fmadd_ps(w, _mm512_permutex2var_ps(v[r][i], lanes, next), acc[r][i]);
                    }
                }
            }
            for (r, acc) in acc.iter().enumerate().take(n_rows - row) {
                let to = out[(row + r) * width + col..].as_mut_ptr();
                for (i, acc) in acc.iter().enumerate() {
                    let n = (width - col).saturating_sub(i * LANES).min(LANES);
                    let mask = ((1u32 << n) - 1) as u16;
                    match n {
                        0 => {}
                        // SAFETY: the whole register is inside of this row.
                        LANES => unsafe { _mm512_storeu_ps(to.wrapping_add(i * LANES), *acc) },
                        // SAFETY: the mask holds the lanes of this row.
                        _ => unsafe { _mm512_mask_storeu_ps(to.wrapping_add(i * LANES), mask, *acc) },
                    }
                }
            }
        }
    }
}
