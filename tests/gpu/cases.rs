//! Every tactic of every shared case on the device, for fixed and for dynamic shapes, against the reference.

use super::{Gpu, Memory, Stream, gpu, have_nvrtc};
use crate::ops::cases::{self, Case};
use crate::ops::steps::{assert_close, eval, infer, problem};
use sinter::base::Tensor;
use sinter::device::cuda::kernel_cache::{arch_of, compile_each};
use sinter::device::{Device, DeviceRef};
use sinter::engine::image::KernelImage;
use sinter::ops::{KernelSpec, Problem, Tactic, TacticOptions};
use sinter::runtime::exec::{CudaStep, StepAddresses};
use sinter::runtime::kernels::LoadedKernels;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

/// Bytes around each output that must stay as they are.
const GUARD: usize = 256;
/// What a kernel leaves out shows as a pattern that no result has.
const POISON: u8 = 0xa5;

/// The outputs of one tactic; an error is the device's own.
fn run(gpu: &Gpu, c: &Case, p: &Problem, t: &Tactic, kernels: &LoadedKernels) -> Result<Vec<Tensor>, String> {
    let device = &gpu.device;
    let program = c.op.def().cuda_program(t, p, device.props()).map_err(|e| e.to_string())?;
    let mut step = CudaStep::new(device, program, t, kernels).map_err(|e| e.to_string())?;
    let inputs: Vec<Option<Memory<'_>>> =
        c.inputs.iter().map(|x| x.as_ref().map(|x| Memory::of::<u8>(device, x.bytes()))).collect();
    let outputs: Vec<Memory<'_>> =
        p.outputs.iter().map(|d| Memory::of::<u8>(device, &vec![POISON; d.bytes() + 2 * GUARD])).collect();
    let work = Memory::of::<u8>(device, &vec![POISON; step.work_bytes]);
    let at = StepAddresses {
        inputs: &inputs.iter().map(|m| m.as_ref().map_or(0, |m| m.ptr)).collect::<Vec<_>>(),
        outputs: &outputs.iter().map(|m| m.ptr + GUARD as u64).collect::<Vec<_>>(),
        work: work.ptr,
    };
    let stream = Stream::new(device);
    let _current = device.enter().map_err(|e| e.to_string())?;
    // Twice: what the first run leaves in the workspace must not matter.
    for _ in 0..2 {
        // SAFETY: all memory is as large as the problem says and lives until the stream is drained below.
        unsafe { step.run(&at, stream.raw) }.map_err(|e| e.to_string())?;
    }
    // SAFETY: the stream lives.
    unsafe { device.stream_synchronize(stream.raw) }.map_err(|e| e.to_string())?;
    let read = |(m, d): (&Memory<'_>, &sinter::ops::TensorDesc)| {
        let bytes = m.read::<u8>(stream.raw);
        let (body, end) = bytes[GUARD..].split_at(d.bytes());
        let untouched = bytes[..GUARD].iter().chain(end).all(|b| *b == POISON);
        assert!(untouched, "the step wrote outside of an output");
        Tensor::from_bytes(d.dtype, &d.dims, body).map_err(|e| e.to_string())
    };
    outputs.iter().zip(&p.outputs).map(read).collect()
}

/// The tactics of all cases that have any.
fn work<'a>(gpu: &Gpu, list: &'a [Case]) -> Vec<(&'a Case, Problem, Tactic)> {
    let mut work = Vec::new();
    cases::for_each("tactics", list, |c| {
        if infer(&c.op, &c.inputs).map_err(|e| e.to_string())?.iter().any(|f| !f.shape.is_concrete()) {
            return Ok(());
        }
        let p = problem(&c.op, &c.inputs, &c.op.def().host_inputs()).map_err(|e| e.to_string())?;
        if p.outputs.iter().all(|d| d.numel() == 0) {
            return Ok(());
        }
        let before = work.len();
        for dynamic in [false, true] {
            let opt = TacticOptions { dynamic, ..TacticOptions::default() };
            for t in c.op.def().cuda_tactics(&p, gpu.device.props(), &opt) {
                work.push((c, p.clone(), t));
            }
        }
        if work.len() == before {
            eprintln!("host fallback: {}: {}", c.op.name(), c.name);
        }
        Ok(())
    });
    work
}

#[test]
fn every_tactic_of_every_case_agrees_with_the_reference() {
    let Some(gpu) = gpu() else { return };
    if !have_nvrtc() {
        return;
    }
    let list = cases::all();
    let work = work(&gpu, &list);
    let mut specs: Vec<KernelSpec> = work.iter().flat_map(|(_, _, t)| t.kernels.clone()).collect();
    specs.sort_by_cached_key(|k| format!("{k:?}"));
    specs.dedup();
    let mut wrong = Vec::new();
    let mut images = Vec::new();
    for (r, spec) in compile_each(&specs, &arch_of(gpu.device.props().sm), 0).into_iter().zip(&specs) {
        match r {
            Ok(cubin) => images.push(KernelImage {
                spec: spec.clone(),
                entry: cubin.entry.clone(),
                cubin: Arc::new(cubin.bytes.clone()),
            }),
            Err(e) => wrong.push(format!("{} {:?}: {e}", spec.file, spec.defines)),
        }
    }
    let kernels = LoadedKernels::load_images(&DeviceRef::Cuda(gpu.device.clone()), &images).unwrap();
    for (c, p, t) in &work {
        let what = format!("{}: {} by {}", c.op.name(), c.name, t.name);
        let checked = catch_unwind(AssertUnwindSafe(|| {
            let want = eval(&c.op, &c.inputs).map_err(|e| e.to_string())?;
            let got = run(&gpu, c, p, t, &kernels)?;
            for (i, (g, w)) in got.iter().zip(&want).enumerate() {
                assert_close(&format!("output {i}"), g, w, c.tolerance);
            }
            Ok::<(), String>(())
        }));
        match checked {
            Ok(Ok(())) => {}
            Ok(Err(e)) => {
                wrong.push(format!("{what}: {e}"));
                // After a fault in a kernel the device answers nothing any more.
                if gpu.device.synchronize().is_err() {
                    wrong.push("the device is lost; what follows was not run".into());
                    break;
                }
            }
            Err(panic) => {
                let text = panic.downcast_ref::<String>().cloned().unwrap_or_else(|| "a panic".into());
                wrong.push(format!("{what}: {text}"));
            }
        }
    }
    eprintln!("{} cases, {} tactics, {} kernels", list.len(), work.len(), images.len());
    let text = wrong.iter().take(80).cloned().collect::<Vec<_>>().join("\n");
    assert!(wrong.is_empty(), "{} are wrong:\n{text}", wrong.len());
    assert!(!work.is_empty());
}
