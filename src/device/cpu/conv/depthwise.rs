//! Depthwise convolution: each output channel reads one input channel.
//!
//! A task takes some rows of one plane (or several small planes). The rows are copied, padded and split by stride
//! (`window`), so that an output row is a sum of shifted input rows; one long loop over all positions of the rows then
//! needs no border handling, and its few positions between rows are dropped when the result is copied out.

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
    let window = Window::new(p, [row, 0], [n_rows, width]).with_pitch_of(if isa == Isa::Avx512 { LANES } else { 1 });
    let (pitch, size) = (window.pitch(), window.floats(1));
    let n = (n_rows - 1) * pitch + width;
    let whole = n.next_multiple_of(CHUNK);
    let taps = w.len().next_multiple_of(16);
    with_scratch(2 * taps + whole + size + 2 * CHUNK, |scratch| {
        let (offsets, scratch) = scratch.split_at_mut(taps);
        // SAFETY: u32 and f32 have the same size and alignment, and any bits are a value of both.
        let offsets = unsafe { std::slice::from_raw_parts_mut(offsets.as_mut_ptr().cast::<u32>(), w.len()) };
        let (ordered, scratch) = scratch.split_at_mut(taps);
        let (sums, pixels) = scratch.split_at_mut(whole);
        let mut i = 0;
        window.for_each_tap(|tap, offset| {
            (offsets[i], ordered[i]) = (offset as u32, w[tap]);
            i += 1;
        });
        window.pack(isa, image, 1, pixels);
        shifted_sums(isa, pixels, offsets, &ordered[..w.len()], bias, sums);
        if pitch == width {
            out.copy_from_slice(&sums[..n]);
            return;
        }
        for (out, sums) in out.chunks_exact_mut(width).zip(sums.chunks(pitch)) {
            out.copy_from_slice(&sums[..width]);
        }
    });
}

/// Positions that are summed together: four AVX-512 registers.
const CHUNK: usize = 64;
/// Floats of an AVX-512 register.
const LANES: usize = 16;

/// `sums[i] = bias + sum over taps t of w[t] * pixels[i + offsets[t]]`; the length of `sums` is a multiple of `CHUNK`.
fn shifted_sums(isa: Isa, pixels: &[f32], offsets: &[u32], w: &[f32], bias: f32, sums: &mut [f32]) {
    assert!(sums.len().is_multiple_of(CHUNK) && offsets.len() == w.len());
    let reach = offsets.iter().max().map_or(0, |o| *o as usize);
    assert!(reach + sums.len() + CHUNK <= pixels.len(), "taps reach {reach} + {} of {} pixels", sums.len(), pixels.len());
    match isa {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the machine has the instruction set; every read is below reach + sums.len() + CHUNK.
        Isa::Avx512 => unsafe { shifted_sums_avx512(pixels, offsets, w, bias, sums) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Isa::Avx2 => unsafe { shifted_sums_avx2(pixels, offsets, w, bias, sums) },
        _ => {
            sums.fill(bias);
            for (offset, w) in offsets.iter().zip(w) {
                let row = &pixels[*offset as usize..][..sums.len()];
                sums.iter_mut().zip(row).for_each(|(s, x)| *s += w * x);
            }
        }
    }
}

/// # Safety
/// The machine has AVX2 and FMA; each offset + sums.len() is inside of `pixels`; `sums` is whole chunks.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn shifted_sums_avx2(pixels: &[f32], offsets: &[u32], w: &[f32], bias: f32, sums: &mut [f32]) {
    use std::arch::x86_64::*;
    for (at, out) in sums.chunks_exact_mut(CHUNK).enumerate() {
        let base = pixels[at * CHUNK..].as_ptr();
        let mut acc = [_mm256_set1_ps(bias); 8];
        for (offset, w) in offsets.iter().zip(w) {
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

/// Most loads of 64 bytes at any address touch two cache lines and cost double. So only aligned registers are loaded, and
/// a tap's values are picked out of two neighbours; taps of one row share the loads.
/// # Safety
/// The machine has AVX-512; each offset + sums.len() + `CHUNK` is inside of `pixels`; `sums` is whole chunks.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
unsafe fn shifted_sums_avx512(pixels: &[f32], offsets: &[u32], w: &[f32], bias: f32, sums: &mut [f32]) {
    use std::arch::x86_64::*;
    const LANE_BITS: u32 = LANES as u32 - 1;
    for (at, out) in sums.chunks_exact_mut(CHUNK).enumerate() {
        let base = pixels[at * CHUNK..].as_ptr();
        let mut acc = [_mm512_set1_ps(bias); 4];
        let mut loaded = u32::MAX;
        let mut v = [_mm512_setzero_ps(); 5];
        for (offset, w) in offsets.iter().zip(w) {
            let aligned = offset & !LANE_BITS;
            if aligned != loaded {
                loaded = aligned;
                for (i, v) in v.iter_mut().enumerate() {
                    // SAFETY: at most a chunk and a register behind the offset, inside of `pixels` by the caller's promise.
                    *v = unsafe { _mm512_loadu_ps(base.add(aligned as usize + i * LANES)) };
                }
            }
            let w = _mm512_set1_ps(*w);
            if offset == &aligned {
                for (acc, v) in acc.iter_mut().zip(v) {
                    *acc = _mm512_fmadd_ps(w, v, *acc);
                }
                continue;
            }
            // SAFETY: a row of the table is one register.
            let lanes = unsafe { _mm512_loadu_si512(SHIFTS[(offset & LANE_BITS) as usize].as_ptr().cast()) };
            for (i, acc) in acc.iter_mut().enumerate() {
                *acc = _mm512_fmadd_ps(w, _mm512_permutex2var_ps(v[i], lanes, v[i + 1]), *acc);
            }
        }
        for (i, acc) in acc.iter().enumerate() {
            // SAFETY: a chunk is as long as the registers together.
            unsafe { _mm512_storeu_ps(out.as_mut_ptr().add(i * LANES), *acc) };
        }
    }
}
