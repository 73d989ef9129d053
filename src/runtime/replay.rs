//! Executions as CUDA graphs, made by the context itself: launching one costs a few microseconds however many steps there
//! are, and the device goes from kernel to kernel without the host.
//!
//! The second execution in a row with the same shapes and addresses makes graphs of its steps, and later ones launch them; a
//! few sets of addresses are kept for each set of shapes. Graphs are built node by node, not recorded from a stream, so that
//! nothing else in the process is disturbed. What a library or the host does between is launched as ever: steps are cut
//! into segments there, and where the event for consumed inputs lies. A stream that the application records itself, and
//! layer times, go without.

use super::exec::StepExec;
use crate::base::{Result, knobs};
use crate::device::cuda::graph::GraphExec;

/// Sets of addresses that are kept for one set of shapes.
const KEPT_ADDRESSES: usize = 8;
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
    Graph(GraphExec),
    /// Launched step by step.
    Steps(Range),
    /// The last read of the inputs is behind.
    InputsConsumed,
}

struct Replay {
    key: Vec<u64>,
    segments: Vec<Segment>,
}

/// Executions of one set of shapes that became graphs.
#[derive(Default)]
pub(super) struct Replays {
    kept: Vec<Replay>,
    /// Key of the last execution that was launched step by step.
    last: Vec<u64>,
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
    steps.iter().filter(|s| is_recordable(s)).count() >= MIN_STEPS && knobs::REPLAY.get().as_deref() != Some("off")
}

/// Whether a step can be part of a graph.
pub(super) fn is_recordable(step: &StepExec) -> bool {
    match step {
        StepExec::Cuda(s) => s.is_recordable(),
        StepExec::Nothing => true,
        _ => false,
    }
}

impl Replays {
    /// The segments for these addresses; `None` when there are none (yet). `make` builds them.
    pub fn find(
        &mut self,
        key: &[u64],
        make: &mut dyn FnMut() -> Result<Vec<Segment>>,
    ) -> Result<Option<&mut [Segment]>> {
        if let Some(i) = self.kept.iter().position(|r| r.key == key) {
            // In order of last use.
            self.kept[i..].rotate_left(1);
            return Ok(self.kept.last_mut().map(|r| r.segments.as_mut_slice()));
        }
        if self.last != key {
            self.last.clear();
            self.last.extend_from_slice(key);
            return Ok(None);
        }
        let segments = make()?;
        if self.kept.len() >= KEPT_ADDRESSES {
            self.kept.remove(0);
        }
        self.kept.push(Replay { key: key.to_vec(), segments });
        Ok(self.kept.last_mut().map(|r| r.segments.as_mut_slice()))
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
