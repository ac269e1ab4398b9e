//! Holds: taking files from directories that the caller names.
//!
//! The originals are copied and never changed, also when they turn out to be something else.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{
    failure::{FetchError, SourceError},
    order::Fetch,
};
use crate::{catalogue::Artefact, digest::Sha256, disk::DiskError, manifest::model_path};

pub(super) async fn fetch(what: &Fetch<'_>, id: &str) -> Result<(), FetchError> {
    let mut done = 0;
    for file in what.files {
        let places = places(what, id, file);
        let (wanted, part) = ((*file).clone(), what.workspace.part(file));
        what.workspace.blocking(move || copy_first(&places, &wanted, &part)).await?;
        done += file.size_bytes;
        what.report(done);
    }
    Ok(())
}

/// Whether there is any place to look in at all.
pub(crate) fn worth_trying(dir: &Path, search_dirs: &[PathBuf], id: &str, files: &[Artefact]) -> bool {
    !search_dirs.is_empty() || files.iter().any(|file| has_length(&model_path(dir, id, false), file.size_bytes))
}

// An earlier pull without an engine installed the file as fetched; it need not be fetched again to be requantised.
fn places(what: &Fetch<'_>, id: &str, file: &Artefact) -> Vec<PathBuf> {
    let dirs = what.options.search_dirs.iter();
    dirs.flat_map(|dir| [dir.join(id).join(&file.name), dir.join(&file.name)])
        .chain([model_path(&what.options.dir, id, false)])
        .collect()
}

fn copy_first(places: &[PathBuf], file: &Artefact, part: &Path) -> Result<(), FetchError> {
    let mut why = SourceError::NotThere { file: file.name.clone() };
    for place in places.iter().filter(|place| has_length(place, file.size_bytes)) {
        match Sha256::of_file(place) {
            Ok(actual) if actual == file.sha256 => {
                fs::copy(place, part).map_err(DiskError::on("write", part))?;
                return Ok(());
            }
            Ok(actual) => why = SourceError::OtherContent { path: place.clone(), expected: file.sha256, actual },
            Err(source) => why = SourceError::Unreadable { path: place.clone(), source },
        }
    }
    Err(why.into())
}

fn has_length(path: &Path, bytes: u64) -> bool {
    fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.len() == bytes)
}
