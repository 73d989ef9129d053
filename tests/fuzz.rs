//! Mutated models and engines: whatever the bytes, the library answers with a value or an error.
//!
//! Each case is made from a seed alone: a base file is chosen, mutated a few times, and taken through the whole way:
//! - ONNX: import, verify, build for the CPU (and each fourth case for the null device, which plans for CUDA), load,
//!   make a context, set shapes, and run what is tiny;
//! - engine files: parse, load on the CPU and on the null device, make a context, set shapes. In half of the cases the
//!   checksums are repaired after the mutation, so that the parser behind them is reached.
//!
//! What is asserted, for every case:
//! - no panic and no crash;
//! - no hang: [`CASE_SECONDS`] a case, by a watchdog that ends the process and names the seed;
//! - memory: the live heap never grows by more than [`allowance`]: 64 MiB and 2048 bytes for each byte of the file. A
//!   counting allocator measures it, and ends the process when a single case passes 4 GiB. Memory that the model
//!   honestly asks for when it runs is not part of that bound, so contexts are made only where inputs, weights and
//!   values together are at most [`RUN_BYTES`].
//!
//! `SINTER_FUZZ_CASES` sets the number of cases of each kind, `SINTER_FUZZ_SEED` the first seed: with a count of 1 it
//! repeats a reported case.

#[path = "fuzz/alloc.rs"]
mod alloc;
#[path = "fuzz/mutate.rs"]
mod mutate;
#[path = "fuzz/pipeline.rs"]
mod pipeline;
#[path = "fuzz/seeds.rs"]
mod seeds;

use mutate::Rng;
use parking_lot::Mutex;
use pipeline::Outcome;
use sinter::base::knobs;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

#[global_allocator]
static HEAP: alloc::Counting = alloc::Counting;

/// Longest time of one case.
const CASE_SECONDS: u64 = if cfg!(debug_assertions) { 20 } else { 5 };

/// Values of a model that is given a context, in bytes, all together.
pub const RUN_BYTES: usize = 4 << 20;

/// Bytes that the heap may grow by while a file of this size is worked on.
fn allowance(file: usize) -> usize {
    (64 << 20) + 2048 * file
}

/// The heap's figures are the process's: one campaign at a time.
static TURN: Mutex<()> = Mutex::new(());

/// Seed of the case at work, plus one; 0 between cases.
static CASE: AtomicU64 = AtomicU64::new(0);
/// Milliseconds since the start at which it began.
static BEGAN: AtomicU64 = AtomicU64::new(0);

/// Place and message of the last panic, from any thread.
static PANIC: Mutex<String> = Mutex::new(String::new());

/// The clock of every campaign of the process: watchers outlive the campaign that started them.
static START: std::sync::LazyLock<Instant> = std::sync::LazyLock::new(Instant::now);

fn watch() {
    std::thread::spawn(|| {
        loop {
            std::thread::sleep(Duration::from_millis(100));
            let (case, began) = (CASE.load(Ordering::SeqCst), BEGAN.load(Ordering::SeqCst));
            let now = START.elapsed().as_millis() as u64;
            if case != 0 && now > began + CASE_SECONDS * 1000 && CASE.load(Ordering::SeqCst) == case {
                eprintln!("HANG: the case of seed {} runs for more than {CASE_SECONDS} s", case - 1);
                std::process::abort();
            }
        }
    });
}

/// Runs all cases of one kind and fails with every distinct failure, the first seed of each.
fn campaign(what: &str, case: impl Fn(u64) -> Vec<u8>, run: impl Fn(&[u8], u64) -> Outcome) {
    let _turn = TURN.lock();
    sinter::base::log::set_sink(Some(std::sync::Arc::new(|_, _| {})));
    std::panic::set_hook(Box::new(|info| {
        let text = info.payload();
        let text = text.downcast_ref::<String>().cloned().or_else(|| text.downcast_ref::<&str>().map(|s| s.to_string()));
        let at = info.location().map_or(String::new(), |l| format!("{}:{}", l.file(), l.line()));
        let text = format!("panic at {at}: {}", text.unwrap_or_default());
        *PANIC.lock() = text;
    }));
    let start = Instant::now();
    watch();
    let count = |k: &knobs::Knob, default: u64| k.get().map_or(default, |v| v.parse().expect("a number"));
    let (n, first) = (count(&knobs::FUZZ_CASES, 3000), count(&knobs::FUZZ_SEED, 0));
    let mut failures: BTreeMap<String, (u64, usize)> = BTreeMap::new();
    let mut outcomes: BTreeMap<Outcome, usize> = BTreeMap::new();
    let (mut slowest, mut peak, mut peak_share) = ((Duration::ZERO, 0), (0, 0), (0.0f64, 0));
    for seed in first..first + n {
        let mut fail = |text: String| failures.entry(text).or_insert((seed, 0)).1 += 1;
        BEGAN.store(START.elapsed().as_millis() as u64, Ordering::SeqCst);
        CASE.store(seed + 1, Ordering::SeqCst);
        // Some mutations import what they made, to go on from it.
        let Ok(bytes) = catch_unwind(AssertUnwindSafe(|| case(seed))) else {
            fail(PANIC.lock().clone());
            continue;
        };
        alloc::start(seed, n == 1, allowance(bytes.len()));
        let began = Instant::now();
        let result = catch_unwind(AssertUnwindSafe(|| run(&bytes, seed)));
        CASE.store(0, Ordering::SeqCst);
        let (time, grown) = (began.elapsed(), alloc::stop());
        match result {
            Ok(o) => *outcomes.entry(o).or_default() += 1,
            Err(_) => fail(PANIC.lock().clone()),
        }
        if grown > allowance(bytes.len()) {
            fail(format!("the heap grew by more than 2^{} bytes for a file of about {} KiB", grown.ilog2(), bytes.len() >> 10));
        }
        slowest = slowest.max((time, seed));
        peak = peak.max((grown, seed));
        let share = grown as f64 / allowance(bytes.len()) as f64;
        if share > peak_share.0 {
            peak_share = (share, seed);
        }
    }
    let _ = std::panic::take_hook();
    let shown: Vec<String> = outcomes.iter().map(|(o, n)| format!("{o:?} {n}")).collect();
    eprintln!(
        "{what}: {n} cases in {:.1} s: {}; slowest {:.2} s (seed {}), peak {:.1} MiB (seed {}), {:.0}% of its bound (seed {})",
        start.elapsed().as_secs_f64(),
        shown.join(", "),
        slowest.0.as_secs_f64(),
        slowest.1,
        peak.0 as f64 / (1 << 20) as f64,
        peak.1,
        100.0 * peak_share.0,
        peak_share.1,
    );
    let mut list: Vec<_> = failures.into_iter().collect();
    list.sort_by_key(|(_, (_, n))| std::cmp::Reverse(*n));
    let lines: Vec<String> = list.iter().map(|(t, (seed, n))| format!("  seed {seed} ({n} times): {t}")).collect();
    assert!(lines.is_empty(), "{what}: {} distinct failures:\n{}", lines.len(), lines.join("\n"));
}

#[test]
fn mutated_models_end_in_a_value_or_an_error() {
    let bases = seeds::models();
    campaign("models", |seed| mutate::model(&mut Rng::new(seed, 1), &bases), pipeline::model);
}

#[test]
fn mutated_engines_end_in_a_value_or_an_error() {
    let bases = seeds::engines(&seeds::models());
    campaign("engines", |seed| mutate::engine(&mut Rng::new(seed, 2), &bases), pipeline::engine);
}

/// Long chains whose shapes, expressions or constants double at each link: small files that must stay small work.
#[test]
fn chains_that_double_stay_within_their_bounds() {
    let _turn = TURN.lock();
    sinter::base::log::set_sink(Some(std::sync::Arc::new(|_, _| {})));
    for (name, bytes) in seeds::chains() {
        alloc::start(0, false, 0);
        let start = Instant::now();
        let outcome = pipeline::model(&bytes, 0);
        let (time, grown) = (start.elapsed(), alloc::stop());
        eprintln!("{name}: {outcome:?} in {:.2} s, {:.1} MiB", time.as_secs_f64(), grown as f64 / (1 << 20) as f64);
        assert!(time.as_secs() < CASE_SECONDS, "{name} takes {time:?}");
        assert!(grown <= allowance(bytes.len()), "{name} takes {grown} bytes for a file of {} bytes", bytes.len());
    }
}

#[test]
fn every_base_is_accepted() {
    let _turn = TURN.lock();
    let bases = seeds::models();
    for (i, b) in bases.iter().enumerate() {
        let g = sinter::onnx::importer::import_bytes(b.clone(), None);
        let g = g.unwrap_or_else(|e| panic!("model {i}: {e}"));
        g.verify().unwrap_or_else(|e| panic!("model {i}: {e}"));
    }
    assert!(seeds::engines(&bases).len() >= bases.len());
}
