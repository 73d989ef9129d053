//! Import of TreeEnsembleRegressor, TreeEnsembleClassifier (versions 1 and 3 of ai.onnx.ml) and TreeEnsemble (5).

use super::builder::{RawNode, RawTrees, Target, mode_of};
use super::*;
use crate::bail;
use crate::err;
use crate::network::ValueId;
use crate::ops::ml::{self, DOMAIN, Transform};
use crate::ops::{ImportCx, OnnxOp};
use std::collections::{HashMap, HashSet};

pub(super) const TABLE: &[OnnxOp] = &[
    OnnxOp { domain: DOMAIN, name: "TreeEnsembleRegressor", since: 1, import: regressor },
    OnnxOp { domain: DOMAIN, name: "TreeEnsembleClassifier", since: 1, import: super::classifier::import },
    OnnxOp { domain: DOMAIN, name: "TreeEnsemble", since: 5, import: ensemble },
];

/// An attribute of numbers that may be given as floats or as a tensor; whether it was a tensor of f64.
pub(super) fn numbers(cx: &ImportCx<'_>, name: &str) -> Result<Option<Vec<f64>>> {
    let floats = cx.attrs.floats(name)?.filter(|v| !v.is_empty());
    let tensor = cx.attrs.tensor(&format!("{name}_as_tensor"))?;
    match (floats, tensor) {
        (Some(_), Some(_)) => bail!(InvalidArgument, "{name} is given twice, as floats and as a tensor"),
        (Some(v), None) => Ok(Some(v.into_iter().map(|v| v as f64).collect())),
        (None, Some(t)) => Ok(Some(t.to_f64s())),
        (None, None) => Ok(None),
    }
}

/// x as rows of numbers that trees compare: f64 stays, everything else becomes f32.
pub(super) fn rows(cx: &mut ImportCx<'_>) -> Result<ValueId> {
    let x = ml::rows(cx)?;
    match cx.fact(x).dtype {
        DType::F64 | DType::F32 => Ok(x),
        _ => ml::cast(cx, x, DType::F32),
    }
}

/// Adds the node for these trees; the output is of x's type.
pub(super) fn add(cx: &mut ImportCx<'_>, x: ValueId, raw: RawTrees, n_targets: i64, aggregate: TreeAggregate) -> Result<ValueId> {
    let f = cx.fact(x);
    ensure!((1..=i32::MAX as i64).contains(&n_targets), InvalidArgument, "the number of targets is {n_targets}");
    let t = raw.tables(f.dtype, n_targets, f.shape[1].as_const(), aggregate)?;
    let mut inputs = vec![x];
    for t in [t.nodes, t.splits, t.targets, t.weights, t.roots] {
        inputs.push(cx.constant(t));
    }
    cx.add(TreeEnsemble { n_targets, aggregate }, &inputs)
}

/// The trees of versions 1 and 3. `what` is "target" or "class".
pub(super) fn read(cx: &ImportCx<'_>, what: &str) -> Result<RawTrees> {
    let ints = |name: &str| -> Result<Vec<i64>> { Ok(cx.ints(name)?.unwrap_or_default()) };
    let (trees, ids, features) = (ints("nodes_treeids")?, ints("nodes_nodeids")?, ints("nodes_featureids")?);
    let (yes, no, missing) = (ints("nodes_truenodeids")?, ints("nodes_falsenodeids")?, ints("nodes_missing_value_tracks_true")?);
    let modes = cx.attrs.strings("nodes_modes")?.unwrap_or_default();
    let values = numbers(cx, "nodes_values")?.unwrap_or_default();
    numbers(cx, "nodes_hitrates")?;
    let n = ids.len();
    let lens = [trees.len(), features.len(), yes.len(), no.len(), modes.len(), values.len()];
    ensure!(lens.iter().all(|l| *l == n), InvalidArgument, "{n} nodes, but their attributes have the lengths {lens:?}");
    ensure!(missing.is_empty() || missing.len() == n, InvalidArgument, "{} marks of missing values for {n} nodes", missing.len());
    let mut at: HashMap<(i64, i64), Target> = HashMap::new();
    let mut raw = RawTrees::default();
    let mut n_nodes = 0;
    for i in 0..n {
        let is_leaf = modes[i] == "LEAF";
        let target = if is_leaf { Target::Leaf(raw.leaves.len()) } else { Target::Node(n_nodes) };
        if is_leaf {
            raw.leaves.push(Vec::new());
        } else {
            n_nodes += 1;
        }
        let twice = at.insert((trees[i], ids[i]), target).is_some();
        ensure!(!twice, InvalidArgument, "node {} of tree {} is given twice", ids[i], trees[i]);
    }
    let mut children = HashSet::new();
    for i in (0..n).filter(|i| modes[*i] != "LEAF") {
        let mode = mode_of(&modes[i]).ok_or_else(|| err!(Unsupported, "nodes_modes: {:?} is not known", modes[i]))?;
        let child = |id: i64| -> Result<Target> {
            let t = at.get(&(trees[i], id)).copied();
            t.ok_or_else(|| err!(InvalidArgument, "node {} of tree {} leads to {id}, which is not there", ids[i], trees[i]))
        };
        let (yes, no) = (child(yes[i])?, child(no[i])?);
        children.extend([yes, no]);
        let missing = missing.get(i).is_some_and(|m| *m != 0);
        raw.nodes.push(RawNode { feature: features[i], mode, split: values[i], missing, yes, no });
    }
    // The root of a tree is its first node that no other leads to.
    let mut rooted: HashSet<i64> = HashSet::new();
    for i in 0..n {
        let t = at[&(trees[i], ids[i])];
        if !children.contains(&t) && rooted.insert(trees[i]) {
            raw.roots.push(t);
        }
    }
    let distinct: HashSet<i64> = trees.iter().copied().collect();
    ensure!(rooted.len() == distinct.len(), InvalidArgument, "a tree has no root");
    let weights = numbers(cx, &format!("{what}_weights"))?.unwrap_or_default();
    let (w_trees, w_nodes, w_ids) =
        (ints(&format!("{what}_treeids"))?, ints(&format!("{what}_nodeids"))?, ints(&format!("{what}_ids"))?);
    let lens = [w_trees.len(), w_nodes.len(), w_ids.len()];
    ensure!(lens.iter().all(|l| *l == weights.len()), InvalidArgument, "{} weights, but {lens:?} places", weights.len());
    for (i, w) in weights.iter().enumerate() {
        match at.get(&(w_trees[i], w_nodes[i])) {
            Some(Target::Leaf(l)) => raw.leaves[*l].push((w_ids[i], *w)),
            // Weights of inner nodes are never met.
            Some(Target::Node(_)) => {}
            None => bail!(InvalidArgument, "a weight belongs to node {} of tree {}, which is not there", w_nodes[i], w_trees[i]),
        }
    }
    Ok(raw)
}

fn regressor(cx: &mut ImportCx<'_>) -> Result<Vec<ValueId>> {
    let raw = read(cx, "target")?;
    let n_targets = cx.int("n_targets", 1)?;
    let aggregate = cx.string("aggregate_function", "SUM")?;
    let aggregate = TreeAggregate::from_name(&aggregate.to_lowercase())
        .ok_or_else(|| err!(Unsupported, "aggregate_function {aggregate:?} is not known"))?;
    let transform = Transform::from_attr(cx)?;
    let base = numbers(cx, "base_values")?;
    let x = rows(cx)?;
    let mut y = add(cx, x, raw, n_targets, aggregate)?;
    if let Some(base) = base {
        let fits = base.len() as i64 == n_targets;
        ensure!(fits, InvalidArgument, "{} base values for {n_targets} targets", base.len());
        y = ml::add_row(cx, y, &base)?;
    }
    let y = ml::cast(cx, y, DType::F32)?;
    Ok(vec![transform.apply(cx, y)?])
}

/// A tensor attribute of numbers that must be there.
fn tensor(cx: &ImportCx<'_>, name: &str) -> Result<Vec<f64>> {
    let t = cx.attrs.tensor(name)?.ok_or_else(|| err!(InvalidArgument, "attribute {name} is missing"))?;
    Ok(t.to_f64s())
}

fn ensemble(cx: &mut ImportCx<'_>) -> Result<Vec<ValueId>> {
    let ints = |cx: &ImportCx<'_>, name: &str| -> Result<Vec<i64>> { Ok(cx.ints(name)?.unwrap_or_default()) };
    let (features, missing) = (ints(cx, "nodes_featureids")?, ints(cx, "nodes_missing_value_tracks_true")?);
    let (yes, no) = (ints(cx, "nodes_truenodeids")?, ints(cx, "nodes_falsenodeids")?);
    let (yes_leaf, no_leaf) = (ints(cx, "nodes_trueleafs")?, ints(cx, "nodes_falseleafs")?);
    let (modes, splits) = (tensor(cx, "nodes_modes")?, tensor(cx, "nodes_splits")?);
    cx.attrs.tensor("nodes_hitrates")?;
    let n = modes.len();
    let lens = [features.len(), yes.len(), no.len(), yes_leaf.len(), no_leaf.len(), splits.len()];
    ensure!(lens.iter().all(|l| *l == n), InvalidArgument, "{n} nodes, but their attributes have the lengths {lens:?}");
    ensure!(missing.is_empty() || missing.len() == n, InvalidArgument, "{} marks of missing values for {n} nodes", missing.len());
    let (weights, ids) = (tensor(cx, "leaf_weights")?, ints(cx, "leaf_targetids")?);
    ensure!(weights.len() == ids.len(), InvalidArgument, "{} leaf weights for {} targets", weights.len(), ids.len());
    let mut raw = RawTrees { leaves: ids.iter().zip(&weights).map(|(t, w)| vec![(*t, *w)]).collect(), ..Default::default() };
    // Members of all set tests, each set ended by NaN.
    let members = cx.attrs.tensor("membership_values")?.map(|t| t.to_f64s()).unwrap_or_default();
    let mut sets = members.split(|v| v.is_nan());
    let mut of_node = Vec::new();
    for i in 0..n {
        let mode = match modes[i] as i64 {
            m @ 0..=5 => m as i32,
            6 => {
                let set = sets.next().filter(|_| !members.is_empty());
                of_node.push((i, set.ok_or_else(|| err!(InvalidArgument, "membership_values has too few sets"))?));
                EQ
            }
            m => bail!(Unsupported, "nodes_modes: {m} is not known"),
        };
        let target = |id: i64, is_leaf: i64| -> Result<Target> {
            let id = usize::try_from(id).map_err(|_| err!(InvalidArgument, "node {i} leads to {id}"))?;
            Ok(if is_leaf != 0 { Target::Leaf(id) } else { Target::Node(id) })
        };
        raw.nodes.push(RawNode {
            feature: features[i],
            mode,
            split: splits[i],
            missing: missing.get(i).is_some_and(|m| *m != 0),
            yes: target(yes[i], yes_leaf[i])?,
            no: target(no[i], no_leaf[i])?,
        });
    }
    for (i, set) in of_node {
        raw.make_member_test(i, set);
    }
    for root in ints(cx, "tree_roots")? {
        let root = usize::try_from(root).ok().filter(|r| *r < n);
        raw.roots.push(Target::Node(root.ok_or_else(|| err!(InvalidArgument, "a root of a tree is not there"))?));
    }
    let n_targets = cx.int("n_targets", 1)?;
    let aggregate = match cx.int("aggregate_function", 1)? {
        0 => TreeAggregate::Average,
        1 => TreeAggregate::Sum,
        2 => TreeAggregate::Min,
        3 => TreeAggregate::Max,
        v => bail!(Unsupported, "aggregate_function {v} is not known"),
    };
    let transform = match cx.int("post_transform", 0)? {
        0 => Transform::None,
        1 => Transform::Softmax,
        2 => Transform::Logistic,
        3 => Transform::SoftmaxZero,
        4 => Transform::Probit,
        v => bail!(Unsupported, "post_transform {v} is not known"),
    };
    let dtype = cx.fact(cx.input(0)?).dtype;
    let x = rows(cx)?;
    let y = add(cx, x, raw, n_targets, aggregate)?;
    let y = ml::cast(cx, y, dtype)?;
    Ok(vec![transform.apply(cx, y)?])
}
