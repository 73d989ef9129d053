//! Timing candidates on a CUDA device, as they will run: as nodes of a CUDA graph, one behind the other.
//!
//! A kernel of a few microseconds, launched by the host, takes as long as its launch. So each candidate becomes a graph
//! of many runs, long enough to be measured ([`ROW_US`]), with operands that lie where they would lie in the network
//! ([`Operands`]). Candidates take turns, so that a clock that drifts is the same for all; a candidate's time is the
//! median of its turns. One that is clearly slower after its first turn is not run again, and those that are close to
//! the best get more turns. What a library launches is recorded from the stream.

use super::Tuning;
use super::operands::Operands;
use crate::base::{Error, Result};
use crate::device::cuda::CudaDevice;
use crate::device::cuda::graph::{GraphBuilder, GraphExec};
use crate::device::{Buffer, Device, DeviceRef, RawEvent, RawStream};
use crate::network::Node;
use crate::ops::{Problem, Tactic};
use crate::runtime::exec::{CudaStep, StepAddresses};
use crate::runtime::kernels::LoadedKernels;
use crate::{log_verbose, log_warn};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a row of runs takes at least, in microseconds.
const ROW_US: f32 = 120.0;
/// Most runs in a row.
const ROW_RUNS: usize = 64;
/// A candidate this much slower than the best is not timed further.
const HOPELESS: f32 = 1.5;
/// Candidates this close to the best are timed again.
const CLOSE: f32 = 1.04;
/// How long the device is kept busy before the first measurement, so that its clocks are up.
const WARM_UP: Duration = Duration::from_millis(80);
/// A run of at least this many microseconds is not bound by its launch.
const LONG_US: f32 = 25.0;

/// Times candidates, problem after problem.
pub struct Timer<'a> {
    cuda: &'a Arc<CudaDevice>,
    device: DeviceRef,
    tuning: &'a Tuning,
    budget: Duration,
    stream: RawStream,
    start: RawEvent,
    end: RawEvent,
    /// What fills the L2 cache.
    flush: Option<Buffer>,
    is_warm: bool,
}

/// What became of one candidate.
pub enum Outcome {
    /// Milliseconds of one run.
    Time(f32),
    /// It asks for more scratch than is allowed: this many bytes.
    TooMuchScratch(usize),
    Failed(Error),
}

struct Candidate {
    number: usize,
    step: CudaStep,
    /// Milliseconds of one run, launched by the host.
    direct: f32,
    exec: Option<GraphExec>,
    times: Vec<f32>,
}

impl Candidate {
    fn time(&self) -> f32 {
        if self.times.is_empty() { self.direct } else { median(&self.times) }
    }
}

fn median(times: &[f32]) -> f32 {
    let mut t = times.to_vec();
    t.sort_by(f32::total_cmp);
    let half = t.len() / 2;
    if t.len() % 2 == 1 { t[half] } else { (t[half - 1] + t[half]) / 2.0 }
}

impl<'a> Timer<'a> {
    pub fn new(cuda: &'a Arc<CudaDevice>, tuning: &'a Tuning, level: u8) -> Result<Timer<'a>> {
        let ms = [0, 30, 60, 150, 500, 3000][level.min(5) as usize];
        Ok(Timer {
            device: DeviceRef::Cuda(cuda.clone()),
            tuning,
            budget: Duration::from_millis(ms),
            stream: cuda.stream_create()?,
            start: cuda.event_create(true)?,
            end: cuda.event_create(true)?,
            flush: None,
            is_warm: false,
            cuda,
        })
    }

    /// The outcome of each candidate. `cold`: weights are not in the cache when the layer starts.
    pub fn time(
        &mut self,
        node: &Node,
        problem: &Problem,
        cold: bool,
        candidates: &[&Tactic],
        kernels: &LoadedKernels,
        scratch_limit: u64,
    ) -> Result<Vec<Outcome>> {
        let mut out: Vec<Option<Outcome>> = candidates.iter().map(|_| None).collect();
        let mut steps = Vec::new();
        let mut scratch = 0;
        for (number, t) in candidates.iter().enumerate() {
            let program = node.op.def().cuda_program(t, problem, self.cuda.props());
            match program.and_then(|p| CudaStep::new(self.cuda, p, t, kernels)) {
                Ok(s) if s.work_bytes as u64 > scratch_limit => out[number] = Some(Outcome::TooMuchScratch(s.work_bytes)),
                Ok(step) => {
                    scratch = scratch.max(step.work_bytes);
                    steps.push(Candidate { number, step, direct: f32::INFINITY, exec: None, times: Vec::new() });
                }
                Err(e) => out[number] = Some(Outcome::Failed(e)),
            }
        }
        let operands = Operands::new(&self.device, self.stream, problem, cold, ROW_RUNS)?;
        let work = Buffer::new(&self.device, scratch)?;
        let current = self.cuda.enter()?;
        let mut rows = Rows { operands: &operands, work: work.ptr(), runs: 1 };
        self.race(&mut steps, &mut rows, &mut out)?;
        drop(current);
        for c in steps.iter().filter(|c| c.time().is_finite()) {
            log_verbose!("{:?}: {} {:.2} us", node.name, candidates[c.number].name, c.time() * 1e3);
            out[c.number].get_or_insert(Outcome::Time(c.time()));
        }
        for (o, t) in out.iter().zip(candidates) {
            match o {
                Some(Outcome::Failed(e)) => log_warn!("{:?}: tactic {} cannot be used: {e}", node.name, t.name),
                Some(Outcome::TooMuchScratch(n)) => {
                    log_verbose!("{:?}: {} asks for {n} bytes of scratch, more than is allowed", node.name, t.name)
                }
                _ => {}
            }
        }
        Ok(out.into_iter().map(|o| o.unwrap_or_else(|| Outcome::Failed(crate::internal!("a candidate was not timed")))).collect())
    }

    /// Runs the candidates against each other.
    fn race(&mut self, all: &mut Vec<Candidate>, rows: &mut Rows<'_>, out: &mut [Option<Outcome>]) -> Result<()> {
        let deadline = Instant::now() + self.budget;
        let mut failed = |c: &Candidate, e: Error| out[c.number] = Some(Outcome::Failed(e));
        for c in all.iter_mut() {
            match self.direct(&mut c.step, rows) {
                Ok(ms) => c.direct = ms,
                Err(e) => failed(c, e),
            }
        }
        let best = all.iter().map(|c| c.direct).fold(f32::INFINITY, f32::min);
        rows.runs = ((ROW_US / (best * 1e3).max(0.5)).ceil() as usize).clamp(1, ROW_RUNS);
        let mut alive: Vec<&mut Candidate> = all
            .iter_mut()
            .filter(|c| c.direct.is_finite() && !(c.direct * 1e3 > LONG_US && c.direct > 2.0 * best))
            .collect();
        // The first turn of each; then those that are left, turn by turn.
        let mut fastest = f32::INFINITY;
        for c in &mut alive {
            let first = self.row_of(c, rows).and_then(|()| self.turn(c, rows));
            match first {
                Ok(()) => fastest = fastest.min(c.time()),
                Err(e) => {
                    c.direct = f32::INFINITY;
                    c.times.clear();
                    failed(c, e);
                }
            }
        }
        alive.retain(|c| c.direct.is_finite() && c.time() <= fastest * HOPELESS);
        let turns = self.tuning.avg_timing.max(1) as usize * self.tuning.min_timing.max(1) as usize;
        let mut turns_left = if fastest > 1.0 { turns.min(3) } else { turns };
        for _ in 0..2 {
            for _ in 0..turns_left {
                for c in &mut alive {
                    self.turn(c, rows)?;
                }
                if Instant::now() > deadline {
                    return Ok(());
                }
            }
            let fastest = alive.iter().map(|c| c.time()).fold(f32::INFINITY, f32::min);
            alive.retain(|c| c.time() <= fastest * CLOSE);
            if alive.len() < 2 {
                break;
            }
            turns_left = turns;
        }
        Ok(())
    }

    /// Milliseconds of a run that the host launches: the first estimate.
    fn direct(&mut self, step: &mut CudaStep, rows: &Rows<'_>) -> Result<f32> {
        const RUNS: usize = 3;
        // One run of this many milliseconds says enough: launching it is no part of its time.
        const LONG_MS: f32 = 1.0;
        let (inputs, outputs) = rows.operands.turn(0);
        let at = StepAddresses { inputs: &inputs, outputs: &outputs, work: rows.work };
        if !self.is_warm {
            self.is_warm = true;
            let end = Instant::now() + WARM_UP;
            while Instant::now() < end {
                for _ in 0..20 {
                    // SAFETY: operands and scratch are as large as the problem says; the stream is ours.
                    unsafe { step.run(&at, self.stream)? };
                }
                // SAFETY: our own stream.
                unsafe { self.cuda.stream_synchronize(self.stream)? };
            }
        }
        let mut best = f32::INFINITY;
        // SAFETY: as above; the events are ours.
        unsafe {
            self.cuda.event_record(self.start, self.stream)?;
            step.run(&at, self.stream)?;
            let first = self.elapsed()?;
            if first > LONG_MS {
                return Ok(first);
            }
            for _ in 0..2 {
                self.cuda.event_record(self.start, self.stream)?;
                for _ in 0..RUNS {
                    step.run(&at, self.stream)?;
                }
                best = best.min(self.elapsed()? / RUNS as f32);
            }
        }
        Ok(best)
    }

    /// Waits for the end of what was launched since the start event, and returns how long it took.
    fn elapsed(&self) -> Result<f32> {
        // SAFETY: our own stream and events.
        unsafe {
            self.cuda.event_record(self.end, self.stream)?;
            self.cuda.event_synchronize(self.end)?;
            self.cuda.event_elapsed_ms(self.start, self.end)
        }
    }

    /// Makes the graph of a candidate and runs it once, untimed.
    fn row_of(&mut self, c: &mut Candidate, rows: &Rows<'_>) -> Result<()> {
        let mut exec = if c.step.is_own() || GraphBuilder::takes_libraries(self.cuda) {
            let mut graph = GraphBuilder::new(self.cuda)?;
            let mut after = Vec::new();
            for turn in 0..rows.runs {
                let (inputs, outputs) = rows.operands.turn(turn);
                let at = StepAddresses { inputs: &inputs, outputs: &outputs, work: rows.work };
                // SAFETY: operands and scratch are as large as the problem says and outlive the graph.
                unsafe { c.step.record(&at, &mut graph, &mut after)? };
            }
            graph.finish().instantiate()?
        } else {
            self.captured(&mut c.step, rows)?.instantiate()?
        };
        // SAFETY: our own stream; the addresses outlive the graph.
        unsafe {
            exec.upload(self.stream)?;
            exec.launch(self.stream)?;
            self.cuda.stream_synchronize(self.stream)?;
        }
        c.exec = Some(exec);
        Ok(())
    }

    /// Records from the stream.
    fn captured(&self, step: &mut CudaStep, rows: &Rows<'_>) -> Result<crate::device::cuda::graph::Graph> {
        // SAFETY: our own stream, which nobody else uses.
        unsafe { self.cuda.begin_capture(self.stream)? };
        let run = (0..rows.runs).try_for_each(|turn| {
            let (inputs, outputs) = rows.operands.turn(turn);
            let at = StepAddresses { inputs: &inputs, outputs: &outputs, work: rows.work };
            // SAFETY: as in `row_of`.
            unsafe { step.run(&at, self.stream) }
        });
        // SAFETY: begun above.
        let graph = unsafe { self.cuda.end_capture(self.stream) };
        run.and(graph)
    }

    /// One timed turn of a candidate.
    fn turn(&mut self, c: &mut Candidate, rows: &Rows<'_>) -> Result<()> {
        let Some(exec) = &mut c.exec else { return Ok(()) };
        if rows.operands.flush {
            let bytes = self.device.props().l2_bytes * 3 / 2;
            if self.flush.is_none() {
                self.flush = Some(Buffer::new(&self.device, bytes)?);
            }
            if let Some(b) = &self.flush {
                // SAFETY: our own memory and stream.
                unsafe { self.cuda.fill(b.ptr(), 0, bytes, self.stream)? };
            }
        }
        // SAFETY: our own stream and event; the graph's addresses are alive.
        unsafe {
            self.cuda.event_record(self.start, self.stream)?;
            exec.launch(self.stream)?;
        }
        c.times.push(self.elapsed()? / rows.runs as f32);
        Ok(())
    }
}

/// What rows of runs are made of.
struct Rows<'a> {
    operands: &'a Operands,
    work: u64,
    runs: usize,
}

impl Drop for Timer<'_> {
    fn drop(&mut self) {
        // SAFETY: made in `new`, destroyed once; after an error something may still be pending.
        unsafe {
            let _: Result<()> = self.cuda.stream_synchronize(self.stream);
            let _: Result<()> = self.cuda.event_destroy(self.start);
            let _: Result<()> = self.cuda.event_destroy(self.end);
            let _: Result<()> = self.cuda.stream_destroy(self.stream);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::median;

    #[test]
    fn medians() {
        assert_eq!(median(&[3.0]), 3.0);
        assert_eq!(median(&[3.0, 1.0]), 2.0);
        assert_eq!(median(&[9.0, 1.0, 2.0]), 2.0);
    }
}
