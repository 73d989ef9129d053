//! CPU step: first the leaf of each row in each tree, then each row's sums, in tasks of their own.

use super::*;
use crate::base::tensor::{Scalar, convert};
use crate::device::cpu::{SharedMut, for_each_task};
use crate::ops::CpuArgs;

/// Rows and trees of a task of the first pass; rows of one of the second.
const ROWS: usize = 32;
const TREES: usize = 128;
/// Leaves that are held at a time.
const HELD: usize = 1 << 22;
/// Walks that are worth a thread change.
const MIN_WALKS: usize = 512;

struct TreeStep {
    aggregate: TreeAggregate,
    dtype: DType,
    rows: usize,
    features: usize,
    n_targets: usize,
    /// Elements of each operand.
    numel: [usize; 6],
}

impl TreeStep {
    /// Rows whose leaves are held at a time.
    fn block(&self) -> usize {
        (HELD / self.numel[ROOTS].max(1)).next_multiple_of(ROWS).min(self.rows.max(1))
    }

    /// # Safety
    /// As `CpuStep::run`, with elements of type `T`.
    unsafe fn typed<T: Scalar + PartialOrd>(&self, args: &CpuArgs<'_>) {
        // SAFETY: the caller gives addresses of the tensors that the step was made for; empty ones are not read.
        unsafe fn operand<'a, T>(args: &CpuArgs<'a>, i: usize, n: usize) -> &'a [T] {
            // SAFETY: as above.
            if n == 0 { &[] } else { unsafe { std::slice::from_raw_parts(args.inputs[i].cast(), n) } }
        }
        let n = self.numel;
        // SAFETY: the caller's promise.
        let (x, nodes, splits, targets, weights, roots) = unsafe {
            (
                operand::<T>(args, X, n[X]),
                operand::<i32>(args, NODES, n[NODES]),
                operand::<T>(args, SPLITS, n[SPLITS]),
                operand::<i32>(args, TARGETS, n[TARGETS]),
                operand::<T>(args, WEIGHTS, n[WEIGHTS]),
                operand::<i32>(args, ROOTS, n[ROOTS]),
            )
        };
        let trees = Trees { nodes, splits, n_weights: weights.len() };
        let y = SharedMut(args.outputs[0].cast::<T>(), self.rows * self.n_targets);
        let (block, n_trees) = (self.block(), roots.len());
        let leaves = SharedMut(args.work.cast::<i32>(), block * n_trees);
        // SAFETY: the workspace holds the leaves and then the sums of each task.
        let sums = SharedMut(unsafe { args.work.add(self.leaf_bytes()) }.cast::<f64>(), block.div_ceil(ROWS) * self.n_targets);
        let each = |n: usize, walks: usize, f: &(dyn Fn(usize) + Sync)| match walks < MIN_WALKS {
            true => (0..n).for_each(f),
            false => for_each_task(n, f),
        };
        for first in (0..self.rows).step_by(block) {
            let rows = block.min(self.rows - first);
            let (row_tasks, tree_tasks) = (rows.div_ceil(ROWS), n_trees.div_ceil(TREES));
            each(row_tasks * tree_tasks, rows * n_trees, &|task| {
                let (r0, t0) = (task / tree_tasks * ROWS, task % tree_tasks * TREES);
                for t in t0..(t0 + TREES).min(n_trees) {
                    for r in r0..(r0 + ROWS).min(rows) {
                        let x = &x[(first + r) * self.features..][..self.features];
                        // SAFETY: each row and tree has an element of its own.
                        let leaf = unsafe { leaves.slice(r * n_trees + t, 1) };
                        leaf[0] = trees.walk(x, roots[t]);
                    }
                }
            });
            each(row_tasks, rows * n_trees, &|task| {
                // SAFETY: each task has numbers of its own.
                let values = unsafe { sums.slice(task * self.n_targets, self.n_targets) };
                let mut sums = Sums { aggregate: self.aggregate, values };
                for r in task * ROWS..((task + 1) * ROWS).min(rows) {
                    sums.clear();
                    // SAFETY: only read from here on.
                    for leaf in unsafe { leaves.slice(r * n_trees, n_trees) } {
                        for i in trees.weights_of(*leaf) {
                            sums.add(targets[i], convert::<T, f64>(weights[i]));
                        }
                    }
                    // SAFETY: each row belongs to one task.
                    let y = unsafe { y.slice((first + r) * self.n_targets, self.n_targets) };
                    y.iter_mut().enumerate().for_each(|(t, y)| *y = convert(sums.finish(t, n_trees)));
                }
            });
        }
    }

    fn leaf_bytes(&self) -> usize {
        (self.block() * self.numel[ROOTS] * 4).next_multiple_of(64)
    }
}

impl CpuStep for TreeStep {
    fn name(&self) -> String {
        format!("trees_{}", self.numel[ROOTS])
    }

    fn workspace(&self) -> usize {
        self.leaf_bytes() + self.block().div_ceil(ROWS) * self.n_targets * 8
    }

    unsafe fn run(&self, args: &CpuArgs<'_>) {
        if self.rows * self.n_targets == 0 {
            return;
        }
        // SAFETY: the caller's promise.
        unsafe {
            match self.dtype {
                DType::F64 => self.typed::<f64>(args),
                _ => self.typed::<f32>(args),
            }
        }
    }
}

pub fn step(op: &TreeEnsemble, p: &Problem) -> Result<Option<Box<dyn CpuStep>>> {
    let Some(x) = p.input(X) else { return Ok(None) };
    let mut numel = [0; 6];
    for (n, d) in numel.iter_mut().zip(&p.inputs) {
        *n = d.as_ref().map_or(0, |d| d.numel());
    }
    Ok(Some(Box::new(TreeStep {
        aggregate: op.aggregate,
        dtype: x.dtype,
        rows: x.dims[0],
        features: x.dims[1],
        n_targets: op.n_targets as usize,
        numel,
    })))
}
