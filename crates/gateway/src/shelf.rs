//! Holds: where pictures and sounds are kept that were made, and for how long.

use std::time::Duration;

use batchin_domain::{AccountId, FileId, FilePurpose, IdSource};
use batchin_files::{Files, WriteFileError};
use batchin_tasks::Tasks;
use bytes::Bytes;
use futures::future::try_join_all;
use tracing::warn;

use crate::Links;

/// How long a picture is kept whose client waited for it.
pub const PICTURES_KEPT: Duration = Duration::from_secs(24 * 3_600);

/// Where what was made is kept.
#[derive(Clone)]
pub struct Shelf {
    /// As files of who asked.
    pub files: Files,
    /// Under these addresses.
    pub links: Links,
    /// How long, where a client waited for them: [`PICTURES_KEPT`] outside of tests.
    pub kept: Duration,
    /// How long, where they came of a batch: as long as what else came of it.
    pub kept_of_batches: Duration,
}

/// For whom something is kept.
pub(crate) struct Order<'a> {
    pub(crate) account: AccountId,
    /// What its files are called, an ending and a number aside.
    pub(crate) name: &'a str,
    /// It is a task's.
    pub(crate) of_batch: bool,
    /// Where the body does not say how pictures are told, they are told in both ways, and not by their addresses alone.
    pub(crate) in_both: bool,
    /// Seconds since 1970.
    pub(crate) created: i64,
}

/// Files that hold what was made. Dropped, they go again unless they are to stay.
pub(crate) struct Kept {
    stays: bool,
    files: Files,
    tasks: Tasks,
    account: AccountId,
    /// In the order in which they were made.
    pub(crate) ids: Vec<FileId>,
}

impl Shelf {
    /// How long it keeps what is made for such a one.
    pub(crate) fn lasts(&self, order: &Order<'_>) -> Duration {
        if order.of_batch { self.kept_of_batches } else { self.kept }
    }

    /// Keeps files, each with what its name ends in. Every try of a task has files of its own, so that two that do not know of
    /// each other never write the same one.
    pub(crate) async fn keep(
        &self,
        (ids, tasks): (&dyn IdSource, &Tasks),
        order: &Order<'_>,
        made: &[(String, Bytes)],
    ) -> Result<Kept, WriteFileError> {
        let (purpose, lasts) = match order.of_batch {
            true => (FilePurpose::BatchOutput, self.lasts(order)),
            false => (FilePurpose::Vision, self.lasts(order)),
        };
        let ids = made.iter().map(|_| FileId::new(ids.uuid())).collect();
        let kept = Kept { stays: false, files: self.files.clone(), tasks: tasks.clone(), account: order.account, ids };
        let writing = made.iter().zip(&kept.ids).map(|((ending, bytes), id)| async move {
            let mut file = self.files.begin_output(order.account, *id).await?;
            file.write(bytes.clone()).await?;
            file.finish(purpose, format!("{}{ending}", order.name), Some(lasts)).await
        });
        try_join_all(writing).await?;
        batchin_faults::point("files.kept");
        Ok(kept)
    }
}

impl Kept {
    /// Says whether they stay from here on, also where nobody waits for more.
    pub(crate) const fn stay(&mut self, stays: bool) {
        self.stays = stays;
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        let ids = std::mem::take(&mut self.ids);
        if self.stays || ids.is_empty() {
            return;
        }
        let (files, account) = (self.files.clone(), self.account);
        self.tasks.spawn("unpaid_files", move |_| async move {
            for id in ids {
                // What fails here goes when it expires.
                if let Err(cause) = files.delete(account, id).await {
                    warn!(error = &cause as &dyn std::error::Error, "a file that nobody paid for could not be removed");
                }
            }
        });
    }
}
