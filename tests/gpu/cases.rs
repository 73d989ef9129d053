//! Every tactic of every shared case on the device, for fixed and for dynamic shapes, against the reference.

use super::{Gpu, Memory, Stream, gpu, have_nvrtc};
use crate::ops::cases::{self, Case};
use crate::ops::steps::{assert_close, eval, infer, problem, problem_of_outputs};
use sinter::base::Tensor;
use sinter::device::cuda::kernel_cache::{arch_of, compile_each};
use sinter::device::{Device, DeviceRef};
use sinter::engine::image::KernelImage;
use sinter::ops::{Arg, DeviceOp, KernelSpec, Problem, StepProgram, Tactic, TacticOptions};
use sinter::runtime::exec::{CudaStep, StepAddresses};
use sinter::runtime::kernels::LoadedKernels;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Bytes around each output that must stay as they are.
const GUARD: usize = 256;
/// What a kernel leaves out shows as a pattern that no result has.
const POISON: u8 = 0xa5;

/// The numbers of a counting program as outputs behind the node's own.
fn as_outputs(mut program: StepProgram, n_outputs: usize) -> StepProgram {
    let fix = |a: &mut Arg| {
        if let Arg::Count(k) = a {
            *a = Arg::Out(n_outputs + *k);
        }
    };
    for op in &mut program.ops {
        match op {
            DeviceOp::Launch(l) => l.args.iter_mut().for_each(fix),
            DeviceOp::Copy { dst, src, .. } => [dst, src].into_iter().for_each(fix),
            DeviceOp::Fill { dst, .. } => fix(dst),
            DeviceOp::Gemm(_) => {}
        }
    }
    program
}

/// Runs the counting program of a data-dependent operator and checks the shapes that follow from its numbers.
fn count(
    gpu: &Gpu,
    c: &Case,
    p: &Problem,
    t: &Tactic,
    kernels: &LoadedKernels,
    (inputs, work, stream): (&[u64], &Memory<'_>, &Stream),
) -> Result<(), String> {
    let def = c.op.def();
    let facts = infer(&c.op, &c.inputs).map_err(|e| e.to_string())?;
    let mut open = p.clone();
    for (d, f) in open.outputs.iter_mut().zip(facts) {
        d.dims = f.shape.iter().map(|d| d.as_const().unwrap_or(0) as usize).collect();
    }
    let n_out = p.outputs.len();
    let program = def.count_program(t, &open, gpu.device.props()).map_err(|e| e.to_string())?;
    let mut step = CudaStep::new(&gpu.device, as_outputs(program, n_out), t, kernels).map_err(|e| e.to_string())?;
    assert!(step.work_bytes <= work.bytes, "counting needs {} bytes of scratch", step.work_bytes);
    let numbers = Memory::of::<u8>(&gpu.device, &vec![POISON; 8 * def.n_counts()]);
    let mut outputs = vec![0u64; n_out];
    outputs.extend((0..def.n_counts()).map(|k| numbers.ptr + 8 * k as u64));
    let at = StepAddresses { inputs, outputs: &outputs, work: work.ptr };
    // SAFETY: all memory is as large as the problem says and lives until the numbers are read.
    unsafe { step.run(&at, stream.raw) }.map_err(|e| e.to_string())?;
    let shapes = def.counted_shapes(&open, &numbers.read::<i64>(stream.raw)).map_err(|e| e.to_string())?;
    let want: Vec<Vec<usize>> = p.outputs.iter().map(|d| d.dims.clone()).collect();
    assert_eq!(shapes, want, "counted shapes");
    Ok(())
}

/// The outputs of one tactic; an error is the device's own.
fn run(gpu: &Gpu, c: &Case, p: &Problem, t: &Tactic, kernels: &LoadedKernels) -> Result<Vec<Tensor>, String> {
    let device = &gpu.device;
    let program = c.op.def().cuda_program(t, p, device.props()).map_err(|e| e.to_string())?;
    let mut step = CudaStep::new(device, program, t, kernels).map_err(|e| e.to_string())?;
    let inputs: Vec<Option<Memory<'_>>> =
        c.inputs.iter().map(|x| x.as_ref().map(|x| Memory::of::<u8>(device, x.bytes()))).collect();
    let outputs: Vec<Memory<'_>> =
        p.outputs.iter().map(|d| Memory::of::<u8>(device, &vec![POISON; d.bytes() + 2 * GUARD])).collect();
    // Counting decides how much scratch both phases have.
    let mut work_bytes = step.work_bytes;
    if c.op.def().is_data_dependent() {
        let program = c.op.def().count_program(t, p, device.props()).map_err(|e| e.to_string())?;
        assert!(work_bytes <= program.workspace, "writing needs more scratch than counting");
        work_bytes = program.workspace;
    }
    let work = Memory::of::<u8>(device, &vec![POISON; work_bytes]);
    let addresses: Vec<u64> = inputs.iter().map(|m| m.as_ref().map_or(0, |m| m.ptr)).collect();
    let at = StepAddresses {
        inputs: &addresses,
        outputs: &outputs.iter().map(|m| m.ptr + GUARD as u64).collect::<Vec<_>>(),
        work: work.ptr,
    };
    let stream = Stream::new(device);
    let _current = device.enter().map_err(|e| e.to_string())?;
    // Twice: what the first run leaves in the workspace must not matter.
    for _ in 0..2 {
        if c.op.def().is_data_dependent() {
            count(gpu, c, p, t, kernels, (&addresses, &work, &stream))?;
        }
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
        let p = if c.op.def().is_data_dependent() {
            problem_of_outputs(c, &eval(&c.op, &c.inputs).map_err(|e| e.to_string())?)
        } else if infer(&c.op, &c.inputs).map_err(|e| e.to_string())?.iter().any(|f| !f.shape.is_concrete()) {
            return Ok(());
        } else {
            problem(&c.op, &c.inputs, &c.known()).map_err(|e| e.to_string())?
        };
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
            Ok(cubin) => images.push(KernelImage::new(spec, &cubin.entry, cubin.bytes.clone())),
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
