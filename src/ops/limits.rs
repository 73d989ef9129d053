//! What importers of ONNX operators refuse, in words: a column of `docs/operators.md`. An operator that takes everything
//! ONNX defines has no line here.

/// Operator, with its domain in front where that is not the standard one, and what is refused.
const LIMITS: &[(&str, &str)] = &[];

fn split(name: &'static str) -> (&'static str, &'static str) {
    name.rsplit_once('.').unwrap_or(("", name))
}

/// Domain and name of each operator that has a line.
pub fn all() -> impl Iterator<Item = (&'static str, &'static str)> {
    LIMITS.iter().map(|(name, _)| split(name))
}

/// What is refused of an operator.
pub fn of(domain: &str, name: &str) -> Option<&'static str> {
    LIMITS.iter().find(|(n, _)| split(n) == (domain, name)).map(|(_, text)| *text)
}
