//! Status codes and the thread's last error.

use super::guard::{self, guard_or};
use crate::base::error::ErrorCode;
use std::ffi::{CStr, c_char};

/// Outcome of a call. Zero is success. Numbers are never reused.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SinterStatus(pub i32);

impl SinterStatus {
    /// Success.
    pub const OK: Self = Self(0);
    /// An argument is wrong by itself: NULL, out of range, a wrong or destroyed handle.
    pub const INVALID_ARGUMENT: Self = Self(1);
    /// Settings that are right alone and wrong together.
    pub const INVALID_CONFIG: Self = Self(2);
    /// The call came in the wrong order, or the object is in use or was poisoned by a panic.
    pub const INVALID_STATE: Self = Self(3);
    /// Legal, but this library or this device cannot do it.
    pub const UNSUPPORTED: Self = Self(4);
    /// A name, file or library does not exist.
    pub const NOT_FOUND: Self = Self(5);
    /// Text or bytes are not of their format.
    pub const PARSE: Self = Self(6);
    /// Made by or for another, incompatible version.
    pub const VERSION_MISMATCH: Self = Self(7);
    /// Bytes are damaged or cut short.
    pub const CORRUPT_DATA: Self = Self(8);
    /// Host or device memory ran out, or a stated bound was passed.
    pub const OUT_OF_MEMORY: Self = Self(9);
    /// The CUDA driver or a CUDA library reported a failure.
    pub const CUDA: Self = Self(10);
    /// The operating system reported a failure.
    pub const IO: Self = Self(11);
    /// The application asked to stop.
    pub const CANCELLED: Self = Self(12);
    /// A bug in Sinter; the sentence says where.
    pub const INTERNAL: Self = Self(13);

    pub(super) fn of(code: ErrorCode) -> SinterStatus {
        SinterStatus(code as i32)
    }

    fn name(self) -> Option<&'static CStr> {
        Some(match self {
            Self::OK => c"ok",
            Self::INVALID_ARGUMENT => c"invalid_argument",
            Self::INVALID_CONFIG => c"invalid_config",
            Self::INVALID_STATE => c"invalid_state",
            Self::UNSUPPORTED => c"unsupported",
            Self::NOT_FOUND => c"not_found",
            Self::PARSE => c"parse",
            Self::VERSION_MISMATCH => c"version_mismatch",
            Self::CORRUPT_DATA => c"corrupt_data",
            Self::OUT_OF_MEMORY => c"out_of_memory",
            Self::CUDA => c"cuda",
            Self::IO => c"io",
            Self::CANCELLED => c"cancelled",
            Self::INTERNAL => c"internal",
            _ => return None,
        })
    }
}

/// Name of a status, for example "invalid_argument"; "unknown" for a number that is none.
///
/// Params: status (in) any number.
/// Owns: the text is static.
/// Result: never NULL; cannot fail.
/// Status: none is returned and the last error stays.
/// Thread: any, also several at once on one handle.
/// Stream: puts nothing on a stream; all is done when it returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinter_status_name(status: SinterStatus) -> *const c_char {
    guard_or("sinter_status_name", c"unknown".as_ptr(), || Ok(status.name().unwrap_or(c"unknown").as_ptr()))
}

/// The sentence of this thread's last failed call: what went wrong, where, what was expected and what came.
///
/// Params: none.
/// Owns: the text is borrowed and stays until the next failing call on this thread; copy it to keep it.
/// Result: never NULL; empty when no call failed on this thread.
/// Status: none is returned and the last error stays.
/// Thread: any; each thread has its own.
/// Stream: puts nothing on a stream; all is done when it returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinter_last_error_message() -> *const c_char {
    guard_or("sinter_last_error_message", c"".as_ptr(), || Ok(guard::last_message()))
}

/// The status of this thread's last failed call.
///
/// Params: none.
/// Owns: nothing changes hands.
/// Result: SINTER_STATUS_OK when no call failed on this thread since the last clear.
/// Status: returned as the value; the last error stays.
/// Thread: any; each thread has its own.
/// Stream: puts nothing on a stream; all is done when it returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinter_last_error_status() -> SinterStatus {
    guard_or("sinter_last_error_status", SinterStatus::INTERNAL, || Ok(guard::last_status()))
}

/// Forgets this thread's last failure.
///
/// Params: none.
/// Owns: the text that sinter_last_error_message gave is gone.
/// Result: nothing; cannot fail.
/// Status: none is returned.
/// Thread: any; each thread has its own.
/// Stream: puts nothing on a stream; all is done when it returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinter_last_error_clear() {
    guard_or("sinter_last_error_clear", (), || {
        guard::clear_last();
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The numbers of the header and those of the Rust errors are one list.
    #[test]
    fn statuses_are_the_error_codes() {
        for code in 1..=13 {
            let status = SinterStatus(code);
            assert!(status.name().is_some(), "{code}");
        }
        assert_eq!(SinterStatus::of(ErrorCode::Internal), SinterStatus::INTERNAL);
        assert_eq!(SinterStatus::of(ErrorCode::Cancelled), SinterStatus::CANCELLED);
        assert_eq!(SinterStatus::INTERNAL.name().unwrap().to_str().unwrap(), ErrorCode::Internal.name());
        assert!(SinterStatus(14).name().is_none());
    }
}
