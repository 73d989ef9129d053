//! General strided copies: transpose, slice, broadcast, reverse, gather of a regular pattern, for elements of 1, 2, 4 or 8 bytes.
//!
//! The source is any view (strides in elements, 0 for a broadcast axis, negative for a reversed one); the destination is
//! dense row-major. Axes of length 1 are dropped and neighbouring axes that walk memory as one are joined; then the
//! copy is of one of three kinds: contiguous runs, a transpose in which the source is contiguous along another axis than
//! the destination (done in square blocks), or single elements. Large copies run in parallel. Nothing is allocated.

use super::{SharedMut, for_each_task};

/// Most axes of a view.
pub const MAX_RANK: usize = 16;
/// Elements that are worth a task.
const TASK_ELEMENTS: usize = 16 << 10;
/// Side of a transposed block.
const BLOCK: usize = 16;

/// Copies the view of `src` that starts at element `offset` and has the shape `dims` and `strides` to `dst`.
///
/// # Panics
/// If `dst` is not of the shape's size, there are more than [`MAX_RANK`] axes, or the view leaves `src`.
pub fn copy_strided<T: Copy + Send + Sync>(dst: &mut [T], dims: &[usize], src: &[T], offset: usize, strides: &[isize]) {
    assert!(dims.len() == strides.len() && dims.len() <= MAX_RANK, "a view of {dims:?} with strides {strides:?}");
    assert_eq!(dst.len(), dims.iter().product::<usize>(), "the destination of a view of {dims:?} has another length");
    if dst.is_empty() {
        return;
    }
    let reach = |sign: isize| dims.iter().zip(strides).filter(|(_, s)| **s * sign > 0).map(|(d, s)| (*d as isize - 1) * s).sum();
    let (lowest, highest): (isize, isize) = (reach(-1), reach(1));
    let is_inside = offset as isize + lowest >= 0 && offset as isize + highest < src.len() as isize;
    assert!(is_inside, "a view of {dims:?} from {offset} with strides {strides:?} leaves its {} elements", src.len());
    let view = View::collapse(dims, strides);
    view.copy(SharedMut::new(dst), src, offset as isize);
}

/// [`copy_strided`] of elements of `element_bytes` (1, 2, 4 or 8) given as bytes; offset and strides count elements.
///
/// # Panics
/// As `copy_strided`, and if a slice is not aligned to its elements or the size is another.
pub fn copy_strided_bytes(element_bytes: usize, dst: &mut [u8], dims: &[usize], src: &[u8], offset: usize, strides: &[isize]) {
    fn typed<T: Copy + Send + Sync>(dst: &mut [u8], dims: &[usize], src: &[u8], offset: usize, strides: &[isize]) {
        // SAFETY: `T` is an unsigned integer here: any bytes are a value, and it has no padding.
        let (a, dst, b) = unsafe { dst.align_to_mut::<T>() };
        // SAFETY: as above.
        let (c, src, d) = unsafe { src.align_to::<T>() };
        let is_aligned = (dst.is_empty() || a.is_empty() && b.is_empty()) && (src.is_empty() || c.is_empty() && d.is_empty());
        assert!(is_aligned, "a strided copy needs slices aligned to {} bytes", size_of::<T>());
        copy_strided(dst, dims, src, offset, strides);
    }
    match element_bytes {
        1 => copy_strided(dst, dims, src, offset, strides),
        2 => typed::<u16>(dst, dims, src, offset, strides),
        4 => typed::<u32>(dst, dims, src, offset, strides),
        8 => typed::<u64>(dst, dims, src, offset, strides),
        n => panic!("a strided copy is of elements of 1, 2, 4 or 8 bytes, got {n}"),
    }
}

/// Axes that cannot be joined any more, outermost first.
#[derive(Clone, Copy, Debug)]
struct View {
    rank: usize,
    dims: [usize; MAX_RANK],
    strides: [isize; MAX_RANK],
    /// Dense strides of the destination.
    to: [usize; MAX_RANK],
}

impl View {
    fn collapse(dims: &[usize], strides: &[isize]) -> View {
        let mut v = View { rank: 0, dims: [1; MAX_RANK], strides: [0; MAX_RANK], to: [1; MAX_RANK] };
        for (d, s) in dims.iter().zip(strides).filter(|(d, _)| **d != 1) {
            if v.rank > 0 && v.strides[v.rank - 1] == *d as isize * s {
                v.dims[v.rank - 1] *= d;
                v.strides[v.rank - 1] = *s;
            } else {
                (v.dims[v.rank], v.strides[v.rank]) = (*d, *s);
                v.rank += 1;
            }
        }
        v.rank = v.rank.max(1);
        for i in (0..v.rank - 1).rev() {
            v.to[i] = v.to[i + 1] * v.dims[i + 1];
        }
        v
    }

    /// Without axis `i`, whose loop is written out.
    fn without(mut self, i: usize) -> View {
        for j in i..self.rank - 1 {
            (self.dims[j], self.strides[j], self.to[j]) = (self.dims[j + 1], self.strides[j + 1], self.to[j + 1]);
        }
        self.rank -= 1;
        self
    }

    fn count(&self) -> usize {
        self.dims[..self.rank].iter().product()
    }

    /// Source and destination offset of the n-th index.
    fn offsets(&self, mut n: usize) -> (isize, usize) {
        let (mut from, mut to) = (0, 0);
        for i in (0..self.rank).rev() {
            let k = n % self.dims[i];
            n /= self.dims[i];
            from += k as isize * self.strides[i];
            to += k * self.to[i];
        }
        (from, to)
    }

    fn copy<T: Copy + Send + Sync>(&self, dst: SharedMut<T>, src: &[T], offset: isize) {
        let last = self.rank - 1;
        let (n, stride) = (self.dims[last], self.strides[last]);
        let other = (0..last).find(|i| self.strides[*i] == 1);
        if let (Some(axis), true) = (other, stride != 1) {
            return self.copy_transposed(axis, dst, src, offset);
        }
        let outer = self.without(last);
        // Long runs are cut too, so that a plain large copy is shared.
        let piece = n.min(TASK_ELEMENTS);
        let pieces = n.div_ceil(piece);
        let units = outer.count() * pieces;
        let per_task = (TASK_ELEMENTS / piece).clamp(1, units);
        for_each_task(units.div_ceil(per_task), |task| {
            for unit in task * per_task..((task + 1) * per_task).min(units) {
                let (from, to) = outer.offsets(unit / pieces);
                let start = unit % pieces * piece;
                // SAFETY: each unit has a part of its own.
                let run = unsafe { dst.slice(to + start, piece.min(n - start)) };
                let from = offset + from + start as isize * stride;
                match stride {
                    1 => run.copy_from_slice(&src[from as usize..][..run.len()]),
                    0 => run.fill(src[from as usize]),
                    _ => run.iter_mut().enumerate().for_each(|(i, r)| *r = src[(from + i as isize * stride) as usize]),
                }
            }
        });
    }

    /// The source is contiguous along `axis`, the destination along the last axis: both are walked in square blocks.
    fn copy_transposed<T: Copy + Send + Sync>(&self, axis: usize, dst: SharedMut<T>, src: &[T], offset: isize) {
        let last = self.rank - 1;
        let (rows, cols, row_to, col_stride) = (self.dims[axis], self.dims[last], self.to[axis], self.strides[last]);
        let outer = self.without(last).without(axis);
        let row_blocks = rows.div_ceil(BLOCK);
        let units = outer.count() * row_blocks;
        let per_task = (TASK_ELEMENTS / (BLOCK * cols)).clamp(1, units);
        for_each_task(units.div_ceil(per_task), |task| {
            for unit in task * per_task..((task + 1) * per_task).min(units) {
                let (from, to) = outer.offsets(unit / row_blocks);
                let row = unit % row_blocks * BLOCK;
                let n_rows = BLOCK.min(rows - row);
                for col in (0..cols).step_by(BLOCK) {
                    let n_cols = BLOCK.min(cols - col);
                    let mut block = [[src[0]; BLOCK]; BLOCK];
                    for (j, line) in block[..n_cols].iter_mut().enumerate() {
                        let start = (offset + from + (col + j) as isize * col_stride) as usize + row;
                        line[..n_rows].copy_from_slice(&src[start..start + n_rows]);
                    }
                    for i in 0..n_rows {
                        // SAFETY: each unit has rows of its own.
                        let out = unsafe { dst.slice(to + (row + i) * row_to + col, n_cols) };
                        out.iter_mut().zip(&block).for_each(|(o, line)| *o = line[i]);
                    }
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(dims: &[usize], n: usize, offset: usize, strides: &[isize]) {
        let src: Vec<u32> = (0..n as u32).collect();
        let count: usize = dims.iter().product();
        let want: Vec<u32> = (0..count)
            .map(|mut i| {
                let mut at = offset as isize;
                for (d, s) in dims.iter().zip(strides).rev() {
                    at += (i % d) as isize * s;
                    i /= d;
                }
                src[at as usize]
            })
            .collect();
        let mut dst = vec![u32::MAX; count];
        copy_strided(&mut dst, dims, &src, offset, strides);
        assert_eq!(dst, want, "{dims:?} {strides:?}");
    }

    #[test]
    fn views_of_every_kind() {
        check(&[], 5, 3, &[]);
        check(&[0, 4], 0, 0, &[4, 1]);
        check(&[3, 4, 5], 60, 0, &[20, 5, 1]);
        check(&[5, 3], 15, 0, &[1, 5]);
        check(&[37, 53], 37 * 53, 0, &[1, 37]);
        check(&[2, 7, 33, 19], 2 * 7 * 33 * 19, 0, &[7 * 33 * 19, 1, 19 * 7, 7]);
        check(&[4, 3, 2], 24, 0, &[1, 8, 4]);
        check(&[4, 6], 24, 23, &[-6, -1]);
        check(&[4, 6], 24, 18, &[-6, 1]);
        check(&[3, 5, 4], 5, 0, &[0, 1, 0]);
        check(&[3, 4], 1, 0, &[0, 0]);
        check(&[3, 5], 60, 7, &[20, 3]);
        check(&[1, 1, 6, 1], 12, 1, &[99, 0, 2, -5]);
        check(&[300, 200], 60_000, 0, &[1, 300]);
        check(&[50_000], 50_000, 0, &[1]);
        check(&[2, 3, 17, 40], 2 * 3 * 17 * 40, 0, &[3 * 17 * 40, 17 * 40, 1, 17]);
    }

    #[test]
    fn bytes_of_every_size() {
        for size in [1usize, 2, 4, 8] {
            let src: Vec<u64> = (0..64).map(|i| i * 0x0101_0101_0101_0101).collect();
            // SAFETY: bytes of plain integers.
            let src = unsafe { src.align_to::<u8>() }.1;
            let mut dst = [0u64; 64];
            // SAFETY: as above.
            let dst = unsafe { dst.align_to_mut::<u8>() }.1;
            copy_strided_bytes(size, &mut dst[..12 * size], &[4, 3], &src[..12 * size], 0, &[1, 4]);
            for i in 0..4 {
                for j in 0..3 {
                    let (to, from) = ((i * 3 + j) * size, (j * 4 + i) * size);
                    assert_eq!(dst[to..to + size], src[from..from + size]);
                }
            }
        }
    }

    #[test]
    #[should_panic(expected = "leaves its")]
    fn a_view_outside_of_its_source_is_refused() {
        copy_strided(&mut [0u8; 4], &[2, 2], &[0u8; 4], 1, &[2, 1]);
    }
}
