//! Where the values of a shape plan live: bound memory, the arena, weights, uploads, memory between stages.

use super::lanes::{Lanes, MAX_LANES};
use super::memory::{Interval, assign_offsets};
use super::shapes::{EndCopy, Escape, Loc, Prepared, ShapePlan, ShapedStep, Walk, host_tensor};
use super::Plan;
use crate::base::{Fact, Result, knobs};
use crate::internal;
use crate::network::ValueId;
use crate::ops::{Problem, TensorDesc};
use std::collections::HashSet;

fn desc(facts: &[Option<Fact>], v: ValueId) -> Result<TensorDesc> {
    let f = facts[v.idx()].as_ref().ok_or_else(|| internal!("value {} has no fact", v.0))?;
    Ok(TensorDesc { dtype: f.dtype, dims: f.shape.to_concrete()? })
}

/// What lies outside of the steps that are placed.
pub(super) enum Ports<'a> {
    /// The application's memory, bound to the graph's inputs and outputs.
    Bound,
    /// Values of other stages.
    Variables { on_device: &'a HashSet<ValueId>, escapes: &'a [ValueId] },
}

/// Decides where values live and assembles the shape plan.
pub(super) fn place(
    plan: &Plan,
    walk: &Walk,
    ports: &Ports<'_>,
    prepare: &mut dyn FnMut(usize, &Problem) -> Result<Prepared>,
) -> Result<ShapePlan> {
    let g = &plan.graph;
    let Walk { facts, roots, device_steps } = walk;
    let mut loc: Vec<Loc> = vec![Loc::None; g.n_values()];
    let mut computed = vec![false; g.n_values()];
    for &s in device_steps.iter() {
        for v in &g.node(plan.steps[s].node).outputs {
            computed[v.idx()] = true;
        }
    }
    // Outputs first: a computed value is written straight to the address of the first output that it is.
    let mut end = Vec::new();
    match ports {
        Ports::Bound => {
            for (i, p) in g.outputs().iter().enumerate() {
                let root = roots[p.value.idx()];
                if computed[root.idx()] && loc[root.idx()] == Loc::None {
                    loc[root.idx()] = Loc::Output(i);
                } else {
                    end.push((i, p.value));
                }
            }
            for (i, p) in g.inputs().iter().enumerate() {
                loc[p.value.idx()] = Loc::Input(i);
            }
        }
        Ports::Variables { on_device, escapes } => {
            for v in on_device.iter() {
                loc[v.idx()] = Loc::Var(*v);
            }
            for v in escapes.iter() {
                let root = roots[v.idx()];
                if computed[root.idx()] {
                    loc[root.idx()] = Loc::Var(root);
                }
            }
        }
    }
    let mut uploads = Vec::new();
    let mut upload_bytes = 0usize;
    let mut source = |v: ValueId, loc: &mut Vec<Loc>| -> Result<Loc> {
        let root = roots[v.idx()];
        if loc[root.idx()] != Loc::None || computed[root.idx()] {
            return Ok(loc[root.idx()]);
        }
        let l = if let Some(number) = plan.consts.get(&root) {
            Loc::Const(*number)
        } else {
            let t = facts[root.idx()]
                .as_ref()
                .and_then(host_tensor)
                .ok_or_else(|| internal!("value {:?} is nowhere", g.value(root).name))?;
            let at = upload_bytes;
            upload_bytes += t.bytes().len().next_multiple_of(super::memory::ALIGN);
            uploads.push((at, t));
            Loc::Upload(at)
        };
        loc[root.idx()] = l;
        Ok(l)
    };
    // Lifetimes of what remains, in device steps: those that write a value, then those that read it.
    let mut touched: Vec<Vec<usize>> = vec![Vec::new(); g.n_values()];
    let mut needs: Vec<Vec<usize>> = Vec::new();
    for (i, &s) in device_steps.iter().enumerate() {
        let node = g.node(plan.steps[s].node);
        let mut need = Vec::new();
        for v in node.inputs.iter().flatten() {
            source(*v, &mut loc)?;
            let r = roots[v.idx()].idx();
            need.extend(touched[r].first().filter(|_| computed[r]));
            touched[r].push(i);
        }
        for v in &node.outputs {
            touched[v.idx()].push(i);
        }
        need.sort_unstable();
        need.dedup();
        needs.push(need);
    }
    let n = device_steps.len();
    for (_, v) in &end {
        source(*v, &mut loc)?;
        touched[roots[v.idx()].idx()].push(n);
    }
    let mut steps = Vec::with_capacity(n);
    let mut fill = Vec::with_capacity(n);
    for &s in device_steps.iter() {
        let problem = problem(plan, s, facts)?;
        let Prepared { work_bytes, fill: filled } = prepare(s, &problem)?;
        fill.extend(filled);
        steps.push(ShapedStep { step: s, problem, inputs: vec![], outputs: vec![], work: 0, work_bytes });
    }
    // Stages are driven by the host, one step after the other.
    let whole = matches!(ports, Ports::Bound) && fill.len() == n;
    let lanes = if whole { Lanes::new(&needs, &fill, max_lanes()) } else { None };
    let lanes = lanes.as_ref();
    let is_last = |r: ValueId, i: usize| {
        let reads = &touched[r.idx()];
        reads.last() == Some(&i) && reads.iter().all(|x| *x == i || lanes.is_none_or(|l| l.is_before(*x, i)))
    };
    // In place: the output takes the slot of an input that dies here.
    let mut slot: Vec<ValueId> = g.value_ids().collect();
    let mut intervals: Vec<Interval> = Vec::new();
    let mut owner: Vec<Option<usize>> = vec![None; g.n_values()];
    for (i, &s) in device_steps.iter().enumerate() {
        let node = g.node(plan.steps[s].node);
        let out = node.outputs[0];
        if loc[out.idx()] == Loc::None {
            let donor = node.inputs.iter().enumerate().find_map(|(k, v)| {
                let r = roots[(*v)?.idx()];
                let dies = computed[r.idx()] && loc[r.idx()] == Loc::None && is_last(r, i);
                let alone = node.inputs.iter().flatten().filter(|w| roots[w.idx()] == r).count() == 1;
                let fits = desc(facts, r).ok()?.bytes() == steps[i].problem.outputs[0].bytes();
                (dies && alone && fits && node.op.def().in_place(k)).then_some(slot[r.idx()])
            });
            if let Some(d) = donor {
                slot[out.idx()] = d;
            }
        }
        for v in &node.outputs {
            if loc[v.idx()] != Loc::None {
                continue;
            }
            let bytes = desc(facts, *v)?.bytes();
            match owner[slot[v.idx()].idx()] {
                Some(k) => intervals[k].extend(&touched[v.idx()]),
                None => {
                    owner[v.idx()] = Some(intervals.len());
                    intervals.push(Interval::new(bytes.max(1), &touched[v.idx()]));
                }
            }
        }
    }
    let first_work = intervals.len();
    for (i, s) in steps.iter().enumerate() {
        intervals.push(Interval::new(s.work_bytes, &[i]));
    }
    let (offsets, arena_bytes) = assign_offsets(&intervals, lanes);
    let resolve = |v: ValueId, loc: &[Loc]| -> Loc {
        let r = roots[v.idx()];
        match loc[r.idx()] {
            Loc::None => owner[slot[r.idx()].idx()].map_or(Loc::None, |k| Loc::Arena(offsets[k])),
            l => l,
        }
    };
    let mut last_input_read = None;
    for (i, st) in steps.iter_mut().enumerate() {
        let node = g.node(plan.steps[st.step].node);
        st.inputs = node.inputs.iter().map(|v| v.map_or(Loc::None, |v| resolve(v, &loc))).collect();
        st.outputs = node.outputs.iter().map(|v| resolve(*v, &loc)).collect();
        st.work = offsets[first_work + i];
        if st.inputs.iter().any(|l| matches!(l, Loc::Input(_))) {
            last_input_read = Some(i);
        }
    }
    let end_copies: Vec<EndCopy> = end
        .into_iter()
        .map(|(output, v)| Ok(EndCopy { from: resolve(v, &loc), output, bytes: desc(facts, v)?.bytes() }))
        .collect::<Result<_>>()?;
    let (mut inputs, mut outputs, mut escaped) = (Vec::new(), Vec::new(), Vec::new());
    match ports {
        Ports::Bound => {
            inputs = g.inputs().iter().map(|p| desc(facts, p.value)).collect::<Result<_>>()?;
            outputs = g.outputs().iter().map(|p| desc(facts, p.value)).collect::<Result<_>>()?;
        }
        Ports::Variables { escapes, .. } => {
            for v in escapes.iter() {
                let host = facts[v.idx()].as_ref().and_then(host_tensor);
                escaped.push(Escape { value: *v, desc: desc(facts, *v)?, at: resolve(*v, &loc), host });
            }
        }
    }
    Ok(ShapePlan {
        inputs,
        outputs,
        escapes: escaped,
        steps,
        end_copies,
        arena_bytes,
        uploads,
        upload_bytes,
        last_input_read,
        lanes: lanes.cloned(),
    })
}

/// Lanes that the environment leaves.
fn max_lanes() -> usize {
    let aux = knobs::AUX_STREAMS.get().and_then(|n| n.parse::<usize>().ok());
    aux.map_or(MAX_LANES, |n| n.saturating_add(1).min(MAX_LANES))
}

fn problem(plan: &Plan, step: usize, facts: &[Option<Fact>]) -> Result<Problem> {
    let node = plan.graph.node(plan.steps[step].node);
    Ok(Problem {
        inputs: node.inputs.iter().map(|v| v.map(|v| desc(facts, v)).transpose()).collect::<Result<_>>()?,
        outputs: node.outputs.iter().map(|v| desc(facts, *v)).collect::<Result<_>>()?,
        known: node
            .inputs
            .iter()
            .map(|v| v.and_then(|v| facts[v.idx()].as_ref()).and_then(host_tensor))
            .collect(),
    })
}
