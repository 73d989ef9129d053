//! Adds the columns of sliding blocks back into images. Inputs: columns [n, c*block, blocks], image_shape [r],
//! block_shape [r] (integers, host). Output: [n, c, image_shape..], any number of spatial axes up to [`MAX_AXES`].
//!
//! Floats are added up in f64 (f32 on devices; f64 for f64), integers wrap.

use crate::base::{Dim, Fact, Result, Shape, Tensor};
use crate::device::DeviceProps;
use crate::network::ValueId;
use crate::ops::per_output::{program, tactic, zeros};
use crate::ops::window::Axis;
use crate::ops::{
    Arg, EvalCx, ImportCx, InferCx, KernelSpec, OpDef, Problem, StepProgram, Tactic, TacticOptions, cuda_type, fresh_dim,
    i64_struct, onnx,
};
use crate::{ensure, err, op_home, op_struct};

op_struct! {
    /// Adds the columns of sliding blocks back into images. Inputs: columns, image_shape, block_shape (both host).
    pub struct Col2Im {
        /// One a spatial axis; empty: all 1. The same holds for `dilations`.
        pub strides: Vec<i64>,
        /// Begins of all axes, then ends; empty: all 0.
        pub pads: Vec<i64>,
        pub dilations: Vec<i64>,
    }
}

op_home!(Col2Im, "Col2Im", &[onnx("Col2Im", 18, import)]);

/// Spatial axes at most.
const MAX_AXES: usize = 6;

/// One spatial axis at concrete sizes.
#[derive(Clone, Copy, Debug)]
struct BlockAxis {
    image: i64,
    block: i64,
    /// Positions of the block.
    steps: i64,
    stride: i64,
    pad: i64,
    dilation: i64,
}

impl BlockAxis {
    /// The position of the block at which its element `k` lies on element `i` of the image.
    fn step(&self, i: i64, k: i64) -> Option<i64> {
        let at = i + self.pad - k * self.dilation;
        (at >= 0 && at % self.stride == 0 && at / self.stride < self.steps).then_some(at / self.stride)
    }
}

impl Col2Im {
    fn axes(&self, image: &[i64], block: &[i64]) -> Result<Vec<BlockAxis>> {
        let r = image.len();
        ensure!(
            block.len() == r && (1..=MAX_AXES).contains(&r),
            Unsupported,
            "an image of {r} axes with blocks of {}: expected 1 to {MAX_AXES}",
            block.len()
        );
        let lists = [("strides", &self.strides, r), ("dilations", &self.dilations, r), ("pads", &self.pads, 2 * r)];
        for (name, list, want) in lists {
            ensure!(
                list.is_empty() || list.len() == want,
                InvalidArgument,
                "{name}: expected {want} numbers for {r} axes, got {}",
                list.len()
            );
        }
        let at = |list: &[i64], i: usize, default: i64| list.get(i).copied().unwrap_or(default);
        let limit = i32::MAX as i64;
        (0..r)
            .map(|i| {
                let (begin, end) = (at(&self.pads, i, 0), at(&self.pads, r + i, 0));
                let axis = Axis {
                    kernel: block[i],
                    stride: at(&self.strides, i, 1),
                    dilation: at(&self.dilations, i, 1),
                    pad_begin: begin,
                    pad_end: end,
                    auto_pad: crate::ops::window::AutoPad::NotSet,
                    ceil_mode: false,
                };
                axis.check()?;
                let room = image[i] + begin + end - axis.span();
                ensure!(
                    (0..=limit).contains(&image[i])
                        && (0..=limit).contains(&begin)
                        && (0..=limit).contains(&end)
                        && axis.span() <= limit
                        && axis.stride <= limit
                        && room >= 0,
                    InvalidArgument,
                    "a block of {} elements in an image of {} with padding {begin}+{end}",
                    axis.span(),
                    image[i]
                );
                Ok(BlockAxis {
                    image: image[i],
                    block: block[i],
                    steps: room / axis.stride + 1,
                    stride: axis.stride,
                    pad: begin,
                    dilation: axis.dilation,
                })
            })
            .collect()
    }

    /// The axes of a problem whose operands are known.
    fn known_axes(&self, p: &Problem) -> Result<Vec<BlockAxis>> {
        let ints = |i: usize| {
            p.known(i).map(|t| t.to_i64s()).ok_or_else(|| err!(InvalidState, "operand {i} of col2im is not known"))
        };
        self.axes(&ints(1)?, &ints(2)?)
    }
}

fn product(v: impl IntoIterator<Item = i64>) -> Result<i64> {
    v.into_iter()
        .try_fold(1i64, |n, d| n.checked_mul(d))
        .ok_or_else(|| err!(InvalidArgument, "the product of a shape overflows"))
}

/// Calls `f` with the place in the columns (tap, step) of everything that lies on an element of the image.
fn for_each_source(axes: &[BlockAxis], element: i64, mut f: impl FnMut(usize, usize)) {
    let taps: i64 = axes.iter().map(|a| a.block).product();
    for tap in 0..taps {
        let (mut element, mut rest, mut place, mut stride) = (element, tap, 0i64, 1i64);
        let inside = axes.iter().rev().all(|a| {
            let (i, k) = (element % a.image, rest % a.block);
            (element, rest) = (element / a.image, rest / a.block);
            let step = a.step(i, k);
            place += step.unwrap_or(0) * stride;
            stride *= a.steps;
            step.is_some()
        });
        if inside {
            f(tap as usize, place as usize);
        }
    }
}

impl OpDef for Col2Im {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Vec<Fact>> {
        cx.arity(3, 3)?;
        let x = cx.input(0)?;
        cx.rank(0, 3)?;
        ensure!(x.dtype.is_float() || x.dtype.is_int(), Unsupported, "input 0: columns of {} have no sum", x.dtype);
        for i in 1..3 {
            let f = cx.input(i)?;
            ensure!(f.dtype.is_int() && f.rank() == 1, InvalidArgument, "input {i}: expected a vector of integers, got {f}");
        }
        let r = cx.input(1)?.shape[0].as_const().or(cx.input(2)?.shape[0].as_const());
        let r = r.filter(|r| (1..=MAX_AXES as i64).contains(r));
        let r = r.ok_or_else(|| err!(Unsupported, "input 1: expected 1 to {MAX_AXES} sizes, got {}", cx.input(1).map_or("none".into(), |f| f.to_string())))?;
        let mut shape = vec![x.shape[0].clone()];
        let block = cx.ints(2)?;
        let image = cx.dims(1)?;
        match &block {
            Some(b) => {
                let taps = product(b.iter().copied())?;
                ensure!(taps >= 1, InvalidArgument, "a block of {b:?}");
                ensure!(
                    x.shape[1].as_const().is_none_or(|d| d % taps == 0),
                    InvalidArgument,
                    "input 0: {} rows are no multiple of the {taps} elements of a block",
                    x.shape[1]
                );
                shape.push(x.shape[1].floor_div(&Dim::from(taps)).unwrap_or_else(|| fresh_dim("col2im")));
            }
            None => shape.push(fresh_dim("col2im")),
        }
        match &image {
            Some(d) => {
                ensure!(d.len() == r as usize, InvalidArgument, "{} image sizes for {r} axes", d.len());
                shape.extend(d.iter().cloned());
            }
            None => shape.extend((0..r).map(|_| fresh_dim("col2im"))),
        }
        let numbers = image.and_then(|d| d.iter().map(|d| d.as_const()).collect::<Option<Vec<i64>>>());
        if let (Some(image), Some(block)) = (numbers, block) {
            let steps = product(self.axes(&image, &block)?.iter().map(|a| a.steps))?;
            ensure!(
                x.shape[2].as_const().is_none_or(|l| l == steps),
                InvalidArgument,
                "input 0: expected {steps} columns, got {}",
                x.shape[2]
            );
        }
        Ok(vec![Fact::new(x.dtype, Shape(shape))])
    }

    fn eval(&self, cx: &EvalCx<'_>) -> Result<Vec<Tensor>> {
        let x = cx.input(0)?;
        let out = cx.output(0)?;
        let axes = self.axes(&cx.ints(1)?, &cx.ints(2)?)?;
        let steps = axes.iter().map(|a| a.steps as usize).product::<usize>();
        let taps = axes.iter().map(|a| a.block as usize).product::<usize>();
        let pixels = axes.iter().map(|a| a.image).product::<i64>();
        let planes = out.shape()[0] * out.shape()[1];
        let mut places = Vec::new();
        let mut ends = Vec::new();
        for element in 0..pixels {
            for_each_source(&axes, element, |tap, step| places.push(tap * steps + step));
            ends.push(places.len());
        }
        let sum = |plane: usize, add: &mut dyn FnMut(usize, bool)| {
            let mut first = 0;
            for end in &ends {
                places[first..*end].iter().for_each(|p| add(plane * taps * steps + p, false));
                add(0, true);
                first = *end;
            }
        };
        let shape = out.shape();
        Ok(vec![if x.dtype().is_float() {
            let v = x.to_f64s();
            let (mut result, mut total) = (Vec::with_capacity(out.numel()), 0.0);
            (0..planes).for_each(|plane| {
                sum(plane, &mut |at, end| {
                    if end {
                        result.push(std::mem::take(&mut total));
                    } else {
                        total += v[at];
                    }
                })
            });
            Tensor::from_slice(shape, &result).cast(x.dtype())
        } else {
            let v = x.to_i64s();
            let (mut result, mut total) = (Vec::with_capacity(out.numel()), 0i64);
            (0..planes).for_each(|plane| {
                sum(plane, &mut |at, end| {
                    if end {
                        result.push(std::mem::take(&mut total));
                    } else {
                        total = total.wrapping_add(v[at]);
                    }
                })
            });
            Tensor::from_slice(shape, &result).cast(x.dtype())
        }])
    }

    fn host_inputs(&self) -> Vec<usize> {
        vec![1, 2]
    }

    fn cuda_tactics(&self, p: &Problem, _dev: &DeviceProps, _opt: &TacticOptions) -> Vec<Tactic> {
        let Some(x) = p.input(0) else { return vec![] };
        let r = p.outputs[0].dims.len() - 2;
        let spec = KernelSpec::new("col2im.cu").define_type("T_IN", x.dtype).define("RANK", r);
        tactic(format!("col2im/{r}d_{}", cuda_type(x.dtype)), spec)
    }

    fn cuda_program(&self, _tactic: &Tactic, p: &Problem, dev: &DeviceProps) -> Result<StepProgram> {
        let y = &p.outputs[0];
        let axes = self.known_axes(p)?;
        if y.numel() == 0 {
            return Ok(StepProgram::default());
        }
        if p.input(0).is_none_or(|x| x.numel() == 0) {
            return Ok(zeros(y.bytes()));
        }
        let list = |f: &dyn Fn(&BlockAxis) -> i64, fill: i64| {
            let mut v: Vec<i64> = axes.iter().map(f).collect();
            v.resize(MAX_AXES, fill);
            v
        };
        let mut params = vec![(y.dims[0] * y.dims[1]) as i64];
        params.extend(list(&|a| a.image, 1));
        params.extend(list(&|a| a.block, 1));
        params.extend(list(&|a| a.steps, 1));
        params.extend(list(&|a| a.stride, 1));
        params.extend(list(&|a| a.pad, 0));
        params.extend(list(&|a| a.dilation, 1));
        Ok(program(y.numel(), vec![Arg::In(0), Arg::Out(0), i64_struct(params)], dev))
    }
}

fn import(cx: &mut ImportCx<'_>) -> Result<Vec<ValueId>> {
    let inputs = [cx.input(0)?, cx.input(1)?, cx.input(2)?];
    let list = |name: &str| Ok::<_, crate::base::Error>(cx.ints(name)?.unwrap_or_default());
    let op = Col2Im { strides: list("strides")?, pads: list("pads")?, dilations: list("dilations")? };
    Ok(vec![cx.add(op, &inputs)?])
}
