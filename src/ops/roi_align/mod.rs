//! Pools regions of an image at sampled positions. Inputs: x [n, c, h, w], rois [k, 4] (x1, y1, x2, y2) of x's type,
//! batch_indices [k] (integers). Output: [k, c, output_height, output_width].
//!
//! A cell of a region is sampled at regular positions by linear interpolation; a position more than one element outside
//! counts as zero. `Max` takes the greatest of all neighbours times their weights, as the standard has it. All
//! arithmetic is in f32 (f64 for f64). A batch index out of range is an error on the host; devices clamp it.

mod cuda;

use crate::base::real::{Real, reals, tensor_of};
use crate::base::{Dim, Fact, Result, Shape, Tensor};
use crate::device::DeviceProps;
use crate::device::cpu::{SharedMut, for_each_task};
use crate::network::ValueId;
use crate::ops::{EvalCx, ImportCx, InferCx, OpDef, Problem, StepProgram, Tactic, TacticOptions, onnx};
use crate::{attr_enum, bail, dispatch_real, ensure, op_home, op_struct};

attr_enum! {
    /// What the samples of a cell become.
    pub enum RoiMode { Average = "avg", Max = "max" }
}

op_struct! {
    /// Pools regions of an image at sampled positions. Inputs: x, rois, batch_indices.
    pub struct RoiAlign {
        pub mode: RoiMode,
        pub output_height: i64,
        pub output_width: i64,
        /// Samples of a cell along each axis; 0: as many as the cell has elements, rounded up.
        pub sampling_ratio: i64,
        pub spatial_scale: f32,
        /// Shifts regions by half an element; without it regions are at least one element large.
        pub half_pixel: bool,
    }
}

op_home!(RoiAlign, "RoiAlign", &[onnx("RoiAlign", 10, import_10), onnx("RoiAlign", 16, import_16)]);

/// Samples of a cell along an axis at most; a region of more elements is no image's.
const MAX_SAMPLES: i64 = 4096;

/// One region along one axis.
struct Span<R> {
    start: R,
    /// Elements of one cell.
    cell: R,
    samples: usize,
}

/// Two neighbours of a position and the weight of the second; `None` is outside.
type Neighbours<R> = Option<(usize, usize, R)>;

impl RoiAlign {
    fn span<R: Real>(&self, first: R, last: R, cells: usize) -> Span<R> {
        let scale = R::of(self.spatial_scale as f64);
        let shift = R::of(if self.half_pixel { 0.5 } else { 0.0 });
        let (start, end) = (first * scale - shift, last * scale - shift);
        let mut size = end - start;
        if !self.half_pixel && size < R::of(1.0) {
            size = R::of(1.0);
        }
        let cell = size / R::of(cells as f64);
        let samples = match self.sampling_ratio {
            0 => cell.ceil().within(R::of(0.0), R::of(MAX_SAMPLES as f64)).f64() as usize,
            s => s as usize,
        };
        Span { start, cell, samples }
    }

    fn region<R: Real>(&self, x: &[R], dims: [usize; 2], roi: &[R], y: &mut [R], c: usize) {
        let (ph, pw) = (self.output_height as usize, self.output_width as usize);
        let (rows, cols) = (self.span(roi[1], roi[3], ph), self.span(roi[0], roi[2], pw));
        let count = R::of((rows.samples * cols.samples).max(1) as f64);
        let plane = dims[0] * dims[1];
        for oh in 0..ph {
            for ow in 0..pw {
                let mut sums = vec![R::of(0.0); c];
                let mut first = true;
                for i in 0..rows.samples {
                    let row = rows.neighbours(oh, i, dims[0]);
                    for j in 0..cols.samples {
                        let col = cols.neighbours(ow, j, dims[1]);
                        for (channel, sum) in sums.iter_mut().enumerate() {
                            let [a, b, d, e] = match (row, col) {
                                (Some((r0, r1, wr)), Some((c0, c1, wc))) => {
                                    let x = &x[channel * plane..][..plane];
                                    let (vr, vc) = (R::of(1.0) - wr, R::of(1.0) - wc);
                                    [
                                        vr * vc * x[r0 * dims[1] + c0],
                                        vr * wc * x[r0 * dims[1] + c1],
                                        wr * vc * x[r1 * dims[1] + c0],
                                        wr * wc * x[r1 * dims[1] + c1],
                                    ]
                                }
                                _ => [R::of(0.0); 4],
                            };
                            match self.mode {
                                RoiMode::Average => *sum += a + b + d + e,
                                RoiMode::Max => {
                                    let most = larger(larger(a, b), larger(d, e));
                                    *sum = if first { most } else { larger(*sum, most) };
                                }
                            }
                        }
                        first = false;
                    }
                }
                for (channel, sum) in sums.into_iter().enumerate() {
                    y[(channel * ph + oh) * pw + ow] = if self.mode == RoiMode::Average { sum / count } else { sum };
                }
            }
        }
    }
}

fn larger<R: Real>(a: R, b: R) -> R {
    if a > b { a } else { b }
}

impl<R: Real> Span<R> {
    /// Sample `i` of cell `o` in an axis of `size` elements.
    fn neighbours(&self, o: usize, i: usize, size: usize) -> Neighbours<R> {
        let (o, i) = (R::of(o as f64), R::of(i as f64));
        let at = self.start + o * self.cell + (i + R::of(0.5)) * self.cell / R::of(self.samples as f64);
        // A position that is no number is outside, too.
        if size == 0 || !(at >= R::of(-1.0) && at <= R::of(size as f64)) {
            return None;
        }
        let at = if at > R::of(0.0) { at } else { R::of(0.0) };
        let low = at.floor().f64() as usize;
        if low >= size - 1 { Some((size - 1, size - 1, R::of(0.0))) } else { Some((low, low + 1, at - at.floor())) }
    }
}

/// Checks regions and the batch's indices of roi operators.
pub(crate) fn check_rois(cx: &InferCx<'_>, columns: i64) -> Result<()> {
    cx.float(0)?;
    cx.rank(0, 4)?;
    cx.rank(1, 2)?;
    let (x, rois) = (cx.input(0)?, cx.input(1)?);
    ensure!(
        rois.dtype == x.dtype && rois.shape[1].as_const().is_none_or(|d| d == columns),
        InvalidArgument,
        "input 1: expected {} regions [k, {columns}], got {rois}",
        x.dtype
    );
    Ok(())
}

impl OpDef for RoiAlign {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Vec<Fact>> {
        cx.arity(3, 3)?;
        check_rois(cx, 4)?;
        cx.rank(2, 1)?;
        let (x, rois, batch) = (cx.input(0)?, cx.input(1)?, cx.input(2)?);
        ensure!(batch.dtype.is_int(), InvalidArgument, "input 2: expected integers, got {}", batch.dtype);
        if let (Some(a), Some(b)) = (rois.shape[0].as_const(), batch.shape[0].as_const()) {
            ensure!(a == b, InvalidArgument, "{a} regions with {b} batch indices");
        }
        for (name, v, least) in
            [("output_height", self.output_height, 1), ("output_width", self.output_width, 1), ("sampling_ratio", self.sampling_ratio, 0)]
        {
            ensure!((least..=MAX_SAMPLES * 16).contains(&v), InvalidArgument, "{name} {v} is out of range");
        }
        let shape =
            vec![rois.shape[0].clone(), x.shape[1].clone(), Dim::from(self.output_height), Dim::from(self.output_width)];
        Ok(vec![Fact::new(x.dtype, Shape(shape))])
    }

    fn eval(&self, cx: &EvalCx<'_>) -> Result<Vec<Tensor>> {
        let (x, rois, batch) = (cx.input(0)?, cx.input(1)?, cx.ints(2)?);
        let shape = cx.output(0)?.shape().to_vec();
        let dims = [x.shape()[2], x.shape()[3]];
        for b in &batch {
            ensure!((0..x.shape()[0] as i64).contains(b), InvalidArgument, "batch index {b} is out of range");
        }
        let (size, image) = (shape[1..].iter().product::<usize>(), x.shape()[1..].iter().product::<usize>());
        Ok(vec![dispatch_real!(x.dtype(), R => {
            let (x, rois) = (reals::<R>(x), reals::<R>(rois));
            let mut out = vec![R::of(0.0); shape.iter().product()];
            let y = SharedMut::new(&mut out);
            for_each_task(batch.len(), |k| {
                let image = &x[batch[k] as usize * image..][..image];
                // SAFETY: each task has a region of its own.
                self.region::<R>(image, dims, &rois[4 * k..4 * k + 4], unsafe { y.slice(k * size, size) }, shape[1]);
            });
            tensor_of(cx.input(0)?.dtype(), &shape, &out)
        })])
    }

    fn cuda_tactics(&self, p: &Problem, _dev: &DeviceProps, _opt: &TacticOptions) -> Vec<Tactic> {
        cuda::tactics(self, p)
    }

    fn cuda_program(&self, _tactic: &Tactic, p: &Problem, dev: &DeviceProps) -> Result<StepProgram> {
        cuda::program(self, p, dev)
    }
}

fn import(cx: &mut ImportCx<'_>, half_pixel: bool) -> Result<Vec<ValueId>> {
    let inputs = [cx.input(0)?, cx.input(1)?, cx.input(2)?];
    let mode = cx.string("mode", "avg")?;
    let Some(mode) = RoiMode::from_name(&mode.to_lowercase()) else {
        bail!(InvalidArgument, "attribute mode: expected avg or max, got {mode:?}");
    };
    let op = RoiAlign {
        mode,
        output_height: cx.int("output_height", 1)?,
        output_width: cx.int("output_width", 1)?,
        sampling_ratio: cx.int("sampling_ratio", 0)?,
        spatial_scale: cx.float("spatial_scale", 1.0)?,
        half_pixel,
    };
    Ok(vec![cx.add(op, &inputs)?])
}

fn import_10(cx: &mut ImportCx<'_>) -> Result<Vec<ValueId>> {
    import(cx, false)
}

fn import_16(cx: &mut ImportCx<'_>) -> Result<Vec<ValueId>> {
    let half_pixel = match cx.string("coordinate_transformation_mode", "half_pixel")?.as_str() {
        "half_pixel" => true,
        "output_half_pixel" => false,
        other => bail!(InvalidArgument, "coordinate_transformation_mode {other:?} is not known"),
    };
    import(cx, half_pixel)
}
