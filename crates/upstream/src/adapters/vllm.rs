//! Holds: vLLM.

use super::{ANY, Adapter, Counts, Path, PriorityOrder, READERS};

pub(super) const ADAPTER: Adapter = Adapter {
    name: "vllm",
    can: READERS,
    streams_token_by_token: true,
    stops_when_left: true,
    counts: Counts::OfEachAnswer,
    health_path: Path::AtRoot("/health"),
    priority_order: PriorityOrder::LowerFirst,
    ..ANY
};
