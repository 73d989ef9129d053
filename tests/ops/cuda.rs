//! CUDA tactics of products and windows, without a GPU: what is offered, what each launch says, and that its kernels
//! compile.

use super::steps::{self, infer, random};
use super::product_cases::{conv, conv_transpose, matmul, pool};
use sinter::base::{DType, Tensor};
use sinter::device::DeviceProps;
use sinter::device::cuda::{kernel_cache, nvrtc};
use sinter::ops::conv::Conv;
use sinter::ops::matmul::MatMul;
use sinter::ops::pointwise::{Func, Program};
use sinter::ops::{Arg, DeviceOp, KernelSpec, Launch, Op, Problem, StepProgram, Tactic, TacticOptions, TacticSource};
use std::collections::{BTreeMap, HashSet};
use std::path::Path;

fn devices() -> [DeviceProps; 2] {
    let turing =
        DeviceProps { name: "Turing".into(), sm: 75, n_sm: 40, max_smem_per_block: 65_536, ..DeviceProps::example_h200() };
    [DeviceProps::example_h200(), turing]
}

/// A node with its operands' types and shapes.
struct Subject {
    name: String,
    op: Op,
    problem: Problem,
}

fn subject(name: &str, op: Op, inputs: &[Option<Tensor>], dtype: DType) -> Subject {
    let inputs: Vec<Option<Tensor>> = inputs.iter().map(|t| t.as_ref().map(|t| t.cast(dtype))).collect();
    let problem = steps::problem(&op, &inputs, &[]).unwrap_or_else(|e| panic!("{name}: {e}"));
    Subject { name: format!("{name} {dtype}"), op, problem }
}

/// The program with another floating-point type throughout.
fn retyped(p: &Program, dtype: DType) -> Program {
    Program::parse(&p.to_string().replace("f32", dtype.name())).unwrap()
}

/// Every case of the four operators in every type, with and without bias, and with every epilogue.
fn subjects() -> Vec<Subject> {
    let mut all = Vec::new();
    for dtype in [DType::F32, DType::F16, DType::BF16, DType::F64] {
        let mut add = |name: &str, with: &dyn Fn(Option<Program>) -> Op, inputs: &[Option<Tensor>]| {
            all.push(subject(name, with(None), inputs, dtype));
            let mut plain = inputs.to_vec();
            plain[2] = None;
            all.push(subject(name, with(None), &plain, dtype));
            let out = infer(&with(None), inputs).unwrap()[0].shape.concrete().unwrap();
            for (kind, program, shapes) in conv::epilogues(&out) {
                if dtype == DType::F16 && kind == "to f16" {
                    continue;
                }
                let mut inputs = inputs.to_vec();
                inputs.extend(shapes.iter().map(|s| Some(random(DType::F32, s, 9))));
                let op = with(Some(retyped(&program, dtype)));
                all.push(subject(&format!("{name} with {kind}"), op, &inputs, dtype));
            }
        };
        for c in conv::cases() {
            let with = |e| Op::from(Conv { epilogue: e, ..c.op.clone() });
            add(c.name, &with, &conv::operands(&c, true));
        }
        for c in conv_transpose::cases() {
            let with = |epilogue| {
                let mut op = c.op.clone();
                op.epilogue = epilogue;
                Op::from(op)
            };
            add(c.name, &with, &conv_transpose::operands(&c, true));
        }
        for c in matmul::cases() {
            let with = |e| Op::from(MatMul { epilogue: e, ..c.op.clone() });
            add(c.name, &with, &matmul::operands(&c, true));
        }
        for c in pool::cases() {
            all.push(subject(c.name, Op::from(c.op.clone()), &[Some(random(DType::F32, &c.x, 1))], dtype));
        }
    }
    for dtype in [DType::I32, DType::U32, DType::I64, DType::U64] {
        for c in matmul::cases().into_iter().filter(|c| c.op.alpha == 1.0) {
            all.push(subject(c.name, Op::from(c.op.clone()), &matmul::operands(&c, true), dtype));
        }
    }
    all
}

/// Parameter types of each kernel file, read from its text: what a launch's arguments must be.
fn signature(file: &str) -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels").join(file);
    let text = std::fs::read_to_string(path).unwrap();
    let start = text.find("KERNEL_NAME(").unwrap_or_else(|| panic!("{file} has no entry point")) + "KERNEL_NAME(".len();
    let end = start + text[start..].find(')').unwrap();
    let words = |p: &str| p.replace("const ", "").trim().rsplit_once(' ').unwrap().0.trim().to_string();
    text[start..end].split(',').map(words).collect()
}

fn struct_bytes(name: &str) -> usize {
    match name {
        "GemmParams" => 18 * 8,
        "ConvParams" => 30 * 4,
        "ConvNdParams" => 24 * 8,
        "DepthwiseParams" => 14 * 4,
        "FirstParams" => 17 * 4,
        "MmaParams" => 39 * 4,
        "PatchParams" => 20 * 4,
        "PoolParams" => 23 * 8,
        "PoolNhwcParams" => 24 * 8,
        "EpilogueStrides" => 20 * 8,
        "TileParams" => 6 * 4,
        "ProductParams" => 15 * 4,
        "ConvTileParams" => 25 * 4,
        "Shape" => 24 * 4,
        "Strides" => 8 * 8,
        _ => 0,
    }
}

fn check_launch(what: &str, l: &Launch, t: &Tactic, p: &Problem, dev: &DeviceProps, step: &StepProgram) {
    let spec = t.kernels.get(l.kernel).unwrap_or_else(|| panic!("{what}: kernel {} is missing", l.kernel));
    for i in 0..3 {
        assert!((1..=dev.max_grid[i]).contains(&l.grid[i]), "{what}: grid {:?}", l.grid);
        assert!(l.block[i] >= 1, "{what}: block {:?}", l.block);
    }
    let threads: u32 = l.block.iter().product();
    assert!(threads <= dev.max_threads_per_block && threads % 32 == 0, "{what}: {threads} threads");
    assert!(l.smem <= dev.max_smem_per_block, "{what}: {} bytes of shared memory", l.smem);
    for a in &l.args {
        match a.address() {
            Arg::In(i) => assert!(p.input(*i).is_some(), "{what}: input {i} is absent"),
            Arg::Out(i) => assert!(*i < p.outputs.len(), "{what}: output {i}"),
            Arg::Work(at) => assert!(*at < step.workspace, "{what}: workspace"),
            _ => {}
        }
    }
    // The pointwise kernels that follow have signatures of their own operator.
    if matches!(spec.file.as_str(), "pointwise.cu") {
        return;
    }
    let want = signature(&spec.file);
    assert_eq!(l.args.len(), want.len(), "{what}: arguments of {}", spec.file);
    for (i, (a, w)) in l.args.iter().zip(&want).enumerate() {
        let fine = match a {
            Arg::In(_) | Arg::Out(_) | Arg::Work(_) | Arg::Count(_) | Arg::Null => w.ends_with('*'),
            Arg::I32(_) => w == "i32",
            Arg::I64(_) => w == "i64",
            Arg::F32(_) => w == "float",
            Arg::F64(_) => w == "double",
            Arg::Bytes(b) => struct_bytes(w) == b.len(),
            Arg::TensorMap(_) => w.ends_with(" TensorMap"),
        };
        assert!(fine, "{what}: argument {i} of {} is {w}, got {a:?}", spec.file);
    }
}

fn check_step(what: &str, step: &StepProgram, t: &Tactic, p: &Problem, dev: &DeviceProps) {
    assert!(!step.ops.is_empty(), "{what}: nothing to do");
    for op in &step.ops {
        match op {
            DeviceOp::Launch(l) => check_launch(what, l, t, p, dev, step),
            DeviceOp::Gemm(g) => {
                assert_eq!(t.source, TacticSource::CublasLt, "{what}");
                assert_eq!((g.batch * g.m * g.n) as usize, p.outputs[0].numel(), "{what}: sizes of the product");
            }
            _ => {}
        }
    }
}

#[test]
fn every_case_has_tactics_whose_launches_hold_the_limits() {
    for dev in devices() {
        for s in subjects() {
            for dynamic in [false, true] {
                let opt = TacticOptions { cublaslt: true, dynamic, ..TacticOptions::default() };
                let tactics = s.op.def().cuda_tactics(&s.problem, &dev, &opt);
                let what = format!("{} on sm_{}", s.name, dev.sm);
                assert!((1..=18).contains(&tactics.len()), "{what}: {} tactics", tactics.len());
                let names: HashSet<&str> = tactics.iter().map(|t| t.name.as_str()).collect();
                assert_eq!(names.len(), tactics.len(), "{what}: names {names:?}");
                let last = &tactics[tactics.len() - 1];
                assert_eq!(last.source, TacticSource::Kernels, "{what}: the last one needs no library");
                if s.problem.outputs[0].numel() == 0 {
                    continue;
                }
                for t in &tactics {
                    let what = format!("{what}, {}", t.name);
                    let step = s.op.def().cuda_program(t, &s.problem, &dev).unwrap_or_else(|e| panic!("{what}: {e}"));
                    check_step(&what, &step, t, &s.problem, &dev);
                    assert!(dev.sm >= 80 || !t.name.contains("sm80"), "{what}: not for this device");
                }
            }
        }
    }
}

#[test]
fn a_tactic_serves_other_shapes() {
    let dev = DeviceProps::example_h200();
    let opt = TacticOptions { cublaslt: true, dynamic: true, ..TacticOptions::default() };
    let relu = Some(Program::single(Func::Relu, &[DType::F16]).unwrap());
    let product = Op::from(MatMul { trans_a: false, trans_b: false, alpha: 1.0, epilogue: relu.clone() });
    let make = |m: usize, n: usize| {
        let a = random(DType::F32, &[2, m, 64], 1);
        let b = random(DType::F32, &[2, 64, n], 1);
        subject("product", product.clone(), &[Some(a), Some(b), None], DType::F16).problem
    };
    // Rows of b are aligned at the first shape and not at the others.
    let first = make(64, 128);
    for t in product.def().cuda_tactics(&first, &dev, &opt) {
        for (m, n) in [(64, 128), (1, 1), (65, 129), (4000, 333)] {
            let p = make(m, n);
            let step = product.def().cuda_program(&t, &p, &dev).unwrap_or_else(|e| panic!("{} at {m} x {n}: {e}", t.name));
            check_step(&t.name, &step, &t, &p, &dev);
        }
    }
    let base = conv::cases()[0].op.clone();
    let op = Op::from(Conv { epilogue: relu, ..base });
    let make = |n: usize, size: usize| {
        let x = random(DType::F32, &[n, 8, size, size], 1);
        let w = random(DType::F32, &[16, 8, 3, 3], 1);
        subject("conv", op.clone(), &[Some(x), Some(w), None], DType::F16).problem
    };
    for t in op.def().cuda_tactics(&make(1, 14), &dev, &opt) {
        for (n, size) in [(1, 14), (7, 3), (2, 101)] {
            let p = make(n, size);
            let step = op.def().cuda_program(&t, &p, &dev).unwrap_or_else(|e| panic!("{}: {e}", t.name));
            check_step(&t.name, &step, &t, &p, &dev);
        }
    }
}

#[test]
fn the_library_takes_what_it_can() {
    let dev = DeviceProps::example_h200();
    let opt = TacticOptions { cublaslt: true, tf32: true, ..TacticOptions::default() };
    let gemms = |op: &Op, p: &Problem| -> Vec<(Tactic, StepProgram)> {
        let tactics = op.def().cuda_tactics(p, &dev, &opt);
        let library = tactics.into_iter().filter(|t| t.source == TacticSource::CublasLt);
        library.map(|t| (t.clone(), op.def().cuda_program(&t, p, &dev).unwrap())).collect()
    };
    let of = |a: &[usize], b: &[usize], e: Option<Program>| {
        let op = Op::from(MatMul { trans_a: false, trans_b: false, alpha: 1.0, epilogue: e });
        let s = subject("product", op, &[Some(random(DType::F32, a, 1)), Some(random(DType::F32, b, 1)), Some(random(DType::F32, &[b[b.len() - 1]], 1))], DType::F32);
        gemms(&s.op, &s.problem)
    };
    let relu = of(&[4, 8], &[8, 5], Some(Program::single(Func::Relu, &[DType::F32]).unwrap()));
    let [DeviceOp::Gemm(g)] = relu[0].1.ops.as_slice() else { panic!("one product, with ReLU in it: {:?}", relu[0].1) };
    assert!(g.relu && g.tf32 && g.bias == Some(Arg::In(2)));
    let gelu = of(&[4, 8], &[8, 5], Some(Program::single(Func::GeluErf, &[DType::F32]).unwrap()));
    let [DeviceOp::Gemm(g), DeviceOp::Launch(_)] = gelu[0].1.ops.as_slice() else { panic!("a product, then a kernel") };
    assert!(!g.relu && g.bias == Some(Arg::In(2)));
    assert!(of(&[3, 1, 4, 8], &[1, 2, 8, 5], None).is_empty(), "one stride cannot say a broadcast over both");
    assert_eq!(of(&[3, 4, 8], &[8, 5], None)[0].1.ops.len(), 1);
    // The bias of a convolution runs along the rows of the product, which the library does not add.
    let c = conv::cases().into_iter().find(|c| c.name == "1x1").unwrap();
    let s = subject("1x1", Op::from(c.op.clone()), &conv::operands(&c, true), DType::F32);
    let (_, step) = &gemms(&s.op, &s.problem)[0];
    let [DeviceOp::Gemm(g), DeviceOp::Launch(l)] = step.ops.as_slice() else { panic!("a product, then its bias") };
    assert!(g.bias.is_none() && l.args.contains(&Arg::In(2)));
}

/// A product in f16 with a bias, on Hopper.
fn hopper_tactics(a: &[usize], b: &[usize], trans_b: bool, dynamic: bool) -> (Op, Problem, Vec<Tactic>) {
    let op = Op::from(MatMul { trans_a: false, trans_b, alpha: 1.0, epilogue: None });
    let n = b[b.len() - if trans_b { 2 } else { 1 }];
    let inputs = [a, b, &[n]].map(|s| Some(random(DType::F32, s, 1)));
    let s = subject("product", op, &inputs, DType::F16);
    let opt = TacticOptions { dynamic, ..TacticOptions::default() };
    let tactics = s.op.def().cuda_tactics(&s.problem, &DeviceProps::example_h200(), &opt);
    (s.op, s.problem, tactics.into_iter().filter(|t| t.name.contains("wgmma")).collect())
}

#[test]
fn hopper_products_go_through_tensor_maps() {
    let dev = DeviceProps::example_h200();
    for (trans_b, b) in [(true, [768, 136]), (false, [136, 768])] {
        let (op, p, tactics) = hopper_tactics(&[2, 100, 136], &b, trans_b, false);
        assert!((6..=9).contains(&tactics.len()), "{} tactics", tactics.len());
        for t in &tactics {
            let step = op.def().cuda_program(t, &p, &dev).unwrap();
            let [DeviceOp::Launch(l)] = step.ops.as_slice() else { panic!("{}: one launch", t.name) };
            let define = |name: &str| -> u64 {
                t.kernels[0].defines.iter().find(|(n, _)| n == name).unwrap().1.parse().unwrap()
            };
            let (m, n) = (define("TILE_M"), define("TILE_N"));
            let (cluster, split) = (define("CLUSTER"), define("SPLIT_K"));
            let tiles = 200u64.div_ceil(m * cluster) * 768u64.div_ceil(n);
            let blocks = if split > 1 { tiles * split } else { tiles.min(132 * define("MIN_BLOCKS") / cluster) * cluster };
            assert_eq!(l.grid, [blocks as u32, 1, 1]);
            let maps: Vec<_> = l.args[..3].iter().map(|a| if let Arg::TensorMap(map) = a { map } else { panic!("{a:?}") }).collect();
            // The batch is part of the rows; dimensions run from the innermost one.
            assert_eq!((&maps[0].base, &maps[0].dims[..], &maps[0].strides_bytes[..]), (&Arg::In(0), &[136, 200][..], &[272][..]));
            assert_eq!(maps[0].tile, [64, m as u32]);
            let (dims, tile) = if trans_b { ([136, 768], [64, (n / cluster) as u32]) } else { ([768, 136], [64, 64 / cluster as u32]) };
            assert_eq!((&maps[1].base, &maps[1].dims[..], &maps[1].tile[..]), (&Arg::In(1), &dims[..], &tile[..]));
            assert_eq!((&maps[2].base, &maps[2].dims[..]), (&Arg::Out(0), &[768, 200][..]));
            assert_eq!(maps[2].tile[0], if n % 64 == 0 { 64 } else { 32 });
            assert_eq!(l.args[4], Arg::In(2));
            assert!(l.smem as u64 > 1024 + define("STAGES") * (m + n) * define("TILE_K") * 2);
        }
    }
}

#[test]
fn hopper_products_need_whole_pieces_and_their_device() {
    let names = |a: &[usize], b: &[usize]| hopper_tactics(a, b, true, false).2.len();
    assert!(names(&[1, 72], &[128, 72]) > 0);
    assert_eq!(names(&[64, 76], &[128, 76]), 0, "rows of 152 bytes");
    assert_eq!(names(&[64, 72], &[100, 72]), 0, "rows of 200 bytes in the result");
    assert!(names(&[2, 64, 72], &[2, 128, 72]) > 0, "two matrices");
    let (op, p, _) = hopper_tactics(&[64, 72], &[128, 72], true, false);
    for sm in [80, 89, 100] {
        let dev = DeviceProps { sm, ..DeviceProps::example_h200() };
        let tactics = op.def().cuda_tactics(&p, &dev, &TacticOptions::default());
        assert!(tactics.iter().all(|t| !t.name.contains("wgmma")), "sm_{sm}");
    }
}

#[test]
fn a_hopper_tactic_serves_other_shapes() {
    let dev = DeviceProps::example_h200();
    let (op, _, tactics) = hopper_tactics(&[2, 64, 72], &[128, 72], true, true);
    assert!(!tactics.is_empty());
    for t in &tactics {
        // Every number of rows by the same kernel; rows that maps cannot say, and batches, by its twin.
        for (a, b, kernel) in [
            (&[1, 1, 72][..], &[128, 72][..], 0),
            (&[7, 1000, 72], &[128, 72], 0),
            (&[2, 64, 75], &[128, 75], 1),
            (&[2, 64, 72], &[2, 128, 72], 1),
        ] {
            let (_, p, _) = hopper_tactics(a, b, true, true);
            let step = op.def().cuda_program(t, &p, &dev).unwrap_or_else(|e| panic!("{} at {a:?}: {e}", t.name));
            check_step(&t.name, &step, t, &p, &dev);
            let [DeviceOp::Launch(l)] = step.ops.as_slice() else { panic!("one launch") };
            assert_eq!(l.kernel, kernel, "{} at {a:?}", t.name);
        }
    }
}

#[test]
fn few_tiles_split_their_sums() {
    let dev = DeviceProps::example_h200();
    let opt = TacticOptions::default();
    let op = Op::from(MatMul { trans_a: false, trans_b: false, alpha: 1.0, epilogue: None });
    let inputs = [Some(random(DType::F32, &[16, 4096], 1)), Some(random(DType::F32, &[4096, 64], 1)), None];
    let s = subject("narrow", op, &inputs, DType::F16);
    let dev = DeviceProps { sm: 80, ..dev };
    let tactics = s.op.def().cuda_tactics(&s.problem, &dev, &opt);
    let names: Vec<_> = tactics.iter().map(|t| &t.name).collect();
    assert!(names[0].contains("_split") || names[0].contains("skinny"), "{names:?}");
    let split = tactics.iter().find(|t| t.name.ends_with("_split")).unwrap_or_else(|| panic!("{names:?}"));
    let step = s.op.def().cuda_program(split, &s.problem, &dev).unwrap();
    let [DeviceOp::Launch(parts), DeviceOp::Launch(finish)] = step.ops.as_slice() else { panic!("parts, then their sum") };
    assert!(parts.grid[1] > 1 && finish.args[4] == Arg::I32(parts.grid[1] as i32));
    assert_eq!(step.workspace, parts.grid[1] as usize * 16 * 64 * 4);
}

#[test]
fn damaged_tactics_are_refused() {
    let dev = DeviceProps::example_h200();
    let opt = TacticOptions { cublaslt: true, ..TacticOptions::default() };
    let mut n_refused = 0;
    for s in subjects().into_iter().step_by(7) {
        for t in s.op.def().cuda_tactics(&s.problem, &dev, &opt) {
            for i in 0..t.params.len() {
                for value in [-1, 0, 3, 1 << 40] {
                    let mut bad = t.clone();
                    bad.params[i] = value;
                    // Either an error or a program; never a panic.
                    n_refused += s.op.def().cuda_program(&bad, &s.problem, &dev).is_err() as usize;
                }
            }
            let mut bad = t.clone();
            bad.params.clear();
            let refused = s.op.def().cuda_program(&bad, &s.problem, &dev).is_err();
            assert!(refused || t.params.is_empty(), "{}: {}", s.name, t.name);
        }
    }
    assert!(n_refused > 0);
}

/// Kernels of one file and architecture that are compiled.
const PER_FILE: usize = 4;

/// A sample of the kernels of every file, for three architectures.
#[test]
fn kernels_compile() {
    if let Err(e) = nvrtc::is_present() {
        eprintln!("SKIPPED: kernels of products and windows are not compiled: {e}");
        return;
    }
    // One case of each kind of kernel would miss corners; all of them would take minutes. A fixed sample of each file.
    let mut by_file: BTreeMap<(u32, String), Vec<KernelSpec>> = BTreeMap::new();
    for mut dev in devices().into_iter().chain([DeviceProps { sm: 80, ..DeviceProps::example_h200() }]) {
        for s in subjects() {
            dev.n_sm = 132;
            for t in s.op.def().cuda_tactics(&s.problem, &dev, &TacticOptions::default()) {
                for k in t.kernels.into_iter().filter(|k| k.file != "pointwise.cu") {
                    let list = by_file.entry((dev.sm, k.file.clone())).or_default();
                    if !list.contains(&k) {
                        list.push(k);
                    }
                }
            }
        }
    }
    let mut files = HashSet::new();
    for ((sm, file), specs) in by_file {
        let step = specs.len().div_ceil(PER_FILE).max(1);
        let sample: Vec<KernelSpec> = specs.into_iter().step_by(step).collect();
        for (s, r) in sample.iter().zip(kernel_cache::compile_each(&sample, &kernel_cache::arch_of(sm), 2)) {
            assert!(r.is_ok(), "sm_{sm}: {s:?}: {}", r.err().map(|e| e.to_string()).unwrap_or_default());
        }
        files.insert(file);
    }
    for file in ["gemm_simt.cu", "gemm_mma_sm80.cu", "gemm_wgmma_sm90.cu", "gemm_skinny_sm80.cu", "conv_igemm_simt.cu", "conv_igemm_mma_sm80.cu", "conv_depthwise.cu", "conv_direct.cu", "conv_nhwc_depthwise.cu", "conv_nhwc_depthwise_mma.cu", "conv_nhwc_first.cu", "conv_nhwc_mma.cu", "conv_patches.cu", "conv_transpose.cu", "pool.cu", "pool_nhwc.cu"] {
        assert!(files.contains(file), "{file} was not compiled");
    }
}
