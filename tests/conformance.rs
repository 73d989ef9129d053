//! ONNX's own backend test data through the whole library: import, build, engine file, context, enqueue.
//!
//! The data are those of the Python package onnx 1.22.0 (later ones do not carry the node cases any more): the folder
//! `onnx/backend/test/data` is named by `SINTER_ONNX_DATA`, or lies where `tests/run.sh` installs it. Every case of the
//! kinds node, simple, pytorch-converted, pytorch-operator and light runs on the device that `SINTER_TEST_DEVICE`
//! names, and its outcome is compared with `conformance/baseline.txt`: a case that passed must pass, and one that
//! newly passes asks for `UPDATE_EXPECT=1`, which writes the file anew. `SINTER_TEST_ONLY` takes the cases whose name
//! holds its text, and leaves the baseline alone.
//!
//! The binary needs nothing but the data: it may be carried to a machine without Rust.

#[path = "conformance/baseline.rs"]
mod baseline;
#[path = "conformance/case.rs"]
mod case;
#[path = "conformance/check.rs"]
mod check;
#[path = "conformance/operators.rs"]
mod operators;
#[path = "conformance/reason.rs"]
mod reason;
#[path = "conformance/table.rs"]
mod table;
#[allow(dead_code)]
mod models;

use case::{Case, Outcome};
use parking_lot::Mutex;
use sinter::base::knobs;
use sinter::device::{DeviceKind, DeviceRef};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// A case that runs longer is reported while it runs; the slowest ones are listed at the end.
const SLOW: Duration = Duration::from_secs(20);

/// The folder of the data, or a loud skip.
fn data_dir() -> Option<PathBuf> {
    let installed = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/test-tools/onnx/backend/test/data");
    let dir = knobs::ONNX_DATA.get().map(PathBuf::from).unwrap_or(installed);
    if dir.join("node").is_dir() {
        return Some(dir);
    }
    assert!(knobs::ONNX_DATA.get().is_none(), "SINTER_ONNX_DATA: {} has no folder node", dir.display());
    eprintln!("SKIPPED: SINTER_ONNX_DATA is not set and {} is not there: no ONNX case was run", dir.display());
    None
}

fn device() -> Option<DeviceRef> {
    match knobs::TEST_DEVICE.get().as_deref().unwrap_or("cpu") {
        "cpu" => Some(DeviceRef::open(DeviceKind::Cpu).unwrap()),
        "cuda" => {
            let opened = DeviceRef::open(DeviceKind::Cuda(0))
                .and_then(|d| sinter::device::cuda::nvrtc::is_present().map(|_| d));
            match opened {
                Ok(d) => Some(d),
                Err(e) => {
                    assert!(!knobs::REQUIRE_GPU.is_on(), "SINTER_REQUIRE_GPU is on, but: {e}");
                    eprintln!("SKIPPED: no ONNX case was run on CUDA: {e}");
                    None
                }
            }
        }
        other => panic!("SINTER_TEST_DEVICE is {other:?}, expected cpu or cuda"),
    }
}

/// Runs the cases on as many threads; what comes back is in the order of the cases.
fn run_all(cases: &[Case], device: &DeviceRef, threads: usize) -> Vec<Outcome> {
    let next = AtomicUsize::new(0);
    let slots: Vec<Mutex<Option<Outcome>>> = cases.iter().map(|_| Mutex::new(None)).collect();
    let running: Vec<Mutex<Option<(usize, Instant)>>> = (0..threads).map(|_| Mutex::new(None)).collect();
    let done = AtomicUsize::new(0);
    let (next, slots, running_of, done_count) = (&next, &slots, &running, &done);
    std::thread::scope(|scope| {
        for (t, mine) in running_of.iter().enumerate() {
            let worker = std::thread::Builder::new().name(format!("case-{t}")).stack_size(16 << 20);
            worker
                .spawn_scoped(scope, move || {
                    loop {
                        let i = next.fetch_add(1, Ordering::Relaxed);
                        let Some(c) = cases.get(i) else { break };
                        *mine.lock() = Some((i, Instant::now()));
                        *slots[i].lock() = Some(c.run(device));
                        *mine.lock() = None;
                    }
                    done_count.fetch_add(1, Ordering::Relaxed);
                })
                .unwrap();
        }
        let mut reported = Vec::new();
        while done_count.load(Ordering::Relaxed) < threads {
            std::thread::sleep(Duration::from_millis(20));
            for r in running_of {
                if let Some((i, since)) = *r.lock()
                    && since.elapsed() > SLOW
                    && !reported.contains(&i)
                {
                    reported.push(i);
                    eprintln!("{} runs since {} s", cases[i].name, since.elapsed().as_secs());
                }
            }
        }
    });
    slots.iter().map(|s| s.lock().take().expect("every case was run")).collect()
}

#[test]
fn onnx_backend_cases() {
    let (Some(dir), Some(device)) = (data_dir(), device()) else { return };
    // Panics are outcomes of cases here; their texts are in the report.
    std::panic::set_hook(Box::new(case::keep_panic));
    let start = Instant::now();
    let only = knobs::TEST_ONLY.get();
    let mut cases = case::find(&dir);
    cases.retain(|c| only.as_deref().is_none_or(|o| c.name.contains(o)));
    assert!(!cases.is_empty(), "no case is named so");
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
    // The networks of the kind `light` take hundreds of megabytes each, so they run one after the other, last.
    let first_light = cases.iter().position(|c| c.kind == "light").unwrap_or(cases.len());
    let mut outcomes = run_all(&cases[..first_light], &device, threads);
    outcomes.extend(run_all(&cases[first_light..], &device, 1));
    let _ = std::panic::take_hook();
    eprintln!("{}", table::text(&cases, &outcomes));
    eprintln!("{} cases in {:.1} s on {}", cases.len(), start.elapsed().as_secs_f64(), device.props().name);
    if let Some(only) = only {
        for (c, o) in cases.iter().zip(&outcomes) {
            eprintln!("{}: {}", c.name, o.text());
        }
        let n = outcomes.iter().filter(|o| !o.is_expected()).count();
        assert_eq!(n, 0, "cases with {only:?} in their name that neither pass nor are left out");
        return;
    }
    baseline::compare(&cases, &outcomes);
}
