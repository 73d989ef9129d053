//! Runs plans whose shapes follow from data, or that run graphs of their own: stage by stage, driven by the host.
//!
//! A stage is made ready for the shapes of what it reads and kept, as a whole plan is for the shapes of its inputs. What
//! crosses stages lives in a pool of device memory that the context keeps; a buffer is used again as soon as nobody holds
//! its value, which is safe because everything is on one stream. The host waits for the device only where it reads
//! elements back or counts the results of a node.

use super::exec::{StepAddresses, StepExec, run_reference};
use super::ready::Ready;
use super::{LayerTimes, control};
use crate::base::error::ResultExt;
use crate::base::{Fact, Result, Tensor};
use crate::device::cpu::CpuDevice;
use crate::device::{Buffer, CopyKind, DeviceRef, RawStream};
use crate::engine::Engine;
use crate::network::ValueId;
use crate::network::eval::eval_node;
use crate::ops::{CpuArgs, TensorDesc};
use crate::plan::shapes::{External, specialize_stage};
use crate::plan::{Loc, Plan, Stage, StepKind};
use crate::{ensure, err, internal};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

/// How many sets of shapes a stage keeps.
const KEPT_SHAPES: usize = 64;

/// Keeps the memory behind a value alive.
#[derive(Clone)]
pub(super) enum Keep {
    /// The application's, or a weight of the engine.
    Outside,
    Pool { _buffer: Arc<Buffer> },
    Host { _tensor: Arc<Tensor> },
}

/// A value while a plan runs: on the device, on the host, or both.
#[derive(Clone)]
pub(super) struct Var {
    pub desc: TensorDesc,
    pub address: Option<u64>,
    pub host: Option<Arc<Tensor>>,
    pub keep: Keep,
}

impl Var {
    pub fn at(desc: TensorDesc, address: u64) -> Var {
        Var { desc, address: Some(address), host: None, keep: Keep::Outside }
    }

    pub fn of_host(t: Arc<Tensor>) -> Var {
        let desc = TensorDesc { dtype: t.dtype(), dims: t.shape().to_vec() };
        Var { desc, address: None, host: Some(t), keep: Keep::Outside }
    }
}

/// Where the outputs of a plan go.
pub(super) trait Outputs {
    /// Memory for an output of this type and shape; `None` leaves the choice to the runner. Called once for each.
    fn address(&mut self, port: usize, desc: &TensorDesc) -> Result<Option<u64>>;
}

/// Outputs that stay inside.
pub(super) struct Inner;

impl Outputs for Inner {
    fn address(&mut self, _port: usize, _desc: &TensorDesc) -> Result<Option<u64>> {
        Ok(None)
    }
}

/// What a stage was made ready for, of one value that it reads.
struct Seen {
    dims: Vec<usize>,
    /// The elements, where the steps depend on them.
    host: Option<Arc<Tensor>>,
    on_device: bool,
}

impl Seen {
    fn same(&self, other: &Seen) -> bool {
        let host = match (&self.host, &other.host) {
            (None, None) => true,
            (Some(a), Some(b)) => a.same(b),
            _ => false,
        };
        host && self.dims == other.dims && self.on_device == other.on_device
    }
}

/// A stage at concrete shapes.
struct Kept {
    key: Vec<Seen>,
    ready: Ready,
}

/// What a context keeps between executions.
pub(super) struct State {
    device: DeviceRef,
    arena: Buffer,
    pool: Vec<Arc<Buffer>>,
    /// By plan and stage, in order of last use.
    ready: HashMap<(u32, usize), Vec<Kept>>,
}

impl State {
    pub fn new(device: &DeviceRef) -> Result<State> {
        let arena = Buffer::new(device, 0)?;
        Ok(State { device: device.clone(), arena, pool: Vec::new(), ready: HashMap::new() })
    }

    /// Bytes of device memory that it holds.
    pub fn bytes(&self) -> usize {
        self.arena.bytes() + self.pool.iter().map(|b| b.bytes()).sum::<usize>()
    }
}

/// One execution; see the module's text.
pub(super) struct Runner<'a> {
    pub engine: &'a Engine,
    pub state: &'a mut State,
    pub stream: RawStream,
    pub times: Option<Arc<dyn LayerTimes>>,
}

type Env = Vec<Option<Var>>;

impl Runner<'_> {
    /// Runs a plan on its inputs; gives its outputs in order.
    pub fn plan(&mut self, plan: &Plan, args: Vec<Var>, outputs: &mut dyn Outputs) -> Result<Vec<Var>> {
        let g = &plan.graph;
        let mut env: Env = vec![None; g.n_values()];
        for (p, arg) in g.inputs().iter().zip(args) {
            let f = g.fact(p.value);
            let fits = arg.desc.dtype == f.dtype
                && arg.desc.dims.len() == f.rank()
                && f.shape.iter().zip(&arg.desc.dims).all(|(d, n)| d.as_const().is_none_or(|d| d == *n as i64));
            ensure!(fits, InvalidArgument, "{:?} is {f}, but gets {}", p.name, arg.desc);
            env[p.value.idx()] = Some(arg);
        }
        for &i in &plan.host_inputs {
            self.read_back(&mut env, g.inputs()[i].value)?;
        }
        let mut placed: Vec<Option<u64>> = vec![None; g.outputs().len()];
        for (k, stage) in plan.stages.iter().enumerate() {
            for v in &stage.readbacks {
                self.read_back(&mut env, *v)?;
            }
            if stage.is_dynamic {
                self.node(plan, stage.steps[0], &mut env)?;
            } else {
                self.steps(plan, k, stage, &mut env, outputs, &mut placed)?;
            }
        }
        let mut out = Vec::new();
        for (i, p) in g.outputs().iter().enumerate() {
            let mut var = self.var(plan, &mut env, p.value)?;
            let to = match placed[i] {
                Some(to) => Some(to),
                None => outputs.address(i, &var.desc)?,
            };
            if let Some(to) = to {
                let from = self.materialize(&mut var)?;
                if from != to && var.desc.bytes() > 0 {
                    self.copy(to, from, var.desc.bytes())?;
                }
            }
            out.push(var);
        }
        Ok(out)
    }

    // ---- values -----------------------------------------------------------------------------------------------

    /// A value that was computed, or a constant.
    pub fn var(&mut self, plan: &Plan, env: &mut Env, v: ValueId) -> Result<Var> {
        if let Some(var) = &env[v.idx()] {
            return Ok(var.clone());
        }
        let t = plan.graph.as_const(v).cloned();
        let t = t.ok_or_else(|| internal!("value {:?} was not computed", plan.graph.value(v).name))?;
        let mut var = Var::of_host(t);
        var.address = plan.consts.get(&v).map(|n| self.engine.const_address(*n));
        Ok(var)
    }

    /// Makes the elements of a value known to the host.
    fn read_back(&mut self, env: &mut Env, v: ValueId) -> Result<()> {
        let var = env[v.idx()].as_mut().ok_or_else(|| internal!("value {} is read before it is computed", v.0))?;
        self.to_host(var).map(drop)
    }

    /// The elements of a value on the host.
    pub fn to_host(&mut self, var: &mut Var) -> Result<Arc<Tensor>> {
        if let Some(t) = &var.host {
            return Ok(t.clone());
        }
        let from = var.address.ok_or_else(|| internal!("a value is nowhere"))?;
        crate::base::tensor::checked_bytes(var.desc.dtype, &var.desc.dims)?;
        let mut t = Tensor::zeros(var.desc.dtype, &var.desc.dims);
        let n = t.bytes().len();
        if n > 0 {
            ensure!(from != 0, InvalidArgument, "a tensor of {} is bound to NULL", var.desc);
            let to = t.bytes_mut().as_mut_ptr();
            match &self.state.device {
                // SAFETY: the value has this many bytes; the host side is as large.
                DeviceRef::Cuda(_) => unsafe {
                    self.state.device.copy(to as u64, from, n, CopyKind::DeviceToHost, self.stream)?;
                    self.state.device.stream_synchronize(self.stream)?;
                },
                // SAFETY: as above.
                DeviceRef::Cpu(_) => unsafe { std::ptr::copy_nonoverlapping(from as *const u8, to, n) },
                DeviceRef::Null(_) => {}
            }
        }
        t.normalize();
        let t = Arc::new(t);
        var.host = Some(t.clone());
        Ok(t)
    }

    /// The device address of a value; what only the host has is copied there.
    pub fn materialize(&mut self, var: &mut Var) -> Result<u64> {
        if let Some(a) = var.address {
            return Ok(a);
        }
        let t = var.host.clone().ok_or_else(|| internal!("a value is nowhere"))?;
        let address = match &self.state.device {
            DeviceRef::Cpu(_) => {
                var.keep = Keep::Host { _tensor: t.clone() };
                t.bytes().as_ptr() as u64
            }
            _ => {
                let buffer = self.alloc(t.bytes().len())?;
                let (to, from) = (buffer.ptr(), t.bytes());
                var.keep = Keep::Pool { _buffer: buffer };
                // SAFETY: the buffer is as large; the driver has read pageable memory when the call returns.
                unsafe { self.state.device.copy(to, from.as_ptr() as u64, from.len(), CopyKind::HostToDevice, self.stream)? };
                to
            }
        };
        var.address = Some(address);
        Ok(address)
    }

    /// Memory for a new value.
    pub fn fresh(&mut self, desc: TensorDesc) -> Result<Var> {
        crate::base::tensor::checked_bytes(desc.dtype, &desc.dims)?;
        let buffer = self.alloc(desc.bytes())?;
        Ok(Var { address: Some(buffer.ptr()), desc, host: None, keep: Keep::Pool { _buffer: buffer } })
    }

    fn alloc(&mut self, bytes: usize) -> Result<Arc<Buffer>> {
        let bytes = bytes.max(1).next_multiple_of(256);
        let fits = |b: &Arc<Buffer>| Arc::strong_count(b) == 1 && b.bytes() >= bytes && b.bytes() <= bytes.saturating_mul(2);
        if let Some(b) = self.state.pool.iter().find(|b| fits(b)) {
            return Ok(b.clone());
        }
        let b = Arc::new(Buffer::new(&self.state.device, bytes)?);
        self.state.pool.push(b.clone());
        Ok(b)
    }

    /// Copies inside of the device.
    pub fn copy(&mut self, to: u64, from: u64, bytes: usize) -> Result<()> {
        if bytes == 0 {
            return Ok(());
        }
        match &self.state.device {
            // SAFETY: both are values of this size.
            DeviceRef::Cpu(_) => unsafe { std::ptr::copy(from as *const u8, to as *mut u8, bytes) },
            // SAFETY: as above.
            d => unsafe { d.copy(to, from, bytes, CopyKind::DeviceToDevice, self.stream)? },
        }
        Ok(())
    }

    // ---- stages -----------------------------------------------------------------------------------------------

    fn steps(
        &mut self,
        plan: &Plan,
        k: usize,
        stage: &Stage,
        env: &mut Env,
        outputs: &mut dyn Outputs,
        placed: &mut [Option<u64>],
    ) -> Result<()> {
        let g = &plan.graph;
        let mut externals = Vec::new();
        let mut key = Vec::new();
        for v in &stage.externals {
            let known = plan.host_values.contains(v);
            let mut var = env[v.idx()].take().ok_or_else(|| internal!("value {:?} was not computed", g.value(*v).name))?;
            if var.address.is_none() && !known {
                self.materialize(&mut var)?;
            }
            let host = var.host.clone().filter(|_| known);
            let fact = match &host {
                Some(t) => Fact::of_const(t.clone()),
                None => Fact::new(var.desc.dtype, var.desc.dims.as_slice()),
            };
            let on_device = var.address.is_some();
            externals.push(External { fact, on_device });
            key.push(Seen { dims: var.desc.dims.clone(), host, on_device });
            env[v.idx()] = Some(var);
        }
        let mut stage = self.take_ready(plan, k, stage, key, &externals)?;
        let done = self.run_ready(plan, &mut stage.ready, env, outputs, placed);
        let kept = self.state.ready.entry((plan.uid, k)).or_default();
        if kept.len() >= KEPT_SHAPES {
            kept.remove(0);
        }
        kept.push(stage);
        done
    }

    /// The stage at these shapes, found or made.
    fn take_ready(
        &mut self,
        plan: &Plan,
        k: usize,
        stage: &Stage,
        key: Vec<Seen>,
        externals: &[External],
    ) -> Result<Kept> {
        let kept = self.state.ready.entry((plan.uid, k)).or_default();
        let found = kept.iter().rposition(|r| r.key.iter().zip(&key).all(|(a, b)| a.same(b)));
        if let Some(i) = found {
            return Ok(kept.remove(i));
        }
        let ready = Ready::new(self.engine, plan, |each| specialize_stage(plan, stage, externals, each))?;
        Ok(Kept { key, ready })
    }

    fn run_ready(
        &mut self,
        plan: &Plan,
        ready: &mut Ready,
        env: &mut Env,
        outputs: &mut dyn Outputs,
        placed: &mut [Option<u64>],
    ) -> Result<()> {
        let g = &plan.graph;
        if ready.shape.arena_bytes > self.state.arena.bytes() {
            // Earlier stages may still use the old arena.
            if let DeviceRef::Cuda(cuda) = &self.state.device {
                cuda.synchronize()?;
            }
            self.state.arena = Buffer::new(&self.state.device, ready.shape.arena_bytes)?;
        }
        // Memory for what leaves the stage: an output's own, where the value is one.
        let mut roots: HashMap<ValueId, Var> = HashMap::new();
        for e in &ready.shape.escapes {
            let Loc::Var(root) = e.at else { continue };
            if env[root.idx()].is_some() || roots.contains_key(&root) {
                continue;
            }
            let port = g.outputs().iter().position(|p| p.value == e.value);
            let given = match port.filter(|i| placed[*i].is_none()) {
                Some(i) => {
                    let address = outputs.address(i, &e.desc)?;
                    placed[i] = address;
                    address
                }
                None => None,
            };
            let var = match given {
                Some(address) => Var::at(e.desc.clone(), address),
                None => self.fresh(e.desc.clone())?,
            };
            roots.insert(root, var);
        }
        let (arena, uploads) = (self.state.arena.ptr(), ready.uploads.as_ref().map_or(0, |b| b.ptr()));
        let engine = self.engine;
        let resolve = |l: &Loc| -> Result<u64> {
            Ok(match l {
                Loc::None => 0,
                Loc::Arena(at) => arena + *at as u64,
                Loc::Upload(at) => uploads + *at as u64,
                Loc::Const(n) => engine.const_address(*n),
                Loc::Var(v) => {
                    let var = env[v.idx()].as_ref().or_else(|| roots.get(v));
                    var.and_then(|v| v.address).ok_or_else(|| internal!("value {} has no memory", v.0))?
                }
                Loc::Input(_) | Loc::Output(_) => return Err(internal!("a port in a stage")),
            })
        };
        // As a number, so that the steps may run inside of the CPU's pool.
        let (stream, times) = (self.stream as usize, self.times.clone());
        let device = self.state.device.clone();
        let _current = match &device {
            DeviceRef::Cuda(cuda) => Some(cuda.enter()?),
            _ => None,
        };
        let mut run = || -> Result<()> {
            for (s, e) in ready.shape.steps.iter().zip(&mut ready.exec) {
                let ins = s.inputs.iter().map(&resolve).collect::<Result<Vec<u64>>>()?;
                let outs = s.outputs.iter().map(&resolve).collect::<Result<Vec<u64>>>()?;
                let node = g.node(plan.steps[s.step].node);
                let work = arena + s.work as u64;
                let stream = stream as RawStream;
                let timed = |f: &mut dyn FnMut() -> Result<()>| time_step(&device, stream, &times, &node.name, f);
                timed(&mut || match &mut *e {
                    StepExec::Cpu(_) | StepExec::Reference(..) => {
                        let ins: Vec<*const u8> = ins.iter().map(|a| *a as *const u8).collect();
                        let outs: Vec<*mut u8> = outs.iter().map(|a| *a as *mut u8).collect();
                        let args = CpuArgs { inputs: &ins, outputs: &outs, work: work as *mut u8 };
                        match &*e {
                            // SAFETY: every operand has memory of its size.
                            StepExec::Cpu(step) => unsafe { step.run(&args) },
                            // SAFETY: as above.
                            StepExec::Reference(node, p) => unsafe { run_reference(node, p, &args)? },
                            _ => {}
                        }
                        Ok(())
                    }
                    StepExec::Nothing => Ok(()),
                    // SAFETY: as above.
                    step => unsafe { step.run_on_stream(&StepAddresses { inputs: &ins, outputs: &outs, work }, stream) },
                })
                .with_context(|| format!("step {:?}", node.name))?;
            }
            Ok(())
        };
        match &device {
            DeviceRef::Cpu(_) => CpuDevice::install(run)?,
            _ => run()?,
        }
        let mut made = Vec::new();
        for e in &ready.shape.escapes {
            let mut var = match e.at {
                Loc::Var(root) => {
                    let of = env[root.idx()].as_ref().or_else(|| roots.get(&root));
                    let of = of.ok_or_else(|| internal!("value {} has no memory", root.0))?;
                    Var { desc: e.desc.clone(), address: of.address, host: None, keep: of.keep.clone() }
                }
                Loc::Const(n) => Var::at(e.desc.clone(), engine.const_address(n)),
                _ => Var { desc: e.desc.clone(), address: None, host: None, keep: Keep::Outside },
            };
            var.host = e.host.clone();
            ensure!(var.address.is_some() || var.host.is_some(), Internal, "value {:?} is nowhere", g.value(e.value).name);
            made.push((e.value, var));
        }
        for (v, var) in made {
            env[v.idx()] = Some(var);
        }
        Ok(())
    }

    // ---- nodes that decide shapes -------------------------------------------------------------------------------

    fn node(&mut self, plan: &Plan, step: usize, env: &mut Env) -> Result<()> {
        let step = &plan.steps[step];
        let node = plan.graph.node(step.node);
        let mut ins = Vec::new();
        for v in &node.inputs {
            ins.push(match v {
                None => None,
                Some(v) => Some(self.var(plan, env, *v)?),
            });
        }
        let at = || format!("{} {:?}", node.op.name(), node.name);
        let out = match &step.kind {
            StepKind::Control(plans) => control::run(self, node, plans, ins).with_context(at)?,
            StepKind::Counted(Some(t)) if !t.kernels.is_empty() => {
                let mut out = Vec::new();
                let (device, stream, times) = (self.state.device.clone(), self.stream, self.times.clone());
                time_step(&device, stream, &times, &node.name, &mut || {
                    out = super::counted::run(self, node, t, &mut ins)?;
                    Ok(())
                })
                .with_context(at)?;
                out
            }
            StepKind::Counted(_) => {
                let start = Instant::now();
                let mut tensors = Vec::new();
                for v in &mut ins {
                    tensors.push(v.as_mut().map(|v| self.to_host(v)).transpose()?);
                }
                let out = eval_node(node, &tensors)?;
                if let Some(t) = &self.times {
                    t.report(&node.name, start.elapsed().as_secs_f32() * 1e3);
                }
                out.into_iter().map(|t| Var::of_host(Arc::new(t))).collect()
            }
            _ => return Err(internal!("{}: not a dynamic step", at())),
        };
        ensure!(out.len() == node.outputs.len(), Internal, "{}: {} results", at(), out.len());
        for (v, var) in node.outputs.iter().zip(out) {
            env[v.idx()] = Some(var);
        }
        Ok(())
    }
}

/// Runs one step, and reports how long it took when somebody listens; the device is waited for then.
fn time_step(
    device: &DeviceRef,
    stream: RawStream,
    times: &Option<Arc<dyn LayerTimes>>,
    name: &str,
    f: &mut dyn FnMut() -> Result<()>,
) -> Result<()> {
    let Some(times) = times else { return f() };
    let wait = || match device {
        // SAFETY: the application's stream.
        DeviceRef::Cuda(_) => unsafe { device.stream_synchronize(stream) },
        _ => Ok(()),
    };
    wait()?;
    let start = Instant::now();
    f()?;
    wait()?;
    times.report(name, start.elapsed().as_secs_f32() * 1e3);
    Ok(())
}

/// The error of an output whose size is known only when it is there.
pub(super) fn needs_room(name: &str) -> crate::base::Error {
    err!(
        InvalidState,
        "the shape of output {name:?} depends on the data: bind it with a capacity, or set an output allocator for it"
    )
}
