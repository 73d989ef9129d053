//! The process-wide logger: one sink, any thread, a severity on each message.
//!
//! The sink is called without a lock held, so it may log or call into the library itself. Without a sink, messages of
//! WARNING and above go to standard error; `SINTER_LOG` sets another threshold.

use crate::base::knobs;
use once_cell::sync::Lazy;
use parking_lot::RwLock;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

/// How important a message is. Lower is more severe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(i32)]
pub enum Severity {
    InternalError = 0,
    Error = 1,
    Warning = 2,
    Info = 3,
    Verbose = 4,
}

impl Severity {
    pub fn from_code(code: i32) -> Option<Severity> {
        use Severity::*;
        [InternalError, Error, Warning, Info, Verbose].into_iter().find(|s| *s as i32 == code)
    }

    /// The letter that starts a printed line.
    pub fn letter(self) -> char {
        match self {
            Severity::InternalError => 'F',
            Severity::Error => 'E',
            Severity::Warning => 'W',
            Severity::Info => 'I',
            Severity::Verbose => 'V',
        }
    }
}

pub type Sink = Arc<dyn Fn(Severity, &str) + Send + Sync>;

static SINK: Lazy<RwLock<Option<Sink>>> = Lazy::new(|| RwLock::new(None));
static THRESHOLD: Lazy<AtomicI32> = Lazy::new(|| {
    let start = match knobs::LOG.get().as_deref() {
        Some("internal_error") => Severity::InternalError,
        Some("error") => Severity::Error,
        Some("info") => Severity::Info,
        Some("verbose") => Severity::Verbose,
        _ => Severity::Warning,
    };
    AtomicI32::new(start as i32)
});

/// Replaces the sink; `None` goes back to standard error.
pub fn set_sink(sink: Option<Sink>) {
    *SINK.write() = sink;
}

/// Messages less severe than this are dropped before they are formatted.
pub fn set_threshold(severity: Severity) {
    THRESHOLD.store(severity as i32, Ordering::Relaxed);
}

pub fn threshold() -> Severity {
    Severity::from_code(THRESHOLD.load(Ordering::Relaxed)).unwrap_or(Severity::Warning)
}

pub fn enabled(severity: Severity) -> bool {
    severity as i32 <= THRESHOLD.load(Ordering::Relaxed)
}

/// Sends one message to the sink. Use the macros `log_info!` and its kin instead: they format only when enabled.
pub fn emit(severity: Severity, message: &str) {
    if !enabled(severity) {
        return;
    }
    let sink = SINK.read().clone();
    match sink {
        Some(sink) => sink(severity, message),
        None => eprintln!("[sinter] {} {message}", severity.letter()),
    }
}

#[macro_export]
macro_rules! log_at {
    ($sev:ident, $($arg:tt)*) => {
        if $crate::base::log::enabled($crate::base::log::Severity::$sev) {
            $crate::base::log::emit($crate::base::log::Severity::$sev, &format!($($arg)*))
        }
    };
}
#[macro_export]
macro_rules! log_error { ($($arg:tt)*) => { $crate::log_at!(Error, $($arg)*) }; }
#[macro_export]
macro_rules! log_warn { ($($arg:tt)*) => { $crate::log_at!(Warning, $($arg)*) }; }
#[macro_export]
macro_rules! log_info { ($($arg:tt)*) => { $crate::log_at!(Info, $($arg)*) }; }
#[macro_export]
macro_rules! log_verbose { ($($arg:tt)*) => { $crate::log_at!(Verbose, $($arg)*) }; }
