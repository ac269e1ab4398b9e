//! Holds: what is checked in every source file.
//!
//! Works on lines, not on syntax: a false alarm is rare, and `#[expect]`-like exceptions are not provided on purpose.

use std::path::{Path, PathBuf};

use super::Fault;
use super::paths::named;

/// Above this, a file holds more than one thing.
const MAX_PRODUCTION_LINES: usize = 600;

/// Names that say nothing about what is inside.
const FORBIDDEN_NAMES: [&str; 9] =
    ["util", "utils", "common", "helpers", "helper", "manager", "misc", "types", "service"];

/// What starts a statement of SQL, put together so that this file does not contain it.
const SQL: [(&str, &str); 4] = [("SELECT", " "), ("INSERT", " INTO "), ("UPDATE", " "), ("DELETE", " FROM ")];

/// One source file.
pub struct File<'a> {
    krate: &'a str,
    path: PathBuf,
    text: &'a str,
    lines: Vec<&'a str>,
    /// How many lines come before the tests.
    production: usize,
}

impl<'a> File<'a> {
    /// `krate` without `batchin-`; `path` from the root of the workspace.
    pub fn new(krate: &'a str, path: PathBuf, text: &'a str) -> Self {
        let lines: Vec<&str> = text.lines().collect();
        let production = if is_test_file(&path) { 0 } else { production_lines(&lines) };
        Self { krate, path, text, lines, production }
    }

    /// From the root of the workspace.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What comes before the tests.
    pub fn production_text(&self) -> &'a str {
        let length = self.text.split_inclusive('\n').take(self.production).map(str::len).sum();
        &self.text[..length]
    }

    fn production(&self) -> impl Iterator<Item = (usize, &'a str)> + '_ {
        self.lines.iter().take(self.production).enumerate().map(|(index, line)| (index + 1, *line))
    }

    /// An untidy place of this file.
    pub fn fault(&self, line: usize, message: impl Into<String>) -> Fault {
        Fault { file: self.path.clone(), line, message: message.into() }
    }
}

pub fn check(file: &File<'_>, faults: &mut Vec<Fault>) {
    check_header(file, faults);
    check_name(file, faults);
    check_length(file, faults);
    check_marks(file, faults);
    check_sql(file, faults);
    check_store(file, faults);
    check_clients(file, faults);
    check_errors(file, faults);
}

fn is_test_file(path: &Path) -> bool {
    let in_folder = path.components().any(|part| matches!(part.as_os_str().to_str(), Some("tests" | "benches")));
    in_folder || path.file_stem().is_some_and(|stem| stem == "tests")
}

fn production_lines(lines: &[&str]) -> usize {
    let is_test_module = |pair: &[&str]| {
        matches!(pair, [attribute, module]
            if attribute.trim() == "#[cfg(test)]" && (module.contains("mod ")))
    };
    lines.windows(2).position(is_test_module).unwrap_or(lines.len())
}

/// Tests beside their module are described by it.
fn check_header(file: &File<'_>, faults: &mut Vec<Fault>) {
    if is_test_file(&file.path) {
        return;
    }
    let first = file.lines.iter().find(|line| !line.trim().is_empty());
    if !first.is_some_and(|line| line.starts_with("//! ")) {
        faults.push(file.fault(1, "has no header; begin with `//! Holds: …`, and say what it never does"));
    }
}

fn check_name(file: &File<'_>, faults: &mut Vec<Fault>) {
    let stem = file.path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    let folders = file.path.components().filter_map(|part| part.as_os_str().to_str());
    if let Some(name) = folders.chain([stem]).find(|name| FORBIDDEN_NAMES.contains(name)) {
        let message = format!("`{name}` says nothing; name the file or folder for the noun it holds");
        faults.push(file.fault(0, message));
    }
}

fn check_length(file: &File<'_>, faults: &mut Vec<Fault>) {
    if file.production > MAX_PRODUCTION_LINES {
        let message = format!(
            "has {} production lines, over {MAX_PRODUCTION_LINES}; split it by what it holds, tests apart",
            file.production
        );
        faults.push(file.fault(0, message));
    }
}

fn check_marks(file: &File<'_>, faults: &mut Vec<Fault>) {
    // Put together, so that this file does not find itself.
    let fixme = concat!("FIX", "ME");
    let ignored = concat!("#[", "ignore");
    for (index, line) in file.lines.iter().enumerate() {
        if line.contains(fixme) {
            faults.push(file.fault(index + 1, "a mark for later; do it now, or open an issue and delete the mark"));
        }
        if line.trim_start().starts_with(ignored) {
            faults.push(file.fault(index + 1, "a test that never runs; make it run, or delete it"));
        }
    }
}

fn check_sql(file: &File<'_>, faults: &mut Vec<Fault>) {
    // The tests' databases are made and cut off by their cluster's own tools.
    if matches!(file.krate, "db" | "store" | "testkit" | "xtask") {
        return;
    }
    for (line, text) in file.production() {
        let names_driver = ["tokio_postgres::", "rusqlite::"].iter().any(|path| text.contains(path));
        let is_sql = |(verb, after): &(&str, &str)| text.contains(&format!("\"{verb}{after}"));
        if names_driver || SQL.iter().any(is_sql) {
            faults.push(file.fault(line, "only store knows SQL; add a business verb there and call it"));
        }
    }
}

/// The whole store lets whoever has it do anything.
fn check_store(file: &File<'_>, faults: &mut Vec<Fault>) {
    // A measurement is a program of its own, as the server is.
    let is_example = file.path.iter().any(|part| part == "examples");
    if is_example || matches!(file.krate, "store" | "server" | "testkit") {
        return;
    }
    for name in named(file.production_text()) {
        // The crate's own name stands for all that is in it: renamed, or with a star.
        if matches!(name.parts.as_slice(), ["batchin_store"] | ["batchin_store", "Store", ..]) {
            let message = "only server has the whole Store; take the handles that this part needs, and let server hand \
                           them in";
            faults.push(file.fault(name.line, message));
        }
    }
}

/// hyper is the server of some and the client of few, with one package for both.
fn check_clients(file: &File<'_>, faults: &mut Vec<Fault>) {
    // The engine's parent asks its own child, and nobody else.
    if matches!(file.krate, "upstream" | "engine" | "sim") {
        return;
    }
    for name in named(file.production_text()) {
        if matches!(name.parts.as_slice(), ["hyper" | "hyper_util", "client", ..]) {
            faults.push(file.fault(name.line, "only upstream talks HTTP to servers by itself; ask it"));
        }
    }
}

/// A tuple variant with nothing but a `String`, in an enum that derives `thiserror::Error`.
fn check_errors(file: &File<'_>, faults: &mut Vec<Fault>) {
    let mut derives_error = false;
    let mut in_error_enum = false;
    for (line, text) in file.production() {
        let code = text.trim();
        if code.starts_with("#[derive(") {
            derives_error = code.contains("thiserror::Error") || code.contains(" Error") || code.contains("(Error");
        } else if code.contains("enum ") && code.ends_with('{') {
            in_error_enum = derives_error;
        } else if code.contains("struct ") {
            derives_error = false;
        } else if text == "}" {
            in_error_enum = false;
            derives_error = false;
        } else if in_error_enum && is_stringly(code) {
            let message = "a bare text does not say what it is; give it a named field, and let the variant's name say \
                           what the caller can do";
            faults.push(file.fault(line, message));
        }
    }
}

fn is_stringly(code: &str) -> bool {
    let Some((name, rest)) = code.split_once('(') else { return false };
    let is_variant = name.starts_with(|first: char| first.is_ascii_uppercase())
        && name.chars().all(|symbol| symbol.is_ascii_alphanumeric());
    is_variant && matches!(rest.trim_end_matches(','), "String)" | "Box<str>)" | "String, String)")
}
