//! Holds: ComfyUI.

use batchin_domain::Capability;

use super::{ANY, Adapter, FilmManner, Path};

/// A server without accounts, keys or models of its own: what it runs stands in a workflow.
const STATS: Path = Path::AtRoot("/system_stats");

pub(super) const ADAPTER: Adapter = Adapter {
    name: "comfyui",
    can: &[Capability::Images, Capability::Video],
    // It is told to stop.
    stops_when_left: true,
    health_path: STATS,
    guarded_path: STATS,
    film: Some(FilmManner::Workflow),
    needs_workflow: true,
    ..ANY
};
