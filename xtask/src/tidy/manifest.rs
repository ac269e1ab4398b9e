//! Holds: what a crate's `Cargo.toml` says about its dependencies.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

/// One crate of ours.
#[derive(Debug)]
pub struct Manifest {
    /// Its `Cargo.toml`, from the root of the workspace.
    pub file: PathBuf,
    /// Its name without `batchin-`.
    pub name: String,
    /// What it depends on.
    pub dependencies: Vec<Dependency>,
}

/// One dependency.
#[derive(Debug)]
pub struct Dependency {
    /// The package's name.
    pub package: String,
    /// Whether only tests have it.
    pub is_for_tests: bool,
}

impl Manifest {
    /// Reads the manifest of the crate in `folder`.
    pub fn read(root: &Path, folder: &Path) -> Result<Self> {
        let file = folder.join("Cargo.toml");
        let text = fs::read_to_string(root.join(&file)).with_context(|| format!("reading {}", file.display()))?;
        Self::parse(file, &text)
    }

    /// Reads a manifest from its text.
    pub fn parse(file: PathBuf, text: &str) -> Result<Self> {
        let table: toml::Table = text.parse().with_context(|| format!("parsing {}", file.display()))?;
        let name = table.get("package").and_then(|package| package.get("name")).and_then(toml::Value::as_str);
        let name = name.with_context(|| format!("{} has no package.name", file.display()))?;
        let mut dependencies = Vec::new();
        collect(&table, &mut dependencies);
        if let Some(targets) = table.get("target").and_then(toml::Value::as_table) {
            targets.values().filter_map(toml::Value::as_table).for_each(|target| collect(target, &mut dependencies));
        }
        Ok(Self { file, name: name.trim_start_matches("batchin-").to_owned(), dependencies })
    }
}

fn collect(table: &toml::Table, dependencies: &mut Vec<Dependency>) {
    for (section, is_for_tests) in [("dependencies", false), ("build-dependencies", false), ("dev-dependencies", true)]
    {
        let entries = table.get(section).and_then(toml::Value::as_table).into_iter().flatten();
        for (key, value) in entries {
            let package = value.get("package").and_then(toml::Value::as_str).unwrap_or(key);
            dependencies.push(Dependency { package: package.to_owned(), is_for_tests });
        }
    }
}
