//! Where things are, and running a compiler.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

pub fn header() -> PathBuf {
    root().join("include/sinter.h")
}

/// A folder of this run, for what is compiled.
pub fn scratch() -> &'static Path {
    static DIR: OnceLock<PathBuf> = OnceLock::new();
    DIR.get_or_init(|| {
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("capi");
        std::fs::create_dir_all(&dir).unwrap();
        dir
    })
}

/// Folder with `libsinter.so` and `libsinter.a` of this build. Cargo makes all crate types of the library before an
/// integration test and leaves them beside the test's own executable.
pub fn library_dir() -> &'static Path {
    static DIR: OnceLock<PathBuf> = OnceLock::new();
    DIR.get_or_init(|| {
        let exe = std::env::current_exe().unwrap();
        let deps = exe.parent().unwrap();
        let both = |d: &Path| d.join("libsinter.so").is_file() && d.join("libsinter.a").is_file();
        if both(deps) {
            return deps.to_path_buf();
        }
        // Another version of cargo may lay files out otherwise: then it is asked to build the library by name.
        let profile = deps.parent().unwrap();
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
        cargo.current_dir(root()).args(["build", "--lib", "--target-dir"]).arg(profile.parent().unwrap());
        if profile.ends_with("release") {
            cargo.arg("--release");
        }
        run(&mut cargo);
        assert!(both(profile), "cargo made no libsinter.so and libsinter.a in {}", profile.display());
        profile.to_path_buf()
    })
}

/// Runs a command; fails with all its output unless it succeeds. Returns standard output.
pub fn run(c: &mut Command) -> String {
    let out = c.output().unwrap_or_else(|e| panic!("cannot start {c:?}: {e}"));
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let err = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{c:?}\nended with {}\n{text}\n{err}", out.status);
    text
}

/// The shared library under the name that programs ask for (its SONAME), and the folder where that lies.
pub fn soname_dir() -> &'static Path {
    static DIR: OnceLock<PathBuf> = OnceLock::new();
    DIR.get_or_init(|| {
        let so = library_dir().join("libsinter.so");
        let text = run(Command::new("readelf").arg("-d").arg(&so));
        let line = text.lines().find(|l| l.contains("SONAME")).expect("the library has a SONAME");
        let name = line.split(['[', ']']).nth(1).expect("the SONAME is in brackets");
        assert_eq!(name, format!("libsinter.so.{}", env!("CARGO_PKG_VERSION_MAJOR")));
        let dir = scratch().join("lib");
        std::fs::create_dir_all(&dir).unwrap();
        let link = dir.join(name);
        let _ = std::fs::remove_file(&link);
        std::os::unix::fs::symlink(&so, &link).unwrap();
        dir
    })
}
