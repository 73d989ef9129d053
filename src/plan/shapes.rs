//! The plan at concrete shapes: every shape, every host value, and where each tensor lives.
//!
//! This is the shape program of an engine. It runs when a context meets input shapes that it has not kept; it knows no
//! device, so it is tested without one.

use super::memory::{Interval, assign_offsets};
use super::profile::bind_shape;
use super::{Plan, StepKind};
use crate::base::dims::Bindings;
use crate::base::error::ResultExt;
use crate::base::{Fact, Result, Tensor};
use crate::network::ValueId;
use crate::network::eval::eval_node;
use crate::ops::{InferCx, Problem, TensorDesc};
use crate::{bail, ensure, err, internal};
use std::sync::Arc;

/// Where a tensor's bytes are while a plan runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Loc {
    /// Never materialized, or an absent operand.
    None,
    /// The address bound to a graph input.
    Input(usize),
    /// The address bound to a graph output.
    Output(usize),
    /// An offset in the context's arena.
    Arena(usize),
    /// A weight of the engine.
    Const(ValueId),
    /// An offset in the upload block: host values that device steps read.
    Upload(usize),
}

/// A device step at concrete shapes.
#[derive(Clone, Debug)]
pub struct ShapedStep {
    /// Index into the plan's steps.
    pub step: usize,
    pub problem: Problem,
    pub inputs: Vec<Loc>,
    pub outputs: Vec<Loc>,
    /// Offset of the scratch in the arena; filled in by `place_workspaces`.
    pub work: usize,
    /// Bytes of scratch.
    pub work_bytes: usize,
}

/// A copy from a tensor to an output's address, for outputs that nothing computes in place.
#[derive(Clone, Debug, PartialEq)]
pub struct EndCopy {
    pub from: Loc,
    pub output: usize,
    pub bytes: usize,
}

/// See the module's text.
#[derive(Debug)]
pub struct ShapePlan {
    /// Concrete type and shape of every output, in order.
    pub outputs: Vec<TensorDesc>,
    pub inputs: Vec<TensorDesc>,
    pub steps: Vec<ShapedStep>,
    pub end_copies: Vec<EndCopy>,
    pub arena_bytes: usize,
    /// Host values to copy to the device once: offset in the upload block and value.
    pub uploads: Vec<(usize, Arc<Tensor>)>,
    pub upload_bytes: usize,
    /// Index of the last of `steps` that reads a bound input; `None` when none does. End copies count as after all.
    pub last_input_read: Option<usize>,
}

/// What the host computes at most in one step: shapes, axes and indices are small.
const MAX_HOST_BYTES: usize = 64 << 20;

/// Runs the shape program.
///
/// `shapes` are the dimensions of each graph input; `host_values` the elements of the inputs in `plan.host_inputs`;
/// `workspace` gives the scratch bytes of a step.
pub fn specialize(
    plan: &Plan,
    shapes: &[Vec<i64>],
    host_values: &[Arc<Tensor>],
    mut workspace: impl FnMut(usize, &Problem) -> Result<usize>,
) -> Result<ShapePlan> {
    let g = &plan.graph;
    ensure!(shapes.len() == g.inputs().len(), Internal, "{} shapes for {} inputs", shapes.len(), g.inputs().len());
    let mut bindings = Bindings::new();
    for (p, dims) in g.inputs().iter().zip(shapes) {
        bind_shape(&p.name, &g.fact(p.value).shape, dims, &mut bindings)?;
    }
    let mut facts: Vec<Option<Fact>> = vec![None; g.n_values()];
    for v in g.value_ids() {
        if g.as_const(v).is_some() {
            facts[v.idx()] = Some(g.fact(v).clone());
        }
    }
    for (i, p) in g.inputs().iter().enumerate() {
        let dims: Vec<usize> = shapes[i].iter().map(|d| *d as usize).collect();
        let mut f = Fact::new(g.fact(p.value).dtype, dims.as_slice());
        f.check().with_context(|| format!("input {:?}", p.name))?;
        if let Some(at) = plan.host_inputs.iter().position(|h| *h == i) {
            let t = host_values.get(at).ok_or_else(|| internal!("host value of input {:?} is missing", p.name))?;
            f = Fact::of_const(t.clone());
        }
        facts[p.value.idx()] = Some(f);
    }
    let mut roots: Vec<ValueId> = g.value_ids().collect();
    let mut device_steps = Vec::new();
    for (s, step) in plan.steps.iter().enumerate() {
        let node = g.node(step.node);
        let ins: Vec<Option<&Fact>> = node.inputs.iter().map(|v| v.and_then(|v| facts[v.idx()].as_ref())).collect();
        let at = || format!("{} {:?}", node.op.name(), node.name);
        let mut out = node.op.def().infer(&InferCx::new(&ins)).with_context(at)?;
        for f in &out {
            let dims = f.shape.concrete().ok_or_else(|| {
                err!(Unsupported, "the output shape {} depends on the data, which is not supported yet", f.shape)
                    .context(at())
            })?;
            f.check().with_context(at)?;
            crate::log_verbose!("shape of {}: {}{dims:?}", at(), f.dtype);
        }
        match step.kind {
            StepKind::Host => {
                let known: Vec<Option<Arc<Tensor>>> = ins.iter().map(|f| f.and_then(host_tensor)).collect();
                let ready = ins.iter().zip(&known).all(|(f, k)| f.is_none() || k.is_some());
                if out.iter().all(|f| host_tensor(f).is_some()) {
                    // Infer gave the elements already.
                } else if ready {
                    let bytes: usize = out.iter().filter_map(|f| f.shape.concrete().map(|d| d.iter().product::<usize>() * f.dtype.size())).sum();
                    ensure!(bytes <= MAX_HOST_BYTES, OutOfMemory, "{}: the host does not compute {bytes} bytes of shapes", at());
                    out = eval_node(node, &known)?.into_iter().map(|t| Fact::of_const(Arc::new(t))).collect();
                } else {
                    bail!(Internal, "{}: a host step has inputs that the host does not know", at());
                }
            }
            StepKind::View => {
                let from = node.inputs.first().copied().flatten().ok_or_else(|| internal!("a view of nothing"))?;
                roots[node.outputs[0].idx()] = roots[from.idx()];
            }
            StepKind::Device(_) => device_steps.push(s),
        }
        for (v, mut f) in node.outputs.iter().zip(out) {
            // A value that the host knows by inference alone is still computed by its device step.
            if !matches!(step.kind, StepKind::Host) && !matches!(step.kind, StepKind::View) {
                f.known = None;
            }
            facts[v.idx()] = Some(f);
        }
    }
    place(plan, &facts, &roots, &device_steps, &mut workspace)
}

/// The elements of a fact when all are numbers.
fn host_tensor(f: &Fact) -> Option<Arc<Tensor>> {
    if let Some(t) = f.as_const() {
        return Some(t.clone());
    }
    let dims: Vec<i64> = f.as_dims()?.iter().map(|d| d.as_const()).collect::<Option<_>>()?;
    let shape = f.shape.concrete()?;
    Some(Arc::new(Tensor::from_slice(&shape, &dims).cast(f.dtype)))
}

fn desc(facts: &[Option<Fact>], v: ValueId) -> Result<TensorDesc> {
    let f = facts[v.idx()].as_ref().ok_or_else(|| internal!("value {} has no fact", v.0))?;
    Ok(TensorDesc { dtype: f.dtype, dims: f.shape.to_concrete()? })
}

/// Decides where values live and assembles the shape plan.
fn place(
    plan: &Plan,
    facts: &[Option<Fact>],
    roots: &[ValueId],
    device_steps: &[usize],
    workspace: &mut dyn FnMut(usize, &Problem) -> Result<usize>,
) -> Result<ShapePlan> {
    let g = &plan.graph;
    let mut loc: Vec<Loc> = vec![Loc::None; g.n_values()];
    let mut computed = vec![false; g.n_values()];
    for &s in device_steps {
        for v in &g.node(plan.steps[s].node).outputs {
            computed[v.idx()] = true;
        }
    }
    // Outputs first: a computed value is written straight to the address of the first output that it is.
    let mut end = Vec::new();
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
    let mut uploads = Vec::new();
    let mut upload_bytes = 0usize;
    let mut source = |v: ValueId, loc: &mut Vec<Loc>| -> Result<Loc> {
        let root = roots[v.idx()];
        if loc[root.idx()] != Loc::None || computed[root.idx()] {
            return Ok(loc[root.idx()]);
        }
        let l = if g.as_const(root).is_some() {
            Loc::Const(root)
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
    // Lifetimes of what remains, in device steps.
    let mut first = vec![usize::MAX; g.n_values()];
    let mut last = vec![0usize; g.n_values()];
    for (i, &s) in device_steps.iter().enumerate() {
        let node = g.node(plan.steps[s].node);
        for v in &node.outputs {
            first[v.idx()] = first[v.idx()].min(i);
            last[v.idx()] = last[v.idx()].max(i);
        }
        for v in node.inputs.iter().flatten() {
            source(*v, &mut loc)?;
            let r = roots[v.idx()].idx();
            last[r] = last[r].max(i);
        }
    }
    let n = device_steps.len();
    for (_, v) in &end {
        source(*v, &mut loc)?;
        last[roots[v.idx()].idx()] = n;
    }
    // In place: the output takes the slot of an input that dies here.
    let mut slot: Vec<ValueId> = g.value_ids().collect();
    let mut steps = Vec::with_capacity(n);
    let mut intervals = Vec::new();
    let mut owner: Vec<Option<usize>> = vec![None; g.n_values()];
    for (i, &s) in device_steps.iter().enumerate() {
        let node = g.node(plan.steps[s].node);
        let problem = problem(plan, s, facts)?;
        let out = node.outputs[0];
        if loc[out.idx()] == Loc::None {
            let donor = node.inputs.iter().enumerate().find_map(|(k, v)| {
                let r = roots[(*v)?.idx()];
                let dies = computed[r.idx()] && loc[r.idx()] == Loc::None && last[r.idx()] == i;
                let alone = node.inputs.iter().flatten().filter(|w| roots[w.idx()] == r).count() == 1;
                let fits = desc(facts, r).ok()?.bytes() == problem.outputs[0].bytes();
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
                Some(k) => {
                    let iv: &mut Interval = &mut intervals[k];
                    iv.last = iv.last.max(last[v.idx()]);
                }
                None => {
                    owner[v.idx()] = Some(intervals.len());
                    intervals.push(Interval { bytes: bytes.max(1), first: first[v.idx()], last: last[v.idx()] });
                }
            }
        }
        let work_bytes = workspace(s, &problem)?;
        steps.push(ShapedStep { step: s, problem, inputs: vec![], outputs: vec![], work: 0, work_bytes });
    }
    let first_work = intervals.len();
    for (i, s) in steps.iter().enumerate() {
        intervals.push(Interval { bytes: s.work_bytes, first: i, last: i });
    }
    let (offsets, arena_bytes) = assign_offsets(&intervals);
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
    Ok(ShapePlan {
        inputs: g.inputs().iter().map(|p| desc(facts, p.value)).collect::<Result<_>>()?,
        outputs: g.outputs().iter().map(|p| desc(facts, p.value)).collect::<Result<_>>()?,
        steps,
        end_copies,
        arena_bytes,
        uploads,
        upload_bytes,
        last_input_read,
    })
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
