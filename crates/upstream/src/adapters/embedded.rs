//! Holds: the engine that ships with us, on a private socket.

use batchin_domain::Capability;

use super::{ANY, Adapter, Counts, Path, PriorityOrder, Speaking, Suffix};

pub(super) const ADAPTER: Adapter = Adapter {
    name: "embedded",
    can: &[Capability::Chat, Capability::Completions, Capability::Embeddings, Capability::Speech],
    is_ours: true,
    shares_processor: true,
    streams_tool_calls_alike: true,
    streams_token_by_token: true,
    echoes: false,
    stops_when_left: true,
    counts: Counts::OfAllAnswers,
    health_path: Path::AtRoot("/health"),
    priority_order: PriorityOrder::LowerFirst,
    takes_any_limit: true,
    // What it is made of, llama.cpp, refuses `suffix` and `best_of` for being there at all.
    drops_nulls: true,
    // By the vocabulary's own marks, and no text is read as one.
    suffix: Suffix::Own,
    speech: Speaking::InWav(&[]),
    ..ANY
};
