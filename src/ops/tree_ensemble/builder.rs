//! From trees as models describe them to the tables of [`super::TreeEnsemble`].

use super::*;
use crate::err;
use std::collections::HashMap;

/// Where a test leads: a node or a leaf by its index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Target {
    Node(usize),
    Leaf(usize),
}

#[derive(Clone, Debug)]
pub(super) struct RawNode {
    pub feature: i64,
    /// A test such as [`LEQ`].
    pub mode: i32,
    pub split: f64,
    /// Holds for NaN.
    pub missing: bool,
    pub yes: Target,
    pub no: Target,
}

/// An ensemble as a model describes it.
#[derive(Clone, Debug, Default)]
pub(super) struct RawTrees {
    pub nodes: Vec<RawNode>,
    /// Weights of each leaf by target.
    pub leaves: Vec<Vec<(i64, f64)>>,
    pub roots: Vec<Target>,
}

/// The test that a mode's name stands for.
pub(super) fn mode_of(name: &str) -> Option<i32> {
    Some(match name {
        "BRANCH_LEQ" => LEQ,
        "BRANCH_LT" => LT,
        "BRANCH_GTE" => GTE,
        "BRANCH_GT" => GT,
        "BRANCH_EQ" => EQ,
        "BRANCH_NEQ" => NEQ,
        _ => return None,
    })
}

/// The tables as constants.
pub(super) struct Tables {
    pub nodes: Tensor,
    pub splits: Tensor,
    pub targets: Tensor,
    pub weights: Tensor,
    pub roots: Tensor,
}

impl RawTrees {
    /// Replaces node `at` by a chain of equality tests: it holds for each of `members`.
    pub fn make_member_test(&mut self, at: usize, members: &[f64]) {
        let node = self.nodes[at].clone();
        let mut no = node.no;
        // The first test is the node itself; NaN equals nothing, so an empty set never holds.
        let first = members.first().copied().unwrap_or(f64::NAN);
        for m in members.iter().skip(1).rev() {
            self.nodes.push(RawNode { mode: EQ, split: *m, missing: false, no, ..node.clone() });
            no = Target::Node(self.nodes.len() - 1);
        }
        self.nodes[at] = RawNode { mode: EQ, split: first, no, ..node };
    }

    fn check(&self, n_targets: i64, features: Option<i64>) -> Result<()> {
        let exists = |t: &Target| match t {
            Target::Node(i) => *i < self.nodes.len(),
            Target::Leaf(i) => *i < self.leaves.len(),
        };
        for (i, n) in self.nodes.iter().enumerate() {
            let fits = n.feature >= 0 && n.feature < features.unwrap_or(i32::MAX as i64);
            ensure!(fits, InvalidArgument, "node {i} tests feature {}, of {features:?}", n.feature);
            ensure!(exists(&n.yes) && exists(&n.no), InvalidArgument, "node {i} leads to a node that is not there");
        }
        ensure!(self.roots.iter().all(exists), InvalidArgument, "the root of a tree is not there");
        let bad = self.leaves.iter().flatten().find(|w| !(0..n_targets).contains(&w.0));
        ensure!(bad.is_none(), InvalidArgument, "a leaf has a weight for target {}, of {n_targets}", bad.map_or(0, |b| b.0));
        let total = self.nodes.len() + self.leaves.len() + self.leaves.iter().map(|l| l.len()).sum::<usize>();
        ensure!(total < i32::MAX as usize / 4, Unsupported, "an ensemble of {total} nodes and weights is too large");
        Ok(())
    }

    /// Every node that a root leads to, parents in front of their children; fails when a walk could go in circles.
    fn order(&self) -> Result<Vec<Target>> {
        #[derive(Clone, Copy, PartialEq)]
        enum State {
            New,
            Open,
            Done,
        }
        let mut nodes = vec![State::New; self.nodes.len()];
        let mut leaves = vec![State::New; self.leaves.len()];
        let mut done = Vec::new();
        // The last root first, so that the first tree stands in front.
        let mut stack: Vec<(Target, bool)> = self.roots.iter().map(|r| (*r, false)).collect();
        while let Some((t, leaving)) = stack.pop() {
            let state = match t {
                Target::Node(i) => &mut nodes[i],
                Target::Leaf(i) => &mut leaves[i],
            };
            if leaving {
                *state = State::Done;
                done.push(t);
                continue;
            }
            match *state {
                State::Done => continue,
                State::Open => return Err(err!(InvalidArgument, "the nodes of a tree go in circles")),
                State::New => *state = State::Open,
            }
            stack.push((t, true));
            if let Target::Node(i) = t {
                let n = &self.nodes[i];
                // Done first ends up behind: the branch that is taken when the test holds follows its parent.
                stack.extend([(n.yes, false), (n.no, false)]);
            }
        }
        done.reverse();
        Ok(done)
    }

    /// Checks everything and lays the tables out. Weights of one target in one leaf become one.
    pub fn tables(mut self, dtype: DType, n_targets: i64, features: Option<i64>, aggregate: TreeAggregate) -> Result<Tables> {
        self.check(n_targets, features)?;
        for leaf in &mut self.leaves {
            leaf.sort_by_key(|w| w.0);
            leaf.dedup_by(|b, a| {
                let same = a.0 == b.0;
                if same {
                    a.1 = match aggregate {
                        TreeAggregate::Sum | TreeAggregate::Average => a.1 + b.1,
                        TreeAggregate::Min => a.1.min(b.1),
                        TreeAggregate::Max => a.1.max(b.1),
                    };
                }
                same
            });
        }
        let order = self.order()?;
        let at: HashMap<Target, i32> = order.iter().enumerate().map(|(i, t)| (*t, i as i32)).collect();
        let (mut nodes, mut splits) = (Vec::new(), Vec::new());
        let (mut targets, mut weights) = (Vec::new(), Vec::new());
        for t in &order {
            match t {
                Target::Node(i) => {
                    let n = &self.nodes[*i];
                    let mode = n.mode + if n.missing { MISSING } else { 0 };
                    nodes.extend([n.feature as i32, mode, at[&n.yes], at[&n.no]]);
                    splits.push(n.split);
                }
                Target::Leaf(i) => {
                    let leaf = &self.leaves[*i];
                    nodes.extend([weights.len() as i32, LEAF, leaf.len() as i32, 0]);
                    splits.push(0.0);
                    targets.extend(leaf.iter().map(|w| w.0 as i32));
                    weights.extend(leaf.iter().map(|w| w.1));
                }
            }
        }
        let roots: Vec<i32> = self.roots.iter().map(|r| at[r]).collect();
        let numbers = |v: &[f64]| Tensor::from_slice(&[v.len()], v).cast(dtype);
        Ok(Tables {
            nodes: Tensor::from_slice(&[nodes.len() / 4, 4], &nodes),
            splits: numbers(&splits),
            targets: Tensor::from_slice(&[targets.len()], &targets),
            weights: numbers(&weights),
            roots: Tensor::from_slice(&[roots.len()], &roots),
        })
    }
}
