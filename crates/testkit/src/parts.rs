//! Holds: what those who work in the background are given, of a store and a gateway, and where pictures are kept.

use std::time::Duration;

use batchin_batch::{FilmParts, WorkerParts};
use batchin_files::{Blobs, Files};
use batchin_gateway::{Gateway, Links, PICTURES_KEPT, Shelf};
use batchin_store::Store;

/// What a worker works with.
pub fn worker_parts(store: &Store, gateway: &Gateway, (blobs, files): (&Blobs, &Files)) -> WorkerParts {
    WorkerParts {
        gateway: gateway.clone(),
        claims: store.claims(),
        endings: store.endings(),
        keys: store.keys(),
        chores: store.chores(),
        rows: store.batch_rows(),
        blobs: blobs.clone(),
        files: files.clone(),
    }
}

/// What a maker of films works with.
pub(crate) fn film_parts(store: &Store, gateway: &Gateway, blobs: &Blobs) -> FilmParts {
    FilmParts { gateway: gateway.clone(), claims: store.film_claims(), keys: store.keys(), blobs: blobs.clone() }
}

/// Where pictures are kept, those of batches for so long.
pub(crate) fn shelf(files: &Files, links: Links, kept_of_batches: Duration) -> Shelf {
    Shelf { files: files.clone(), links, kept: PICTURES_KEPT, kept_of_batches }
}
