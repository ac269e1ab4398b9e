//! Holds: the list of chains that payments come on, and how they are watched.

use axum::{Json, extract::State};
use batchin_billing::ChainHealth;
use serde::Serialize;
use utoipa::ToSchema;

use crate::{app::App, auth::AdminCaller, error::ApiError};

/// The chains.
#[derive(Serialize, ToSchema)]
pub(crate) struct WatchedChains {
    #[schema(example = "list")]
    object: &'static str,
    data: Vec<WatchedChain>,
}

/// A chain, and how it is watched.
#[derive(Serialize, ToSchema)]
pub(crate) struct WatchedChain {
    #[schema(example = "base")]
    chain: String,
    /// The chain's number.
    #[schema(example = 8453)]
    chain_id: u64,
    /// The newest block whose payments were read, by whichever node; null before the first.
    #[schema(required = true)]
    read_to: Option<u64>,
    /// When that was.
    #[schema(required = true, format = DateTime)]
    read_at: Option<String>,
    /// Whether the node that answers is the one that watches it. Where it is not, what follows is null.
    watched_here: bool,
    /// When it was looked at last.
    #[schema(required = true, format = DateTime)]
    looked_at: Option<String>,
    /// Blocks that were still to be read then; null where that was not found out.
    #[schema(required = true)]
    behind: Option<u64>,
    /// The endpoint that was asked, by the chain's name and its place in `rpc_urls`.
    #[schema(required = true, example = "base #1")]
    endpoint: Option<String>,
    /// Why that brought nothing: `unreachable`, `no_answer`, `busy`, `key_refused`, `behind`, `block_unknown`,
    /// `answer_too_large`, `other_chain`, `contradicts_itself`, `refuses`, `unreadable`, `deep_reorganisation`,
    /// `state_unusable`, `database` or `too_much_to_count`.
    #[schema(required = true)]
    trouble: Option<&'static str>,
}

impl From<ChainHealth> for WatchedChain {
    fn from(health: ChainHealth) -> Self {
        let ChainHealth { name, chain_id, read, look } = health;
        Self {
            chain: name,
            chain_id,
            read_to: read.map(|(block, _)| block),
            read_at: read.map(|(_, at)| at.to_string()),
            watched_here: look.is_some(),
            looked_at: look.as_ref().map(|look| look.at.to_string()),
            behind: look.as_ref().and_then(|look| look.behind),
            trouble: look.as_ref().and_then(|look| look.trouble),
            endpoint: look.map(|look| look.endpoint),
        }
    }
}

/// The chains that payments in USDC come on, and how they are watched
#[utoipa::path(get, path = "/v1/admin/chains", tag = "Administration", responses(
    (status = 200, description = "The chains", body = WatchedChains),
    (status = 401, description = "The key or session is missing or does not work", body = ApiError),
    (status = 403, description = "The user is no admin, or the key has a monthly budget", body = ApiError)))]
pub(crate) async fn list(State(app): State<App>, _: AdminCaller) -> Result<Json<WatchedChains>, ApiError> {
    let data = app.billing.chain_health().await?.into_iter().map(WatchedChain::from).collect();
    Ok(Json(WatchedChains { object: "list", data }))
}
