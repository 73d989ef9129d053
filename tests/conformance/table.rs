//! The summary of a run.

use super::case::{Case, Outcome};
use super::reason;
use std::collections::BTreeMap;
use std::fmt::Write;

#[derive(Default)]
struct Row {
    n: usize,
    passed: usize,
    left_out: usize,
    open: usize,
}

impl Row {
    fn add(&mut self, o: &Outcome) {
        self.n += 1;
        self.passed += o.passed() as usize;
        self.left_out += (o.is_expected() && !o.passed()) as usize;
        self.open += !o.is_expected() as usize;
    }
}

fn rows<'a>(cases: &'a [Case], outcomes: &'a [Outcome], key: impl Fn(&'a Case, &'a Outcome) -> &'a str) -> BTreeMap<&'a str, Row> {
    let mut rows: BTreeMap<&str, Row> = BTreeMap::new();
    for (c, o) in cases.iter().zip(outcomes) {
        rows.entry(key(c, o)).or_default().add(o);
    }
    rows
}

fn lines(out: &mut String, title: &str, rows: &BTreeMap<&str, Row>) {
    let _ = writeln!(out, "{title:<28} cases  pass  left out  open");
    for (name, r) in rows {
        let _ = writeln!(out, "{name:<28} {:>5} {:>5} {:>9} {:>5}", r.n, r.passed, r.left_out, r.open);
    }
}

/// Per operator, class and kind.
pub fn text(cases: &[Case], outcomes: &[Outcome]) -> String {
    let mut out = String::new();
    let by_op = rows(cases, outcomes, |_, o| if o.op.is_empty() { "(several nodes)" } else { &o.op });
    lines(&mut out, "operator", &by_op);
    out.push('\n');
    let mut classes: BTreeMap<&str, usize> = BTreeMap::new();
    outcomes.iter().filter(|o| o.class != reason::PASS).for_each(|o| *classes.entry(o.class).or_default() += 1);
    for (class, n) in classes {
        let _ = writeln!(out, "{class:<28} {n:>5}");
    }
    let mut slow: Vec<usize> = (0..cases.len()).collect();
    slow.sort_by_key(|i| std::cmp::Reverse(outcomes[*i].time));
    let slow: Vec<String> =
        slow.iter().take(5).map(|i| format!("{} {:.2} s", cases[*i].name, outcomes[*i].time.as_secs_f64())).collect();
    let _ = writeln!(out, "slowest: {}\n", slow.join(", "));
    let mut kinds = rows(cases, outcomes, |c, _| c.kind);
    let mut all = Row::default();
    outcomes.iter().for_each(|o| all.add(o));
    kinds.insert("~ all", all);
    lines(&mut out, "kind", &kinds);
    out
}
