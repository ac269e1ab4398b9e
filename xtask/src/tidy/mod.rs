//! Holds: `cargo xtask tidy`: what the compiler cannot check about this workspace. Every message names the fix.
//!
//! Reads files and changes none.

mod circles;
mod edges;
mod generated;
mod manifest;
mod paths;
mod source;

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use manifest::Manifest;

/// One untidy place.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fault {
    /// From the root of the workspace.
    pub file: PathBuf,
    /// From 1; 0 for the whole file.
    pub line: usize,
    /// What is wrong and how it is put right.
    pub message: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, line, message } = self;
        match line {
            0 => write!(out, "{}: {message}", file.display()),
            line => write!(out, "{}:{line}: {message}", file.display()),
        }
    }
}

/// Every untidy place below `root`, sorted.
pub fn check(root: &Path) -> Result<Vec<Fault>> {
    let mut faults = Vec::new();
    let folders = crates(root)?;
    let manifests = folders.iter().map(|folder| Manifest::read(root, folder)).collect::<Result<Vec<_>>>()?;
    edges::check_use(&manifests, &mut faults);
    for (folder, manifest) in folders.iter().zip(&manifests) {
        edges::check(manifest, &mut faults);
        let mut texts = Vec::new();
        for file in source_files(&root.join(folder))? {
            let text = fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
            texts.push((file.strip_prefix(root).unwrap_or(&file).to_owned(), text));
        }
        let files = texts.iter().map(|(path, text)| source::File::new(&manifest.name, path.clone(), text));
        let files: Vec<_> = files.collect();
        files.iter().for_each(|file| source::check(file, &mut faults));
        circles::check(&manifest.name, folder, &files, &mut faults);
    }
    generated::check(root, &mut faults)?;
    faults.sort();
    Ok(faults)
}

/// Folders of the members, from the root.
fn crates(root: &Path) -> Result<Vec<PathBuf>> {
    let mut folders = vec![PathBuf::from("xtask")];
    for entry in fs::read_dir(root.join("crates")).context("listing crates")? {
        let folder = entry?.path();
        if folder.join("Cargo.toml").exists() {
            folders.push(folder.strip_prefix(root)?.to_owned());
        }
    }
    folders.sort();
    Ok(folders)
}

/// Every `.rs` file of a crate, in every folder but build outputs.
fn source_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut pending = vec![folder.to_owned()];
    while let Some(folder) = pending.pop() {
        for entry in fs::read_dir(&folder).with_context(|| format!("listing {}", folder.display()))? {
            let path = entry?.path();
            if path.is_dir() && path.file_name().is_none_or(|name| name != "target" && name != "vendor") {
                pending.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests;
