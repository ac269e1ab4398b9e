//! Holds: SGLang Diffusion.

use batchin_domain::Capability;

use super::{ANY, Adapter, FilmJobs, FilmManner, Path};

pub(super) const ADAPTER: Adapter = Adapter {
    name: "sglang-diffusion",
    can: &[Capability::Images, Capability::Video],
    health_path: Path::AtRoot("/liveness"),
    film: Some(FilmManner::Jobs(FilmJobs::Frames)),
    ..ANY
};
