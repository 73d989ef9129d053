//! An execution context: bound addresses, current shapes, scratch memory, and what it keeps for each set of shapes.
//!
//! A context is used by one thread at a time; any number of contexts share an engine. Shapes are set first, then
//! addresses are bound, then the context is enqueued any number of times. What a set of shapes needs (shape plan,
//! packed launches) is made at the first enqueue with it and kept, least recently used first out.

use super::exec::StepExec;
use super::dynamic::State;
use super::ready::Ready;
use super::replay::{Replays, pays};
use crate::base::{DType, Result, Tensor};
use crate::device::{Buffer, CopyKind, DeviceRef, RawEvent, RawStream};
use crate::engine::Engine;
use crate::ops::TensorDesc;
use crate::plan::profile::bind_shape;
use crate::plan::{Profile, ShapePlan, shapes};
use crate::{bail, ensure, err, internal};
use parking_lot::Mutex;
use std::sync::Arc;

/// How many sets of shapes a context keeps.
pub const KEPT_SHAPES: usize = 64;

/// Receives the time of each layer of an execution, in order.
pub trait LayerTimes: Send + Sync {
    /// Milliseconds that a layer took.
    fn report(&self, layer: &str, ms: f32);
}

/// Gives memory to outputs whose size is known only while an execution runs.
pub trait OutputAllocator: Send + Sync {
    /// Device memory of at least `bytes` for the output; `None` fails the execution. Called from the thread that runs it.
    fn allocate(&self, name: &str, dims: &[i64], bytes: usize) -> Option<u64>;
}

/// Where an output goes.
#[derive(Clone, Default)]
pub(super) struct OutputSlot {
    pub address: Option<u64>,
    /// Bytes that the address has room for, when they were told.
    pub capacity: Option<usize>,
    pub allocator: Option<Arc<dyn OutputAllocator>>,
}

/// The address bound to a tensor, when it can be one: not missing, and aligned for what reads it.
pub(super) fn check_address(on_gpu: bool, name: &str, desc: &TensorDesc, address: Option<u64>) -> Result<u64> {
    // Kernels on a GPU read and write 16 bytes at once.
    let align = if on_gpu { 16 } else { desc.dtype.size() as u64 };
    match address {
        None => Err(err!(InvalidState, "tensor {name:?} has no memory bound to it")),
        Some(0) if desc.bytes() > 0 => Err(err!(InvalidState, "tensor {name:?} is bound to NULL and has {desc}")),
        Some(a) if a % align != 0 => Err(err!(
            InvalidArgument,
            "tensor {name:?} of {}: address {a:#x} is not a multiple of {align}",
            desc.dtype
        )),
        Some(a) => Ok(a),
    }
}

/// The plan at one set of shapes, ready to run.
pub(super) struct Bound {
    pub key: Vec<Vec<i64>>,
    pub host_values: Vec<Arc<Tensor>>,
    pub shape: ShapePlan,
    /// One for each of `shape.steps`.
    pub exec: Mutex<Vec<StepExec>>,
    /// Host values that device steps read.
    pub uploads: Option<Buffer>,
    /// On CUDA: executions that became graphs; `None` where that does not pay.
    pub replays: Option<Mutex<Replays>>,
    /// Names of the steps for the profiler.
    pub names: Vec<String>,
}

/// See the module's text.
pub struct Context {
    pub(super) engine: Arc<Engine>,
    profile: usize,
    shapes: Vec<Option<Vec<i64>>>,
    pub(super) inputs: Vec<Option<u64>>,
    pub(super) outputs: Vec<OutputSlot>,
    /// For plans that run in stages.
    pub(super) dynamic: Option<Arc<Mutex<State>>>,
    /// Shapes of the outputs of the last execution in stages.
    pub(super) final_shapes: Arc<Mutex<Vec<Option<Vec<i64>>>>>,
    pub(super) arena: Arc<Buffer>,
    kept: Vec<Arc<Bound>>,
    pub(super) current: Option<Arc<Bound>>,
    pub(super) times: Option<Arc<dyn LayerTimes>>,
    /// Timing events for the profiler: one more than steps.
    pub(super) events: Vec<RawEvent>,
    pub(super) job: Option<Arc<super::enqueue::CpuJob>>,
    /// Stream of `execute`.
    own_stream: RawStream,
    /// Addresses of an execution, kept for its memory.
    pub(super) addresses: Vec<u64>,
}

// SAFETY: the raw streams and events are handles that any thread may use; one thread at a time uses a context.
unsafe impl Send for Context {}

impl Context {
    /// Makes a context; reserves scratch for the largest shapes of the profile when these are bounded.
    pub fn new(engine: &Arc<Engine>) -> Result<Context> {
        let g = &engine.plan.graph;
        let shapes = g.inputs().iter().map(|p| g.fact(p.value).shape.concrete());
        let shapes = shapes.map(|s| s.map(|s| s.iter().map(|d| *d as i64).collect())).collect();
        let mut cx = Context {
            engine: engine.clone(),
            profile: 0,
            shapes,
            inputs: vec![None; g.inputs().len()],
            outputs: vec![OutputSlot::default(); g.outputs().len()],
            dynamic: match engine.plan.is_static() {
                true => None,
                false => Some(Arc::new(Mutex::new(State::new(&engine.device)?))),
            },
            final_shapes: Arc::new(Mutex::new(vec![None; g.outputs().len()])),
            arena: Arc::new(Buffer::new(&engine.device, 0)?),
            kept: Vec::new(),
            current: None,
            times: None,
            events: Vec::new(),
            job: None,
            own_stream: std::ptr::null_mut(),
            addresses: Vec::new(),
        };
        cx.reserve()?;
        Ok(cx)
    }

    /// Takes arena memory for the profile's largest shapes, so that shape changes inside of it allocate nothing.
    fn reserve(&mut self) -> Result<()> {
        let profile = self.profile_ref();
        if !profile.is_bounded() || !self.engine.plan.host_inputs.is_empty() || self.dynamic.is_some() {
            return Ok(());
        }
        let g = &self.engine.plan.graph;
        let max: Option<Vec<Vec<i64>>> =
            g.inputs().iter().map(|p| profile.inputs.get(&p.name).map(|r| r.max.clone())).collect();
        let max = max.ok_or_else(|| internal!("the profile lacks an input"))?;
        let bound = self.make(&max, &[])?;
        self.grow_arena(bound.shape.arena_bytes)?;
        self.keep(bound);
        Ok(())
    }

    pub fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    fn profile_ref(&self) -> &Profile {
        &self.engine.image.profiles[self.profile]
    }

    /// Chooses an optimization profile; shapes that are set must be set again.
    pub fn set_profile(&mut self, index: usize) -> Result<()> {
        let n = self.engine.image.profiles.len();
        ensure!(index < n, InvalidArgument, "there is no profile {index}; the engine has {n}");
        self.profile = index;
        let g = &self.engine.plan.graph;
        for (s, p) in self.shapes.iter_mut().zip(g.inputs()) {
            if !g.fact(p.value).shape.is_concrete() {
                *s = None;
            }
        }
        self.current = None;
        self.reserve()
    }

    /// The shape of input `i`, when it is set.
    pub(super) fn shape_of(&self, i: usize) -> Option<&[i64]> {
        self.shapes[i].as_deref()
    }

    fn input_idx(&self, name: &str) -> Option<usize> {
        self.engine.plan.graph.inputs().iter().position(|p| p.name == name)
    }

    fn output_idx(&self, name: &str) -> Option<usize> {
        self.engine.plan.graph.outputs().iter().position(|p| p.name == name)
    }

    fn no_tensor(&self, name: &str) -> crate::base::Error {
        let g = &self.engine.plan.graph;
        let names: Vec<String> = g.inputs().iter().chain(g.outputs()).map(|p| format!("{:?}", p.name)).collect();
        err!(NotFound, "the engine has no input or output named {name:?}; it has {}", names.join(", "))
    }

    /// Sets the shape of a dynamic input; a static input accepts its own shape.
    pub fn set_input_shape(&mut self, name: &str, dims: &[i64]) -> Result<()> {
        let Some(i) = self.input_idx(name) else {
            ensure!(self.output_idx(name).is_none(), InvalidArgument, "{name:?} is an output; only inputs have shapes to set");
            return Err(self.no_tensor(name));
        };
        let g = &self.engine.plan.graph;
        let declared = &g.fact(g.inputs()[i].value).shape;
        bind_shape(name, declared, dims, &mut Default::default())?;
        self.profile_ref().check(name, dims)?;
        if self.shapes[i].as_deref() != Some(dims) {
            self.shapes[i] = Some(dims.to_vec());
            self.current = None;
            self.forget_final_shapes();
        }
        Ok(())
    }

    /// Other inputs: what the last execution found out about its outputs says nothing about the next.
    fn forget_final_shapes(&mut self) {
        if self.dynamic.is_some() {
            self.final_shapes.lock().fill(None);
        }
    }

    /// The current shape of an input or output. Outputs need the shapes of all inputs (and, where the host reads
    /// elements of an input, its address). A shape that depends on the data is known from the end of an execution until
    /// an input is bound or changes its shape.
    pub fn tensor_shape(&mut self, name: &str) -> Result<Vec<i64>> {
        if let Some(i) = self.input_idx(name) {
            return self.shapes[i].clone().ok_or_else(|| err!(InvalidState, "the shape of input {name:?} is not set"));
        }
        let i = self.output_idx(name).ok_or_else(|| self.no_tensor(name))?;
        if self.dynamic.is_some() {
            return self.dynamic_shape(i, name);
        }
        let bound = self.ready(std::ptr::null_mut())?;
        Ok(bound.shape.outputs[i].dims.iter().map(|d| *d as i64).collect())
    }

    pub fn tensor_dtype(&self, name: &str) -> Result<DType> {
        let g = &self.engine.plan.graph;
        let v = g.input(name).or_else(|| g.output(name)).ok_or_else(|| self.no_tensor(name))?;
        Ok(g.fact(v).dtype)
    }

    /// Binds memory to an input or output: a device address, or a host address on the CPU and for inputs that the host
    /// reads. Null is refused unless the tensor is empty, which is known only when enqueued.
    pub fn bind(&mut self, name: &str, address: u64) -> Result<()> {
        if let Some(i) = self.input_idx(name) {
            self.inputs[i] = Some(address);
            self.forget_final_shapes();
            if self.engine.plan.host_inputs.contains(&i) {
                self.current = None;
            }
        } else if let Some(i) = self.output_idx(name) {
            self.outputs[i] = OutputSlot { address: Some(address), ..OutputSlot::default() };
        } else {
            return Err(self.no_tensor(name));
        }
        Ok(())
    }

    /// Binds memory of `capacity` bytes to an output: what an output needs whose shape depends on the data.
    pub fn bind_output(&mut self, name: &str, address: u64, capacity: usize) -> Result<()> {
        let i = self.output_idx(name).ok_or_else(|| self.no_output(name))?;
        self.outputs[i] = OutputSlot { address: Some(address), capacity: Some(capacity), allocator: None };
        Ok(())
    }

    /// Asks for an output's memory at each execution, when its shape is known; `None` stops it.
    pub fn set_output_allocator(&mut self, name: &str, allocator: Option<Arc<dyn OutputAllocator>>) -> Result<()> {
        let i = self.output_idx(name).ok_or_else(|| self.no_output(name))?;
        self.outputs[i].allocator = allocator;
        Ok(())
    }

    fn no_output(&self, name: &str) -> crate::base::Error {
        match self.input_idx(name) {
            Some(_) => err!(InvalidArgument, "{name:?} is an input, not an output"),
            None => self.no_tensor(name),
        }
    }

    /// The shape of output `i` of a plan that runs in stages: from the inputs' shapes where these tell it, otherwise from
    /// the last execution.
    fn dynamic_shape(&self, i: usize, name: &str) -> Result<Vec<i64>> {
        let g = &self.engine.plan.graph;
        let mut b = crate::base::dims::Bindings::new();
        let mut complete = true;
        for (p, s) in g.inputs().iter().zip(&self.shapes) {
            match s {
                Some(s) => bind_shape(&p.name, &g.fact(p.value).shape, s, &mut b)?,
                None => complete = false,
            }
        }
        let shape = g.fact(g.outputs()[i].value).shape.bind(&b);
        if let (true, Some(dims)) = (complete, shape.concrete()) {
            return Ok(dims.iter().map(|d| *d as i64).collect());
        }
        let last = self.final_shapes.lock()[i].clone();
        last.ok_or_else(|| {
            err!(InvalidState, "the shape {shape} of output {name:?} depends on the data: it is known after an execution")
        })
    }

    /// The address bound to a tensor.
    pub fn address(&self, name: &str) -> Result<Option<u64>> {
        if let Some(i) = self.input_idx(name) {
            return Ok(self.inputs[i]);
        }
        let i = self.output_idx(name).ok_or_else(|| self.no_tensor(name))?;
        Ok(self.outputs[i].address)
    }

    /// Reports each layer's time at every execution; enqueue then waits for the end. `None` stops it.
    pub fn set_layer_times(&mut self, times: Option<Arc<dyn LayerTimes>>) {
        self.times = times;
    }

    /// Bytes of scratch that the context holds.
    pub fn scratch_bytes(&self) -> usize {
        self.arena.bytes() + self.dynamic.as_ref().map_or(0, |d| d.lock().bytes())
    }

    /// Bytes of scratch that the current shapes need.
    pub fn needed_scratch_bytes(&mut self) -> Result<usize> {
        if self.dynamic.is_some() {
            // It grows with what the data asks for.
            return Ok(self.scratch_bytes());
        }
        Ok(self.ready(std::ptr::null_mut())?.shape.arena_bytes)
    }

    // ---- shapes -----------------------------------------------------------------------------------------------

    /// The plan at the current shapes, made or found.
    pub(super) fn ready(&mut self, stream: RawStream) -> Result<Arc<Bound>> {
        let hosted = !self.engine.plan.host_inputs.is_empty();
        if let Some(b) = &self.current
            && !hosted
        {
            return Ok(b.clone());
        }
        let g = &self.engine.plan.graph;
        let missing: Vec<String> =
            g.inputs().iter().zip(&self.shapes).filter(|(_, s)| s.is_none()).map(|(p, _)| format!("{:?}", p.name)).collect();
        ensure!(missing.is_empty(), InvalidState, "the shape of input {} is not set", missing.join(", "));
        let key: Vec<Vec<i64>> = self.shapes.iter().flatten().cloned().collect();
        let host_values = self.read_host_inputs(&key, stream)?;
        let found = self.kept.iter().position(|b| {
            b.key == key && b.host_values.iter().zip(&host_values).all(|(a, b)| a.same(b))
        });
        let bound = match found {
            Some(i) => {
                // The list is in order of last use.
                let b = self.kept.remove(i);
                self.kept.push(b.clone());
                b
            }
            None => {
                let b = self.make(&key, &host_values)?;
                self.keep(b)
            }
        };
        self.grow_arena(bound.shape.arena_bytes)?;
        self.current = Some(bound.clone());
        Ok(bound)
    }

    fn keep(&mut self, bound: Bound) -> Arc<Bound> {
        let bound = Arc::new(bound);
        if self.kept.len() >= KEPT_SHAPES {
            self.kept.remove(0);
        }
        self.kept.push(bound.clone());
        bound
    }

    fn read_host_inputs(&self, key: &[Vec<i64>], stream: RawStream) -> Result<Vec<Arc<Tensor>>> {
        let g = &self.engine.plan.graph;
        let mut out = Vec::new();
        for &i in &self.engine.plan.host_inputs {
            let p = &g.inputs()[i];
            let address = self.inputs[i].ok_or_else(|| {
                err!(InvalidState, "input {:?} gives shapes: bind its memory before shapes are asked for", p.name)
            })?;
            let dims: Vec<usize> = key[i].iter().map(|d| *d as usize).collect();
            let dtype = g.fact(p.value).dtype;
            crate::base::tensor::checked_bytes(dtype, &dims)?;
            let mut t = Tensor::zeros(dtype, &dims);
            let n = t.bytes().len();
            if n > 0 {
                ensure!(address != 0, InvalidArgument, "input {:?} is bound to NULL", p.name);
                let device = &self.engine.device;
                // SAFETY: the application bound this address for a tensor of this size; the driver accepts host
                // addresses as the source too.
                unsafe {
                    match device {
                        DeviceRef::Cuda(_) => {
                            device.copy(t.bytes_mut().as_mut_ptr() as u64, address, n, CopyKind::DeviceToHost, stream)?;
                            device.stream_synchronize(stream)?;
                        }
                        DeviceRef::Cpu(_) => {
                            std::ptr::copy_nonoverlapping(address as *const u8, t.bytes_mut().as_mut_ptr(), n)
                        }
                        DeviceRef::Null(_) => bail!(Unsupported, "the null device has no memory to read shapes from"),
                    }
                }
                t.normalize();
            }
            out.push(Arc::new(t));
        }
        Ok(out)
    }

    fn make(&self, key: &[Vec<i64>], host_values: &[Arc<Tensor>]) -> Result<Bound> {
        let engine = &self.engine;
        let plan = &engine.plan;
        let ready = Ready::new(engine, plan, |each| shapes::specialize(plan, key, host_values, each))?;
        let Ready { shape, exec, uploads } = ready;
        let names = shape.steps.iter().map(|s| plan.graph.node(plan.steps[s.step].node).name.clone()).collect();
        let replays = (engine.device.props().is_cuda() && pays(&exec)).then(Mutex::default);
        Ok(Bound {
            replays,
            key: key.to_vec(),
            host_values: host_values.to_vec(),
            shape,
            exec: Mutex::new(exec),
            uploads,
            names,
        })
    }

    fn grow_arena(&mut self, bytes: usize) -> Result<()> {
        if bytes > self.arena.bytes() {
            // Work of an earlier enqueue may still use the old arena. On the CPU its job holds it; on CUDA the device is
            // waited for, since the application may have destroyed the stream meanwhile.
            if let DeviceRef::Cuda(cuda) = &self.engine.device {
                cuda.synchronize()?;
            }
            self.arena = Arc::new(Buffer::new(&self.engine.device, bytes)?);
        }
        Ok(())
    }

    // ---- running ----------------------------------------------------------------------------------------------

    /// Runs once and waits for the end, on a stream of the context's own.
    pub fn execute(&mut self) -> Result<()> {
        if let DeviceRef::Cpu(_) = &self.engine.device {
            return self.enqueue(std::ptr::null_mut(), std::ptr::null_mut());
        }
        if self.own_stream.is_null() {
            self.own_stream = self.engine.device.stream_create()?;
        }
        let stream = self.own_stream;
        self.enqueue(stream, std::ptr::null_mut())?;
        // SAFETY: our own stream.
        unsafe { self.engine.device.stream_synchronize(stream) }
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        let device = self.engine.device.clone();
        // Enqueued work uses the arena; it must be over before memory goes. The application's streams may be gone
        // already, so the device is waited for. Failures were reported when they happened.
        if let DeviceRef::Cuda(cuda) = &device {
            let _ = cuda.synchronize();
        }
        // SAFETY: streams and events are ours and destroyed once.
        unsafe {
            for e in self.events.drain(..) {
                let _ = device.event_destroy(e);
            }
            if !self.own_stream.is_null() {
                let _ = device.stream_destroy(self.own_stream);
            }
        }
    }
}
