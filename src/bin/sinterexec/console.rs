//! Lines on the terminal: time, severity letter, text.
//!
//! Information goes to standard output, warnings and errors to standard error. A progress bar that stands on the
//! terminal is wiped before a line is printed and drawn again by its next step. A closed pipe is not an error: what
//! nobody reads is dropped.

use sinter::base::knobs;
use sinter::base::log::{self, Severity};
use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A progress bar is on the current line of standard error.
static BAR: AtomicBool = AtomicBool::new(false);

/// Prints one message; each line of it gets the prefix.
pub fn line(severity: Severity, text: &str) {
    wipe_bar();
    let stamp = timestamp();
    for l in text.trim_end_matches('\n').split('\n') {
        let l = format!("[{stamp}] [{}] {l}", severity.letter());
        if severity <= Severity::Warning {
            let _ = writeln!(std::io::stderr().lock(), "{l}");
        } else {
            let _ = writeln!(std::io::stdout().lock(), "{l}");
        }
    }
}

/// Prints a line without a prefix: tables and help.
pub fn raw(text: &str) {
    wipe_bar();
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}

/// Draws the progress bar on the current line of standard error, which is a terminal.
pub fn draw_bar(text: &str) {
    let mut err = std::io::stderr().lock();
    let _ = write!(err, "\r\x1b[2K{text}");
    let _ = err.flush();
    BAR.store(true, Ordering::Relaxed);
}

/// Takes the progress bar away.
pub fn wipe_bar() {
    if BAR.swap(false, Ordering::Relaxed) {
        let mut err = std::io::stderr().lock();
        let _ = write!(err, "\r\x1b[2K");
        let _ = err.flush();
    }
}

pub fn stderr_is_terminal() -> bool {
    std::io::stderr().is_terminal()
}

/// Columns of the terminal on standard error; 80 when it does not say.
pub fn stderr_columns() -> usize {
    // SAFETY: the call writes the struct given; a zeroed one is valid.
    let size = unsafe {
        let mut size: libc::winsize = std::mem::zeroed();
        let known = libc::ioctl(libc::STDERR_FILENO, libc::TIOCGWINSZ, &mut size) == 0;
        if known { size.ws_col as usize } else { 0 }
    };
    if size < 2 { 80 } else { size }
}

/// Prints the library's own messages too, marked as such: warnings and errors, and with `verbose` everything.
pub fn listen_to_library(verbose: bool) {
    if verbose {
        log::set_threshold(Severity::Verbose);
    } else if knobs::LOG.get().is_none() {
        log::set_threshold(Severity::Warning);
    }
    log::set_sink(Some(Arc::new(|severity, text: &str| line(severity, &format!("[Sinter] {text}")))));
}

/// Local time as MM/DD/YYYY-HH:MM:SS.
fn timestamp() -> String {
    // SAFETY: both calls only write to the values given; a zeroed `tm` is a valid one.
    let t = unsafe {
        let now = libc::time(std::ptr::null_mut());
        let mut t: libc::tm = std::mem::zeroed();
        libc::localtime_r(&now, &mut t);
        t
    };
    format!(
        "{:02}/{:02}/{:04}-{:02}:{:02}:{:02}",
        t.tm_mon + 1,
        t.tm_mday,
        t.tm_year + 1900,
        t.tm_hour,
        t.tm_min,
        t.tm_sec
    )
}

macro_rules! info { ($($a:tt)*) => { $crate::console::line(sinter::base::log::Severity::Info, &format!($($a)*)) }; }
macro_rules! warning { ($($a:tt)*) => { $crate::console::line(sinter::base::log::Severity::Warning, &format!($($a)*)) }; }
macro_rules! fail { ($($a:tt)*) => { $crate::console::line(sinter::base::log::Severity::Error, &format!($($a)*)) }; }
macro_rules! plain { ($($a:tt)*) => { $crate::console::raw(&format!($($a)*)) }; }
pub(crate) use {fail, info, plain, warning};
