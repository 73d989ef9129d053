//! The kernel sources: `kernels/**`, embedded when the crate is built.
//!
//! A [`Unit`] is what one compilation reads: the file, every header that it includes directly or not, and the generated
//! code. Includes are written `#include "name"`, where the name is looked up beside the including file, then from
//! `kernels/`; they are rewritten to paths from `kernels/`, so that a header has one name and `#pragma once` holds. A
//! header that is not embedded is an error here, before any compiler runs.

use crate::base::Result;
use crate::bail;
use std::collections::BTreeMap;
use xxhash_rust::xxh3::Xxh3;

mod embedded {
    include!(concat!(env!("OUT_DIR"), "/kernels.rs"));
}

/// Name of the header that holds generated code.
pub const GENERATED: &str = "generated.cuh";

/// Every embedded file: path below `kernels/` and text, sorted by path.
pub fn files() -> &'static [(&'static str, &'static str)] {
    embedded::FILES
}

/// Text of an embedded file, by its path below `kernels/`.
pub fn lookup(file: &str) -> Option<&'static str> {
    let files = embedded::FILES;
    files.binary_search_by(|(name, _)| (*name).cmp(file)).ok().map(|i| files[i].1)
}

/// The embedded headers (`.cuh`).
pub fn headers() -> Vec<(&'static str, &'static str)> {
    embedded::FILES.iter().copied().filter(|(name, _)| name.ends_with(".cuh")).collect()
}

/// Hash of an embedded file with everything that it includes; `generated.cuh` counts as empty.
pub fn hash(file: &str) -> Result<u128> {
    unit(file, "").map(|u| u.hash)
}

/// Whether kernels of this file wait for the kernels before them (`griddepcontrol.wait`), so that they may be launched
/// while these still run. The contract is in `kernels/common/ptx.cuh`: a file that names the instruction keeps it.
pub fn waits(file: &str) -> bool {
    lookup(file).is_some_and(|text| text.contains("griddepcontrol_wait"))
}

/// What one compilation reads.
#[derive(Clone, Debug)]
pub struct Unit {
    /// Text of the file, includes as paths from `kernels/`.
    pub text: String,
    /// Path and text of each header in reach, sorted by path; `generated.cuh` is always there.
    pub headers: Vec<(String, String)>,
    /// Hash of all of that.
    pub hash: u128,
}

/// Collects a file of `kernels/` with what it includes and this generated code.
pub fn unit(file: &str, generated: &str) -> Result<Unit> {
    unit_from(file, generated, &lookup)
}

/// As [`unit`], with another table of files.
pub(super) fn unit_from(file: &str, generated: &str, lookup: &dyn Fn(&str) -> Option<&'static str>) -> Result<Unit> {
    let Some(root) = lookup(file) else {
        bail!(NotFound, "there is no kernel file \"{file}\" in this build of the library");
    };
    let exists = |name: &str| name == GENERATED || lookup(name).is_some();
    let mut headers = BTreeMap::new();
    let mut todo = vec![GENERATED.to_string()];
    let text = rewrite(file, root, &exists, &mut todo)?;
    while let Some(name) = todo.pop() {
        if !headers.contains_key(&name) {
            let text = if name == GENERATED { generated } else { lookup(&name).unwrap_or_default() };
            let text = rewrite(&name, text, &exists, &mut todo)?;
            headers.insert(name, text);
        }
    }
    let mut hasher = Xxh3::new();
    let mut feed = |s: &str| {
        hasher.update(&(s.len() as u64).to_le_bytes());
        hasher.update(s.as_bytes());
    };
    feed(&text);
    for (name, text) in &headers {
        feed(name);
        feed(text);
    }
    Ok(Unit { text, headers: headers.into_iter().collect(), hash: hasher.digest128() })
}

/// The quoted name of an `#include "name"` line, and where it stands in the line.
pub(super) fn included(line: &str) -> Option<(&str, std::ops::Range<usize>)> {
    let after = line.trim_start().strip_prefix('#')?.trim_start().strip_prefix("include")?.trim_start();
    let name = after.strip_prefix('"')?;
    let name = &name[..name.find('"')?];
    let start = name.as_ptr() as usize - line.as_ptr() as usize;
    Some((name, start..start + name.len()))
}

/// Rewrites the includes of one file to paths from `kernels/` and adds them to `found`.
fn rewrite(file: &str, text: &str, exists: &dyn Fn(&str) -> bool, found: &mut Vec<String>) -> Result<String> {
    let folder = file.rsplit_once('/').map_or("", |(folder, _)| folder);
    let mut out = String::with_capacity(text.len());
    for (n, line) in text.split_inclusive('\n').enumerate() {
        let Some((name, range)) = included(line) else {
            out.push_str(line);
            continue;
        };
        let beside = normalize(&format!("{folder}/{name}"));
        let from_root = normalize(name);
        let Some(path) = [beside, from_root].into_iter().flatten().find(|p| exists(p)) else {
            bail!(NotFound, "kernels/{file}:{}: included header \"{name}\" is not among the kernel files", n + 1);
        };
        out.push_str(&line[..range.start]);
        out.push_str(&path);
        out.push_str(&line[range.end..]);
        found.push(path);
    }
    Ok(out)
}

/// Resolves `.` and `..`; `None` for a path that leaves `kernels/`.
fn normalize(path: &str) -> Option<String> {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[(&str, &str)] = &[
        ("a.cu", "#include \"common/x.cuh\"\n#include \"generated.cuh\"\nbody a\n"),
        ("b.cu", "body b\n"),
        ("common/x.cuh", "#pragma once\n  #  include \"y.cuh\" // why\nx\n"),
        ("common/y.cuh", "#pragma once\n#include \"../common/x.cuh\"\ny\n"),
        ("bad.cu", "\n#include \"nowhere.cuh\"\n"),
    ];

    fn table(name: &str) -> Option<&'static str> {
        TABLE.iter().find(|(n, _)| *n == name).map(|(_, t)| *t)
    }

    #[test]
    fn a_unit_holds_every_header_once_under_its_full_path() {
        let unit = unit_from("a.cu", "gen", &table).unwrap();
        let names: Vec<_> = unit.headers.iter().map(|(n, _)| n.as_str()).collect();
        assert_eq!(names, ["common/x.cuh", "common/y.cuh", "generated.cuh"]);
        assert_eq!(unit.headers[0].1, "#pragma once\n  #  include \"common/y.cuh\" // why\nx\n");
        assert_eq!(unit.headers[1].1, "#pragma once\n#include \"common/x.cuh\"\ny\n");
        assert_eq!(unit.headers[2].1, "gen");
    }

    #[test]
    fn the_hash_sees_headers_and_generated_code() {
        let of = |generated: &'static str, y: &'static str| {
            unit_from("a.cu", generated, &|n| if n == "common/y.cuh" { Some(y) } else { table(n) }).unwrap().hash
        };
        let base = of("gen", "y");
        assert_eq!(base, of("gen", "y"));
        assert_ne!(base, of("gen2", "y"));
        assert_ne!(base, of("gen", "y2"));
    }

    #[test]
    fn a_missing_header_names_file_and_line() {
        let e = unit_from("bad.cu", "", &table).unwrap_err();
        assert!(e.message.contains("kernels/bad.cu:2") && e.message.contains("nowhere.cuh"), "{}", e.message);
        assert!(unit_from("no.cu", "", &table).unwrap_err().message.contains("no.cu"));
    }

    #[test]
    fn paths_do_not_leave_the_folder() {
        assert_eq!(normalize("common/../a.cuh").as_deref(), Some("a.cuh"));
        assert_eq!(normalize("../a.cuh"), None);
    }

    #[test]
    fn every_embedded_kernel_finds_its_headers() {
        assert!(files().windows(2).all(|w| w[0].0 < w[1].0), "the table is sorted");
        for (name, text) in files() {
            assert_eq!(lookup(name), Some(*text));
            if name.ends_with(".cu") {
                unit(name, "").unwrap_or_else(|e| panic!("{e}"));
                assert_eq!(hash(name).unwrap(), hash(name).unwrap());
            }
        }
    }
}
