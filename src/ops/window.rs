//! The arithmetic of sliding windows that convolution and pooling share: padding rules and output sizes.

use crate::base::{Dim, Fact, Result};
use crate::{attr_enum, ensure, err};
use std::ops::Range;

attr_enum! {
    /// ONNX `auto_pad`. `SameUpper` puts the odd element of padding at the end, `SameLower` at the begin.
    pub enum AutoPad { NotSet = "NOTSET", SameUpper = "SAME_UPPER", SameLower = "SAME_LOWER", Valid = "VALID" }
}

attr_enum! {
    /// Where the channels of a window operator stand, as its tensors lie in memory. An operator that was written without
    /// the attribute has them first.
    pub enum ChannelOrder or First {
        /// x [n, c, spatial..], w [m, c/group, kernel..], y [n, m, spatial..].
        First = "first",
        /// x [n, spatial.., c], w [m, kernel.., c/group], y [n, spatial.., m].
        Last = "last",
        /// x and w as in `First`, y as in `Last`: the kernel changes the order while it reads. For the first layer of a
        /// network, whose few channels would not fill a vector.
        FirstToLast = "first_to_last",
    }
}

impl ChannelOrder {
    /// The input and the weight have their channels last.
    pub fn reads_last(self) -> bool {
        self == ChannelOrder::Last
    }

    /// The output has its channels last.
    pub fn gives_last(self) -> bool {
        self != ChannelOrder::First
    }

    /// The axis of channels in the input.
    pub fn input_channels(self, rank: usize) -> usize {
        channel_axis(self.reads_last(), rank)
    }

    /// The axis of channels in the output.
    pub fn output_channels(self, rank: usize) -> usize {
        channel_axis(self.gives_last(), rank)
    }

    /// The spatial axes of the input, and the kernel's axes of the weight.
    pub fn input_spatial(self, rank: usize) -> Range<usize> {
        spatial_axes(self.reads_last(), rank)
    }

    /// The spatial axes of the output.
    pub fn output_spatial(self, rank: usize) -> Range<usize> {
        spatial_axes(self.gives_last(), rank)
    }

    /// A shape of the output's rank from its parts, in their order.
    pub fn output_shape<T>(self, n: T, channels: T, spatial: Vec<T>) -> Vec<T> {
        let mut shape = vec![n];
        if self.gives_last() {
            shape.extend(spatial);
            shape.push(channels);
        } else {
            shape.push(channels);
            shape.extend(spatial);
        }
        shape
    }
}

/// The axis of channels of a tensor of this rank.
fn channel_axis(last: bool, rank: usize) -> usize {
    if last { rank.saturating_sub(1) } else { 1 }
}

/// The spatial axes of a tensor of this rank.
fn spatial_axes(last: bool, rank: usize) -> Range<usize> {
    if last { 1..rank.max(2) - 1 } else { 2..rank.max(2) }
}

/// A window along one axis.
#[derive(Clone, Copy, Debug)]
pub struct Axis {
    pub kernel: i64,
    pub stride: i64,
    pub dilation: i64,
    pub pad_begin: i64,
    pub pad_end: i64,
    pub auto_pad: AutoPad,
    pub ceil_mode: bool,
}

impl Axis {
    /// Checks that the numbers make a window.
    pub fn check(&self) -> Result<()> {
        ensure!(self.kernel >= 1, InvalidArgument, "kernel size {} is below 1", self.kernel);
        ensure!(self.stride >= 1, InvalidArgument, "stride {} is below 1", self.stride);
        ensure!(self.dilation >= 1, InvalidArgument, "dilation {} is below 1", self.dilation);
        Ok(())
    }

    /// Elements that the window spans.
    pub fn span(&self) -> i64 {
        (self.kernel - 1).saturating_mul(self.dilation).saturating_add(1)
    }

    /// Output size for an input size.
    pub fn output(&self, input: &Dim) -> Result<Dim> {
        self.check()?;
        let size = match self.auto_pad {
            AutoPad::SameUpper | AutoPad::SameLower => input.ceil_div(self.stride),
            AutoPad::Valid => self.strided(&(input - &Dim::from(self.span())))?,
            AutoPad::NotSet => {
                let padded = input + self.pad_begin.saturating_add(self.pad_end).saturating_sub(self.span());
                if self.ceil_mode {
                    let up = &padded.ceil_div(self.stride) + 1;
                    // The last window must start inside the input or the begin padding; no window can start later
                    // when the end padding and a stride together fit into the window.
                    if self.pad_end.saturating_add(self.stride) <= self.span() {
                        up
                    } else {
                        let starts = input + self.pad_begin.saturating_sub(1);
                        up.min_of(&self.strided(&starts)?)
                    }
                } else {
                    self.strided(&padded)?
                }
            }
        };
        ensure!(
            size.as_const().is_none_or(|s| s >= 0),
            InvalidArgument,
            "a window of {} elements does not fit an input of {input} with padding {}+{}",
            self.span(),
            self.pad_begin,
            self.pad_end
        );
        Ok(size)
    }

    /// One more than the strides that fit `room`, rounding toward zero as ONNX's own shape inference does: an input that
    /// is short of one window by less than a stride still gives one output, whose window reads past the end as padding.
    fn strided(&self, room: &Dim) -> Result<Dim> {
        if let Some(r) = room.as_const() {
            return Ok(Dim::from(r / self.stride + 1));
        }
        let steps = room.floor_div(&Dim::from(self.stride)).ok_or_else(|| err!(InvalidArgument, "stride is 0"))?;
        Ok(steps + 1)
    }

    /// Padding at begin and end for concrete sizes, with `auto_pad` resolved.
    pub fn pads(&self, input: i64, output: i64) -> (i64, i64) {
        match self.auto_pad {
            AutoPad::NotSet => (self.pad_begin, self.pad_end),
            AutoPad::Valid => (0, 0),
            same => {
                let total = ((output - 1) * self.stride + self.span() - input).max(0);
                let small = total / 2;
                if same == AutoPad::SameUpper { (small, total - small) } else { (total - small, small) }
            }
        }
    }
}

/// Spatial axes that convolution and pooling take at most.
pub const MAX_SPATIAL: usize = 3;

/// The lists that describe the windows of all spatial axes, as attributes hold them; an empty list means all ones
/// (strides, dilations) or all zeros (pads).
#[derive(Clone, Copy, Debug)]
pub struct Windows<'a> {
    pub strides: &'a [i64],
    /// Begins of all axes, then ends of all axes.
    pub pads: &'a [i64],
    pub dilations: &'a [i64],
    pub auto_pad: AutoPad,
    pub ceil_mode: bool,
}

impl Windows<'_> {
    /// One window an axis, for these kernel sizes; fails when a list has the wrong length or a number is no window.
    pub fn axes(&self, kernel: &[i64]) -> Result<Vec<Axis>> {
        let n = kernel.len();
        ensure!(
            (1..=MAX_SPATIAL).contains(&n),
            Unsupported,
            "expected 1 to {MAX_SPATIAL} spatial axes, got {n}"
        );
        let lists = [("strides", self.strides, n), ("dilations", self.dilations, n), ("pads", self.pads, 2 * n)];
        for (name, list, want) in lists {
            ensure!(
                list.is_empty() || list.len() == want,
                InvalidArgument,
                "{name}: expected {want} numbers for {n} spatial axes, got {}",
                list.len()
            );
        }
        let at = |list: &[i64], i: usize, default: i64| list.get(i).copied().unwrap_or(default);
        (0..n)
            .map(|i| {
                let axis = Axis {
                    kernel: kernel[i],
                    stride: at(self.strides, i, 1),
                    dilation: at(self.dilations, i, 1),
                    pad_begin: at(self.pads, i, 0),
                    pad_end: at(self.pads, n + i, 0),
                    auto_pad: self.auto_pad,
                    ceil_mode: self.ceil_mode,
                };
                axis.check()?;
                ensure!(
                    axis.pad_begin >= 0 && axis.pad_end >= 0,
                    InvalidArgument,
                    "pads {}+{} of spatial axis {i} are negative",
                    axis.pad_begin,
                    axis.pad_end
                );
                // Keeps every product of the window arithmetic inside 64 bits.
                let limit = i32::MAX as i64;
                ensure!(
                    axis.span() <= limit && axis.stride <= limit && axis.pad_begin.max(axis.pad_end) <= limit,
                    InvalidArgument,
                    "the window of spatial axis {i} is too large"
                );
                Ok(axis)
            })
            .collect()
    }
}

/// Sizes of the spatial axes of a weight with its channels first, which must be numbers.
pub fn kernel_sizes(weight: &Fact) -> Result<Vec<i64>> {
    kernel_sizes_in(weight, ChannelOrder::First)
}

/// Sizes of the spatial axes of a weight, which must be numbers.
pub fn kernel_sizes_in(weight: &Fact, order: ChannelOrder) -> Result<Vec<i64>> {
    let axes = order.input_spatial(weight.rank());
    weight.shape.get(axes).unwrap_or_default().iter()
        .map(|d| d.as_const().ok_or_else(|| err!(Unsupported, "kernel sizes must be numbers, got {}", weight.shape)))
        .collect()
}

/// Windows over concrete sizes with padding resolved. Spatial axes are right-aligned in three; missing ones have
/// size 1, kernel 1, stride 1, dilation 1 and no padding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window3 {
    pub input: [usize; 3],
    pub output: [usize; 3],
    pub kernel: [usize; 3],
    pub stride: [usize; 3],
    pub dilation: [usize; 3],
    pub pad_begin: [usize; 3],
    pub pad_end: [usize; 3],
}

impl Window3 {
    /// From one window an axis and the spatial sizes of input and output.
    pub fn new(axes: &[Axis], input: &[usize], output: &[usize]) -> Window3 {
        let mut w = Window3 {
            input: [1; 3],
            output: [1; 3],
            kernel: [1; 3],
            stride: [1; 3],
            dilation: [1; 3],
            pad_begin: [0; 3],
            pad_end: [0; 3],
        };
        let skip = MAX_SPATIAL - axes.len();
        for (i, a) in axes.iter().enumerate() {
            let (begin, end) = a.pads(input[i] as i64, output[i] as i64);
            w.input[skip + i] = input[i];
            w.output[skip + i] = output[i];
            w.kernel[skip + i] = a.kernel as usize;
            w.stride[skip + i] = a.stride as usize;
            w.dilation[skip + i] = a.dilation as usize;
            w.pad_begin[skip + i] = begin.max(0) as usize;
            w.pad_end[skip + i] = end.max(0) as usize;
        }
        w
    }

    /// The input position of kernel element `k` for output position `o` along an axis, when it is inside the input.
    pub fn source(&self, axis: usize, o: usize, k: usize) -> Option<usize> {
        (o * self.stride[axis] + k * self.dilation[axis])
            .checked_sub(self.pad_begin[axis])
            .filter(|i| *i < self.input[axis])
    }

    /// Kernel elements.
    pub fn taps(&self) -> usize {
        self.kernel.iter().product()
    }

    /// Calls `f` with each output position, in row-major order.
    pub fn for_each_output(&self, mut f: impl FnMut([usize; 3])) {
        for d in 0..self.output[0] {
            for h in 0..self.output[1] {
                for w in 0..self.output[2] {
                    f([d, h, w]);
                }
            }
        }
    }

    /// Calls `f` with the flat input position of each element that the window of output `at` covers, in row-major order.
    pub fn for_each_tap(&self, at: [usize; 3], mut f: impl FnMut(usize)) {
        for a in 0..self.kernel[0] {
            let Some(d) = self.source(0, at[0], a) else { continue };
            for b in 0..self.kernel[1] {
                let Some(h) = self.source(1, at[1], b) else { continue };
                for c in 0..self.kernel[2] {
                    let Some(w) = self.source(2, at[2], c) else { continue };
                    f((d * self.input[1] + h) * self.input[2] + w);
                }
            }
        }
    }

    /// Calls `f` with the kernel element and the flat input position of each element that the window of output `at`
    /// covers, in row-major order.
    pub fn for_each_source(&self, at: [usize; 3], mut f: impl FnMut(usize, usize)) {
        for a in 0..self.kernel[0] {
            let Some(d) = self.source(0, at[0], a) else { continue };
            for b in 0..self.kernel[1] {
                let Some(h) = self.source(1, at[1], b) else { continue };
                for c in 0..self.kernel[2] {
                    let Some(w) = self.source(2, at[2], c) else { continue };
                    f((a * self.kernel[1] + b) * self.kernel[2] + c, (d * self.input[1] + h) * self.input[2] + w);
                }
            }
        }
    }

    /// Elements of the window that lie inside input and padding: a window may reach beyond when sizes are rounded up.
    pub fn padded_taps(&self, at: [usize; 3]) -> usize {
        (0..3)
            .map(|i| {
                let room = self.pad_begin[i] + self.input[i] + self.pad_end[i];
                (0..self.kernel[i]).filter(|k| at[i] * self.stride[i] + k * self.dilation[i] < room).count()
            })
            .product()
    }
}
