//! The arithmetic of sliding windows that convolution and pooling share: padding rules and output sizes.

use crate::base::{Dim, Result};
use crate::{attr_enum, ensure, err};

attr_enum! {
    /// ONNX `auto_pad`. `SameUpper` puts the odd element of padding at the end, `SameLower` at the begin.
    pub enum AutoPad { NotSet = "NOTSET", SameUpper = "SAME_UPPER", SameLower = "SAME_LOWER", Valid = "VALID" }
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
                    // The last window must start inside the input or the begin padding.
                    match (up.as_const(), input.as_const()) {
                        (Some(n), Some(i)) if (n - 1) * self.stride >= i + self.pad_begin => Dim::from(n - 1),
                        _ => up,
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

    fn strided(&self, room: &Dim) -> Result<Dim> {
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
