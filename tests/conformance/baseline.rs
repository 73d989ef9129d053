//! The committed outcome of every case: `NAME pass`, or `NAME CLASS: TEXT` where it does not pass.

use super::case::{Case, Outcome};
use super::reason;
use std::collections::BTreeMap;
use std::fmt::Write;

const BASELINE: &str = include_str!("baseline.txt");

const HEAD: &str = "\
# Outcome of ONNX's backend test data, one line a case; UPDATE_EXPECT=1 cargo test --test conformance writes it anew.
# Classes that are left out on purpose: string, training, image files, random, boundary, preview; all others are gaps.
";

fn parse(text: &str) -> BTreeMap<&str, &str> {
    let lines = text.lines().filter(|l| !l.starts_with('#') && !l.is_empty());
    lines.map(|l| l.split_once(' ').unwrap_or_else(|| panic!("baseline line {l:?}"))).collect()
}

/// Fails where a case is worse than the baseline, and where the baseline does not know how good it is.
pub fn compare(cases: &[Case], outcomes: &[Outcome]) {
    let update = std::env::var_os("UPDATE_EXPECT").is_some_and(|v| v == "1");
    let known = parse(BASELINE);
    let (mut worse, mut better) = (Vec::new(), Vec::new());
    for (c, o) in cases.iter().zip(outcomes) {
        let passed = known.get(c.name.as_str()).map(|line| *line == reason::PASS);
        match (passed, o.passed()) {
            (Some(true), false) => worse.push(format!("{}: {}", c.name, o.text())),
            (Some(false) | None, true) => better.push(c.name.clone()),
            (None, false) => worse.push(format!("{} is not in the baseline: {}", c.name, o.text())),
            _ => {}
        }
        assert!(o.class != reason::PANIC || passed == Some(true) || update, "{}: {}", c.name, o.text());
    }
    if update {
        let mut text = HEAD.to_string();
        for (c, o) in cases.iter().zip(outcomes) {
            let _ = writeln!(text, "{} {}", c.name, o.text());
        }
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance/baseline.txt");
        std::fs::write(&path, text).unwrap();
        eprintln!("wrote {}: {} better, {} worse", path.display(), better.len(), worse.len());
        return;
    }
    assert!(worse.is_empty(), "{} cases are worse than the baseline:\n{}", worse.len(), worse.join("\n"));
    assert!(
        better.is_empty(),
        "{} cases pass that the baseline does not have so; commit what UPDATE_EXPECT=1 writes:\n{}",
        better.len(),
        better.join("\n")
    );
}
