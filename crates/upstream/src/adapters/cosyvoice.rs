//! Holds: CosyVoice's FastAPI runtime.

use batchin_domain::Capability;

use super::{ANY, Adapter, Path, Speaking};

/// The description that FastAPI makes: the runtime has no call that tells of its health.
const DESCRIPTION: Path = Path::AtRoot("/openapi.json");

pub(super) const ADAPTER: Adapter = Adapter {
    name: "cosyvoice",
    can: &[Capability::Speech],
    stops_when_left: true,
    health_path: DESCRIPTION,
    guarded_path: DESCRIPTION,
    speech: Speaking::ByForm,
    ..ANY
};
