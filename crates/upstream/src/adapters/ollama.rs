//! Holds: Ollama.

use batchin_domain::Capability;

use super::{ANY, Adapter, Path, Suffix};

pub(super) const ADAPTER: Adapter = Adapter {
    name: "ollama",
    can: &[
        Capability::Chat,
        Capability::Completions,
        Capability::Embeddings,
        Capability::Transcription,
        Capability::Responses,
        Capability::Messages,
    ],
    streams_tool_calls_alike: true,
    streams_token_by_token: true,
    echoes: false,
    ignores_n: true,
    stops_when_left: true,
    health_path: Path::AtRoot("/"),
    // Its names have a tag, and `latest` goes without saying.
    lists_as: |listed, model| listed.strip_suffix(":latest") == Some(model),
    // 0 means none to it.
    least_limit: 1,
    takes_any_limit: true,
    // A prompt without it goes through the chat's template.
    suffix: Suffix::Own,
    ..ANY
};
