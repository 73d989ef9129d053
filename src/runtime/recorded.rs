//! A stretch of an execution as one CUDA graph, and new addresses put into it in place.

use super::context::Bound;
use super::enqueue::{Bases, Operands};
use super::exec::{StepAddresses, StepExec, StepNodes};
use super::replay::Range;
use crate::base::Result;
use crate::device::cuda::CudaDevice;
use crate::device::cuda::graph::{Graph, GraphBuilder, GraphExec, Node};
use crate::ops::TensorDesc;
use crate::plan::Loc;
use std::sync::Arc;

/// A graph that can be launched, and which of its nodes name memory of the application.
pub(super) struct Recorded {
    exec: GraphExec,
    /// The nodes below are its.
    _graph: Graph,
    /// Steps that read or write bound memory, by index.
    steps: Vec<(usize, StepNodes)>,
    /// End copies, by index.
    copies: Vec<(usize, Node)>,
    /// Steps run side by side, which needs inputs and outputs that do not overlap.
    in_lanes: bool,
}

/// Whether a place is memory that the application binds and binds anew.
fn is_bound(l: &Loc) -> bool {
    matches!(l, Loc::Input(_) | Loc::Output(_))
}

impl Recorded {
    /// Records the steps of a range; one that ends behind the last step takes the end copies too.
    pub fn new(cuda: &Arc<CudaDevice>, bases: &Bases<'_>, bound: &Bound, exec: &mut [StepExec], r: Range) -> Result<Recorded> {
        let mut graph = GraphBuilder::new(cuda)?;
        let n = exec.len();
        let (mut steps, mut copies) = (Vec::new(), Vec::new());
        let lanes = bound.shape.lanes.as_ref().filter(|_| bases.are_apart(bound));
        // What stands for the end of each step. Those before the range are over: the stream has passed them.
        let mut ends: Vec<Vec<Node>> = vec![Vec::new(); n + 1];
        let before = |i: usize, ends: &[Vec<Node>]| -> Vec<Node> {
            match lanes {
                None => if i > r.from { ends[i - 1].clone() } else { Vec::new() },
                Some(lanes) => {
                    let mut all: Vec<Node> = lanes.after[i].iter().flat_map(|p| ends[*p].iter().copied()).collect();
                    all.dedup();
                    all
                }
            }
        };
        for i in r.from..r.to.min(n) {
            let mut after = before(i, &ends);
            if let StepExec::Cuda(step) = &mut exec[i] {
                let s = &bound.shape.steps[i];
                let operands = Operands::new(bases, &s.inputs, &s.outputs)?;
                // SAFETY: as for running the step; the graph is launched for these addresses only, until they are changed.
                let nodes = unsafe { step.record(&operands.at(bases, s), &mut graph, &mut after)? };
                if s.inputs.iter().chain(&s.outputs).any(is_bound) {
                    steps.push((i, nodes));
                }
            }
            ends[i] = after;
        }
        if r.to > n {
            let mut after = before(n, &ends);
            for (i, c) in bound.shape.end_copies.iter().enumerate() {
                // SAFETY: sizes come from the same shape plan.
                let node = unsafe { graph.copy(bases.outputs[c.output], bases.resolve(c.from)?, c.bytes, &after)? };
                if let Some(node) = node {
                    after = vec![node];
                    copies.push((i, node));
                }
            }
        }
        let graph = graph.finish();
        let exec = graph.instantiate()?;
        Ok(Recorded { exec, _graph: graph, steps, copies, in_lanes: lanes.is_some() })
    }

    /// Whether every node that names a changed place can be given another address. Those of libraries cannot.
    pub fn can_change(&self, bases: &Bases<'_>, bound: &Bound, changed: &dyn Fn(&Loc) -> bool) -> bool {
        let named = |i: usize| {
            let s = &bound.shape.steps[i];
            s.inputs.iter().chain(&s.outputs).any(changed)
        };
        self.steps.iter().all(|(i, nodes)| nodes.can_change() || !named(*i)) && (!self.in_lanes || bases.are_apart(bound))
    }

    /// Puts the present addresses of changed places into their nodes, for the launches from now on. After a failure the
    /// graph must not be launched.
    pub fn change(
        &mut self,
        bases: &Bases<'_>,
        bound: &Bound,
        exec: &mut [StepExec],
        changed: &dyn Fn(&Loc) -> bool,
    ) -> Result<()> {
        for (i, nodes) in &self.steps {
            let s = &bound.shape.steps[*i];
            let StepExec::Cuda(step) = &mut exec[*i] else { continue };
            if s.inputs.iter().chain(&s.outputs).any(changed) {
                let operands = Operands::new(bases, &s.inputs, &s.outputs)?;
                // SAFETY: as in `new`; the nodes are those of this step and of the graph that is kept.
                unsafe { step.change(&operands.at(bases, s), &mut self.exec, nodes)? };
            }
        }
        for (i, node) in &self.copies {
            let c = &bound.shape.end_copies[*i];
            if changed(&c.from) || changed(&Loc::Output(c.output)) {
                // SAFETY: as above.
                unsafe { self.exec.set_copy(*node, bases.outputs[c.output], bases.resolve(c.from)?, c.bytes)? };
            }
        }
        Ok(())
    }

    /// Puts the graph on the stream.
    ///
    /// # Safety
    /// The addresses that it was recorded with, or changed to, are valid until it has run.
    #[inline]
    pub unsafe fn launch(&mut self, stream: crate::device::RawStream) -> Result<()> {
        // SAFETY: the caller's promise.
        unsafe { self.exec.launch(stream) }
    }
}

impl Bases<'_> {
    /// Whether no output shares memory with an input or another output: then steps keep their order by what they compute
    /// alone.
    fn are_apart(&self, bound: &Bound) -> bool {
        let range = |a: u64, d: &TensorDesc| (a, a.saturating_add(d.bytes() as u64));
        let ins = self.inputs.iter().zip(&bound.shape.inputs).map(|(a, d)| range(*a, d));
        let outs: Vec<(u64, u64)> = self.outputs.iter().zip(&bound.shape.outputs).map(|(a, d)| range(*a, d)).collect();
        let meet = |a: (u64, u64), b: (u64, u64)| a.0 < b.1 && b.0 < a.1;
        let among = outs.iter().enumerate().any(|(i, a)| outs[..i].iter().any(|b| meet(*a, *b)));
        !among && !ins.into_iter().any(|a| outs.iter().any(|b| meet(a, *b)))
    }
}

impl Operands {
    /// As a step takes them.
    #[inline]
    pub fn at<'a>(&'a self, bases: &Bases<'_>, step: &crate::plan::shapes::ShapedStep) -> StepAddresses<'a> {
        let (inputs, outputs) = self.split();
        StepAddresses { inputs, outputs, work: bases.arena + step.work as u64 }
    }
}
