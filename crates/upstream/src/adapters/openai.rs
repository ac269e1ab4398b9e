//! Holds: any server with OpenAI's API, hosted ones included.

use super::{ANY, Adapter, FilmJobs, FilmManner, Suffix};

pub(super) const ADAPTER: Adapter = Adapter {
    name: "openai",
    // Google's list has a folder before the name.
    lists_as: |listed, model| listed.strip_prefix("models/") == Some(model),
    suffix: Suffix::Taken,
    // OpenAI's own bound; what we add must not have a hosted server refuse the rest.
    most_stops: 4,
    film: Some(FilmManner::Jobs(FilmJobs::OpenAi)),
    ..ANY
};
