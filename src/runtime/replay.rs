//! Executions as CUDA graphs, made by the context itself: launching one costs a few microseconds however many steps there
//! are, and the device goes from kernel to kernel without the host.
//!
//! The first execution with a set of shapes makes graphs of its steps, and later ones launch them. Other addresses are put
//! into the nodes that name them; where a library's call names them, another graph is made, and a few are kept. Graphs
//! are built node by node, not recorded from a stream, so that nothing else in the process is disturbed; a library's call
//! is recorded into the graph that is being built, or launched between two graphs where the driver cannot do that. What
//! the host does is launched as ever: steps are cut into segments there, and where the event for consumed inputs lies. A
//! stream that the application records itself, and layer times, go without.

use super::context::Bound;
use super::enqueue::Bases;
use super::exec::StepExec;
use super::recorded::Recorded;
use crate::base::{Result, knobs};
use crate::device::cuda::CudaDevice;
use crate::device::cuda::graph::GraphBuilder;
use crate::log_verbose;
use crate::plan::Loc;
use std::sync::Arc;

/// Sets of addresses that are kept for one set of shapes.
const KEPT_ADDRESSES: usize = 8;
/// So many are made before addresses are changed in place: applications often have two sets of buffers.
const MADE_FOR_ADDRESSES: usize = 2;
/// Fewer steps than this are launched as quickly one by one.
const MIN_STEPS: usize = 2;

/// Steps that follow each other, `from` to `to`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Range {
    pub from: usize,
    pub to: usize,
}

/// A stretch of an execution.
pub(super) enum Segment {
    Graph(Recorded),
    /// Launched step by step.
    Steps(Range),
    /// The last read of the inputs is behind.
    InputsConsumed,
}

struct Replay {
    key: Vec<u64>,
    segments: Vec<Segment>,
}

/// Executions of one set of shapes that became graphs, in order of last use.
#[derive(Default)]
pub(super) struct Replays {
    kept: Vec<Replay>,
    /// A library's call could not be recorded.
    apart: bool,
}

/// What graphs are made of, and changed by.
pub(super) struct Recorder<'a> {
    pub cuda: &'a Arc<CudaDevice>,
    pub bases: &'a Bases<'a>,
    pub bound: &'a Bound,
    pub exec: &'a mut [StepExec],
    /// The number of steps before the event for consumed inputs, when there is one.
    pub consumed: Option<usize>,
}

/// A stretch before it is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    Graph(Range),
    Steps(Range),
    InputsConsumed,
}

/// Cuts steps into stretches. `consumed`: the number of steps before the event, when there is one. The end copies go with
/// the range that ends at `n + 1`.
pub(super) fn cut(recordable: &[bool], consumed: Option<usize>) -> Vec<Cut> {
    let n = recordable.len();
    let mut out = Vec::new();
    let mut from = 0;
    let is_graph = |i: usize| recordable.get(i).copied().unwrap_or(true);
    let close = |out: &mut Vec<Cut>, from: usize, to: usize| {
        let r = Range { from, to };
        match () {
            _ if from >= to => {}
            _ if is_graph(from) && to - from >= MIN_STEPS => out.push(Cut::Graph(r)),
            _ => out.push(Cut::Steps(r)),
        }
    };
    // Step n stands for the end copies.
    for i in 0..=n {
        if consumed == Some(i) {
            close(&mut out, from, i);
            out.push(Cut::InputsConsumed);
            from = i;
        } else if i > from && is_graph(i) != is_graph(i - 1) {
            close(&mut out, from, i);
            from = i;
        }
    }
    close(&mut out, from, n + 1);
    if consumed.is_some_and(|c| c > n) {
        out.push(Cut::InputsConsumed);
    }
    out
}

/// Whether it is worth while at all.
pub(super) fn pays(steps: &[StepExec]) -> bool {
    steps.iter().filter(|s| is_recordable(s, true)).count() >= MIN_STEPS && knobs::REPLAY.get().as_deref() != Some("off")
}

/// Whether a step can be part of a graph, with calls of libraries or without.
fn is_recordable(step: &StepExec, libraries: bool) -> bool {
    match step {
        StepExec::Cuda(s) => libraries || s.is_own(),
        StepExec::Nothing => true,
        _ => false,
    }
}

impl Recorder<'_> {
    fn make(&mut self, libraries: bool) -> Result<Vec<Segment>> {
        let recordable: Vec<bool> = self.exec.iter().map(|s| is_recordable(s, libraries)).collect();
        let segment = |c| match c {
            Cut::Steps(r) => Ok(Segment::Steps(r)),
            Cut::InputsConsumed => Ok(Segment::InputsConsumed),
            Cut::Graph(r) => Recorded::new(self.cuda, self.bases, self.bound, self.exec, r).map(Segment::Graph),
        };
        cut(&recordable, self.consumed).into_iter().map(segment).collect()
    }
}

impl Replays {
    /// The segments for these addresses: those bound to inputs and outputs, then two numbers that rule out any other use.
    pub fn find(&mut self, key: &[u64], recorder: &mut Recorder<'_>) -> Result<&mut [Segment]> {
        match self.kept.iter().position(|r| r.key == key) {
            Some(i) => self.kept[i..].rotate_left(1),
            None => {
                let made = match self.change(key, recorder) {
                    Some(r) => r,
                    None => self.make(key, recorder)?,
                };
                if self.kept.len() >= KEPT_ADDRESSES {
                    self.kept.remove(0);
                }
                self.kept.push(made);
            }
        }
        self.kept.last_mut().map(|r| r.segments.as_mut_slice()).ok_or_else(|| crate::internal!("no graphs were kept"))
    }

    /// Graphs for other addresses that took these over; they are no longer kept.
    fn change(&mut self, key: &[u64], recorder: &mut Recorder<'_>) -> Option<Replay> {
        if self.kept.len() < MADE_FOR_ADDRESSES {
            return None;
        }
        let n_in = recorder.bound.shape.inputs.len();
        let fixed = key.len() - 2;
        let changed = |old: &[u64], l: &Loc| match l {
            Loc::Input(i) => old[*i] != key[*i],
            Loc::Output(i) => old[n_in + *i] != key[n_in + *i],
            _ => false,
        };
        let fits = |r: &Replay| {
            let can = |s: &Segment| match s {
                Segment::Graph(g) => g.can_change(recorder.bases, recorder.bound, &|l| changed(&r.key, l)),
                Segment::Steps(_) | Segment::InputsConsumed => true,
            };
            r.key[fixed..] == key[fixed..] && r.segments.iter().all(can)
        };
        let i = self.kept.iter().position(fits)?;
        let mut r = self.kept.remove(i);
        for s in &mut r.segments {
            let Segment::Graph(g) = s else { continue };
            if let Err(e) = g.change(recorder.bases, recorder.bound, recorder.exec, &|l| changed(&r.key, l)) {
                log_verbose!("a CUDA graph is made anew: {e}");
                return None;
            }
        }
        r.key.copy_from_slice(key);
        Some(r)
    }

    fn make(&mut self, key: &[u64], recorder: &mut Recorder<'_>) -> Result<Replay> {
        let libraries = !self.apart && GraphBuilder::takes_libraries(recorder.cuda);
        let segments = match recorder.make(libraries) {
            Err(e) if libraries => {
                log_verbose!("calls of libraries are launched between CUDA graphs: {e}");
                self.apart = true;
                recorder.make(false)?
            }
            made => made?,
        };
        Ok(Replay { key: key.to_vec(), segments })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph(from: usize, to: usize) -> Cut {
        Cut::Graph(Range { from, to })
    }
    fn steps(from: usize, to: usize) -> Cut {
        Cut::Steps(Range { from, to })
    }

    #[test]
    fn steps_are_cut_where_a_library_or_the_event_stands_between() {
        assert_eq!(cut(&[true; 4], None), [graph(0, 5)]);
        assert_eq!(cut(&[true; 4], Some(2)), [graph(0, 2), Cut::InputsConsumed, graph(2, 5)]);
        assert_eq!(cut(&[true; 4], Some(0)), [Cut::InputsConsumed, graph(0, 5)]);
        assert_eq!(cut(&[true; 4], Some(5)), [graph(0, 5), Cut::InputsConsumed]);
        assert_eq!(cut(&[true, true, false, true, true], None), [graph(0, 2), steps(2, 3), graph(3, 6)]);
        assert_eq!(cut(&[true, false, false], None), [steps(0, 1), steps(1, 3), steps(3, 4)]);
        assert_eq!(cut(&[false, true, true], Some(1)), [steps(0, 1), Cut::InputsConsumed, graph(1, 4)]);
    }
}
