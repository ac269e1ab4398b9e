//! Holds: files that are generated and kept in the repository, and whether they are what their generator gives.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;

use super::Fault;

/// A generated file and what it must contain now.
pub struct Generated {
    /// From the root of the workspace.
    pub file: &'static str,
    /// What the generator gives.
    pub current: fn() -> Result<String>,
    /// The command that writes it.
    pub fix: &'static str,
}

/// Every generated file.
const GENERATED: &[Generated] = &[];

pub fn check(root: &Path, faults: &mut Vec<Fault>) -> Result<()> {
    GENERATED.iter().try_for_each(|generated| check_one(root, generated, faults))
}

pub(super) fn check_one(root: &Path, generated: &Generated, faults: &mut Vec<Fault>) -> Result<()> {
    let kept = fs::read_to_string(root.join(generated.file)).unwrap_or_default();
    if kept != (generated.current)()? {
        let message = format!("is not what its generator gives; run `{}` and commit", generated.fix);
        faults.push(Fault { file: PathBuf::from(generated.file), line: 0, message });
    }
    Ok(())
}
