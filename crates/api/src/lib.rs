//! Holds: HTTP: routes, proofs of who asks, the one error table, the description of it all.
//!
//! Handlers parse, call one verb and render. They decide nothing about money and know no SQL.

mod app;
mod attempts;
mod auth;
mod body;
mod cents;
pub mod contact;
mod cors;
mod decode;
mod download;
mod error;
mod fields;
mod films;
mod flavour;
mod front;
mod health;
mod idempotent;
mod inference;
mod intake;
mod late;
mod made;
mod metrics;
mod multipart;
mod nearest;
mod openai;
mod openapi;
mod page;
pub mod password;
mod path;
mod payers;
mod query;
mod readers;
mod received;
mod request_id;
mod router;
mod secret;
mod throttle;
mod told;
mod unpaid;
mod v1;

pub use app::{ApiParts, ApiSettings, BODY_WINDOW, KEEP_ALIVE};
pub use error::ApiError;
pub use front::Api;
pub use router::{openapi_json, router};
pub use secret::Secret;
pub use throttle::network;
