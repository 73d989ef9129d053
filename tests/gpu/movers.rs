//! Data movers, reductions, softmax and resize on the device: every tactic of every shared case, for fixed and for
//! dynamic shapes, against the reference.

#[path = "../ops/mover_cases.rs"]
mod mover_cases;
#[path = "../ops/node.rs"]
#[allow(dead_code)]
mod node;
#[path = "../ops/steps.rs"]
#[allow(dead_code)]
mod steps;

use super::{Gpu, Memory, Stream, gpu, have_nvrtc};
use mover_cases::Case;
use sinter::base::Tensor;
use sinter::device::cuda::kernel_cache::{arch_of, compile_each};
use sinter::device::{Device, DeviceRef};
use sinter::engine::image::KernelImage;
use sinter::ops::{KernelSpec, Problem, Tactic, TacticOptions};
use sinter::runtime::exec::{CudaStep, StepAddresses};
use sinter::runtime::kernels::LoadedKernels;
use std::sync::Arc;
use steps::{assert_close, eval, problem};

fn run(gpu: &Gpu, c: &Case, p: &Problem, t: &Tactic, kernels: &LoadedKernels) -> Tensor {
    let device = &gpu.device;
    let program = c.op.def().cuda_program(t, p, device.props()).unwrap_or_else(|e| panic!("{}: {}: {e}", c.name, t.name));
    let mut step = CudaStep::new(device, program, t, kernels).unwrap_or_else(|e| panic!("{}: {}: {e}", c.name, t.name));
    let inputs: Vec<Option<Memory<'_>>> =
        c.inputs.iter().map(|x| x.as_ref().map(|x| Memory::of::<u8>(device, x.bytes()))).collect();
    // What a kernel leaves out shows as a pattern that no result has.
    let d = &p.outputs[0];
    let output = Memory::of::<u8>(device, &vec![0xA5; d.bytes()]);
    let work = Memory::new(device, step.work_bytes);
    let at = StepAddresses {
        inputs: &inputs.iter().map(|m| m.as_ref().map_or(0, |m| m.ptr)).collect::<Vec<_>>(),
        outputs: &[output.ptr],
        work: work.ptr,
    };
    let stream = Stream::new(device);
    let _current = device.enter().unwrap();
    // SAFETY: all memory is as large as the problem says and lives until the stream is drained by `read`.
    unsafe { step.run(&at, stream.raw) }.unwrap_or_else(|e| panic!("{}: {}: {e}", c.name, t.name));
    Tensor::from_bytes(d.dtype, &d.dims, &output.read::<u8>(stream.raw)).unwrap()
}

fn check(cases: Vec<Case>) {
    let Some(gpu) = gpu() else { return };
    if !have_nvrtc() {
        return;
    }
    let mut work: Vec<(&Case, Problem, Tactic)> = Vec::new();
    for c in &cases {
        let p = problem(&c.op, &c.inputs, &c.op.def().host_inputs()).unwrap();
        if p.outputs[0].numel() == 0 {
            continue;
        }
        for dynamic in [false, true] {
            let opt = TacticOptions { dynamic, ..TacticOptions::default() };
            for t in c.op.def().cuda_tactics(&p, gpu.device.props(), &opt) {
                work.push((c, p.clone(), t));
            }
        }
    }
    let mut specs: Vec<KernelSpec> = work.iter().flat_map(|(_, _, t)| t.kernels.clone()).collect();
    specs.sort_by_cached_key(|k| format!("{k:?}"));
    specs.dedup();
    let arch = arch_of(gpu.device.props().sm);
    let images: Vec<KernelImage> = compile_each(&specs, &arch, 0)
        .into_iter()
        .zip(&specs)
        .map(|(r, spec)| {
            let cubin = r.unwrap_or_else(|e| panic!("{spec:?}: {e}"));
            KernelImage { spec: spec.clone(), entry: cubin.entry.clone(), cubin: Arc::new(cubin.bytes.clone()) }
        })
        .collect();
    let kernels = LoadedKernels::load_images(&DeviceRef::Cuda(gpu.device.clone()), &images).unwrap();
    for (c, p, t) in &work {
        let want = eval(&c.op, &c.inputs).unwrap();
        let got = run(&gpu, c, p, t, &kernels);
        assert_close(&format!("{} by {}", c.name, t.name), &got, &want[0], c.tolerance);
    }
    assert!(!work.is_empty());
}

#[test]
fn movers_move_what_the_reference_moves() {
    check(mover_cases::movers());
}

#[test]
fn reductions_agree_with_the_reference() {
    check(mover_cases::reductions());
}

#[test]
fn resizes_agree_with_the_reference() {
    check(mover_cases::resizes());
}
