//! `sinterexec`: builds, saves, loads, checks and times engines from the command line.
//!
//! The flow and the labels of the report are those that users of `trtexec` know; what is ours is `--device=cpu`,
//! `--testData` (recorded inputs and outputs, compared) and `--help`. One module a step:
//!
//! `options` (command line) → `build` (device, network, engine) → `test_data` or `run` (lanes of streams) →
//! `report` (figures), `profile` (time of each layer), `output` (values); `shapes` turns shape options into profiles,
//! `session` owns the memory, streams and events of an inference, `console` and `progress` print.
//!
//! Exit status: 0 when everything passed, 1 otherwise. This program uses the library's Rust interface only; it decides
//! nothing about kernels or memory itself.

mod build;
mod console;
mod help;
mod json;
mod options;
mod output;
mod profile;
mod progress;
mod report;
mod run;
mod session;
mod shapes;
mod test_data;

use console::{fail, info, plain, warning};
use options::Options;
use sinter::base::Result;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let title = format!("Sinter.sinterexec [v{}] # sinterexec {}", env!("CARGO_PKG_VERSION"), args.join(" "));
    let options = match options::parse(&args) {
        Ok(o) if o.help => {
            plain!("{}", help::text());
            return ExitCode::SUCCESS;
        }
        Ok(o) if o.version => {
            plain!("sinterexec {}", env!("CARGO_PKG_VERSION"));
            return ExitCode::SUCCESS;
        }
        Ok(o) => o,
        Err(e) => {
            fail!("{e}");
            fail!("`sinterexec --help` explains every option");
            return finish(&title, false);
        }
    };
    plain!("&&&& RUNNING {title}");
    console::listen_to_library(options.verbose);
    let passed = match catch_unwind(AssertUnwindSafe(|| work(&options))) {
        Ok(Ok(passed)) => passed,
        Ok(Err(e)) => {
            fail!("{e}");
            false
        }
        Err(_) => {
            fail!("a panic ended the run: this is a bug in Sinter");
            false
        }
    };
    finish(&title, passed)
}

/// The last line, and the exit status.
fn finish(title: &str, passed: bool) -> ExitCode {
    plain!("&&&& {} {title}", if passed { "PASSED" } else { "FAILED" });
    if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Everything between the command line and the exit status; false when test data disagree.
fn work(o: &Options) -> Result<bool> {
    let device = build::choose_device(o)?;
    let sets = match &o.test_data {
        Some(dir) => test_data::find_sets(dir)?,
        None => Vec::new(),
    };
    let engine = build::engine(o, &device, &sets)?;
    if let Some(path) = &o.export_layer_info {
        json::write_file(path, &engine.inspect_json()?)?;
        info!("Layer information written to {}", path.display());
    }
    let mut passed = true;
    if !sets.is_empty() {
        passed = test_data::run(o, &engine, &sets)?;
    }
    if !o.skip_inference && (sets.is_empty() || o.timing_asked) {
        run::run(o, &engine, sets.first().map(|s| s.inputs.as_slice()))?;
        return Ok(passed);
    }
    if o.skip_inference {
        info!("Skipped inference (--skipInference)");
    }
    for (name, _) in o.of_timing_run().iter().filter(|(_, given)| *given) {
        let add = if o.skip_inference { "and --skipInference leaves that out" } else { "which --iterations or --duration adds to --testData" };
        warning!("{name} is of the timing run, {add}: nothing is printed or written for it");
    }
    Ok(passed)
}
