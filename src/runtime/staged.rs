//! One execution of a plan that runs in stages.
//!
//! On CUDA the call returns when the host has driven the last stage; on a stream of the CPU device everything is one job.
//! The event for consumed inputs is recorded at the end.

use super::LayerTimes;
use super::context::{Context, OutputSlot, check_address};
use super::dynamic::{Outputs, Runner, State, Var, needs_room};
use crate::base::{Dim, Result};
use crate::device::{DeviceRef, RawEvent, RawStream};
use crate::engine::Engine;
use crate::ops::TensorDesc;
use crate::{ensure, err};
use parking_lot::Mutex;
use std::sync::Arc;

impl OutputSlot {
    /// The address for an output of this type and shape: asked for, or bound and large enough.
    pub(super) fn settle(&mut self, name: &str, d: &TensorDesc) -> Result<()> {
        if let Some(a) = &self.allocator {
            let dims: Vec<i64> = d.dims.iter().map(|d| *d as i64).collect();
            let address = a.allocate(name, &dims, d.bytes());
            let address = address.ok_or_else(|| err!(OutOfMemory, "the allocator of output {name:?} gave nothing for {d}"))?;
            self.address = Some(address);
        } else if let Some(capacity) = self.capacity {
            ensure!(
                d.bytes() <= capacity,
                InvalidState,
                "output {name:?} is {d}, {} bytes; {capacity} are bound to it",
                d.bytes()
            );
        }
        Ok(())
    }
}

/// What an execution takes with it: it may run on another thread.
struct Execution {
    engine: Arc<Engine>,
    state: Arc<Mutex<State>>,
    inputs: Vec<(TensorDesc, u64)>,
    outputs: Vec<OutputSlot>,
    shapes: Arc<Mutex<Vec<Option<Vec<i64>>>>>,
    times: Option<Arc<dyn LayerTimes>>,
}

/// The application's memory.
struct Bound<'a> {
    engine: &'a Engine,
    slots: Vec<OutputSlot>,
}

impl Outputs for Bound<'_> {
    fn address(&mut self, port: usize, desc: &TensorDesc) -> Result<Option<u64>> {
        let g = &self.engine.plan.graph;
        let p = &g.outputs()[port];
        let slot = &mut self.slots[port];
        let depends = |d: &Dim| {
            let mut from_data = false;
            d.symbols(&mut |s| from_data |= s.starts_with('?'));
            from_data
        };
        let from_data = g.fact(p.value).shape.iter().any(depends);
        if from_data && slot.allocator.is_none() && slot.capacity.is_none() {
            return Err(needs_room(&p.name));
        }
        slot.settle(&p.name, desc)?;
        check_address(self.engine.device.props().is_cuda(), &p.name, desc, slot.address).map(Some)
    }
}

impl Execution {
    fn run(self, stream: RawStream) -> Result<()> {
        let mut state = self.state.lock();
        let mut runner = Runner { engine: &self.engine, state: &mut state, stream, times: self.times.clone() };
        let args = self.inputs.into_iter().map(|(d, a)| Var::at(d, a)).collect();
        let mut outputs = Bound { engine: &self.engine, slots: self.outputs };
        let out = runner.plan(&self.engine.plan, args, &mut outputs)?;
        *self.shapes.lock() = out.iter().map(|v| Some(v.desc.dims.iter().map(|d| *d as i64).collect())).collect();
        Ok(())
    }
}

impl Context {
    pub(super) fn enqueue_stages(&mut self, stream: RawStream, event: RawEvent) -> Result<()> {
        let g = &self.engine.plan.graph;
        let mut inputs = Vec::new();
        let on_gpu = self.engine.device.props().is_cuda();
        for (i, p) in g.inputs().iter().enumerate() {
            let dims = self.shape_of(i).ok_or_else(|| err!(InvalidState, "the shape of input {:?} is not set", p.name))?;
            let desc = TensorDesc { dtype: g.fact(p.value).dtype, dims: dims.iter().map(|d| *d as usize).collect() };
            let address = check_address(on_gpu, &p.name, &desc, self.inputs[i])?;
            inputs.push((desc, address));
        }
        let state = self.dynamic.clone().ok_or_else(|| crate::internal!("a plan without stages"))?;
        let run = Execution {
            engine: self.engine.clone(),
            state,
            inputs,
            outputs: self.outputs.clone(),
            shapes: self.final_shapes.clone(),
            times: self.times.clone(),
        };
        let device = self.engine.device.clone();
        match &device {
            DeviceRef::Cpu(cpu) if !stream.is_null() => {
                let waits = self.times.is_some();
                // SAFETY: the job holds all memory that it uses but for the bound addresses, which are the application's
                // promise until the stream has passed it.
                unsafe {
                    cpu.submit(stream, Box::new(move || if let Err(e) = run.run(std::ptr::null_mut()) { panic!("{e}") }))?;
                    if waits {
                        device.stream_synchronize(stream)?;
                    }
                }
            }
            DeviceRef::Null(_) => {}
            _ => run.run(stream)?,
        }
        if !event.is_null() {
            // SAFETY: the application's event and stream.
            unsafe { device.event_record(event, stream)? };
        }
        Ok(())
    }
}
