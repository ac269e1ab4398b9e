//! Holds: model servers as operators see them.

pub(crate) mod drain;
pub(crate) mod list;
pub(crate) mod resume;

use batchin_gateway::Upstream;
use batchin_upstream::Health;
use serde::Serialize;
use utoipa::ToSchema;

/// A model server.
#[derive(Serialize, ToSchema)]
#[schema(as = Upstream)]
pub(crate) struct UpstreamObject {
    /// As the configuration names it.
    #[schema(example = "gpu-1")]
    name: String,
    /// The program behind it.
    #[schema(example = "vllm")]
    kind: &'static str,
    /// The models that it serves.
    #[schema(example = json!(["qwen3-8b"]))]
    models: Vec<String>,
    /// What its health check says to this node: `unknown` (not asked yet), `well` or `ill`; `ill`, too, while it refuses
    /// our key or our account there is used up.
    #[schema(example = "well")]
    health: &'static str,
    /// Whether this node asks it: `closed` (as usual), `cooling`, `open` or `trying`.
    #[schema(example = "closed")]
    breaker: &'static str,
    /// Why it is not asked as usual: `unreachable`, `failing`, `key_refused` or `quota_used_up`.
    #[schema(required = true)]
    trouble: Option<&'static str>,
    /// Calls that it works on at once, where the configuration says so.
    #[schema(required = true, example = 64)]
    slots: Option<u32>,
    /// Calls that this node has under way there; one that waits for a film is one of them.
    outstanding: u64,
    /// The same of all other nodes together, while it is drained; null while one of them may still send new ones.
    #[schema(required = true)]
    outstanding_elsewhere: Option<u64>,
    /// Films that it makes, for all nodes.
    films: u64,
    /// Whether it gets no new calls, on any node.
    drained: bool,
    #[schema(required = true, format = DateTime)]
    drained_at: Option<String>,
    /// The email of who drained it; null for the command line.
    #[schema(required = true, example = "ann@example.org")]
    drained_by: Option<String>,
    /// It is drained, and nothing is under way there on any node: it can be stopped.
    idle: bool,
    /// It has left this node's configuration, and is shown as long as calls may be under way.
    removed: bool,
}

impl From<Upstream> for UpstreamObject {
    fn from(upstream: Upstream) -> Self {
        let idle = upstream.is_idle();
        let Upstream { status, models, outstanding, films, drain, is_leaving } = upstream;
        Self {
            name: status.name,
            kind: status.kind.name,
            models,
            health: match status.health {
                Health::Unknown => "unknown",
                Health::Well => "well",
                Health::Ill => "ill",
            },
            breaker: status.breaker.name(),
            trouble: status.trouble.map(batchin_upstream::Trouble::name),
            slots: status.slots,
            outstanding,
            outstanding_elsewhere: drain.as_ref().and_then(|drain| drain.elsewhere),
            films,
            drained: drain.is_some(),
            drained_at: drain.as_ref().map(|drain| drain.since.to_string()),
            drained_by: drain.and_then(|drain| drain.by),
            idle,
            removed: is_leaving,
        }
    }
}
