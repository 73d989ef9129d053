//! The text of `--help`, made from the list of options.

use crate::options::{GROUPS, Opt};
use sinter::base::knobs;
use std::fmt::Write;

/// Columns of text on a line.
const WIDTH: usize = 110;
/// Where the explanations begin.
const COLUMN: usize = 30;

/// All of it.
pub fn text() -> String {
    let mut out = format!(
        "sinterexec {}: builds, checks and times inference engines.\n\
         \n\
         Usage: sinterexec --onnx=FILE [options]\n\
         \x20      sinterexec --loadEngine=FILE [options]\n\
         \n\
         Examples\n\
         \x20 Build an engine for 1 to 16 images, keep it, and time it:\n\
         \x20   sinterexec --onnx=digits.onnx --minShapes=image:1x1x8x8 --maxShapes=image:16x1x8x8 --saveEngine=digits.engine\n\
         \x20 Check that the saved engine gives the recorded outputs on the CPU:\n\
         \x20   sinterexec --loadEngine=digits.engine --device=cpu --testData=digits\n\
         \n\
         SPEC is NAME:DIMS,... such as image:8x3x224x224,mask:8x224. DIMS `scalar` or nothing is a scalar; a NAME may hold\n\
         one * for any text and stand in single quotes. Dynamic dimensions without a shape become 1, with a warning.\n",
        env!("CARGO_PKG_VERSION")
    );
    for (title, list) in GROUPS {
        let _ = write!(out, "\n{title}\n");
        for o in *list {
            entry(&mut out, &left(o), &right(o));
        }
    }
    out.push_str("\nEnvironment\n");
    for k in knobs::ALL {
        entry(&mut out, k.name, k.doc.trim());
    }
    out.push_str("\nExit status: 0 when everything passed, 1 otherwise.");
    out
}

fn left(o: &Opt) -> String {
    o.value.map_or(o.name.to_string(), |v| format!("{}={v}", o.name))
}

fn right(o: &Opt) -> String {
    o.default.map_or(o.help.to_string(), |d| format!("{} [{d}]", o.help))
}

/// One option: its form on the left, the wrapped explanation on the right.
fn entry(out: &mut String, left: &str, right: &str) {
    let _ = write!(out, "  {left}");
    let mut at = left.len() + 2;
    if at + 2 > COLUMN {
        out.push('\n');
        at = 0;
    }
    let mut first = true;
    for word in right.split_whitespace() {
        if !first && at + 1 + word.len() > WIDTH {
            out.push('\n');
            (at, first) = (0, true);
        }
        if first {
            let _ = write!(out, "{:1$}", "", COLUMN - at);
            at = COLUMN;
        } else {
            out.push(' ');
            at += 1;
        }
        out.push_str(word);
        at += word.len();
        first = false;
    }
    out.push('\n');
}
