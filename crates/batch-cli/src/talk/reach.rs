//! Holds: why a server gives no answer, in a person's words, and whether it ever gave one.

use std::cell::Cell;
use std::error::Error;

use url::Url;

/// Where the server is, and whether it has answered since this command began.
#[derive(Debug)]
pub(crate) struct Contact {
    /// Without a name or password in it.
    address: String,
    is_made: Cell<bool>,
}

/// Why there was no answer.
#[derive(Debug, thiserror::Error)]
pub enum Cause {
    /// Its certificate is refused.
    #[error("its certificate is refused: {why}; --cacert FILE trusts one of your own")]
    Certificate {
        /// In TLS's words.
        why: String,
    },
    /// `https://` to a port that speaks HTTP.
    #[error("it does not speak TLS; is it http:// there?")]
    NoTls,
    /// `http://` to a port that speaks TLS, or to something else.
    #[error("what answers is not HTTP; is it https:// there?")]
    NoHttp,
    /// Nobody is there, or the connection broke.
    #[error("{why}")]
    Connection {
        /// In the operating system's words.
        why: String,
    },
}

impl Contact {
    pub(super) fn at(url: &Url) -> Self {
        let mut url = url.clone();
        // Fails only for addresses that have no host, and those are refused before.
        let _ = url.set_username("");
        let _ = url.set_password(None);
        Self { address: url.as_str().trim_end_matches('/').to_owned(), is_made: Cell::new(false) }
    }

    pub(super) fn address(&self) -> &str {
        &self.address
    }

    pub(super) fn make(&self) {
        self.is_made.set(true);
    }

    pub(super) fn is_made(&self) -> bool {
        self.is_made.get()
    }
}

impl Cause {
    pub(super) fn of(error: &reqwest::Error) -> Self {
        let mut last = error.to_string();
        let mut next: Option<&(dyn Error + 'static)> = Some(error);
        while let Some(cause) = next {
            next = cause.source();
            last = cause.to_string();
            // The words of the libraries below: the types that say so cannot be reached from here.
            if let Some(why) = last.strip_prefix("invalid peer certificate: ") {
                return Self::Certificate { why: why.to_owned() };
            }
            if last.starts_with("received corrupt message") {
                return Self::NoTls;
            }
            if last.starts_with("tls handshake eof") {
                // A server that comes up or goes down does so, too.
                return Self::Connection { why: "it hangs up when TLS begins; is it http:// there?".to_owned() };
            }
            if last.starts_with("invalid HTTP") {
                return Self::NoHttp;
            }
        }
        Self::Connection { why: last.split(" (os error").next().unwrap_or_default().to_owned() }
    }

    /// Whether another try would end in the same way.
    pub(super) fn is_lasting(&self) -> bool {
        match self {
            Self::Certificate { .. } | Self::NoTls | Self::NoHttp => true,
            Self::Connection { .. } => false,
        }
    }
}
