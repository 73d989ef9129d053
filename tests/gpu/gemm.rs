//! cuBLASLt products against a loop on the host.

use crate::{Gpu, Memory, Stream, gpu, present};
use half::{bf16, f16};
use sinter::base::{DType, ErrorCode};
use sinter::device::cuda::graph::GraphBuilder;
use sinter::device::cuda::cublaslt::{self, GemmPlan, n_algos};
use sinter::ops::tactic::{Arg, LibraryGemm};

const WORKSPACE: usize = 32 << 20;

fn gemm(dtype: DType, batch: i64, [m, n, k]: [i64; 3], trans_a: bool, trans_b: bool) -> LibraryGemm {
    LibraryGemm {
        batch,
        m,
        n,
        k,
        trans_a,
        trans_b,
        stride_a: m * k,
        stride_b: k * n,
        stride_d: m * n,
        dtype,
        alpha: 1.0,
        a: Arg::In(0),
        b: Arg::In(1),
        d: Arg::Out(0),
        bias: None,
        relu: false,
        tf32: false,
        algo_rank: 0,
    }
}

/// A device with cuBLASLt.
fn with_library() -> Option<Gpu> {
    let gpu = gpu()?;
    present("no cuBLASLt", cublaslt::is_present())?;
    Some(gpu)
}

/// Bytes of values in the element type, and the values after rounding to it.
fn rounded(dtype: DType, values: &[f64]) -> (Vec<u8>, Vec<f64>) {
    let mut bytes = Vec::new();
    let mut back = Vec::new();
    for v in values {
        match dtype {
            DType::F32 => (bytes.extend((*v as f32).to_ne_bytes()), back.push(*v as f32 as f64)),
            DType::F16 => (bytes.extend(f16::from_f64(*v).to_ne_bytes()), back.push(f16::from_f64(*v).to_f64())),
            DType::BF16 => (bytes.extend(bf16::from_f64(*v).to_ne_bytes()), back.push(bf16::from_f64(*v).to_f64())),
            other => panic!("no products in {other}"),
        };
    }
    (bytes, back)
}

fn values_of(dtype: DType, bytes: &[u8]) -> Vec<f64> {
    let chunks = bytes.chunks_exact(dtype.size());
    match dtype {
        DType::F32 => chunks.map(|c| f32::from_ne_bytes(c.try_into().unwrap()) as f64).collect(),
        DType::F16 => chunks.map(|c| f16::from_ne_bytes(c.try_into().unwrap()).to_f64()).collect(),
        DType::BF16 => chunks.map(|c| bf16::from_ne_bytes(c.try_into().unwrap()).to_f64()).collect(),
        other => panic!("no products in {other}"),
    }
}

/// Values between -1 and 1 that repeat in no tile's rhythm.
fn noise(n: i64, seed: u64) -> Vec<f64> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f64 / (1u64 << 23) as f64 - 1.0
    };
    (0..n).map(|_| next()).collect()
}

/// Largest difference that rounding explains: of the products (tf32 only), of the sum, of the result.
fn tolerance(g: &LibraryGemm) -> f64 {
    let result = match g.dtype {
        DType::F32 => 1e-6,
        DType::F16 => 1e-3,
        _ => 8e-3,
    };
    let products = if g.tf32 { 2e-3 } else { 1e-6 };
    (g.k as f64).sqrt() * (result + products) * 2.0 + 1e-6
}

/// Runs the product and compares it with the loop; the bias is used when the product has one.
fn check(gpu: &Gpu, plan: &GemmPlan, g: &LibraryGemm, seed: u64) {
    let size = |stride: i64, one: i64| stride * (g.batch - 1) + one;
    let (a_bytes, a) = rounded(g.dtype, &noise(size(g.stride_a, g.m * g.k), seed));
    let (b_bytes, b) = rounded(g.dtype, &noise(size(g.stride_b, g.k * g.n), seed + 1));
    let (bias_bytes, bias) = rounded(g.dtype, &noise(g.n, seed + 2));
    let d_len = size(g.stride_d, g.m * g.n);
    let stream = Stream::new(gpu);
    let (a_mem, b_mem, bias_mem) = (Memory::of(gpu, &a_bytes), Memory::of(gpu, &b_bytes), Memory::of(gpu, &bias_bytes));
    let d_mem = Memory::of(gpu, &vec![0x7eu8; d_len as usize * g.dtype.size()]);
    let work = Memory::new(gpu, plan.workspace_bytes());
    {
        let _context = gpu.enter().unwrap();
        let bias = if g.bias.is_some() { bias_mem.ptr } else { 0 };
        // SAFETY: operands as large as the product says; all live until the read below.
        unsafe {
            plan.run(a_mem.ptr, b_mem.ptr, d_mem.ptr, bias, work.ptr, plan.workspace_bytes(), stream.raw).unwrap();
        }
    }
    let got = values_of(g.dtype, &d_mem.read::<u8>(stream.raw));
    for p in 0..g.batch {
        for i in 0..g.m {
            for j in 0..g.n {
                let mut sum = 0.0;
                for l in 0..g.k {
                    let a_at = p * g.stride_a + if g.trans_a { l * g.m + i } else { i * g.k + l };
                    let b_at = p * g.stride_b + if g.trans_b { j * g.k + l } else { l * g.n + j };
                    sum += a[a_at as usize] * b[b_at as usize];
                }
                let mut want = sum * g.alpha as f64;
                if g.bias.is_some() {
                    want += bias[j as usize];
                }
                if g.relu {
                    want = want.max(0.0);
                }
                let got = got[(p * g.stride_d + i * g.n + j) as usize];
                assert!(
                    (got - want).abs() <= tolerance(g),
                    "{plan:?}: at [{p},{i},{j}] expected {want}, got {got} (tolerance {})",
                    tolerance(g)
                );
            }
        }
    }
}

fn plan_and_check(gpu: &Gpu, g: &LibraryGemm, seed: u64) {
    let plan = GemmPlan::new(&gpu.device, g, WORKSPACE).unwrap_or_else(|e| panic!("{e}"));
    assert!(plan.workspace_bytes() <= WORKSPACE);
    check(gpu, &plan, g, seed);
}

#[test]
fn all_transpositions_batches_and_epilogues() {
    let Some(gpu) = with_library() else { return };
    for dtype in [DType::F32, DType::F16, DType::BF16] {
        for (n, (trans_a, trans_b)) in [(false, false), (false, true), (true, false), (true, true)].into_iter().enumerate() {
            for batch in [1, 3] {
                for (bias, relu) in [(false, false), (true, false), (false, true), (true, true)] {
                    // Every size another one, multiples of 8 so that tensor cores may be used.
                    let mut g = gemm(dtype, batch, [24, 40, 56], trans_a, trans_b);
                    g.bias = bias.then_some(Arg::In(2));
                    g.relu = relu;
                    plan_and_check(&gpu, &g, 11 * n as u64 + batch as u64);
                }
            }
        }
    }
}

#[test]
fn sizes_that_fill_no_tile() {
    let Some(gpu) = with_library() else { return };
    for dtype in [DType::F32, DType::F16] {
        for size in [[1, 1, 1], [1, 5, 3], [7, 1, 3], [5, 7, 1], [127, 129, 65], [128, 128, 64], [1, 1000, 512], [13, 17, 1031]] {
            for (trans_a, trans_b) in [(false, false), (false, true), (true, false)] {
                plan_and_check(&gpu, &gemm(dtype, 1, size, trans_a, trans_b), 5);
            }
        }
    }
}

#[test]
fn a_weight_is_shared_by_the_batch_with_stride_zero() {
    let Some(gpu) = with_library() else { return };
    for dtype in [DType::F32, DType::F16] {
        let mut g = gemm(dtype, 4, [16, 24, 32], false, true);
        g.stride_b = 0;
        plan_and_check(&gpu, &g, 3);
        g.stride_b = g.k * g.n;
        g.stride_a = 0;
        plan_and_check(&gpu, &g, 4);
    }
}

#[test]
fn alpha_scales_and_tf32_stays_close() {
    let Some(gpu) = with_library() else { return };
    let mut g = gemm(DType::F32, 1, [64, 72, 80], false, false);
    g.alpha = 0.125;
    plan_and_check(&gpu, &g, 21);
    g.alpha = 1.0;
    g.tf32 = true;
    plan_and_check(&gpu, &g, 22);
}

#[test]
fn every_algorithm_that_is_offered_computes_the_same() {
    let Some(gpu) = with_library() else { return };
    let mut g = gemm(DType::F16, 2, [96, 80, 256], false, true);
    g.bias = Some(Arg::In(2));
    let n = n_algos(&gpu.device, &g, WORKSPACE, 8).unwrap();
    assert!((1..=8).contains(&n), "{n} algorithms");
    for rank in 0..n {
        g.algo_rank = rank as i64;
        plan_and_check(&gpu, &g, 31);
    }
    g.algo_rank = 900;
    assert_eq!(GemmPlan::new(&gpu.device, &g, WORKSPACE).unwrap_err().code, ErrorCode::Unsupported);
}

#[test]
fn a_plan_follows_another_bias_address() {
    let Some(gpu) = with_library() else { return };
    let mut g = gemm(DType::F16, 1, [32, 64, 16], false, false);
    g.bias = Some(Arg::In(2));
    let plan = GemmPlan::new(&gpu.device, &g, WORKSPACE).unwrap();
    // Each check has memory and values of its own.
    (0..3).for_each(|seed| check(&gpu, &plan, &g, 100 * seed));
}

#[test]
fn a_misaligned_address_or_a_small_workspace_is_refused() {
    let Some(gpu) = with_library() else { return };
    let plan = GemmPlan::new(&gpu.device, &gemm(DType::F32, 1, [16, 16, 16], false, false), WORKSPACE).unwrap();
    let _context = gpu.enter().unwrap();
    for [a, b, d] in [[0x1004, 0x2000, 0x3000], [0x1000, 0, 0x3000]] {
        // SAFETY: refused before anything is enqueued.
        let e = unsafe { plan.run(a, b, d, 0, 0, usize::MAX, std::ptr::null_mut()) }.unwrap_err();
        assert_eq!(e.code, ErrorCode::InvalidArgument);
        assert!(e.message.contains("gemm f32 16x16x16 nn"), "{}", e.message);
    }
}

#[test]
fn products_can_be_captured_and_replayed() {
    let Some(gpu) = with_library() else { return };
    let g = gemm(DType::F16, 1, [64, 64, 64], false, false);
    let plan = GemmPlan::new(&gpu.device, &g, WORKSPACE).unwrap();
    let ones: Vec<u8> = rounded(DType::F16, &[1.0; 64 * 64]).0;
    let (a, b, d) = (Memory::of(&gpu, &ones), Memory::of(&gpu, &ones), Memory::new(&gpu, ones.len()));
    let work = Memory::new(&gpu, plan.workspace_bytes());
    let stream = Stream::new(&gpu);
    // SAFETY: operands as large as the product says; all live to the end.
    unsafe {
        let _context = gpu.enter().unwrap();
        gpu.begin_capture(stream.raw).unwrap(); // The very first run of the plan is the captured one.
        plan.run(a.ptr, b.ptr, d.ptr, 0, work.ptr, plan.workspace_bytes(), stream.raw).unwrap();
        let graph = gpu.end_capture(stream.raw).unwrap();
        let mut exec = graph.instantiate().unwrap();
        exec.launch(stream.raw).unwrap();
        sinter::device::Device::stream_synchronize(&*gpu.device, stream.raw).unwrap();
    }
    assert!(values_of(DType::F16, &d.read::<u8>(stream.raw)).iter().all(|v| *v == 64.0));
}

#[test]
fn a_product_becomes_a_part_of_a_built_graph() {
    let Some(gpu) = with_library() else { return };
    if !GraphBuilder::takes_libraries(&gpu.device) {
        return eprintln!("skipped: the driver does not record streams into graphs");
    }
    let g = gemm(DType::F16, 1, [64, 64, 64], false, false);
    let plan = GemmPlan::new(&gpu.device, &g, WORKSPACE).unwrap();
    let ones: Vec<u8> = rounded(DType::F16, &[1.0; 64 * 64]).0;
    let (a, b, d, e) = (Memory::of(&gpu, &ones), Memory::of(&gpu, &ones), Memory::new(&gpu, ones.len()), Memory::new(&gpu, ones.len()));
    let work = Memory::new(&gpu, plan.workspace_bytes());
    let stream = Stream::new(&gpu);
    let _context = gpu.enter().unwrap();
    let mut builder = GraphBuilder::new(&gpu.device).unwrap();
    // SAFETY: operands as large as the product says; all live to the end.
    unsafe {
        let run = |a: u64, b: u64, d: u64| {
            let (plan, work) = (&plan, work.ptr);
            move |stream| plan.run(a, b, d, 0, work, plan.workspace_bytes(), stream)
        };
        // d = a b, then e = d b, with a fill of a in between: each sees what is before it and nothing behind.
        let first = builder.library(&[], run(a.ptr, b.ptr, d.ptr)).unwrap();
        let fill = builder.fill(a.ptr, 0, ones.len(), &first).unwrap().unwrap();
        let second = builder.library(&[fill], run(d.ptr, b.ptr, e.ptr)).unwrap();
        builder.copy(a.ptr, b.ptr, ones.len(), &second).unwrap();
        let graph = builder.finish();
        assert!(graph.n_nodes().unwrap() >= 4);
        let mut exec = graph.instantiate().unwrap();
        for _ in 0..3 {
            exec.launch(stream.raw).unwrap();
        }
    }
    let same = |m: &Memory<'_>, want: f64| values_of(DType::F16, &m.read::<u8>(stream.raw)).iter().all(|v| *v == want);
    assert!(same(&d, 64.0) && same(&e, 4096.0));
}
