//! The library's version: macros for the compiler, functions and data symbols for run time.

use super::guard::{guard, guard_or};
use super::status::SinterStatus;
use crate::{VERSION_PACKED, ensure, version_text};
use std::ffi::c_char;

/// Major version that this header belongs to; another major is another ABI.
pub const SINTER_VERSION_MAJOR: u32 = 0;
/// Minor version that this header belongs to.
pub const SINTER_VERSION_MINOR: u32 = 1;
/// Patch version that this header belongs to.
pub const SINTER_VERSION_PATCH: u32 = 0;
/// major * 1000000 + minor * 1000 + patch of this header.
pub const SINTER_VERSION_PACKED: u32 = 1000;

// The four numbers stand in the header as plain literals; they must be Cargo's.
const _: () = assert!(SINTER_VERSION_PACKED == VERSION_PACKED);
const _: () =
    assert!(SINTER_VERSION_MAJOR * 1_000_000 + SINTER_VERSION_MINOR * 1_000 + SINTER_VERSION_PATCH == VERSION_PACKED);

/// Major version of the loaded library.
#[unsafe(no_mangle)]
pub static sinter_version_major: u32 = SINTER_VERSION_MAJOR;
/// Minor version of the loaded library.
#[unsafe(no_mangle)]
pub static sinter_version_minor: u32 = SINTER_VERSION_MINOR;
/// Patch version of the loaded library.
#[unsafe(no_mangle)]
pub static sinter_version_patch: u32 = SINTER_VERSION_PATCH;
/// major * 1000000 + minor * 1000 + patch of the loaded library.
#[unsafe(no_mangle)]
pub static sinter_version_packed: u32 = SINTER_VERSION_PACKED;

/// Version of the loaded library, packed as SINTER_VERSION_PACKED is.
///
/// Params: none.
/// Owns: nothing changes hands.
/// Result: the number; cannot fail.
/// Status: none is returned.
/// Thread: any, also several at once on one handle.
/// Stream: puts nothing on a stream; all is done when it returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinter_version() -> u32 {
    guard_or("sinter_version", 0, || Ok(VERSION_PACKED))
}

/// Version of the loaded library as text, for example "0.1.0".
///
/// Params: none.
/// Owns: the text is static.
/// Result: never NULL; cannot fail.
/// Status: none is returned.
/// Thread: any, also several at once on one handle.
/// Stream: puts nothing on a stream; all is done when it returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinter_version_string() -> *const c_char {
    guard_or("sinter_version_string", c"".as_ptr(), || Ok(concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()))
}

/// Checks that the loaded library serves the header that the application was compiled with.
///
/// Params: header_version (in) SINTER_VERSION_PACKED as the application sees it.
/// Owns: nothing changes hands.
/// Result: OK when the major versions are equal (below 1.0.0 the minor versions too) and the library is not older.
/// Status: OK; VERSION_MISMATCH otherwise, with both versions in the sentence.
/// Thread: any, also several at once on one handle.
/// Stream: puts nothing on a stream; all is done when it returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sinter_version_check(header_version: u32) -> SinterStatus {
    guard("sinter_version_check", || {
        let abi = |v: u32| if v < 1_000_000 { v / 1_000 } else { v / 1_000_000 * 1_000 };
        ensure!(
            abi(header_version) == abi(VERSION_PACKED) && header_version <= VERSION_PACKED,
            VersionMismatch,
            "the application was compiled for version {}, the library is {}",
            version_text(header_version),
            version_text(VERSION_PACKED)
        );
        Ok(())
    })
}
