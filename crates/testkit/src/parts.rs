//! Holds: what those who work in the background are given, of a store and a gateway, where pictures are kept, and what an operator sets.

use std::time::Duration;

use batchin_api::{ApiSettings, BODY_WINDOW, KEEP_ALIVE};
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

/// As on loopback with nothing configured.
pub(crate) fn nothing_configured() -> ApiSettings {
    ApiSettings {
        internal_token: None,
        public_lookup: true,
        proxied_lookup: false,
        registration_open: true,
        default_rate_limit_rpm: 600,
        max_body_bytes: 16 * 1024 * 1024,
        max_sound_bytes: 1_000_000,
        max_inline_batch_bytes: 2_000_000,
        metrics_enabled: true,
        metrics_token: None,
        trusted_proxies: Vec::new(),
        keep_alive: KEEP_ALIVE,
        reader_patience: Duration::from_secs(60),
        min_body_bytes_per_second: 500,
        body_window: BODY_WINDOW,
        max_account_percent: 90,
        max_address_percent: 50,
        cors_origins: Vec::new(),
        public_url: "http://batchin.test".to_owned(),
        mail: false,
        serves: true,
    }
}
