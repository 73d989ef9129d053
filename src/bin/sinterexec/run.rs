//! The timing run: lanes of streams, each with a context, that keep two inferences in flight.
//!
//! A lane is what trtexec calls an inference stream: one context, a compute stream, and on CUDA a stream for each
//! direction of the copies. While slot 0 computes, the inputs of slot 1 travel; the host waits for a slot only before it
//! uses it again. All times are those of events on the streams, but for the enqueue time, which the host takes.

use crate::build::gap;
use crate::console::{info, warning};
use crate::options::Options;
use crate::session::{Event, Io, Stream};
use crate::shapes::{self, Shapes};
use crate::{output, profile, report};
use sinter::base::error::ResultExt;
use sinter::base::{DType, Result, Tensor};
use sinter::device::DeviceRef;
use sinter::device::cuda::graph::GraphExec;
use sinter::engine::{Engine, IoTensor};
use sinter::runtime::Context;
use sinter::{ensure, err};
use std::sync::Arc;
use std::time::Instant;

/// Inferences in flight on a lane.
const DEPTH: usize = 2;

/// Times of one inference, in milliseconds since the start of the run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Trace {
    /// The host's enqueue call.
    pub enqueue: [f64; 2],
    pub h2d: [f64; 2],
    pub compute: [f64; 2],
    pub d2h: [f64; 2],
    /// Lengths, measured directly: a difference of late times would lose digits.
    pub h2d_ms: f64,
    pub compute_ms: f64,
    pub d2h_ms: f64,
}

impl Trace {
    /// From the first copy to the last, without the time that it waited.
    pub fn latency_ms(&self) -> f64 {
        self.h2d_ms + self.compute_ms + self.d2h_ms
    }

    pub fn enqueue_ms(&self) -> f64 {
        self.enqueue[1] - self.enqueue[0]
    }
}

/// What was measured.
pub struct Measured {
    /// Inferences after the warm-up, in order.
    pub traces: Vec<Trace>,
    pub n_warm_up: usize,
    pub warm_up_ms: f64,
}

/// Streams of the copies and the events around them.
struct Transfers {
    input: Stream,
    output: Stream,
}

struct Slot {
    io: Io,
    graph: Option<GraphExec>,
    /// Start and end of input copies, computation, output copies.
    events: [[Event; 2]; 3],
    /// Host times of the enqueue call while the slot is in flight.
    active: Option<[f64; 2]>,
}

/// See the module's text. Fields are dropped in order: the context goes before its stream.
struct Lane {
    cx: Context,
    slots: Vec<Slot>,
    next: usize,
    compute: Stream,
    transfers: Option<Transfers>,
}

impl Drop for Lane {
    fn drop(&mut self) {
        // Work in flight uses the memory that goes next. Failures were reported where they mattered.
        let others = self.transfers.iter().flat_map(|t| [&t.input, &t.output]);
        for s in others.chain([&self.compute]) {
            let _ = s.synchronize();
        }
    }
}

/// Runs, measures, reports and writes what was asked for. `recorded` are inputs to use instead of random ones.
pub fn run(o: &Options, engine: &Arc<Engine>, recorded: Option<&[Tensor]>) -> Result<()> {
    let device = &engine.device;
    let cuda = matches!(device, DeviceRef::Cuda(_));
    let profile = engine.profiles().first().ok_or_else(|| err!(Internal, "an engine without a profile"))?;
    let inputs = match recorded {
        Some(tensors) if o.shapes.is_none() && o.load_inputs.is_empty() => {
            info!("Using the inputs of the first data set");
            tensors.to_vec()
        }
        _ => make_inputs(o, engine, &shapes::for_inference(o, engine.graph(), profile)?)?,
    };
    if !cuda && (o.use_cuda_graph || o.no_data_transfers) {
        warning!("--useCudaGraph and --noDataTransfers have no effect on the CPU: it computes in host memory and copies nothing");
    }
    let mut lanes = Vec::new();
    for _ in 0..o.streams {
        lanes.push(Lane::new(engine, &inputs, cuda && !o.no_data_transfers)?);
    }
    info!("Scratch memory of a context: {}", crate::build::mib(lanes[0].cx.scratch_bytes()));
    if o.use_cuda_graph && cuda {
        info!("Capturing CUDA graph for the current execution context");
        if let Err(e) = lanes.iter_mut().try_for_each(Lane::capture) {
            warning!("Running without CUDA graphs: {e}");
            lanes.iter_mut().flat_map(|l| &mut l.slots).for_each(|s| s.graph = None);
        } else {
            info!("Successfully captured CUDA graph for the current execution context");
        }
    }
    info!("Starting inference");
    let measured = measure(o, &mut lanes)?;
    let dense = match cuda {
        true => Some(lanes[0].back_to_back(report::compute_ms(&measured))?),
        false => None,
    };
    report::print(o, &measured, cuda, dense);
    if let Some(path) = &o.export_times {
        report::export_times(path, &measured.traces)?;
    }
    let lane = &mut lanes[0];
    if o.dump_profile || o.export_profile.is_some() {
        profile::run(o, &mut lane.cx, &lane.compute)?;
    }
    if o.dump_output || o.export_output.is_some() {
        let io = &lane.slots[0].io;
        io.download(&lane.compute)?;
        lane.compute.synchronize()?;
        output::show(o, io)?;
    }
    Ok(())
}

impl Lane {
    fn new(engine: &Arc<Engine>, inputs: &[Tensor], transfers: bool) -> Result<Lane> {
        let device = &engine.device;
        let compute = Stream::new(device)?;
        let mut cx = Context::new(engine)?;
        let transfers = match transfers {
            true => Some(Transfers { input: Stream::new(device)?, output: Stream::new(device)? }),
            false => None,
        };
        let pair = || -> Result<[Event; 2]> { Ok([Event::new(device)?, Event::new(device)?]) };
        let mut slots = Vec::new();
        for _ in 0..DEPTH {
            let io = Io::new(&mut cx, inputs, &compute)?;
            slots.push(Slot { io, graph: None, events: [pair()?, pair()?, pair()?], active: None });
        }
        let mut lane = Lane { cx, slots, next: 0, compute, transfers };
        // The first run makes what this set of shapes needs.
        lane.slots[0].io.bind(&mut lane.cx)?;
        lane.cx.enqueue(lane.compute.raw, std::ptr::null_mut())?;
        lane.compute.synchronize().with_context(|| "the first inference")?;
        if let Some(seconds) = crate::build::seconds_since_load() {
            info!("First result after {seconds:.4} s, from opening the engine file");
        }
        Ok(lane)
    }

    /// Records the computation of each slot as a CUDA graph.
    fn capture(&mut self) -> Result<()> {
        let DeviceRef::Cuda(cuda) = self.cx.engine().device.clone() else { return Ok(()) };
        let stream = self.compute.raw;
        for slot in &mut self.slots {
            slot.io.bind(&mut self.cx)?;
            // SAFETY: our own stream, which nobody else uses; every address lives as long as the slot.
            unsafe {
                cuda.begin_capture(stream)?;
                let enqueued = self.cx.enqueue(stream, std::ptr::null_mut());
                let graph = cuda.end_capture(stream);
                enqueued?;
                let mut exec = graph?.instantiate()?;
                exec.upload(stream)?;
                slot.graph = Some(exec);
            }
        }
        self.compute.synchronize()
    }

    /// Puts one inference into the next slot, which is free.
    fn query(&mut self, zero: Instant) -> Result<()> {
        let slot = &mut self.slots[self.next];
        let [h2d, compute, d2h] = &slot.events;
        if let Some(t) = &self.transfers {
            h2d[0].record(&t.input)?;
            slot.io.upload(&t.input)?;
            h2d[1].record(&t.input)?;
            self.compute.wait(&h2d[1])?;
        }
        slot.io.bind(&mut self.cx)?;
        compute[0].record(&self.compute)?;
        let start = ms(zero);
        launch(&mut self.cx, &mut slot.graph, &self.compute)?;
        slot.active = Some([start, ms(zero)]);
        compute[1].record(&self.compute)?;
        if let Some(t) = &self.transfers {
            t.output.wait(&compute[1])?;
            d2h[0].record(&t.output)?;
            slot.io.download(&t.output)?;
            d2h[1].record(&t.output)?;
        }
        self.next = (self.next + 1) % DEPTH;
        Ok(())
    }

    /// GPU time of one inference, in milliseconds, among many that are launched one behind the other: what is left when
    /// neither copies nor the host get in between. The median of a few batches; `about_ms` is what one may take.
    fn back_to_back(&mut self, about_ms: f64) -> Result<(f64, usize)> {
        const BATCHES: usize = 3;
        const BATCH_MS: f64 = 60.0;
        let n = ((BATCH_MS / about_ms.max(1e-3)) as usize).clamp(5, 5000);
        let slot = &mut self.slots[0];
        let [_, [start, end], _] = &slot.events;
        slot.io.bind(&mut self.cx)?;
        let mut times = Vec::new();
        for batch in 0..=BATCHES {
            start.record(&self.compute)?;
            for _ in 0..if batch == 0 { 5 } else { n } {
                launch(&mut self.cx, &mut slot.graph, &self.compute)?;
            }
            end.record(&self.compute)?;
            end.synchronize()?;
            if batch > 0 {
                times.push(end.ms_since(start)? / n as f64);
            }
        }
        Ok((report::Stats::new(times).median, n))
    }

    /// Waits for the slot that is next, if it is in flight, and reads its times.
    fn finish(&mut self, base: &Event) -> Result<Option<Trace>> {
        let slot = &mut self.slots[self.next];
        let Some(enqueue) = slot.active.take() else { return Ok(None) };
        let [h2d, compute, d2h] = &slot.events;
        let last = if self.transfers.is_some() { &d2h[1] } else { &compute[1] };
        last.synchronize()?;
        let span = |e: &[Event; 2]| -> Result<[f64; 2]> { Ok([e[0].ms_since(base)?, e[1].ms_since(base)?]) };
        let mut t = Trace { enqueue, compute: span(compute)?, compute_ms: compute[1].ms_since(&compute[0])?, ..Trace::default() };
        (t.h2d, t.d2h) = ([t.compute[0]; 2], [t.compute[1]; 2]);
        if self.transfers.is_some() {
            (t.h2d, t.d2h) = (span(h2d)?, span(d2h)?);
            (t.h2d_ms, t.d2h_ms) = (h2d[1].ms_since(&h2d[0])?, d2h[1].ms_since(&d2h[0])?);
        }
        Ok(Some(t))
    }
}

/// One inference on the compute stream, from its recorded graph if there is one.
fn launch(cx: &mut Context, graph: &mut Option<GraphExec>, stream: &Stream) -> Result<()> {
    match (graph, &cx.engine().device) {
        (Some(graph), DeviceRef::Cuda(cuda)) => {
            let _current = cuda.enter()?;
            // SAFETY: our own stream; the graph's addresses are the slot's and the context's.
            unsafe { graph.launch(stream.raw) }
        }
        _ => cx.enqueue(stream.raw, std::ptr::null_mut()),
    }
}

fn ms(zero: Instant) -> f64 {
    zero.elapsed().as_secs_f64() * 1e3
}

/// Runs until both the iterations and the time are reached.
fn measure(o: &Options, lanes: &mut [Lane]) -> Result<Measured> {
    let base = Event::new(&lanes[0].cx.engine().device)?;
    base.record(&lanes[0].compute)?;
    base.synchronize()?;
    let zero = Instant::now();
    let mut out = Measured { traces: Vec::new(), n_warm_up: 0, warm_up_ms: 0.0 };
    let mut take = |t: Trace| {
        if t.compute[0] >= o.warm_up_ms {
            out.traces.push(t);
        } else {
            out.n_warm_up += 1;
            out.warm_up_ms = t.compute[1].max(out.warm_up_ms);
        }
        out.traces.len()
    };
    let enough = o.iterations.saturating_mul(lanes.len());
    let mut counted = 0;
    while counted < enough || ms(zero) < o.warm_up_ms + o.duration_s * 1e3 {
        for lane in lanes.iter_mut() {
            lane.query(zero)?;
        }
        for lane in lanes.iter_mut() {
            if let Some(t) = lane.finish(&base)? {
                counted = take(t);
            }
        }
    }
    for lane in lanes.iter_mut() {
        for _ in 0..DEPTH {
            if let Some(t) = lane.finish(&base)? {
                take(t);
            }
            lane.next = (lane.next + 1) % DEPTH;
        }
        lane.compute.synchronize()?;
    }
    gap();
    Ok(out)
}

/// Values of the inputs in the network's order: from files, otherwise random.
fn make_inputs(o: &Options, engine: &Engine, dims: &Shapes) -> Result<Vec<Tensor>> {
    let tensors: Vec<IoTensor> = engine.io_tensors().into_iter().filter(|t| t.is_input).collect();
    for (name, _) in &o.load_inputs {
        let names: Vec<String> = tensors.iter().map(|t| format!("{:?}", t.name)).collect();
        ensure!(
            tensors.iter().any(|t| t.name == *name),
            InvalidArgument,
            "option --loadInputs: no input is named {name:?}; the inputs are {}",
            names.join(", ")
        );
    }
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut out = Vec::new();
    for t in &tensors {
        let dims = dims.get(&t.name).ok_or_else(|| err!(Internal, "input {:?} has no shape", t.name))?;
        let shape: Vec<usize> = dims.iter().map(|d| *d as usize).collect();
        sinter::base::tensor::checked_bytes(t.dtype, &shape)?;
        let file = o.load_inputs.iter().find(|(n, _)| *n == t.name).map(|(_, f)| f);
        let tensor = match file {
            Some(f) => {
                let at = || format!("input {:?} from {}", t.name, f.display());
                let bytes = std::fs::read(f).with_context(at)?;
                info!("Using values loaded from {} for input {} ({})", f.display(), t.name, shapes::text(dims));
                Tensor::from_bytes(t.dtype, &shape, &bytes).with_context(at)?
            }
            None if t.host => {
                warning!("Input {} gives shapes: it is filled with 1. Give its values with --loadInputs.", t.name);
                let ones = vec![1i64; shape.iter().product()];
                Tensor::from_slice(&shape, &ones).cast(t.dtype)
            }
            None => {
                info!("Using random values for input {} ({})", t.name, shapes::text(dims));
                random.tensor(t.dtype, &shape)
            }
        };
        out.push(tensor);
    }
    Ok(out)
}

/// The same numbers in each run of the program.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        // xorshift64*
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32
    }

    /// Floats from -1 to 1, bools, bytes from 0 to 255, other integers from -128 to 127.
    fn tensor(&mut self, dtype: DType, shape: &[usize]) -> Tensor {
        let n = shape.iter().product();
        let values: Vec<f64> = (0..n)
            .map(|_| {
                let r = self.next();
                match dtype {
                    _ if dtype.is_float_like() => r as f64 / u32::MAX as f64 * 2.0 - 1.0,
                    DType::Bool => (r & 1) as f64,
                    _ if !dtype.is_signed() => (r & 255) as f64,
                    _ => (r & 255) as f64 - 128.0,
                }
            })
            .collect();
        Tensor::from_slice(shape, &values).cast(dtype)
    }
}
