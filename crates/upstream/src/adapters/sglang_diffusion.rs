//! Holds: SGLang Diffusion.

use super::{ANY, Adapter, Path};

pub(super) const ADAPTER: Adapter =
    Adapter { name: "sglang-diffusion", can: &[], health_path: Path::AtRoot("/liveness"), ..ANY };
