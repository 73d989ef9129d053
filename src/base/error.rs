//! One error type for the whole crate.
//!
//! The text says what, where, what was expected and what came. Context is added on the way up
//! (`while importing node 17 "conv1"`). User mistakes never mention our source lines; an internal error always does.

use std::fmt;

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What kind of failure it was. The numbers are part of the C ABI (`SinterStatus`) and are never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(i32)]
pub enum ErrorCode {
    /// An argument is wrong by itself (NULL, out of range, wrong handle).
    InvalidArgument = 1,
    /// Settings that are right alone and wrong together.
    InvalidConfig = 2,
    /// The call came in the wrong order or on an object in the wrong state.
    InvalidState = 3,
    /// Legal, but this library or this device cannot do it.
    Unsupported = 4,
    /// A name, file or library does not exist.
    NotFound = 5,
    /// Text or bytes given by the user are not of their format.
    Parse = 6,
    /// Made by another, incompatible version.
    VersionMismatch = 7,
    /// Bytes are damaged or cut short.
    CorruptData = 8,
    /// Host or device memory ran out, or a stated bound was passed.
    OutOfMemory = 9,
    /// The CUDA driver or a CUDA library reported a failure.
    Cuda = 10,
    /// The operating system reported a failure.
    Io = 11,
    /// The user asked to stop.
    Cancelled = 12,
    /// An invariant of this library is broken: a bug.
    Internal = 13,
}

impl ErrorCode {
    /// Stable snake-case name.
    pub fn name(self) -> &'static str {
        match self {
            ErrorCode::InvalidArgument => "invalid_argument",
            ErrorCode::InvalidConfig => "invalid_config",
            ErrorCode::InvalidState => "invalid_state",
            ErrorCode::Unsupported => "unsupported",
            ErrorCode::NotFound => "not_found",
            ErrorCode::Parse => "parse",
            ErrorCode::VersionMismatch => "version_mismatch",
            ErrorCode::CorruptData => "corrupt_data",
            ErrorCode::OutOfMemory => "out_of_memory",
            ErrorCode::Cuda => "cuda",
            ErrorCode::Io => "io",
            ErrorCode::Cancelled => "cancelled",
            ErrorCode::Internal => "internal",
        }
    }
}

/// A failure: a code, a message and where it happened, outermost last.
#[derive(Clone, Debug)]
pub struct Error {
    pub code: ErrorCode,
    pub message: String,
    pub context: Vec<String>,
}

impl Error {
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Error { code, message: message.into(), context: Vec::new() }
    }

    /// Adds where it happened; called while the error travels up.
    pub fn context(mut self, text: impl Into<String>) -> Self {
        self.context.push(text.into());
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.context.iter().rev() {
            write!(f, "{c}: ")?;
        }
        f.write_str(&self.message)?;
        if self.code == ErrorCode::Internal {
            f.write_str(" (this is a bug in Sinter)")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

impl From<std::io::Error> for Error {
    fn from(e: std::io::Error) -> Self {
        let code = if e.kind() == std::io::ErrorKind::NotFound { ErrorCode::NotFound } else { ErrorCode::Io };
        Error::new(code, e.to_string())
    }
}

/// Adds context lazily to a failing result.
pub trait ResultExt<T> {
    fn with_context<S: Into<String>>(self, text: impl FnOnce() -> S) -> Result<T>;
}

impl<T, E: Into<Error>> ResultExt<T> for std::result::Result<T, E> {
    fn with_context<S: Into<String>>(self, text: impl FnOnce() -> S) -> Result<T> {
        self.map_err(|e| e.into().context(text()))
    }
}

/// `err!(InvalidArgument, "expected {}, got {}", a, b)` makes an [`Error`].
#[macro_export]
macro_rules! err {
    ($code:ident, $($arg:tt)*) => {
        $crate::base::error::Error::new($crate::base::error::ErrorCode::$code, format!($($arg)*))
    };
}

/// Returns early with an error: `bail!(Unsupported, "...")`.
#[macro_export]
macro_rules! bail {
    ($code:ident, $($arg:tt)*) => { return Err($crate::err!($code, $($arg)*)) };
}

/// Returns early with an error unless the condition holds.
#[macro_export]
macro_rules! ensure {
    ($cond:expr, $code:ident, $($arg:tt)*) => { if !($cond) { $crate::bail!($code, $($arg)*) } };
}

/// An [`ErrorCode::Internal`] error that names the source line.
#[macro_export]
macro_rules! internal {
    ($($arg:tt)*) => {
        $crate::base::error::Error::new(
            $crate::base::error::ErrorCode::Internal,
            format!("{} [{}:{}]", format!($($arg)*), file!(), line!()),
        )
    };
}
