//! Holds: files as OpenAI's clients know them.

pub(crate) mod content;
pub(crate) mod create;
pub(crate) mod delete;
mod form;
pub(crate) mod list;
pub(crate) mod show;

use batchin_store::FileRow;
use serde::Serialize;
use utoipa::ToSchema;

/// A file.
#[derive(Serialize, ToSchema)]
#[schema(as = File)]
pub(crate) struct FileObject {
    #[schema(example = "file-0197f3a000007000800000000000000a")]
    id: String,
    #[schema(example = "file")]
    object: &'static str,
    bytes: u64,
    /// Unix seconds.
    created_at: i64,
    /// Unix seconds.
    #[schema(required = true)]
    expires_at: Option<i64>,
    #[schema(example = "input.jsonl")]
    filename: String,
    /// `batch`, `batch_output`, `user_data`, `assistants`, `vision`, `fine-tune` or `evals`.
    #[schema(example = "batch")]
    purpose: &'static str,
    /// Always `processed`: a file is seen once it is whole.
    #[schema(example = "processed")]
    status: &'static str,
    #[schema(required = true)]
    status_details: Option<String>,
}

impl From<FileRow> for FileObject {
    fn from(row: FileRow) -> Self {
        Self {
            id: row.id.to_string(),
            object: "file",
            bytes: row.bytes,
            created_at: row.created_at.seconds(),
            expires_at: row.expires_at.map(|at| at.seconds()),
            filename: row.filename,
            purpose: row.purpose.name(),
            status: "processed",
            status_details: None,
        }
    }
}
