//! C programs: the examples and the misuse programs, linked to the shared library and to the archive, with and without
//! AddressSanitizer.

use super::sweep;
use super::tools::{library_dir, root, run, scratch, soname_dir};
use std::path::{Path, PathBuf};
use std::process::Command;

const WARNINGS: [&str; 5] = ["-std=c11", "-Wall", "-Wextra", "-Werror", "-pedantic"];
/// What the archive needs beside it; `examples_c/sinter.pc.in` says the same in Libs.private.
const PRIVATE_LIBS: [&str; 4] = ["-lgcc_s", "-lpthread", "-ldl", "-lm"];

#[derive(Clone, Copy, PartialEq)]
enum Link {
    Shared,
    Static,
}

fn compile(source: &Path, link: Link, sanitize: bool) -> PathBuf {
    let kind =
        format!("{}{}", if link == Link::Shared { "shared" } else { "static" }, if sanitize { "_asan" } else { "" });
    let name = source.file_stem().unwrap().to_str().unwrap();
    let out = scratch().join(format!("{name}_{kind}"));
    let mut c = Command::new("gcc");
    c.args(WARNINGS).args(["-g", "-O1"]).arg("-I").arg(root().join("include"));
    if sanitize {
        c.arg("-fsanitize=address");
    }
    c.arg(source).arg("-o").arg(&out);
    match link {
        Link::Shared => c.arg("-L").arg(library_dir()).args(["-lsinter", "-lpthread", "-lm"]),
        Link::Static => c.arg(library_dir().join("libsinter.a")).args(PRIVATE_LIBS),
    };
    run(&mut c);
    if sanitize {
        // The proof that the sanitizer was there.
        let symbols = run(Command::new("nm").arg(&out));
        assert!(symbols.contains("__asan_init"), "{name} was not compiled with AddressSanitizer");
    }
    out
}

fn program(path: &Path) -> Command {
    let mut c = Command::new(path);
    c.env("LD_LIBRARY_PATH", soname_dir()).current_dir(scratch());
    c.env("ASAN_OPTIONS", "detect_leaks=1:halt_on_error=1").env_remove("SINTER_LOG");
    c
}

fn models() -> PathBuf {
    root().join("examples_c/models")
}

fn example(name: &str, link: Link, sanitize: bool) -> String {
    let exe = compile(&root().join(format!("examples_c/{name}.c")), link, sanitize);
    let mut c = program(&exe);
    c.arg("--device=cpu").arg(format!("--models={}", models().display()));
    if name == "build_network" {
        c.arg(format!("--save={}.sinter", exe.display()));
    }
    run(&mut c)
}

/// Every example in all four ways; the text says that it did its work.
fn example_everywhere(name: &str, says: &[&str]) {
    for (link, sanitize) in [(Link::Shared, false), (Link::Shared, true), (Link::Static, false), (Link::Static, true)] {
        let text = example(name, link, sanitize);
        for s in says {
            assert!(text.contains(s), "{name} does not say {s:?}:\n{text}");
        }
    }
}

#[test]
fn example_hello_digits() {
    example_everywhere("hello_digits", &["This is a 7. (It was written as a 7.)", "(all right)"]);
}

#[test]
fn example_build_network() {
    example_everywhere("build_network", &["1 xor 0 = 1", "the same to the last bit"]);
}

#[test]
fn example_async_streams() {
    example_everywhere("async_streams", &["100 executions on 2 streams", "0 answers differ"]);
}

#[test]
fn example_profile() {
    example_everywhere("profile", &["batch of 10", "a run without the layer clock"]);
}

/// No example is left out above.
#[test]
fn every_example_is_run() {
    let text = include_str!("programs.rs");
    for entry in std::fs::read_dir(root().join("examples_c")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "c") {
            let name = path.file_stem().unwrap().to_str().unwrap();
            assert!(text.contains(&format!("example_everywhere(\"{name}\"")), "{name} is not run");
        }
    }
}

/// Each function that adds a layer computes what its comment says.
#[test]
fn every_layer_computes_what_it_says() {
    let text = run(&mut program(&compile(&root().join("tests/capi/layers.c"), Link::Shared, true)));
    assert!(text.contains("layers, 0 wrong"), "{text}");
}

#[test]
fn misuse_gives_a_status_and_a_sentence() {
    for (link, sanitize) in [(Link::Shared, true), (Link::Static, true)] {
        let exe = compile(&root().join("tests/capi/misuse.c"), link, sanitize);
        run(program(&exe).arg(models().join("digits.onnx")));
    }
}

/// See `SINTER_TEST_PANIC` in `base/knobs.rs`.
#[test]
fn a_panic_inside_is_a_status_and_poisons_its_handle() {
    let exe = compile(&root().join("tests/capi/misuse.c"), Link::Shared, false);
    let mut c = program(&exe);
    run(c.arg(models().join("digits.onnx")).arg("panic").env("SINTER_TEST_PANIC", "sinter_builder_build"));
}

#[test]
fn every_argument_of_every_function_is_checked() {
    let source = scratch().join("sweep.c");
    std::fs::write(&source, sweep::program()).unwrap();
    let text = run(&mut program(&compile(&source, Link::Shared, true)));
    assert!(text.contains("0 wrong"), "{text}");
}

/// The Makefile finds the library by folder, installs it, and then finds it by pkg-config.
#[test]
fn makefile_builds_and_installs() {
    let dir = scratch().join("make");
    let _ = std::fs::remove_dir_all(&dir);
    let make = || {
        let mut c = Command::new("make");
        c.arg("-C").arg(root().join("examples_c")).env_remove("MAKEFLAGS").env_remove("CARGO_MAKEFLAGS");
        c
    };
    let set = |name: &str, path: &Path| format!("{name}={}", path.display());
    run(make().arg(set("SINTER_LIB", library_dir())).arg(set("BUILD", &dir.join("by_folder"))));
    let prefix = dir.join("prefix");
    run(make().arg("install").arg(set("SINTER_LIB", library_dir())).arg(set("PREFIX", &prefix)));
    run(make().arg(set("SINTER_DIR", &prefix)).arg(set("BUILD", &dir.join("by_dir"))));
    let said = Command::new("pkg-config").arg("--version").output();
    if said.is_ok_and(|o| o.status.success()) {
        let path = prefix.join("lib/pkgconfig");
        run(make().env("PKG_CONFIG_PATH", path).arg("PKG_CONFIG=1").arg(set("BUILD", &dir.join("by_pkg_config"))));
        let exe = dir.join("by_pkg_config/hello_digits");
        let mut c = Command::new(&exe);
        c.env("LD_LIBRARY_PATH", prefix.join("lib")).args(["--device=cpu", "--models"]).arg(models());
        assert!(run(&mut c).contains("This is a 7."));
    }
    // The programs of the first build find the library without any variable.
    let mut c = Command::new(dir.join("by_folder/hello_digits"));
    assert!(run(c.args(["--device=cpu", "--models"]).arg(models())).contains("This is a 7."));
}

/// The C of the README is C of this library.
#[test]
fn readme_compiles() {
    let text = std::fs::read_to_string(root().join("README.md")).unwrap();
    let code = text.split("```c\n").nth(1).and_then(|t| t.split("```").next()).expect("the README shows C");
    let code = code.replace("#include <sinter.h>", "");
    let source = scratch().join("readme.c");
    let whole = format!("#include <sinter.h>\n#include <stdio.h>\n\nint main(void) {{\n{code}\n  return 0;\n}}\n");
    std::fs::write(&source, whole).unwrap();
    compile(&source, Link::Shared, false);
}

/// CMake, where it is installed.
#[test]
fn cmake_builds() {
    if Command::new("cmake").arg("--version").output().is_err() {
        eprintln!("skipped: there is no cmake");
        return;
    }
    let dir = scratch().join("cmake");
    let _ = std::fs::remove_dir_all(&dir);
    let prefix = dir.join("prefix");
    std::fs::create_dir_all(prefix.join("include")).unwrap();
    std::fs::create_dir_all(prefix.join("lib")).unwrap();
    std::fs::copy(root().join("include/sinter.h"), prefix.join("include/sinter.h")).unwrap();
    std::os::unix::fs::symlink(library_dir().join("libsinter.so"), prefix.join("lib/libsinter.so")).unwrap();
    let build = dir.join("build");
    let mut c = Command::new("cmake");
    run(c
        .arg("-S")
        .arg(root().join("examples_c"))
        .arg("-B")
        .arg(&build)
        .arg(format!("-DSINTER_DIR={}", prefix.display())));
    run(Command::new("cmake").arg("--build").arg(&build));
    let mut c = Command::new(build.join("hello_digits"));
    assert!(run(c.args(["--device=cpu", "--models"]).arg(models())).contains("This is a 7."));
}
