//! Cuts the steps where shapes or host values wait for data.
//!
//! Every value has a level. Ordinary steps run at even levels; a node that decides its own output shapes, or runs graphs,
//! stands alone at an odd one. A value that the host reads back is there two levels after the step that computes it.
//! Steps of one even level are one stage: they are made concrete, placed and run together.

use super::{HostSet, Plan, StepKind};
use crate::network::ValueId;
use std::collections::{BTreeMap, HashMap, HashSet};

/// Steps that run together; see the module's text.
#[derive(Debug, Default)]
pub struct Stage {
    /// Indices into the plan's steps, in order; just one when dynamic.
    pub steps: Vec<usize>,
    /// The step decides its output shapes itself.
    pub is_dynamic: bool,
    /// Values that the host reads before the stage begins.
    pub readbacks: Vec<ValueId>,
    /// Values from outside that its steps use; constants are not listed.
    pub externals: Vec<ValueId>,
    /// Values that it makes for later stages, or that leave the graph.
    pub escapes: Vec<ValueId>,
}

/// The stages of a plan; one for a plan whose shapes follow from the inputs' shapes.
pub(super) fn split(plan: &Plan, host: &HostSet) -> Vec<Stage> {
    let g = &plan.graph;
    let mut level: HashMap<ValueId, u32> = HashMap::new();
    let mut by_level: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
    for (i, s) in plan.steps.iter().enumerate() {
        let node = g.node(s.node);
        let is_host = matches!(s.kind, StepKind::Host);
        let host_operands = node.op.def().host_inputs();
        let mut at = 0;
        for (k, v) in node.inputs.iter().enumerate() {
            let Some(v) = v else { continue };
            let made = level.get(v).copied().unwrap_or(0).next_multiple_of(2);
            let by_host = is_host || host_operands.contains(&k);
            let waits = by_host && host.readbacks.contains(v) && level.get(v).is_some_and(|l| l % 2 == 0);
            at = at.max(made + 2 * waits as u32);
        }
        let dynamic = matches!(s.kind, StepKind::Counted(_) | StepKind::Control(_));
        at += dynamic as u32;
        level.extend(node.outputs.iter().map(|v| (*v, at)));
        by_level.entry(at).or_default().push(i);
    }
    let mut stages = Vec::new();
    for (at, steps) in by_level {
        match at % 2 {
            0 => stages.push(Stage { steps, ..Stage::default() }),
            _ => stages.extend(steps.into_iter().map(|s| Stage { steps: vec![s], is_dynamic: true, ..Stage::default() })),
        }
    }
    // What crosses from stage to stage.
    let mut made_in: HashMap<ValueId, usize> = HashMap::new();
    for (k, stage) in stages.iter().enumerate() {
        for &s in &stage.steps {
            made_in.extend(g.node(plan.steps[s].node).outputs.iter().map(|v| (*v, k)));
        }
    }
    let mut crossing: HashSet<ValueId> = g.outputs().iter().map(|p| p.value).collect();
    for (k, stage) in stages.iter_mut().enumerate() {
        let mut seen = HashSet::new();
        for &s in &stage.steps {
            let node = g.node(plan.steps[s].node);
            let is_host = matches!(plan.steps[s].kind, StepKind::Host);
            let host_operands = node.op.def().host_inputs();
            for (i, v) in node.inputs.iter().enumerate() {
                let Some(v) = *v else { continue };
                if g.as_const(v).is_some() || made_in.get(&v) == Some(&k) {
                    continue;
                }
                if (is_host || host_operands.contains(&i)) && host.readbacks.contains(&v) && !stage.readbacks.contains(&v) {
                    stage.readbacks.push(v);
                }
                crossing.insert(v);
                if seen.insert(v) {
                    stage.externals.push(v);
                }
            }
        }
    }
    for (v, k) in &made_in {
        if crossing.contains(v) {
            stages[*k].escapes.push(*v);
        }
    }
    stages.iter_mut().for_each(|s| s.escapes.sort_unstable());
    stages
}
