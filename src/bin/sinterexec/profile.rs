//! `--dumpProfile` and `--exportProfile`: the time of each layer, from a run of its own.
//!
//! Timing every layer slows the whole, so these times do not add up to the latency of the timing run.

use crate::console::{info, plain};
use crate::json::{json_str, number, write_array};
use crate::options::Options;
use crate::report::Stats;
use crate::session::Stream;
use parking_lot::Mutex;
use sinter::base::Result;
use sinter::runtime::{Context, LayerTimes};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Times by position: names of layers may repeat.
#[derive(Default)]
struct Collector {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    at: usize,
    layers: Vec<(String, Vec<f64>)>,
}

impl LayerTimes for Collector {
    fn report(&self, layer: &str, ms: f32) {
        let mut s = self.state.lock();
        let at = s.at;
        if at == s.layers.len() {
            s.layers.push((layer.to_string(), Vec::new()));
        }
        s.layers[at].1.push(ms as f64);
        s.at += 1;
    }
}

/// One layer's figures.
struct Row {
    name: String,
    total: f64,
    average: f64,
    median: f64,
    percent: f64,
}

/// Runs the context, whose memory is bound, with a timer on each layer.
pub fn run(o: &Options, cx: &mut Context, stream: &Stream) -> Result<()> {
    let collector = Arc::new(Collector::default());
    cx.set_layer_times(Some(collector.clone()));
    let start = Instant::now();
    // Time enough for stable medians; not the whole duration again.
    let limit = Duration::from_secs_f64(o.duration_s.min(1.0));
    let mut n = 0;
    while n < o.iterations || start.elapsed() < limit {
        collector.state.lock().at = 0;
        cx.enqueue(stream.raw, std::ptr::null_mut())?;
        stream.synchronize()?;
        n += 1;
    }
    cx.set_layer_times(None);
    let layers = std::mem::take(&mut collector.state.lock().layers);
    let total: f64 = layers.iter().flat_map(|(_, t)| t).sum();
    let rows: Vec<Row> = layers
        .into_iter()
        .map(|(name, t)| {
            let sum: f64 = t.iter().sum();
            let s = Stats::new(t);
            Row { name, total: sum, average: s.mean, median: s.median, percent: 100.0 * sum / total.max(f64::MIN_POSITIVE) }
        })
        .collect();
    if o.dump_profile {
        table(n, &rows);
    }
    if let Some(path) = &o.export_profile {
        let mut list = vec![format!("{{\"count\": {n}}}")];
        list.extend(rows.iter().map(|r| {
            format!(
                "{{\"name\": {}, \"timeMs\": {}, \"averageMs\": {}, \"medianMs\": {}, \"percentage\": {}}}",
                json_str(&r.name),
                number(r.total),
                number(r.average),
                number(r.median),
                number(r.percent)
            )
        }));
        write_array(path, "Profile", &list)?;
    }
    Ok(())
}

fn table(n: usize, rows: &[Row]) {
    info!("=== Profile ({n} iterations ) ===");
    plain!("{:>12} {:>10} {:>12} {:>9}   Layer", "Time(ms)", "Avg.(ms)", "Median(ms)", "Time(%)");
    let line = |total: f64, average: f64, median: f64, percent: f64, name: &str| {
        plain!("{total:>12.2} {average:>10.4} {median:>12.4} {percent:>9.1}   {name}");
    };
    for r in rows {
        line(r.total, r.average, r.median, r.percent, &r.name);
    }
    let sum = |f: fn(&Row) -> f64| rows.iter().map(f).sum::<f64>();
    line(sum(|r| r.total), sum(|r| r.average), sum(|r| r.median), sum(|r| r.percent), "Total");
    plain!("");
}
