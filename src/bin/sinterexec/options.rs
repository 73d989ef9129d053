//! The command line: `--name` or `--name=value`, as in trtexec.
//!
//! [`GROUPS`] is the one list of options: parsing checks names and values against it, and `--help` prints it.

use sinter::base::Result;
use sinter::device::DeviceKind;
use sinter::ops::tactic::TacticSource;
use sinter::{bail, err};
use std::path::PathBuf;

/// One option as `--help` shows it.
pub struct Opt {
    pub name: &'static str,
    /// What the value is called; none for a switch.
    pub value: Option<&'static str>,
    pub help: &'static str,
    pub default: Option<&'static str>,
}

const fn switch(name: &'static str, help: &'static str) -> Opt {
    Opt { name, value: None, help, default: None }
}

const fn value(name: &'static str, value: &'static str, help: &'static str) -> Opt {
    Opt { name, value: Some(value), help, default: None }
}

const fn with(name: &'static str, value: &'static str, help: &'static str, default: &'static str) -> Opt {
    Opt { name, value: Some(value), help, default: Some(default) }
}

/// Every option, by group, in the order of `--help`.
pub const GROUPS: &[(&str, &[Opt])] = &[
    (
        "Model (one of the two)",
        &[
            value("--onnx", "FILE", "Network to build an engine from."),
            value("--loadEngine", "FILE", "Engine to load instead of building one. If it was built for another device, it is planned again for this one."),
        ],
    ),
    (
        "Device",
        &[with(
            "--device",
            "cpu|cuda[:N]",
            "Where to build and run; N is the number of the CUDA device. A bare N means cuda:N.",
            "cuda:0 if there is one, else cpu",
        )],
    ),
    (
        "Build",
        &[
            value("--saveEngine", "FILE", "Write the engine to a file."),
            value("--minShapes", "SPEC", "Smallest shapes of dynamic inputs."),
            value("--optShapes", "SPEC", "Typical shapes: kernels are chosen for these."),
            value("--maxShapes", "SPEC", "Largest shapes. A missing one of min, opt and max is taken from the others."),
            switch("--fp16", "Allow f16 where it is faster (CUDA; the CPU computes in f32)."),
            switch("--tf32", "Allow TF32 in f32 products (CUDA). Off unless given: unlike trtexec, f32 means f32."),
            switch("--noTF32", "Forbid TF32: the default here, accepted for scripts made for trtexec."),
            with("--builderOptimizationLevel", "N", "0 to 5: how much of the build's time goes into choosing kernels. 0 takes the first that fits, 4 and 5 time all.", "3"),
            with("--avgTiming", "N", "A kernel's time is the median of N measurements, each of many runs.", "4"),
            with("--minTiming", "N", "Factor of --avgTiming. (trtexec has none since version 10.)", "1"),
            value("--memPoolSize", "workspace:SIZE", "Most scratch memory of one layer, in MiB or with B, K, M or G behind it. No other pool exists here."),
            value("--maxThreads", "N", "Threads that compile kernels; all cores unless given."),
            value("--timingCacheFile", "FILE", "Read times of kernels from this file, and write it back with those that were measured. Default: a file in the cache folder."),
            switch("--noTimingCache", "Time every kernel anew and keep nothing."),
            value("--tacticSources", "LIST", "Leave out (-NAME) or keep (+NAME) sources of kernels: KERNELS, CUBLASLT, CPU, REFERENCE. Example: -CUBLASLT"),
            switch("--skipInference", "Stop after building, saving or checking; run no timing."),
        ],
    ),
    (
        "Check against recorded data",
        &[
            value("--testData", "DIR", "Run input_K.pb and compare with output_K.pb (K: order of the network's inputs and outputs). DIR holds them, or holds test_data_set_* folders. Exit status 1 on a mismatch. No timing run unless --iterations or --duration is given too."),
            with("--rtol", "R", "Pass if |out - ref| <= A + R |ref| everywhere ...", "1e-3"),
            with("--atol", "A", "... with this A. Integers and bools must be equal; NaN equals NaN only. (max rel in the table is over elements with |ref| > A.)", "1e-5"),
            with("--rms", "E", "Pass if the relative RMS error ||out - ref|| / ||ref|| <= E instead.", "1e-2 for fp16 and tf32 engines and f16 outputs, else off"),
        ],
    ),
    (
        "Inference and timing",
        &[
            value("--shapes", "SPEC", "Shapes to run with; without min, opt and max also the shape to build for."),
            value("--loadInputs", "LIST", "Input values from raw binary files in the tensor's type: NAME:FILE,... The others are random, or those of the first set of --testData."),
            with("--iterations", "N", "Run at least N times.", "10"),
            with("--warmUp", "MS", "Run this long before counting, in milliseconds.", "200"),
            with("--duration", "S", "Count for at least this long, in seconds.", "3"),
            with("--infStreams", "N", "Inferences in flight, each with a context and streams of its own.", "1"),
            value("--streams", "N", "The same."),
            switch("--useCudaGraph", "Record the inference as a CUDA graph and replay it."),
            switch("--noDataTransfers", "Leave inputs and outputs on the device (CUDA)."),
        ],
    ),
    (
        "Report",
        &[
            switch("--verbose", "Everything the library says, and explanations of the figures."),
            with("--avgRuns", "N", "Print the averages of each N runs as they went.", "10, printed if given or with --verbose"),
            with("--percentile", "P,...", "Percentiles of each figure.", "90,95,99"),
            switch("--dumpOutput", "Print the output values."),
            switch("--dumpProfile", "Print the time of each layer, from a second run."),
            value("--exportTimes", "FILE", "JSON: times of every inference."),
            value("--exportOutput", "FILE", "JSON: output values."),
            value("--exportProfile", "FILE", "JSON: time of each layer."),
            value("--exportLayerInfo", "FILE", "JSON: layers, kernels and tensors of the engine."),
        ],
    ),
    ("Other", &[switch("--help", "This text. Also -h."), switch("--version", "The version.")]),
];

/// What the command line asks for.
#[derive(Clone, Debug)]
pub struct Options {
    pub help: bool,
    pub version: bool,
    pub onnx: Option<PathBuf>,
    pub load_engine: Option<PathBuf>,
    pub save_engine: Option<PathBuf>,
    pub device: Option<DeviceKind>,
    pub shapes: Option<String>,
    pub min_shapes: Option<String>,
    pub opt_shapes: Option<String>,
    pub max_shapes: Option<String>,
    pub fp16: bool,
    pub tf32: bool,
    /// Names of sources as the builder knows them.
    pub excluded_sources: Vec<String>,
    /// What the build is told about the choice of kernels, where something was said.
    pub level: Option<u8>,
    pub avg_timing: Option<u32>,
    pub min_timing: Option<u32>,
    pub workspace: Option<u64>,
    pub max_threads: Option<usize>,
    pub timing_cache: Option<PathBuf>,
    pub no_timing_cache: bool,
    pub skip_inference: bool,
    pub test_data: Option<PathBuf>,
    pub rtol: Option<f64>,
    pub atol: Option<f64>,
    pub rms: Option<f64>,
    /// Name and file of inputs.
    pub load_inputs: Vec<(String, PathBuf)>,
    pub iterations: usize,
    pub warm_up_ms: f64,
    pub duration_s: f64,
    /// `--iterations` or `--duration` was given.
    pub timing_asked: bool,
    pub streams: usize,
    pub use_cuda_graph: bool,
    pub no_data_transfers: bool,
    pub verbose: bool,
    pub avg_runs: usize,
    pub avg_runs_asked: bool,
    pub percentiles: Vec<f64>,
    pub dump_output: bool,
    pub dump_profile: bool,
    pub export_times: Option<PathBuf>,
    pub export_output: Option<PathBuf>,
    pub export_profile: Option<PathBuf>,
    pub export_layer_info: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            help: false,
            version: false,
            onnx: None,
            load_engine: None,
            save_engine: None,
            device: None,
            shapes: None,
            min_shapes: None,
            opt_shapes: None,
            max_shapes: None,
            fp16: false,
            tf32: false,
            excluded_sources: Vec::new(),
            level: None,
            avg_timing: None,
            min_timing: None,
            workspace: None,
            max_threads: None,
            timing_cache: None,
            no_timing_cache: false,
            skip_inference: false,
            test_data: None,
            rtol: None,
            atol: None,
            rms: None,
            load_inputs: Vec::new(),
            iterations: 10,
            warm_up_ms: 200.0,
            duration_s: 3.0,
            timing_asked: false,
            streams: 1,
            use_cuda_graph: false,
            no_data_transfers: false,
            verbose: false,
            avg_runs: 10,
            avg_runs_asked: false,
            percentiles: vec![90.0, 95.0, 99.0],
            dump_output: false,
            dump_profile: false,
            export_times: None,
            export_output: None,
            export_profile: None,
            export_layer_info: None,
        }
    }
}

/// Reads the arguments (without the program's name).
pub fn parse(args: &[String]) -> Result<Options> {
    let mut o = Options::default();
    for arg in args {
        let arg = if arg == "-h" { "--help" } else { arg.as_str() };
        let (name, v) = arg.split_once('=').map_or((arg, None), |(n, v)| (n, Some(v)));
        let known = GROUPS.iter().flat_map(|(_, list)| *list).find(|k| k.name == name);
        let Some(known) = known else { return Err(unknown(arg, name)) };
        match (known.value, v) {
            (None, Some(v)) => bail!(InvalidArgument, "option {name} takes no value, got {v:?}"),
            (Some(what), None | Some("")) => bail!(InvalidArgument, "option {name} needs a value: {name}={what}"),
            _ => set(&mut o, name, v.unwrap_or(""))?,
        }
    }
    if o.help || o.version {
        return Ok(o);
    }
    match (&o.onnx, &o.load_engine) {
        (None, None) => bail!(InvalidArgument, "no model: give --onnx=FILE or --loadEngine=FILE"),
        (Some(_), Some(_)) => bail!(InvalidArgument, "--onnx and --loadEngine exclude each other"),
        _ => {}
    }
    o.check()?;
    Ok(o)
}

impl Options {
    /// Options that need the timing run, with whether they were given.
    pub fn of_timing_run(&self) -> [(&'static str, bool); 5] {
        [
            ("--dumpOutput", self.dump_output),
            ("--dumpProfile", self.dump_profile),
            ("--exportTimes", self.export_times.is_some()),
            ("--exportOutput", self.export_output.is_some()),
            ("--exportProfile", self.export_profile.is_some()),
        ]
    }

    /// Options that do not go together.
    fn check(&self) -> Result<()> {
        let o = self;
        if o.no_timing_cache && o.timing_cache.is_some() {
            bail!(InvalidArgument, "--timingCacheFile and --noTimingCache exclude each other");
        }
        if o.load_engine.is_none() {
            return Ok(());
        }
        let build_only = [
            ("--minShapes", o.min_shapes.is_some()),
            ("--optShapes", o.opt_shapes.is_some()),
            ("--maxShapes", o.max_shapes.is_some()),
            ("--fp16", o.fp16),
            ("--tf32", o.tf32),
            ("--tacticSources", !o.excluded_sources.is_empty()),
            ("--builderOptimizationLevel", o.level.is_some()),
            ("--avgTiming", o.avg_timing.is_some()),
            ("--minTiming", o.min_timing.is_some()),
            ("--memPoolSize", o.workspace.is_some()),
            ("--maxThreads", o.max_threads.is_some()),
            ("--timingCacheFile", o.timing_cache.is_some()),
            ("--noTimingCache", o.no_timing_cache),
        ];
        if let Some((name, _)) = build_only.iter().find(|(_, given)| *given) {
            bail!(InvalidArgument, "{name} is fixed when an engine is built; it cannot be changed with --loadEngine");
        }
        Ok(())
    }
}

fn set(o: &mut Options, name: &str, v: &str) -> Result<()> {
    let path = || Some(PathBuf::from(v));
    let text = || Some(v.to_string());
    match name {
        "--help" => o.help = true,
        "--version" => o.version = true,
        "--onnx" => o.onnx = path(),
        "--loadEngine" => o.load_engine = path(),
        "--saveEngine" => o.save_engine = path(),
        "--device" => o.device = Some(device(v)?),
        "--shapes" => o.shapes = text(),
        "--minShapes" => o.min_shapes = text(),
        "--optShapes" => o.opt_shapes = text(),
        "--maxShapes" => o.max_shapes = text(),
        "--fp16" => o.fp16 = true,
        "--tf32" => o.tf32 = true,
        "--noTF32" => o.tf32 = false,
        "--builderOptimizationLevel" => o.level = Some(level(v)?),
        "--avgTiming" => o.avg_timing = Some(count(name, v)?.min(10_000) as u32),
        "--minTiming" => o.min_timing = Some(count(name, v)?.min(10_000) as u32),
        "--memPoolSize" => o.workspace = Some(workspace(v)?),
        "--maxThreads" => o.max_threads = Some(count(name, v)?),
        "--timingCacheFile" => o.timing_cache = path(),
        "--noTimingCache" => o.no_timing_cache = true,
        "--tacticSources" => tactic_sources(o, v)?,
        "--skipInference" => o.skip_inference = true,
        "--testData" => o.test_data = path(),
        "--rtol" => o.rtol = Some(number(name, v)?),
        "--atol" => o.atol = Some(number(name, v)?),
        "--rms" => o.rms = Some(number(name, v)?),
        "--loadInputs" => o.load_inputs = load_inputs(v)?,
        "--iterations" => (o.iterations, o.timing_asked) = (count(name, v)?, true),
        "--warmUp" => o.warm_up_ms = number(name, v)?,
        "--duration" => (o.duration_s, o.timing_asked) = (number(name, v)?, true),
        "--streams" | "--infStreams" => o.streams = count(name, v)?,
        "--useCudaGraph" => o.use_cuda_graph = true,
        "--noDataTransfers" => o.no_data_transfers = true,
        "--verbose" => o.verbose = true,
        "--avgRuns" => (o.avg_runs, o.avg_runs_asked) = (count(name, v)?, true),
        "--percentile" => o.percentiles = percentiles(v)?,
        "--dumpOutput" => o.dump_output = true,
        "--dumpProfile" => o.dump_profile = true,
        "--exportTimes" => o.export_times = path(),
        "--exportOutput" => o.export_output = path(),
        "--exportProfile" => o.export_profile = path(),
        "--exportLayerInfo" => o.export_layer_info = path(),
        _ => return Err(sinter::internal!("option {name} is listed and not read")),
    }
    Ok(())
}

fn count(name: &str, v: &str) -> Result<usize> {
    let n = v.parse().ok().filter(|n| *n >= 1);
    n.ok_or_else(|| err!(InvalidArgument, "option {name}: expected a whole number of at least 1, got {v:?}"))
}

fn level(v: &str) -> Result<u8> {
    let n: Option<u32> = v.parse().ok();
    let n = n.ok_or_else(|| err!(InvalidArgument, "option --builderOptimizationLevel: expected 0 to 5, got {v:?}"))?;
    Ok(n.min(5) as u8)
}

/// `workspace:64`, `workspace:64M`, `workspace:1.5G`: bytes.
fn workspace(v: &str) -> Result<u64> {
    let wrong = || err!(InvalidArgument, "option --memPoolSize: expected workspace:SIZE, SIZE in MiB or with B, K, M or G, got {v:?}");
    let size = v.strip_prefix("workspace:").ok_or_else(wrong)?;
    let (digits, unit) = match size.char_indices().last() {
        Some((at, c)) if c.is_ascii_alphabetic() => (&size[..at], c.to_ascii_uppercase()),
        _ => (size, 'M'),
    };
    let scale = match unit {
        'B' => 1.0,
        'K' => 1024.0,
        'M' => 1024.0 * 1024.0,
        'G' => 1024.0 * 1024.0 * 1024.0,
        _ => return Err(wrong()),
    };
    let n: f64 = digits.parse().ok().filter(|n: &f64| *n >= 0.0 && n.is_finite()).ok_or_else(wrong)?;
    Ok((n * scale) as u64)
}

fn number(name: &str, v: &str) -> Result<f64> {
    let n = v.parse().ok().filter(|n: &f64| *n >= 0.0 && n.is_finite());
    n.ok_or_else(|| err!(InvalidArgument, "option {name}: expected a number that is not negative, got {v:?}"))
}

fn percentiles(v: &str) -> Result<Vec<f64>> {
    let one = |p: &str| p.trim().parse().ok().filter(|p: &f64| (0.0..=100.0).contains(p));
    v.split(',')
        .map(|p| one(p).ok_or_else(|| err!(InvalidArgument, "option --percentile: expected 0 to 100, got {p:?}")))
        .collect()
}

fn device(v: &str) -> Result<DeviceKind> {
    let kind = match v.parse::<i32>() {
        Ok(n) if n >= 0 => Some(DeviceKind::Cuda(n)),
        _ => DeviceKind::parse(v).filter(|k| *k != DeviceKind::Null),
    };
    kind.ok_or_else(|| err!(InvalidArgument, "option --device: expected cpu, cuda or cuda:N, got {v:?}"))
}

fn tactic_sources(o: &mut Options, v: &str) -> Result<()> {
    for part in v.split(',') {
        let name = part.trim_start_matches(['+', '-']).to_lowercase();
        if !TacticSource::ALL.iter().any(|s| s.name() == name) || !part.starts_with(['+', '-']) {
            let all: Vec<String> = TacticSource::ALL.iter().map(|s| s.name().to_uppercase()).collect();
            bail!(InvalidArgument, "option --tacticSources: expected + or - and one of {}, got {part:?}", all.join(", "));
        }
        o.excluded_sources.retain(|s| *s != name);
        if part.starts_with('-') {
            o.excluded_sources.push(name);
        }
    }
    Ok(())
}

fn load_inputs(v: &str) -> Result<Vec<(String, PathBuf)>> {
    v.split(',')
        // Names may hold colons; file names hardly do.
        .map(|part| match part.rsplit_once(':') {
            Some((name, file)) if !name.is_empty() && !file.is_empty() => Ok((unquote(name).into(), file.into())),
            _ => Err(err!(InvalidArgument, "option --loadInputs: expected NAME:FILE, got {part:?}")),
        })
        .collect()
}

/// A name without the single quotes around it.
pub fn unquote(name: &str) -> &str {
    name.strip_prefix('\'').and_then(|n| n.strip_suffix('\'')).unwrap_or(name)
}

fn unknown(arg: &str, name: &str) -> sinter::base::Error {
    if !name.starts_with('-') {
        let option = if name.ends_with(".onnx") { "--onnx" } else { "--loadEngine" };
        return err!(InvalidArgument, "unexpected argument {arg:?}: options are --name or --name=value; did you mean {option}={arg}?");
    }
    let all = GROUPS.iter().flat_map(|(_, list)| *list);
    let nearest = all.min_by_key(|k| distance(&name.to_lowercase(), &k.name.to_lowercase())).map_or("--help", |k| k.name);
    err!(InvalidArgument, "unknown option {name}; did you mean {nearest}?")
}

/// Insertions, deletions and substitutions between two names.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let change = diagonal + (ca != *cb) as usize;
            diagonal = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}
