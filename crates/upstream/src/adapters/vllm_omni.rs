//! Holds: vLLM-Omni.

use batchin_domain::Capability;

use super::{ANY, Adapter, Counts, FilmJobs, FilmManner, Path, PriorityOrder, Speaking};

pub(super) const ADAPTER: Adapter = Adapter {
    name: "vllm-omni",
    can: &[
        Capability::Chat,
        Capability::Completions,
        Capability::Embeddings,
        Capability::Speech,
        Capability::Images,
        Capability::Video,
    ],
    streams_token_by_token: true,
    stops_when_left: true,
    counts: Counts::OfEachAnswer,
    health_path: Path::AtRoot("/health"),
    priority_order: PriorityOrder::LowerFirst,
    // Without it nothing comes before all of it is spoken; and in other formats it does not stream.
    speech: Speaking::InWav(&[("stream_format", "\"audio\"")]),
    film: Some(FilmManner::Jobs(FilmJobs::Form)),
    ..ANY
};
