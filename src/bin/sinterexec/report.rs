//! The figures of a timing run, with trtexec's labels.
//!
//! On the CPU nothing is copied between host and device, so the two copy lines are left out and "GPU Compute Time" is
//! "Compute Time".

use crate::console::{info, warning};
use crate::json::{number, write_array};
use crate::options::Options;
use crate::run::{Measured, Trace};
use sinter::base::Result;
use std::path::Path;

/// Summary of one figure over all inferences.
pub struct Stats {
    pub min: f64,
    pub max: f64,
    pub mean: f64,
    pub median: f64,
    /// Standard deviation / mean.
    pub variation: f64,
    sorted: Vec<f64>,
}

impl Stats {
    /// Of at least one value.
    pub fn new(mut v: Vec<f64>) -> Stats {
        v.sort_by(f64::total_cmp);
        let n = v.len().max(1) as f64;
        let mean = v.iter().sum::<f64>() / n;
        let spread = (v.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / n).sqrt();
        let at = |i: usize| v.get(i).copied().unwrap_or(0.0);
        let half = v.len() / 2;
        let median = if v.len() % 2 == 1 { at(half) } else { (at(half.saturating_sub(1)) + at(half)) / 2.0 };
        let variation = if mean > 0.0 { spread / mean } else { 0.0 };
        Stats { min: at(0), max: at(v.len().saturating_sub(1)), mean, median, variation, sorted: v }
    }

    fn percentile(&self, p: f64) -> f64 {
        let n = self.sorted.len() as i64;
        let i = (n - 1 - ((1.0 - p / 100.0) * n as f64) as i64).max(0);
        self.sorted.get(i as usize).copied().unwrap_or(0.0)
    }

    fn text(&self, percentiles: &[f64]) -> String {
        let mut t = format!(
            "min = {} ms, max = {} ms, mean = {} ms, median = {} ms",
            num(self.min),
            num(self.max),
            num(self.mean),
            num(self.median)
        );
        for p in percentiles {
            t += &format!(", percentile({p}%) = {} ms", num(self.percentile(*p)));
        }
        t
    }
}

/// Six significant digits at most, as C++ streams print.
fn num(v: f64) -> String {
    if v == 0.0 {
        return "0".into();
    }
    let digits = (5 - v.abs().log10().floor() as i32).clamp(0, 9) as usize;
    let t = format!("{v:.digits$}");
    if t.contains('.') { t.trim_end_matches('0').trim_end_matches('.').to_string() } else { t }
}

/// Median of the computation's time.
pub fn compute_ms(m: &Measured) -> f64 {
    Stats::new(m.traces.iter().map(|t| t.compute_ms).collect()).median
}

/// Prints everything about a run. `dense`: GPU time of one inference in a row of so many.
pub fn print(o: &Options, m: &Measured, cuda: bool, dense: Option<(f64, usize)>) {
    let Some(first) = m.traces.first() else { return };
    // What was computed last need not have ended last, with several streams.
    let start = m.traces.iter().fold(first.h2d[0], |a, t| a.min(t.h2d[0]));
    let end = m.traces.iter().fold(first.d2h[1], |a, t| a.max(t.d2h[1]));
    let wall_s = (end - start) / 1e3;
    info!("Warmup completed {} queries over {} ms", m.n_warm_up, num(m.warm_up_ms));
    info!("Timing trace has {} queries over {} s", m.traces.len(), num(wall_s));
    let processor = if cuda { "GPU" } else { "CPU" };
    if o.avg_runs_asked || o.verbose {
        averages(o, &m.traces, processor);
    }
    let stats = |f: fn(&Trace) -> f64| Stats::new(m.traces.iter().map(f).collect());
    let latency = stats(Trace::latency_ms);
    let enqueue = stats(Trace::enqueue_ms);
    let (h2d, compute, d2h) = (stats(|t| t.h2d_ms), stats(|t| t.compute_ms), stats(|t| t.d2h_ms));
    let label = if cuda { "GPU Compute Time" } else { "Compute Time" };
    let p = &o.percentiles;
    info!("");
    info!("=== Performance summary ===");
    info!("Throughput: {} qps", num(m.traces.len() as f64 / wall_s));
    info!("Latency: {}", latency.text(p));
    info!("Enqueue Time: {}", enqueue.text(p));
    if cuda {
        info!("H2D Latency: {}", h2d.text(p));
    }
    info!("{label}: {}", compute.text(p));
    if let Some((ms, n)) = dense {
        info!("Back to Back: {n} inferences in a row, each GPU = {} ms", num(ms));
    }
    if cuda {
        info!("D2H Latency: {}", d2h.text(p));
    }
    info!("Total Host Walltime: {} s", num(wall_s));
    info!("Total {label}: {} s", num(compute.mean * m.traces.len() as f64 / 1e3));
    warnings(o, cuda, &enqueue, &h2d, &compute, &d2h);
    if o.verbose {
        explain(label, cuda);
    }
    info!("");
}

fn averages(o: &Options, traces: &[Trace], processor: &str) {
    const SHOWN: usize = 200;
    let r = o.avg_runs;
    if traces.len() < r {
        return;
    }
    info!("");
    info!("=== Trace details ===");
    info!("Trace averages of {r} runs:");
    let groups: Vec<&[Trace]> = traces.chunks_exact(r).collect();
    for (i, g) in groups.iter().enumerate() {
        if groups.len() > 2 * SHOWN && (SHOWN..groups.len() - SHOWN).contains(&i) {
            if i == SHOWN {
                info!("... Omitting {} lines", groups.len() - 2 * SHOWN);
            }
            continue;
        }
        let mean = |f: fn(&Trace) -> f64| num(g.iter().map(f).sum::<f64>() / r as f64);
        info!(
            "Average on {r} runs - {processor} latency: {} ms - Host latency: {} ms (enqueue {} ms)",
            mean(|t| t.compute_ms),
            mean(Trace::latency_ms),
            mean(Trace::enqueue_ms)
        );
    }
}

fn warnings(o: &Options, cuda: bool, enqueue: &Stats, h2d: &Stats, compute: &Stats, d2h: &Stats) {
    if cuda && enqueue.median > 0.8 * compute.median {
        warning!("* Throughput may be bound by Enqueue Time rather than GPU Compute and the GPU may be under-utilized.");
        if !o.use_cuda_graph {
            warning!("  Try --useCudaGraph.");
        }
    }
    for (name, s) in [("H2D", h2d), ("D2H", d2h)] {
        if cuda && s.median >= compute.median {
            warning!("* Throughput may be bound by {name} copies rather than GPU Compute: --noDataTransfers shows the time without them.");
        }
    }
    if compute.variation > 0.025 {
        let what = if cuda { "GPU compute time" } else { "Compute time" };
        let hint = if cuda { "Locking the GPU clock frequency may help." } else { "Other programs may be using the processor." };
        warning!("* {what} is unstable, with coefficient of variation = {}%. {hint}", num(compute.variation * 100.0));
    }
    if o.streams > 1 {
        warning!("* Several inference streams run at once: the times of one include waiting for the others. Judge by the throughput.");
    }
}

fn explain(label: &str, cuda: bool) {
    info!("");
    info!("=== Explanations of the performance metrics ===");
    info!("Total Host Walltime: from the start of the first counted inference to the end of the last.");
    info!("{label}: time of one inference on the device, without copies.");
    info!("Total {label}: the sum over all inferences.");
    info!("Enqueue Time: time of the host's call that enqueues an inference.");
    if cuda {
        info!("H2D Latency: time to copy the inputs to the device.");
        info!("D2H Latency: time to copy the outputs to the host.");
        info!("Back to Back: {label} when inferences are launched in a row, with no copies and no waiting between.");
        info!("Latency: H2D Latency + {label} + D2H Latency.");
    } else {
        info!("Latency: the same as {label}, because the CPU copies nothing.");
    }
    info!("Throughput: inferences divided by the walltime.");
}

/// `--exportTimes`: one object an inference.
pub fn export_times(path: &Path, traces: &[Trace]) -> Result<()> {
    let one = |t: &Trace| {
        let fields = [
            ("startEnqMs", t.enqueue[0]),
            ("endEnqMs", t.enqueue[1]),
            ("startH2dMs", t.h2d[0]),
            ("endH2dMs", t.h2d[1]),
            ("startComputeMs", t.compute[0]),
            ("endComputeMs", t.compute[1]),
            ("startD2hMs", t.d2h[0]),
            ("endD2hMs", t.d2h[1]),
            ("h2dMs", t.h2d_ms),
            ("computeMs", t.compute_ms),
            ("d2hMs", t.d2h_ms),
            ("latencyMs", t.latency_ms()),
        ];
        let fields = fields.map(|(name, v)| format!("\"{name}\": {}", number((v * 1e6).round() / 1e6)));
        format!("{{{}}}", fields.join(", "))
    };
    write_array(path, "Times", &traces.iter().map(one).collect::<Vec<_>>())
}
