//! CUDA: `transpose_tiles.cu`, for views in which the last two axes change places.
//!
//! Parameters of a tactic: bytes of a unit. Everything else comes with the launch, so one tactic serves every shape.

use super::cuda::{THREADS, unit};
use super::strided::View;
use crate::base::Result;
use crate::device::DeviceProps;
use crate::ops::{Arg, KernelSpec, Launch, StepProgram, Tactic, TacticSource, i64_struct};
use crate::{ensure, err};

/// Elements of a tile.
const TILE: usize = 4096;
/// Both sides of a tile where none is short.
const SIDE: usize = 64;
/// A side up to this is short: the tile is as long as it can be along the other.
const SHORT: usize = 32;
const MAX_SIDE: usize = 1 << 30;

/// y[b, j, i] = x[offset + b * batch_step + i * pitch + j].
#[derive(Clone, Copy, Debug, PartialEq)]
struct Form {
    batch: usize,
    rows: usize,
    cols: usize,
    batch_step: usize,
    pitch: usize,
    offset: usize,
}

fn form(view: &View) -> Option<Form> {
    let v = view.collapsed();
    let offset = usize::try_from(v.offset).ok()?;
    let step = |s: i64| usize::try_from(s).ok();
    let f = match (&v.dims[..], &v.strides[..]) {
        ([cols], [1]) => Form { batch: 1, rows: 1, cols: *cols, batch_step: 0, pitch: *cols, offset },
        ([cols, rows], [1, pitch]) => {
            Form { batch: 1, rows: *rows, cols: *cols, batch_step: 0, pitch: step(*pitch)?, offset }
        }
        ([batch, cols, rows], [batch_step, 1, pitch]) => {
            Form { batch: *batch, rows: *rows, cols: *cols, batch_step: step(*batch_step)?, pitch: step(*pitch)?, offset }
        }
        _ => return None,
    };
    (f.rows < MAX_SIDE && f.cols < MAX_SIDE).then_some(f)
}

/// The tactic, for a view of this form between elements of `size` bytes that no wider unit joins.
pub fn tactic(view: &View, size: usize) -> Option<Tactic> {
    let f = form(view)?;
    (matches!(size, 1 | 2 | 4 | 8) && f.rows > 1 && f.cols > 1).then(|| Tactic {
        name: format!("transpose_tiles_{}b", 8 * size),
        source: TacticSource::Kernels,
        kernels: vec![KernelSpec::new("transpose_tiles.cu").define("T_UNIT", unit(size)).define("THREADS", THREADS)],
        params: vec![size as i64],
    })
}

/// The tactic is of [`tactic`].
pub fn is_tiled(tactic: &Tactic) -> bool {
    tactic.params.len() == 1
}

/// The launch of [`tactic`] at concrete shapes.
pub fn program(tactic: &Tactic, view: &View, size: usize, dev: &DeviceProps) -> Result<StepProgram> {
    ensure!(tactic.params == [size as i64], CorruptData, "tactic {} moves other units", tactic.name);
    if view.numel() == 0 {
        return Ok(StepProgram::default());
    }
    let f = form(view).ok_or_else(|| err!(Unsupported, "tactic {} does not fit the view {view:?}", tactic.name))?;
    let short = |n: usize| n.next_power_of_two().max(4);
    let [tile_rows, tile_cols] = match (f.rows, f.cols) {
        (r, _) if r <= SHORT => [short(r), TILE / short(r)],
        (_, c) if c <= SHORT => [TILE / short(c), short(c)],
        _ => [SIDE, SIDE],
    };
    let vec = 16 / size;
    // A batch of one takes no step.
    let batch_step = if f.batch == 1 { 0 } else { f.batch_step };
    let widest = |all: &[usize]| [vec, vec / 2].into_iter().find(|v| *v > 1 && all.iter().all(|n| n % v == 0)).unwrap_or(1);
    let vec_in = widest(&[f.pitch, batch_step, f.offset, tile_cols]);
    let vec_out = widest(&[f.rows, tile_rows]);
    let down = f.rows.div_ceil(tile_rows);
    let across = f.cols.div_ceil(tile_cols);
    let pieces_in = [batch_step, f.offset, if down > 1 { tile_rows * f.cols } else { 0 }];
    let pieces_out = [if f.batch > 1 { f.rows * f.cols } else { 0 }, if across > 1 { tile_cols * f.rows } else { 0 }];
    let whole = |all: &[usize]| all.iter().all(|n| n % vec == 0);
    let flat_in = vec_in < vec && f.cols <= tile_cols && f.pitch == f.cols && whole(&pieces_in);
    let flat_out = vec_out < vec && f.rows <= tile_rows && whole(&pieces_out);
    let blocks = f.batch.saturating_mul(down).saturating_mul(across);
    ensure!(blocks <= dev.max_grid[0] as usize, Unsupported, "{blocks} tiles are too many for one launch");
    let params = [
        f.batch, f.rows, f.cols, batch_step, f.pitch, f.offset, tile_rows, tile_cols, vec_in, vec_out, flat_in as usize,
        flat_out as usize,
    ];
    Ok(StepProgram::one(Launch {
        kernel: 0,
        grid: [blocks as u32, 1, 1],
        block: [THREADS as u32, 1, 1],
        smem: 0,
        args: vec![Arg::In(0), Arg::Out(0), i64_struct(params.map(|v| v as i64))],
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params(dims: &[usize], perm: &[usize], size: usize) -> Vec<i64> {
        let view = View::dense(dims).permuted(perm);
        let t = tactic(&view, size).unwrap();
        let step = program(&t, &view, size, &DeviceProps::example_h200()).unwrap();
        let crate::ops::DeviceOp::Launch(l) = &step.ops[0] else { panic!("a launch") };
        let Arg::Bytes(b) = &l.args[2] else { panic!("a struct") };
        b.chunks_exact(8).map(|c| i64::from_ne_bytes(c.try_into().unwrap())).collect()
    }

    #[test]
    fn channels_move_in_vectors_where_sizes_allow() {
        // 64x64 tiles, 16 bytes both ways.
        assert_eq!(params(&[2, 64, 56, 56], &[0, 2, 3, 1], 2), [2, 64, 3136, 64 * 3136, 3136, 0, 64, 64, 8, 8, 0, 0]);
        // 3 channels are written as one piece of memory.
        assert_eq!(params(&[1, 3, 224, 224], &[0, 2, 3, 1], 2), [1, 3, 50176, 0, 50176, 0, 4, 1024, 8, 1, 0, 1]);
        assert_eq!(params(&[1, 224, 224, 3], &[0, 3, 1, 2], 2), [1, 50176, 3, 0, 3, 0, 1024, 4, 1, 8, 1, 0]);
        // 49 pixels, as they lie.
        assert_eq!(params(&[4, 7, 7, 2048], &[0, 3, 1, 2], 2), [4, 49, 2048, 49 * 2048, 2048, 0, 64, 64, 8, 1, 0, 1]);
        // Halves of vectors.
        assert_eq!(params(&[4, 14, 14, 256], &[0, 3, 1, 2], 2)[8..], [8, 4, 0, 0]);
    }

    #[test]
    fn an_axis_of_one_is_a_plain_copy() {
        let t = tactic(&View::dense(&[2, 8, 4, 4]).permuted(&[0, 2, 3, 1]), 4).unwrap();
        for dims in [[2, 1, 4, 4], [2, 8, 1, 1], [1, 1, 1, 1], [0, 8, 4, 4]] {
            let view = View::dense(&dims).permuted(&[0, 2, 3, 1]);
            assert!(program(&t, &view, 4, &DeviceProps::example_h200()).is_ok(), "{dims:?}");
        }
    }
}
