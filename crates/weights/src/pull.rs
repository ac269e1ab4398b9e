//! Holds: getting a known model onto this machine: the first source that delivers the right bytes, then the finishing
//! step, then the swap into place.

use std::{error::Error, fmt::Write, path::Path, path::PathBuf, time::Duration};

use crate::{
    bert::{self, Checkpoint, ConvertError},
    catalogue::{Artefact, KnownModel},
    digest::Sha256,
    disk::{DiskError, remove_if_there},
    manifest::{Applied, FetchedFile, Manifest, installed},
    options::PullOptions,
    progress::Stage,
    source::{self, Candidate, Fetch, FetchError, SourceError, SourceFailure, local_worth_trying},
    workspace::{OpenError, Workspace},
};

/// Why a model could not be pulled.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// No source delivered; the message lists them all.
    #[error("no source delivered {id}:{}", listed(tried))]
    NoSource {
        /// The model's id.
        id: String,
        /// Every source, in the order tried.
        tried: Vec<SourceFailure>,
    },
    /// There is nothing to fetch: the model is a program.
    #[error(
        "{id} has no weights: it needs the program {program}, which your system installs (apt-get install {program})"
    )]
    Program {
        /// The model's id.
        id: String,
        /// What to install.
        program: String,
    },
    /// Another process has been pulling this model all the while.
    #[error("another process is still pulling {id} after {waited:?}")]
    Busy {
        /// The model's id.
        id: String,
        /// How long it was waited for.
        waited: Duration,
    },
    /// The fetched files could not be made into the file that is served.
    #[error("could not finish {id}")]
    Finish {
        /// The model's id.
        id: String,
        /// What went wrong.
        #[source]
        source: FinishError,
    },
    /// A file operation failed.
    #[error(transparent)]
    Disk(#[from] DiskError),
}

/// What went wrong in the finishing step.
#[derive(Debug, thiserror::Error)]
pub enum FinishError {
    /// The converter.
    #[error("could not convert to GGUF")]
    Convert(#[from] ConvertError),
    /// The model has more or fewer files than its finishing step takes.
    #[error("the finishing step does not take {files} files")]
    Files {
        /// How many the model has.
        files: usize,
    },
    /// The caller's function.
    #[error("could not requantise")]
    Requantize(#[source] Box<dyn Error + Send + Sync>),
    /// A file operation.
    #[error(transparent)]
    Disk(#[from] DiskError),
}

fn listed(tried: &[SourceFailure]) -> String {
    tried.iter().fold(String::new(), |mut text, failure| {
        // Writing to a string cannot fail.
        let _ = write!(text, "\n  {failure}");
        text
    })
}

/// Installs the model and returns its file, `<dir>/<id>.gguf`, or `<dir>/<id>.onnx` with its description beside it.
///
/// At once when it is installed already. Dropped midway, it leaves what it has for the next pull; failing, it cleans up.
/// The process has installed a provider for rustls by now: without one a download panics.
pub async fn pull(model: &KnownModel, options: &PullOptions) -> Result<PathBuf, PullError> {
    if let (true, Some(program)) = (model.files.is_empty(), &model.program) {
        return Err(PullError::Program { id: model.id.clone(), program: program.clone() });
    }
    let wanted = Applied::wanted(model.finish, options.requantize.is_some());
    let ready = || installed(model, &options.dir).filter(|(_, manifest)| manifest.satisfies(wanted));
    if let Some((path, _)) = ready() {
        return Ok(path);
    }
    let workspace =
        Workspace::open(&options.dir, &model.id, &*options.progress).await.map_err(|error| match error {
            OpenError::Busy { waited } => PullError::Busy { id: model.id.clone(), waited },
            OpenError::Disk(error) => error.into(),
        })?;
    // Another process may have installed it meanwhile.
    let result = match ready() {
        Some((path, _)) => Ok(path),
        None => install(model, options, &workspace, wanted).await,
    };
    let cleared = workspace.clear();
    let path = result?;
    cleared?;
    Ok(path)
}

async fn install(
    model: &KnownModel,
    options: &PullOptions,
    workspace: &Workspace,
    wanted: Applied,
) -> Result<PathBuf, PullError> {
    let source = fetch(model, options, workspace).await?;
    let made = finish(model, options, workspace, wanted)
        .await
        .map_err(|source| PullError::Finish { id: model.id.clone(), source })?;
    options.progress.stage(&Stage::Checking);
    let (sha256, size_bytes) = workspace
        .blocking({
            let made = made.clone();
            move || measure(&made)
        })
        .await?;
    let files = model.files.iter().map(|file| FetchedFile { name: file.name.clone(), sha256: file.sha256 }).collect();
    let manifest = Manifest { id: model.id.clone(), source, files, finish: wanted, sha256, size_bytes };
    let description = match wanted {
        Applied::PiperVoice => model.files.get(1).map(|file| workspace.part(file)),
        Applied::None | Applied::RequantizeQ8_0 | Applied::BertToGguf => None,
    };
    Ok(workspace.publish(made, description, manifest).await?)
}

fn measure(path: &Path) -> Result<(Sha256, u64), DiskError> {
    let size = std::fs::metadata(path).map_err(DiskError::on("read", path))?.len();
    Ok((Sha256::of_file(path).map_err(DiskError::on("read", path))?, size))
}

/// Gathers every file of the model in the workspace and returns the source that delivered last.
async fn fetch(model: &KnownModel, options: &PullOptions, workspace: &Workspace) -> Result<String, PullError> {
    workspace.keep_only(&model.files)?;
    let mut missing = Vec::new();
    for file in &model.files {
        if check(workspace, file, KeepShort::Yes).await?.is_err() {
            missing.push(file);
        }
    }
    if missing.is_empty() {
        return Ok("an earlier pull".to_owned());
    }
    let mut tried = Vec::new();
    for candidate in candidates(model, options) {
        options.progress.stage(&Stage::Fetching { source: candidate.to_string() });
        let begun = missing.iter().any(|file| workspace.part(file).exists());
        let mut result = fetch_from(model, options, workspace, &candidate, &mut missing).await;
        if begun && matches!(result, Err(FetchError::Source(SourceError::WrongContent { .. }))) {
            // It went on from a beginning that another source or a crash may have spoilt, and that is gone now.
            result = fetch_from(model, options, workspace, &candidate, &mut missing).await;
        }
        match result {
            Ok(()) => return Ok(candidate.to_string()),
            Err(FetchError::Disk(error)) => return Err(error.into()),
            Err(FetchError::Source(why)) => {
                let failure = SourceFailure { source: candidate.to_string(), why };
                options.progress.passed_over(&failure);
                tried.push(failure);
            }
        }
    }
    Err(PullError::NoSource { id: model.id.clone(), tried })
}

fn candidates<'a>(model: &'a KnownModel, options: &PullOptions) -> impl Iterator<Item = Candidate<'a>> {
    let local = local_worth_trying(&options.dir, &options.search_dirs, &model.id, &model.files);
    local.then_some(Candidate::Local).into_iter().chain(model.sources.iter().map(Candidate::Remote))
}

/// Fetches what is missing from one source; what it delivers rightly is no longer missing, also when the rest fails.
async fn fetch_from(
    model: &KnownModel,
    options: &PullOptions,
    workspace: &Workspace,
    from: &Candidate<'_>,
    missing: &mut Vec<&Artefact>,
) -> Result<(), FetchError> {
    let total = model.download_bytes();
    let before = total - missing.iter().map(|file| file.size_bytes).sum::<u64>();
    let what = Fetch { options, workspace, files: missing, before, total };
    source::fetch(&what, &model.id, from).await?;
    options.progress.stage(&Stage::Checking);
    let mut wrong = Vec::new();
    let mut first = None;
    for file in missing.iter() {
        if let Err(why) = check(workspace, file, KeepShort::No).await? {
            wrong.push(*file);
            first = first.or(Some(why));
        }
    }
    *missing = wrong;
    first.map_or(Ok(()), |why| Err(why.into()))
}

/// Whether a file that is too short may be a beginning to go on from.
#[derive(Clone, Copy, PartialEq)]
enum KeepShort {
    Yes,
    No,
}

/// Compares a gathered file with its hash, and deletes it if it is another.
async fn check(workspace: &Workspace, file: &Artefact, keep: KeepShort) -> Result<Result<(), SourceError>, DiskError> {
    let (part, file) = (workspace.part(file), file.clone());
    workspace.blocking(move || compare(&part, file, keep)).await
}

fn compare(part: &Path, file: Artefact, keep: KeepShort) -> Result<Result<(), SourceError>, DiskError> {
    let (name, expected) = (file.name, file.sha256);
    let length = match std::fs::metadata(part) {
        Ok(meta) => meta.len(),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Err(SourceError::NotThere { file: name })),
        Err(e) => return Err(DiskError::on("read", part)(e)),
    };
    if length != file.size_bytes {
        if keep == KeepShort::No || length > file.size_bytes {
            remove_if_there(part)?;
        }
        return Ok(Err(SourceError::WrongLength { file: name, expected: file.size_bytes, actual: length }));
    }
    let actual = Sha256::of_file(part).map_err(DiskError::on("read", part))?;
    if actual != expected {
        remove_if_there(part)?;
        return Ok(Err(SourceError::WrongContent { file: name, expected, actual }));
    }
    Ok(Ok(()))
}

/// Makes the file to install out of the gathered ones.
async fn finish(
    model: &KnownModel,
    options: &PullOptions,
    workspace: &Workspace,
    wanted: Applied,
) -> Result<PathBuf, FinishError> {
    if !matches!(wanted, Applied::None | Applied::PiperVoice) {
        options.progress.stage(&Stage::Finishing);
    }
    let parts: Vec<_> = model.files.iter().map(|file| workspace.part(file)).collect();
    let (made, name) = (workspace.finished(), model.name.clone());
    let requantize = options.requantize.clone();
    workspace
        .blocking(move || match (wanted, &parts[..], requantize) {
            (Applied::BertToGguf, [safetensors, vocab, config], _) => {
                bert::convert(&Checkpoint { safetensors, vocab, config }, &name, &made)?;
                Ok(made)
            }
            (Applied::RequantizeQ8_0, [file], Some(requantize)) => {
                requantize(file, &made).map_err(FinishError::Requantize)?;
                Ok(made)
            }
            (Applied::None, [file], _) | (Applied::PiperVoice, [file, _], _) => Ok(file.clone()),
            _ => Err(FinishError::Files { files: parts.len() }),
        })
        .await
}
