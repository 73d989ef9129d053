//! Criterion benchmarks that need no GPU: building, storing, loading and running the repository's own network.
//!
//! `cargo bench --bench engine`. Comparisons with other runtimes are in `RESULTS.md`, with the commands that made them.

use criterion::{Criterion, criterion_group, criterion_main};
use sinter::base::DType;
use sinter::builder::{BuilderConfig, build};
use sinter::device::{Buffer, DeviceKind, DeviceRef};
use sinter::engine::{Engine, OtherDevice};
use sinter::onnx::importer::import_file;
use sinter::runtime::Context;
use std::path::Path;

fn engine(c: &mut Criterion) {
    let device = DeviceRef::open(DeviceKind::Cpu).expect("the CPU is always there");
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples_c/models/digits.onnx");
    let graph = import_file(&model).expect("the repository's model imports");
    let make = || build(&graph, &BuilderConfig::default(), &device, &mut |_, _| true).expect("it builds");
    let bytes = make().to_bytes().expect("it is stored");
    c.bench_function("import", |b| b.iter(|| import_file(&model)));
    c.bench_function("build", |b| b.iter(make));
    c.bench_function("load", |b| b.iter(|| Engine::from_bytes(&bytes, &device, OtherDevice::Error)));

    let engine = Engine::from_bytes(&bytes, &device, OtherDevice::Error).expect("it loads");
    let mut cx = Context::new(&engine).expect("a context");
    for batch in [1usize, 16] {
        let input = Buffer::new(&device, batch * 64 * DType::F32.size()).expect("memory");
        let output = Buffer::new(&device, batch * 10 * DType::F32.size()).expect("memory");
        // SAFETY: CPU memory of this size; any bytes are numbers.
        unsafe { std::ptr::write_bytes(input.ptr() as *mut u8, 0x3f, input.bytes()) };
        cx.set_input_shape("image", &[batch as i64, 1, 8, 8]).expect("the shape is legal");
        cx.bind("image", input.ptr()).expect("the input exists");
        cx.bind("probabilities", output.ptr()).expect("the output exists");
        c.bench_function(&format!("run/batch{batch}"), |b| b.iter(|| cx.execute().expect("it runs")));
    }
}

criterion_group!(benches, engine);
criterion_main!(benches);
