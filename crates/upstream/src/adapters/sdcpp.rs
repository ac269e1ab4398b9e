//! Holds: stable-diffusion.cpp's server.

use batchin_domain::Capability;

use super::{ANY, Adapter};

pub(super) const ADAPTER: Adapter =
    Adapter { name: "sdcpp", can: &[Capability::Images], takes_any_name: true, told_how_pictures_come: false, ..ANY };
