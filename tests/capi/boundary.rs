//! The rules of the boundary, read off the sources: guards, handles, and the parts of each comment.

use super::tools::root;

struct Function {
    name: String,
    docs: Vec<String>,
    body_start: String,
    pointers: Vec<String>,
    body: String,
}

/// Exported functions of one file, by its layout (rustfmt's).
fn functions(text: &str) -> Vec<Function> {
    let mut out = Vec::new();
    let lines: Vec<&str> = text.lines().collect();
    for (i, line) in lines.iter().enumerate() {
        let Some(rest) = line.strip_prefix("pub unsafe extern \"C\" fn ") else { continue };
        let name = rest.split('(').next().unwrap().to_string();
        let mut docs: Vec<String> = Vec::new();
        for l in lines[..i].iter().rev() {
            match l.strip_prefix("///") {
                Some(d) => docs.insert(0, d.trim().to_string()),
                None if l.starts_with("#[") => {}
                None => break,
            }
        }
        let end = i + lines[i..].iter().position(|l| *l == "}").expect("a function ends");
        let whole = lines[i..=end].join("\n");
        let open = whole.find("{\n").expect("a body starts");
        let (signature, body) = whole.split_at(open + 2);
        let pointers = signature
            .split(['(', ',', '\n'])
            .filter(|p| p.contains(": *"))
            .map(|p| p.split(':').next().unwrap().trim().to_string())
            .collect();
        let body_start = body.trim_start().to_string();
        out.push(Function { name, docs, body_start, pointers, body: body.to_string() });
    }
    out
}

fn files() -> Vec<(String, String)> {
    let mut list = Vec::new();
    for entry in std::fs::read_dir(root().join("src/capi")).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        list.push((path.file_name().unwrap().to_str().unwrap().to_string(), text));
    }
    list.sort();
    list
}

#[test]
fn every_function_begins_with_its_guard() {
    let mut n = 0;
    for (file, text) in files() {
        let exported = text.matches("extern \"C\" fn sinter_").count();
        let found = functions(&text);
        assert_eq!(exported, found.len(), "{file}: functions that this test cannot read");
        for f in found {
            n += 1;
            let fine = ["guard(", "guard_or("].iter().any(|g| {
                let rest = f.body_start.strip_prefix(g).map(str::trim_start);
                rest.is_some_and(|r| r.starts_with(&format!("\"{}\"", f.name)))
            });
            assert!(fine, "{file}: {} does not begin with a guard of its own name", f.name);
        }
    }
    assert!(n > 100, "only {n} functions found");
}

#[test]
fn nothing_outside_of_capi_is_exported() {
    fn walk(dir: &std::path::Path, found: &mut Vec<String>) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                if text.contains("no_mangle") && !path.starts_with(root().join("src/capi")) {
                    found.push(path.display().to_string());
                }
            }
        }
    }
    let mut found = Vec::new();
    walk(&root().join("src"), &mut found);
    assert!(found.is_empty(), "no_mangle outside of src/capi: {found:?}");
}

/// A pointer that is dereferenced outside of `handle.rs` escapes its checks. Streams, events and memory of the
/// application are passed on as numbers, never read here.
#[test]
fn pointers_go_through_handle() {
    let passed_on =
        ["stream", "event", "input_consumed_event", "userdata", "address", "destination", "source", "start", "end"];
    let through = ["handle::", "network(", "set(", "tensor_of(", "tensor(", "add(", "build("];
    for (file, text) in files() {
        for f in functions(&text) {
            for p in &f.pointers {
                let fine = passed_on.contains(&p.as_str())
                    || f.body.lines().any(|l| l.contains(p.as_str()) && through.iter().any(|t| l.contains(t)))
                    || f.body.contains(&format!("({p},"));
                assert!(fine, "{file}: {}: pointer {p} does not go through handle", f.name);
            }
            assert!(!f.body.contains("unsafe { *"), "{file}: {} dereferences a pointer", f.name);
        }
    }
}

#[test]
fn every_comment_has_its_seven_parts() {
    for (file, text) in files() {
        for f in functions(&text) {
            let first = f.docs.first().cloned().unwrap_or_default();
            assert!(first.len() > 10, "{file}: {} has no purpose sentence", f.name);
            let mut at = 0;
            for part in ["Params:", "Owns:", "Result:", "Status:", "Thread:", "Stream:"] {
                let found = f.docs.iter().position(|d| d.starts_with(part));
                let found = found.unwrap_or_else(|| panic!("{file}: the comment of {} lacks {part}", f.name));
                assert!(found > at, "{file}: {}: {part} is out of order", f.name);
                at = found;
            }
        }
    }
}
