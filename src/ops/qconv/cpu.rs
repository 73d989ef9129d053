//! Quantized convolution on the CPU: an implicit integer product of packed weights (rows: output channels) with the
//! image's patches (columns: output pixels), gathered panel by panel; filters of one channel go through rows of f32,
//! which holds their sums exactly.

use super::QConv;
use crate::base::{DType, Result};
use crate::device::cpu::igemm::{
    ByteDot, MAX_MR, MAX_NR, QuantRange, correct, flip_a, flip_b, requantize_by, zero_in_a, zero_in_b,
};
use crate::device::cpu::qconv_rows::{PlaneConv, PlaneParams};
use crate::device::cpu::{Isa, SharedMut, for_each_task, with_bytes};
use crate::internal;
use crate::ops::conv::ConvGeometry;
use crate::ops::requant::{self, QOut};
use crate::ops::window::Window3;
use crate::ops::{CpuArgs, CpuStep, PackCache, Packed, Problem};
use std::sync::Arc;

/// Bytes of packed patches of one task, about.
const PATCH_BYTES: usize = 128 << 10;
const MAX_PANELS: usize = 8;
/// Multiply-adds below which a convolution is not worth a second thread.
const SMALL: usize = 1 << 16;

/// Rows of the weight as words, and the sum of each.
struct PackedW {
    words: Vec<i32>,
    sums: Vec<i32>,
}

struct Step {
    g: ConvGeometry,
    dot: ByteDot,
    out: QOut,
    x_signed: bool,
    w_signed: bool,
    y_signed: bool,
    int_bias: bool,
    /// Number of elements of each input; 0 where absent.
    sizes: Vec<usize>,
    packed: Option<Arc<PackedW>>,
    plane: Option<PlaneConv>,
}

pub(super) fn cpu(op: &QConv, p: &Problem, pack: &dyn PackCache) -> Result<Option<Box<dyn CpuStep>>> {
    let g = op.problem(p)?;
    let signed = |i: usize| p.input(i).is_some_and(|d| d.dtype == DType::I8);
    let mut s = Step {
        g,
        dot: ByteDot::detect(),
        out: op.out,
        x_signed: signed(0),
        w_signed: signed(1),
        y_signed: p.outputs.first().is_some_and(|y| y.dtype == DType::I8),
        int_bias: p.input(requant::BIAS).is_some_and(|b| b.dtype == DType::I32),
        sizes: (0..requant::N_INPUTS).map(|i| p.input(i).map_or(0, |d| d.numel())).collect(),
        packed: None,
        plane: None,
    };
    if g.c == g.group {
        s.plane = PlaneConv::new(&plane_params(&g.window));
    }
    if let (Some(t), None) = (p.known(1), &s.plane) {
        let make = &mut || {
            let mut packed = PackedW { words: vec![0; g.m * s.words()], sums: vec![0; g.m] };
            s.pack_w(t.bytes(), &mut packed.words, &mut packed.sums);
            Arc::new(packed) as Packed
        };
        let packed = pack.get_or_pack("qconv_w", make);
        s.packed = Some(packed.downcast().map_err(|_| internal!("the pack cache mixed up its slots"))?);
    }
    Ok(Some(Box::new(s)))
}

fn plane_params(w: &Window3) -> PlaneParams {
    PlaneParams {
        input: w.input,
        output: w.output,
        kernel: w.kernel,
        stride: w.stride,
        dilation: w.dilation,
        pad: w.pad_begin,
    }
}

/// Parameters while a step runs.
struct Bound<'a> {
    x: &'a [u8],
    bytes: [&'a [u8]; requant::N_INPUTS],
    sizes: &'a [usize],
}

impl Bound<'_> {
    fn index(&self, i: usize, channel: usize) -> usize {
        if self.sizes[i] == 1 { 0 } else { channel }
    }

    fn byte(&self, i: usize, channel: usize) -> u8 {
        if self.sizes[i] == 0 { 0 } else { self.bytes[i][self.index(i, channel)] }
    }

    fn word(&self, i: usize, channel: usize) -> [u8; 4] {
        let at = 4 * self.index(i, channel);
        let b = &self.bytes[i][at..at + 4];
        [b[0], b[1], b[2], b[3]]
    }

    fn float(&self, i: usize, channel: usize) -> f32 {
        if self.sizes[i] == 0 { 1.0 } else { f32::from_ne_bytes(self.word(i, channel)) }
    }
}

/// What finishes the sums of one channel.
struct Channel {
    /// Added to each sum.
    add: i32,
    scale: f32,
    bias: f32,
    range: QuantRange,
}

impl Step {
    /// Length of one sum.
    fn k(&self) -> usize {
        self.g.c / self.g.group * self.g.window.taps()
    }

    fn words(&self) -> usize {
        self.dot.words(self.k())
    }

    fn pixels(&self) -> usize {
        self.g.window.output.iter().product()
    }

    fn pack_w(&self, w: &[u8], words: &mut [i32], sums: &mut [i32]) {
        let (k, n) = (self.k(), self.words());
        for (m, sum) in sums.iter_mut().enumerate() {
            *sum = self.dot.pack_row(&w[m * k..][..k], 1, k, flip_a(self.w_signed), &mut words[m * n..][..n]);
        }
    }

    fn tasks(&self, n: usize, f: impl Fn(usize) + Sync + Send) {
        let work = self.g.n.saturating_mul(self.g.m).saturating_mul(self.pixels()).saturating_mul(self.k());
        if work < SMALL { (0..n).for_each(f) } else { for_each_task(n, f) }
    }

    fn channel(&self, p: &Bound<'_>, m: usize, add: i32) -> Channel {
        let bias = self.sizes[requant::BIAS] > 0;
        let mut scale = p.float(requant::X_SCALE, 0) * p.float(requant::W_SCALE, m);
        if self.out == QOut::Quantized {
            scale /= p.float(requant::Y_SCALE, 0);
        }
        let int_bias = if bias && self.int_bias { i32::from_ne_bytes(p.word(requant::BIAS, m)) } else { 0 };
        Channel {
            add: add.wrapping_add(int_bias),
            scale,
            bias: if bias && !self.int_bias { p.float(requant::BIAS, m) } else { 0.0 },
            range: QuantRange::new(p.byte(requant::Y_ZERO, 0), self.y_signed),
        }
    }

    /// Finished sums of one channel into the output, from element `at` on.
    fn store(&self, isa: Isa, c: &Channel, values: &[i32], at: usize, y: &SharedMut<u8>) {
        if self.out == QOut::Quantized {
            // SAFETY: each task has channels and pixels of its own.
            requantize_by(isa, values, c.scale, c.range, unsafe { y.slice(at, values.len()) });
            return;
        }
        // SAFETY: as above.
        let out = unsafe { y.slice(4 * at, 4 * values.len()) };
        for (out, v) in out.chunks_exact_mut(4).zip(values) {
            let bytes = if self.out == QOut::I32 { v.to_ne_bytes() } else { (*v as f32 * c.scale + c.bias).to_ne_bytes() };
            out.copy_from_slice(&bytes);
        }
    }
}

impl CpuStep for Step {
    fn name(&self) -> String {
        let kind = if self.plane.is_some() { "qconv_plane" } else { "qconv" };
        let g = &self.g;
        format!("{kind}_{}x{}x{}_{}", g.m, self.pixels() * g.n, self.k(), self.out.name())
    }

    fn workspace(&self) -> usize {
        if self.packed.is_some() || self.plane.is_some() { 0 } else { 4 * self.g.m * (self.words() + 1) }
    }

    unsafe fn run(&self, args: &CpuArgs<'_>) {
        let g = &self.g;
        let total = g.n * g.m * self.pixels();
        if total == 0 {
            return;
        }
        let width = |i: usize| if matches!(i, 0 | 1 | requant::X_ZERO | requant::W_ZERO | requant::Y_ZERO) { 1 } else { 4 };
        let bytes: [&[u8]; requant::N_INPUTS] = std::array::from_fn(|i| match args.inputs.get(i) {
            // SAFETY: the caller's addresses are valid for the shapes that these lengths come from.
            Some(p) if !p.is_null() && self.sizes[i] > 0 => unsafe {
                std::slice::from_raw_parts(*p, self.sizes[i] * width(i))
            },
            _ => &[],
        });
        let p = Bound { x: bytes[0], bytes, sizes: &self.sizes };
        let y = SharedMut(args.outputs[0], total * if self.out == QOut::Quantized { 1 } else { 4 });
        if let Some(plane) = &self.plane {
            return self.planes(plane, &p, &y);
        }
        let (words, sums): (&[i32], &[i32]) = match &self.packed {
            Some(w) => (&w.words, &w.sums),
            None => {
                let n = g.m * self.words();
                // SAFETY: the workspace has this many words, and nobody else uses it while the step runs.
                let work: &mut [i32] = unsafe { std::slice::from_raw_parts_mut(args.work.cast(), n + g.m) };
                let (w, s) = work.split_at_mut(n);
                self.pack_w(bytes[1], w, s);
                (w, s)
            }
        };
        self.products(&p, words, sums, &y);
    }
}

impl Step {
    fn planes(&self, plane: &PlaneConv, p: &Bound<'_>, y: &SharedMut<u8>) {
        let (g, isa, pixels) = (&self.g, Isa::detect(), self.pixels());
        let (per_group, taps) = (g.m / g.group, g.window.taps());
        let n_in: usize = g.window.input.iter().product();
        let zero = |v: u8, signed: bool| if signed { v as i8 as i32 } else { v as i32 };
        let xz = zero(p.byte(requant::X_ZERO, 0), self.x_signed);
        self.tasks(g.n * g.c, |task| {
            let c = task % g.c;
            let x = &p.x[task * n_in..][..n_in];
            for m in c * per_group..(c + 1) * per_group {
                let wz = zero(p.byte(requant::W_ZERO, m), self.w_signed);
                let w = &p.bytes[1][m * taps..][..taps];
                let weight = |i: usize| (zero(w[i], self.w_signed) - wz) as f32;
                let channel = self.channel(p, m, 0);
                let at = (task / g.c * g.m + m) * pixels;
                plane.run(isa, x, self.x_signed, xz, &weight, &mut |start, values: &mut [i32]| {
                    correct(isa, values, channel.add, 0, &[], 0, &[]);
                    self.store(isa, &channel, values, at + start, y);
                });
            }
        });
    }

    fn products(&self, p: &Bound<'_>, words: &[i32], sums: &[i32], y: &SharedMut<u8>) {
        let (g, dot, k, n_words) = (&self.g, &self.dot, self.k(), self.words());
        let per_group = g.m / g.group;
        let panels = dot.panels(self.pixels());
        let block = (PATCH_BYTES / (4 * n_words * dot.nr).max(1)).clamp(1, MAX_PANELS).min(panels);
        let blocks = panels.div_ceil(block);
        // Few pixels are shared by tasks with channels of their own, which gather the same patches again.
        let threads = crate::device::cpu::n_threads();
        let split = (2 * threads).div_ceil(g.n * g.group * blocks).clamp(1, per_group.div_ceil(4 * dot.mr).max(1));
        let rows = per_group.div_ceil(split).div_ceil(dot.mr) * dot.mr;
        let split = per_group.div_ceil(rows);
        let gather = Patches { g, flat: is_flat(&g.window), pad: p.byte(requant::X_ZERO, 0) };
        let bz = zero_in_b(gather.pad, self.x_signed);
        let isa = Isa::detect();
        self.tasks(g.n * g.group * blocks * split, |task| {
            let (part, rest) = (task % split, task / split);
            let (b, rest) = (rest % blocks, rest / blocks);
            let (group, image) = (rest % g.group, rest / g.group);
            let (row_bytes, panel_words) = (n_words * dot.per_word * dot.nr, n_words * dot.nr);
            with_bytes(row_bytes + 4 * panel_words, |buffer| {
                let (raw, packed) = buffer.split_at_mut(row_bytes);
                // SAFETY: the buffer is aligned to 64 bytes, and rows of bytes are whole words.
                let packed: &mut [i32] = unsafe { std::slice::from_raw_parts_mut(packed.as_mut_ptr().cast(), panel_words) };
                let mut tile = [0i32; MAX_MR * MAX_NR];
                let mut column_sums = [0i32; MAX_NR];
                for panel in b * block..((b + 1) * block).min(panels) {
                    let j0 = panel * dot.nr;
                    let n = dot.nr.min(self.pixels() - j0);
                    gather.fill(p.x, image, group, j0, n, dot.nr, raw);
                    dot.pack_panel(raw, k, flip_b(self.x_signed), packed, &mut column_sums);
                    let end = ((part + 1) * rows).min(per_group);
                    for i0 in (part * rows..end).step_by(dot.mr) {
                        let n_rows = dot.mr.min(end - i0);
                        let m0 = group * per_group + i0;
                        dot.tile(n_rows, n_words, &words[m0 * n_words..], n_words, packed, &mut tile);
                        for i in 0..n_rows {
                            let m = m0 + i;
                            let az = zero_in_a(p.byte(requant::W_ZERO, m), self.w_signed);
                            let t = (k as i32).wrapping_mul(az).wrapping_sub(sums[m]);
                            let channel = self.channel(p, m, t.wrapping_mul(bz));
                            let values = &mut tile[i * dot.nr..][..n];
                            correct(isa, values, channel.add, az, &column_sums, 0, &[]);
                            self.store(isa, &channel, values, (image * g.m + m) * self.pixels() + j0, y);
                        }
                    }
                }
            });
        });
    }
}

/// True when a window is one element and all windows follow each other.
fn is_flat(w: &Window3) -> bool {
    w.taps() == 1 && w.stride == [1; 3] && w.pad_begin == [0; 3] && w.input == w.output
}

/// Reads patches of x as rows of bytes, one a kernel element.
struct Patches<'a> {
    g: &'a ConvGeometry,
    flat: bool,
    /// x's zero point: what padding counts as.
    pad: u8,
}

impl Patches<'_> {
    /// Rows of `pitch` bytes: for each (channel, kernel element) the inputs of output pixels j0 .. j0 + n.
    #[allow(clippy::too_many_arguments)]
    fn fill(&self, x: &[u8], image: usize, group: usize, j0: usize, n: usize, pitch: usize, out: &mut [u8]) {
        let (g, w) = (self.g, &self.g.window);
        let per_group = g.c / g.group;
        let plane: usize = w.input.iter().product();
        let mut rows = out.chunks_exact_mut(pitch);
        for c in 0..per_group {
            let x = &x[(image * g.c + group * per_group + c) * plane..][..plane];
            if self.flat {
                if let Some(row) = rows.next() {
                    row[..n].copy_from_slice(&x[j0..j0 + n]);
                }
                continue;
            }
            for a in 0..w.kernel[0] {
                for b in 0..w.kernel[1] {
                    for e in 0..w.kernel[2] {
                        if let Some(row) = rows.next() {
                            self.row(x, [a, b, e], j0, &mut row[..n]);
                        }
                    }
                }
            }
        }
    }

    /// One kernel element for consecutive output pixels.
    fn row(&self, x: &[u8], tap: [usize; 3], j0: usize, out: &mut [u8]) {
        let w = &self.g.window;
        let (height, width) = (w.output[1], w.output[2]);
        let mut done = 0;
        while done < out.len() {
            let j = j0 + done;
            let (od, oh, ow) = (j / (width * height), j / width % height, j % width);
            let n = (width - ow).min(out.len() - done);
            let run = &mut out[done..done + n];
            done += n;
            let (Some(d), Some(h)) = (w.source(0, od, tap[0]), w.source(1, oh, tap[1])) else {
                run.fill(self.pad);
                continue;
            };
            let line = &x[(d * w.input[1] + h) * w.input[2]..][..w.input[2]];
            let (stride, pad) = (w.stride[2], w.pad_begin[2]);
            let first = ow * stride + tap[2] * w.dilation[2];
            // Outputs whose input lies before the line, and those up to its end.
            let low = pad.saturating_sub(first).div_ceil(stride).min(n);
            let high = (line.len() + pad).saturating_sub(first).div_ceil(stride).clamp(low, n);
            run[..low].fill(self.pad);
            run[high..].fill(self.pad);
            if low < high {
                let from = first + low * stride - pad;
                if stride == 1 {
                    run[low..high].copy_from_slice(&line[from..from + high - low]);
                } else {
                    run[low..high].iter_mut().zip(line[from..].iter().step_by(stride)).for_each(|(o, v)| *o = *v);
                }
            }
        }
    }
}
