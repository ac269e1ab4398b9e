//! Holds: the models as Anthropic's clients see them, which say so by a header that every request of theirs has.

use batchin_anthropic::{Lifecycle, ListedModel, models_page};
use batchin_gateway::{Catalog, Model};
use http::{HeaderMap, HeaderName};
use serde_json::{Value, json};

use crate::app::App;

const VERSION: HeaderName = HeaderName::from_static("anthropic-version");

/// Whether a client of Anthropic's API asks.
pub(super) fn is_meant(headers: &HeaderMap) -> bool {
    headers.contains_key(VERSION)
}

/// One model.
pub(super) fn shown(app: &App, model: &Model) -> Value {
    json!(listed(app, model))
}

/// All of them on one page.
pub(super) fn page(app: &App, catalog: &Catalog) -> Value {
    json!(models_page(catalog.models().iter().map(|model| listed(app, model)).collect(), false))
}

fn listed(app: &App, model: &Model) -> ListedModel {
    ListedModel {
        id: model.id.clone(),
        display_name: model.id.clone(),
        created_at: app.started_at.to_string(),
        max_input_tokens: model.context_length,
        max_tokens: model.max_output_tokens.unwrap_or(model.context_length),
        lifecycle: Lifecycle::Active,
    }
}
