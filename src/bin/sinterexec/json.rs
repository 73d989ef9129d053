//! Writing JSON files.

use crate::console::info;
use sinter::base::Result;
use sinter::base::error::ResultExt;
use std::path::Path;

pub use sinter::engine::inspect::json_str;

/// A number; JSON has no NaN and no infinities, which become strings.
pub fn number(v: f64) -> String {
    if v.is_finite() { format!("{v:?}") } else { format!("\"{v}\"") }
}

/// Writes a file, with the path in the error.
pub fn write_file(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).with_context(|| format!("writing {}", path.display()))
}

/// Writes an array, one element a line, and says so.
pub fn write_array(path: &Path, what: &str, elements: &[String]) -> Result<()> {
    let lines: Vec<String> = elements.iter().map(|e| format!("  {e}")).collect();
    write_file(path, &format!("[\n{}\n]\n", lines.join(",\n")))?;
    info!("{what} written to {}", path.display());
    Ok(())
}
