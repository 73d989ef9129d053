//! The ways that a case is taken through.

use crate::RUN_BYTES;
use once_cell::sync::Lazy;
use sinter::base::{DType, Tensor};
use sinter::builder::{BuilderConfig, build};
use sinter::device::{DeviceKind, DeviceRef};
use sinter::engine::{BuildOptions, Engine, OtherDevice};
use sinter::network::Graph;
use sinter::onnx::importer::import_bytes;
use sinter::runtime::{Context, GrowingOutput};
use std::sync::Arc;

/// How far a case came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    Rejected,
    /// Read, but not built or loaded.
    Read,
    /// Loaded; too large for a context, or its shapes were refused.
    Loaded,
    /// Shapes were set.
    Shaped,
    /// Executed on the CPU.
    Ran,
}

/// Work that a case may cause when it is executed.
const RUN_FLOPS: f64 = 2e7;

static CPU: Lazy<DeviceRef> = Lazy::new(|| DeviceRef::open(DeviceKind::Cpu).expect("the CPU is always there"));
static NULL: Lazy<DeviceRef> = Lazy::new(|| DeviceRef::open(DeviceKind::Null).expect("and so is nothing"));

/// A model's bytes, all the way.
pub fn model(bytes: &[u8], seed: u64) -> Outcome {
    let Ok(graph) = import_bytes(bytes.to_vec(), None) else { return Outcome::Rejected };
    graph.verify().expect("an imported graph is sound");
    let options = BuildOptions { fp16: seed % 8 == 1, ..BuildOptions::default() };
    let config = BuilderConfig { options, ..BuilderConfig::default() };
    let device = if seed % 4 == 1 { &*NULL } else { &*CPU };
    let Ok(image) = build(&graph, &config, device, &mut |_, _| true) else { return Outcome::Read };
    let Ok(engine) = Engine::load(image, device, OtherDevice::Error) else { return Outcome::Read };
    shaped(&engine, seed)
}

/// An engine file's bytes, on both devices.
pub fn engine(bytes: &[u8], seed: u64) -> Outcome {
    let null = match Engine::from_bytes(bytes, &NULL, OtherDevice::Error) {
        Ok(e) => shaped(&e, seed),
        Err(_) => Outcome::Rejected,
    };
    let cpu = match Engine::from_bytes(bytes, &CPU, OtherDevice::Error) {
        Ok(e) => shaped(&e, seed),
        Err(_) => Outcome::Rejected,
    };
    null.max(cpu)
}

/// Bytes of all values of a graph when each open dimension is `open`; `None` when that overflows.
fn value_bytes(g: &Graph, open: i64) -> Option<usize> {
    let mut total = 0usize;
    for v in g.value_ids() {
        let f = g.fact(v);
        let mut names = std::collections::BTreeMap::new();
        f.shape.iter().for_each(|d| d.symbols(&mut |s| { names.insert(s.clone(), open); }));
        let n = f.shape.iter().try_fold(f.dtype.size(), |n, d| {
            n.checked_mul(usize::try_from(d.bind(&names).as_const().unwrap_or(open)).ok()?)
        })?;
        total = total.checked_add(n)?;
    }
    Some(total)
}

/// Makes a context, sets shapes and runs what is tiny.
fn shaped(engine: &Arc<Engine>, seed: u64) -> Outcome {
    let open = [1i64, 2, 3, 0][(seed / 7 % 4) as usize];
    let small = |g: &Graph| [open, 4].iter().all(|o| value_bytes(g, *o).is_some_and(|b| b <= RUN_BYTES));
    if !small(engine.graph()) || !small(&engine.plan.graph) || !engine.profiles().iter().all(|p| !p.is_bounded() || fits(p)) {
        return Outcome::Loaded;
    }
    let Ok(mut cx) = Context::new(engine) else { return Outcome::Loaded };
    let io = engine.io_tensors();
    let mut memory: Vec<Tensor> = Vec::new();
    for t in io.iter().filter(|t| t.is_input) {
        let dims: Vec<i64> = t.shape.iter().map(|d| d.as_const().unwrap_or(open)).collect();
        if cx.set_input_shape(&t.name, &dims).is_err() {
            return Outcome::Loaded;
        }
        let shape: Vec<usize> = dims.iter().map(|d| *d as usize).collect();
        memory.push(if t.dtype == DType::Bool { Tensor::zeros(t.dtype, &shape) } else { filled(t.dtype, &shape) });
        let address = memory.last().expect("just pushed").bytes().as_ptr() as u64;
        if cx.bind(&t.name, address).is_err() {
            return Outcome::Loaded;
        }
    }
    let mut outputs = Vec::new();
    let grown = Arc::new(GrowingOutput::new(&engine.device));
    for t in io.iter().filter(|t| !t.is_input) {
        match cx.tensor_shape(&t.name) {
            Ok(dims) => outputs.push((t, dims)),
            Err(_) if engine.plan.is_static() => return Outcome::Loaded,
            // Its shape depends on the data.
            Err(_) => cx.set_output_allocator(&t.name, Some(grown.clone())).expect("the output is there"),
        }
    }
    if !engine.plan.is_static() && !ends_soon(engine) {
        return Outcome::Shaped;
    }
    let flops = engine.image.graph.order().map_or(f64::MAX, |order| {
        let b: sinter::base::dims::Bindings = Default::default();
        let one = |n| sinter::plan::problem_of(&engine.image.graph, n, &b).map_or(0.0, |p| engine.image.graph.node(n).op.def().flops(&p));
        order.into_iter().map(one).sum()
    });
    let total: i64 = outputs.iter().map(|(_, d)| d.iter().fold(8i64, |a, b| a.saturating_mul(*b))).fold(0, i64::saturating_add);
    if engine.device.kind() != DeviceKind::Cpu || flops > RUN_FLOPS || total > RUN_BYTES as i64 {
        return Outcome::Shaped;
    }
    for (t, dims) in outputs {
        let shape: Vec<usize> = dims.iter().map(|d| *d as usize).collect();
        memory.push(Tensor::zeros(t.dtype, &shape));
        let address = memory.last_mut().expect("just pushed").bytes_mut().as_mut_ptr() as u64;
        if cx.bind(&t.name, address).is_err() {
            return Outcome::Shaped;
        }
    }
    match cx.execute() {
        Ok(()) => Outcome::Ran,
        Err(_) => Outcome::Shaped,
    }
}

/// Every loop has few turns: what a loop computes may double in each.
fn ends_soon(engine: &Engine) -> bool {
    let mut soon = true;
    engine.plan.visit(&mut |p| {
        for s in &p.steps {
            let node = p.graph.node(s.node);
            if let sinter::ops::Op::Loop(_) = node.op {
                let trips = node.inputs[0].and_then(|v| p.graph.as_const(v)).map(|t| t.to_i64s());
                soon &= trips.is_some_and(|t| t.iter().all(|n| *n <= 8));
            }
        }
    });
    soon
}

fn fits(p: &sinter::plan::Profile) -> bool {
    p.inputs.values().all(|r| r.max.iter().fold(8i64, |a, b| a.saturating_mul(*b)) <= RUN_BYTES as i64)
}

/// Ones and twos: small enough for inputs that give shapes.
fn filled(dtype: DType, shape: &[usize]) -> Tensor {
    let n: usize = shape.iter().product();
    let data: Vec<i64> = (0..n as i64).map(|i| 1 + i % 2).collect();
    Tensor::from_slice(shape, &data).cast(dtype)
}
