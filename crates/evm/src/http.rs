//! Holds: how requests leave for endpoints and facilitators: without redirects and proxies, and with a bound to what comes back.

use std::time::Duration;

use reqwest::{Client, Response, redirect};

/// What a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Why an answer cannot be had whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unread {
    /// It has more bytes than it may.
    TooLarge,
    /// It did not come in time.
    TimedOut,
    /// Less came than was promised.
    CutOff,
}

/// Connections, for requests that each may take so long; none where the TLS library cannot be set up.
pub(crate) fn client(timeout: Duration) -> Option<Client> {
    let client = Client::builder()
        .user_agent(concat!("batchin-evm/", env!("CARGO_PKG_VERSION")))
        // A redirect would carry the key elsewhere, a proxy from the environment would see it.
        .redirect(redirect::Policy::none())
        .no_proxy()
        .referer(false)
        .connect_timeout(CONNECT_TIMEOUT.min(timeout))
        .timeout(timeout)
        // Whatever other crates switch on: what is bounded is what comes.
        .no_gzip()
        .no_brotli()
        .no_deflate()
        .no_zstd()
        .build();
    client.ok()
}

/// An answer's body, of so many bytes at most.
pub(crate) async fn whole(mut response: Response, most: usize) -> Result<Vec<u8>, Unread> {
    let mut body = Vec::new();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) if body.len() + chunk.len() > most => return Err(Unread::TooLarge),
            Ok(Some(chunk)) => body.extend_from_slice(&chunk),
            Ok(None) => return Ok(body),
            Err(error) if error.is_timeout() => return Err(Unread::TimedOut),
            Err(_) => return Err(Unread::CutOff),
        }
    }
}
