//! Holds: the one list of BatchIn's settings.

use batchin_settings::{Schema, Section};

use super::{
    audio, audit, batches, database, engine, files, models, observability, server, shutdown, smtp, stripe, upstreams,
    usdc, users, video, webhooks, x402,
};

/// What the names of our variables begin with.
pub const PREFIX: &str = "BATCHIN_";

/// Every setting, in the order of the example.
pub(super) static SCHEMA: Schema = Schema {
    prefix: PREFIX,
    example_command: "batchin config example",
    sections: &[
        Section { name: "server", settings: server::SETTINGS },
        Section { name: "shutdown", settings: shutdown::SETTINGS },
        Section { name: "database", settings: database::SETTINGS },
        Section { name: "blobs", settings: database::BLOBS_SETTINGS },
        Section { name: "users", settings: users::SETTINGS },
        Section { name: "keys", settings: users::KEYS_SETTINGS },
        Section { name: "batches", settings: batches::SETTINGS },
        Section { name: "files", settings: files::SETTINGS },
        Section { name: "audio", settings: audio::SETTINGS },
        Section { name: "video", settings: video::SETTINGS },
        Section { name: "webhooks", settings: webhooks::SETTINGS },
        Section { name: "smtp", settings: smtp::SETTINGS },
        Section { name: "stripe", settings: stripe::SETTINGS },
        Section { name: "usdc", settings: usdc::SETTINGS },
        Section { name: "usdc.x402", settings: x402::SETTINGS },
        Section { name: "audit", settings: audit::SETTINGS },
        Section { name: "engine", settings: engine::SETTINGS },
        Section { name: "log", settings: observability::LOG_SETTINGS },
        Section { name: "telemetry", settings: observability::TELEMETRY_SETTINGS },
        Section { name: "metrics", settings: observability::METRICS_SETTINGS },
    ],
    lists: &[
        Section { name: "upstreams", settings: upstreams::SETTINGS },
        Section { name: "models", settings: models::SETTINGS },
        Section { name: "usdc.chains", settings: usdc::CHAIN_SETTINGS },
    ],
    later: &[],
};
