//! The program `sinterexec` as its users meet it: command lines, exit status, text, files. On the CPU, with the model
//! that the repository carries.

use sinter::base::Tensor;
use sinter::base::knobs;
use sinter::onnx::{read_tensor_file, write_tensor_bytes};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What a call gave.
struct Outcome {
    passed: bool,
    code: Option<i32>,
    out: String,
    err: String,
}

impl Outcome {
    fn text(&self) -> String {
        format!("exit {:?}\n{}\n{}", self.code, self.out, self.err)
    }

    /// Panics with everything that was printed unless the run passed and says so.
    fn must_pass(self) -> Outcome {
        assert!(self.passed && self.out.contains("&&&& PASSED"), "{}", self.text());
        self
    }

    /// As `must_pass`, the other way round: exit status 1, not a crash.
    fn must_fail(self) -> Outcome {
        assert!(self.code == Some(1) && self.out.contains("&&&& FAILED"), "{}", self.text());
        self
    }
}

fn call(args: &[&str]) -> Outcome {
    let output = Command::new(env!("CARGO_BIN_EXE_sinterexec"))
        .args(args)
        .env_remove("SINTER_LOG")
        .output()
        .expect("the program was built with this test");
    Outcome {
        passed: output.status.success(),
        code: output.status.code(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

fn models() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples_c/models")
}

fn onnx() -> String {
    format!("--onnx={}", models().join("digits.onnx").display())
}

/// A path of this test's own that does not exist yet.
fn fresh(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("sinterexec-{}-{name}", std::process::id()));
    let _ = std::fs::remove_file(&path);
    let _ = std::fs::remove_dir_all(&path);
    path
}

fn arg(name: &str, path: &Path) -> String {
    format!("{name}={}", path.display())
}

/// The shortest timing run.
const QUICK: [&str; 4] = ["--device=cpu", "--warmUp=0", "--duration=0", "--iterations=3"];

// ---- test data ------------------------------------------------------------------------------------------------

#[test]
fn recorded_data_pass_and_no_timing_run_follows() {
    let data = arg("--testData", &models().join("digits"));
    let o = call(&[&onnx(), &data, "--device=cpu"]).must_pass();
    assert!(o.out.contains("test_data_set_0: pass (image 10x1x8x8)"), "{}", o.text());
    assert!(o.out.contains("1 of 1 data sets passed"), "{}", o.text());
    assert!(!o.out.contains("Throughput"), "{}", o.text());
    // With iterations asked for, both.
    let o = call(&[&[onnx().as_str(), &data], &QUICK[..]].concat()).must_pass();
    assert!(o.out.contains("1 of 1 data sets passed") && o.out.contains("Throughput"), "{}", o.text());
}

#[test]
fn a_wrong_expected_value_is_found_and_located() {
    let set = models().join("digits/test_data_set_0");
    let mine = fresh("wrong");
    std::fs::create_dir_all(&mine).unwrap();
    std::fs::copy(set.join("input_0.pb"), mine.join("input_0.pb")).unwrap();
    let mut want = read_tensor_file(set.join("output_0.pb")).unwrap();
    want.slice_mut::<f32>()[27] += 0.25;
    std::fs::write(mine.join("output_0.pb"), write_tensor_bytes(&want, "probabilities")).unwrap();
    let data = arg("--testData", &mine);
    let o = call(&[&onnx(), &data, "--device=cpu"]).must_fail();
    assert!(o.out.contains("1 of 100") && o.out.contains("[2, 7] is"), "{}", o.text());
    assert!(o.out.contains("0 of 1 data sets passed"), "{}", o.text());
    // Tolerances decide.
    call(&[&onnx(), &data, "--device=cpu", "--atol=0.3"]).must_pass();
    call(&[&onnx(), &data, "--device=cpu", "--rms=0.5"]).must_pass();
    call(&[&onnx(), &data, "--device=cpu", "--rms=1e-3"]).must_fail();
    // A NaN is never near a number, whatever the tolerance.
    want.slice_mut::<f32>()[27] = f32::NAN;
    std::fs::write(mine.join("output_0.pb"), write_tensor_bytes(&want, "probabilities")).unwrap();
    call(&[&onnx(), &data, "--device=cpu", "--atol=1e30"]).must_fail();
    // Another shape is a mismatch too.
    std::fs::write(mine.join("output_0.pb"), write_tensor_bytes(&Tensor::scalar(1.0f32), "probabilities")).unwrap();
    let o = call(&[&onnx(), &data, "--device=cpu", "--atol=1e30"]).must_fail();
    assert!(o.out.contains("expected f32 scalar"), "{}", o.text());
}

#[test]
fn missing_data_are_an_error() {
    let nowhere = fresh("nowhere");
    let o = call(&[&onnx(), &arg("--testData", &nowhere), "--device=cpu"]).must_fail();
    assert!(o.err.contains("is not a folder"), "{}", o.text());
    std::fs::create_dir_all(&nowhere).unwrap();
    let o = call(&[&onnx(), &arg("--testData", &nowhere), "--device=cpu"]).must_fail();
    assert!(o.err.contains("test_data_set_*"), "{}", o.text());
    std::fs::copy(models().join("digits/test_data_set_0/input_0.pb"), nowhere.join("input_0.pb")).unwrap();
    let o = call(&[&onnx(), &arg("--testData", &nowhere), "--device=cpu"]).must_fail();
    assert!(o.err.contains("has 0 outputs"), "{}", o.text());
}

// ---- engines --------------------------------------------------------------------------------------------------

#[test]
fn an_engine_is_saved_loaded_and_still_right() {
    let file = fresh("digits.engine");
    let o = call(&[&onnx(), &arg("--saveEngine", &file), "--device=cpu", "--skipInference", "--shapes=image:10x1x8x8"]);
    let o = o.must_pass();
    assert!(!o.out.contains("Throughput") && o.out.contains("Created engine with size"), "{}", o.text());
    let load = arg("--loadEngine", &file);
    let o = call(&[&load, &arg("--testData", &models().join("digits")), "--device=cpu"]).must_pass();
    assert!(o.out.contains("Loaded engine with size") && o.out.contains("1 of 1 data sets passed"), "{}", o.text());
    // Build options cannot change what is built.
    let o = call(&[&load, "--fp16", "--device=cpu"]).must_fail();
    assert!(o.err.contains("--fp16 is fixed"), "{}", o.text());
    // A damaged file is refused in words.
    let bytes = std::fs::read(&file).unwrap();
    std::fs::write(&file, &bytes[..bytes.len() / 2]).unwrap();
    let o = call(&[&load, "--device=cpu"]).must_fail();
    assert!(o.err.contains("[E]") && !o.err.contains("panic"), "{}", o.text());
}

/// On the CPU nothing is timed: the file is made, and read the next time.
#[test]
fn a_timing_cache_file_is_written_and_read_back() {
    let file = fresh("digits.timing");
    let options = ["--device=cpu", "--skipInference", "--builderOptimizationLevel=9", "--memPoolSize=workspace:1.5G", "--avgTiming=2"];
    let cache = arg("--timingCacheFile", &file);
    let run = || call(&[&[onnx().as_str(), &cache], &options[..]].concat()).must_pass();
    assert!(run().out.contains("does not exist yet"));
    assert!(run().out.contains("Loaded 0 entries of timing cache"));
    std::fs::write(&file, "something else").unwrap();
    let o = call(&[&[onnx().as_str(), &cache], &options[..]].concat()).must_fail();
    assert!(o.err.contains("timing cache"), "{}", o.text());
}

#[test]
fn shapes_may_change_within_the_range_and_not_beyond() {
    let file = fresh("range.engine");
    let build = ["--minShapes=image:1x1x8x8", "--optShapes=im*:4x1x8x8", "--maxShapes='image':12x1x8x8"];
    let save = arg("--saveEngine", &file);
    let o = call(&[&[onnx().as_str(), &save, "--device=cpu", "--skipInference"], &build[..]].concat()).must_pass();
    assert!(o.out.contains("min 1x1x8x8, opt 4x1x8x8, max 12x1x8x8"), "{}", o.text());
    let load = arg("--loadEngine", &file);
    for (shape, dims) in [("", "4x10"), ("--shapes=image:3x1x8x8", "3x10"), ("--shapes=image:12x1x8x8", "12x10")] {
        let json = fresh("range.json");
        let export = arg("--exportOutput", &json);
        let mut args = vec![load.as_str(), &export];
        args.extend(QUICK);
        args.extend(Some(shape).filter(|s| !s.is_empty()));
        call(&args).must_pass();
        assert_eq!(Json::read(&json).at(0).get("dimensions").text(), dims, "with {shape:?}");
    }
    let o = call(&[&[load.as_str(), "--shapes=image:13x1x8x8"], &QUICK[..]].concat()).must_fail();
    assert!(o.err.contains("13") && o.err.contains("1 to 12"), "{}", o.text());
    let o = call(&[&[load.as_str(), "--shapes=picture:1x1x8x8"], &QUICK[..]].concat()).must_fail();
    assert!(o.err.contains("\"picture\"") && o.err.contains("\"image\""), "{}", o.text());
}

#[test]
fn a_dynamic_input_without_a_shape_becomes_one_with_a_warning() {
    let o = call(&[&[onnx().as_str()], &QUICK[..]].concat()).must_pass();
    assert!(o.err.contains("[W]") && o.err.contains("it is set to 1x1x8x8"), "{}", o.text());
}

// ---- inference ------------------------------------------------------------------------------------------------

#[test]
fn inputs_from_files_give_the_recorded_outputs() {
    let set = models().join("digits/test_data_set_0");
    let raw = fresh("image.bin");
    std::fs::write(&raw, read_tensor_file(set.join("input_0.pb")).unwrap().bytes()).unwrap();
    let json = fresh("output.json");
    let inputs = format!("--loadInputs=image:{}", raw.display());
    let o = call(&[&[onnx().as_str(), "--shapes=image:10x1x8x8", "--dumpOutput", &inputs, &arg("--exportOutput", &json)], &QUICK[..]].concat());
    let o = o.must_pass();
    assert!(o.out.contains("probabilities: f32 10x10"), "{}", o.text());
    let json = Json::read(&json);
    let out = json.at(0);
    assert_eq!(out.get("name").text(), "probabilities");
    assert_eq!(out.get("dimensions").text(), "10x10");
    let want = read_tensor_file(set.join("output_0.pb")).unwrap().to_f64s();
    let got = out.get("values").list();
    assert_eq!(got.len(), want.len());
    for (g, w) in got.iter().zip(&want) {
        assert!((g.number() - w).abs() <= 1e-5 + 1e-3 * w.abs(), "{} instead of {w}", g.number());
    }
    // A file of another size is refused.
    std::fs::write(&raw, [0; 7]).unwrap();
    let o = call(&[&[onnx().as_str(), "--shapes=image:10x1x8x8", &inputs], &QUICK[..]].concat()).must_fail();
    assert!(o.err.contains("2560 bytes, got 7"), "{}", o.text());
}

#[test]
fn the_report_and_its_files_are_complete() {
    let files: Vec<PathBuf> = ["times", "profile", "layers"].iter().map(|n| fresh(&format!("{n}.json"))).collect();
    let [times, profile, layers] = [0, 1, 2].map(|i| &files[i]);
    let exports = [arg("--exportTimes", times), arg("--exportProfile", profile), arg("--exportLayerInfo", layers)];
    let mut args = vec![onnx(), "--dumpProfile".into(), "--infStreams=2".into(), "--avgRuns=2".into(), "--percentile=50,99.9".into()];
    args.extend(exports);
    args.extend(QUICK.map(String::from));
    let o = call(&args.iter().map(String::as_str).collect::<Vec<_>>()).must_pass();
    for label in [
        "&&&& RUNNING Sinter.sinterexec [v",
        "=== Device Information ===",
        "Selected Device: cpu",
        "Finished parsing network model. Parse time: ",
        "Engine built in ",
        "Using random values for input image (1x1x8x8)",
        "Starting inference",
        "Warmup completed ",
        "Timing trace has ",
        "Average on 2 runs - CPU latency: ",
        "=== Performance summary ===",
        "Throughput: ",
        "Latency: min = ",
        "Enqueue Time: min = ",
        "Compute Time: min = ",
        "percentile(50%) = ",
        "percentile(99.9%) = ",
        "Total Host Walltime: ",
        "=== Profile (",
    ] {
        assert!(o.out.contains(label), "{label:?} is missing in\n{}", o.text());
    }
    let times = Json::read(times);
    assert!(times.list().len() >= 6, "2 streams with at least 3 inferences each");
    for t in times.list() {
        let (start, end) = (t.get("startComputeMs").number(), t.get("endComputeMs").number());
        assert!(0.0 <= start && start <= end, "{start} to {end}");
        assert_eq!(t.get("latencyMs").number(), t.get("computeMs").number(), "the CPU copies nothing");
        for name in ["startEnqMs", "endEnqMs", "startH2dMs", "endH2dMs", "startD2hMs", "endD2hMs", "h2dMs", "d2hMs"] {
            t.get(name).number();
        }
    }
    let profile = Json::read(profile);
    assert!(profile.at(0).get("count").number() >= 3.0);
    let rows = &profile.list()[1..];
    let percent: f64 = rows.iter().map(|r| r.get("percentage").number()).sum();
    assert!((percent - 100.0).abs() < 0.01, "percentages sum to {percent}");
    for r in rows {
        assert!(o.out.contains(r.get("name").text()), "the table lacks {}", r.get("name").text());
        assert!(r.get("averageMs").number() >= 0.0 && r.get("medianMs").number() >= 0.0 && r.get("timeMs").number() >= 0.0);
    }
    assert!(Json::read(layers).get("Layers").list().len() >= rows.len());
}

// ---- command line ---------------------------------------------------------------------------------------------

#[test]
fn mistakes_on_the_command_line_get_a_sentence() {
    let cases: &[(&[&str], &str)] = &[
        (&["--onx=a"], "unknown option --onx; did you mean --onnx?"),
        (&["--exportprofil=a"], "did you mean --exportProfile?"),
        (&["digits.onnx"], "did you mean --onnx=digits.onnx?"),
        (&["--onnx"], "option --onnx needs a value: --onnx=FILE"),
        (&["--onnx=a", "--fp16=1"], "option --fp16 takes no value"),
        (&["--onnx=a", "--iterations=0"], "whole number of at least 1"),
        (&["--onnx=a", "--duration=-1"], "not negative"),
        (&["--onnx=a", "--device=tpu"], "expected cpu, cuda or cuda:N, got \"tpu\""),
        (&["--onnx=a", "--tacticSources=CUBLASLT"], "expected + or -"),
        (&["--onnx=a", "--percentile=101"], "0 to 100"),
        (&["--onnx=a", "--builderOptimizationLevel=x"], "0 to 5"),
        (&["--onnx=a", "--memPoolSize=64"], "workspace:SIZE"),
        (&["--onnx=a", "--memPoolSize=workspace:-1M"], "workspace:SIZE"),
        (&["--onnx=a", "--avgTiming=0"], "at least 1"),
        (&["--onnx=a", "--noTimingCache", "--timingCacheFile=f"], "exclude each other"),
        (&["--loadEngine=a", "--timingCacheFile=f"], "fixed when an engine is built"),
        (&["--onnx=a", "--loadEngine=b"], "exclude each other"),
        (&["--fp16"], "no model"),
        (&["--onnx=/nonexistent/model.onnx", "--device=cpu"], "/nonexistent/model.onnx"),
    ];
    for (args, text) in cases {
        let o = call(args).must_fail();
        assert!(o.err.contains(text), "{args:?}: {text:?} is missing in\n{}", o.text());
    }
    let o = call(&[&onnx(), "--device=cpu", "--shapes=image:1y8"]).must_fail();
    assert!(o.err.contains("\"1y8\" is no shape"), "{}", o.text());
}

#[test]
fn help_names_every_option_and_every_variable() {
    let o = call(&["--help"]);
    assert!(o.passed, "{}", o.text());
    for name in "onnx loadEngine saveEngine device shapes minShapes optShapes maxShapes fp16 tf32 noTF32 iterations warmUp \
                 duration streams infStreams loadInputs exportOutput dumpOutput dumpProfile exportProfile exportLayerInfo \
                 exportTimes avgRuns percentile verbose useCudaGraph noDataTransfers skipInference tacticSources testData \
                 builderOptimizationLevel avgTiming minTiming memPoolSize maxThreads timingCacheFile noTimingCache rtol atol rms help version"
        .split_whitespace()
    {
        let listed = |l: &str| l.trim_start().strip_prefix("--").is_some_and(|l| l.split(['=', ' ']).next() == Some(name));
        assert!(o.out.lines().any(listed), "--{name} is not explained in\n{}", o.out);
    }
    for k in knobs::ALL {
        assert!(o.out.contains(k.name), "{} is not explained", k.name);
    }
    assert!(o.out.lines().all(|l| l.chars().count() <= 116), "a line of the help is too long");
    assert_eq!(call(&["-h"]).out, o.out);
    assert_eq!(call(&["--version"]).out.trim(), format!("sinterexec {}", env!("CARGO_PKG_VERSION")));
}

// ---- JSON -----------------------------------------------------------------------------------------------------

/// A parsed JSON document: strict enough that what it reads is valid.
enum Json {
    Null,
    Bool,
    Number(f64),
    Text(String),
    List(Vec<Json>),
    Object(BTreeMap<String, Json>),
}

impl Json {
    fn read(path: &Path) -> Json {
        let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let mut p = Parser { text: text.as_bytes(), at: 0 };
        let v = p.value();
        p.space();
        assert_eq!(p.at, text.len(), "text after the JSON value in {}", path.display());
        v
    }

    fn list(&self) -> &[Json] {
        let Json::List(v) = self else { panic!("not an array") };
        v
    }

    fn at(&self, i: usize) -> &Json {
        &self.list()[i]
    }

    fn get(&self, name: &str) -> &Json {
        let Json::Object(m) = self else { panic!("not an object") };
        m.get(name).unwrap_or_else(|| panic!("no member {name:?}"))
    }

    fn number(&self) -> f64 {
        let Json::Number(v) = self else { panic!("not a number") };
        *v
    }

    fn text(&self) -> &str {
        let Json::Text(v) = self else { panic!("not a string") };
        v
    }
}

struct Parser<'a> {
    text: &'a [u8],
    at: usize,
}

impl Parser<'_> {
    fn peek(&self) -> u8 {
        *self.text.get(self.at).expect("the JSON ends too early")
    }

    fn space(&mut self) {
        while self.text.get(self.at).is_some_and(|c| b" \n\r\t".contains(c)) {
            self.at += 1;
        }
    }

    fn expect(&mut self, what: &str) {
        assert!(self.text[self.at..].starts_with(what.as_bytes()), "expected {what:?} at byte {}", self.at);
        self.at += what.len();
    }

    fn value(&mut self) -> Json {
        self.space();
        match self.peek() {
            b'{' => Json::Object(self.items(b'}', |p| {
                p.space();
                let name = p.string();
                p.space();
                p.expect(":");
                (name, p.value())
            })
            .into_iter()
            .collect()),
            b'[' => Json::List(self.items(b']', Parser::value)),
            b'"' => Json::Text(self.string()),
            b't' => self.word("true", Json::Bool),
            b'f' => self.word("false", Json::Bool),
            b'n' => self.word("null", Json::Null),
            _ => self.number(),
        }
    }

    fn word(&mut self, text: &str, value: Json) -> Json {
        self.expect(text);
        value
    }

    fn items<T>(&mut self, close: u8, mut one: impl FnMut(&mut Self) -> T) -> Vec<T> {
        self.at += 1;
        self.space();
        let mut out = Vec::new();
        if self.peek() == close {
            self.at += 1;
            return out;
        }
        loop {
            out.push(one(self));
            self.space();
            self.at += 1;
            match self.text[self.at - 1] {
                b',' => {}
                c if c == close => return out,
                c => panic!("unexpected {:?} at byte {}", c as char, self.at - 1),
            }
        }
    }

    fn string(&mut self) -> String {
        self.expect("\"");
        let mut out = Vec::new();
        loop {
            let c = self.peek();
            self.at += 1;
            match c {
                b'"' => return String::from_utf8(out).unwrap(),
                b'\\' => {
                    let escaped = self.peek();
                    self.at += 1;
                    match escaped {
                        b'u' => {
                            let hex = std::str::from_utf8(&self.text[self.at..self.at + 4]).unwrap();
                            u32::from_str_radix(hex, 16).expect("four hex digits");
                            self.at += 4;
                        }
                        c => assert!(b"\"\\/bfnrt".contains(&c), "bad escape {:?}", c as char),
                    }
                    out.push(escaped);
                }
                c => {
                    assert!(c >= 32, "control character in a string");
                    out.push(c);
                }
            }
        }
    }

    fn number(&mut self) -> Json {
        let start = self.at;
        while self.text.get(self.at).is_some_and(|c| b"+-.eE0123456789".contains(c)) {
            self.at += 1;
        }
        let text = std::str::from_utf8(&self.text[start..self.at]).unwrap();
        let digits = text.trim_start_matches('-');
        let starts_well = digits.starts_with(|c: char| c.is_ascii_digit())
            && (digits == "0" || !digits.starts_with('0') || digits.starts_with("0.") || digits.starts_with("0e"));
        assert!(starts_well && !text.contains(".e") && !text.ends_with('.'), "bad number {text:?} at byte {start}");
        Json::Number(text.parse().unwrap_or_else(|e| panic!("bad number {text:?}: {e}")))
    }
}
