//! The runtime on the GPU: threads, memory, shapes, events, capture, engines that move between machines.

use crate::models::{self, compare};
use crate::{Gpu, gpu, have_nvrtc};
use sinter::autotune::CacheUse;
use sinter::autotune::cache::TimingCache;
use sinter::base::{DType, Fact, Tensor};
use sinter::builder::{BuilderConfig, build};
use sinter::device::{Buffer, CopyKind, Device, DeviceKind, DeviceRef};
use sinter::engine::{Engine, OtherDevice};
use sinter::network::Graph;
use sinter::onnx::importer::import_file;
use sinter::onnx::read_tensor_file;
use sinter::ops::pointwise::{Func, Pointwise, Program};
use sinter::ops::softmax::Softmax;
use sinter::plan::{Profile, Range};
use sinter::runtime::Context;
use std::path::{Path, PathBuf};
use std::sync::Arc;

fn digits() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples_c/models");
    // The binary may run on another machine than it was built on, in a copy of the repository.
    if here.exists() { here } else { PathBuf::from("examples_c/models") }
}

fn digits_set() -> (Tensor, Tensor) {
    let set = digits().join("digits/test_data_set_0");
    let read = |f: &str| read_tensor_file(set.join(f)).unwrap();
    (read("input_0.pb"), read("output_0.pb"))
}

fn image(device: &DeviceRef) -> sinter::engine::EngineImage {
    let graph = import_file(&digits().join("digits.onnx")).unwrap();
    let range = Range { min: vec![1, 1, 8, 8], opt: vec![4, 1, 8, 8], max: vec![16, 1, 8, 8] };
    let profile = Profile { inputs: [("image".to_string(), range)].into() };
    let config = BuilderConfig { profiles: vec![profile], ..BuilderConfig::default() };
    build(&graph, &config, device, &mut |_, _| true).unwrap()
}

/// The device and an engine of the digit model, or nothing.
fn engine() -> Option<(Gpu, DeviceRef, Arc<Engine>)> {
    let gpu = gpu()?;
    if !have_nvrtc() {
        return None;
    }
    let device = DeviceRef::Cuda(gpu.device.clone());
    let engine = Engine::load(image(&device), &device, OtherDevice::Error).unwrap();
    Some((gpu, device, engine))
}

fn upload(device: &DeviceRef, t: &Tensor) -> Buffer {
    let b = Buffer::new(device, t.bytes().len()).unwrap();
    // SAFETY: same size; synchronized before `t` can go.
    unsafe {
        let null = std::ptr::null_mut();
        device.copy(b.ptr(), t.bytes().as_ptr() as u64, t.bytes().len(), CopyKind::HostToDevice, null).unwrap();
        device.stream_synchronize(null).unwrap();
    }
    b
}

fn download(device: &DeviceRef, b: &Buffer, dims: &[usize]) -> Tensor {
    let mut t = Tensor::zeros(sinter::base::DType::F32, dims);
    let n = t.bytes().len();
    // SAFETY: same size.
    unsafe {
        let null = std::ptr::null_mut();
        device.copy(t.bytes_mut().as_mut_ptr() as u64, b.ptr(), n, CopyKind::DeviceToHost, null).unwrap();
        device.stream_synchronize(null).unwrap();
    }
    t
}

/// The first `n` images of the data set, and what they give.
fn batch(n: usize) -> (Tensor, Tensor) {
    let (x, y) = digits_set();
    let x = Tensor::from_slice(&[n, 1, 8, 8], &x.slice::<f32>()[..n * 64]);
    let y = Tensor::from_slice(&[n, 10], &y.slice::<f32>()[..n * 10]);
    (x, y)
}

#[test]
fn eight_threads_with_a_context_each_give_the_same_bits() {
    let Some((_gpu, device, engine)) = engine() else { return };
    const ENQUEUES: usize = 10_000;
    let (x, want) = batch(4);
    let outputs: Vec<Tensor> = std::thread::scope(|s| {
        let threads: Vec<_> = (0..8)
            .map(|_| {
                s.spawn(|| {
                    let mut cx = Context::new(&engine).unwrap();
                    cx.set_input_shape("image", &[4, 1, 8, 8]).unwrap();
                    let input = upload(&device, &x);
                    let output = Buffer::new(&device, 4 * 10 * 4).unwrap();
                    cx.bind("image", input.ptr()).unwrap();
                    cx.bind("probabilities", output.ptr()).unwrap();
                    let stream = device.stream_create().unwrap();
                    for i in 0..ENQUEUES {
                        cx.enqueue(stream, std::ptr::null_mut()).unwrap();
                        if i % 500 == 0 {
                            // SAFETY: our stream. Keeps the queue short and compares along the way.
                            unsafe { device.stream_synchronize(stream).unwrap() };
                            let now = download(&device, &output, &[4, 10]);
                            compare("probabilities", &now, &want, None).unwrap();
                        }
                    }
                    // SAFETY: our stream, destroyed once.
                    unsafe {
                        device.stream_synchronize(stream).unwrap();
                        device.stream_destroy(stream).unwrap();
                    }
                    download(&device, &output, &[4, 10])
                })
            })
            .collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    compare("probabilities", &outputs[0], &want, None).unwrap();
    assert!(outputs.iter().all(|o| o.same(&outputs[0])), "outputs of threads differ in bits");
}

#[test]
fn device_memory_comes_back_when_everything_is_destroyed() {
    let Some((gpu, device, first)) = engine() else { return };
    // The first engine has made the driver and cuBLASLt load what they keep for the life of the process.
    let (x, _) = batch(4);
    models::run(&first, std::slice::from_ref(&x)).unwrap();
    drop(first);
    let free = || gpu.device.memory_info().unwrap().0;
    let before = free();
    for _ in 0..3 {
        let e = Engine::load(image(&device), &device, OtherDevice::Error).unwrap();
        assert!(free() <= before);
        models::run(&e, std::slice::from_ref(&x)).unwrap();
    }
    assert_eq!(free(), before, "bytes of device memory did not come back");
}

#[test]
fn shapes_change_between_enqueues_and_allocate_nothing() {
    let Some((gpu, device, engine)) = engine() else { return };
    let mut cx = Context::new(&engine).unwrap();
    let input = Buffer::new(&device, 16 * 64 * 4).unwrap();
    let output = Buffer::new(&device, 16 * 10 * 4).unwrap();
    cx.bind("image", input.ptr()).unwrap();
    cx.bind("probabilities", output.ptr()).unwrap();
    let mut free = None;
    for round in 0..4 {
        for n in [1usize, 7, 3, 10, 2, 5] {
            let (x, want) = batch(n);
            // SAFETY: fits the buffer; synchronized by the download below.
            unsafe {
                let null = std::ptr::null_mut();
                device.copy(input.ptr(), x.bytes().as_ptr() as u64, x.bytes().len(), CopyKind::HostToDevice, null).unwrap();
                device.stream_synchronize(null).unwrap();
            }
            cx.set_input_shape("image", &[n as i64, 1, 8, 8]).unwrap();
            assert_eq!(cx.tensor_shape("probabilities").unwrap(), [n as i64, 10]);
            cx.execute().unwrap();
            compare("probabilities", &download(&device, &output, &[n, 10]), &want, None).unwrap();
        }
        let now = gpu.device.memory_info().unwrap().0;
        assert!(round == 0 || free == Some(now), "a shape seen before took device memory");
        free = Some(now);
    }
    let e = cx.set_input_shape("image", &[17, 1, 8, 8]).unwrap_err().to_string();
    assert!(e.contains("17") && e.contains("16"), "{e}");
}

#[test]
fn addresses_and_shapes_change_with_every_enqueue() {
    let Some((_gpu, device, engine)) = engine() else { return };
    let mut cx = Context::new(&engine).unwrap();
    let sizes = [1usize, 4, 7];
    let inputs: Vec<Vec<Buffer>> = sizes.iter().map(|n| (0..2).map(|_| upload(&device, &batch(*n).0)).collect()).collect();
    let outputs: Vec<Buffer> = (0..120).map(|_| Buffer::new(&device, 7 * 10 * 4).unwrap()).collect();
    let stream = device.stream_create().unwrap();
    // No wait between: what runs keeps the addresses that it was enqueued with.
    for (i, output) in outputs.iter().enumerate() {
        let k = i / 5 % 3;
        cx.set_input_shape("image", &[sizes[k] as i64, 1, 8, 8]).unwrap();
        cx.bind("image", inputs[k][i % 2].ptr()).unwrap();
        cx.bind("probabilities", output.ptr()).unwrap();
        cx.enqueue(stream, std::ptr::null_mut()).unwrap();
    }
    // SAFETY: our stream, destroyed once.
    unsafe {
        device.stream_synchronize(stream).unwrap();
        device.stream_destroy(stream).unwrap();
    }
    for (i, output) in outputs.iter().enumerate() {
        let n = sizes[i / 5 % 3];
        compare("probabilities", &download(&device, output, &[n, 10]), &batch(n).1, None).unwrap();
    }
}

#[test]
fn inputs_may_be_overwritten_after_the_input_consumed_event() {
    let Some((_gpu, device, engine)) = engine() else { return };
    let mut cx = Context::new(&engine).unwrap();
    cx.set_input_shape("image", &[4, 1, 8, 8]).unwrap();
    let (x, want) = batch(4);
    let (good, input) = (upload(&device, &x), upload(&device, &x));
    let output = Buffer::new(&device, 4 * 10 * 4).unwrap();
    cx.bind("image", input.ptr()).unwrap();
    cx.bind("probabilities", output.ptr()).unwrap();
    let (stream, other) = (device.stream_create().unwrap(), device.stream_create().unwrap());
    let (consumed, refilled) = (device.event_create(false).unwrap(), device.event_create(false).unwrap());
    for _ in 0..1000 {
        cx.enqueue(stream, consumed).unwrap();
        // SAFETY: our handles; the buffers have these sizes.
        unsafe {
            // Spoils the input as soon as the event allows it, then puts the good one back for the next round.
            device.stream_wait_event(other, consumed).unwrap();
            device.fill(input.ptr(), 0x7f, input.bytes(), other).unwrap();
            device.copy(input.ptr(), good.ptr(), good.bytes(), CopyKind::DeviceToDevice, other).unwrap();
            device.event_record(refilled, other).unwrap();
            device.stream_wait_event(stream, refilled).unwrap();
        }
    }
    // SAFETY: our handles, destroyed once.
    unsafe {
        device.stream_synchronize(stream).unwrap();
        compare("probabilities", &download(&device, &output, &[4, 10]), &want, None).unwrap();
        device.stream_destroy(stream).unwrap();
        device.stream_destroy(other).unwrap();
        device.event_destroy(consumed).unwrap();
        device.event_destroy(refilled).unwrap();
    }
}

#[test]
fn the_application_captures_an_enqueue_at_the_first_call() {
    let Some((gpu, device, engine)) = engine() else { return };
    let mut cx = Context::new(&engine).unwrap();
    cx.set_input_shape("image", &[4, 1, 8, 8]).unwrap();
    cx.tensor_shape("probabilities").unwrap();
    let (x, want) = batch(4);
    let input = upload(&device, &x);
    let output = Buffer::new(&device, 4 * 10 * 4).unwrap();
    cx.bind("image", input.ptr()).unwrap();
    cx.bind("probabilities", output.ptr()).unwrap();
    let stream = device.stream_create().unwrap();
    // SAFETY: our stream, used by nobody else.
    let graph = unsafe {
        gpu.device.begin_capture(stream).unwrap();
        cx.enqueue(stream, std::ptr::null_mut()).unwrap();
        gpu.device.end_capture(stream).unwrap()
    };
    let mut exec = graph.instantiate().unwrap();
    // SAFETY: everything that the graph uses is alive.
    unsafe {
        device.fill(output.ptr(), 0xff, output.bytes(), stream).unwrap();
        {
            let _current = gpu.device.enter().unwrap();
            exec.launch(stream).unwrap();
        }
        device.stream_synchronize(stream).unwrap();
        compare("probabilities", &download(&device, &output, &[4, 10]), &want, None).unwrap();
        device.stream_destroy(stream).unwrap();
    }
}

#[test]
fn an_engine_moves_between_the_cpu_and_the_gpu() {
    let Some((_gpu, device, engine)) = engine() else { return };
    let cpu = DeviceRef::open(DeviceKind::Cpu).unwrap();
    let (x, want) = batch(10);
    let check = |e: &Arc<Engine>| {
        let out = models::run(e, std::slice::from_ref(&x)).unwrap();
        compare("probabilities", &out[0], &want, None).unwrap();
    };
    let on_cpu = Engine::from_bytes(&engine.to_bytes().unwrap(), &cpu, OtherDevice::Error).unwrap();
    check(&on_cpu);
    let bytes = image(&cpu).to_bytes().unwrap();
    let e = Engine::from_bytes(&bytes, &device, OtherDevice::Error).unwrap_err().to_string();
    assert!(e.contains("CPU only"), "{e}");
    let on_gpu = Engine::from_bytes(&bytes, &device, OtherDevice::Replan).unwrap();
    check(&on_gpu);
}

/// x, then four rows of soft maxima along alternating axes, and the sum of their ends.
fn branching() -> Graph {
    let mut g = Graph::new("branches");
    let x = g.add_input("x", Fact::new(DType::F32, &[3usize, 40, 50][..])).unwrap();
    let mut sum = None;
    for b in 0..4 {
        let mut v = x;
        for i in 0..5 {
            let softmax = Softmax { axis: if (i + b) % 2 == 0 { -1 } else { 1 }, log: b % 2 == 1, flatten: false };
            v = g.add_node(&format!("s{b}_{i}"), softmax.into(), &[Some(v)]).unwrap()[0];
        }
        sum = Some(match sum {
            None => v,
            Some(s) => {
                let add = Pointwise { program: Program::single(Func::Add, &[DType::F32; 2]).unwrap() };
                g.add_node(&format!("add{b}"), add.into(), &[Some(s), Some(v)]).unwrap()[0]
            }
        });
    }
    g.add_output("y", sum.unwrap()).unwrap();
    g
}

#[test]
fn branches_side_by_side_give_what_a_row_gives() {
    let Some(gpu) = gpu() else { return };
    if !have_nvrtc() {
        return;
    }
    let device = DeviceRef::Cuda(gpu.device.clone());
    let cpu = DeviceRef::open(DeviceKind::Cpu).unwrap();
    let values: Vec<f32> = (0..3 * 40 * 50).map(|i| ((i * 7919) % 1000) as f32 / 250.0 - 2.0).collect();
    let x = Tensor::from_slice(&[3, 40, 50], &values);
    let run = |device: &DeviceRef| {
        let image = build(&branching(), &BuilderConfig::default(), device, &mut |_, _| true).unwrap();
        let engine = Engine::load(image, device, OtherDevice::Error).unwrap();
        models::run(&engine, std::slice::from_ref(&x)).unwrap().remove(0)
    };
    let want = run(&cpu);
    compare("y", &run(&device), &want, None).unwrap();
    // Input and output in one memory: steps run in a row.
    let image = build(&branching(), &BuilderConfig::default(), &device, &mut |_, _| true).unwrap();
    let engine = Engine::load(image, &device, OtherDevice::Error).unwrap();
    let mut cx = Context::new(&engine).unwrap();
    for _ in 0..3 {
        let memory = upload(&device, &x);
        cx.bind("x", memory.ptr()).unwrap();
        cx.bind("y", memory.ptr()).unwrap();
        cx.execute().unwrap();
        compare("y", &download(&device, &memory, &[3, 40, 50]), &want, None).unwrap();
    }
}

#[test]
fn with_a_full_timing_cache_nothing_is_timed_and_the_bytes_are_the_same() {
    let Some(gpu) = gpu() else { return };
    if !have_nvrtc() {
        return;
    }
    let device = DeviceRef::Cuda(gpu.device.clone());
    let graph = import_file(&digits().join("digits.onnx")).unwrap();
    let cache = Arc::new(TimingCache::new());
    let mut config = BuilderConfig::default();
    config.tuning.cache = CacheUse::Given { cache: cache.clone(), ignore_mismatch: false };
    let image = || build(&graph, &config, &device, &mut |_, _| true).unwrap();
    let first = image();
    let times = cache.to_bytes();
    assert!(!cache.is_empty() && !first.plan.as_ref().unwrap().choices.is_empty());
    for c in &first.plan.as_ref().unwrap().choices {
        assert!(c.timed.windows(2).all(|w| w[0].1 <= w[1].1), "the fastest is chosen: {c:?}");
        assert!(c.timed.iter().all(|(_, ms)| *ms > 1e-4 && *ms < 10.0), "{c:?}");
    }
    let second = image();
    assert_eq!(first.to_bytes().unwrap(), second.to_bytes().unwrap());
    assert_eq!(cache.to_bytes(), times, "nothing was timed again");
}
