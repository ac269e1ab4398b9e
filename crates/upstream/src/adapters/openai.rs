//! Holds: any server with OpenAI's API, hosted ones included.

use super::{ANY, Adapter, Kind};

impl Kind {
    /// Any server with OpenAI's API, hosted ones included.
    pub const OPENAI: Self = Self(&Adapter {
        name: "openai",
        // Google's list has a folder before the name.
        lists_as: |listed, model| listed.strip_prefix("models/") == Some(model),
        ..ANY
    });
}
