//! How the operands of a broadcast lie against the output, after merging dimensions: shared by the CPU step and CUDA.

use super::eval::broadcast_strides;
use crate::base::tensor::strides_of;
use crate::ops::Problem;

/// How an input is read.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Access {
    /// In the output's own order.
    Full,
    /// One element for all.
    Number,
    /// Elements between neighbours in each merged dimension; the innermost is 0 or 1.
    Strided(Vec<usize>),
}

/// The output's merged dimensions and each input's access.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    pub dims: Vec<usize>,
    pub numel: usize,
    pub inputs: Vec<Access>,
}

impl Layout {
    /// `None` when an input of the program is absent.
    pub fn new(n_inputs: usize, p: &Problem) -> Option<Layout> {
        let shape = &p.outputs.first()?.dims;
        let strides: Vec<Vec<usize>> =
            (0..n_inputs).map(|i| Some(broadcast_strides(&p.input(i)?.dims, shape))).collect::<Option<_>>()?;
        let (dims, strides) = merge(shape, &strides);
        let dense = strides_of(&dims);
        let inputs = strides
            .into_iter()
            .map(|s| match () {
                _ if s.iter().all(|s| *s == 0) => Access::Number,
                _ if s == dense => Access::Full,
                _ => Access::Strided(s),
            })
            .collect();
        Some(Layout { dims, numel: shape.iter().product(), inputs })
    }

    /// Length of the innermost merged dimension.
    pub fn row(&self) -> usize {
        self.dims.last().copied().unwrap_or(1)
    }

    /// Strides of input `i` in the merged dimensions.
    pub fn strides(&self, i: usize) -> Vec<usize> {
        match &self.inputs[i] {
            Access::Full => strides_of(&self.dims),
            Access::Number => vec![0; self.dims.len()],
            Access::Strided(s) => s.clone(),
        }
    }
}

/// Drops dimensions of size 1 and merges neighbours that every operand walks as one.
fn merge(shape: &[usize], strides: &[Vec<usize>]) -> (Vec<usize>, Vec<Vec<usize>>) {
    let mut dims: Vec<usize> = Vec::new();
    let mut merged: Vec<Vec<usize>> = vec![Vec::new(); strides.len()];
    for d in 0..shape.len() {
        if shape[d] == 1 {
            continue;
        }
        let joins = strides.iter().zip(&merged).all(|(s, m)| m.last().is_some_and(|outer| *outer == s[d] * shape[d]));
        match dims.last_mut() {
            Some(last) if joins => {
                *last *= shape[d];
                merged.iter_mut().zip(strides).for_each(|(m, s)| *m.last_mut().expect("has this dimension") = s[d]);
            }
            _ => {
                dims.push(shape[d]);
                merged.iter_mut().zip(strides).for_each(|(m, s)| m.push(s[d]));
            }
        }
    }
    (dims, merged)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dimensions_merge_where_all_operands_allow() {
        // [2,3,4] with [3,1]: the batch and the rows stay apart only for the second operand.
        let shape = [2, 3, 4];
        let s = [vec![12, 4, 1], vec![0, 1, 0]];
        assert_eq!(merge(&shape, &s), (vec![2, 3, 4], s.to_vec()));
        let s = [vec![12, 4, 1], vec![0, 0, 1]];
        assert_eq!(merge(&shape, &s), (vec![6, 4], vec![vec![4, 1], vec![0, 1]]));
        let s = [vec![12, 4, 1], vec![0, 0, 0]];
        assert_eq!(merge(&shape, &s), (vec![24], vec![vec![1], vec![0]]));
        assert_eq!(merge(&[1, 1], &[vec![1, 1]]), (vec![], vec![vec![]]));
    }
}
