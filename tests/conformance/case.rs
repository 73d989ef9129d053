//! One case: where it lies, and what comes of running it.

use super::{check, models, reason};
use sinter::base::{DType, Tensor};
use sinter::builder::{BuilderConfig, build};
use sinter::device::DeviceRef;
use sinter::engine::{Engine, OtherDevice};
use sinter::onnx::{OnnxModel, importer, read_tensor_file};
use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

pub struct Case {
    /// `node/test_abs`.
    pub name: String,
    pub kind: &'static str,
    pub model: PathBuf,
    /// Data sets; empty for a network whose input is made here.
    pub sets: Vec<PathBuf>,
}

/// What came of a case.
pub struct Outcome {
    /// `pass`, or the class of what is wrong (see `reason.rs`).
    pub class: &'static str,
    pub detail: String,
    /// Operator of a case with one node.
    pub op: String,
    pub time: Duration,
}

impl Outcome {
    pub fn passed(&self) -> bool {
        self.class == reason::PASS
    }

    /// Passed, or left out for a reason that is none of ours.
    pub fn is_expected(&self) -> bool {
        self.passed() || reason::LEFT_OUT.iter().any(|(class, _)| *class == self.class)
    }

    pub fn text(&self) -> String {
        if self.passed() { self.class.into() } else { format!("{}: {}", self.class, self.detail) }
    }
}

fn subfolders(dir: &Path, prefix: &str) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = std::fs::read_dir(dir)
        .unwrap_or_else(|e| panic!("{}: {e}", dir.display()))
        .map(|e| e.unwrap().path())
        .filter(|p| p.is_dir() && p.file_name().is_some_and(|n| n.to_string_lossy().starts_with(prefix)))
        .collect();
    found.sort();
    found
}

/// All cases, those of the kind `light` last.
pub fn find(data: &Path) -> Vec<Case> {
    let mut cases = Vec::new();
    for kind in ["node", "simple", "pytorch-converted", "pytorch-operator"] {
        for dir in subfolders(&data.join(kind), "test_") {
            let name = dir.file_name().unwrap_or_default().to_string_lossy();
            let sets = subfolders(&dir, "test_data_set_");
            cases.push(Case { name: format!("{kind}/{name}"), kind, model: dir.join("model.onnx"), sets });
        }
    }
    let light = std::fs::read_dir(data.join("light")).into_iter().flatten().map(|e| e.unwrap().path());
    let mut light: Vec<PathBuf> = light.filter(|p| p.extension().is_some_and(|e| e == "onnx")).collect();
    light.sort();
    for model in light {
        let name = model.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        cases.push(Case { name: format!("light/{name}"), kind: "light", model, sets: vec![] });
    }
    cases
}

thread_local! {
    static PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

/// A panic hook that keeps the text and the place for [`Case::run`].
pub fn keep_panic(info: &std::panic::PanicHookInfo<'_>) {
    let text = info.to_string();
    if std::thread::current().name().is_some_and(|n| n.starts_with("case-")) {
        PANIC.with(|p| *p.borrow_mut() = text);
    } else {
        eprintln!("{text}");
    }
}

impl Case {
    pub fn run(&self, device: &DeviceRef) -> Outcome {
        let start = Instant::now();
        let mut outcome = Outcome { class: reason::PASS, detail: String::new(), op: String::new(), time: Duration::ZERO };
        let model = match OnnxModel::from_file(&self.model) {
            Ok(model) => model,
            Err(e) => return Outcome { class: reason::UNSUPPORTED, detail: e.to_string(), ..outcome },
        };
        if let [node] = model.graph().node.as_slice() {
            outcome.op = node.op_type().to_string();
        }
        let left_out = reason::of_model(&model);
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.check(&model, device)));
        let failure = match result {
            Ok(Ok(())) => None,
            Ok(Err((class, text))) => Some((class, text)),
            Err(_) => Some((reason::PANIC, PANIC.with(|p| std::mem::take(&mut *p.borrow_mut())))),
        };
        if let Some((class, text)) = failure {
            (outcome.class, outcome.detail) = match left_out {
                Some((left_class, text)) if class != reason::PANIC => (left_class, text),
                _ => (class, one_line(&text)),
            };
        }
        outcome.time = start.elapsed();
        outcome
    }

    fn check(&self, model: &OnnxModel, device: &DeviceRef) -> Result<(), (&'static str, String)> {
        let unsupported = |e: sinter::base::Error| (reason::UNSUPPORTED, e.to_string());
        let failed = |e: sinter::base::Error| (reason::FAILED, e.to_string());
        let graph = importer::import(model).map_err(unsupported)?;
        let image = build(&graph, &BuilderConfig::default(), device, &mut |_, _| true).map_err(unsupported)?;
        let engine = match self.sets.is_empty() {
            // Weights of half a gigabyte need not go through a file.
            true => Engine::load(image, device, OtherDevice::Error).map_err(failed)?,
            false => {
                let bytes = image.to_bytes().map_err(failed)?;
                Engine::from_bytes(&bytes, device, OtherDevice::Error).map_err(failed)?
            }
        };
        let unreadable = |e: sinter::base::Error| (reason::UNSUPPORTED, format!("data: {e}"));
        if self.sets.is_empty() {
            let f = graph.fact(graph.inputs()[0].value);
            let out = models::run(&engine, &[ramp(f.shape.concrete().unwrap_or_default())]).map_err(failed)?;
            let file = self.model.to_string_lossy().replace(".onnx", "_output_0.pb");
            let want = read_tensor_file(file).map_err(unreadable)?;
            let rtol = if self.name.ends_with("densenet121") { 2e-3 } else { check::RTOL };
            return check::compare("output 0", &out[0], &want, rtol, check::ATOL).map_err(|e| (reason::WRONG, e));
        }
        for set in &self.sets {
            let read = |kind: &str, n: usize| -> Result<Vec<Tensor>, (&'static str, String)> {
                (0..n).map(|i| read_tensor_file(set.join(format!("{kind}_{i}.pb"))).map_err(unreadable)).collect()
            };
            let inputs = read("input", graph.inputs().len())?;
            let want = read("output", graph.outputs().len())?;
            let out = models::run(&engine, &inputs).map_err(failed)?;
            for (i, (o, w)) in out.iter().zip(&want).enumerate() {
                let what = format!("output {i}");
                check::compare(&what, o, w, check::RTOL, check::ATOL).map_err(|e| (reason::WRONG, e))?;
            }
        }
        Ok(())
    }
}

/// 0, 1/n, 2/n, ..: the input of the kind `light`.
fn ramp(dims: Vec<usize>) -> Tensor {
    let n: usize = dims.iter().product();
    let values: Vec<f32> = (0..n).map(|i| i as f32 / n as f32).collect();
    Tensor::from_slice(&dims, &values).cast(DType::F32)
}

/// At most 300 characters in one line.
fn one_line(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.chars().count() > 300 { line.chars().take(300).collect::<String>() + ".." } else { line }
}
