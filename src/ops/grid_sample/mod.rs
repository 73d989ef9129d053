//! Samples an image at the positions that a grid names. Inputs: x [n, c, in..] of any type, grid [n, out.., r] of a
//! floating-point type, for r = 1 to 3 spatial axes. Output: [n, c, out..].
//!
//! The last axis of the grid is a position between -1 and 1 along each axis, the innermost axis first. Coordinates are
//! computed in f32 (f64 for a grid of f64), sums in f64. An integer result is truncated. A position that is no number
//! is taken as one far outside.

mod cuda;

use crate::base::real::{Real, reals};
use crate::base::tensor::{Scalar, convert};
use crate::base::{Dim, Fact, Result, Shape, Tensor};
use crate::device::DeviceProps;
use crate::device::cpu::{SharedMut, for_each_task};
use crate::network::ValueId;
use crate::ops::{EvalCx, ImportCx, InferCx, OnnxOp, OpDef, Problem, StepProgram, Tactic, TacticOptions, onnx};
use crate::{attr_enum, bail, dispatch, dispatch_real, ensure, op_home, op_struct};

attr_enum! {
    /// How values between elements are made.
    pub enum SampleMode { Nearest = "nearest", Linear = "linear", Cubic = "cubic" }
}
attr_enum! {
    /// What lies outside of the image.
    pub enum SamplePadding { Zeros = "zeros", Border = "border", Reflection = "reflection" }
}

op_struct! {
    /// Samples an image at the positions that a grid names. Inputs: x, grid.
    pub struct GridSample {
        pub mode: SampleMode,
        pub padding: SamplePadding,
        /// -1 and 1 are the centers of the outermost elements instead of their outer edges.
        pub align_corners: bool,
    }
}

op_home!(
    GridSample,
    "GridSample",
    &[
        onnx("GridSample", 16, import),
        OnnxOp { domain: "com.microsoft", name: "GridSample", since: 1, import },
    ]
);

/// Spatial axes at most.
const MAX_SPATIAL: usize = 3;
/// Neighbours along an axis at most.
const MAX_TAPS: usize = 4;
/// Coordinates beyond are all alike.
const FAR: f64 = (1u64 << 30) as f64;
/// Keys' parameter.
const CUBIC_A: f64 = -0.75;

/// Sizes; spatial axes are right-aligned, missing ones have size 1.
pub(super) struct Geometry {
    pub n: usize,
    pub c: usize,
    pub r: usize,
    pub input: [usize; MAX_SPATIAL],
    /// Output positions of one image.
    pub points: usize,
}

impl Geometry {
    pub fn new(x: &[usize], y: &[usize]) -> Geometry {
        let r = x.len() - 2;
        let mut input = [1; MAX_SPATIAL];
        input[MAX_SPATIAL - r..].copy_from_slice(&x[2..]);
        Geometry { n: x[0], c: x[1], r, input, points: y[2..].iter().product() }
    }
}

/// The neighbours of a coordinate along one axis; `None` is outside and counts as zero.
struct Taps {
    n: usize,
    at: [Option<usize>; MAX_TAPS],
    weight: [f64; MAX_TAPS],
}

impl GridSample {
    /// Reflects a coordinate between two borders as often as needed.
    fn reflect<R: Real>(x: R, lo: R, hi: R) -> R {
        let (range, two) = (hi - lo, R::of(2.0));
        if !(range > R::of(0.0)) {
            return lo;
        }
        let beyond = |d: R| {
            let times = (d / range).trunc();
            (d - times * range, times - two * (times / two).floor() == R::of(0.0))
        };
        if x < lo {
            let (rest, even) = beyond(lo - x);
            if even { lo + rest } else { hi - rest }
        } else if x > hi {
            let (rest, even) = beyond(x - hi);
            if even { hi - rest } else { lo + rest }
        } else {
            x
        }
    }

    fn borders<R: Real>(&self, size: usize) -> (R, R) {
        let n = R::of(size as f64);
        let half = R::of(0.5);
        if self.align_corners { (R::of(0.0), n - R::of(1.0)) } else { (-half, n - half) }
    }

    /// The element that an index stands for, by the padding.
    fn element<R: Real>(&self, i: i64, size: usize) -> Option<usize> {
        let last = size as i64 - 1;
        if (0..=last).contains(&i) {
            return Some(i as usize);
        }
        match self.padding {
            SamplePadding::Zeros => None,
            SamplePadding::Border => Some(i.clamp(0, last) as usize),
            SamplePadding::Reflection => {
                let (lo, hi) = self.borders::<R>(size);
                let v = Self::reflect(R::of(i as f64), lo, hi).within(R::of(0.0), R::of(last as f64));
                Some((v.f64() as usize).min(size - 1))
            }
        }
    }

    /// Neighbours and weights for a grid value along an axis of `size > 0` elements.
    fn taps<R: Real>(&self, g: R, size: usize) -> Taps {
        let (one, two) = (R::of(1.0), R::of(2.0));
        let n = R::of(size as f64);
        let mut x = if self.align_corners { (g + one) / two * (n - one) } else { ((g + one) * n - one) / two };
        if self.mode == SampleMode::Nearest {
            x = x.round_even();
        }
        let (lo, hi) = self.borders::<R>(size);
        match self.padding {
            // Cubic looks at each neighbour alone, as PyTorch and ONNX Runtime do.
            _ if self.mode == SampleMode::Cubic => {}
            SamplePadding::Zeros => {}
            SamplePadding::Border if x < lo || x > hi => x = x.within(R::of(0.0), n - one),
            SamplePadding::Border => {}
            SamplePadding::Reflection => x = Self::reflect(x, lo, hi),
        }
        x = x.within(R::of(-FAR), R::of(FAR));
        let mut taps = Taps { n: 1, at: [None; MAX_TAPS], weight: [1.0; MAX_TAPS] };
        if self.mode == SampleMode::Nearest {
            taps.at[0] = self.element::<R>(x.trunc().f64() as i64, size);
            return taps;
        }
        let floor = x.floor();
        let (i, t) = (floor.f64() as i64, x - floor);
        let (first, weights): (i64, [R; MAX_TAPS]) = match self.mode {
            SampleMode::Cubic => (i - 1, cubic(t)),
            _ => (i, [one - t, t, one, one]),
        };
        taps.n = if self.mode == SampleMode::Cubic { 4 } else { 2 };
        for k in 0..taps.n {
            taps.at[k] = self.element::<R>(first + k as i64, size);
            taps.weight[k] = weights[k].f64();
        }
        taps
    }

    fn sample<T: Scalar, R: Real>(&self, g: &Geometry, x: &[T], grid: &[R], y: &mut [T]) {
        const PART: usize = 256;
        let plane: usize = g.input.iter().product();
        let parts = g.points.div_ceil(PART);
        let y = SharedMut::new(y);
        for_each_task(g.n * parts, |task| {
            let (image, first) = (task / parts, task % parts * PART);
            for point in first..(first + PART).min(g.points) {
                let at = &grid[(image * g.points + point) * g.r..][..g.r];
                let taps: [Taps; MAX_SPATIAL] = std::array::from_fn(|d| match d + g.r {
                    // The innermost axis comes first in the grid.
                    k if k >= MAX_SPATIAL => self.taps(at[MAX_SPATIAL - 1 - d], g.input[d]),
                    _ => Taps { n: 1, at: [Some(0); MAX_TAPS], weight: [1.0; MAX_TAPS] },
                });
                for c in 0..g.c {
                    let image_channel = &x[(image * g.c + c) * plane..][..plane];
                    let value = if self.mode == SampleMode::Nearest {
                        let [a, b, e] = [0, 1, 2].map(|d| taps[d].at[0]);
                        match (a, b, e) {
                            (Some(a), Some(b), Some(e)) => image_channel[(a * g.input[1] + b) * g.input[2] + e],
                            _ => T::default(),
                        }
                    } else {
                        convert::<f64, T>(weighted(g, image_channel, &taps))
                    };
                    // SAFETY: each task has points of its own.
                    unsafe { y.slice((image * g.c + c) * g.points + point, 1)[0] = value };
                }
            }
        });
    }
}

/// Weights of the four neighbours at distances 1+t, t, 1-t, 2-t.
fn cubic<R: Real>(t: R) -> [R; MAX_TAPS] {
    let (a, one, two, three) = (R::of(CUBIC_A), R::of(1.0), R::of(2.0), R::of(3.0));
    let near = |d: R| ((a + two) * d - (a + three)) * d * d + one;
    let far = |d: R| ((a * d - R::of(5.0) * a) * d + R::of(8.0) * a) * d - R::of(4.0) * a;
    [far(t + one), near(t), near(one - t), far(two - t)]
}

fn weighted<T: Scalar>(g: &Geometry, x: &[T], taps: &[Taps; MAX_SPATIAL]) -> f64 {
    let mut sum = 0.0;
    for i in 0..taps[0].n {
        let Some(a) = taps[0].at[i] else { continue };
        for j in 0..taps[1].n {
            let Some(b) = taps[1].at[j] else { continue };
            let row = &x[(a * g.input[1] + b) * g.input[2]..][..g.input[2]];
            let w = taps[0].weight[i] * taps[1].weight[j];
            for k in 0..taps[2].n {
                let Some(e) = taps[2].at[k] else { continue };
                sum += w * taps[2].weight[k] * convert::<T, f64>(row[e]);
            }
        }
    }
    sum
}

impl OpDef for GridSample {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Vec<Fact>> {
        cx.arity(2, 2)?;
        let (x, grid) = (cx.input(0)?, cx.input(1)?);
        cx.float(1)?;
        ensure!(!x.dtype.is_small(), Unsupported, "input 0: {} is not sampled", x.dtype);
        ensure!(
            (3..=2 + MAX_SPATIAL).contains(&x.rank()),
            Unsupported,
            "input 0: expected [n, c, 1 to {MAX_SPATIAL} spatial axes], got {}",
            x.shape
        );
        let r = x.rank() - 2;
        ensure!(
            grid.rank() == x.rank() && grid.shape[r + 1].as_const().is_none_or(|d| d == r as i64),
            InvalidArgument,
            "input 1: expected [n, {r} output axes, {r}] for input {}, got {}",
            x.shape,
            grid.shape
        );
        if let (Some(a), Some(b)) = (x.shape[0].as_const(), grid.shape[0].as_const()) {
            ensure!(a == b, InvalidArgument, "a batch of {a} images with a grid for {b}");
        }
        for d in &x.shape[2..] {
            ensure!(
                d.as_const().is_none_or(|d| d < FAR as i64),
                Unsupported,
                "input 0: an axis of {d} elements is too large to sample"
            );
        }
        let mut shape: Vec<Dim> = x.shape[..2].to_vec();
        shape.extend_from_slice(&grid.shape[1..=r]);
        Ok(vec![Fact::new(x.dtype, Shape(shape))])
    }

    fn eval(&self, cx: &EvalCx<'_>) -> Result<Vec<Tensor>> {
        let (x, grid) = (cx.input(0)?, cx.input(1)?);
        let mut out = cx.output(0)?;
        // An empty image gives zeros.
        if x.numel() > 0 && out.numel() > 0 {
            let g = Geometry::new(x.shape(), out.shape());
            dispatch!(x.dtype(), T => dispatch_real!(grid.dtype(), R => {
                self.sample::<T, R>(&g, x.slice::<T>(), &reals::<R>(grid), out.slice_mut::<T>())
            }));
        }
        Ok(vec![out])
    }

    fn cuda_tactics(&self, p: &Problem, _dev: &DeviceProps, _opt: &TacticOptions) -> Vec<Tactic> {
        cuda::tactics(self, p)
    }

    fn cuda_program(&self, _tactic: &Tactic, p: &Problem, dev: &DeviceProps) -> Result<StepProgram> {
        cuda::program(p, dev)
    }
}

fn import(cx: &mut ImportCx<'_>) -> Result<Vec<ValueId>> {
    let (x, grid) = (cx.input(0)?, cx.input(1)?);
    let mode = cx.string("mode", "linear")?;
    let mode = match mode.as_str() {
        "linear" | "bilinear" => SampleMode::Linear,
        "nearest" => SampleMode::Nearest,
        "cubic" | "bicubic" => SampleMode::Cubic,
        other => bail!(InvalidArgument, "attribute mode: expected linear, nearest or cubic, got {other:?}"),
    };
    let padding = cx.string("padding_mode", "zeros")?;
    let Some(padding) = SamplePadding::from_name(&padding) else {
        bail!(InvalidArgument, "attribute padding_mode: expected zeros, border or reflection, got {padding:?}");
    };
    let align_corners = cx.flag("align_corners", false)?;
    Ok(vec![cx.add(GridSample { mode, padding, align_corners }, &[x, grid])?])
}
