//! Convolutions, products and pooling on the device: every tactic of every shared case, by our kernels and by cuBLASLt,
//! against the reference.

use super::{Gpu, Memory, Stream, gpu, have_nvrtc};
use crate::ops::product_cases::{conv, conv_transpose, matmul, pool};
use sinter::base::{DType, Tensor};
use sinter::device::cuda::kernel_cache::{arch_of, compile_each};
use sinter::device::cuda::cublaslt;
use sinter::device::{Device, DeviceProps, DeviceRef};
use sinter::engine::image::KernelImage;
use sinter::ops::conv::Conv;
use sinter::ops::matmul::MatMul;
use sinter::ops::pointwise::{Func, Program};
use sinter::ops::window::ChannelOrder;
use sinter::ops::{KernelSpec, Op, Problem, Tactic, TacticOptions, TensorDesc};
use sinter::runtime::exec::{CudaStep, StepAddresses};
use sinter::runtime::kernels::LoadedKernels;
use crate::ops::steps::{assert_close, eval, infer, problem, random};

struct Subject {
    name: String,
    op: Op,
    inputs: Vec<Option<Tensor>>,
    tolerance: f64,
}

/// Sums in f32 (f64 for f64), rounded to the type once, or twice where an epilogue follows as a kernel of its own.
fn tolerance(dtype: DType) -> f64 {
    match dtype {
        DType::F16 => 4e-3,
        DType::BF16 => 3e-2,
        DType::F32 => 2e-4,
        DType::F64 => 1e-9,
        _ => 0.0,
    }
}

/// Epilogues that differ in how their operands are reached; a comparison would jump where sums are nearly zero.
const EPILOGUES: &[&str] = &["relu", "residual", "per channel", "per column", "four operands", "to f16"];

fn add(all: &mut Vec<Subject>, name: &str, dtype: DType, with: &dyn Fn(Option<Program>) -> Op, inputs: &[Option<Tensor>]) {
    let cast = |v: &[Option<Tensor>]| v.iter().map(|t| t.as_ref().map(|t| t.cast(dtype))).collect::<Vec<_>>();
    let tolerance = tolerance(dtype);
    all.push(Subject { name: format!("{name} {dtype}"), op: with(None), inputs: cast(inputs), tolerance });
    if !matches!(dtype, DType::F32 | DType::F16) {
        return;
    }
    let out = infer(&with(None), inputs).unwrap()[0].shape.concrete().unwrap();
    for (kind, program, shapes) in conv::epilogues(&out) {
        if !EPILOGUES.contains(&kind) || (kind == "to f16" && dtype == DType::F16) {
            continue;
        }
        let program = Program::parse(&program.to_string().replace("f32", dtype.name())).unwrap();
        let mut inputs = inputs.to_vec();
        inputs.extend(shapes.iter().enumerate().map(|(i, s)| Some(random(DType::F32, s, 20 + i as u64))));
        all.push(Subject {
            name: format!("{name} {dtype} with {kind}"),
            op: with(Some(program)),
            inputs: cast(&inputs),
            tolerance: if kind == "to f16" { self::tolerance(DType::F16) } else { tolerance },
        });
    }
}

fn run(gpu: &Gpu, s: &Subject, p: &Problem, t: &Tactic, kernels: &LoadedKernels) -> Option<Vec<Tensor>> {
    run_as(gpu, gpu.device.props(), s, p, t, kernels)
}

/// With launches as for another device.
fn run_as(
    gpu: &Gpu,
    props: &DeviceProps,
    s: &Subject,
    p: &Problem,
    t: &Tactic,
    kernels: &LoadedKernels,
) -> Option<Vec<Tensor>> {
    let device = &gpu.device;
    let what = format!("{} by {}", s.name, t.name);
    let program = s.op.def().cuda_program(t, p, props).unwrap_or_else(|e| panic!("{what}: {e}"));
    let mut step = match CudaStep::new(device, program, t, kernels) {
        // The library need not have a second algorithm.
        Err(_) if t.name.starts_with("cublaslt_1") => return None,
        step => step.unwrap_or_else(|e| panic!("{what}: {e}")),
    };
    let inputs: Vec<Option<Memory<'_>>> =
        s.inputs.iter().map(|x| x.as_ref().map(|x| Memory::of::<u8>(device, x.bytes()))).collect();
    // What a kernel leaves out shows as a pattern that no result has.
    let outputs: Vec<Memory<'_>> =
        p.outputs.iter().map(|d| Memory::of::<u8>(device, &vec![0xA5; d.bytes()])).collect();
    let work = Memory::new(device, step.work_bytes);
    let at = StepAddresses {
        inputs: &inputs.iter().map(|m| m.as_ref().map_or(0, |m| m.ptr)).collect::<Vec<_>>(),
        outputs: &outputs.iter().map(|m| m.ptr).collect::<Vec<_>>(),
        work: work.ptr,
    };
    let stream = Stream::new(device);
    let _current = device.enter().unwrap();
    // SAFETY: all memory is as large as the problem says and lives until the stream is drained by `read`.
    unsafe { step.run(&at, stream.raw) }.unwrap_or_else(|e| panic!("{what}: {e}"));
    let read = |(m, d): (&Memory<'_>, &TensorDesc)| Tensor::from_bytes(d.dtype, &d.dims, &m.read::<u8>(stream.raw)).unwrap();
    Some(outputs.iter().zip(&p.outputs).map(read).collect())
}

/// Compiles each kernel once and loads all; also how many there are.
fn load(gpu: &Gpu, mut specs: Vec<KernelSpec>) -> (LoadedKernels, usize) {
    specs.sort_by_cached_key(|k| format!("{k:?}"));
    specs.dedup();
    let images: Vec<KernelImage> = compile_each(&specs, &arch_of(gpu.device.props().sm), 0)
        .into_iter()
        .zip(&specs)
        .map(|(r, spec)| {
            let cubin = r.unwrap_or_else(|e| panic!("{spec:?}: {e}"));
            KernelImage::new(spec, &cubin.entry, cubin.bytes.clone())
        })
        .collect();
    (LoadedKernels::load_images(&DeviceRef::Cuda(gpu.device.clone()), &images).unwrap(), specs.len())
}

fn check(subjects: Vec<Subject>) {
    let Some(gpu) = gpu() else { return };
    if !have_nvrtc() {
        return;
    }
    let library = cublaslt::is_present().is_ok();
    let mut work: Vec<(&Subject, Problem, Tactic)> = Vec::new();
    for s in &subjects {
        let p = problem(&s.op, &s.inputs, &[]).unwrap_or_else(|e| panic!("{}: {e}", s.name));
        if p.outputs[0].numel() == 0 {
            continue;
        }
        let opt = TacticOptions { cublaslt: library, ..TacticOptions::default() };
        for t in s.op.def().cuda_tactics(&p, gpu.device.props(), &opt) {
            work.push((s, p.clone(), t));
        }
    }
    assert!(!work.is_empty());
    let (kernels, n_kernels) = load(&gpu, work.iter().flat_map(|(_, _, t)| t.kernels.clone()).collect());
    for (s, p, t) in &work {
        let want = eval(&s.op, &s.inputs).unwrap();
        for (got, want) in run(&gpu, s, p, t, &kernels).iter().flatten().zip(&want) {
            assert_close(&format!("{} by {}", s.name, t.name), got, want, s.tolerance);
        }
    }
    eprintln!("{} tactics of {} nodes, {} kernels", work.len(), subjects.len(), n_kernels);
}

const FLOATS: [DType; 4] = [DType::F32, DType::F16, DType::BF16, DType::F64];

#[test]
fn convolutions_agree_with_the_reference() {
    let mut all = Vec::new();
    for c in conv::cases() {
        for dtype in FLOATS {
            let with = |e| Op::from(Conv { epilogue: e, ..c.op.clone() });
            add(&mut all, c.name, dtype, &with, &conv::operands(&c, true));
        }
    }
    check(all);
}

#[test]
fn transposed_convolutions_agree_with_the_reference() {
    let mut all = Vec::new();
    for c in conv_transpose::cases() {
        for dtype in FLOATS {
            let with = |e| {
                let mut op = c.op.clone();
                op.epilogue = e;
                Op::from(op)
            };
            add(&mut all, c.name, dtype, &with, &conv_transpose::operands(&c, true));
        }
    }
    check(all);
}

#[test]
fn products_agree_with_the_reference() {
    let mut all = Vec::new();
    for c in matmul::cases() {
        let with = |e| Op::from(MatMul { epilogue: e, ..c.op.clone() });
        for dtype in FLOATS {
            add(&mut all, c.name, dtype, &with, &matmul::operands(&c, true));
        }
        if c.op.alpha == 1.0 {
            for dtype in [DType::I32, DType::U32, DType::I64, DType::U64] {
                let inputs = matmul::operands(&c, true).iter().map(|t| t.as_ref().map(|t| random(dtype, t.shape(), 7))).collect();
                all.push(Subject { name: format!("{} {dtype}", c.name), op: with(None), inputs, tolerance: 0.0 });
            }
        }
    }
    check(all);
}

#[test]
fn pools_agree_with_the_reference() {
    let mut all = Vec::new();
    for c in pool::cases() {
        for dtype in FLOATS {
            let x = Some(random(DType::F32, &c.x, 1).cast(dtype));
            all.push(Subject { name: format!("{} {dtype}", c.name), op: Op::from(c.op.clone()), inputs: vec![x], tolerance: tolerance(dtype) });
        }
    }
    check(all);
}

/// Many tiles for each block, few and many steps along k: where a buffer that is reused too early shows.
#[test]
fn every_hopper_tile_agrees_with_the_reference_when_blocks_take_many() {
    let Some(gpu) = gpu() else { return };
    if !have_nvrtc() || gpu.device.props().sm != 90 {
        return;
    }
    let mut work = Vec::new();
    for (m, n, k) in [(1, 520, 8), (650, 520, 64), (650, 520, 136), (330, 264, 200), (330, 264, 840)] {
        for (trans_b, b) in [(true, [n, k]), (false, [k, n])] {
            for dtype in [DType::F16, DType::BF16] {
                let inputs = [vec![m, k], b.to_vec(), vec![n]];
                let inputs = inputs.iter().zip(1..).map(|(s, seed)| Some(random(DType::F32, s, seed).cast(dtype))).collect();
                let op = Op::from(MatMul { trans_a: false, trans_b, alpha: 0.5, epilogue: None });
                let name = format!("{m} x {n} x {k} {dtype} {trans_b}");
                work.push(Subject { name, op, inputs, tolerance: tolerance(dtype) });
            }
        }
    }
    check_hopper_tiles(&gpu, &work, false, 6);
}

/// Tiles of Hopper's kernels on devices of few and of many multiprocessors, several times each.
fn check_hopper_tiles(gpu: &Gpu, work: &[Subject], tf32: bool, part: usize) {
    let mut runs = Vec::new();
    for (i, s) in work.iter().enumerate() {
        let p = problem(&s.op, &s.inputs, &[]).unwrap();
        // The highest level offers every tile; a part of them for each subject.
        let opt = TacticOptions { level: 5, tf32, ..TacticOptions::default() };
        let all = s.op.def().cuda_tactics(&p, gpu.device.props(), &opt);
        let hopper: Vec<Tactic> = all.into_iter().filter(|t| t.name.contains("wgmma")).collect();
        assert!(hopper.len() > 30, "{}: {} tiles", s.name, hopper.len());
        runs.extend(hopper.into_iter().skip(i % part).step_by(part).map(|t| (i, p.clone(), t)));
    }
    let (kernels, _) = load(gpu, runs.iter().flat_map(|(_, _, t)| t.kernels.clone()).collect());
    let wants: Vec<Tensor> = work.iter().map(|s| eval(&s.op, &s.inputs).unwrap().remove(0)).collect();
    for (i, p, t) in &runs {
        let s = &work[*i];
        for n_sm in [1, 3, gpu.device.props().n_sm] {
            let props = DeviceProps { n_sm, ..gpu.device.props().clone() };
            let what = format!("{} by {} on {n_sm}", s.name, t.name);
            let once = || run_as(gpu, &props, s, p, t, &kernels).unwrap().remove(0);
            let first = once();
            assert_close(&what, &first, &wants[*i], s.tolerance);
            for _ in 0..4 {
                assert!(once().bytes() == first.bytes(), "{what}: another result on repeat");
            }
        }
    }
    eprintln!("{} tiles of {} subjects", runs.len(), work.len());
}

#[test]
fn every_hopper_tile_convolves_as_the_reference_when_blocks_take_many() {
    let Some(gpu) = gpu() else { return };
    if !have_nvrtc() || gpu.device.props().sm != 90 {
        return;
    }
    let base = conv::cases()[0].op.clone();
    let op = |stride: i64, e| Op::from(Conv { order: ChannelOrder::Last, pads: vec![1, 0, 2, 1], strides: vec![stride; 2], epilogue: e, ..base.clone() });
    let shapes: [([usize; 4], [usize; 4], i64); 3] =
        [([5, 11, 13, 72], [136, 3, 3, 72], 1), ([7, 15, 14, 24], [264, 2, 3, 24], 2), ([1, 9, 10, 264], [72, 3, 3, 264], 1)];
    let work = |dtype: DType, tolerance: f64| -> Vec<Subject> {
        let subject = |(x, w, stride): &([usize; 4], [usize; 4], i64)| {
            let scale = 1.0 / (w[1..].iter().product::<usize>() as f32).sqrt();
            let filters: Vec<f32> = random(DType::F32, w, 2).to_f32s().iter().map(|v| v * scale).collect();
            let mut inputs = vec![Some(random(DType::F32, x, 1)), Some(Tensor::from_slice(w, &filters)), Some(random(DType::F32, &w[..1], 3))];
            let y = infer(&op(*stride, None), &inputs).unwrap()[0].shape.concrete().unwrap();
            inputs.push(Some(random(DType::F32, &y, 4)));
            let add = Program::single(Func::Add, &[dtype, dtype]).unwrap();
            let inputs = inputs.into_iter().map(|t| t.map(|t| t.cast(dtype))).collect();
            Subject { name: format!("{x:?} {w:?} {dtype}"), op: op(*stride, Some(add)), inputs, tolerance }
        };
        shapes.iter().map(subject).collect()
    };
    check_hopper_tiles(&gpu, &work(DType::F16, tolerance(DType::F16)), false, 3);
    check_hopper_tiles(&gpu, &work(DType::BF16, tolerance(DType::BF16)), false, 3);
    // Factors of TF32 have 10 bits behind the point, as those of f16.
    check_hopper_tiles(&gpu, &work(DType::F32, tolerance(DType::F16)), true, 3);
}
