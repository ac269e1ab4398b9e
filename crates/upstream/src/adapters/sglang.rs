//! Holds: SGLang.

use super::{ANY, Adapter, Path, PriorityOrder, READERS};

pub(super) const ADAPTER: Adapter = Adapter {
    name: "sglang",
    can: READERS,
    streams_token_by_token: true,
    stops_when_left: true,
    // Its /health generates a token and may take seconds.
    health_path: Path::AtRoot("/ready"),
    priority_order: PriorityOrder::HigherFirst,
    // With a completion template, only an empty suffix keeps it from writing "None" into the prompt.
    completion_defaults: &[("suffix", "\"\"")],
    ..ANY
};
