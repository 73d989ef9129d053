//! Convolution in f32, NCHW in and out, two spatial dimensions (one dimension is a height of 1), groups, strides,
//! dilations and asymmetric padding.
//!
//! Two algorithms, chosen by the weights' shape when they are packed:
//! - *dense*: a matrix product of packed weights (rows: output channels) with the image's patches (columns: output
//!   pixels), without an im2col copy. A task copies the part of the image that its output rows need into scratch,
//!   padded, and split by stride (`window`), so that for each k = (channel, kernel row, kernel column) the values of
//!   consecutive output pixels are consecutive floats at a constant offset: the microkernel reads them in place.
//! - *depthwise* (`depthwise`): few channels per group; one plane at a time.
//!
//! The weights are packed once ([`ConvWeights`]) and do not depend on the image's size. Bias is added, then the epilogue
//! sees each finished run of output while it is in the cache. Sums have a fixed order for any number of threads.
//! It does not know activation functions: an operator passes them as the epilogue.

mod depthwise;
mod window;

#[cfg(test)]
mod tests;

use super::gemm::{PackedA, pack_a_for};
use super::microkernel::{Init, MAX_NR, MAX_TILE, Microkernel, Tile};
use super::scratch::with_scratch;
use super::{Isa, SharedMut, for_each_task, n_threads};
use window::Window;

/// Called with (output channel, flat offset of the run in the output, the finished values): once for each contiguous
/// run of one output channel. Runs are whole rows, several rows, or pieces of a row.
pub type ConvEpilogue<'a> = dyn Fn(usize, usize, &mut [f32]) + Sync + 'a;

/// Sizes of a convolution. Pairs are (height, width).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConvParams {
    pub batch: usize,
    pub c_in: usize,
    pub c_out: usize,
    pub groups: usize,
    pub in_hw: [usize; 2],
    /// Output size; with the other fields it implies the padding at the bottom and at the right.
    pub out_hw: [usize; 2],
    pub kernel: [usize; 2],
    pub strides: [usize; 2],
    /// Padding at the top and at the left.
    pub pads: [usize; 2],
    pub dilations: [usize; 2],
}

impl ConvParams {
    fn check(&self, w: &ConvWeights, x: &[f32], bias: Option<&[f32]>, y: &[f32]) {
        assert!(self.groups > 0 && self.c_in.is_multiple_of(self.groups), "{self:?}: groups do not divide the input channels");
        let (c_out, per_group) = (w.c_out, w.c_in_per_group);
        assert!(
            c_out == self.c_out && per_group * self.groups == self.c_in && w.groups == self.groups && w.kernel == self.kernel,
            "{self:?}: the packed weights are of {c_out} channels from {per_group} per group, {} groups, kernel {:?}",
            w.groups,
            w.kernel
        );
        assert!(self.strides.iter().chain(&self.dilations).all(|v| *v > 0), "{self:?}: a stride or dilation is 0");
        let n_in = self.batch * self.c_in * self.in_hw[0] * self.in_hw[1];
        assert_eq!(x.len(), n_in, "{self:?}: the input has another length");
        let n_out = self.batch * self.c_out * self.out_hw[0] * self.out_hw[1];
        assert_eq!(y.len(), n_out, "{self:?}: the output has another length");
        assert!(bias.is_none_or(|b| b.len() == self.c_out), "{self:?}: the bias has another length");
    }
}

#[derive(Debug)]
enum Packed {
    /// One packed matrix for each group: output channels by (input channel, kernel row, kernel column).
    Dense(Vec<PackedA>),
    /// As given: (output channel, input channel, kernel row, kernel column).
    Depthwise(Vec<f32>),
}

/// Weights, packed once for every image size.
#[derive(Debug)]
pub struct ConvWeights {
    c_out: usize,
    c_in_per_group: usize,
    groups: usize,
    kernel: [usize; 2],
    isa: Isa,
    packed: Packed,
}

impl ConvWeights {
    /// Packs weights of the shape (c_out, c_in_per_group, kernel height, kernel width).
    ///
    /// # Panics
    /// If the length is another or `groups` does not divide `c_out`.
    pub fn new(weights: &[f32], c_out: usize, c_in_per_group: usize, groups: usize, kernel: [usize; 2]) -> ConvWeights {
        Self::new_for(Isa::detect(), weights, c_out, c_in_per_group, groups, kernel)
    }

    pub(crate) fn new_for(
        isa: Isa,
        weights: &[f32],
        c_out: usize,
        c_in_per_group: usize,
        groups: usize,
        kernel: [usize; 2],
    ) -> ConvWeights {
        let k = c_in_per_group * kernel[0] * kernel[1];
        assert_eq!(weights.len(), c_out * k, "convolution weights have another length");
        assert!(groups > 0 && c_out.is_multiple_of(groups), "{groups} groups do not divide {c_out} output channels");
        let per_group = c_out / groups;
        let is_depthwise = c_in_per_group == 1 && per_group <= 2 && groups > 1;
        let packed = if is_depthwise {
            Packed::Depthwise(weights.to_vec())
        } else {
            let of_group = |g: usize| pack_a_for(isa, per_group, k, &weights[g * per_group * k..(g + 1) * per_group * k], k, 1);
            Packed::Dense((0..groups).map(of_group).collect())
        };
        ConvWeights { c_out, c_in_per_group, groups, kernel, isa, packed }
    }
}

/// y = convolution of x (+ bias), then the epilogue on each finished run.
///
/// `x` is (batch, c_in, height, width), `y` (batch, c_out, height, width), both dense; `bias` has `c_out` values.
///
/// # Panics
/// If a length or the packed weights do not agree with the parameters.
pub fn conv2d(
    p: &ConvParams,
    x: &[f32],
    w: &ConvWeights,
    bias: Option<&[f32]>,
    y: &mut [f32],
    epilogue: Option<&ConvEpilogue>,
) {
    p.check(w, x, bias, y);
    if y.is_empty() {
        return;
    }
    match &w.packed {
        Packed::Depthwise(values) => depthwise::run(w.isa, p, x, values, bias, y, epilogue),
        Packed::Dense(panels) => {
            let mut p = *p;
            let is_pointwise = p.kernel == [1, 1] && p.strides == [1, 1] && p.pads == [0, 0] && p.in_hw == p.out_hw;
            if is_pointwise {
                // Pixels are independent: one long row, which is cut at any place.
                p.in_hw = [1, p.in_hw[0] * p.in_hw[1]];
                p.out_hw = p.in_hw;
            }
            Dense::new(&p, w.isa).run(x, panels, bias, y, epilogue);
        }
    }
}

/// Floats of a task's window: half of a second-level cache of 1 MB.
const WINDOW_BUDGET: usize = 128 << 10;
/// Output columns above which a row is cut.
const MAX_COLS: usize = 384;
/// Output pixels of a task below which it is not cut further.
const MIN_PIXELS: usize = 96;

/// How the output is cut into tasks.
struct Dense<'a> {
    p: &'a ConvParams,
    isa: Isa,
    kernel: Microkernel,
    rows: usize,
    cols: usize,
    /// Panels of output channels in a task.
    panels: usize,
    n_row_blocks: usize,
    n_col_blocks: usize,
    n_panel_blocks: usize,
}

impl<'a> Dense<'a> {
    fn new(p: &'a ConvParams, isa: Isa) -> Self {
        let kernel = Microkernel::of(isa);
        let [out_h, out_w] = p.out_hw;
        let (c_in, c_out) = (p.c_in / p.groups, p.c_out / p.groups);
        let threads = n_threads();
        let work = p.batch * p.c_out * out_h * out_w * c_in * p.kernel[0] * p.kernel[1];
        let target = if threads == 1 || work < 1 << 18 { 1 } else { 4 * threads };

        let mut cols = balanced(out_w, if out_h == 1 { 256 } else { MAX_COLS });
        let fits = |rows: usize, cols: usize| Window::new(p, [0, 0], [rows, cols]).floats(c_in) <= WINDOW_BUDGET;
        while cols > 64 && !fits(1, cols) {
            cols = cols.div_ceil(2);
        }
        let mut rows = out_h;
        while rows > 1 && !fits(rows, cols) {
            rows = rows.div_ceil(2);
        }
        let n_panels = c_out.div_ceil(kernel.mr);
        let n_tasks = |rows: usize, cols: usize, panels: usize| {
            p.batch * p.groups * out_h.div_ceil(rows) * out_w.div_ceil(cols) * n_panels.div_ceil(panels)
        };
        while n_tasks(rows, cols, n_panels) < target && rows > 1 && rows.div_ceil(2) * cols >= MIN_PIXELS {
            rows = rows.div_ceil(2);
        }
        while n_tasks(rows, cols, n_panels) < target && cols > 1 && cols.div_ceil(2) * rows >= MIN_PIXELS {
            cols = cols.div_ceil(2);
        }
        rows = balanced(out_h, rows);
        cols = balanced(out_w, cols).next_multiple_of(if cols < out_w { kernel.nr } else { 1 }).min(out_w);
        let mut panels = n_panels;
        while n_tasks(rows, cols, panels) < target && panels > 4 {
            panels = panels.div_ceil(2);
        }
        Dense {
            p,
            isa,
            kernel,
            rows,
            cols,
            panels,
            n_row_blocks: out_h.div_ceil(rows),
            n_col_blocks: out_w.div_ceil(cols),
            n_panel_blocks: n_panels.div_ceil(panels),
        }
    }

    fn run(&self, x: &[f32], panels: &[PackedA], bias: Option<&[f32]>, y: &mut [f32], epilogue: Option<&ConvEpilogue>) {
        let y = SharedMut::new(y);
        let p = self.p;
        let n_tasks = p.batch * p.groups * self.n_row_blocks * self.n_col_blocks * self.n_panel_blocks;
        for_each_task(n_tasks, |task| {
            let (task, col) = (task / self.n_col_blocks, task % self.n_col_blocks);
            let (task, row) = (task / self.n_row_blocks, task % self.n_row_blocks);
            let (task, panel) = (task / self.n_panel_blocks, task % self.n_panel_blocks);
            let (batch, group) = (task / p.groups, task % p.groups);
            let start = [row * self.rows, col * self.cols];
            let size = [self.rows.min(p.out_hw[0] - start[0]), self.cols.min(p.out_hw[1] - start[1])];
            let part = Part { batch, group, start, size, first_panel: panel * self.panels };
            self.compute(&part, x, &panels[group], bias, y, epilogue);
        });
    }

    fn compute(
        &self,
        part: &Part,
        x: &[f32],
        weights: &PackedA,
        bias: Option<&[f32]>,
        y: SharedMut<f32>,
        epilogue: Option<&ConvEpilogue>,
    ) {
        let p = self.p;
        let (c_in, c_out) = (p.c_in / p.groups, p.c_out / p.groups);
        let k = c_in * p.kernel[0] * p.kernel[1];
        let window = Window::new(p, part.start, part.size);
        let image = &x[(part.batch * p.groups + part.group) * c_in * p.in_hw[0] * p.in_hw[1]..];
        let offsets_floats = k.next_multiple_of(16);
        with_scratch(offsets_floats + window.floats(c_in) + 2 * MAX_NR, |scratch| {
            let (offsets, pixels) = scratch.split_at_mut(offsets_floats);
            // SAFETY: u32 and f32 have the same size and alignment, and any bits are a value of both.
            let offsets = unsafe { std::slice::from_raw_parts_mut(offsets.as_mut_ptr().cast::<u32>(), k) };
            window.fill_offsets(c_in, offsets);
            window.pack(self.isa, image, c_in, pixels);
            let mr = self.kernel.mr;
            let first = part.first_panel;
            for panel in first..(first + self.panels).min(c_out.div_ceil(mr)) {
                let n_rows = mr.min(c_out - panel * mr);
                let channel = part.group * c_out + panel * mr;
                let mut panel_bias = [0f32; 8];
                if let Some(bias) = bias {
                    panel_bias[..n_rows].copy_from_slice(&bias[channel..channel + n_rows]);
                }
                let job = Panel { part, window: &window, channel, n_rows, k, bias: &panel_bias };
                job.compute(self, weights.panel(panel), offsets, pixels, y);
                if let Some(epilogue) = epilogue {
                    job.finish(p, y, epilogue);
                }
            }
        });
    }
}

/// The largest equal size of blocks of at most `max` that cover `n`.
fn balanced(n: usize, max: usize) -> usize {
    if n == 0 { 1 } else { n.div_ceil(n.div_ceil(max)) }
}

/// One task: a rectangle of one group's output pixels in one image.
struct Part {
    batch: usize,
    group: usize,
    start: [usize; 2],
    size: [usize; 2],
    first_panel: usize,
}

/// A few output channels of a task.
struct Panel<'a> {
    part: &'a Part,
    window: &'a Window<'a>,
    channel: usize,
    n_rows: usize,
    k: usize,
    bias: &'a [f32; 8],
}

impl Panel<'_> {
    /// Flat output offset of pixel (row, col) of the task's rectangle, in channel `channel + i`.
    fn out_offset(&self, p: &ConvParams, i: usize, row: usize, col: usize) -> usize {
        let plane = self.part.batch * p.c_out + self.channel + i;
        (plane * p.out_hw[0] + self.part.start[0] + row) * p.out_hw[1] + self.part.start[1] + col
    }

    /// All tiles. Positions run through the window's rows, whose ends beyond the output's columns are skipped.
    fn compute(&self, dense: &Dense, weights: *const f32, offsets: &[u32], pixels: &[f32], y: SharedMut<f32>) {
        let (p, nr) = (dense.p, dense.kernel.nr);
        let plane = p.out_hw[0] * p.out_hw[1];
        let [rows, cols] = self.part.size;
        let pitch = self.window.pitch();
        let is_dense = pitch == cols && cols == p.out_hw[1];
        let end = (rows - 1) * pitch + cols;
        let mut buffer = [0f32; MAX_TILE];
        let mut tile = Tile {
            k: self.k,
            a: weights,
            a_row_stride: 0,
            a_col_stride: 0,
            b: pixels.as_ptr(),
            b_row_stride: 0,
            b_offsets: offsets.as_ptr(),
            c: buffer.as_mut_ptr(),
            c_row_stride: plane,
            n: nr,
            init: Init::Rows(self.bias.as_ptr()),
        };
        let mut at = 0;
        while at < end {
            let (row, col) = (at / pitch, at % pitch);
            if col >= cols {
                at = (row + 1) * pitch;
                continue;
            }
            let n = nr.min(end - at);
            // Pixels of this tile in its first row; the rest is either beyond the columns or in following rows.
            let in_row = if is_dense { n } else { n.min(cols - col) };
            let is_one_row = in_row == n || at + n <= (row + 1) * pitch;
            tile.b = pixels[at..].as_ptr();
            if is_one_row {
                let start = self.out_offset(p, 0, row, col);
                assert!(start + (self.n_rows - 1) * plane + in_row <= y.1, "tile outside of the output");
                (tile.c, tile.c_row_stride, tile.n) = (y.0.wrapping_add(start), plane, in_row);
                // SAFETY: B: `pixels` has 2 NR floats behind the last position; C: asserted, and this task alone
                // writes its rectangle.
                unsafe { dense.kernel.run(self.n_rows, &tile) };
            } else {
                (tile.c, tile.c_row_stride, tile.n) = (buffer.as_mut_ptr(), nr, n);
                // SAFETY: as above, with C in the local buffer.
                unsafe { dense.kernel.run(self.n_rows, &tile) };
                self.scatter(p, y, &buffer, nr, at, n);
            }
            at += n;
        }
    }

    /// Writes the valid positions at..at + n of a tile in `buffer` to the output.
    fn scatter(&self, p: &ConvParams, y: SharedMut<f32>, buffer: &[f32; MAX_TILE], nr: usize, at: usize, n: usize) {
        let (pitch, cols) = (self.window.pitch(), self.part.size[1]);
        let mut j = 0;
        while j < n {
            let (row, col) = ((at + j) / pitch, (at + j) % pitch);
            let run = (pitch - col).min(n - j);
            if col < cols {
                let valid = run.min(cols - col);
                for i in 0..self.n_rows {
                    // SAFETY: this task alone writes its rectangle.
                    let out = unsafe { y.slice(self.out_offset(p, i, row, col), valid) };
                    out.copy_from_slice(&buffer[i * nr + j..i * nr + j + valid]);
                }
            }
            j += run;
        }
    }

    /// Hands the finished runs to the epilogue.
    fn finish(&self, p: &ConvParams, y: SharedMut<f32>, epilogue: &ConvEpilogue) {
        let [rows, cols] = self.part.size;
        let (n_runs, run) = if cols == p.out_hw[1] { (1, rows * cols) } else { (rows, cols) };
        for i in 0..self.n_rows {
            for row in 0..n_runs {
                let offset = self.out_offset(p, i, row, 0);
                // SAFETY: this task alone writes its rectangle.
                epilogue(self.channel + i, offset, unsafe { y.slice(offset, run) });
            }
        }
    }
}
