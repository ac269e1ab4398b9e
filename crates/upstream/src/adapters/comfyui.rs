//! Holds: ComfyUI.

use super::{ANY, Adapter, Path};

/// A server without accounts, keys or models of its own: what it runs stands in a workflow.
const STATS: Path = Path::AtRoot("/system_stats");

pub(super) const ADAPTER: Adapter =
    Adapter { name: "comfyui", can: &[], health_path: STATS, guarded_path: STATS, ..ANY };
