//! Holds: making tasks of a file's lines, which have been checked.
//!
//! A piece at a time, each a transaction that also notes how far the file is used up: whoever takes over goes on there.

use batchin_domain::{TaskId, Timestamp};
use batchin_files::Blobs;
use batchin_gateway::Gateway;
use batchin_store::{BatchRow, ChoreError, Chores, NewTask, NodeIdentity, Piece};
use serde::Deserialize;

use crate::{
    input::{Input, InputError},
    lines::read_line,
};

/// Why loading stopped.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    /// The file could not be read.
    #[error("the batch's file could not be read")]
    Input(#[source] InputError),
    /// The file is not what was checked.
    #[error("the batch's file has changed since it was checked")]
    Changed,
    /// The tasks could not be stored, or are another node's to load.
    #[error("the tasks could not be stored")]
    Chore(#[source] ChoreError),
}

#[derive(Deserialize)]
struct Named<'a> {
    #[serde(borrow)]
    model: std::borrow::Cow<'a, str>,
}

/// Loads what has not been loaded. `now` is read anew for each piece.
pub(crate) async fn load(
    (gateway, chores): (&Gateway, &Chores),
    blobs: &Blobs,
    node: NodeIdentity,
    batch: &BatchRow,
    now: impl Fn() -> Timestamp,
) -> Result<(), LoadError> {
    let (ids, catalog) = (gateway.ids(), gateway.catalog());
    let input = Input::open(blobs.clone(), batch.input_blob.clone(), batch.loaded_bytes).await;
    let mut input = input.map_err(|cause| LoadError::Input(InputError::Blob(cause)))?;
    let declared = batch.terms.call;
    let mut loaded = batch.loaded;
    let piece = chores.piece();
    let mut tasks = Vec::with_capacity(piece);
    while loaded < batch.counts.total {
        while tasks.len() < piece
            && let Some(line) = input.next().await.map_err(LoadError::Input)?
        {
            let read = read_line(&line.text, declared).map_err(|_| LoadError::Changed)?;
            let named: Named<'_> =
                serde_json::from_slice(&line.text[read.body.clone()]).map_err(|_| LoadError::Changed)?;
            let model = catalog.find(&named.model).map_or_else(|| named.model.into_owned(), |model| model.id.clone());
            tasks.push(NewTask {
                id: TaskId::new(ids.uuid()),
                custom_id: read.custom_id,
                model,
                call: read.call,
                body_offset: line.offset + read.body.start as u64,
                body_len: read.body.len() as u64,
            });
        }
        if tasks.is_empty() {
            return Err(LoadError::Changed);
        }
        let piece = Piece { from: loaded, bytes: input.used(), tasks: &tasks };
        chores.load_tasks(node, batch.id, piece, now()).await.map_err(LoadError::Chore)?;
        batchin_faults::point("batch.loaded");
        loaded = loaded.saturating_add(u32::try_from(tasks.len()).unwrap_or(u32::MAX));
        tasks.clear();
    }
    Ok(())
}
