//! One resized axis: from output position to input coordinate, and from there to neighbours and weights.

use super::{CoordinateMode, NearestMode, Resize, ResizeMode};

/// Sizes, scale and region of one axis.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AxisPlan {
    pub input: usize,
    pub output: usize,
    /// Output over input, as given or as the quotient of the sizes.
    pub scale: f32,
    /// Begin and end of the region in units of the axis, for `TfCropAndResize`.
    pub roi: (f32, f32),
}

impl AxisPlan {
    /// An axis that stays.
    pub fn identity(size: usize) -> AxisPlan {
        AxisPlan { input: size, output: size, scale: 1.0, roi: (0.0, 1.0) }
    }

    /// True when every output position is the same input position.
    pub fn is_identity(&self) -> bool {
        self.input == self.output && self.scale == 1.0 && self.roi == (0.0, 1.0)
    }

    /// The input coordinate of an output position.
    pub fn coordinate(&self, mode: CoordinateMode, o: usize) -> f32 {
        let (x, n_in, n_out) = (o as f32, self.input as f32, self.output as f32);
        match mode {
            CoordinateMode::HalfPixel => (x + 0.5) / self.scale - 0.5,
            CoordinateMode::HalfPixelSymmetric => {
                let adjustment = n_out / (self.scale * n_in);
                let offset = n_in / 2.0 * (1.0 - adjustment);
                offset + (x + 0.5) / self.scale - 0.5
            }
            CoordinateMode::PytorchHalfPixel if self.output > 1 => (x + 0.5) / self.scale - 0.5,
            CoordinateMode::PytorchHalfPixel => 0.0,
            CoordinateMode::AlignCorners if self.output > 1 => x * (n_in - 1.0) / (n_out - 1.0),
            CoordinateMode::AlignCorners => 0.0,
            CoordinateMode::Asymmetric => x / self.scale,
            CoordinateMode::TfHalfPixelForNn => (x + 0.5) / self.scale,
            CoordinateMode::TfCropAndResize => {
                let (start, end) = self.roi;
                let (first, last) = (start * (n_in - 1.0), end * (n_in - 1.0));
                if self.output > 1 { first + x * (last - first) / (n_out - 1.0) } else { 0.5 * (first + last) }
            }
        }
    }
}

/// For each output position of one axis: `n` input positions with weights.
#[derive(Clone, Debug, PartialEq)]
pub struct Taps {
    /// Neighbours of each output position.
    pub n: usize,
    /// `n` positions an output position, all inside the axis.
    pub positions: Vec<u32>,
    pub weights: Vec<f32>,
    /// Output positions whose coordinate leaves the input, in the mode that extrapolates; empty elsewhere.
    outside: Vec<bool>,
}

impl Taps {
    pub fn new(op: &Resize, plan: &AxisPlan) -> Taps {
        if plan.is_identity() {
            let positions = (0..plan.output as u32).collect();
            return Taps { n: 1, positions, weights: vec![1.0; plan.output], outside: vec![] };
        }
        let mut taps = Taps { n: 0, positions: vec![], weights: vec![], outside: vec![] };
        let last = plan.input as i64 - 1;
        for o in 0..plan.output {
            let x = plan.coordinate(op.coordinates, o);
            if op.coordinates == CoordinateMode::TfCropAndResize {
                taps.outside.push(!(x >= 0.0 && x <= last as f32));
            }
            let mut near = neighbours(op, plan.scale, x);
            taps.n = near.len();
            if op.exclude_outside && op.mode != ResizeMode::Nearest {
                let sum: f32 = near.iter().filter(|(i, _)| (0..=last).contains(i)).map(|(_, w)| w).sum();
                for (i, w) in &mut near {
                    *w = if (0..=last).contains(i) && sum != 0.0 { *w / sum } else { 0.0 };
                }
            }
            taps.positions.extend(near.iter().map(|(i, _)| (*i).clamp(0, last) as u32));
            taps.weights.extend(near.iter().map(|(_, w)| w));
        }
        taps
    }

    /// Input positions of an output position.
    pub fn at(&self, o: usize) -> &[u32] {
        &self.positions[o * self.n..(o + 1) * self.n]
    }

    pub fn weights(&self, o: usize) -> &[f32] {
        &self.weights[o * self.n..(o + 1) * self.n]
    }

    /// False where the output position is extrapolated.
    pub fn is_inside(&self, o: usize) -> bool {
        self.outside.get(o).is_none_or(|outside| !outside)
    }

    /// No position is extrapolated.
    pub fn inside(&self) -> bool {
        !self.outside.contains(&true)
    }
}

/// Positions (maybe outside of the axis) and weights around a coordinate.
fn neighbours(op: &Resize, scale: f32, x: f32) -> Vec<(i64, f32)> {
    // Far outside of any axis, and not where integers end.
    let floor = x.floor().clamp(-1e12, 1e12);
    let (base, ratio) = (floor as i64, x - floor);
    match op.mode {
        ResizeMode::Nearest => {
            let up = match op.nearest {
                NearestMode::RoundPreferFloor => ratio > 0.5,
                NearestMode::RoundPreferCeil => ratio >= 0.5,
                NearestMode::Floor => false,
                NearestMode::Ceil => ratio > 0.0,
            };
            vec![(base + up as i64, 1.0)]
        }
        ResizeMode::Linear if op.antialias && scale < 1.0 => widened(base, ratio, scale, 1.0, |d| 1.0 - d),
        ResizeMode::Linear => vec![(base, 1.0 - ratio), (base + 1, ratio)],
        ResizeMode::Cubic => {
            let a = op.cubic_coeff_a;
            let kernel = move |d: f32| match d {
                _ if d <= 1.0 => ((a + 2.0) * d - (a + 3.0)) * d * d + 1.0,
                _ if d < 2.0 => ((a * d - 5.0 * a) * d + 8.0 * a) * d - 4.0 * a,
                _ => 0.0,
            };
            if op.antialias && scale < 1.0 {
                return widened(base, ratio, scale, 2.0, kernel);
            }
            (-1..=2).map(|k| (base + k, kernel((k as f32 - ratio).abs()))).collect()
        }
    }
}

/// The filter stretched by 1/scale, so that every input element counts when shrinking; the weights add up to 1.
fn widened(base: i64, ratio: f32, scale: f32, reach: f32, kernel: impl Fn(f32) -> f32) -> Vec<(i64, f32)> {
    let first = (-reach / scale).floor() as i64 + 1;
    let taps = (first..2 - first).map(|k| {
        let d = ((k as f32 - ratio) * scale).abs();
        (base + k, if d < reach { kernel(d) } else { 0.0 })
    });
    let mut taps: Vec<(i64, f32)> = taps.collect();
    let sum: f32 = taps.iter().map(|(_, w)| w).sum();
    taps.iter_mut().for_each(|(_, w)| *w /= sum);
    taps
}
