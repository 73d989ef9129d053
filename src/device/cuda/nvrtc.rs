//! The kernel compiler: CUDA C++ source to a cubin, by NVRTC. For building engines only; running one never comes here.
//!
//! Kernels are compiled for one exact architecture and never to PTX: a cubin loads on every driver of the same CUDA major
//! version, PTX of a newer compiler does not. Defines become `#define` lines ahead of the source, so any text can be a
//! value, and a dump is exactly what was compiled. Any number of threads may compile at the same time; NVRTC needs no lock.
//! It recurses deeply: give the threads at least [`STACK_BYTES`].

use super::library::{self, Search, entry_points};
use crate::base::{Result, knobs};
use crate::{bail, ensure, err, log_info, log_warn};
use cudarc::nvrtc::sys;
use std::ffi::{CStr, CString, c_char, c_int};
use std::fmt::Write as _;
use std::path::Path;
use std::sync::OnceLock;
use xxhash_rust::xxh3::xxh3_128;

/// Stack that a compiling thread should have. (NVRTC is told not to raise the limit of the process itself.)
pub const STACK_BYTES: usize = 16 << 20;

entry_points! {
    Nvrtc, sys -> nvrtcResult {
        required {
            fn nvrtcVersion(*mut c_int, *mut c_int);
            fn nvrtcCreateProgram(*mut sys::nvrtcProgram, *const c_char, *const c_char, c_int, *const *const c_char,
                *const *const c_char);
            fn nvrtcDestroyProgram(*mut sys::nvrtcProgram);
            fn nvrtcCompileProgram(sys::nvrtcProgram, c_int, *const *const c_char);
            fn nvrtcGetCUBINSize(sys::nvrtcProgram, *mut usize);
            fn nvrtcGetCUBIN(sys::nvrtcProgram, *mut c_char);
            fn nvrtcGetProgramLogSize(sys::nvrtcProgram, *mut usize);
            fn nvrtcGetProgramLog(sys::nvrtcProgram, *mut c_char);
        }
        optional {}
        unchecked {
            fn nvrtcGetErrorString(i32) -> *const c_char;
        }
    }
}

// SAFETY: function pointers and an open library, never changed; NVRTC is thread-safe.
unsafe impl Send for Nvrtc {}
// SAFETY: as above.
unsafe impl Sync for Nvrtc {}

struct Loaded {
    table: Nvrtc,
    version: (i32, i32),
}

fn nvrtc() -> Result<&'static Loaded> {
    static NVRTC: OnceLock<Result<Loaded>> = OnceLock::new();
    NVRTC.get_or_init(load).as_ref().map_err(Clone::clone)
}

fn load() -> Result<Loaded> {
    let search = Search {
        name: "libnvrtc",
        sonames: &["libnvrtc.so.13", "libnvrtc.so.12"],
        knob: &knobs::NVRTC_PATH,
        folders: library::usual_folders(),
    };
    let table = Nvrtc::resolve(library::open(&search)?)?;
    // NVRTC opens its builtins by bare name at the first compilation, which fails outside the loader's path, unless
    // they are open already.
    library::preload_beside(&table.lib.path, "libnvrtc-builtins.so");
    let mut version = (0, 0);
    // SAFETY: writes two integers.
    let status = unsafe { (table.nvrtcVersion)(&mut version.0, &mut version.1) };
    check(&table, status, || "reading the NVRTC version".into())?;
    log_info!("libnvrtc: NVRTC {}.{}", version.0, version.1);
    Ok(Loaded { table, version })
}

/// Whether kernels can be compiled; looked up once per process.
pub fn is_present() -> Result<()> {
    nvrtc().map(|_| ())
}

/// NVRTC's version: major, minor.
pub fn version() -> Result<(i32, i32)> {
    nvrtc().map(|n| n.version)
}

fn check(table: &Nvrtc, status: i32, doing: impl FnOnce() -> String) -> Result<()> {
    ensure!(status == 0, Cuda, "{}: {}", doing(), status_text(table, status));
    Ok(())
}

fn status_text(table: &Nvrtc, status: i32) -> String {
    // SAFETY: NVRTC returns a static string for every integer.
    let text = unsafe { (table.nvrtcGetErrorString)(status) };
    if text.is_null() {
        return format!("NVRTC error {status}");
    }
    // SAFETY: static and NUL-terminated.
    format!("{} ({status})", unsafe { CStr::from_ptr(text) }.to_string_lossy())
}

/// A compiled kernel.
#[derive(Clone, Debug)]
pub struct Compiled {
    pub cubin: Vec<u8>,
    /// Compiler output: warnings, and registers and spills of each kernel.
    pub log: String,
}

/// Options of every compilation by this NVRTC, but for the architecture and the seed.
pub fn flags(version: (i32, i32)) -> Vec<&'static str> {
    // Helpers of the kernels stand without `__device__`; a generated body may leave operands unused (diagnostics 186 and
    // 550 are comparisons and variables that the defines make pointless).
    let mut flags = vec![
        "--std=c++17",
        "--device-as-default-execution-space",
        "--diag-suppress=186",
        "--diag-suppress=550",
        "--ptxas-options=-v",
    ];
    if version >= (12, 9) {
        // No setrlimit on the whole process, no cache through the driver (we have our own), and a front end without
        // what our kernels never use.
        flags.extend(["--modify-stack-limit=false", "--no-cache", "--minimal", "--ptxas-options=--warn-on-spills"]);
    }
    flags
}

/// Compiles one source file for one architecture (`sm_90a`).
///
/// `headers` are the names and texts that `#include "name"` finds; nothing is read from disk. The error carries the
/// file, the defines and the compiler's log. With `SINTER_DUMP_KERNELS=folder`, source (with defines, compilable by
/// hand), log and cubin are written there, also when the compilation fails.
pub fn compile(
    source: &str,
    source_name: &str,
    headers: &[(&str, &str)],
    defines: &[(String, String)],
    arch: &str,
) -> Result<Compiled> {
    let nvrtc = nvrtc()?;
    let text = with_defines(source, source_name, defines)?;
    let outcome = compile_text(nvrtc, &text, source_name, headers, arch);
    if let Some(folder) = knobs::DUMP_KERNELS.get() {
        if let Err(e) = dump(Path::new(&folder), &text, source_name, headers, defines, arch, &outcome) {
            log_warn!("SINTER_DUMP_KERNELS={folder}: {e}");
        }
    }
    match outcome {
        Outcome::Done(compiled) => Ok(compiled),
        Outcome::Failed { status, log } => {
            let defines: Vec<_> = defines.iter().map(|(n, v)| format!("{n}={v}")).collect();
            bail!(
                Cuda,
                "compiling kernel file {source_name} for {arch} failed: {}; defines: {}; log:\n{}",
                status_text(&nvrtc.table, status),
                defines.join(" "),
                log.trim_end()
            )
        }
        Outcome::Broken(e) => Err(e.context(format!("compiling kernel file {source_name} for {arch}"))),
    }
}

/// The text that is compiled: a `#define` line each, then the source under its own line numbers.
fn with_defines(source: &str, source_name: &str, defines: &[(String, String)]) -> Result<String> {
    let mut text = String::with_capacity(source.len() + 64 * defines.len());
    for (name, value) in defines {
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        ensure!(
            !name.is_empty() && name.chars().all(is_name) && !value.contains(['\n', '\r', '\\']),
            InvalidArgument,
            "define {name:?}={value:?} of kernel file {source_name}: expected an identifier and one line"
        );
        writeln!(text, "#define {name} {value}").expect("writing to a string");
    }
    writeln!(text, "#line 1 \"{source_name}\"").expect("writing to a string");
    text.push_str(source);
    Ok(text)
}

enum Outcome {
    Done(Compiled),
    Failed { status: i32, log: String },
    Broken(crate::base::Error),
}

fn compile_text(nvrtc: &Loaded, text: &str, source_name: &str, headers: &[(&str, &str)], arch: &str) -> Outcome {
    run_compiler(nvrtc, text, source_name, headers, arch).unwrap_or_else(Outcome::Broken)
}

/// Destroys its program when dropped.
struct Program<'a> {
    table: &'a Nvrtc,
    raw: sys::nvrtcProgram,
}

impl Drop for Program<'_> {
    fn drop(&mut self) {
        // SAFETY: created by nvrtcCreateProgram, destroyed once.
        unsafe { (self.table.nvrtcDestroyProgram)(&mut self.raw) };
    }
}

fn run_compiler(nvrtc: &Loaded, text: &str, source_name: &str, headers: &[(&str, &str)], arch: &str) -> Result<Outcome> {
    let c = |s: &str| CString::new(s).map_err(|_| err!(InvalidArgument, "kernel text contains a NUL byte"));
    let (c_text, c_name) = (c(text)?, c(source_name)?);
    let names = headers.iter().map(|(name, _)| c(name)).collect::<Result<Vec<_>>>()?;
    let texts = headers.iter().map(|(_, text)| c(text)).collect::<Result<Vec<_>>>()?;
    let pointers = |v: &[CString]| v.iter().map(|s| s.as_ptr()).collect::<Vec<_>>();
    let (name_ptrs, text_ptrs) = (pointers(&names), pointers(&texts));

    let mut raw = std::ptr::null_mut();
    // SAFETY: all strings live until the call returns; NVRTC copies them.
    let status = unsafe {
        (nvrtc.table.nvrtcCreateProgram)(
            &mut raw,
            c_text.as_ptr(),
            c_name.as_ptr(),
            headers.len() as c_int,
            text_ptrs.as_ptr(),
            name_ptrs.as_ptr(),
        )
    };
    check(&nvrtc.table, status, || "creating an NVRTC program".into())?;
    let program = Program { table: &nvrtc.table, raw };

    let mut options: Vec<CString> = flags(nvrtc.version).into_iter().map(c).collect::<Result<_>>()?;
    options.push(c(&format!("--gpu-architecture={arch}"))?);
    if nvrtc.version >= (12, 9) {
        // A seed from the text makes generated symbol names, and so the cubin, the same in every process.
        options.push(c(&format!("--frandom-seed={:032x}", xxh3_128(text.as_bytes())))?);
    }
    let option_ptrs = pointers(&options);
    // SAFETY: the program is alive, the options are NUL-terminated.
    let status = unsafe { (nvrtc.table.nvrtcCompileProgram)(program.raw, options.len() as c_int, option_ptrs.as_ptr()) };
    let log = read_log(&program)?;
    if status != 0 {
        return Ok(Outcome::Failed { status, log });
    }
    let mut size = 0;
    // SAFETY: writes one size.
    let status = unsafe { (nvrtc.table.nvrtcGetCUBINSize)(program.raw, &mut size) };
    check(&nvrtc.table, status, || "reading the size of a cubin".into())?;
    ensure!(size > 0, Cuda, "NVRTC made no cubin for {arch}: is the architecture virtual (compute_..)?");
    let mut cubin = vec![0u8; size];
    // SAFETY: the buffer has the size that NVRTC asked for.
    let status = unsafe { (nvrtc.table.nvrtcGetCUBIN)(program.raw, cubin.as_mut_ptr().cast()) };
    check(&nvrtc.table, status, || "reading a cubin".into())?;
    Ok(Outcome::Done(Compiled { cubin, log }))
}

fn read_log(program: &Program) -> Result<String> {
    let mut size = 0;
    // SAFETY: writes one size.
    let status = unsafe { (program.table.nvrtcGetProgramLogSize)(program.raw, &mut size) };
    check(program.table, status, || "reading the size of the NVRTC log".into())?;
    let mut log = vec![0u8; size];
    if size > 0 {
        // SAFETY: the buffer has the size that NVRTC asked for, with the NUL.
        let status = unsafe { (program.table.nvrtcGetProgramLog)(program.raw, log.as_mut_ptr().cast()) };
        check(program.table, status, || "reading the NVRTC log".into())?;
    }
    log.truncate(log.iter().position(|b| *b == 0).unwrap_or(log.len()));
    Ok(String::from_utf8_lossy(&log).into_owned())
}

/// Writes `<entry>.<arch>.cu`, `.log` and `.cubin`.
fn dump(
    folder: &Path,
    text: &str,
    source_name: &str,
    headers: &[(&str, &str)],
    defines: &[(String, String)],
    arch: &str,
    outcome: &Outcome,
) -> Result<()> {
    let entry = defines.iter().find(|(n, _)| n == "KERNEL_NAME").map(|(_, v)| v.as_str());
    let stem = entry.unwrap_or_else(|| file_stem(source_name));
    std::fs::create_dir_all(folder)?;
    let write = |extension: &str, bytes: &[u8]| std::fs::write(folder.join(format!("{stem}.{arch}.{extension}")), bytes);
    let head = format!("// {source_name} for {arch}; nvcc -arch={arch} -std=c++17 -cubin {stem}.{arch}.cu\n");
    write("cu", (head + &flatten(text, headers)).as_bytes())?;
    match outcome {
        Outcome::Done(compiled) => {
            write("log", compiled.log.as_bytes())?;
            write("cubin", &compiled.cubin)?;
        }
        Outcome::Failed { log, .. } => write("log", log.as_bytes())?,
        Outcome::Broken(e) => write("log", e.to_string().as_bytes())?,
    }
    log_info!("kernel source, log and cubin: {}", folder.join(format!("{stem}.{arch}.*")).display());
    Ok(())
}

/// `softmax` of `norm/softmax.cu`.
pub(super) fn file_stem(file: &str) -> &str {
    let name = file.rsplit_once('/').map_or(file, |(_, name)| name);
    name.split_once('.').map_or(name, |(stem, _)| stem)
}

/// One self-contained text: each header stands where it is included first.
fn flatten(text: &str, headers: &[(&str, &str)]) -> String {
    fn add(out: &mut String, text: &str, headers: &[(&str, &str)], done: &mut Vec<String>) {
        for line in text.split_inclusive('\n') {
            let name = super::source::included(line).map(|(name, _)| name);
            match name.and_then(|n| headers.iter().find(|(h, _)| *h == n)) {
                Some((name, _)) if done.iter().any(|d| d == name) => {}
                Some((name, header)) => {
                    done.push(name.to_string());
                    add(out, header, headers, done);
                    if !out.ends_with('\n') {
                        out.push('\n');
                    }
                }
                None if line.trim() == "#pragma once" => {}
                None => out.push_str(line),
            }
        }
    }
    let mut out = String::new();
    add(&mut out, text, headers, &mut Vec::new());
    out
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// False, with a line on standard error, when there is no NVRTC.
    pub fn have_nvrtc() -> bool {
        is_present().map_err(|e| eprintln!("skipped: {e}")).is_ok()
    }

    fn define(name: &str, value: &str) -> (String, String) {
        (name.into(), value.into())
    }

    #[test]
    fn a_missing_nvrtc_says_what_was_looked_for() {
        let Err(e) = is_present() else { return };
        for part in ["libnvrtc.so.13", "/usr/local/cuda/lib64", "SINTER_NVRTC_PATH"] {
            assert!(e.message.contains(part), "{part} is not in: {}", e.message);
        }
    }

    #[test]
    fn defines_stand_above_the_source() {
        let text = with_defines("body\n", "a.cu", &[define("N", "1"), define("T", "unsigned char")]).unwrap();
        assert_eq!(text, "#define N 1\n#define T unsigned char\n#line 1 \"a.cu\"\nbody\n");
        assert!(with_defines("", "a.cu", &[define("N", "1\nint x;")]).is_err());
        assert!(with_defines("", "a.cu", &[define("A B", "1")]).is_err());
    }

    #[test]
    fn a_dump_holds_each_header_once() {
        let headers = [("x.cuh", "#pragma once\n#include \"y.cuh\"\nx"), ("y.cuh", "#pragma once\ny\n")];
        assert_eq!(flatten("#include \"x.cuh\"\n#include \"y.cuh\"\nz\n", &headers), "y\nx\nz\n");
    }

    #[test]
    fn a_kernel_with_nested_headers_compiles_to_a_cubin() {
        if !have_nvrtc() {
            return;
        }
        let source = "#include \"common/a.cuh\"\n#include \"generated.cuh\"\n\
            extern \"C\" __global__ void KERNEL_NAME(T* x, int n) { int i = blockIdx.x * blockDim.x + threadIdx.x; if (i < n) x[i] = twice(x[i]) GEN; }\n";
        let headers = [
            ("common/a.cuh", "#pragma once\n#include \"common/b.cuh\"\n#include \"common/b.cuh\"\n"),
            ("common/b.cuh", "#pragma once\n__device__ T twice(T v) { return v * FACTOR; }\n"),
            ("generated.cuh", "#define GEN + (T)1\n"),
        ];
        let defines = [define("KERNEL_NAME", "scale_ab"), define("T", "unsigned char"), define("FACTOR", "(1 + 1)")];
        for arch in ["sm_75", "sm_80", "sm_90a"] {
            let compiled = compile(source, "scale.cu", &headers, &defines, arch).unwrap();
            super::super::module::check_elf(&compiled.cubin).unwrap();
            assert!(compiled.cubin.windows(8).any(|w| w == b"scale_ab"));
            assert!(compiled.log.contains("registers"), "{}", compiled.log);
        }
    }

    #[test]
    fn a_dump_compiles_by_itself() {
        if !have_nvrtc() {
            return;
        }
        let folder = std::env::temp_dir().join(format!("sinter-test-{}-dump", std::process::id()));
        let headers = [("a.cuh", "#pragma once\n#define TWO 2\n"), ("generated.cuh", "")];
        let defines = [define("KERNEL_NAME", "twice_12345678")];
        let source = "#include \"a.cuh\"\nextern \"C\" __global__ void KERNEL_NAME(int* x) { *x *= TWO; }\n";
        let text = with_defines(source, "twice.cu", &defines).unwrap();
        let outcome = compile_text(nvrtc().unwrap(), &text, "twice.cu", &headers, "sm_80");
        dump(&folder, &text, "twice.cu", &headers, &defines, "sm_80", &outcome).unwrap();
        let read = |extension: &str| std::fs::read(folder.join(format!("twice_12345678.sm_80.{extension}"))).unwrap();
        let dumped = String::from_utf8(read("cu")).unwrap();
        let again = compile(&dumped, "dumped.cu", &[], &[], "sm_80").unwrap();
        assert!(again.cubin.windows(14).any(|w| w == b"twice_12345678"));
        super::super::module::check_elf(&read("cubin")).unwrap();
        assert!(String::from_utf8(read("log")).unwrap().contains("registers"));
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn the_same_text_gives_the_same_cubin() {
        if !have_nvrtc() {
            return;
        }
        let source = "static __device__ int count; extern \"C\" __global__ void f() { atomicAdd(&count, 1); }";
        let one = compile(source, "f.cu", &[], &[], "sm_90a").unwrap();
        assert_eq!(one.cubin, compile(source, "f.cu", &[], &[], "sm_90a").unwrap().cubin);
    }

    #[test]
    fn an_error_carries_file_line_defines_and_log() {
        if !have_nvrtc() {
            return;
        }
        let e = compile("\n\nint x = UNKNOWN_THING;\n", "bad.cu", &[], &[define("TILE_M", "64")], "sm_90a").unwrap_err();
        for part in ["bad.cu", "(3)", "UNKNOWN_THING", "TILE_M=64", "sm_90a", "NVRTC_ERROR_COMPILATION"] {
            assert!(e.message.contains(part), "{part} is not in: {}", e.message);
        }
    }
}
