//! Data movers: every element size, negative steps and axes, empty tensors.

use super::{Case, ints};
use crate::ops::steps::random;
use sinter::base::{DType, Tensor};
use sinter::ops::concat::Concat;
use sinter::ops::depth_to_space::{DepthMode, DepthToSpace};
use sinter::ops::expand::Expand;
use sinter::ops::fill::Fill;
use sinter::ops::gather::Gather;
use sinter::ops::pad::{Pad, PadMode};
use sinter::ops::slice::Slice;
use sinter::ops::tile::Tile;
use sinter::ops::transpose::Transpose;
use std::sync::Arc;

/// One type of each element size, and bool.
const SIZES: [DType; 5] = [DType::F32, DType::F16, DType::U8, DType::I64, DType::Bool];

pub fn cases() -> Vec<Case> {
    let mut out = Vec::new();
    for d in SIZES {
        let x = |shape: &[usize]| Some(random(d, shape, 7));
        for (shape, perm) in [
            (&[2, 3, 5, 7][..], &[0, 2, 3, 1][..]),
            (&[3, 40, 37], &[0, 2, 1]),
            (&[5], &[0]),
            (&[], &[]),
            (&[3, 0, 2], &[2, 0, 1]),
            (&[2, 1, 3, 1, 5], &[4, -2, 2, 1, 0]),
            // Channels to the end and back: few, odd and many, in whole tiles and beyond their edges.
            (&[2, 3, 40, 44], &[0, 2, 3, 1]),
            (&[1, 41, 40, 3], &[0, 3, 1, 2]),
            (&[2, 7, 7, 136], &[0, 3, 1, 2]),
            (&[1, 65, 14, 14], &[0, 2, 3, 1]),
            (&[3, 64, 128], &[0, 2, 1]),
            (&[1000, 21], &[1, 0]),
            (&[2, 33, 1, 1], &[0, 2, 3, 1]),
        ] {
            out.push(Case::new(format!("transpose {perm:?} of {d}{shape:?}"), Transpose { perm: perm.to_vec() }, vec![x(shape)]));
        }
        for (shape, starts, ends, axes, steps) in [
            (&[7, 9][..], &[1, 2][..], &[6, 9][..], &[0, 1][..], &[1, 1][..]),
            (&[7, 9], &[-1], &[i64::MIN], &[-1], &[-2]),
            (&[4, 6, 5], &[-3, 10], &[i64::MAX, -10], &[1, 0], &[2, -1]),
            (&[4, 6], &[3], &[1], &[0], &[1]),
            (&[16, 32], &[8], &[16], &[1], &[1]),
        ] {
            let inputs = vec![x(shape), ints(starts), ints(ends), ints(axes), ints(steps)];
            out.push(Case::new(format!("slice {starts:?}:{ends:?}:{steps:?} of {d}{shape:?}"), Slice {}, inputs));
        }
        for (shape, axis) in [(&[2, 3, 5][..], 1), (&[4, 8], -1), (&[3, 1, 2, 2], 0), (&[2, 0, 3], 1)] {
            let mut wide = shape.to_vec();
            let k = if axis < 0 { shape.len() - 1 } else { axis as usize };
            wide[k] += 4;
            let inputs = vec![x(shape), x(&wide), x(shape)];
            out.push(Case::new(format!("concat {axis} of {d}{shape:?}"), Concat { axis }, inputs));
        }
        // More inputs than one launch takes, of different lengths.
        let inputs = (0..11).map(|i| x(&[3, 2 + i % 4])).collect();
        out.push(Case::new(format!("concat of eleven {d}"), Concat { axis: 1 }, inputs));
        for (shape, axis) in [(&[5, 6, 3][..], 1), (&[7], 0), (&[4, 16], 0), (&[3, 5], -1)] {
            let k = if axis < 0 { shape.len() - 1 } else { axis as usize };
            let n = shape[k] as i64;
            let indices = Tensor::from_slice(&[2, 2], &[0, n - 1, -1, -n]);
            out.push(Case::new(format!("gather {axis} of {d}{shape:?}"), Gather { axis }, vec![x(shape), Some(indices.clone())]));
            let narrow = Some(indices.cast(DType::I32));
            out.push(Case::new(format!("gather {axis} by i32 of {d}{shape:?}"), Gather { axis }, vec![x(shape), narrow]));
        }
        for mode in [PadMode::Constant, PadMode::Edge, PadMode::Reflect, PadMode::Wrap] {
            for pads in [&[1, 2, 3, 4][..], &[-1, 0, 2, -1], &[0, 5, 0, 9], &[-2, -1, 0, 0], &[0, 0, 0, 0]] {
                let value = Some(random(d, &[], 3));
                out.push(Case::new(format!("pad {mode:?} {pads:?} of {d}"), Pad { mode }, vec![x(&[4, 5]), ints(pads), value]));
            }
        }
        out.push(Case::new(
            format!("pad axes of {d}"),
            Pad { mode: PadMode::Constant },
            vec![x(&[2, 3, 4]), ints(&[1, 2]), None, ints(&[-2])],
        ));
        for (shape, to) in [(&[3, 1][..], &[2, 3, 4][..]), (&[1], &[5]), (&[4, 1, 2], &[3, 1]), (&[], &[2, 2]), (&[2, 1], &[2, 0])] {
            out.push(Case::new(format!("expand {d}{shape:?} to {to:?}"), Expand {}, vec![x(shape), ints(to)]));
        }
        for (shape, repeats) in [(&[2, 3][..], &[2, 3][..]), (&[4], &[0]), (&[1, 5, 2], &[3, 1, 2])] {
            out.push(Case::new(format!("tile {d}{shape:?} by {repeats:?}"), Tile {}, vec![x(shape), ints(repeats)]));
        }
        for mode in [DepthMode::Dcr, DepthMode::Crd] {
            for inverse in [false, true] {
                let shape = if inverse { [2, 3, 6, 4] } else { [2, 12, 3, 5] };
                let op = DepthToSpace { block: 2, mode, inverse };
                out.push(Case::new(format!("depth {mode:?} inverse {inverse} of {d}"), op, vec![x(&shape)]));
            }
        }
        for shape in [&[3, 5, 7][..], &[0, 2], &[]] {
            let value = Arc::new(random(d, &[], 5));
            let dims: Vec<i64> = shape.iter().map(|d| *d as i64).collect();
            out.push(Case::new(format!("fill {d}{shape:?}"), Fill { value }, vec![ints(&dims)]));
        }
    }
    out
}
