//! Real networks with recorded outputs, found through `SINTER_TEST_MODELS`: every data set of every model must agree,
//! before and after the engine went through a file. `cpu.rs` and `gpu.rs` run this on their devices.

use sinter::base::{DType, Tensor};
use sinter::builder::{BuilderConfig, build};
use sinter::device::{Buffer, CopyKind, DeviceRef};
use sinter::engine::{BuildOptions, Engine, OtherDevice};
use sinter::onnx::importer::import_file;
use sinter::onnx::read_tensor_file;
use sinter::runtime::{Context, GrowingOutput};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The models that this version must run.
pub const MODELS: &[&str] = &[
    "basic_pitch",
    "bert_shaped_mlm",
    "blazeface",
    "byte_bidi_lstm",
    "byte_bidi_lstm_dynquant",
    "decoder_cross_attention",
    "dtln_2",
    "fastestdet",
    "fastestdet_qlinear",
    "gpt2_past_msops",
    "gtcrn",
    "hand_landmark",
    "katago_b6c96",
    "katago_transformer",
    "locomotion_policy",
    "loop",
    "magika_v3_3",
    "mnist",
    "mobilenet_v2_int8",
    "ppocr_v3_det",
    "qdq_conv",
    "qlstm_scan",
    "qtdnn",
    "residual_block",
    "selfie_segmentation",
    "silero_vad_v3",
    "silero_vad_v5",
    "silero_vad_v6",
    "squeezenet_f16",
    "super_resolution",
    "trees_as_tensors",
    "ultraface_320",
    "yolox_nano",
    "yolox_nano_qdq",
    "yunet_dynamic",
];

/// Models that come quantized: rounding of products to 8 bits decides, so the RMS counts, and they are not built for f16.
const QUANTIZED: &[&str] = &[
    "byte_bidi_lstm_dynquant",
    "fastestdet_qlinear",
    "mobilenet_v2_int8",
    "qdq_conv",
    "qlstm_scan",
    "qtdnn",
    "yolox_nano_qdq",
];

/// f32 against the recorded outputs: |out - ref| <= ATOL + RTOL |ref|.
const RTOL: f64 = 1e-3;
const ATOL: f64 = 1e-5;
/// f16 (engines or outputs): relative RMS error.
const F16_RMS: f64 = 1e-2;
/// Quantized models: relative RMS error.
const QUANTIZED_RMS: f64 = 5e-2;

/// The folder of models, or a loud skip.
pub fn models_dir() -> Option<PathBuf> {
    let dir = sinter::base::knobs::TEST_MODELS.get().map(PathBuf::from);
    if dir.is_none() {
        eprintln!("SKIPPED: SINTER_TEST_MODELS is not set, so no real network was run");
    }
    dir
}

pub fn data_sets(dir: &Path) -> Vec<PathBuf> {
    let mut sets: Vec<PathBuf> = std::fs::read_dir(dir)
        .unwrap_or_else(|e| panic!("{}: {e}", dir.display()))
        .map(|e| e.unwrap().path())
        .filter(|p| p.file_name().is_some_and(|n| n.to_string_lossy().starts_with("test_data_set_")))
        .collect();
    sets.sort();
    assert!(!sets.is_empty(), "{} has no data sets", dir.display());
    sets
}

fn tensors(set: &Path, kind: &str, n: usize) -> Vec<Tensor> {
    (0..n)
        .map(|i| {
            let path = set.join(format!("{kind}_{i}.pb"));
            read_tensor_file(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
        })
        .collect()
}

/// Runs an engine on host tensors and returns its outputs.
pub fn run(engine: &Arc<Engine>, inputs: &[Tensor]) -> sinter::base::Result<Vec<Tensor>> {
    let device = engine.device.clone();
    let mut cx = Context::new(engine)?;
    let io = engine.io_tensors();
    let mut memory = Vec::new();
    for (t, x) in io.iter().filter(|t| t.is_input).zip(inputs) {
        let mut dims: Vec<i64> = x.shape().iter().map(|d| *d as i64).collect();
        // A scalar may be recorded as a vector of one element.
        if t.shape.rank() == 0 && dims == [1] {
            dims.clear();
        }
        cx.set_input_shape(&t.name, &dims)?;
        let b = Buffer::new(&device, x.bytes().len())?;
        // SAFETY: both ranges have this size, and the NULL stream is synchronized before `x` goes.
        unsafe {
            let null = std::ptr::null_mut();
            device.copy(b.ptr(), x.bytes().as_ptr() as u64, x.bytes().len(), CopyKind::HostToDevice, null)?;
            device.stream_synchronize(null)?;
        }
        cx.bind(&t.name, b.ptr())?;
        memory.push(b);
    }
    let mut outs = Vec::new();
    let mut grown = Vec::new();
    for t in io.iter().filter(|t| !t.is_input) {
        let Ok(dims) = cx.tensor_shape(&t.name) else {
            // Its shape depends on the data.
            let memory = Arc::new(GrowingOutput::new(&device));
            cx.set_output_allocator(&t.name, Some(memory.clone()))?;
            grown.push((outs.len(), t.dtype, memory));
            outs.push((Tensor::zeros(t.dtype, &[0]), Buffer::new(&device, 0)?));
            continue;
        };
        let dims: Vec<usize> = dims.iter().map(|d| *d as usize).collect();
        let host = Tensor::zeros(t.dtype, &dims);
        let b = Buffer::new(&device, host.bytes().len())?;
        // SAFETY: inside the buffer. The poison shows elements that nothing writes.
        unsafe { device.fill(b.ptr(), 0xa5, host.bytes().len(), std::ptr::null_mut())? };
        cx.bind(&t.name, b.ptr())?;
        outs.push((host, b));
    }
    // Twice: the second enqueue must give the same as the first.
    cx.execute()?;
    cx.execute()?;
    let mut result = Vec::new();
    for (mut host, b) in outs {
        let n = host.bytes().len();
        // SAFETY: as above.
        unsafe {
            let null = std::ptr::null_mut();
            device.copy(host.bytes_mut().as_mut_ptr() as u64, b.ptr(), n, CopyKind::DeviceToHost, null)?;
            device.stream_synchronize(null)?;
        }
        result.push(host);
    }
    for (i, dtype, memory) in grown {
        // SAFETY: the device's NULL stream.
        result[i] = unsafe { memory.to_host(dtype, std::ptr::null_mut())? };
    }
    Ok(result)
}

/// What is wrong with an output, if anything. `rms_limit` is the limit of the relative RMS error; without one every element
/// must be near.
pub fn compare(name: &str, out: &Tensor, want: &Tensor, rms_limit: Option<f64>) -> Result<(), String> {
    if out.shape() != want.shape() || out.dtype() != want.dtype() {
        return Err(format!("{name}: {}{:?} instead of {}{:?}", out.dtype(), out.shape(), want.dtype(), want.shape()));
    }
    // Quantized results differ by a step where a product lies on a half.
    let is_quantized = rms_limit == Some(QUANTIZED_RMS) && out.dtype().size() == 1;
    if !out.dtype().is_float() && !is_quantized {
        return if out.same(want) { Ok(()) } else { Err(format!("{name}: integers differ")) };
    }
    let (a, b) = (out.to_f64s(), want.to_f64s());
    let (mut err, mut norm, mut worst, mut n_bad) = (0.0f64, 0.0f64, 0.0f64, 0);
    for (x, y) in a.iter().zip(&b) {
        let d = if x == y || (x.is_nan() && y.is_nan()) { 0.0 } else { (x - y).abs() };
        err += d * d;
        norm += y * y;
        worst = worst.max(if d.is_nan() { f64::INFINITY } else { d });
        n_bad += !(d <= ATOL + RTOL * y.abs()) as usize;
    }
    let rms = (err / norm.max(f64::MIN_POSITIVE)).sqrt();
    let limit = rms_limit.or((out.dtype() == DType::F16).then_some(F16_RMS));
    // What f32 would be accepted with is right in f16 too: outputs that are all but zero have no relative error.
    let fine = n_bad == 0 || limit.is_some_and(|limit| rms <= limit);
    let text = format!("{name}: max abs {worst:.3e}, relative RMS {rms:.3e}, {n_bad} of {} outside", a.len());
    if fine && rms.is_finite() { Ok(()) } else { Err(text) }
}

/// Builds a model for a device and runs all its data sets, directly and through an engine file.
pub fn check_model(dir: &Path, device: &DeviceRef, fp16: bool) -> Result<(), String> {
    let is_quantized = dir.file_name().is_some_and(|n| QUANTIZED.iter().any(|q| n == *q));
    let rms_limit = if is_quantized { Some(QUANTIZED_RMS) } else { fp16.then_some(F16_RMS) };
    let graph = import_file(&dir.join("model.onnx")).map_err(|e| e.to_string())?;
    let options = BuildOptions { fp16, ..BuildOptions::default() };
    let config = BuilderConfig { options, ..BuilderConfig::default() };
    let image = build(&graph, &config, device, &mut |_, _| true).map_err(|e| e.to_string())?;
    let bytes = image.to_bytes().map_err(|e| e.to_string())?;
    let direct = Engine::load(image, device, OtherDevice::Error).map_err(|e| e.to_string())?;
    let stored = Engine::from_bytes(&bytes, device, OtherDevice::Error).map_err(|e| format!("from file: {e}"))?;
    for (how, engine) in [("built", &direct), ("loaded", &stored)] {
        for set in data_sets(dir) {
            let inputs = tensors(&set, "input", graph.inputs().len());
            let want = tensors(&set, "output", graph.outputs().len());
            let at = |e: String| format!("{how}, {}: {e}", set.file_name().unwrap_or_default().to_string_lossy());
            let out = run(engine, &inputs).map_err(|e| at(e.to_string()))?;
            for ((p, o), w) in graph.outputs().iter().zip(&out).zip(&want) {
                compare(&p.name, o, w, rms_limit).map_err(at)?;
            }
        }
    }
    Ok(())
}

/// Checks the listed models and fails with every one that is wrong.
pub fn check_all(device: &DeviceRef, fp16: bool) {
    let Some(dir) = models_dir() else { return };
    let only = sinter::base::knobs::TEST_ONLY.get().unwrap_or_default();
    let mut wrong = Vec::new();
    for m in MODELS.iter().filter(|m| m.contains(&only) && !(fp16 && QUANTIZED.contains(m))) {
        let start = std::time::Instant::now();
        match check_model(&dir.join(m), device, fp16) {
            Ok(()) => eprintln!("{m}: right ({:.2} s)", start.elapsed().as_secs_f64()),
            Err(e) => {
                eprintln!("{m}: WRONG {e}");
                wrong.push(format!("{m}: {e}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{} models are wrong:\n{}", wrong.len(), wrong.join("\n"));
}
