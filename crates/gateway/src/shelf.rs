//! Holds: where pictures are kept, and for how long.

use std::time::Duration;

use batchin_domain::{AccountId, FileId};
use batchin_files::Files;
use batchin_tasks::Tasks;
use tracing::warn;

use crate::Links;

/// How long a picture is kept whose client waited for it.
pub const PICTURES_KEPT: Duration = Duration::from_secs(24 * 3_600);

/// Where pictures are kept.
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

/// Files that hold pictures. They go again where nobody says that they are paid for.
pub(crate) struct Kept {
    pub(crate) files: Files,
    pub(crate) tasks: Tasks,
    pub(crate) account: AccountId,
    pub(crate) ids: Vec<FileId>,
}

impl Kept {
    /// They stay.
    pub(crate) fn paid(mut self) {
        self.ids.clear();
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        let ids = std::mem::take(&mut self.ids);
        if ids.is_empty() {
            return;
        }
        let (files, account) = (self.files.clone(), self.account);
        self.tasks.spawn("unpaid_pictures", move |_| async move {
            for id in ids {
                // What fails here goes when it expires.
                if let Err(cause) = files.delete(account, id).await {
                    warn!(
                        error = &cause as &dyn std::error::Error,
                        "a picture that nobody paid for could not be removed"
                    );
                }
            }
        });
    }
}
