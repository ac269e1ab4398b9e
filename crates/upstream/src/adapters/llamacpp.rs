//! Holds: llama.cpp's `llama-server`.

use super::{ANY, Adapter, Path, READERS, Suffix};

pub(super) const ADAPTER: Adapter = Adapter {
    name: "llamacpp",
    can: READERS,
    streams_tool_calls_alike: true,
    streams_token_by_token: true,
    echoes: false,
    // Seen with the one in the sources of llama-cpp-python 0.3.36: 3 answers of 8 tokens each are told as 8.
    counts_one_answer: true,
    stops_when_left: true,
    health_path: Path::AtRoot("/health"),
    // It shows its list of models to everybody.
    guarded_path: Path::AtRoot("/props"),
    takes_any_name: true,
    takes_any_limit: true,
    // It refuses `suffix` and `best_of` for being there at all.
    drops_nulls: true,
    suffix: Suffix::Infill,
    ..ANY
};
