//! A CUDA graph of an execution, recorded by the context itself: launching it costs a few microseconds however many steps
//! there are, and the device goes from kernel to kernel without the host.
//!
//! The second execution in a row with the same shapes and addresses is recorded on a stream of the context's own and
//! launched from then on; a few sets of addresses are kept for each set of shapes. An execution with an event for consumed
//! inputs is recorded in two parts with the event between them. Steps that the host takes part in, a stream that the
//! application records itself, and layer times go without.
//!
//! This is done when `SINTER_REPLAY` asks for it: while a stream is captured, any wait for the whole device in the process
//! fails, so it is the choice of whoever owns the process.

use super::exec::StepExec;
use crate::base::{Result, knobs};
use crate::device::cuda::CudaDevice;
use crate::device::cuda::graph::GraphExec;
use crate::device::{Device, RawStream};
use crate::log_warn;
use std::sync::Arc;

/// Sets of addresses that are kept for one set of shapes.
const KEPT_ADDRESSES: usize = 8;
/// Fewer steps than this are launched as quickly one by one.
const MIN_STEPS: usize = 2;

struct Replay {
    key: Vec<u64>,
    parts: Vec<GraphExec>,
}

/// Recorded executions of one set of shapes.
#[derive(Default)]
pub(super) struct Replays {
    kept: Vec<Replay>,
    /// Key of the last execution that was not recorded.
    last: Vec<u64>,
    /// Recording failed once; it is not tried again.
    failed: bool,
}

/// Whether steps can be recorded at all.
pub(super) fn is_recordable(steps: &[StepExec]) -> bool {
    let on_device = |e: &StepExec| matches!(e, StepExec::Cuda(_) | StepExec::Nothing);
    steps.len() >= MIN_STEPS && steps.iter().all(on_device) && knobs::REPLAY.is_on()
}

impl Replays {
    /// The recorded parts for these addresses; `None` when there are none (yet).
    ///
    /// `record(stream, k)` puts part k of `n_parts` on a stream.
    pub fn find(
        &mut self,
        cuda: &Arc<CudaDevice>,
        key: &[u64],
        n_parts: usize,
        own_stream: &mut RawStream,
        record: &mut dyn FnMut(RawStream, usize) -> Result<()>,
    ) -> Result<Option<&mut [GraphExec]>> {
        if self.failed {
            return Ok(None);
        }
        if let Some(i) = self.kept.iter().position(|r| r.key == key) {
            // In order of last use; looking at the end first keeps this free in the common case.
            let last = self.kept.len() - 1;
            if i != last {
                self.kept[i..].rotate_left(1);
            }
            return Ok(Some(&mut self.kept[last].parts));
        }
        if self.last != key {
            self.last.clear();
            self.last.extend_from_slice(key);
            return Ok(None);
        }
        if own_stream.is_null() {
            *own_stream = cuda.stream_create()?;
        }
        let stream = *own_stream;
        let mut make = |k: usize| -> Result<GraphExec> {
            // SAFETY: our own stream, which nobody else uses.
            unsafe { cuda.begin_capture(stream)? };
            let done = record(stream, k);
            // SAFETY: the capture began just above.
            let graph = unsafe { cuda.end_capture(stream) };
            done?;
            graph?.instantiate()
        };
        match (0..n_parts).map(&mut make).collect::<Result<Vec<_>>>() {
            Ok(parts) => {
                if self.kept.len() >= KEPT_ADDRESSES {
                    self.kept.remove(0);
                }
                self.kept.push(Replay { key: key.to_vec(), parts });
                Ok(self.kept.last_mut().map(|r| r.parts.as_mut_slice()))
            }
            Err(e) => {
                log_warn!("an execution could not be recorded as a CUDA graph, its steps are launched one by one: {e}");
                self.failed = true;
                Ok(None)
            }
        }
    }
}
