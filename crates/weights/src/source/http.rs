//! Holds: fetching the files of a Hugging Face repository over HTTP, going on after a broken connection.
//!
//! The `hf-hub` crate does more and costs more: its own cache layout, and a content-addressed transfer protocol with
//! all that belongs to it. A file at a revision is one GET with a `Range`.

use std::{path::Path, time::Duration};

use reqwest::{
    Client, Response, StatusCode,
    header::{AUTHORIZATION, CONTENT_RANGE, HeaderMap, HeaderValue, RANGE},
};
use secrecy::ExposeSecret;
use tokio::{
    fs::File,
    io::AsyncWriteExt,
    time::{sleep, timeout},
};

use super::{
    failure::{FetchError, SourceError},
    order::Fetch,
};
use crate::{
    catalogue::Artefact,
    disk::{DiskError, remove_if_there},
};

/// In a row, none of which brought [`WORTHWHILE_BYTES`]; such a line does not get a gigabyte across.
const MAX_BREAKS: u32 = 5;

/// A connection that brought this much before it broke was not in vain.
const WORTHWHILE_BYTES: u64 = 1024 * 1024;

/// Before going on after the first break; doubles with each.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// For one file, however often it breaks.
const TRANSFER_LIMIT: Duration = Duration::from_secs(6 * 60 * 60);

/// `folder` is the one within the repository, none its root.
pub(super) async fn fetch(what: &Fetch<'_>, (repo, revision, folder): (&str, &str, &str)) -> Result<(), FetchError> {
    let client = Client::builder()
        .user_agent(concat!("batchin/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(what.options.patience.answer)
        .read_timeout(what.options.patience.stall)
        .build()
        .map_err(SourceError::Unreachable)?;
    let base = what.options.huggingface_url.trim_end_matches('/');
    let folder = if folder.is_empty() { String::new() } else { format!("{folder}/") };
    let mut before = 0;
    for file in what.files {
        let url = format!("{base}/{repo}/resolve/{revision}/{folder}{}", file.name);
        let download = Download { what, file, client: &client, url, before, part: &what.workspace.part(file) };
        match timeout(TRANSFER_LIMIT, download.run()).await {
            Ok(result) => result?,
            Err(_) => return Err(SourceError::TooSlow { after: TRANSFER_LIMIT }.into()),
        }
        before += file.size_bytes;
    }
    Ok(())
}

// A token that cannot stand in a header cannot be right either; public files need none.
fn bearer(what: &Fetch<'_>) -> Option<HeaderValue> {
    let token = what.options.huggingface_token.as_ref()?;
    let mut value = HeaderValue::from_str(&format!("Bearer {}", token.expose_secret())).ok()?;
    value.set_sensitive(true);
    Some(value)
}

struct Download<'a> {
    what: &'a Fetch<'a>,
    file: &'a Artefact,
    client: &'a Client,
    url: String,
    /// Bytes of the files before this one.
    before: u64,
    part: &'a Path,
}

/// How one request ended short of the whole file.
enum Stop {
    /// Worth going on from where it stopped.
    Break {
        gained: u64,
        last: Option<reqwest::Error>,
    },
    Final(FetchError),
}

impl<E: Into<FetchError>> From<E> for Stop {
    fn from(error: E) -> Self {
        Self::Final(error.into())
    }
}

impl Download<'_> {
    async fn run(&self) -> Result<(), FetchError> {
        let (mut breaks, mut resuming) = (0, false);
        loop {
            let (gained, last) = match self.attempt(resuming).await {
                Ok(()) => return Ok(()),
                Err(Stop::Final(error)) => return Err(error),
                Err(Stop::Break { gained, last }) => (gained, last),
            };
            resuming = true;
            breaks = if gained >= WORTHWHILE_BYTES { 1 } else { breaks + 1 };
            if breaks > MAX_BREAKS {
                return Err(SourceError::Broken { file: self.file.name.clone(), times: breaks, last }.into());
            }
            tracing::debug!(file = %self.file.name, breaks, "transfer of {} broke off", self.file.name);
            sleep(FIRST_PAUSE * 2u32.pow(breaks - 1)).await;
        }
    }

    async fn attempt(&self, resuming: bool) -> Result<(), Stop> {
        let have = match tokio::fs::metadata(self.part).await {
            Ok(meta) if meta.len() < self.file.size_bytes => meta.len(),
            Ok(_) => {
                remove_if_there(self.part)?;
                0
            }
            Err(_) => 0,
        };
        let response = self.ask(have, resuming).await?;
        let have = match response.status() {
            StatusCode::OK => 0,
            StatusCode::PARTIAL_CONTENT if starts_at(response.headers(), have) => have,
            StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE if have > 0 => {
                remove_if_there(self.part)?;
                return Err(Stop::Break { gained: 0, last: None });
            }
            status => return Err(SourceError::Status { file: self.file.name.clone(), status }.into()),
        };
        // Seen before the transfer, an error page or another file costs nothing.
        if let Some(rest) = response.content_length().filter(|rest| have + rest != self.file.size_bytes) {
            return Err(self.wrong_length(have + rest).into());
        }
        self.receive(response, have).await
    }

    async fn ask(&self, have: u64, resuming: bool) -> Result<Response, Stop> {
        let after = self.what.options.patience.answer;
        let mut request = self.client.get(&self.url);
        if let Some(token) = bearer(self.what) {
            request = request.header(AUTHORIZATION, token);
        }
        if have > 0 {
            request = request.header(RANGE, format!("bytes={have}-"));
        }
        match timeout(after, request.send()).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) if resuming => Err(Stop::Break { gained: 0, last: Some(error.without_url()) }),
            Ok(Err(error)) if error.is_timeout() => Err(SourceError::NoAnswer { after }.into()),
            Ok(Err(error)) => Err(SourceError::Unreachable(error.without_url()).into()),
            Err(_) => Err(SourceError::NoAnswer { after }.into()),
        }
    }

    async fn receive(&self, mut response: Response, from: u64) -> Result<(), Stop> {
        let mut have = from;
        let mut options = File::options();
        options.create(true).append(have > 0).write(true).truncate(have == 0);
        let mut out = options.open(self.part).await.map_err(DiskError::on("open", self.part))?;
        let last = loop {
            match response.chunk().await {
                Ok(Some(bytes)) => {
                    have += bytes.len() as u64;
                    if have > self.file.size_bytes {
                        drop(out);
                        remove_if_there(self.part)?;
                        return Err(self.wrong_length(have).into());
                    }
                    out.write_all(&bytes).await.map_err(DiskError::on("write", self.part))?;
                    self.what.report(self.before + have);
                }
                Ok(None) => break None,
                Err(error) => break Some(error.without_url()),
            }
        };
        out.flush().await.map_err(DiskError::on("write", self.part))?;
        if have == self.file.size_bytes { Ok(()) } else { Err(Stop::Break { gained: have - from, last }) }
    }

    fn wrong_length(&self, actual: u64) -> SourceError {
        SourceError::WrongLength { file: self.file.name.clone(), expected: self.file.size_bytes, actual }
    }
}

fn starts_at(headers: &HeaderMap, have: u64) -> bool {
    let range = headers.get(CONTENT_RANGE).and_then(|value| value.to_str().ok());
    range.and_then(|range| range.strip_prefix("bytes ")).is_some_and(|range| range.starts_with(&format!("{have}-")))
}
