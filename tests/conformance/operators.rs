//! `docs/operators.md`: every operator of ONNX that is imported, what it becomes, and the types that each device takes.
//!
//! Types are found by trying: ONNX's own one-node cases are given another type for their first operand that is no bool
//! (and for all operands of the same type), imported, built for both devices and run on the CPU. Vectors of integers,
//! which are axes and sizes mostly, become constants.

use super::{case, data_dir, models};
use prost::Message;
use sinter::base::{DType, Tensor};
use sinter::builder::{BuilderConfig, build};
use sinter::device::{DeviceKind, DeviceRef};
use sinter::engine::{Engine, OtherDevice};
use sinter::onnx::proto::type_proto::Value;
use sinter::onnx::proto::{ModelProto, ValueInfoProto};
use sinter::onnx::{importer, read_tensor_file};
use sinter::ops::{TacticSource, limits, onnx_homes, structural_table};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Cases that are tried for one operator.
const CASES: usize = 6;

/// What was found of one operator.
#[derive(Clone, Default)]
struct Found {
    cpu: BTreeSet<usize>,
    /// By kernels of its own.
    cuda: BTreeSet<usize>,
    /// On CUDA, by the host.
    host: BTreeSet<usize>,
}

fn element_type(v: &mut ValueInfoProto) -> Option<&mut i32> {
    match v.r#type.as_mut()?.value.as_mut()? {
        Value::TensorType(t) => t.elem_type.as_mut(),
        _ => None,
    }
}

/// The model with operands of type `from` made `to`; declared outputs lose their types.
fn retyped(model: &ModelProto, from: i32, to: i32) -> ModelProto {
    let mut model = model.clone();
    let Some(graph) = model.graph.as_mut() else { return model };
    for v in &mut graph.input {
        match element_type(v) {
            Some(t) if *t == from => *t = to,
            _ => {}
        }
    }
    graph.output.iter_mut().for_each(|v| v.r#type = None);
    model
}

/// Tries one case with every type.
fn probe(c: &case::Case, cpu: &DeviceRef, null: &DeviceRef) -> Option<Found> {
    let mut model = ModelProto::decode(std::fs::read(&c.model).ok()?.as_slice()).ok()?;
    let graph = model.graph.as_mut()?;
    let mut inputs: Vec<Tensor> = (0..graph.input.len())
        .map(|i| read_tensor_file(c.sets[0].join(format!("input_{i}.pb"))).ok())
        .collect::<Option<_>>()?;
    let settled: Vec<bool> = inputs.iter().enumerate().map(|(i, x)| i > 0 && x.dtype() == DType::I64 && x.rank() <= 1).collect();
    for i in (0..inputs.len()).rev().filter(|i| settled[*i]) {
        let name = graph.input.remove(i).name().to_string();
        graph.initializer.push(sinter::onnx::tensor::tensor_proto(&inputs.remove(i), &name));
    }
    let own = inputs.iter().map(|x| x.dtype()).find(|d| *d != DType::Bool).or(inputs.first().map(|x| x.dtype()))?;
    let from = sinter::onnx::tensor::onnx_code_of(own);
    graph.input.iter_mut().map(|v| element_type(v).map(|_| ())).collect::<Option<()>>()?;
    let mut found = Found::default();
    for (k, dtype) in DType::ALL.iter().copied().enumerate() {
        let to = sinter::onnx::tensor::onnx_code_of(dtype);
        let bytes = retyped(&model, from, to).encode_to_vec();
        let Ok(graph) = importer::import_bytes(bytes, None) else { continue };
        let config = BuilderConfig::default();
        if let Ok(image) = build(&graph, &config, null, &mut |_, _| true)
            && let Some(plan) = &image.plan
        {
            let on_host = plan.tactics.iter().flatten().any(|t| t.source == TacticSource::Reference);
            if on_host { &mut found.host } else { &mut found.cuda }.insert(k);
        }
        let cast = |x: &Tensor| if x.dtype() == own { x.cast(dtype) } else { x.clone() };
        let inputs: Vec<Tensor> = inputs.iter().map(cast).collect();
        let ran = build(&graph, &config, cpu, &mut |_, _| true)
            .and_then(|image| Engine::load(image, cpu, OtherDevice::Error))
            .and_then(|engine| models::run(&engine, &inputs));
        if ran.is_ok() {
            found.cpu.insert(k);
        }
    }
    Some(found)
}

/// Operators with what their cases show; a case that fails with its own type shows nothing.
fn probe_all(data: &Path) -> HashMap<(String, String), Found> {
    let cpu = DeviceRef::open(DeviceKind::Cpu).unwrap();
    let null = DeviceRef::open(DeviceKind::Null).unwrap();
    let mut by_op: BTreeMap<(String, String), Vec<case::Case>> = BTreeMap::new();
    for c in case::find(data).into_iter().filter(|c| c.kind == "node" && !c.name.contains("_expanded")) {
        let Ok(model) = ModelProto::decode(std::fs::read(&c.model).unwrap().as_slice()) else { continue };
        let Some([node]) = model.graph.as_ref().map(|g| g.node.as_slice()) else { continue };
        let domain = if node.domain() == "ai.onnx" { "" } else { node.domain() };
        by_op.entry((domain.to_string(), node.op_type().to_string())).or_default().push(c);
    }
    let work: Vec<(&(String, String), &case::Case)> = by_op
        .iter()
        .flat_map(|(op, cases)| {
            let step = cases.len().div_ceil(CASES);
            cases.iter().step_by(step).map(move |c| (op, c))
        })
        .collect();
    let next = AtomicUsize::new(0);
    let found = parking_lot::Mutex::new(HashMap::<(String, String), Found>::new());
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
    std::thread::scope(|scope| {
        for t in 0..threads {
            let run = || {
                while let Some((op, c)) = work.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let probed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| probe(c, &cpu, &null)));
                    let Some(f) = probed.ok().flatten() else { continue };
                    let mut all = found.lock();
                    let sum = all.entry((*op).clone()).or_default();
                    sum.cpu.extend(f.cpu);
                    sum.cuda.extend(f.cuda);
                    sum.host.extend(f.host);
                }
            };
            std::thread::Builder::new().name(format!("case-{t}")).stack_size(16 << 20).spawn_scoped(scope, run).unwrap();
        }
    });
    found.into_inner()
}

/// Names of types, those that make a whole kind by the kind's name.
fn types_text(types: &BTreeSet<usize>) -> String {
    let mut left: Vec<DType> = types.iter().map(|k| DType::ALL[*k]).collect();
    let mut words = Vec::new();
    let is = |names: &[&str]| DType::ALL.iter().copied().filter(|d| names.contains(&d.name())).collect::<Vec<DType>>();
    let kinds = [
        ("floats", is(&["f32", "f16", "bf16", "f64"])),
        ("integers", is(&["i8", "u8", "i16", "u16", "i32", "u32", "i64", "u64"])),
        ("bool", is(&["bool"])),
    ];
    let mut narrow: Vec<DType> = DType::ALL.to_vec();
    kinds.iter().for_each(|(_, k)| narrow.retain(|d| !k.contains(d)));
    for (word, kind) in kinds.into_iter().chain([("narrow", narrow)]) {
        if !kind.is_empty() && kind.iter().all(|d| left.contains(d)) {
            words.push(word.to_string());
            left.retain(|d| !kind.contains(d));
        }
    }
    words.extend(left.iter().map(|d| d.name().to_string()));
    words.join(", ")
}

fn text(data: &Path) -> String {
    /// Opsets and homes.
    type Entry = (BTreeSet<i64>, BTreeSet<&'static str>);
    let found = probe_all(data);
    let mut rows: BTreeMap<(&str, &str), Entry> = BTreeMap::new();
    for (home, o) in onnx_homes() {
        let row = rows.entry((o.domain, o.name)).or_default();
        row.0.insert(o.since);
        row.1.insert(home);
    }
    for o in structural_table() {
        let row = rows.entry((o.domain, o.name)).or_default();
        row.0.insert(o.since);
        row.1.insert("(while importing)");
    }
    let mut out = HEAD.to_string();
    let n = rows.len();
    let _ = writeln!(out, "{n} operators.\n");
    let mut domain = None;
    for ((d, name), (opsets, homes)) in &rows {
        if domain != Some(*d) {
            domain = Some(*d);
            let _ = writeln!(out, "\n## {}\n", if d.is_empty() { "ai.onnx" } else { d });
            out.push_str("| operator | since opset | home | CPU | CUDA | limits |\n|---|---|---|---|---|---|\n");
        }
        let f = found.get(&(d.to_string(), name.to_string())).cloned().unwrap_or_default();
        let host: BTreeSet<usize> = f.host.difference(&f.cuda).copied().collect();
        let mut cuda = types_text(&f.cuda);
        if !host.is_empty() {
            let _ = write!(cuda, "{}by the host: {}", if cuda.is_empty() { "" } else { "; " }, types_text(&host));
        }
        let opsets: Vec<String> = opsets.iter().map(|o| o.to_string()).collect();
        let homes: Vec<&str> = homes.iter().copied().collect();
        let limit = limits::of(d, name).unwrap_or_default();
        let _ = writeln!(out, "| {name} | {} | {} | {} | {cuda} | {limit} |", opsets.join(", "), homes.join(", "), types_text(&f.cpu));
    }
    out
}

const HEAD: &str = "\
# Operators

Made by `UPDATE_EXPECT=1 cargo test --test conformance operators`; a test compares.

*Since opset*: the opsets from which an importer of its own holds; models of any opset from the first one up to 27 are
read. *Home*: the folder of `src/ops/` whose import table has the operator; it becomes nodes of that home, or of several
(functions are expanded as ONNX defines them). *CPU*, *CUDA*: element types of the first operand that is no bool, found by
trying ONNX's one-node cases with each type; empty where ONNX has no such case. What is *by the host* runs in a CUDA
engine as the reference, with copies there and back; so do Slice, Pad, Tile, Resize and reductions whose axes or sizes
are inputs of the network. *Floats* are f32, f16, bf16, f64; *integers* i8 to i64 and u8 to u64; *narrow*
all types of 8 bits and less that are neither (f8, f4, i4, u4, i2, u2), as data that are moved or converted.

Strings are not supported anywhere; sequences and optionals inside a model are resolved while it is imported.

";

#[test]
fn operators_md_is_what_the_tables_say() {
    for (domain, name) in limits::all() {
        let known = onnx_homes().any(|(_, o)| o.domain == domain && o.name == name)
            || structural_table().any(|o| o.domain == domain && o.name == name);
        assert!(known, "src/ops/limits.rs names {domain}.{name}, which no table has");
    }
    let Some(data) = data_dir() else { return };
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/operators.md");
    if !path.exists() && std::env::var_os("UPDATE_EXPECT").is_none() {
        eprintln!("SKIPPED: {} is not here, so it was not compared", path.display());
        return;
    }
    let new = text(&data);
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, new).unwrap();
        return;
    }
    let old = std::fs::read_to_string(&path).unwrap();
    let first = old.lines().zip(new.lines()).find(|(a, b)| a != b);
    assert!(
        old == new,
        "docs/operators.md is old ({first:?}); make it again with UPDATE_EXPECT=1 cargo test --test conformance operators"
    );
}
