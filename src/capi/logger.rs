//! The process-wide logger: one sink, a severity threshold.

use super::guard::{guard, guard_or};
use super::handle;
use super::status::SinterStatus;
use crate::base::Result;
use crate::base::log::{self, Severity, Sink};
use crate::err;
use std::ffi::{CString, c_char, c_void};
use std::sync::Arc;

/// How important a message is; lower is more severe.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SinterSeverity(pub i32);

impl SinterSeverity {
    /// A bug in Sinter.
    pub const INTERNAL_ERROR: Self = Self(0);
    /// A call failed.
    pub const ERROR: Self = Self(1);
    /// The application should know.
    pub const WARNING: Self = Self(2);
    /// What the library is doing.
    pub const INFO: Self = Self(3);
    /// Details for finding out why.
    pub const VERBOSE: Self = Self(4);
}

/// Receives log messages. The message is valid during the call. It may come on any thread, several at once, and may
/// call this library, but for the handle whose call is being logged.
pub type SinterLogCallback =
    Option<unsafe extern "C" fn(userdata: *mut c_void, severity: SinterSeverity, message: *const c_char)>;

/// The application's pointer, given back to it on whatever thread.
struct UserData(*mut c_void);
// SAFETY: the library only passes it on; the comment of the callback says that any thread may call.
unsafe impl Send for UserData {}
// SAFETY: as above.
unsafe impl Sync for UserData {}

fn severity(s: SinterSeverity) -> Result<Severity> {
    Severity::from_code(s.0).ok_or_else(|| err!(InvalidArgument, "severity {} is none of 0 to 4", s.0))
}

/// Sends the log to a callback instead of standard error.
///
/// Params: callback (in) or NULL to go back to standard error; userdata (in) passed to it, may be NULL.
/// Owns: userdata stays the caller's and is used until another callback is set and running calls of this one are over.
/// Result: OK; on failure no output is written and nothing has changed.
/// Status: OK.
/// Thread: any.
/// Stream: puts nothing on a stream; all is done when it returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinter_logger_set_callback(
    callback: SinterLogCallback,
    userdata: *mut c_void,
) -> SinterStatus {
    guard("sinter_logger_set_callback", || {
        let userdata = UserData(userdata);
        let sink = callback.map(|f| -> Sink {
            Arc::new(move |severity, message| {
                let userdata = &userdata;
                let message = CString::new(message.replace('\0', "\\0")).unwrap_or_default();
                // SAFETY: the application's function, called as its type says.
                unsafe { f(userdata.0, SinterSeverity(severity as i32), message.as_ptr()) }
            })
        });
        log::set_sink(sink);
        Ok(())
    })
}

/// Sets which messages are logged: those of this severity and more severe ones. At first WARNING, or what the
/// environment variable SINTER_LOG says.
///
/// Params: severity (in).
/// Owns: nothing changes hands; memory that is passed in is read or copied before the call returns.
/// Result: OK; on failure no output is written and nothing has changed.
/// Status: OK; INVALID_ARGUMENT when the severity is out of range.
/// Thread: any, also several at once on one handle.
/// Stream: puts nothing on a stream; all is done when it returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinter_logger_set_severity(severity: SinterSeverity) -> SinterStatus {
    guard("sinter_logger_set_severity", || {
        log::set_threshold(self::severity(severity)?);
        Ok(())
    })
}

/// The severity that was set last.
///
/// Params: none.
/// Owns: nothing changes hands.
/// Result: the severity; cannot fail.
/// Status: none is returned.
/// Thread: any, also several at once on one handle.
/// Stream: puts nothing on a stream; all is done when it returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinter_logger_get_severity() -> SinterSeverity {
    guard_or("sinter_logger_get_severity", SinterSeverity::WARNING, || Ok(SinterSeverity(log::threshold() as i32)))
}

/// Logs a message of the application through the same sink.
///
/// Params: severity (in); message (in) UTF-8, not NULL.
/// Owns: nothing changes hands; memory that is passed in is read or copied before the call returns.
/// Result: OK; on failure no output is written and nothing has changed.
/// Status: OK; INVALID_ARGUMENT for NULL, bytes that are not UTF-8 or a severity out of range.
/// Thread: any, also several at once on one handle.
/// Stream: puts nothing on a stream; all is done when it returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinter_logger_log(severity: SinterSeverity, message: *const c_char) -> SinterStatus {
    guard("sinter_logger_log", || {
        let severity = self::severity(severity)?;
        log::emit(severity, handle::text(message, "message")?);
        Ok(())
    })
}
