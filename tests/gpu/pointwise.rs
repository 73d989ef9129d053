//! Generated kernels against the reference: every function, type and cast, and every kind of broadcast.

use crate::{Gpu, Memory, Stream, gpu, have_nvrtc};
use sinter::base::{DType, Fact, Shape, Tensor};
use sinter::device::Device;
use sinter::device::cuda::{Module, PreparedLaunch, arch_of, kernel_cache};
use sinter::ops::pointwise::{Func, Pointwise, Program};
use sinter::ops::{Arg, DeviceOp, EvalCx, InferCx, KernelSpec, OpDef, Problem, Tactic, TacticOptions, TensorDesc};
use std::collections::HashMap;

/// Floats in [-4, 4), integers in [-100, 100) or [0, 200), bools.
fn random(dtype: DType, shape: &[usize], seed: u64) -> Tensor {
    let mut s = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        s = s.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (s >> 40) as f64 / (1u64 << 24) as f64
    };
    let n = shape.iter().product();
    let v: Vec<f64> = (0..n)
        .map(|_| match dtype {
            DType::Bool => (next() < 0.5) as u8 as f64,
            d if d.is_float() => next() * 8.0 - 4.0,
            d if d.is_signed() => (next() * 200.0).floor() - 100.0,
            _ => (next() * 200.0).floor(),
        })
        .collect();
    Tensor::from_slice(shape, &v).cast(dtype)
}

/// A program on data, and the tactic to run it by.
struct Subject {
    op: Pointwise,
    inputs: Vec<Tensor>,
    problem: Problem,
    want: Vec<Tensor>,
    tactic: Tactic,
}

/// One subject for each tactic that is offered; `dynamic` keeps only the last kernel, which fits every shape.
fn subjects(gpu: &Gpu, program: &Program, shapes: &[&[usize]], dynamic: bool) -> Vec<Subject> {
    let op = Pointwise { program: program.clone() };
    let inputs: Vec<Tensor> =
        program.inputs.iter().zip(shapes).enumerate().map(|(i, (d, s))| random(*d, s, i as u64 + 1)).collect();
    let facts: Vec<Fact> = inputs.iter().map(|t| Fact::new(t.dtype(), Shape::from(t.shape()))).collect();
    let outputs = op.infer(&InferCx::new(&facts.iter().map(Some).collect::<Vec<_>>())).unwrap();
    let want = op.eval(&EvalCx { inputs: &inputs.iter().map(Some).collect::<Vec<_>>(), outputs: &outputs }).unwrap();
    let desc = |t: &Tensor| TensorDesc { dtype: t.dtype(), dims: t.shape().to_vec() };
    let problem = Problem {
        inputs: inputs.iter().map(|t| Some(desc(t))).collect(),
        outputs: want.iter().map(desc).collect(),
        known: vec![None; inputs.len()],
    };
    let options = TacticOptions { dynamic, ..TacticOptions::default() };
    let mut tactics = op.cuda_tactics(&problem, gpu.props(), &options);
    assert!(!tactics.is_empty(), "{program} has no tactic");
    if dynamic {
        tactics.truncate(1);
        let t = &mut tactics[0];
        let (n_kernels, n_params) = (t.kernels.len(), t.params.len());
        t.kernels.drain(..n_kernels - 1);
        t.params.drain(..n_params - n_params / n_kernels);
    }
    let subject = |tactic| Subject {
        op: op.clone(),
        inputs: inputs.clone(),
        problem: problem.clone(),
        want: want.clone(),
        tactic,
    };
    tactics.into_iter().map(subject).collect()
}

fn check_all(gpu: &Gpu, subjects: &[Subject]) {
    let mut specs: Vec<KernelSpec> = Vec::new();
    let mut index: HashMap<KernelSpec, usize> = HashMap::new();
    for k in subjects.iter().flat_map(|s| &s.tactic.kernels) {
        index.entry(k.clone()).or_insert_with(|| {
            specs.push(k.clone());
            specs.len() - 1
        });
    }
    let cubins = kernel_cache::compile_all(&specs, &arch_of(gpu.props().sm), 0).unwrap_or_else(|e| panic!("{e}"));
    let stream = Stream::new(gpu);
    for s in subjects {
        let what = format!("{} of {} for {:?}", s.tactic.name, s.op.program, s.problem.inputs);
        let ins: Vec<Memory<'_>> = s.inputs.iter().map(|t| Memory::of(gpu, t.bytes())).collect();
        let outs: Vec<Memory<'_>> = s.want.iter().map(|t| Memory::of(gpu, &vec![0xaau8; t.bytes().len()])).collect();
        let step = s.op.cuda_program(&s.tactic, &s.problem, gpu.props()).unwrap();
        for op in &step.ops {
            let DeviceOp::Launch(l) = op else { panic!("{what}: {op:?}") };
            let cubin = &cubins[index[&s.tactic.kernels[l.kernel]]];
            let module = Module::load(gpu, &cubin.bytes).unwrap();
            let mut prepared = PreparedLaunch::new(module.function(&cubin.entry).unwrap(), l).unwrap();
            let slots: Vec<Arg> = prepared.slots().cloned().collect();
            for (i, slot) in slots.iter().enumerate() {
                let address = match slot {
                    Arg::In(i) => ins[*i].ptr,
                    Arg::Out(i) => outs[*i].ptr,
                    other => panic!("{what}: {other:?}"),
                };
                prepared.set_address(i, address).unwrap();
            }
            let _context = gpu.enter().unwrap();
            // SAFETY: the memory has the sizes of the problem; the stream is drained before it is freed.
            unsafe { prepared.run(stream.raw).unwrap() };
            // SAFETY: the stream is alive. The module is unloaded at the end of this block.
            unsafe { gpu.stream_synchronize(stream.raw).unwrap() };
        }
        for (memory, want) in outs.iter().zip(&s.want) {
            let bytes = memory.read::<u8>(stream.raw);
            let got = Tensor::from_bytes(want.dtype(), want.shape(), &bytes).unwrap();
            assert_close(&what, &got, want);
        }
    }
    eprintln!("{} problems, {} kernels", subjects.len(), specs.len());
}

/// Class `pointwise`: f32 and f64 functions are within a few units of the last place of the reference, whose own functions
/// are correctly rounded or nearly so; magnitudes below 1 are compared absolutely since some functions cancel there. Half
/// results are one rounding away. Integers, bools and comparisons are exact.
fn assert_close(what: &str, got: &Tensor, want: &Tensor) {
    let rel = match want.dtype() {
        DType::F32 => 4e-6,
        DType::F64 => 1e-12,
        DType::F16 => 1e-3,
        DType::BF16 => 8e-3,
        _ => return assert!(got.same(want), "{what}: expected {want:?}, got {got:?}"),
    };
    for (i, (g, w)) in got.to_f64s().iter().zip(want.to_f64s()).enumerate() {
        let fine = *g == w || (g.is_nan() && w.is_nan()) || (g - w).abs() <= rel * w.abs().max(1.0);
        assert!(fine, "{what} element {i}: expected {w}, got {g}");
    }
}

#[test]
fn every_function_on_every_type_that_it_takes() {
    let Some(gpu) = gpu() else { return };
    if !have_nvrtc() {
        return;
    }
    let mut all = Vec::new();
    for func in Func::ALL.iter().filter(|f| f.arity() > 0 && **f != Func::Cast) {
        for dtype in DType::ALL {
            let mut types = vec![dtype; func.arity()];
            if *func == Func::Select {
                types[0] = DType::Bool;
            }
            let Ok(program) = Program::single(*func, &types) else { continue };
            all.extend(subjects(&gpu, &program, &vec![&[1037][..]; types.len()], false));
        }
    }
    check_all(&gpu, &all);
}

#[test]
fn every_cast() {
    let Some(gpu) = gpu() else { return };
    if !have_nvrtc() {
        return;
    }
    let mut all = Vec::new();
    for from in DType::ALL {
        for to in DType::ALL.into_iter().filter(|to| *to != from) {
            let mut p = Program { inputs: vec![from], instrs: vec![], outputs: vec![] };
            let r = p.push_cast(0, to).unwrap();
            p.outputs = vec![r];
            all.extend(subjects(&gpu, &p, &[&[777]], false));
        }
    }
    check_all(&gpu, &all);
}

#[test]
fn every_kind_of_broadcast() {
    let Some(gpu) = gpu() else { return };
    if !have_nvrtc() {
        return;
    }
    let shapes: &[[&[usize]; 3]] = &[
        [&[4, 6, 8, 8], &[4, 6, 8, 8], &[4, 6, 8, 8]],
        [&[4, 6, 8, 8], &[6, 1, 1], &[1]],
        [&[4, 6, 7, 5], &[6, 1, 1], &[5]],
        [&[4, 6, 8], &[4, 1, 8], &[6, 1]],
        [&[3, 1], &[1, 7], &[]],
        [&[2, 1, 3, 1, 4], &[1, 5, 1, 6, 1], &[4]],
        [&[1], &[1], &[1]],
        [&[100_003], &[1], &[100_003]],
        [&[257, 1024], &[1024], &[257, 1]],
        [&[2, 3, 2, 3, 2, 3, 2, 3], &[3, 1, 3, 1, 3, 1, 3], &[2, 1, 2, 1, 2, 1]],
    ];
    let mut all = Vec::new();
    for text in ["f32,f32,f32;mul(0,1):f32;sub(3,2):f32;>4", "f16,u8,i64;cast(0):f32;cast(1):f32;sub(3,4):f32;cast(5):f16;>6,2"] {
        let p = Program::parse(text).unwrap();
        for s in shapes {
            all.extend(subjects(&gpu, &p, s, false));
            all.extend(subjects(&gpu, &p, s, true));
        }
    }
    check_all(&gpu, &all);
}
