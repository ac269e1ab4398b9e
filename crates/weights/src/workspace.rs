//! Holds: the folder in which one model is put together, locked against other processes, and the swap that publishes
//! the result.
//!
//! The folder lies beside the result, so that publishing is a rename. What a killed process left in it is used where
//! its hash or length allows and removed otherwise.

use std::{
    fs::{self, File, TryLockError},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::time::{Instant, sleep};

use crate::{
    catalogue::Artefact,
    disk::{DiskError, remove_if_there},
    manifest::{Applied, Manifest, beside, manifest_path, model_path},
    progress::{Progress, Stage},
};

/// Longer than any pull of a known model on a usable line; after that the other process is taken to be stuck.
const LOCK_PATIENCE: Duration = Duration::from_secs(30 * 60);

/// Short enough that nobody notices, long enough to cost nothing.
const LOCK_POLL: Duration = Duration::from_millis(200);

#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    #[error("locked by another process")]
    Busy { waited: Duration },
    #[error(transparent)]
    Disk(#[from] DiskError),
}

pub(crate) struct Workspace {
    dir: PathBuf,
    folder: PathBuf,
    /// Shared with blocking work, which may outlive a pull that is dropped.
    lock: Arc<File>,
}

impl Workspace {
    /// Makes the folder, waiting while another pull of the same model holds it.
    pub async fn open(dir: &Path, id: &str, progress: &dyn Progress) -> Result<Self, OpenError> {
        let folder = dir.join(format!(".{id}.part"));
        let lock_path = dir.join(format!(".{id}.lock"));
        fs::create_dir_all(dir).map_err(DiskError::on("create", dir))?;
        let lock = File::options().create(true).truncate(false).write(true).open(&lock_path);
        let lock = lock.map_err(DiskError::on("open", &lock_path))?;
        wait_for(&lock, &lock_path, progress).await?;
        fs::create_dir_all(&folder).map_err(DiskError::on("create", &folder))?;
        Ok(Self { dir: dir.to_owned(), folder, lock: Arc::new(lock) })
    }

    /// Where a fetched file is gathered. Named by its hash, so that any source can go on where another broke off.
    pub fn part(&self, file: &Artefact) -> PathBuf {
        self.folder.join(file.sha256.to_string())
    }

    /// Where the finished file is written before it is published.
    pub fn finished(&self) -> PathBuf {
        self.folder.join("finished.gguf")
    }

    /// A folder for whatever a source needs meanwhile, empty at first.
    pub fn scratch(&self) -> Result<PathBuf, DiskError> {
        let scratch = self.folder.join("scratch");
        remove_if_there(&scratch)?;
        fs::create_dir(&scratch).map_err(DiskError::on("create", &scratch))?;
        Ok(scratch)
    }

    /// Runs blocking work, keeping the lock for as long as it takes even if the caller goes away.
    pub async fn blocking<T, E>(&self, work: impl FnOnce() -> Result<T, E> + Send + 'static) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<DiskError> + Send + 'static,
    {
        let lock = Arc::clone(&self.lock);
        let done = tokio::task::spawn_blocking(move || {
            let result = work();
            drop(lock);
            result
        });
        match done.await {
            Ok(result) => result,
            Err(panicked) if panicked.is_panic() => std::panic::resume_unwind(panicked.into_panic()),
            Err(cancelled) => Err(DiskError::on("work in", &self.folder)(cancelled.into()).into()),
        }
    }

    /// Removes everything but the files that another source or a later pull can go on with.
    pub fn keep_only(&self, files: &[Artefact]) -> Result<(), DiskError> {
        let keep: Vec<_> = files.iter().map(|file| self.part(file)).collect();
        for entry in fs::read_dir(&self.folder).map_err(DiskError::on("list", &self.folder))? {
            let path = entry.map_err(DiskError::on("list", &self.folder))?.path();
            if !keep.contains(&path) {
                remove_if_there(&path)?;
            }
        }
        Ok(())
    }

    /// Makes `made` the installed file, and a voice's `description` the one beside it. At every moment of a crash the next pull finds either the old model with its
    /// record, the new model with its record, or no record at all, and then starts over.
    pub async fn publish(
        &self,
        made: PathBuf,
        description: Option<PathBuf>,
        manifest: Manifest,
    ) -> Result<PathBuf, DiskError> {
        let (dir, new_record) = (self.dir.clone(), self.folder.join("manifest.json"));
        self.blocking(move || swap_in(&dir, (&made, description.as_deref()), &new_record, &manifest)).await
    }

    /// Removes the folder. The lock file stays: removing it would let two processes hold "the" lock.
    pub fn clear(self) -> Result<(), DiskError> {
        remove_if_there(&self.folder)
    }
}

async fn wait_for(lock: &File, path: &Path, progress: &dyn Progress) -> Result<(), OpenError> {
    let start = Instant::now();
    let mut told = false;
    loop {
        match lock.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::Error(e)) => return Err(DiskError::on("lock", path)(e).into()),
            Err(TryLockError::WouldBlock) if start.elapsed() > LOCK_PATIENCE => {
                return Err(OpenError::Busy { waited: LOCK_PATIENCE });
            }
            Err(TryLockError::WouldBlock) if !told => {
                told = true;
                progress.stage(&Stage::Waiting);
            }
            Err(TryLockError::WouldBlock) => sleep(LOCK_POLL).await,
        }
    }
}

fn swap_in(
    dir: &Path,
    (made, description): (&Path, Option<&Path>),
    new_record: &Path,
    manifest: &Manifest,
) -> Result<PathBuf, DiskError> {
    let model = model_path(dir, &manifest.id, manifest.finish == Applied::PiperVoice);
    let record = manifest_path(dir, &manifest.id);
    for file in [Some(made), description].into_iter().flatten() {
        File::open(file).and_then(|file| file.sync_all()).map_err(DiskError::on("sync", file))?;
    }
    write_synced(new_record, manifest).map_err(DiskError::on("write", new_record))?;
    remove_if_there(&record)?;
    sync_dir(dir)?;
    if let Some(description) = description {
        let beside = beside(&model);
        fs::rename(description, &beside).map_err(DiskError::on("install", &beside))?;
    }
    fs::rename(made, &model).map_err(DiskError::on("install", &model))?;
    fs::rename(new_record, &record).map_err(DiskError::on("install", &record))?;
    sync_dir(dir)?;
    Ok(model)
}

fn write_synced(path: &Path, manifest: &Manifest) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(&manifest.to_json()?)?;
    file.sync_all()
}

/// A rename is durable only once the directory is.
fn sync_dir(dir: &Path) -> Result<(), DiskError> {
    #[cfg(unix)]
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(DiskError::on("sync", dir))?;
    Ok(())
}
