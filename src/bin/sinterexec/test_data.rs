//! `--testData`: runs recorded inputs and compares with recorded outputs.
//!
//! Each data set runs once with outputs poisoned beforehand. All sets share one context, so that a change of shapes
//! between two runs is tested too. NaN equals NaN and nothing else; infinities equal themselves.

use crate::console::{info, plain, warning};
use crate::options::Options;
use crate::session::{Io, Stream, dims_text};
use crate::shapes::Shapes;
use sinter::base::{DType, Result, Tensor};
use sinter::base::error::ResultExt;
use sinter::engine::Engine;
use sinter::network::Graph;
use sinter::onnx::read_tensor_file;
use sinter::runtime::Context;
use sinter::{bail, ensure};
use std::path::{Path, PathBuf};
use std::sync::Arc;

const RTOL: f64 = 1e-3;
const ATOL: f64 = 1e-5;
const REDUCED_RMS: f64 = 1e-2;

/// One data set, read.
pub struct DataSet {
    pub name: String,
    dir: PathBuf,
    pub inputs: Vec<Tensor>,
    /// `None` where the set has no file for an output.
    outputs: Vec<Option<Tensor>>,
}

/// Reads the data set in a folder, or all `test_data_set_*` in it.
pub fn find_sets(dir: &Path) -> Result<Vec<DataSet>> {
    ensure!(dir.is_dir(), NotFound, "--testData: {} is not a folder", dir.display());
    if dir.join("input_0.pb").exists() || dir.join("output_0.pb").exists() {
        return Ok(vec![read_set(dir)?]);
    }
    let entries = std::fs::read_dir(dir).with_context(|| format!("--testData: {}", dir.display()))?;
    let mut sets: Vec<(u64, PathBuf)> = Vec::new();
    for e in entries {
        let path = e?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if let Some(n) = name.strip_prefix("test_data_set_")
            && path.is_dir()
        {
            sets.push((n.parse().unwrap_or(u64::MAX), path));
        }
    }
    sets.sort();
    ensure!(
        !sets.is_empty(),
        NotFound,
        "--testData: {} holds neither input_0.pb or output_0.pb nor test_data_set_* folders",
        dir.display()
    );
    sets.iter().map(|(_, p)| read_set(p)).collect()
}

fn read_set(dir: &Path) -> Result<DataSet> {
    let files = |kind: &str| -> Result<Vec<Option<Tensor>>> {
        let mut list = Vec::new();
        for entry in std::fs::read_dir(dir).with_context(|| dir.display().to_string())? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            let k = name.strip_prefix(kind).and_then(|n| n.strip_suffix(".pb")).and_then(|k| k.parse::<u16>().ok());
            if let Some(k) = k.map(usize::from) {
                list.resize_with(list.len().max(k + 1), || None);
                list[k] = Some(read_tensor_file(dir.join(&name))?);
            }
        }
        Ok(list)
    };
    let mut inputs = Vec::new();
    for (k, t) in files("input_")?.into_iter().enumerate() {
        match t {
            Some(t) => inputs.push(t),
            None => bail!(NotFound, "data set {}: input_{k}.pb is missing", dir.display()),
        }
    }
    let name = dir.file_name().map_or_else(|| dir.display().to_string(), |n| n.to_string_lossy().into_owned());
    Ok(DataSet { name, dir: dir.to_path_buf(), inputs, outputs: files("output_")? })
}

/// Input shapes of a set, for the profile.
pub fn input_shapes(set: &DataSet, graph: &Graph) -> Result<Shapes> {
    check_counts(set, graph)?;
    let dims = |t: &Tensor, declared: usize| {
        let dims: Vec<i64> = t.shape().iter().map(|d| *d as i64).collect();
        // A scalar is often recorded as a vector of one element.
        if declared == 0 && dims == [1] { vec![] } else { dims }
    };
    let inputs = graph.inputs().iter().zip(&set.inputs);
    Ok(inputs.map(|(p, t)| (p.name.clone(), dims(t, graph.fact(p.value).rank()))).collect())
}

fn check_counts(set: &DataSet, graph: &Graph) -> Result<()> {
    let (n_in, n_out) = (graph.inputs().len(), graph.outputs().len());
    ensure!(
        set.inputs.len() == n_in,
        InvalidArgument,
        "data set {} has {} inputs, the network has {n_in}",
        set.dir.display(),
        set.inputs.len()
    );
    ensure!(
        set.outputs.len() <= n_out && set.outputs.iter().any(Option::is_some),
        InvalidArgument,
        "data set {} has {} outputs, the network has {n_out}",
        set.dir.display(),
        set.outputs.len()
    );
    Ok(())
}

/// When an output passes.
#[derive(Clone, Copy)]
enum Rule {
    Elements { rtol: f64, atol: f64 },
    Rms { limit: f64, rtol: f64, atol: f64 },
    Equal,
}

impl Rule {
    fn of(o: &Options, reduced: bool, dtype: DType) -> Rule {
        let (rtol, atol) = (o.rtol.unwrap_or(RTOL), o.atol.unwrap_or(ATOL));
        let elements_asked = o.rtol.is_some() || o.atol.is_some();
        if !dtype.is_float() {
            Rule::Equal
        } else if let Some(limit) = o.rms {
            Rule::Rms { limit, rtol, atol }
        } else if !elements_asked && (reduced || matches!(dtype, DType::F16 | DType::BF16)) {
            Rule::Rms { limit: REDUCED_RMS, rtol, atol }
        } else {
            Rule::Elements { rtol, atol }
        }
    }

    fn text(self) -> String {
        match self {
            Rule::Elements { rtol, atol } => format!("|diff| <= {} + {} |ref|", short(atol), short(rtol)),
            Rule::Rms { limit, .. } => format!("rel RMS <= {}", short(limit)),
            Rule::Equal => "equal".into(),
        }
    }
}

/// How an output differs from its reference.
struct Difference {
    max_abs: f64,
    /// Over elements with |ref| > atol.
    max_rel: f64,
    rms: f64,
    outside: usize,
    /// Element that is worst by the rule's measure; `None` when all are equal.
    worst: Option<usize>,
}

fn compare(out: &[f64], want: &[f64], rtol: f64, atol: f64) -> Difference {
    let mut d = Difference { max_abs: 0.0, max_rel: 0.0, rms: 0.0, outside: 0, worst: None };
    let (mut err, mut norm, mut worst) = (0.0f64, 0.0f64, 0.0f64);
    for (i, (x, y)) in out.iter().zip(want).enumerate() {
        if y.is_finite() {
            norm += y * y;
        }
        if x == y || (x.is_nan() && y.is_nan()) {
            continue;
        }
        // A NaN or an infinity on one side only is infinitely wrong.
        let diff = (x - y).abs();
        let diff = if diff.is_nan() { f64::INFINITY } else { diff };
        let limit = atol + rtol * if y.is_finite() { y.abs() } else { 0.0 };
        err += diff * diff;
        d.max_abs = d.max_abs.max(diff);
        if y.abs() > atol {
            d.max_rel = d.max_rel.max(if y.is_finite() { diff / y.abs() } else { f64::INFINITY });
        }
        d.outside += (diff > limit) as usize;
        let measure = if limit > 0.0 { diff / limit } else { diff };
        if d.worst.is_none() || measure > worst {
            (worst, d.worst) = (measure, Some(i));
        }
    }
    d.rms = match (err == 0.0, norm == 0.0) {
        (true, _) => 0.0,
        (false, true) => f64::INFINITY,
        (false, false) => (err / norm).sqrt(),
    };
    d
}

/// One row of the table, and whether it passed.
fn row(name: &str, out: &Tensor, want: &Tensor, rule: Rule) -> (Vec<String>, bool) {
    let mut cells = vec![name.to_string(), out.dtype().to_string(), dims_text(out.shape())];
    if out.shape() != want.shape() || out.dtype() != want.dtype() {
        cells.extend(["-", "-", "-", "-"].map(String::from));
        cells.push(format!("expected {} {}", want.dtype(), dims_text(want.shape())));
        cells.push("FAIL".into());
        return (cells, false);
    }
    let (rtol, atol) = match rule {
        Rule::Elements { rtol, atol } | Rule::Rms { rtol, atol, .. } => (rtol, atol),
        Rule::Equal => (0.0, 0.0),
    };
    // 64-bit integers beyond 2^53 are compared by their bytes.
    let (a, b) = (out.to_f64s(), want.to_f64s());
    let d = compare(&a, &b, rtol, atol);
    let pass = match rule {
        Rule::Elements { .. } => d.outside == 0,
        Rule::Rms { limit, .. } => d.rms <= limit,
        // NaN has several codes in a small float.
        Rule::Equal if want.dtype().is_small_float() => d.outside == 0,
        Rule::Equal => out.same(want),
    };
    cells.push(figure(d.max_abs));
    cells.push(figure(d.max_rel));
    cells.push(figure(d.rms));
    cells.push(format!("{} of {}", d.outside, a.len()));
    cells.push(match d.worst {
        None if !pass && rule.is_equal() => "differs beyond 2^53".into(),
        None => "none differs".into(),
        Some(i) => format!("{} is {}, expected {}", index_text(i, out.shape()), short(a[i]), short(b[i])),
    });
    cells.push(format!("{} ({})", if pass { "pass" } else { "FAIL" }, rule.text()));
    (cells, pass)
}

impl Rule {
    fn is_equal(self) -> bool {
        matches!(self, Rule::Equal)
    }
}

fn figure(v: f64) -> String {
    if v == 0.0 { "0".into() } else { format!("{v:.2e}") }
}

/// A value with up to six digits.
fn short(v: f64) -> String {
    if v != 0.0 && v.is_finite() && !(1e-4..1e6).contains(&v.abs()) {
        return format!("{v:.4e}").replace(".0000e", "e");
    }
    let t = format!("{v:.6}");
    if t.contains('.') { t.trim_end_matches('0').trim_end_matches('.').to_string() } else { t }
}

/// `[1, 0, 7]` for a flat index.
fn index_text(mut i: usize, dims: &[usize]) -> String {
    let mut at = vec![0; dims.len()];
    for (a, d) in at.iter_mut().zip(dims).rev() {
        *a = i % d.max(&1);
        i /= d.max(&1);
    }
    format!("{at:?}")
}

/// Runs every set; false when one fails.
pub fn run(o: &Options, engine: &Arc<Engine>, sets: &[DataSet]) -> Result<bool> {
    let reduced = engine.image.options.fp16 || engine.image.options.tf32;
    let mut cx = Context::new(engine)?;
    let stream = Stream::new(&engine.device)?;
    let mut n_passed = 0;
    let mut tables = Vec::new();
    for set in sets {
        check_counts(set, engine.graph())?;
        let at = || format!("data set {}", set.dir.display());
        let io = Io::new(&mut cx, &set.inputs, &stream).with_context(at)?;
        cx.enqueue(stream.raw, std::ptr::null_mut()).with_context(at)?;
        io.download(&stream)?;
        stream.synchronize().with_context(at)?;
        let inputs: Vec<String> = io.inputs.iter().map(|b| format!("{} {}", b.name, dims_text(&b.dims))).collect();
        let mut rows = Vec::new();
        let mut passed = true;
        for (k, b) in io.outputs.iter().enumerate() {
            let Some(want) = set.outputs.get(k).and_then(Option::as_ref) else {
                warning!("Data set {}: output_{k}.pb is missing, so output {} is not compared", set.name, b.name);
                continue;
            };
            let (cells, pass) = row(&b.name, &b.tensor().with_context(at)?, want, Rule::of(o, reduced, b.dtype));
            passed &= pass;
            rows.push(cells);
        }
        n_passed += passed as usize;
        tables.push((format!("{}: {} ({})", set.name, if passed { "pass" } else { "FAIL" }, inputs.join(", ")), rows));
    }
    info!("=== Test data ===");
    print_tables(&tables);
    info!("Test data: {n_passed} of {} data sets passed", sets.len());
    Ok(n_passed == sets.len())
}

/// All tables with the same columns, so that sets can be compared by eye.
fn print_tables(tables: &[(String, Vec<Vec<String>>)]) {
    const HEAD: [&str; 9] =
        ["output", "type", "shape", "max abs", "max rel", "rel RMS", "outside", "worst element", "result"];
    let rows = || tables.iter().flat_map(|(_, rows)| rows);
    let wide = |i: usize| rows().map(|r| r[i].chars().count()).chain([HEAD[i].len()]).max().unwrap_or(0);
    let widths: Vec<usize> = (0..HEAD.len()).map(wide).collect();
    let line = |cells: &[String]| {
        let cell = |(i, c): (usize, &String)| {
            let pad = " ".repeat(widths[i] - c.chars().count());
            if (3..=6).contains(&i) { format!("{pad}{c}") } else { format!("{c}{pad}") }
        };
        cells.iter().enumerate().map(cell).collect::<Vec<_>>().join("  ").trim_end().to_string()
    };
    let head = line(&HEAD.map(String::from));
    for (title, rows) in tables {
        plain!("");
        plain!("{title}");
        plain!("  {head}");
        rows.iter().for_each(|r| plain!("  {}", line(r)));
    }
    plain!("");
}
