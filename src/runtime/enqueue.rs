//! The hot path: one execution put on a stream.
//!
//! With shapes that the context knows, nothing here allocates device memory, synchronizes or logs; host memory is
//! reused from call to call. The lock on a shape's steps is never contended by calls in the right order (one context,
//! one thread): it keeps an application that breaks that rule from corrupting memory.
//!
//! Errors are those of launching. What fails later on a CUDA device surfaces at the next synchronization; on a stream of
//! the CPU device likewise.

use super::context::{Bound, Context, check_address};
use super::exec::{StepExec, run_reference};
use super::replay::{Range, Recorder, Segment};
use crate::base::Result;
use crate::device::cpu::CpuDevice;
use crate::device::{Buffer, CopyKind, DeviceRef, RawEvent, RawStream};
use crate::engine::Engine;
use crate::ops::CpuArgs;
use crate::plan::{Loc, StepKind};
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Instant;

/// Most operands of a step that are resolved without allocation.
const MAX_OPERANDS: usize = 64;

/// Base addresses of one execution.
pub(super) struct Bases<'a> {
    engine: &'a Engine,
    pub inputs: &'a [u64],
    pub outputs: &'a [u64],
    pub arena: u64,
    uploads: u64,
}

impl Bases<'_> {
    #[inline]
    pub fn resolve(&self, l: Loc) -> Result<u64> {
        Ok(match l {
            Loc::None => 0,
            Loc::Input(i) => self.inputs[i],
            Loc::Output(i) => self.outputs[i],
            Loc::Arena(at) => self.arena + at as u64,
            Loc::Upload(at) => self.uploads + at as u64,
            Loc::Const(n) => self.engine.const_address(n),
            Loc::Var(_) => return Err(crate::internal!("a value of another stage in a static plan")),
        })
    }
}

/// Addresses of a step's operands, without allocation for ordinary steps.
pub(super) struct Operands {
    fixed: [u64; MAX_OPERANDS],
    many: Vec<u64>,
    n_in: usize,
    n: usize,
}

impl Operands {
    #[inline]
    pub fn new(bases: &Bases<'_>, inputs: &[Loc], outputs: &[Loc]) -> Result<Operands> {
        let n = inputs.len() + outputs.len();
        let mut o = Operands { fixed: [0; MAX_OPERANDS], many: Vec::new(), n_in: inputs.len(), n };
        let to: &mut [u64] = if n <= MAX_OPERANDS {
            &mut o.fixed[..n]
        } else {
            o.many.resize(n, 0);
            &mut o.many
        };
        for (t, l) in to.iter_mut().zip(inputs.iter().chain(outputs)) {
            *t = bases.resolve(*l)?;
        }
        Ok(o)
    }

    #[inline]
    fn all(&self) -> &[u64] {
        if self.n <= MAX_OPERANDS { &self.fixed[..self.n] } else { &self.many }
    }

    #[inline]
    pub fn split(&self) -> (&[u64], &[u64]) {
        self.all().split_at(self.n_in)
    }
}

impl Context {
    /// Puts one execution on a stream and returns at once (on the CPU's NULL stream: when it is done).
    ///
    /// `input_consumed`, unless null, is recorded when every read of the inputs is done. With layer times set, the call
    /// waits for the end and reports.
    pub fn enqueue(&mut self, stream: RawStream, input_consumed: RawEvent) -> Result<()> {
        if self.dynamic.is_some() {
            return self.enqueue_stages(stream, input_consumed);
        }
        let bound = match &self.current {
            Some(b) if self.engine.plan.host_inputs.is_empty() => b.clone(),
            _ => self.ready(stream)?,
        };
        for (p, (slot, d)) in
            self.engine.plan.graph.outputs().iter().zip(self.outputs.iter_mut().zip(&bound.shape.outputs))
        {
            slot.settle(&p.name, d)?;
        }
        self.check_bound(&bound)?;
        match self.engine.device.clone() {
            DeviceRef::Cuda(_) => self.enqueue_cuda(&bound, stream, input_consumed),
            DeviceRef::Cpu(cpu) => self.enqueue_cpu(&cpu, bound, stream, input_consumed),
            DeviceRef::Null(_) => Ok(()),
        }
    }

    fn check_bound(&self, bound: &Bound) -> Result<()> {
        let g = &self.engine.plan.graph;
        let ins = g.inputs().iter().zip(&self.inputs).zip(&bound.shape.inputs);
        let addresses = self.outputs.iter().map(|s| &s.address);
        let outs = g.outputs().iter().zip(addresses).zip(&bound.shape.outputs);
        let on_gpu = matches!(self.engine.device, DeviceRef::Cuda(_));
        for ((p, address), desc) in ins.chain(outs) {
            check_address(on_gpu, &p.name, desc, *address)?;
        }
        Ok(())
    }

    fn enqueue_cuda(&mut self, bound: &Arc<Bound>, stream: RawStream, event: RawEvent) -> Result<()> {
        let DeviceRef::Cuda(cuda) = &self.engine.device else { return Ok(()) };
        let cuda = cuda.clone();
        let _current = cuda.enter()?;
        let timed = self.times.clone();
        if timed.is_some() {
            while self.events.len() <= bound.shape.steps.len() {
                self.events.push(self.engine.device.event_create(true)?);
            }
        }
        let inputs: [u64; MAX_OPERANDS];
        let outputs: [u64; MAX_OPERANDS];
        let (many_in, many_out): (Vec<u64>, Vec<u64>);
        let (ins, outs): (&[u64], &[u64]) = if self.inputs.len() <= MAX_OPERANDS && self.outputs.len() <= MAX_OPERANDS {
            inputs = std::array::from_fn(|i| self.inputs.get(i).copied().flatten().unwrap_or(0));
            outputs = std::array::from_fn(|i| self.outputs.get(i).and_then(|s| s.address).unwrap_or(0));
            (&inputs, &outputs)
        } else {
            many_in = self.inputs.iter().map(|a| a.unwrap_or(0)).collect();
            many_out = self.outputs.iter().map(|s| s.address.unwrap_or(0)).collect();
            (&many_in, &many_out)
        };
        let bases = Bases {
            engine: &self.engine,
            inputs: ins,
            outputs: outs,
            arena: self.arena.ptr(),
            uploads: bound.uploads.as_ref().map_or(0, |b| b.ptr()),
        };
        let device = &self.engine.device;
        let n = bound.shape.steps.len();
        // Steps up to here read inputs; the event lies behind them. The end copies count as step n.
        let copies_read_inputs = bound.shape.end_copies.iter().any(|c| matches!(c.from, Loc::Input(_)));
        let consumed = match event.is_null() {
            true => None,
            false if copies_read_inputs => Some(n + 1),
            false => Some(bound.shape.last_input_read.map_or(0, |i| i + 1)),
        };
        let mut exec = bound.exec.lock();
        let mut replays = match &bound.replays {
            // SAFETY: the application's stream.
            Some(r) if timed.is_none() && !unsafe { cuda.is_capturing(stream)? } => Some(r.lock()),
            _ => None,
        };
        self.addresses.clear();
        self.addresses.extend(self.inputs.iter().map(|a| a.unwrap_or(0)));
        self.addresses.extend(self.outputs.iter().map(|s| s.address.unwrap_or(0)));
        self.addresses.extend([bases.arena, consumed.map_or(0, |c| c as u64 + 1)]);
        let found = match &mut replays {
            Some(r) => {
                let recorder = &mut Recorder { cuda: &cuda, bases: &bases, bound, exec: &mut exec, consumed };
                Some(r.find(&self.addresses, recorder)?)
            }
            None => None,
        };
        let consume = || -> Result<()> {
            // SAFETY: the application's event and stream.
            if event.is_null() { Ok(()) } else { unsafe { device.event_record(event, stream) } }
        };
        let mut launch = |r: Range| -> Result<()> {
            for i in r.from..r.to.min(n) {
                if timed.is_some() {
                    // SAFETY: our own event.
                    unsafe { device.event_record(self.events[i], stream)? };
                }
                let (s, e) = (&bound.shape.steps[i], &mut exec[i]);
                if matches!(e, StepExec::Nothing) {
                    continue;
                }
                let operands = Operands::new(&bases, &s.inputs, &s.outputs)?;
                // SAFETY: the plan gave every operand memory of its size; bound addresses are the application's promise.
                unsafe { e.run_on_stream(&operands.at(&bases, s), stream) }.map_err(|e| e.context(format!("step {:?}", bound.names[i])))?;
            }
            if r.to > n {
                for c in &bound.shape.end_copies {
                    let (src, dst) = (bases.resolve(c.from)?, bases.outputs[c.output]);
                    // SAFETY: sizes come from the same shape plan.
                    unsafe { device.copy(dst, src, c.bytes, CopyKind::DeviceToDevice, stream)? };
                }
            }
            Ok(())
        };
        match found {
            Some(segments) => {
                for s in segments {
                    match s {
                        // SAFETY: the graph uses the addresses that are bound now.
                        Segment::Graph(g) => unsafe { g.launch(stream)? },
                        Segment::Steps(r) => launch(*r)?,
                        Segment::InputsConsumed => consume()?,
                    }
                }
            }
            None => match consumed {
                None => launch(Range { from: 0, to: n + 1 })?,
                Some(c) => {
                    launch(Range { from: 0, to: c })?;
                    consume()?;
                    if c <= n {
                        launch(Range { from: c, to: n + 1 })?;
                    }
                }
            },
        }
        if let Some(times) = timed {
            let n = bound.shape.steps.len();
            // SAFETY: our own events, all recorded above.
            unsafe {
                device.event_record(self.events[n], stream)?;
                device.event_synchronize(self.events[n])?;
                for i in 0..n {
                    times.report(&bound.names[i], device.event_elapsed_ms(self.events[i], self.events[i + 1])?);
                }
            }
        }
        Ok(())
    }

    fn enqueue_cpu(&mut self, cpu: &CpuDevice, bound: Arc<Bound>, stream: RawStream, event: RawEvent) -> Result<()> {
        // The last job is used again once its stream has let go of it.
        let mut job = match self.job.take() {
            Some(j) if Arc::strong_count(&j) == 1 => j,
            _ => Arc::new(CpuJob::new(&self.engine)),
        };
        {
            let j = Arc::get_mut(&mut job).ok_or_else(|| crate::internal!("a job is still shared"))?;
            let st = j.state.get_mut();
            st.inputs.clear();
            st.inputs.extend(self.inputs.iter().map(|a| a.unwrap_or(0)));
            st.outputs.clear();
            st.outputs.extend(self.outputs.iter().map(|s| s.address.unwrap_or(0)));
            st.bound = Some(bound.clone());
            st.arena = Some(self.arena.clone());
            st.times = self.times.clone();
        }
        let device = &self.engine.device;
        // Two jobs, so that the event lies between the last read of the inputs and the rest.
        let copies_read_inputs = bound.shape.end_copies.iter().any(|c| matches!(c.from, Loc::Input(_)));
        let n = bound.shape.steps.len();
        let split = if copies_read_inputs { n } else { bound.shape.last_input_read.map_or(0, |i| i + 1) };
        if stream.is_null() {
            job.run(0, split)?;
            if !event.is_null() && !copies_read_inputs {
                // SAFETY: the application's event.
                unsafe { device.event_record(event, stream)? };
            }
            job.run(split, usize::MAX)?;
            if !event.is_null() && copies_read_inputs {
                // SAFETY: the application's event.
                unsafe { device.event_record(event, stream)? };
            }
            self.job = Some(job);
            return Ok(());
        }
        let waits = self.times.is_some();
        let whole = event.is_null() || copies_read_inputs;
        let ranges: &[(usize, usize)] = if whole { &[(0, usize::MAX)] } else { &[(0, split), (split, usize::MAX)] };
        for (k, &(from, to)) in ranges.iter().enumerate() {
            let j = job.clone();
            // SAFETY: the job holds all memory that it uses but for the bound addresses, which are the application's
            // promise until the stream has passed it.
            unsafe {
                cpu.submit(stream, Box::new(move || if let Err(e) = j.run(from, to) { panic!("{e}") }))?;
                if !event.is_null() && k == 0 {
                    device.event_record(event, stream)?;
                }
            }
        }
        self.job = Some(job);
        if waits {
            // SAFETY: the application's stream.
            unsafe { device.stream_synchronize(stream)? };
        }
        Ok(())
    }
}

struct JobState {
    inputs: Vec<u64>,
    outputs: Vec<u64>,
    bound: Option<Arc<Bound>>,
    arena: Option<Arc<Buffer>>,
    times: Option<Arc<dyn super::LayerTimes>>,
}

/// One execution on the CPU device: everything that it reads while it waits in a stream.
pub(super) struct CpuJob {
    engine: Arc<Engine>,
    state: Mutex<JobState>,
}

impl CpuJob {
    fn new(engine: &Arc<Engine>) -> CpuJob {
        let state = JobState { inputs: vec![], outputs: vec![], bound: None, arena: None, times: None };
        CpuJob { engine: engine.clone(), state: Mutex::new(state) }
    }

    /// Runs steps `from..to` of the shape plan; past the last step also the end copies.
    fn run(&self, from: usize, to: usize) -> Result<()> {
        let st = self.state.lock();
        let (Some(bound), Some(arena)) = (&st.bound, &st.arena) else {
            return Err(crate::internal!("a job without a plan"));
        };
        let bases = Bases {
            engine: &self.engine,
            inputs: &st.inputs,
            outputs: &st.outputs,
            arena: arena.ptr(),
            uploads: bound.uploads.as_ref().map_or(0, |b| b.ptr()),
        };
        let exec = bound.exec.lock();
        let n = bound.shape.steps.len();
        let end = to.min(n);
        let run_steps = || -> Result<()> {
            for i in from..end {
                let start = st.times.as_ref().map(|_| Instant::now());
                self.step(&bases, bound, i, &exec[i])?;
                if let (Some(t), Some(start)) = (&st.times, start) {
                    t.report(&bound.names[i], start.elapsed().as_secs_f32() * 1e3);
                }
            }
            Ok(())
        };
        if from < end {
            CpuDevice::install(run_steps)?;
        }
        if to > n {
            for c in &bound.shape.end_copies {
                let (src, dst) = (bases.resolve(c.from)?, bases.outputs[c.output]);
                if c.bytes > 0 && src != dst {
                    // SAFETY: sizes come from the same shape plan.
                    unsafe { std::ptr::copy(src as *const u8, dst as *mut u8, c.bytes) };
                }
            }
        }
        Ok(())
    }

    fn step(&self, bases: &Bases<'_>, bound: &Bound, i: usize, exec: &StepExec) -> Result<()> {
        let s = &bound.shape.steps[i];
        debug_assert!(matches!(self.engine.plan.steps[s.step].kind, StepKind::Device(_)));
        let operands = Operands::new(bases, &s.inputs, &s.outputs)?;
        let (ins, outs) = operands.split();
        let mut in_ptrs = [std::ptr::null::<u8>(); MAX_OPERANDS];
        let mut out_ptrs = [std::ptr::null_mut::<u8>(); MAX_OPERANDS];
        let (many_in, many_out): (Vec<*const u8>, Vec<*mut u8>);
        let (inputs, outputs): (&[*const u8], &[*mut u8]) = if operands.n <= MAX_OPERANDS {
            ins.iter().zip(&mut in_ptrs).for_each(|(a, p)| *p = *a as *const u8);
            outs.iter().zip(&mut out_ptrs).for_each(|(a, p)| *p = *a as *mut u8);
            (&in_ptrs[..ins.len()], &out_ptrs[..outs.len()])
        } else {
            many_in = ins.iter().map(|a| *a as *const u8).collect();
            many_out = outs.iter().map(|a| *a as *mut u8).collect();
            (&many_in, &many_out)
        };
        let args = CpuArgs { inputs, outputs, work: (bases.arena + s.work as u64) as *mut u8 };
        match exec {
            // SAFETY: the plan gave every operand memory of its size; bound addresses are the application's promise.
            StepExec::Cpu(step) => unsafe { step.run(&args) },
            // SAFETY: as above.
            StepExec::Reference(node, p) => unsafe { run_reference(node, p, &args)? },
            StepExec::Cuda(_) | StepExec::OnHost(_) | StepExec::Nothing => {}
        }
        Ok(())
    }
}
