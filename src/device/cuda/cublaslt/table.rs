//! `libcublasLt`: its entry points, whether it is there, its failures as errors, and a handle per device.

use crate::base::{Result, knobs};
use crate::device::cuda::CudaDevice;
use crate::device::cuda::library::{self, Search, entry_points};
use crate::{ensure, log_info};
use cudarc::cublaslt::sys;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::sync::OnceLock;

entry_points! {
    /// Entry points of `libcublasLt`.
    CublasLt, sys -> cublasStatus_t {
        required {
            fn cublasLtCreate(*mut sys::cublasLtHandle_t);
            fn cublasLtDestroy(sys::cublasLtHandle_t);
            fn cublasLtMatmul(sys::cublasLtHandle_t, sys::cublasLtMatmulDesc_t, *const c_void,
                *const c_void, sys::cublasLtMatrixLayout_t, *const c_void, sys::cublasLtMatrixLayout_t, *const c_void,
                *const c_void, sys::cublasLtMatrixLayout_t, *mut c_void, sys::cublasLtMatrixLayout_t,
                *const sys::cublasLtMatmulAlgo_t, *mut c_void, usize, sys::cudaStream_t);
            fn cublasLtMatmulDescCreate(*mut sys::cublasLtMatmulDesc_t, sys::cublasComputeType_t, sys::cudaDataType);
            fn cublasLtMatmulDescDestroy(sys::cublasLtMatmulDesc_t);
            fn cublasLtMatmulDescSetAttribute(sys::cublasLtMatmulDesc_t, sys::cublasLtMatmulDescAttributes_t,
                *const c_void, usize);
            fn cublasLtMatrixLayoutCreate(*mut sys::cublasLtMatrixLayout_t, sys::cudaDataType, u64, u64, i64);
            fn cublasLtMatrixLayoutDestroy(sys::cublasLtMatrixLayout_t);
            fn cublasLtMatrixLayoutSetAttribute(sys::cublasLtMatrixLayout_t, sys::cublasLtMatrixLayoutAttribute_t,
                *const c_void, usize);
            fn cublasLtMatmulPreferenceCreate(*mut sys::cublasLtMatmulPreference_t);
            fn cublasLtMatmulPreferenceDestroy(sys::cublasLtMatmulPreference_t);
            fn cublasLtMatmulPreferenceSetAttribute(sys::cublasLtMatmulPreference_t,
                sys::cublasLtMatmulPreferenceAttributes_t, *const c_void, usize);
            fn cublasLtMatmulAlgoGetHeuristic(sys::cublasLtHandle_t, sys::cublasLtMatmulDesc_t,
                sys::cublasLtMatrixLayout_t, sys::cublasLtMatrixLayout_t, sys::cublasLtMatrixLayout_t,
                sys::cublasLtMatrixLayout_t, sys::cublasLtMatmulPreference_t, c_int,
                *mut sys::cublasLtMatmulHeuristicResult_t, *mut c_int);
        }
        optional {}
        unchecked {
            fn cublasLtGetVersion() -> usize;
            fn cublasLtGetStatusName(i32) -> *const c_char;
            fn cublasLtGetStatusString(i32) -> *const c_char;
        }
    }
}

// SAFETY: function pointers and an open library, never changed; the library is thread-safe.
unsafe impl Send for CublasLt {}
// SAFETY: as above.
unsafe impl Sync for CublasLt {}

pub(super) fn library() -> Result<&'static CublasLt> {
    static LIBRARY: OnceLock<Result<CublasLt>> = OnceLock::new();
    LIBRARY.get_or_init(load).as_ref().map_err(Clone::clone)
}

fn load() -> Result<CublasLt> {
    let search = Search {
        name: "libcublasLt",
        sonames: &["libcublasLt.so.13", "libcublasLt.so.12"],
        knob: &knobs::CUBLASLT_PATH,
        folders: library::usual_folders(),
    };
    let table = CublasLt::resolve(library::open(&search)?)?;
    // SAFETY: takes nothing, returns a number.
    log_info!("libcublasLt: cuBLASLt {}", unsafe { (table.cublasLtGetVersion)() });
    Ok(table)
}

/// Whether cuBLASLt can be used; looked up once per process.
pub fn is_present() -> Result<()> {
    library().map(|_| ())
}

/// The library's version as it gives it (130100 for 13.1.0): part of what a timing is valid for.
pub fn version() -> Result<usize> {
    // SAFETY: takes nothing, returns a number.
    library().map(|l| unsafe { (l.cublasLtGetVersion)() })
}

#[inline]
pub(super) fn check(library: &CublasLt, status: i32, doing: impl FnOnce() -> String) -> Result<()> {
    ensure!(status == 0, Cuda, "{}: {}", doing(), status_text(library, status));
    Ok(())
}

#[cold]
fn status_text(library: &CublasLt, status: i32) -> String {
    let text = |f: unsafe extern "C" fn(i32) -> *const c_char| {
        // SAFETY: the library returns a static string for every integer.
        let p = unsafe { f(status) };
        // SAFETY: static and NUL-terminated.
        if p.is_null() { "?".into() } else { unsafe { CStr::from_ptr(p) }.to_string_lossy().into_owned() }
    };
    format!("{} ({status}): {}", text(library.cublasLtGetStatusName), text(library.cublasLtGetStatusString))
}

/// A library handle in one device's context.
pub(in crate::device::cuda) struct Handle {
    pub(super) library: &'static CublasLt,
    pub(super) raw: sys::cublasLtHandle_t,
}

// SAFETY: cuBLASLt calls with one handle may come from any thread at the same time.
unsafe impl Send for Handle {}
// SAFETY: as above.
unsafe impl Sync for Handle {}

impl Handle {
    pub fn new(device: &CudaDevice) -> Result<Handle> {
        let library = library()?;
        let _context = device.enter()?;
        let mut raw = std::ptr::null_mut();
        // SAFETY: writes one pointer; the device's context is current.
        let status = unsafe { (library.cublasLtCreate)(&mut raw) };
        check(library, status, || format!("making a handle of {} on {device:?}", library.lib.path))?;
        Ok(Handle { library, raw })
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: created once; the owner drops it with its context current.
        unsafe { (self.library.cublasLtDestroy)(self.raw) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_library_says_what_was_looked_for() {
        let Err(e) = is_present() else { return eprintln!("skipped: this machine has cuBLASLt") };
        for part in ["libcublasLt.so.13", "/usr/local/cuda/lib64", "SINTER_CUBLASLT_PATH"] {
            assert!(e.message.contains(part), "{part} is not in: {}", e.message);
        }
    }
}
