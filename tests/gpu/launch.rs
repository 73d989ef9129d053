//! Compiling, loading and launching kernels; graphs.

use crate::{Gpu, Memory, Stream, assert_same, gpu, have_nvrtc};
use sinter::base::ErrorCode;
use sinter::device::cuda::graph::GraphBuilder;
use sinter::device::cuda::launch::launch;
use sinter::device::cuda::{Function, Module, PreparedLaunch, Start, arch_of, nvrtc};
use sinter::device::{Device, RawStream};
use sinter::ops::tactic::{Arg, Launch, i32_struct};

const SOURCE: &str = r#"
#include "generated.cuh"
struct Shape { int rows, cols, extra; };
// y[r,c] = a * x[r,c] + b, by grid-stride loop; uses every kind of argument.
extern "C" __global__ void KERNEL_NAME(const T* x, T* y, const T* absent, Shape shape, float a, double b, long long n)
{
    for (long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x; i < n; i += (long long)gridDim.x * blockDim.x)
        if (i < (long long)shape.rows * shape.cols + shape.extra) y[i] = BODY(a * x[i] + (T)b) + (absent ? (T)1e9 : (T)0);
}
"#;

const SMEM_SOURCE: &str = r#"
// Reverses one block's worth of values through dynamic shared memory.
extern __shared__ float tile[];
extern "C" __global__ void reverse(float* x, int n)
{
    for (int i = threadIdx.x; i < n; i += blockDim.x) tile[i] = x[i];
    __syncthreads();
    for (int i = threadIdx.x; i < n; i += blockDim.x) x[i] = tile[n - 1 - i];
}
"#;

const GROW_SOURCE: &str = r#"
// x += 1, after everything ahead of it on the stream is done, also under programmatic dependent launch.
extern "C" __global__ void grow(float* x, int n)
{
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) x[i] += 1.0f;
}
"#;

fn compile(gpu: &Gpu, source: &str, defines: &[(&str, &str)]) -> Module {
    let defines: Vec<_> = defines.iter().map(|(n, v)| (n.to_string(), v.to_string())).collect();
    let headers = [("generated.cuh", "#pragma once\n#define BODY(v) (v)\n")];
    let arch = arch_of(gpu.props().sm);
    let compiled = nvrtc::compile(source, "test.cu", &headers, &defines, &arch).unwrap_or_else(|e| panic!("{e}"));
    Module::load(&gpu.device, &compiled.cubin).unwrap()
}

fn affine(n: i64) -> Launch {
    Launch {
        kernel: 0,
        grid: [3, 1, 1],
        block: [64, 1, 1],
        smem: 0,
        args: vec![
            Arg::In(0),
            Arg::Out(0),
            Arg::Null,
            i32_struct([10, 100, -1]),
            Arg::F32(2.0),
            Arg::F64(0.5),
            Arg::I64(n),
        ],
    }
}

#[test]
fn a_prepared_launch_computes_and_follows_changed_addresses() {
    let Some(gpu) = gpu() else { return };
    if !have_nvrtc() {
        return;
    }
    let stream = Stream::new(&gpu);
    let module = compile(&gpu, SOURCE, &[("KERNEL_NAME", "affine_test"), ("T", "float")]);
    let function = module.function("affine_test").unwrap();
    assert!(function.n_registers().unwrap() > 0);
    assert!(function.blocks_per_sm(64, 0).unwrap() > 0);
    assert!(["affine_test", "?"].contains(&function.name().as_str()));
    assert_eq!(module.function("nothing").unwrap_err().code, ErrorCode::NotFound);

    let x: Vec<f32> = (0..1000).map(|i| i as f32).collect();
    let (input, other) = (Memory::of(&gpu, &x), Memory::of(&gpu, &vec![7f32; 1000]));
    let output = Memory::of(&gpu, &vec![-1f32; 1000]);
    let mut prepared = PreparedLaunch::new(function, &affine(1000)).unwrap();
    assert_eq!(prepared.slots().cloned().collect::<Vec<_>>(), [Arg::In(0), Arg::Out(0)]);
    prepared.set_address(0, input.ptr).unwrap();
    prepared.set_address(1, output.ptr).unwrap();
    {
        let _context = gpu.enter().unwrap();
        // SAFETY: the arguments are the kernel's; the memory lives to the end.
        unsafe { prepared.run(stream.raw).unwrap() };
    }
    let mut want: Vec<f32> = x.iter().map(|v| 2.0 * v + 0.5).collect();
    want[999] = -1.0; // The struct says one element fewer.
    assert_same(&output.read::<f32>(stream.raw), &want);

    prepared.set_address(0, other.ptr).unwrap();
    {
        let _context = gpu.enter().unwrap();
        // SAFETY: as above.
        unsafe { prepared.run(stream.raw).unwrap() };
    }
    assert_same(&output.read::<f32>(stream.raw)[..999], &vec![14.5f32; 999]);
}

#[test]
fn a_plain_launch_computes() {
    let Some(gpu) = gpu() else { return };
    if !have_nvrtc() {
        return;
    }
    let module = compile(&gpu, GROW_SOURCE, &[]);
    let function = module.function("grow").unwrap();
    let memory = Memory::of(&gpu, &[1f32, 2.0, 3.0]);
    let (mut address, mut n) = (memory.ptr, 3i32);
    let mut params = [(&raw mut address).cast(), (&raw mut n).cast()];
    let stream: RawStream = std::ptr::null_mut();
    {
        let _context = gpu.enter().unwrap();
        // SAFETY: the arguments are the kernel's; the memory lives to the end.
        unsafe { launch(&gpu, function, [1; 3], [32, 1, 1], 0, &mut params, stream).unwrap() };
        // SAFETY: never launched: the driver refuses the block.
        let e = unsafe { launch(&gpu, function, [1; 3], [4096, 1, 1], 0, &mut params, stream) }.unwrap_err();
        assert_eq!(e.code, ErrorCode::Cuda);
        assert!(e.message.contains("4096") && e.message.contains("CUDA_ERROR"), "{}", e.message);
    }
    assert_eq!(memory.read::<f32>(stream), [2.0, 3.0, 4.0]);
}

#[test]
fn large_shared_memory_is_allowed_and_never_taken_back() {
    let Some(gpu) = gpu() else { return };
    if !have_nvrtc() {
        return;
    }
    let stream = Stream::new(&gpu);
    let module = compile(&gpu, SMEM_SOURCE, &[]);
    let function = module.function("reverse").unwrap();
    let n = gpu.props().max_smem_per_block as usize / 4 - 256;
    let values: Vec<f32> = (0..n).map(|i| i as f32).collect();
    let memory = Memory::of(&gpu, &values);
    let of = |n: usize| Launch {
        kernel: 0,
        grid: [1, 1, 1],
        block: [256, 1, 1],
        smem: 4 * n as u32,
        args: vec![Arg::Out(0), Arg::I32(n as i32)],
    };
    let mut large = PreparedLaunch::new(function, &of(n)).unwrap();
    let mut small = PreparedLaunch::new(function, &of(8)).unwrap();
    for prepared in [&mut small, &mut large] {
        prepared.set_address(0, memory.ptr).unwrap();
        let _context = gpu.enter().unwrap();
        // SAFETY: the arguments are the kernel's; the memory lives to the end.
        unsafe { prepared.run(stream.raw).unwrap() };
    }
    let mut want = values;
    want[..8].reverse();
    want.reverse();
    assert_same(&memory.read::<f32>(stream.raw), &want);
    let e = PreparedLaunch::new(function, &of(1 << 20)).unwrap_err();
    assert_eq!(e.code, ErrorCode::Cuda);
    assert!(e.message.contains("shared memory"), "{}", e.message);
}

#[test]
fn a_broken_cubin_is_an_error() {
    let Some(gpu) = gpu() else { return };
    assert_eq!(Module::load(&gpu.device, b"not a cubin").unwrap_err().code, ErrorCode::CorruptData);
    if !have_nvrtc() {
        return;
    }
    let other = if gpu.props().sm >= 90 { "sm_80" } else { "sm_90a" };
    let compiled = nvrtc::compile(GROW_SOURCE, "test.cu", &[], &[], other).unwrap();
    let e = Module::load(&gpu.device, &compiled.cubin[..compiled.cubin.len() / 2]).unwrap_err();
    assert_eq!(e.code, ErrorCode::CorruptData);
    let e = Module::load(&gpu.device, &compiled.cubin).unwrap_err();
    assert!(e.message.contains("not compiled for this device"), "{}", e.message);
    // An image at an odd address is loaded all the same.
    let compiled = nvrtc::compile(GROW_SOURCE, "test.cu", &[], &[], &arch_of(gpu.props().sm)).unwrap();
    let mut shifted = vec![0u8];
    shifted.extend(&compiled.cubin);
    Module::load(&gpu.device, &shifted[1..]).unwrap().function("grow").unwrap();
}

fn grow_launch(n: i32) -> Launch {
    Launch { kernel: 0, grid: [(n as u32).div_ceil(128), 1, 1], block: [128, 1, 1], smem: 0, args: vec![Arg::Out(0), Arg::I32(n)] }
}

#[test]
fn programmatic_launches_keep_their_order() {
    let Some(gpu) = gpu() else { return };
    if !have_nvrtc() {
        return;
    }
    let stream = Stream::new(&gpu);
    let module = compile(&gpu, GROW_SOURCE, &[]);
    let memory = Memory::of(&gpu, &vec![0f32; 100_000]);
    let mut prepared = PreparedLaunch::new(module.function("grow").unwrap(), &grow_launch(100_000)).unwrap();
    prepared.set_address(0, memory.ptr).unwrap();
    prepared.set_start(if gpu.props().sm >= 90 { Start::WhenAllowed } else { Start::AfterAll });
    {
        let _context = gpu.enter().unwrap();
        for _ in 0..100 {
            // SAFETY: the arguments are the kernel's; the memory lives to the end.
            unsafe { prepared.run(stream.raw).unwrap() };
        }
    }
    assert_same(&memory.read::<f32>(stream.raw), &vec![100f32; 100_000]);
}

#[test]
fn kernels_of_a_built_graph_keep_their_order_and_take_new_addresses() {
    let Some(gpu) = gpu() else { return };
    if !have_nvrtc() {
        return;
    }
    let stream = Stream::new(&gpu);
    let module = compile(&gpu, GROW_SOURCE, &[]);
    let _context = gpu.enter().unwrap();
    for start in [Start::AfterAll, Start::WhenAllowed, Start::WhenBegun] {
        if gpu.props().sm >= 90 || start == Start::AfterAll {
            built_graph(&gpu, &stream, module.function("grow").unwrap().starting(start));
        }
    }
}

fn built_graph(gpu: &Gpu, stream: &Stream<'_>, grow: Function) {
    const N: usize = 100_000;
    let (one, two) = (Memory::of(gpu, &vec![0f32; N]), Memory::of(gpu, &vec![0f32; N]));
    let mut prepared = PreparedLaunch::new(grow, &grow_launch(N as i32)).unwrap();
    prepared.set_address(0, one.ptr).unwrap();
    let mut builder = GraphBuilder::new(gpu).unwrap();
    // SAFETY: the arguments are the kernel's; the memory lives to the end.
    let (graph, last) = unsafe {
        let mut after = vec![builder.fill(one.ptr, 0, N * 4, &[]).unwrap().unwrap()];
        for _ in 0..50 {
            after = vec![builder.kernel(&mut prepared, &after).unwrap()];
        }
        // Two that depend on the same, then one behind both.
        prepared.set_address(0, two.ptr).unwrap();
        let side = builder.kernel(&mut prepared, &after).unwrap();
        prepared.set_address(0, one.ptr).unwrap();
        let main = builder.kernel(&mut prepared, &after).unwrap();
        let last = builder.kernel(&mut prepared, &[main, side]).unwrap();
        (builder.finish(), last)
    };
    assert_eq!(graph.n_nodes().unwrap(), 54);
    let mut exec = graph.instantiate().unwrap();
    // SAFETY: as above; the graph and the launch are those that the node was made from.
    unsafe {
        for _ in 0..20 {
            exec.launch(stream.raw).unwrap();
        }
        assert_same(&one.read::<f32>(stream.raw), &vec![52f32; N]);
        assert_same(&two.read::<f32>(stream.raw), &vec![20f32; N]);
        exec.launch(stream.raw).unwrap();
        prepared.set_address(0, two.ptr).unwrap();
        exec.set_kernel(last, &mut prepared).unwrap();
        exec.launch(stream.raw).unwrap();
    }
    assert_same(&one.read::<f32>(stream.raw), &vec![51f32; N]);
    assert_same(&two.read::<f32>(stream.raw), &vec![23f32; N]);
}

#[test]
fn a_graph_replays_and_takes_new_addresses() {
    let Some(gpu) = gpu() else { return };
    if !have_nvrtc() {
        return;
    }
    let stream = Stream::new(&gpu);
    let module = compile(&gpu, GROW_SOURCE, &[]);
    let (one, two) = (Memory::of(&gpu, &vec![0f32; 300]), Memory::of(&gpu, &vec![0f32; 300]));
    let mut prepared = PreparedLaunch::new(module.function("grow").unwrap(), &grow_launch(300)).unwrap();
    let mut record = |address: u64, n_launches: usize| {
        prepared.set_address(0, address).unwrap();
        let _context = gpu.enter().unwrap();
        // SAFETY: the stream is ours; the memory lives to the end.
        unsafe {
            assert!(!gpu.is_capturing(stream.raw).unwrap());
            gpu.begin_capture(stream.raw).unwrap();
            assert!(gpu.is_capturing(stream.raw).unwrap());
            for _ in 0..n_launches {
                prepared.run(stream.raw).unwrap();
            }
            gpu.end_capture(stream.raw).unwrap()
        }
    };
    let graph = record(one.ptr, 2);
    assert_eq!(graph.n_nodes().unwrap(), 2);
    let mut exec = graph.instantiate().unwrap();
    let moved = record(two.ptr, 2);
    let longer = record(two.ptr, 3);
    // SAFETY: the stream and the memory live to the end.
    unsafe {
        let _context = gpu.enter().unwrap();
        exec.upload(stream.raw).unwrap();
        exec.launch(stream.raw).unwrap();
        exec.launch(stream.raw).unwrap();
        gpu.stream_synchronize(stream.raw).unwrap();
        assert!(exec.update(&moved).unwrap(), "the same structure takes new addresses");
        exec.launch(stream.raw).unwrap();
        gpu.stream_synchronize(stream.raw).unwrap();
        assert!(!exec.update(&longer).unwrap(), "another structure is refused");
        // The legacy default stream is never captured.
        assert!(!gpu.is_capturing(std::ptr::null_mut()).unwrap());
        assert_eq!(gpu.begin_capture(std::ptr::null_mut()).unwrap_err().code, ErrorCode::InvalidArgument);
    }
    assert_same(&one.read::<f32>(stream.raw), &vec![4f32; 300]);
    assert_same(&two.read::<f32>(stream.raw), &vec![2f32; 300]);
}

#[test]
fn threads_launch_side_by_side() {
    let Some(gpu) = gpu() else { return };
    if !have_nvrtc() {
        return;
    }
    let module = compile(&gpu, GROW_SOURCE, &[]);
    let function = module.function("grow").unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let stream = Stream::new(&gpu);
                let memory = Memory::of(&gpu, &vec![0f32; 5000]);
                let mut prepared = PreparedLaunch::new(function, &grow_launch(5000)).unwrap();
                prepared.set_address(0, memory.ptr).unwrap();
                {
                    let _context = gpu.enter().unwrap();
                    for _ in 0..50 {
                        // SAFETY: the arguments are the kernel's; the memory lives to the end.
                        unsafe { prepared.run(stream.raw).unwrap() };
                    }
                }
                assert_same(&memory.read::<f32>(stream.raw), &vec![50f32; 5000]);
            });
        }
    });
}

#[test]
fn modules_give_their_memory_back() {
    let Some(gpu) = gpu() else { return };
    if !have_nvrtc() {
        return;
    }
    let arch = arch_of(gpu.props().sm);
    let cubin = nvrtc::compile(GROW_SOURCE, "test.cu", &[], &[], &arch).unwrap().cubin;
    let cycle = || {
        let modules: Vec<_> = (0..50).map(|_| Module::load(&gpu.device, &cubin).unwrap()).collect();
        assert!(modules.iter().all(|m| m.function("grow").is_ok()));
    };
    cycle();
    let before = gpu.memory_info().unwrap().0;
    (0..5).for_each(|_| cycle());
    let after = gpu.memory_info().unwrap().0;
    assert!(after + (4 << 20) >= before, "{before} bytes were free before, {after} are now");
}
