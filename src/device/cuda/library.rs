//! Finding shared libraries at run time, and tables of their entry points.
//!
//! The binding is `cudarc`'s `sys` layer: its types, its constants and its signatures. Its functions are not called: they
//! panic when the library or a symbol is missing, and they turn every return code into a closed Rust enum, which a newer
//! driver can break. [`entry_points!`] therefore makes a table of function pointers with integer return codes; the
//! compiler checks the signature of each against the one in `cudarc`.
//!
//! A library is looked for in a fixed order (see [`open`]), once per process, and what was found is logged at INFO. A
//! library stays open until the process ends.

use crate::base::Result;
use crate::base::knobs::Knob;
use crate::{err, log_info, log_warn};
use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};
use std::ffi::{CStr, c_void};
use std::path::{Path, PathBuf};

/// What to look for.
pub(super) struct Search<'a> {
    /// Name in messages, such as `libnvrtc`.
    pub name: &'a str,
    /// Names that the dynamic loader is asked for, best first.
    pub sonames: &'a [&'a str],
    /// The variable that may hold a full path (or a folder); `off` hides the library.
    pub knob: &'a Knob,
    /// Folders that are tried last, in order.
    pub folders: Vec<PathBuf>,
}

/// An open library.
#[derive(Debug)]
pub(super) struct Opened {
    lib: Library,
    name: String,
    /// Full path where it could be found out, otherwise the name that it was opened by.
    pub path: String,
}

impl Opened {
    /// The address of a symbol as a function pointer.
    ///
    /// # Safety
    /// `F` is a function pointer type with the symbol's C signature.
    pub unsafe fn symbol<F: Copy>(&self, name: &str) -> Option<F> {
        // SAFETY: the caller vouches for the type; the library is never closed while a table made from it is in use.
        unsafe { self.lib.get::<F>(name.as_bytes()).ok().map(|s| *s) }
    }

    /// The error for symbols that are not there.
    pub fn lacks(&self, missing: &[&str]) -> crate::base::Error {
        err!(
            NotFound,
            "{} at {} lacks {}; it is too old (CUDA 12.4 or newer is needed) or not the real library",
            self.name,
            self.path,
            missing.join(", ")
        )
    }
}

/// Opens a library: the knob's path, a copy that the process has loaded already, the dynamic loader's own search, the
/// folders. The error lists what was tried.
pub(super) fn open(search: &Search) -> Result<Opened> {
    let mut tried = Vec::new();
    let found = find(search, &mut tried);
    match found {
        Some((lib, how, name)) => {
            let path = search_symbol_path(&lib, search).unwrap_or(name);
            log_info!("{}: using {path} ({how})", search.name);
            Ok(Opened { lib, name: search.name.into(), path })
        }
        None => {
            let e = err!(
                NotFound,
                "{} was not found: tried {}; set {} to its full path",
                search.name,
                tried.join("; "),
                search.knob.name
            );
            log_info!("{e}");
            Err(e)
        }
    }
}

fn find(search: &Search, tried: &mut Vec<String>) -> Option<(Library, &'static str, String)> {
    if let Some(given) = search.knob.get() {
        if given == "off" {
            tried.push(format!("nothing, because {} is off", search.knob.name));
            return None;
        }
        let paths = match Path::new(&given).is_dir() {
            true => search.sonames.iter().map(|s| Path::new(&given).join(s)).collect(),
            false => vec![PathBuf::from(&given)],
        };
        for path in paths {
            match dlopen(&path, 0) {
                Ok(lib) => return Some((lib, "named by its variable", path.display().to_string())),
                Err(e) => {
                    log_warn!("{}={given} cannot be used ({e}); looking elsewhere", search.knob.name);
                    tried.push(format!("{} ({e})", path.display()));
                }
            }
        }
    }
    for soname in search.sonames {
        if let Ok(lib) = dlopen(Path::new(soname), libc::RTLD_NOLOAD) {
            return Some((lib, "already loaded in this process", soname.to_string()));
        }
    }
    for soname in search.sonames {
        match dlopen(Path::new(soname), 0) {
            Ok(lib) => return Some((lib, "found by the dynamic loader", soname.to_string())),
            Err(e) => tried.push(format!("{soname} through the dynamic loader ({e})")),
        }
    }
    for folder in &search.folders {
        let present = search.sonames.iter().map(|s| folder.join(s)).filter(|p| p.exists());
        for path in present {
            match dlopen(&path, 0) {
                Ok(lib) => return Some((lib, "found in a usual folder", path.display().to_string())),
                Err(e) => tried.push(format!("{} ({e})", path.display())),
            }
        }
        tried.push(format!("{}/", folder.display()));
    }
    None
}

fn dlopen(path: &Path, extra: i32) -> std::result::Result<Library, String> {
    // SAFETY: the libraries opened here are CUDA's own; their initializers have no precondition.
    unsafe { Library::open(Some(path), RTLD_NOW | RTLD_LOCAL | extra) }.map_err(|e| {
        use std::error::Error as _;
        // The loader's text is in the source; the outer text only says that dlopen failed.
        e.source().map_or_else(|| e.to_string(), |s| s.to_string())
    })
}

/// Opens every file of a folder whose name starts so, and keeps it open: NVRTC looks for its builtins by bare name.
pub(super) fn preload_beside(library_path: &str, prefix: &str) -> usize {
    let Some(folder) = Path::new(library_path).parent().filter(|f| f.is_absolute()) else { return 0 };
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    let mut n = 0;
    for entry in entries.flatten() {
        if entry.file_name().to_string_lossy().starts_with(prefix) {
            if let Ok(lib) = dlopen(&entry.path(), 0) {
                std::mem::forget(lib);
                n += 1;
            }
        }
    }
    n
}

/// Folders that toolkits and Python wheels install CUDA libraries in, the toolkit first.
pub(super) fn usual_folders() -> Vec<PathBuf> {
    let mut folders = vec![PathBuf::from("/usr/local/cuda/lib64")];
    // Wheels lie beside our own package: site-packages/<package>/libsinter.so and site-packages/nvidia/...
    if let Some(own) = path_of(usual_folders as *const c_void).as_deref().and_then(Path::parent) {
        for base in [Some(own), own.parent(), own.parent().and_then(Path::parent)].into_iter().flatten() {
            for sub in ["cu13/lib", "cuda_nvrtc/lib", "cublas/lib"] {
                let folder = base.join("nvidia").join(sub);
                if folder.is_dir() {
                    folders.push(folder);
                }
            }
        }
    }
    folders
}

/// Path of the object file that an address lies in.
fn path_of(address: *const c_void) -> Option<PathBuf> {
    // SAFETY: dladdr accepts any address; it fills the struct when it returns nonzero, and the name is NUL-terminated
    // and stays valid while the object is loaded, which it is: the caller holds it open.
    let name = unsafe {
        let mut info: libc::Dl_info = std::mem::zeroed();
        if libc::dladdr(address, &mut info) == 0 || info.dli_fname.is_null() {
            return None;
        }
        CStr::from_ptr(info.dli_fname)
    };
    let path = PathBuf::from(name.to_str().ok()?);
    Some(std::fs::canonicalize(&path).unwrap_or(path))
}

/// Full path of an open library, by one of the symbols that the three libraries have.
fn search_symbol_path(lib: &Library, search: &Search) -> Option<String> {
    let symbol: &[u8] = match search.name {
        "libcuda" => b"cuInit",
        "libnvrtc" => b"nvrtcVersion",
        _ => b"cublasLtGetVersion",
    };
    // SAFETY: the symbol is not called, only its address is looked at.
    let address = unsafe { lib.get::<*const c_void>(symbol).ok()?.as_raw_ptr() };
    path_of(address).map(|p| p.display().to_string())
}

/// Declares a table of entry points: `required` must all be there, `optional` may be absent, `unchecked` have a
/// signature that differs from `cudarc`'s on purpose (a status passed or returned as an integer).
macro_rules! entry_points {
    ($(#[$m:meta])* $table:ident, $sys:ident -> $code:ident {
        required { $(fn $r:ident($($rt:ty),* $(,)?);)* }
        optional { $(fn $o:ident($($ot:ty),* $(,)?);)* }
        unchecked { $(fn $u:ident($($ut:ty),* $(,)?) -> $uret:ty;)* }
    }) => {
        $(#[$m])*
        #[allow(non_snake_case)]
        pub(super) struct $table {
            $(pub $r: unsafe extern "C" fn($($rt),*) -> i32,)*
            $(pub $o: Option<unsafe extern "C" fn($($ot),*) -> i32>,)*
            $(pub $u: unsafe extern "C" fn($($ut),*) -> $uret,)*
            /// The library, which stays open as long as the table.
            pub lib: $crate::device::cuda::library::Opened,
        }
        $(const _: unsafe fn($($rt),*) -> $sys::$code = $sys::$r;)*
        $(const _: unsafe fn($($ot),*) -> $sys::$code = $sys::$o;)*
        impl $table {
            /// Fills the table; the error names everything that is missing.
            #[allow(non_snake_case)]
            fn resolve(lib: $crate::device::cuda::library::Opened) -> $crate::base::Result<Self> {
                let mut missing: Vec<&str> = Vec::new();
                // SAFETY (all of them): the type is the symbol's C signature, checked against cudarc's above.
                $(let $r = unsafe { lib.symbol::<unsafe extern "C" fn($($rt),*) -> i32>(stringify!($r)) };
                  if $r.is_none() { missing.push(stringify!($r)); })*
                $(let $o = unsafe { lib.symbol::<unsafe extern "C" fn($($ot),*) -> i32>(stringify!($o)) };)*
                $(let $u = unsafe { lib.symbol::<unsafe extern "C" fn($($ut),*) -> $uret>(stringify!($u)) };
                  if $u.is_none() { missing.push(stringify!($u)); })*
                if let ($(Some($r),)* $(Some($u),)*) = ($($r,)* $($u,)*) {
                    Ok($table { $($r,)* $($o,)* $($u,)* lib })
                } else {
                    Err(lib.lacks(&missing))
                }
            }
        }
    };
}
pub(super) use entry_points;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_library_says_what_was_tried() {
        let knob = Knob { name: "SINTER_TEST_UNSET_PATH", doc: "" };
        let search = Search {
            name: "libnothing",
            sonames: &["libnothing-sinter.so.13", "libnothing-sinter.so.12"],
            knob: &knob,
            folders: vec![PathBuf::from("/nonexistent/lib64")],
        };
        let e = open(&search).unwrap_err();
        assert_eq!(e.code, crate::base::ErrorCode::NotFound);
        for part in ["libnothing", "libnothing-sinter.so.13", "libnothing-sinter.so.12", "/nonexistent/lib64", "SINTER_TEST_UNSET_PATH"] {
            assert!(e.message.contains(part), "{part} is not in: {}", e.message);
        }
    }

    #[test]
    fn a_library_without_the_symbols_is_refused_by_name() {
        let knob = Knob { name: "SINTER_TEST_UNSET_PATH", doc: "" };
        let search = Search { name: "libnvrtc", sonames: &["libc.so.6"], knob: &knob, folders: vec![] };
        let lib = open(&search).expect("the C library is always loaded");
        // SAFETY: the symbol does not exist.
        assert!(unsafe { lib.symbol::<unsafe extern "C" fn() -> i32>("nvrtcVersion") }.is_none());
        let e = lib.lacks(&["nvrtcVersion", "nvrtcGetCUBIN"]);
        assert!(e.message.contains("nvrtcVersion, nvrtcGetCUBIN"), "{}", e.message);
    }

    #[test]
    fn own_path_is_found() {
        let path = path_of(own_path_is_found as *const c_void).unwrap();
        assert!(path.is_absolute() && path.exists(), "{path:?}");
    }
}
