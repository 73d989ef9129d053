//! Timing candidates on a CUDA device.
//!
//! Each candidate runs on random data in memory of its own: a few warm-up runs, then several batches between two
//! events; the fastest batch counts, since everything that disturbs a run makes it slower.

use crate::base::{DType, ErrorCode, Result};
use crate::device::cuda::CudaDevice;
use crate::device::{Buffer, Device, DeviceRef};
use crate::network::Node;
use crate::ops::{Problem, Tactic, TensorDesc};
use crate::runtime::exec::{CudaStep, StepAddresses};
use crate::runtime::kernels::LoadedKernels;
use crate::{log_verbose, log_warn};
use std::sync::Arc;

const WARM_UP: usize = 2;
const BATCHES: usize = 3;
const RUNS: usize = 8;

/// Index of the fastest candidate. One that fails to run is passed over with a warning; when all fail, the error of the
/// first is returned.
pub fn fastest(
    cuda: &Arc<CudaDevice>,
    node: &Node,
    problem: &Problem,
    candidates: &[Tactic],
    kernels: &LoadedKernels,
) -> Result<usize> {
    let def = node.op.def();
    // What the host reads at run time decides the launches, so there is nothing to time before.
    let unknown = def.host_inputs().into_iter().any(|i| problem.input(i).is_some() && problem.known(i).is_none());
    if candidates.len() == 1 || unknown || def.is_data_dependent() || problem.outputs.iter().all(|o| o.numel() == 0) {
        return Ok(0);
    }
    let device = DeviceRef::Cuda(cuda.clone());
    let stream = cuda.stream_create()?;
    let result = Operands::new(&device, problem).and_then(|ops| {
        let mut best: Option<(usize, f32)> = None;
        let mut first_error = None;
        for (i, t) in candidates.iter().enumerate() {
            match time(cuda, &device, node, problem, t, kernels, &ops, stream) {
                Ok(ms) => {
                    log_verbose!("{:?}: {} {:.2} us", node.name, t.name, ms * 1e3);
                    if best.is_none_or(|(_, b)| ms < b) {
                        best = Some((i, ms));
                    }
                }
                Err(e) => {
                    log_warn!("{:?}: tactic {} cannot be used: {e}", node.name, t.name);
                    first_error.get_or_insert(e);
                }
            }
        }
        match (best, first_error) {
            (Some((i, _)), _) => Ok(i),
            // Sizes that are not known yet were guessed, and the guess may be one that cannot be.
            (None, Some(e)) if e.code == ErrorCode::InvalidArgument => {
                log_verbose!("{:?}: not timed: {e}", node.name);
                Ok(0)
            }
            (None, Some(e)) => Err(e),
            (None, None) => Ok(0),
        }
    });
    // SAFETY: made above, destroyed once.
    unsafe { cuda.stream_destroy(stream)? };
    result
}

#[allow(clippy::too_many_arguments)]
fn time(
    cuda: &Arc<CudaDevice>,
    device: &DeviceRef,
    node: &Node,
    problem: &Problem,
    tactic: &Tactic,
    kernels: &LoadedKernels,
    ops: &Operands,
    stream: crate::device::RawStream,
) -> Result<f32> {
    let program = node.op.def().cuda_program(tactic, problem, cuda.props())?;
    let mut step = CudaStep::new(cuda, program, tactic, kernels)?;
    let work = Buffer::new(device, step.work_bytes)?;
    let at = StepAddresses { inputs: &ops.inputs, outputs: &ops.outputs, work: work.ptr() };
    let (start, end) = (cuda.event_create(true)?, cuda.event_create(true)?);
    let mut run = || -> Result<f32> {
        let _current = cuda.enter()?;
        let mut best = f32::INFINITY;
        // SAFETY: operands and scratch are as large as the problem says; stream and events are ours.
        unsafe {
            for _ in 0..WARM_UP {
                step.run(&at, stream)?;
            }
            for _ in 0..BATCHES {
                cuda.event_record(start, stream)?;
                for _ in 0..RUNS {
                    step.run(&at, stream)?;
                }
                cuda.event_record(end, stream)?;
                cuda.event_synchronize(end)?;
                best = best.min(cuda.event_elapsed_ms(start, end)? / RUNS as f32);
            }
        }
        Ok(best)
    };
    let ms = run();
    // SAFETY: nothing is pending after the synchronization; after an error the stream is drained first.
    unsafe {
        cuda.stream_synchronize(stream)?;
        cuda.event_destroy(start)?;
        cuda.event_destroy(end)?;
    }
    ms
}

/// Device memory for a problem's operands, inputs filled with random numbers.
struct Operands {
    inputs: Vec<u64>,
    outputs: Vec<u64>,
    _memory: Vec<Buffer>,
}

impl Operands {
    fn new(device: &DeviceRef, p: &Problem) -> Result<Operands> {
        let mut memory = Vec::new();
        let mut inputs = Vec::new();
        for (i, d) in p.inputs.iter().enumerate() {
            let Some(d) = d else {
                inputs.push(0);
                continue;
            };
            let b = Buffer::new(device, d.bytes())?;
            let block = match p.known(i) {
                Some(t) => t.bytes().to_vec(),
                None => random_bytes(d),
            };
            // The block repeats until the operand is full.
            let step = block.len().max(1);
            let parts = (0..d.bytes()).step_by(step).filter(|_| !block.is_empty());
            // SAFETY: inside the buffer.
            unsafe { device.upload(parts.map(|at| (b.ptr() + at as u64, &block[..step.min(d.bytes() - at)])))? };
            inputs.push(b.ptr());
            memory.push(b);
        }
        let mut outputs = Vec::new();
        for d in &p.outputs {
            let b = Buffer::new(device, d.bytes())?;
            outputs.push(b.ptr());
            memory.push(b);
        }
        Ok(Operands { inputs, outputs, _memory: memory })
    }
}

/// Up to 1 MiB of random elements: floats in [-1, 1), integers 0 and 1 (legal as indices into any axis longer than 1).
fn random_bytes(d: &TensorDesc) -> Vec<u8> {
    let n = d.numel().min((1 << 20) / d.dtype.size());
    let mut x = 0x9e3779b97f4a7c15u64;
    let mut next = || {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        x
    };
    let mut out = Vec::with_capacity(n * d.dtype.size());
    for _ in 0..n {
        let r = next();
        let f = (r >> 40) as f32 / (1u64 << 23) as f32 - 1.0;
        match d.dtype {
            DType::F32 => out.extend(f.to_le_bytes()),
            DType::F64 => out.extend((f as f64).to_le_bytes()),
            DType::F16 => out.extend(half::f16::from_f32(f).to_le_bytes()),
            DType::BF16 => out.extend(half::bf16::from_f32(f).to_le_bytes()),
            t => {
                let mut bytes = [0u8; 8];
                bytes[0] = (r & 1) as u8;
                out.extend(&bytes[..t.size()]);
            }
        }
    }
    out
}
