//! Holds: stable-diffusion.cpp's server.

use batchin_domain::Capability;

use super::{ANY, Adapter, FilmJobs, FilmManner};

pub(super) const ADAPTER: Adapter = Adapter {
    name: "sdcpp",
    can: &[Capability::Images, Capability::Video],
    takes_any_name: true,
    told_how_pictures_come: false,
    // `<lora:NAME:1>` in a prompt is a file of that name.
    reads_files_by_prompt: true,
    film: Some(FilmManner::Jobs(FilmJobs::Sdcpp)),
    ..ANY
};
