//! Copies through strides: what Transpose, Slice, Expand, Tile and DepthToSpace all are once their shapes are known.
//!
//! A [`View`] names, for each index of a dense output, one element of the input. It knows element sizes, not types.

use crate::base::Tensor;
use crate::base::tensor::strides_of;

/// `out[i] = x[offset + sum_k i[k] * strides[k]]` for every `i` below `dims`; strides and offset count elements.
///
/// A stride is 0 where the input is broadcast and negative where it is read backwards.
#[derive(Clone, Debug, PartialEq)]
pub struct View {
    pub dims: Vec<usize>,
    pub strides: Vec<i64>,
    pub offset: i64,
}

impl View {
    /// The whole of a dense tensor, in its own order.
    pub fn dense(dims: &[usize]) -> View {
        let strides = strides_of(dims).into_iter().map(|s| s as i64).collect();
        View { dims: dims.to_vec(), strides, offset: 0 }
    }

    /// Axis i of the result is axis `perm[i]` of this.
    pub fn permuted(&self, perm: &[usize]) -> View {
        View {
            dims: perm.iter().map(|p| self.dims[*p]).collect(),
            strides: perm.iter().map(|p| self.strides[*p]).collect(),
            offset: self.offset,
        }
    }

    pub fn numel(&self) -> usize {
        self.dims.iter().product()
    }

    /// The same copy with as few axes as possible: axes of size 1 go, and neighbours that one stride walks through
    /// become one. A view without elements becomes `[0]`, a single element `[1]`.
    pub fn collapsed(&self) -> View {
        if self.numel() == 0 {
            return View { dims: vec![0], strides: vec![1], offset: 0 };
        }
        let mut v = View { dims: vec![], strides: vec![], offset: self.offset };
        for (&d, &s) in self.dims.iter().zip(&self.strides) {
            if d == 1 {
                continue;
            }
            match (v.dims.last_mut(), v.strides.last_mut()) {
                (Some(pd), Some(ps)) if *ps == s * d as i64 => {
                    *pd *= d;
                    *ps = s;
                }
                _ => {
                    v.dims.push(d);
                    v.strides.push(s);
                }
            }
        }
        if v.dims.is_empty() {
            v.dims.push(1);
            v.strides.push(1);
        }
        v
    }

    /// True when the copy is one dense block.
    pub fn is_dense(&self) -> bool {
        let v = self.collapsed();
        v.dims.len() == 1 && (v.strides[0] == 1 || v.dims[0] == 1)
    }

    /// The copy itself, element by element: the reference of every faster one.
    pub fn copy(&self, x: &Tensor, out: &mut Tensor) {
        let size = x.dtype().size();
        let src = x.bytes();
        let dst = out.bytes_mut();
        for_each_index(&self.dims, |at, index| {
            let from: i64 =
                self.offset + index.iter().zip(&self.strides).map(|(i, s)| *i as i64 * s).sum::<i64>();
            let from = from as usize * size;
            dst[at * size..(at + 1) * size].copy_from_slice(&src[from..from + size]);
        });
    }
}

/// Calls `f` with the flat position and the index of every element of a dense shape, in order.
pub fn for_each_index(dims: &[usize], mut f: impl FnMut(usize, &[usize])) {
    let n: usize = dims.iter().product();
    let mut index = vec![0; dims.len()];
    for at in 0..n {
        f(at, &index);
        for k in (0..dims.len()).rev() {
            index[k] += 1;
            if index[k] < dims[k] {
                break;
            }
            index[k] = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn collapsing_merges_what_one_stride_walks_through() {
        let v = View::dense(&[2, 3, 4]).permuted(&[0, 1, 2]).collapsed();
        assert_eq!((v.dims, v.strides), (vec![24], vec![1]));
        let v = View::dense(&[2, 3, 1, 4]).permuted(&[3, 2, 0, 1]).collapsed();
        assert_eq!((v.dims, v.strides), (vec![4, 6], vec![1, 4]));
        assert_eq!(View::dense(&[5, 0]).collapsed().dims, [0]);
        assert_eq!(View::dense(&[1, 1]).collapsed().dims, [1]);
        assert!(View { dims: vec![2, 3], strides: vec![0, 0], offset: 0 }.collapsed().strides == [0]);
    }

    #[test]
    fn indices_come_in_row_major_order() {
        let mut seen = Vec::new();
        for_each_index(&[2, 2], |at, i| seen.push((at, i.to_vec())));
        assert_eq!(seen, [(0, vec![0, 0]), (1, vec![0, 1]), (2, vec![1, 0]), (3, vec![1, 1])]);
        let mut n = 0;
        for_each_index(&[], |_, _| n += 1);
        for_each_index(&[3, 0], |_, _| n += 10);
        assert_eq!(n, 1);
    }
}
