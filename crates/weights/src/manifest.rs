//! Holds: the record beside each installed model: what it was made from, and what it should be.
//!
//! It makes a second pull instant: the record and the file's length are compared, the content only by [`verify`].

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{
    catalogue::{Artefact, Finish, KnownModel},
    digest::Sha256,
    disk::{DiskError, remove_if_there},
};

/// A record is a few hundred bytes; anything far larger is not ours.
const MAX_MANIFEST_BYTES: u64 = 64 * 1024;

/// What is known of an installed model; `<id>.json` beside `<id>.gguf` or `<id>.onnx`.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
pub struct Manifest {
    /// The model's id.
    pub id: String,
    /// The source that delivered, in words.
    pub source: String,
    /// What was fetched.
    pub files: Vec<FetchedFile>,
    /// What was done with it.
    pub finish: Applied,
    /// The hash of the installed file.
    pub sha256: Sha256,
    /// The length of the installed file.
    pub size_bytes: u64,
}

/// One fetched file.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
pub struct FetchedFile {
    /// Its name at the source.
    pub name: String,
    /// Its hash.
    pub sha256: Sha256,
}

/// The step that made the installed file, with its version where it is ours: a changed converter gets a new name here,
/// so that the next pull converts again.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
pub enum Applied {
    /// Installed as fetched.
    #[serde(rename = "none")]
    None,
    /// Requantised by the caller's function.
    #[serde(rename = "requantize_q8_0")]
    RequantizeQ8_0,
    /// Converted by the first version of our converter.
    #[serde(rename = "bert_to_gguf.1")]
    BertToGguf,
    /// A Piper voice, installed as fetched with its description beside it.
    #[serde(rename = "piper_voice")]
    PiperVoice,
}

/// Why an installed model is not what its record says.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// There is no complete installation in this directory.
    #[error("{id} is not installed here")]
    NotInstalled {
        /// The model's id.
        id: String,
    },
    /// The file's content has changed since it was installed.
    #[error("{} has changed since it was installed: expected sha256 {expected}, found {actual}", path.display())]
    Changed {
        /// The installed file.
        path: PathBuf,
        /// The hash on record.
        expected: Sha256,
        /// The hash of what is there.
        actual: Sha256,
    },
    /// The file could not be read.
    #[error(transparent)]
    Disk(#[from] DiskError),
}

/// The installed file and its record, when the record matches the known model and the file's length matches the record.
/// Does not read the file.
pub fn installed(model: &KnownModel, dir: &Path) -> Option<(PathBuf, Manifest)> {
    let manifest = read(&manifest_path(dir, &model.id))?;
    let same_files = manifest.files.len() == model.files.len()
        && manifest.files.iter().zip(&model.files).all(|(had, wanted)| had.sha256 == wanted.sha256);
    let path = path(model, dir);
    let has_length = |path: &Path, bytes| fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.len() == bytes);
    let is_beside = |file: &Artefact| has_length(&beside(&path), file.size_bytes);
    let is_whole = has_length(&path, manifest.size_bytes) && description(model).is_none_or(is_beside);
    (manifest.id == model.id && same_files && is_whole).then_some((path, manifest))
}

/// Where the model's file is once it is installed; a voice's description is beside it, with `.json` appended.
pub fn path(model: &KnownModel, dir: &Path) -> PathBuf {
    model_path(dir, &model.id, model.finish == Finish::PiperVoice)
}

/// The file that is kept beside the first one.
fn description(model: &KnownModel) -> Option<&Artefact> {
    model.files.get(1).filter(|_| model.finish == Finish::PiperVoice)
}

/// Reads what is installed and compares its hash with the record. Blocks for as long as that takes.
pub fn verify(model: &KnownModel, dir: &Path) -> Result<Manifest, VerifyError> {
    let (path, manifest) = installed(model, dir).ok_or_else(|| VerifyError::NotInstalled { id: model.id.clone() })?;
    let beside = description(model).map(|file| (beside(&path), file.sha256));
    for (path, expected) in [(path, manifest.sha256)].into_iter().chain(beside) {
        let actual = Sha256::of_file(&path).map_err(DiskError::on("read", &path))?;
        if actual != expected {
            return Err(VerifyError::Changed { path, expected, actual });
        }
    }
    Ok(manifest)
}

/// Makes the next pull start over, as after [`VerifyError::Changed`]. The model's file stays until it is replaced.
pub fn forget(model: &KnownModel, dir: &Path) -> Result<(), DiskError> {
    remove_if_there(&manifest_path(dir, &model.id))
}

impl Manifest {
    /// Whether the installed file is as good as the caller could make it.
    pub(crate) fn satisfies(&self, wanted: Applied) -> bool {
        // Without an engine to requantise with, what an engine made earlier is still the better file.
        self.finish == wanted || (wanted == Applied::None && self.finish == Applied::RequantizeQ8_0)
    }

    pub(crate) fn to_json(&self) -> io::Result<Vec<u8>> {
        let mut json = serde_json::to_vec_pretty(self)?;
        json.push(b'\n');
        Ok(json)
    }
}

impl Applied {
    /// What a pull should apply.
    pub(crate) fn wanted(finish: Finish, can_requantize: bool) -> Self {
        match finish {
            Finish::RequantizeQ8_0 if can_requantize => Self::RequantizeQ8_0,
            Finish::RequantizeQ8_0 | Finish::None => Self::None,
            Finish::BertToGguf => Self::BertToGguf,
            Finish::PiperVoice => Self::PiperVoice,
        }
    }
}

pub(crate) fn model_path(dir: &Path, id: &str, is_voice: bool) -> PathBuf {
    dir.join(format!("{id}.{}", if is_voice { "onnx" } else { "gguf" }))
}

/// Where a voice's description is: beside it, where Piper looks for it.
pub(crate) fn beside(path: &Path) -> PathBuf {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".json");
    PathBuf::from(beside)
}

pub(crate) fn manifest_path(dir: &Path, id: &str) -> PathBuf {
    dir.join(format!("{id}.json"))
}

// An unreadable record counts as none: the pull that follows writes a new one.
fn read(path: &Path) -> Option<Manifest> {
    if fs::metadata(path).ok()?.len() > MAX_MANIFEST_BYTES {
        return None;
    }
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}
