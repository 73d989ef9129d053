//! The plan at concrete shapes: every shape, every host value, and where each tensor lives.
//!
//! This is the shape program of an engine. It runs when a context meets input shapes that it has not kept; it knows no
//! device, so it is tested without one.

use super::lanes::Lanes;
use super::place::{Ports, place};
use super::profile::bind_shape;
use super::{Plan, Stage, StepKind};
use crate::base::dims::Bindings;
use crate::base::error::ResultExt;
use crate::base::{Fact, Result, Tensor};
use crate::network::ValueId;
use crate::network::eval::eval_node;
use crate::ops::{InferCx, Problem, TensorDesc};
use crate::{bail, ensure, internal};
use std::collections::HashSet;
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
    /// Memory of this value, from another stage or for one.
    Var(ValueId),
    /// A weight of the engine, by its number.
    Const(u32),
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

/// A value that a stage makes for others.
#[derive(Clone, Debug)]
pub struct Escape {
    pub value: ValueId,
    pub desc: TensorDesc,
    /// Where it is; `Loc::Var` of itself or of the value that it is a view of. `Loc::None` when only the host has it.
    pub at: Loc,
    /// Its elements, when the host computed them.
    pub host: Option<Arc<Tensor>>,
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
    /// Values that leave a stage.
    pub escapes: Vec<Escape>,
    /// Index of the last of `steps` that reads a bound input; `None` when none does. End copies count as after all.
    pub last_input_read: Option<usize>,
    /// Which steps may run side by side; nothing when they run in a row.
    pub lanes: Option<Lanes>,
}

/// What a device says about a step at concrete shapes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Prepared {
    /// Scratch bytes.
    pub work_bytes: usize,
    /// How much of a GPU it fills: 1 when all of it is filled once. Nothing where steps run in a row.
    pub fill: Option<f32>,
}

/// What the host computes at most in one step: shapes, axes and indices are small.
const MAX_HOST_BYTES: usize = 64 << 20;

/// A value that a stage takes from outside.
pub struct External {
    /// Type and concrete shape, with the elements where the host has them.
    pub fact: Fact,
    /// The value is in device memory; otherwise its elements are uploaded where a device step reads them.
    pub on_device: bool,
}

/// Runs the shape program of a whole plan.
///
/// `shapes` are the dimensions of each graph input; `host_values` the elements of the inputs in `plan.host_inputs`;
/// `prepare` makes a step ready.
pub fn specialize(
    plan: &Plan,
    shapes: &[Vec<i64>],
    host_values: &[Arc<Tensor>],
    mut prepare: impl FnMut(usize, &Problem) -> Result<Prepared>,
) -> Result<ShapePlan> {
    let g = &plan.graph;
    ensure!(shapes.len() == g.inputs().len(), Internal, "{} shapes for {} inputs", shapes.len(), g.inputs().len());
    let mut bindings = Bindings::new();
    for (p, dims) in g.inputs().iter().zip(shapes) {
        bind_shape(&p.name, &g.fact(p.value).shape, dims, &mut bindings)?;
    }
    let mut facts = constants(plan);
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
    let steps: Vec<usize> = (0..plan.steps.len()).collect();
    let walk = walk(plan, &steps, facts)?;
    place(plan, &walk, &Ports::Bound, &mut prepare)
}

/// Runs the shape program of one stage, which is not dynamic.
pub fn specialize_stage(
    plan: &Plan,
    stage: &Stage,
    externals: &[External],
    mut prepare: impl FnMut(usize, &Problem) -> Result<Prepared>,
) -> Result<ShapePlan> {
    let mut facts = constants(plan);
    let mut on_device = HashSet::new();
    for (v, e) in stage.externals.iter().zip(externals) {
        facts[v.idx()] = Some(e.fact.clone());
        if e.on_device {
            on_device.insert(*v);
        }
    }
    let walk = walk(plan, &stage.steps, facts)?;
    place(plan, &walk, &Ports::Variables { on_device: &on_device, escapes: &stage.escapes }, &mut prepare)
}

fn constants(plan: &Plan) -> Vec<Option<Fact>> {
    let g = &plan.graph;
    g.value_ids().map(|v| g.as_const(v).map(|_| g.fact(v).clone())).collect()
}

/// What a walk over steps finds: facts at concrete shapes, whose memory each value is, and the steps of the device.
pub(super) struct Walk {
    pub facts: Vec<Option<Fact>>,
    pub roots: Vec<ValueId>,
    pub device_steps: Vec<usize>,
}

fn walk(plan: &Plan, steps: &[usize], mut facts: Vec<Option<Fact>>) -> Result<Walk> {
    let g = &plan.graph;
    let mut roots: Vec<ValueId> = g.value_ids().collect();
    let mut device_steps = Vec::new();
    for &s in steps {
        let step = &plan.steps[s];
        let node = g.node(step.node);
        let ins: Vec<Option<&Fact>> = node.inputs.iter().map(|v| v.and_then(|v| facts[v.idx()].as_ref())).collect();
        let at = || format!("{} {:?}", node.op.name(), node.name);
        let mut out = node.op.def().infer(&InferCx::new(&ins)).with_context(at)?;
        for f in &out {
            let dims = f.shape.concrete().ok_or_else(|| {
                internal!("the output shape {} is not known when the step is made ready", f.shape).context(at())
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
            StepKind::Counted(_) | StepKind::Control(_) => bail!(Internal, "{}: a dynamic step in a static stage", at()),
        }
        for (v, mut f) in node.outputs.iter().zip(out) {
            // A value that the host knows by inference alone is still computed by its device step.
            if !matches!(step.kind, StepKind::Host) && !matches!(step.kind, StepKind::View) {
                f.known = None;
            }
            facts[v.idx()] = Some(f);
        }
    }
    Ok(Walk { facts, roots, device_steps })
}

/// The elements of a fact when all are numbers.
pub fn host_tensor(f: &Fact) -> Option<Arc<Tensor>> {
    if let Some(t) = f.as_const() {
        return Some(t.clone());
    }
    let dims: Vec<i64> = f.as_dims()?.iter().map(|d| d.as_const()).collect::<Option<_>>()?;
    let shape = f.shape.concrete()?;
    Some(Arc::new(Tensor::from_slice(&shape, &dims).cast(f.dtype)))
}
