//! Sampling, region pooling, deformable columns and unpooling.

use super::{Case, ints};
use crate::ops::steps::random;
use sinter::base::{DType, Tensor};
use sinter::ops::affine_grid::AffineGrid;
use sinter::ops::col2im::Col2Im;
use sinter::ops::deform_columns::DeformColumns;
use sinter::ops::grid_sample::{GridSample, SampleMode, SamplePadding};
use sinter::ops::max_unpool::MaxUnpool;
use sinter::ops::roi_align::{RoiAlign, RoiMode};
use sinter::ops::roi_pool::MaxRoiPool;

/// Rounding of results in a type.
fn tolerance(dtype: DType) -> f64 {
    match dtype {
        DType::F16 => 4e-3,
        DType::BF16 => 3e-2,
        DType::F32 => 1e-5,
        _ => 1e-12,
    }
}

const FLOATS: [DType; 4] = [DType::F32, DType::F16, DType::BF16, DType::F64];

/// Values between -1.6 and 1.6, on a grid that every type holds, so that ties fall alike.
fn positions(dtype: DType, shape: &[usize]) -> Tensor {
    let n: usize = shape.iter().product();
    let v: Vec<f32> = (0..n).map(|i| ((i * 37 + 11) % 205) as f32 / 64.0 - 1.6015625).collect();
    Tensor::from_slice(shape, &v).cast(dtype)
}

fn samples(out: &mut Vec<Case>) {
    for mode in SampleMode::ALL.iter().copied() {
        for padding in SamplePadding::ALL.iter().copied() {
            for align_corners in [false, true] {
                let op = GridSample { mode, padding, align_corners };
                let shapes: [(&[usize], &[usize]); 5] = [
                    (&[2, 3, 5, 4], &[2, 6, 7, 2]),
                    (&[1, 9, 1, 3], &[1, 2, 5, 2]),
                    (&[2, 2, 7], &[2, 9, 1]),
                    (&[1, 2, 3, 4, 5], &[1, 2, 3, 4, 3]),
                    (&[2, 3, 4, 4], &[2, 0, 3, 2]),
                ];
                for (x, grid) in shapes {
                    let name = format!("{mode:?} {padding:?} align {align_corners} of {x:?}");
                    let inputs = vec![Some(random(DType::F32, x, 1)), Some(positions(DType::F32, grid))];
                    out.push(Case::new(name, op.clone(), inputs).within(1e-5));
                }
            }
        }
    }
    let op = GridSample { mode: SampleMode::Cubic, padding: SamplePadding::Reflection, align_corners: false };
    for dtype in FLOATS {
        for grid in FLOATS {
            let inputs = vec![Some(random(dtype, &[1, 2, 6, 5], 2)), Some(positions(grid, &[1, 4, 3, 2]))];
            let t = tolerance(dtype).max(if grid == DType::F64 { 0.0 } else { 1e-5 });
            out.push(Case::new(format!("cubic {dtype} at {grid}"), op.clone(), inputs).within(t));
        }
    }
    let nearest = GridSample { mode: SampleMode::Nearest, ..op };
    for dtype in [DType::U8, DType::I64, DType::Bool] {
        let inputs = vec![Some(random(dtype, &[1, 2, 6, 5], 3)), Some(positions(DType::F32, &[1, 4, 3, 2]))];
        out.push(Case::new(format!("nearest {dtype}"), nearest.clone(), inputs));
    }
    let empty = vec![Some(Tensor::zeros(DType::F32, &[1, 2, 0, 5])), Some(positions(DType::F32, &[1, 4, 3, 2]))];
    out.push(Case::new("an empty image", nearest, empty));
}

fn grids(out: &mut Vec<Case>) {
    for align_corners in [false, true] {
        for dtype in FLOATS {
            let op = AffineGrid { align_corners };
            let plane = vec![Some(random(dtype, &[2, 2, 3], 4)), ints(&[2, 3, 5, 4])];
            out.push(Case::new(format!("plane {dtype}"), op.clone(), plane).within(tolerance(dtype)));
            let volume = vec![Some(random(dtype, &[1, 3, 4], 5)), ints(&[1, 1, 2, 1, 3])];
            out.push(Case::new(format!("volume {dtype}"), op, volume).within(tolerance(dtype)));
        }
    }
}

fn regions(out: &mut Vec<Case>) {
    let corners = [[0.0f32, 0.0, 6.5, 4.25], [2.5, 1.0, 3.0, 1.5], [-3.0, -2.0, 20.0, 11.0], [5.0, 4.0, 1.0, 2.0]];
    let batch = Tensor::from_slice(&[4], &[0i64, 1, 1, 0]);
    for dtype in FLOATS {
        let x = random(dtype, &[2, 3, 5, 7], 6);
        let rois = Tensor::from_slice(&[4, 4], &corners.concat()).cast(dtype);
        for mode in [RoiMode::Average, RoiMode::Max] {
            for (half_pixel, sampling_ratio) in [(false, 0), (true, 0), (true, 2), (false, 3)] {
                let op = RoiAlign {
                    mode,
                    output_height: 2,
                    output_width: 3,
                    sampling_ratio,
                    spatial_scale: 0.5,
                    half_pixel,
                };
                let inputs = vec![Some(x.clone()), Some(rois.clone()), Some(batch.clone())];
                let name = format!("{mode:?} {dtype} half {half_pixel} ratio {sampling_ratio}");
                out.push(Case::new(name, op, inputs).within(tolerance(dtype)));
            }
        }
        let image: Vec<f32> = corners.iter().enumerate().flat_map(|(i, c)| [&[(i % 2) as f32], &c[..]].concat()).collect();
        let rois = Tensor::from_slice(&[4, 5], &image).cast(dtype);
        let op = MaxRoiPool { height: 2, width: 3, spatial_scale: 0.5 };
        out.push(Case::new(format!("max {dtype}"), op, vec![Some(x), Some(rois)]));
    }
    let none = vec![
        Some(random(DType::F32, &[1, 2, 3, 3], 7)),
        Some(Tensor::zeros(DType::F32, &[0, 4])),
        Some(Tensor::zeros(DType::I64, &[0])),
    ];
    let op = RoiAlign {
        mode: RoiMode::Average,
        output_height: 2,
        output_width: 2,
        sampling_ratio: 2,
        spatial_scale: 1.0,
        half_pixel: true,
    };
    out.push(Case::new("no regions", op, none));
}

fn columns(out: &mut Vec<Case>) {
    for dtype in FLOATS {
        for masked in [false, true] {
            let op = DeformColumns {
                kernel: vec![3, 2],
                strides: vec![2, 1],
                pads: vec![1, 0, 0, 1],
                dilations: vec![1, 2],
                groups: 2,
            };
            // (7 + 1 - 3) / 2 + 1 = 3 by (6 + 1 - 3) + 1 = 5.
            let inputs = vec![
                Some(random(dtype, &[2, 4, 7, 6], 8)),
                Some(random(dtype, &[2, 24, 3, 5], 9)),
                masked.then(|| random(dtype, &[2, 12, 3, 5], 10)),
            ];
            out.push(Case::new(format!("columns {dtype} mask {masked}"), op, inputs).within(tolerance(dtype)));
        }
    }
    let line = DeformColumns { kernel: vec![3], strides: vec![], pads: vec![], dilations: vec![], groups: 1 };
    let inputs = vec![Some(random(DType::F32, &[1, 2, 6], 11)), Some(random(DType::F32, &[1, 3, 4], 12))];
    out.push(Case::new("columns of a line", line, inputs).within(1e-5));
    let volume = DeformColumns { kernel: vec![2, 1, 2], strides: vec![], pads: vec![], dilations: vec![], groups: 1 };
    let inputs = vec![Some(random(DType::F32, &[1, 2, 3, 2, 4], 13)), Some(random(DType::F32, &[1, 12, 2, 2, 3], 14))];
    out.push(Case::new("columns of a volume", volume, inputs).within(1e-5));
}

fn images(out: &mut Vec<Case>) {
    for dtype in [DType::F32, DType::F16, DType::F64, DType::I8, DType::I64] {
        let op = Col2Im { strides: vec![], pads: vec![1, 0, 1, 2], dilations: vec![1, 2] };
        // (5 + 2 - 3 + 1) by (4 + 2 - 3 + 1).
        let inputs = vec![Some(random(dtype, &[2, 3 * 6, 5 * 4], 15)), ints(&[5, 4]), ints(&[3, 2])];
        out.push(Case::new(format!("plane {dtype}"), op, inputs).within(tolerance(dtype)));
    }
    let op = Col2Im { strides: vec![2, 1, 1], pads: vec![], dilations: vec![] };
    let volume = vec![Some(random(DType::F32, &[1, 2, 2 * 2 * 2], 16)), ints(&[3, 2, 2]), ints(&[1, 1, 1])];
    out.push(Case::new("volume", op, volume).within(1e-5));
    let line = Col2Im { strides: vec![2], pads: vec![], dilations: vec![] };
    out.push(Case::new("line", line, vec![Some(random(DType::F32, &[1, 3, 3], 17)), ints(&[7]), ints(&[3])]).within(1e-5));
}

fn unpoolings(out: &mut Vec<Case>) {
    let index = Tensor::from_slice(&[1, 2, 2, 2], &[5i64, 7, 13, 15, 17, 18, 29, 30]);
    for dtype in FLOATS {
        let op = MaxUnpool { kernel: vec![2, 2], strides: vec![2, 2], pads: vec![] };
        let x = random(dtype, &[1, 2, 2, 2], 18);
        out.push(Case::new(format!("unpool {dtype}"), op.clone(), vec![Some(x.clone()), Some(index.clone())]));
        let sized = vec![Some(x), Some(index.clone()), ints(&[1, 2, 5, 4])];
        out.push(Case::new(format!("unpool {dtype} to a size"), op, sized));
    }
    let op = MaxUnpool { kernel: vec![3], strides: vec![2], pads: vec![1, 0] };
    let inputs = vec![Some(random(DType::F32, &[1, 1, 3], 19)), Some(Tensor::from_slice(&[1, 1, 3], &[0i64, 3, 5]))];
    out.push(Case::new("unpool a line", op, inputs));
}

pub fn cases() -> Vec<Case> {
    let mut out = Vec::new();
    samples(&mut out);
    grids(&mut out);
    regions(&mut out);
    columns(&mut out);
    images(&mut out);
    unpoolings(&mut out);
    out
}
