//! The boundary: errors become statuses with a sentence, panics stop here.
//!
//! The sentence lives in a thread-local until the next failing call on that thread. A panic's text and place are taken
//! by a chained panic hook: inside of a guard it records instead of printing, elsewhere the former hook runs.

use super::status::SinterStatus;
use crate::base::error::ErrorCode;
use crate::base::log::{self, Severity};
use crate::base::{Error, Result};
use once_cell::sync::Lazy;
use std::any::Any;
use std::cell::{Cell, RefCell};
use std::ffi::{CString, c_char};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

struct LastError {
    status: SinterStatus,
    text: CString,
}

thread_local! {
    static LAST: RefCell<LastError> = RefCell::new(LastError { status: SinterStatus::OK, text: CString::default() });
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
    /// Name of the exported function that this thread is in; empty outside.
    static CURRENT: Cell<&'static str> = const { Cell::new("") };
}

// The two accessors stay out of line: [`enter`] is generic and lands in many code units, and GNU ld refuses the archive
// when some of them refer to the thread-local itself.

/// Names the function that the thread is in; returns the outer one.
#[inline(never)]
fn replace_current(name: &'static str) -> &'static str {
    CURRENT.try_with(|c| c.replace(name)).unwrap_or("")
}

#[inline(never)]
fn current() -> &'static str {
    CURRENT.try_with(Cell::get).unwrap_or("")
}

/// Restores the name of the outer function, also while unwinding: callbacks may call exported functions.
struct Entered(&'static str);

impl Drop for Entered {
    fn drop(&mut self) {
        replace_current(self.0);
    }
}

/// Runs the body of an exported function that returns a status.
pub(super) fn guard(name: &'static str, body: impl FnOnce() -> Result<()>) -> SinterStatus {
    match enter(name, body) {
        Ok(()) => SinterStatus::OK,
        Err(e) => fail(name, &e),
    }
}

/// Runs the body of an exported function that returns a plain value; `default` is returned after a failure.
pub(super) fn guard_or<T>(name: &'static str, default: T, body: impl FnOnce() -> Result<T>) -> T {
    match enter(name, body) {
        Ok(v) => v,
        Err(e) => {
            fail(name, &e);
            default
        }
    }
}

fn enter<T>(name: &'static str, body: impl FnOnce() -> Result<T>) -> Result<T> {
    install_hook();
    let entered = Entered(replace_current(name));
    let result = catch_unwind(AssertUnwindSafe(body));
    drop(entered);
    result.unwrap_or_else(|payload| Err(panicked(&*payload)))
}

fn panicked(payload: &(dyn Any + Send)) -> Error {
    let noted = PANIC.try_with(|p| p.borrow_mut().take()).ok().flatten();
    // A panic that another thread passed on was noted there; only its text came along.
    let text = noted.unwrap_or_else(|| text_of(payload));
    Error::new(ErrorCode::Internal, format!("a panic inside: {text}"))
}

fn text_of(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|s| s.to_string());
    text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_else(|| "without a text".into())
}

fn install_hook() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let former = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if current().is_empty() {
                return former(info);
            }
            let at = info.location().map(|l| format!(" [{}:{}]", l.file(), l.line())).unwrap_or_default();
            let text = format!("{}{at}", text_of(info.payload()));
            let _ = PANIC.try_with(|p| *p.borrow_mut() = Some(text));
        }));
    });
}

fn fail(name: &'static str, e: &Error) -> SinterStatus {
    let status = SinterStatus::of(e.code);
    let text = format!("{name}: {e}");
    let severity = if e.code == ErrorCode::Internal { Severity::InternalError } else { Severity::Error };
    // The application's sink must not be able to take the process down through a panic in ours.
    let _ = catch_unwind(AssertUnwindSafe(|| log::emit(severity, &text)));
    // Stored after the sink ran: it may have called this library.
    let text = CString::new(text.replace('\0', "\\0")).unwrap_or_default();
    let _ = LAST.try_with(|l| *l.borrow_mut() = LastError { status, text });
    status
}

/// The thread's last failure.
pub(super) fn last_status() -> SinterStatus {
    LAST.try_with(|l| l.borrow().status).unwrap_or(SinterStatus::OK)
}

/// The sentence of the thread's last failure; valid until the next failure on the thread.
pub(super) fn last_message() -> *const c_char {
    LAST.try_with(|l| l.borrow().text.as_ptr()).unwrap_or(c"".as_ptr())
}

pub(super) fn clear_last() {
    let _ = LAST.try_with(|l| *l.borrow_mut() = LastError { status: SinterStatus::OK, text: CString::default() });
}

/// Panics when the tests ask for it: in the function that `SINTER_TEST_PANIC` names. Otherwise one load and a branch.
#[inline]
pub(super) fn test_panic() {
    static WHERE: Lazy<Option<String>> = Lazy::new(|| crate::base::knobs::TEST_PANIC.get());
    if let Some(name) = &*WHERE
        && current() == name
    {
        panic!("the test asked for a panic");
    }
}
