//! Depthwise convolution: each output channel reads one input channel.
//!
//! A task takes some rows of one plane (or several small planes). The rows are copied, padded and split by stride
//! (`window`), so that an output row is a sum of shifted input rows; one long loop over all positions of the rows then
//! needs no border handling, and its few positions between rows are dropped when the result is copied out.

use super::super::multiversion::{fma, multiversion};
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
    let window = Window::new(p, [row, 0], [n_rows, width]);
    let (pitch, size) = (window.pitch(), window.floats(1));
    let n = (n_rows - 1) * pitch + width;
    with_scratch(size + n.next_multiple_of(16), |scratch| {
        let (pixels, sums) = scratch.split_at_mut(size);
        window.pack(image, 1, pixels);
        let sums = &mut sums[..n];
        match (p.kernel, w.len()) {
            ([3, 3], _) => taps(isa, &window, pixels, w, bias, sums, sum_9),
            ([5, 5], _) => taps(isa, &window, pixels, w, bias, sums, sum_25),
            _ => {
                sums.fill(bias);
                for (i, w) in w.iter().enumerate() {
                    let tap = window.tap(i / p.kernel[1], i % p.kernel[1]);
                    add_scaled(isa, &pixels[tap..tap + n], *w, sums);
                }
            }
        }
        for (out, sums) in out.chunks_exact_mut(width).zip(sums.chunks(pitch)) {
            out.copy_from_slice(&sums[..width]);
        }
    });
}

/// Square kernels of T taps in one pass.
fn taps<const T: usize>(
    isa: Isa,
    window: &Window,
    pixels: &[f32],
    w: &[f32],
    bias: f32,
    sums: &mut [f32],
    sum: fn(Isa, &[&[f32]; T], &[f32; T], f32, &mut [f32]),
) {
    let side = T.isqrt();
    let n = sums.len();
    let rows: [&[f32]; T] = std::array::from_fn(|i| {
        let tap = window.tap(i / side, i % side);
        &pixels[tap..tap + n]
    });
    sum(isa, &rows, &std::array::from_fn(|i| w[i]), bias, sums);
}

multiversion! {
    fn sum_9 = sum_body_9(rows: &[&[f32]; 9], w: &[f32; 9], bias: f32, sums: &mut [f32]);
    fn sum_25 = sum_body_25(rows: &[&[f32]; 25], w: &[f32; 25], bias: f32, sums: &mut [f32]);
    fn add_scaled = add_scaled_body(row: &[f32], w: f32, sums: &mut [f32]);
}

#[inline(always)]
fn sum_body_9<const FMA: bool>(rows: &[&[f32]; 9], w: &[f32; 9], bias: f32, sums: &mut [f32]) {
    sum_body::<FMA, 9>(rows, w, bias, sums);
}

#[inline(always)]
fn sum_body_25<const FMA: bool>(rows: &[&[f32]; 25], w: &[f32; 25], bias: f32, sums: &mut [f32]) {
    sum_body::<FMA, 25>(rows, w, bias, sums);
}

/// Positions that are summed together: a few vector registers.
const CHUNK: usize = 64;

#[inline(always)]
fn sum_body<const FMA: bool, const T: usize>(rows: &[&[f32]; T], w: &[f32; T], bias: f32, sums: &mut [f32]) {
    let n = sums.len();
    let whole = n - n % CHUNK;
    for at in (0..whole).step_by(CHUNK) {
        let mut acc = [bias; CHUNK];
        for t in 0..T {
            let row = &rows[t][at..at + CHUNK];
            for j in 0..CHUNK {
                acc[j] = fma::<FMA>(w[t], row[j], acc[j]);
            }
        }
        sums[at..at + CHUNK].copy_from_slice(&acc);
    }
    for at in whole..n {
        sums[at] = (0..T).fold(bias, |acc, t| fma::<FMA>(w[t], rows[t][at], acc));
    }
}

#[inline(always)]
fn add_scaled_body<const FMA: bool>(row: &[f32], w: f32, sums: &mut [f32]) {
    for (s, r) in sums.iter_mut().zip(row) {
        *s = fma::<FMA>(w, *r, *s);
    }
}
