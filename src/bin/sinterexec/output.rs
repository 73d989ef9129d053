//! `--dumpOutput` and `--exportOutput`: the values of the outputs.

use crate::console::{info, plain};
use crate::json::{json_str, number, write_array};
use crate::options::Options;
use crate::session::{Io, dims_text};
use sinter::base::{DType, Result, Tensor};

/// Values that `--dumpOutput` prints of one output, unless `--verbose`.
const SHOWN: usize = 1000;

/// Prints and writes what was asked for.
pub fn show(o: &Options, io: &Io) -> Result<()> {
    let tensors = io.outputs.iter().map(|b| Ok((b.name.as_str(), b.tensor()?))).collect::<Result<Vec<_>>>()?;
    if o.dump_output {
        info!("Output Tensors:");
        for (name, t) in &tensors {
            dump(name, t, if o.verbose { usize::MAX } else { SHOWN });
        }
        plain!("");
    }
    if let Some(path) = &o.export_output {
        let one = |(name, t): &(&str, Tensor)| {
            let dims = if t.rank() == 0 { String::new() } else { dims_text(t.shape()) };
            format!(
                "{{\"name\": {}, \"dimensions\": {}, \"values\": [{}]}}",
                json_str(name),
                json_str(&dims),
                values(t, t.numel(), true).join(", ")
            )
        };
        write_array(path, "Output", &tensors.iter().map(one).collect::<Vec<_>>())?;
    }
    Ok(())
}

/// One line for each row of the last dimension.
fn dump(name: &str, t: &Tensor, limit: usize) {
    plain!("");
    plain!("{name}: {} {}", t.dtype(), dims_text(t.shape()));
    let row = t.shape().last().copied().unwrap_or(1).max(1);
    let shown = t.numel().min(limit);
    let texts = values(t, shown, false);
    let width = texts.iter().map(String::len).max().unwrap_or(0);
    for line in texts.chunks(row) {
        let cells: Vec<String> = line.iter().map(|v| format!("{v:>width$}")).collect();
        plain!("  {}", cells.join(" "));
    }
    if shown < t.numel() {
        plain!("  ... {} more; --verbose prints and --exportOutput writes all", t.numel() - shown);
    }
}

/// The first `n` values as text, each with the digits of its own type.
fn values(t: &Tensor, n: usize, json: bool) -> Vec<String> {
    if !t.dtype().is_float_like() {
        return match t.dtype() {
            DType::U64 => t.slice::<u64>().iter().take(n).map(u64::to_string).collect(),
            _ => t.to_i64s().iter().take(n).map(i64::to_string).collect(),
        };
    }
    let short = |v: f64| if v != 0.0 && !(1e-4..1e7).contains(&v.abs()) { format!("{v:.5e}") } else { format!("{v:.6}") };
    let exact = |v: f64| match t.dtype() {
        DType::F64 => number(v),
        // The digits of the narrower type are fewer.
        _ if v.is_finite() => format!("{:?}", v as f32),
        _ => number(v),
    };
    t.to_f64s().iter().take(n).map(|v| if json { exact(*v) } else { short(*v) }).collect()
}
