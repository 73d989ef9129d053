//! Ensembles of decision trees. Inputs: x [rows, features] (f32 or f64); nodes [n, 4] (i32); splits [n] of x's type; leaf
//! targets [m] (i32); leaf weights [m] of x's type; roots [trees] (i32). Output: [rows, n_targets] of x's type.
//!
//! A node is (feature, mode, next where the test holds, next where not); the test compares the feature with the node's
//! split. A mode with [`MISSING`] added holds for NaN as well. A leaf is (first weight, [`LEAF`], number of weights, 0).
//! Children stand behind their parents, so that a walk ends whatever the numbers say; one that leaves the tables or meets
//! a feature that is not there gives nothing. Weights of a leaf are in the order of their targets.
//!
//! A target that no tree of a row has a weight for is 0.

mod builder;
mod classifier;
mod cpu;
mod cuda;
mod onnx;

use crate::base::{DType, Dim, Fact, Result, Tensor};
use crate::device::DeviceProps;
use crate::ops::{CpuStep, EvalCx, InferCx, OpDef, PackCache, Problem, StepProgram, Tactic, TacticOptions};
use crate::{attr_enum, ensure, op_home, op_struct};

attr_enum! {
    /// How the trees' weights of a target become one.
    pub enum TreeAggregate {
        Sum = "sum",
        /// The sum over the number of trees.
        Average = "average",
        Min = "min",
        Max = "max",
    }
}

op_struct! {
    /// See the module's text.
    pub struct TreeEnsemble {
        pub n_targets: i64,
        pub aggregate: TreeAggregate,
    }
}

op_home!(TreeEnsemble, "TreeEnsemble", onnx::TABLE);

// Tests of a node: x[feature] ? split. The numbers are those of `kernels/tree_ensemble.cu`.
pub(crate) const LEQ: i32 = 0;
pub(crate) const LT: i32 = 1;
pub(crate) const GTE: i32 = 2;
pub(crate) const GT: i32 = 3;
pub(crate) const EQ: i32 = 4;
pub(crate) const NEQ: i32 = 5;
pub(crate) const LEAF: i32 = 7;
/// Added to a mode: the test holds for NaN.
pub(crate) const MISSING: i32 = 8;

const X: usize = 0;
const NODES: usize = 1;
const SPLITS: usize = 2;
const TARGETS: usize = 3;
const WEIGHTS: usize = 4;
const ROOTS: usize = 5;

/// The tables that a walk reads.
#[derive(Clone, Copy)]
struct Trees<'a, T> {
    nodes: &'a [i32],
    splits: &'a [T],
    n_weights: usize,
}

impl<T: Copy + PartialOrd> Trees<'_, T> {
    /// Weights of the leaf that a row ends in.
    fn leaf(&self, x: &[T], root: i32) -> std::ops::Range<usize> {
        self.weights_of(self.walk(x, root))
    }

    /// The node that a walk ends at; -1 when it fails.
    fn walk(&self, x: &[T], root: i32) -> i32 {
        let n = self.splits.len().min(self.nodes.len() / 4);
        let mut at = root;
        loop {
            if at < 0 || at as usize >= n {
                return -1;
            }
            let node = &self.nodes[4 * at as usize..][..4];
            let mode = node[1] & 7;
            if mode == LEAF {
                return at;
            }
            let Some(v) = x.get(node[0] as usize).filter(|_| node[0] >= 0) else { return -1 };
            let split = self.splits[at as usize];
            #[allow(clippy::eq_op)]
            let holds = match mode {
                LEQ => *v <= split,
                LT => *v < split,
                GTE => *v >= split,
                GT => *v > split,
                EQ => *v == split,
                _ => *v != split,
            } || (node[1] & MISSING != 0 && *v != *v);
            let next = if holds { node[2] } else { node[3] };
            if next <= at {
                return -1;
            }
            at = next;
        }
    }

    /// The weights of a leaf as a range; nothing where they lie outside of the table.
    fn weights_of(&self, node: i32) -> std::ops::Range<usize> {
        if node < 0 {
            return 0..0;
        }
        let leaf = &self.nodes[4 * node as usize..][..4];
        let (first, count) = (leaf[0], leaf[2]);
        if first < 0 || count < 0 || first as usize + count as usize > self.n_weights {
            return 0..0;
        }
        first as usize..first as usize + count as usize
    }
}

/// Collects the weights of one row.
struct Sums<'a> {
    aggregate: TreeAggregate,
    values: &'a mut [f64],
}

impl Sums<'_> {
    fn start(&self) -> f64 {
        match self.aggregate {
            TreeAggregate::Sum | TreeAggregate::Average => 0.0,
            TreeAggregate::Min => f64::INFINITY,
            TreeAggregate::Max => f64::NEG_INFINITY,
        }
    }

    fn clear(&mut self) {
        let start = self.start();
        self.values.fill(start);
    }

    fn add(&mut self, target: i32, weight: f64) {
        let Some(v) = usize::try_from(target).ok().and_then(|t| self.values.get_mut(t)) else { return };
        *v = match self.aggregate {
            TreeAggregate::Sum | TreeAggregate::Average => *v + weight,
            TreeAggregate::Min => v.min(weight),
            TreeAggregate::Max => v.max(weight),
        };
    }

    fn finish(&self, target: usize, n_trees: usize) -> f64 {
        let v = self.values[target];
        match self.aggregate {
            TreeAggregate::Average => v / n_trees as f64,
            TreeAggregate::Min | TreeAggregate::Max if v == self.start() => 0.0,
            _ => v,
        }
    }
}

impl OpDef for TreeEnsemble {
    fn infer(&self, cx: &InferCx<'_>) -> Result<Vec<Fact>> {
        cx.arity(6, 6)?;
        let x = cx.input(X)?;
        let dtype = x.dtype;
        ensure!(matches!(dtype, DType::F32 | DType::F64), Unsupported, "trees take f32 or f64, got {dtype}");
        ensure!(
            (0..=i32::MAX as i64).contains(&self.n_targets),
            InvalidArgument,
            "the number of targets is {}",
            self.n_targets
        );
        for (i, rank, want) in [
            (X, 2, dtype),
            (NODES, 2, DType::I32),
            (SPLITS, 1, dtype),
            (TARGETS, 1, DType::I32),
            (WEIGHTS, 1, dtype),
            (ROOTS, 1, DType::I32),
        ] {
            cx.rank(i, rank)?;
            let got = cx.input(i)?.dtype;
            ensure!(got == want, InvalidArgument, "input {i}: expected {want}, got {got}");
        }
        let dim = |i: usize, d: usize| -> Result<Dim> { Ok(cx.input(i)?.shape[d].clone()) };
        let same = |a: &Dim, b: &Dim| a == b || a.as_const().is_none() || b.as_const().is_none();
        ensure!(dim(NODES, 1)?.as_const().is_none_or(|n| n == 4), InvalidArgument, "a node has four numbers");
        ensure!(same(&dim(NODES, 0)?, &dim(SPLITS, 0)?), InvalidArgument, "nodes and splits differ in number");
        ensure!(same(&dim(TARGETS, 0)?, &dim(WEIGHTS, 0)?), InvalidArgument, "targets and weights differ in number");
        Ok(vec![Fact::new(dtype, vec![x.shape[0].clone(), Dim::from(self.n_targets)])])
    }

    fn eval(&self, cx: &EvalCx<'_>) -> Result<Vec<Tensor>> {
        let out = cx.output(0)?;
        let x = cx.input(X)?;
        let features = x.shape()[1];
        let (x, splits, weights) = (x.to_f64s(), cx.input(SPLITS)?.to_f64s(), cx.input(WEIGHTS)?.to_f64s());
        let trees = Trees { nodes: cx.input(NODES)?.slice(), splits: &splits, n_weights: weights.len() };
        let (roots, targets) = (cx.input(ROOTS)?.slice::<i32>(), cx.input(TARGETS)?.slice::<i32>());
        let n = self.n_targets as usize;
        let mut y = vec![0.0; out.numel()];
        let mut values = vec![0.0; n];
        let mut sums = Sums { aggregate: self.aggregate, values: &mut values };
        for (row, y) in y.chunks_exact_mut(n.max(1)).enumerate() {
            sums.clear();
            for root in roots {
                for i in trees.leaf(&x[row * features..][..features], *root) {
                    sums.add(targets[i], weights[i]);
                }
            }
            y.iter_mut().enumerate().for_each(|(t, y)| *y = sums.finish(t, roots.len()));
        }
        Ok(vec![Tensor::from_slice(out.shape(), &y).cast(out.dtype())])
    }

    fn cpu(&self, p: &Problem, _pack: &dyn PackCache) -> Result<Option<Box<dyn CpuStep>>> {
        cpu::step(self, p)
    }

    fn cuda_tactics(&self, p: &Problem, _dev: &DeviceProps, _opt: &TacticOptions) -> Vec<Tactic> {
        cuda::tactics(self, p)
    }

    fn cuda_program(&self, _tactic: &Tactic, p: &Problem, dev: &DeviceProps) -> Result<StepProgram> {
        cuda::program(self, p, dev)
    }
}
