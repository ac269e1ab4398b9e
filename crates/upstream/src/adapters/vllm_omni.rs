//! Holds: vLLM-Omni.

use batchin_domain::Capability;

use super::{ANY, Adapter, Counts, Path, PriorityOrder};

pub(super) const ADAPTER: Adapter = Adapter {
    name: "vllm-omni",
    can: &[Capability::Chat, Capability::Completions, Capability::Embeddings, Capability::Speech],
    streams_token_by_token: true,
    stops_when_left: true,
    counts: Counts::OfEachAnswer,
    health_path: Path::AtRoot("/health"),
    priority_order: PriorityOrder::LowerFirst,
    ..ANY
};
