//! Holds: stable-diffusion.cpp's server.

use super::{ANY, Adapter};

pub(super) const ADAPTER: Adapter = Adapter { name: "sdcpp", can: &[], takes_any_name: true, ..ANY };
