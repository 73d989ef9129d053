//! The header: current, complete, and clean for every compiler setting.

use super::tools::{header, library_dir, root, run, scratch};
use std::collections::BTreeSet;
use std::process::Command;

fn generate() -> String {
    let config = cbindgen::Config::from_file(root().join("include/cbindgen.toml")).unwrap();
    let mut builder = cbindgen::Builder::new().with_config(config);
    for file in sinter::capi::HEADER_FILES {
        builder = builder.with_src(root().join(format!("src/capi/{file}.rs")));
    }
    let mut bytes = Vec::new();
    builder.generate().unwrap().write(&mut bytes);
    String::from_utf8(bytes).unwrap()
}

#[test]
fn header_is_current() {
    let made = generate();
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(header(), &made).unwrap();
    }
    let committed = std::fs::read_to_string(header()).unwrap_or_default();
    let first = made.lines().zip(committed.lines()).position(|(a, b)| a != b);
    assert!(
        made == committed,
        "include/sinter.h is old (line {first:?}); make it again with UPDATE_EXPECT=1 cargo test --test capi"
    );
}

/// Alone, in each language, without a warning.
#[test]
fn header_compiles_alone() {
    for (compiler, language, standard) in [
        ("gcc", "c", "c99"),
        ("gcc", "c", "c11"),
        ("gcc", "c", "c17"),
        ("g++", "c++", "c++11"),
        ("g++", "c++", "c++17"),
        ("g++", "c++", "c++20"),
    ] {
        run(Command::new(compiler)
            .args(["-x", language, &format!("-std={standard}")])
            .args(["-Wall", "-Wextra", "-Werror", "-pedantic", "-fsyntax-only"])
            .arg(header()));
    }
    run(Command::new("gcc")
        .args([
            "-x",
            "c",
            "-std=c11",
            "-Wall",
            "-Wextra",
            "-Werror",
            "-pedantic",
            "-Wstrict-prototypes",
            "-fsyntax-only",
        ])
        .arg(header()));
}

/// Two files that include it, each twice, make one program.
#[test]
fn header_included_twice_links() {
    let dir = scratch().join("twice");
    std::fs::create_dir_all(&dir).unwrap();
    let text = "#include \"sinter.h\"\n#include \"sinter.h\"\n";
    std::fs::write(dir.join("a.c"), text).unwrap();
    std::fs::write(dir.join("b.c"), format!("{text}int main(void) {{ return (int)SINTER_STATUS_OK; }}\n")).unwrap();
    run(Command::new("gcc")
        .args(["-std=c11", "-Wall", "-Wextra", "-Werror", "-pedantic"])
        .arg("-I")
        .arg(root().join("include"))
        .args([dir.join("a.c"), dir.join("b.c")])
        .arg("-o")
        .arg(dir.join("twice")));
}

/// Names that the header declares: functions, and data.
fn declared() -> BTreeSet<String> {
    let text = std::fs::read_to_string(header()).unwrap();
    let code = without_comments(&text);
    let mut names = BTreeSet::new();
    for (at, _) in code.match_indices("sinter_") {
        let before = code[..at].chars().next_back().unwrap_or(' ');
        if before.is_alphanumeric() || before == '_' {
            continue;
        }
        let name: String = code[at..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        names.insert(name);
    }
    names
}

pub fn without_comments(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("/*") {
        out.push_str(&rest[..at]);
        rest = rest[at..].find("*/").map_or("", |end| &rest[at + end + 2..]);
    }
    out + rest
}

#[test]
fn exported_symbols_are_those_of_the_header() {
    let so = library_dir().join("libsinter.so");
    let text = run(Command::new("nm").args(["-D", "--defined-only"]).arg(&so));
    let exported: BTreeSet<String> = text
        .lines()
        .filter_map(|l| l.split_whitespace().nth(2))
        .map(|s| s.split('@').next().unwrap().to_string())
        .collect();
    let declared = declared();
    assert!(declared.len() > 100, "only {} names found in the header", declared.len());
    let missing: Vec<_> = declared.difference(&exported).collect();
    let extra: Vec<_> = exported.difference(&declared).collect();
    assert!(
        missing.is_empty() && extra.is_empty(),
        "declared but not exported: {missing:?}\nexported but not declared: {extra:?}"
    );
}

/// The library asks the loader for nothing but the C library and its kin: CUDA is opened at run time.
#[test]
fn library_needs_no_cuda_to_load() {
    let text = run(Command::new("readelf").arg("-d").arg(library_dir().join("libsinter.so")));
    let needed: Vec<&str> =
        text.lines().filter(|l| l.contains("(NEEDED)")).filter_map(|l| l.split(['[', ']']).nth(1)).collect();
    assert!(!needed.is_empty());
    for lib in needed {
        let fine =
            ["libc.", "libm.", "libgcc_s.", "ld-linux", "libpthread.", "libdl."].iter().any(|p| lib.starts_with(p));
        assert!(fine, "the library needs {lib}");
    }
}
