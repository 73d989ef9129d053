//! CUDA tactics: which kernel runs at which shape, and that generated code compiles (with NVRTC, without a GPU).

use sinter::base::DType;
use sinter::device::DeviceProps;
use sinter::device::cuda::{kernel_cache, nvrtc};
use sinter::ops::pointwise::{Func, Pointwise, Program};
use sinter::ops::{Arg, DeviceOp, KernelSpec, Launch, OpDef, Problem, StepProgram, Tactic, TacticOptions, TensorDesc};

fn problem(p: &Program, inputs: &[&[usize]], shape: &[usize]) -> Problem {
    let desc = |dtype: DType, dims: &[usize]| TensorDesc { dtype, dims: dims.to_vec() };
    Problem {
        inputs: p.inputs.iter().zip(inputs).map(|(d, s)| Some(desc(*d, s))).collect(),
        outputs: (0..p.outputs.len()).map(|k| desc(p.output_dtype(k), shape)).collect(),
        known: vec![None; inputs.len()],
    }
}

fn tactics(text: &str, inputs: &[&[usize]], shape: &[usize], dynamic: bool) -> (Pointwise, Vec<Tactic>) {
    let program = Program::parse(text).unwrap();
    let options = TacticOptions { dynamic, ..TacticOptions::default() };
    let op = Pointwise { program };
    let t = op.cuda_tactics(&problem(&op.program, inputs, shape), &DeviceProps::example_h200(), &options);
    (op, t)
}

fn launch(op: &Pointwise, t: &Tactic, inputs: &[&[usize]], shape: &[usize]) -> Launch {
    let step = op.cuda_program(t, &problem(&op.program, inputs, shape), &DeviceProps::example_h200()).unwrap();
    match step.ops.as_slice() {
        [DeviceOp::Launch(l)] => l.clone(),
        ops => panic!("{ops:?}"),
    }
}

fn define<'a>(k: &'a KernelSpec, name: &str) -> &'a str {
    k.defines.iter().find(|(n, _)| n == name).map_or("", |(_, v)| v)
}

const ADD: &str = "f32,f32;add(0,1):f32;>2";

#[test]
fn full_operands_and_numbers_are_flat() {
    let (op, t) = tactics(ADD, &[&[4, 8, 8], &[1]], &[4, 8, 8], false);
    assert_eq!(t[0].name, "pointwise_flat_vec4");
    assert_eq!((define(&t[0].kernels[0], "SCALAR_MASK"), t[0].kernels.len()), ("2", 1));
    let l = launch(&op, &t[0], &[&[4, 8, 8], &[1]], &[4, 8, 8]);
    assert_eq!((l.grid, l.block), ([1, 1, 1], [256, 1, 1]));
    assert_eq!(l.args, [Arg::In(0), Arg::In(1), Arg::Out(0), Arg::I64(256)]);
    // Mixed sizes: a vector of 16 bytes of the wide type, or of the narrow one.
    let (_, t) = tactics("f16;cast(0):f32;>1", &[&[64]], &[64], false);
    assert_eq!(t.iter().map(|t| t.name.as_str()).collect::<Vec<_>>(), ["pointwise_flat_vec4", "pointwise_flat_vec8"]);
}

#[test]
fn other_broadcasts_are_strided_with_the_vectors_that_rows_allow() {
    let (op, t) = tactics(ADD, &[&[2, 3, 4, 6], &[3, 1, 1]], &[2, 3, 4, 6], false);
    assert_eq!(t[0].name, "pointwise_strided_vec4");
    let k = &t[0].kernels[0];
    assert_eq!((define(k, "RANK"), define(k, "INNER_MASK"), define(k, "INDEX64")), ("3", "1", "0"));
    let l = launch(&op, &t[0], &[&[2, 3, 4, 6], &[3, 1, 1]], &[2, 3, 4, 6]);
    let Arg::Bytes(shape) = &l.args[3] else { panic!("{:?}", l.args) };
    let words: Vec<u32> = shape.chunks(4).map(|b| u32::from_ne_bytes(b.try_into().unwrap())).collect();
    assert_eq!(words[..4], [2, 3, 24, 1]);
    // The divisors of index.cuh divide.
    for d in 0..3 {
        for n in [0u32, 1, 23, 24, 25, 1000, i32::MAX as u32] {
            let (size, magic, shift) = (words[d], words[8 + d] as u64, words[16 + d]);
            assert_eq!((((n as u64 * magic) >> 32) + n as u64) >> shift, (n / size) as u64, "{n} / {size}");
        }
    }
    let Arg::Bytes(strides) = &l.args[4] else { panic!("{:?}", l.args) };
    let words: Vec<i64> = strides.chunks(8).map(|b| i64::from_ne_bytes(b.try_into().unwrap())).collect();
    assert_eq!((&words[..3], &words[8..11], words.len()), (&[72, 24, 1][..], &[0, 1, 0][..], 16));
    let (_, t) = tactics(ADD, &[&[5, 7], &[5, 1]], &[5, 7], false);
    assert_eq!(t[0].name, "pointwise_strided_vec1");
}

#[test]
fn a_dynamic_tactic_has_a_kernel_for_every_shape() {
    // Built at batch 1, where the channel vector makes two merged dimensions.
    let (op, t) = tactics(ADD, &[&[1, 8, 4, 4], &[8, 1, 1]], &[1, 8, 4, 4], true);
    let at = |n: usize| launch(&op, &t[0], &[&[n, 8, 4, 4], &[8, 1, 1]], &[n, 8, 4, 4]).kernel;
    assert_eq!((at(1), at(3)), (0, 1));
    // A row that vectors do not fit, and an operand that is full here.
    assert_eq!(launch(&op, &t[0], &[&[2, 8, 1, 5], &[8, 1, 1]], &[2, 8, 1, 5]).kernel, 2);
    assert_eq!(launch(&op, &t[0], &[&[2, 8, 1, 5], &[2, 8, 1, 5]], &[2, 8, 1, 5]).kernel, 2);
    let (op, t) = tactics(ADD, &[&[1, 8, 4, 4], &[8, 1, 1]], &[1, 8, 4, 4], false);
    let p = problem(&op.program, &[&[3, 8, 4, 4], &[8, 1, 1]], &[3, 8, 4, 4]);
    let e = op.cuda_program(&t[0], &p, &DeviceProps::example_h200()).unwrap_err().to_string();
    assert!(e.contains("other shapes"), "{e}");
}

#[test]
fn nothing_runs_for_empty_outputs_and_copies_are_copies() {
    let (op, t) = tactics(ADD, &[&[0, 4], &[4]], &[0, 4], true);
    let p = problem(&op.program, &[&[0, 4], &[4]], &[0, 4]);
    assert_eq!(op.cuda_program(&t[0], &p, &DeviceProps::example_h200()).unwrap(), StepProgram::default());
    let (op, t) = tactics("f16;>0", &[&[4]], &[4], false);
    let step = op.cuda_program(&t[0], &problem(&op.program, &[&[4]], &[4]), &DeviceProps::example_h200()).unwrap();
    assert_eq!(step.ops, [DeviceOp::Copy { dst: Arg::Out(0), src: Arg::In(0), bytes: 8 }]);
}

#[test]
fn generated_text_is_the_same_each_time() {
    let (_, a) = tactics(ADD, &[&[4], &[4]], &[4], true);
    let (_, b) = tactics(ADD, &[&[4], &[4]], &[4], true);
    assert_eq!(a[0].kernels, b[0].kernels);
}

/// Every function that takes the type, each result kept alive in the outputs.
fn every_function(t: DType) -> Program {
    let mut p = Program { inputs: vec![t; 3], instrs: vec![], outputs: vec![] };
    let cond = p.push_cast(0, DType::Bool).unwrap();
    let (mut sum, mut any) = (0, cond);
    for func in Func::ALL.iter().filter(|f| f.arity() > 0 && **f != Func::Cast) {
        let args: Vec<u16> = match func {
            Func::Select => vec![cond, 0, 1],
            f => (0..f.arity() as u16).collect(),
        };
        let Ok(r) = p.push(*func, &args) else { continue };
        if p.dtype(r) == DType::Bool {
            any = p.push(Func::Or, &[any, r]).unwrap();
        } else if t.is_small() {
            sum = r;
        } else {
            sum = p.push(Func::Max, &[sum, r]).unwrap();
        }
    }
    let c = p.push_const(1.5, t).unwrap();
    p.outputs = vec![sum, any, c];
    p
}

/// From one type to every other, by way of a register that is computed with.
fn every_cast(t: DType) -> Program {
    let mut p = Program { inputs: vec![t], instrs: vec![], outputs: vec![] };
    let mut any = p.push_cast(0, DType::Bool).unwrap();
    for to in DType::ALL {
        let r = p.push_cast(0, to).unwrap();
        // Small types are not compared as they are.
        let r = if to.is_small() { p.push_cast(r, DType::F32).unwrap() } else { r };
        let same = p.push(Func::Equal, &[r, r]).unwrap();
        any = p.push(Func::And, &[any, same]).unwrap();
    }
    p.outputs = vec![any];
    p
}

#[test]
fn generated_code_compiles() {
    if let Err(e) = nvrtc::is_present() {
        return eprintln!("SKIPPED: generated code is not compiled, {e}");
    }
    // Flat kernels of every function and cast for all architectures, and the strided ones for the newest.
    let (mut flat, mut strided): (Vec<KernelSpec>, Vec<KernelSpec>) = (vec![], vec![]);
    for t in DType::ALL {
        for p in [every_cast(t), every_function(t)] {
            let full: Vec<&[usize]> = vec![&[4, 8, 8]; p.n_inputs()];
            flat.push(tactics(&p.to_string(), &full, &[4, 8, 8], false).1[0].kernels[0].clone());
        }
        let mixed: [&[usize]; 3] = [&[4, 8, 8], &[8, 1], &[1]];
        strided.extend(tactics(&every_function(t).to_string(), &mixed, &[4, 8, 8], true).1.remove(0).kernels);
    }
    let compile = |arch: &str, specs: &[KernelSpec]| {
        for (spec, result) in specs.iter().zip(kernel_cache::compile_each(specs, arch, 0)) {
            if let Err(e) = result {
                panic!("{arch}: {e}\n{:?}\n{}", spec.defines, spec.generated);
            }
        }
    };
    for arch in ["sm_75", "sm_80", "sm_90a"] {
        compile(arch, &flat);
    }
    compile("sm_90a", &strided);
    eprintln!("{} flat kernels compiled for three architectures, {} strided ones for one", flat.len(), strided.len());
}
