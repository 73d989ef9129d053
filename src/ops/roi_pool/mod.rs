//! The greatest element of each cell of regions. Inputs: x [n, c, h, w], rois [k, 5] (image, x1, y1, x2, y2) of x's type.
//! Output: [k, c, height, width]. A cell outside of the image gives 0.
//!
//! Corners are rounded to elements and both belong to the region, as the first detectors had it. An image out of range
//! is an error on the host; devices clamp it.

use super::roi_align::check_rois;
use crate::base::real::{Real, reals, tensor_of};
use crate::base::{Dim, Fact, Result, Shape, Tensor};
use crate::device::DeviceProps;
use crate::network::ValueId;
use crate::ops::per_output::{program, tactic, zeros};
use crate::ops::{
    Arg, EvalCx, ImportCx, InferCx, KernelSpec, OpDef, Problem, StepProgram, Tactic, TacticOptions, cuda_type, i64_struct,
    onnx,
};
use crate::{dispatch_real, ensure, err, internal, op_home, op_struct};

op_struct! {
    /// The greatest element of each cell of regions. Inputs: x, rois.
    pub struct MaxRoiPool {
        pub height: i64,
        pub width: i64,
        pub spatial_scale: f32,
    }
}

op_home!(MaxRoiPool, "MaxRoiPool", &[onnx("MaxRoiPool", 1, import)]);

/// Cells along an axis at most.
const MAX_CELLS: i64 = 1 << 16;
/// Corners beyond are all alike.
const FAR: f64 = (1u64 << 30) as f64;

impl MaxRoiPool {
    /// First and last (exclusive) element of cell `o` of `cells`, for corners of a region along an axis of `size`.
    fn cell<R: Real>(&self, corners: [R; 2], o: usize, cells: i64, size: usize) -> (usize, usize) {
        let scale = R::of(self.spatial_scale as f64);
        let corner = |v: R| (v * scale).round_away().within(R::of(-FAR), R::of(FAR)).f64() as i64;
        let [first, last] = corners.map(corner);
        let cell = R::of((last - first + 1).max(1) as f64) / R::of(cells as f64);
        let edge = |v: R| (v.f64() as i64 + first).clamp(0, size as i64) as usize;
        let (o, next) = (R::of(o as f64), R::of(o as f64 + 1.0));
        (edge((o * cell).floor()), edge((next * cell).ceil()))
    }
}

impl OpDef for MaxRoiPool {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Vec<Fact>> {
        cx.arity(2, 2)?;
        check_rois(cx, 5)?;
        let fits = |v: i64| (1..=MAX_CELLS).contains(&v);
        ensure!(
            fits(self.height) && fits(self.width),
            InvalidArgument,
            "pooled_shape {}x{} is out of range",
            self.height,
            self.width
        );
        let (x, rois) = (cx.input(0)?, cx.input(1)?);
        let shape = vec![rois.shape[0].clone(), x.shape[1].clone(), Dim::from(self.height), Dim::from(self.width)];
        Ok(vec![Fact::new(x.dtype, Shape(shape))])
    }

    fn eval(&self, cx: &EvalCx<'_>) -> Result<Vec<Tensor>> {
        let (x, rois) = (cx.input(0)?, cx.input(1)?);
        let shape = cx.output(0)?.shape().to_vec();
        let (dtype, d) = (x.dtype(), [x.shape()[0], x.shape()[1], x.shape()[2], x.shape()[3]]);
        Ok(vec![dispatch_real!(dtype, R => {
            let (x, rois) = (reals::<R>(x), reals::<R>(rois));
            let mut out: Vec<R> = Vec::with_capacity(shape.iter().product());
            for roi in rois.chunks_exact(5) {
                let image = roi[0].f64();
                ensure!(image >= 0.0 && image < d[0] as f64, InvalidArgument, "image {image} of a region is out of range");
                for c in 0..d[1] {
                    let x = &x[(image as usize * d[1] + c) * d[2] * d[3]..][..d[2] * d[3]];
                    for i in 0..self.height as usize {
                        let (top, bottom) = self.cell([roi[2], roi[4]], i, self.height, d[2]);
                        for j in 0..self.width as usize {
                            let (left, right) = self.cell([roi[1], roi[3]], j, self.width, d[3]);
                            let mut best = None;
                            for v in (top..bottom).flat_map(|h| (left..right).map(move |w| x[h * d[3] + w])) {
                                if best.is_none_or(|b| v > b) {
                                    best = Some(v);
                                }
                            }
                            out.push(best.unwrap_or_default());
                        }
                    }
                }
            }
            tensor_of(dtype, &shape, &out)
        })])
    }

    fn cuda_tactics(&self, p: &Problem, _dev: &DeviceProps, _opt: &TacticOptions) -> Vec<Tactic> {
        let Some(x) = p.input(0) else { return vec![] };
        let spec = KernelSpec::new("roi_pool.cu").define_type("T_IN", x.dtype);
        tactic(format!("roi_pool/{}", cuda_type(x.dtype)), spec)
    }

    fn cuda_program(&self, _tactic: &Tactic, p: &Problem, dev: &DeviceProps) -> Result<StepProgram> {
        let (Some(x), Some(y)) = (p.input(0), p.outputs.first()) else {
            return Err(internal!("a region pooling without operands"));
        };
        if x.numel() == 0 && y.numel() > 0 {
            return Ok(zeros(y.bytes()));
        }
        let params = x.dims.iter().chain(&y.dims[2..]).chain(&y.dims[..1]).map(|v| *v as i64);
        let args = vec![Arg::In(0), Arg::In(1), Arg::Out(0), i64_struct(params), Arg::F32(self.spatial_scale)];
        Ok(program(y.numel(), args, dev))
    }
}

fn import(cx: &mut ImportCx<'_>) -> Result<Vec<ValueId>> {
    let inputs = [cx.input(0)?, cx.input(1)?];
    let shape = cx.ints("pooled_shape")?.ok_or_else(|| err!(InvalidArgument, "attribute pooled_shape is missing"))?;
    let [height, width] = shape[..] else {
        return Err(err!(InvalidArgument, "attribute pooled_shape: expected 2 numbers, got {}", shape.len()));
    };
    let spatial_scale = cx.float("spatial_scale", 1.0)?;
    Ok(vec![cx.add(MaxRoiPool { height, width, spatial_scale }, &inputs)?])
}
