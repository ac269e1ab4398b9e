//! Holds: any server with OpenAI's API, hosted ones included.

use super::{ANY, Adapter};

pub(super) const ADAPTER: Adapter = Adapter {
    name: "openai",
    // Google's list has a folder before the name.
    lists_as: |listed, model| listed.strip_prefix("models/") == Some(model),
    ..ANY
};
