//! What a benchmark leaves behind: tables for who reads, and `target/bench/NAME.json` for programs.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::Value;

/// A table with a title; all columns but the first are flush right.
pub fn table(title: &str, rows: &[Vec<String>]) -> String {
    let columns: Vec<_> = (1..rows.first().map_or(0, Vec::len)).collect();
    format!("{title}\n\n{}\n", toe_command_line::table(rows, &columns))
}

/// A row of cells.
pub fn row<T: Into<String>>(cells: impl IntoIterator<Item = T>) -> Vec<String> {
    cells.into_iter().map(Into::into).collect()
}

/// The processor, for the file: a figure without it says little.
pub fn machine() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let value = |name: &str| {
        let line = info.lines().find(|line| line.starts_with(name))?;
        line.split_once(':').map(|(_, value)| value.trim().to_owned())
    };
    let count = info.lines().filter(|line| line.starts_with("processor")).count();
    format!("{count} x {}", value("model name").unwrap_or_else(|| "unknown".into()))
}

/// Writes `target/bench/NAME.json`, in whose directory cargo builds; where it is.
///
/// # Errors
/// The file cannot be written.
pub fn write(name: &str, value: &Value) -> Result<PathBuf> {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| PathBuf::from("target"), PathBuf::from);
    let directory = target.join("bench");
    std::fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
    let path = directory.join(Path::new(name).with_extension("json"));
    let text = serde_json::to_string_pretty(value).context("figures are JSON")?;
    std::fs::write(&path, text + "\n").with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}
