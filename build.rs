//! Sets the shared library's SONAME and embeds `kernels/**` as a table of (path, text) that `src/device/cuda/source.rs`
//! includes. What a file includes and the hash of it all are worked out there, so that the rule stands in one place.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let major = std::env::var("CARGO_PKG_VERSION_MAJOR").unwrap_or_default();
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("linux") {
        println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libsinter.so.{major}");
    }
    embed_kernels();
}

/// Writes `$OUT_DIR/kernels.rs`: the files of `kernels/`, sorted by their path below it.
fn embed_kernels() {
    let root = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it")).join("kernels");
    let mut files = Vec::new();
    collect(&root, &mut files);
    files.sort();
    let mut table = String::from("pub static FILES: &[(&str, &str)] = &[\n");
    for path in &files {
        let name = path.strip_prefix(&root).expect("found below it").to_str().expect("kernel paths are ASCII");
        writeln!(table, "    ({name:?}, include_str!({:?})),", path.to_str().expect("the build path is UTF-8")).unwrap();
    }
    table.push_str("];\n");
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets it")).join("kernels.rs");
    std::fs::write(out, table).expect("writing the kernel table");
}

/// Finds `.cu` and `.cuh` files; a changed file or a new one in any folder runs this script again.
fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    println!("cargo:rerun-if-changed={}", folder.display());
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect(&path, files);
        } else if matches!(path.extension().and_then(|e| e.to_str()), Some("cu" | "cuh")) {
            println!("cargo:rerun-if-changed={}", path.display());
            files.push(path);
        }
    }
}
