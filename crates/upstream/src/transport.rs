//! Holds: the pooled connections to one server.
//!
//! Plain TCP, TLS or a Unix socket behind one call. Dropping an answer before its end closes the connection, which is
//! how a call is cancelled.

use std::{path::PathBuf, time::Duration};

use bytes::Bytes;
use http::{Request, Uri, uri::PathAndQuery};
use http_body_util::Full;
use hyper_rustls::{ConfigBuilderExt, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{
        Client, ResponseFuture,
        connect::{Connect, HttpConnector},
    },
    rt::{TokioExecutor, TokioTimer},
};
use hyperlocal::UnixConnector;

use batchin_openai::Endpoint;

use crate::{
    config::{Address, UpstreamConfig},
    dialect::HealthPath,
};

/// Idle connections kept to one server; as many as calls at once on a large replica.
const MAX_IDLE_CONNECTIONS: usize = 512;

/// Below the 5 s after which uvicorn, and so vLLM and SGLang, closes an idle connection.
const IDLE_CONNECTION_LIFE: Duration = Duration::from_secs(4);

/// Prefix of calls where the address has no path of its own.
const DEFAULT_PREFIX: &str = "/v1";

/// The pool to one server.
#[derive(Debug)]
pub(crate) enum Transport {
    Tcp(Client<HttpConnector, Full<Bytes>>),
    Tls(Client<HttpsConnector<HttpConnector>, Full<Bytes>>),
    Unix(Client<UnixConnector, Full<Bytes>>),
}

/// No TLS configuration could be made from the roots of this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("TLS cannot be set up")]
pub struct TlsError;

impl Transport {
    pub(crate) fn new(config: &UpstreamConfig) -> Result<Self, TlsError> {
        let mut http = HttpConnector::new();
        http.set_nodelay(true);
        http.set_connect_timeout(Some(config.connect_timeout));
        http.enforce_http(false);
        Ok(match &config.address {
            Address::Unix(_) => Transport::Unix(client(UnixConnector)),
            Address::Http(base) if base.scheme_str() == Some("https") => Transport::Tls(client(tls(http)?)),
            Address::Http(_) => Transport::Tcp(client(http)),
        })
    }

    pub(crate) fn send(&self, request: Request<Full<Bytes>>) -> ResponseFuture {
        match self {
            Transport::Tcp(client) => client.request(request),
            Transport::Tls(client) => client.request(request),
            Transport::Unix(client) => client.request(request),
        }
    }
}

fn client<C: Connect + Clone>(connector: C) -> Client<C, Full<Bytes>> {
    Client::builder(TokioExecutor::new())
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE_CONNECTION_LIFE)
        .pool_max_idle_per_host(MAX_IDLE_CONNECTIONS)
        .build(connector)
}

/// The machine's own roots, or Mozilla's where it has none, as in a bare container.
fn tls(http: HttpConnector) -> Result<HttpsConnector<HttpConnector>, TlsError> {
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let versions = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = versions.map_err(|_| TlsError)?;
    let config = match builder.clone().with_native_roots() {
        Ok(rooted) => rooted.with_no_client_auth(),
        Err(_) => builder.with_webpki_roots().with_no_client_auth(),
    };
    Ok(HttpsConnectorBuilder::new().with_tls_config(config).https_only().enable_all_versions().wrap_connector(http))
}

/// Where the calls of one server go.
#[derive(Clone)]
pub(crate) struct Targets {
    chat: Uri,
    completions: Uri,
    embeddings: Uri,
    pub(crate) health: Uri,
}

impl Targets {
    /// `None` when an address and a path do not make a valid URI.
    pub(crate) fn of(config: &UpstreamConfig) -> Option<Self> {
        let base = Base::of(&config.address);
        let call = |endpoint: Endpoint| base.at(&format!("{}{}", base.prefix(), endpoint.path_below_v1()));
        let health = match config.kind.health_path() {
            HealthPath::AtRoot(path) => {
                let root = base.prefix().strip_suffix(DEFAULT_PREFIX).unwrap_or(base.prefix());
                base.at(&format!("{root}{path}"))
            }
            HealthPath::BelowBase(path) => base.at(&format!("{}{path}", base.prefix())),
        };
        Some(Self {
            chat: call(Endpoint::Chat)?,
            completions: call(Endpoint::Completions)?,
            embeddings: call(Endpoint::Embeddings)?,
            health: health?,
        })
    }

    pub(crate) fn call(&self, endpoint: Endpoint) -> Uri {
        match endpoint {
            Endpoint::Chat => self.chat.clone(),
            Endpoint::Completions => self.completions.clone(),
            Endpoint::Embeddings => self.embeddings.clone(),
        }
    }
}

enum Base<'a> {
    Http(&'a Uri),
    Unix(&'a PathBuf),
}

impl<'a> Base<'a> {
    fn of(address: &'a Address) -> Self {
        match address {
            Address::Http(uri) => Base::Http(uri),
            Address::Unix(path) => Base::Unix(path),
        }
    }

    fn prefix(&self) -> &str {
        match self {
            Base::Http(uri) if uri.path() != "/" => uri.path().trim_end_matches('/'),
            _ => DEFAULT_PREFIX,
        }
    }

    fn at(&self, path: &str) -> Option<Uri> {
        match self {
            Base::Unix(socket) => Some(hyperlocal::Uri::new(socket, path).into()),
            Base::Http(base) => {
                let mut parts = (*base).clone().into_parts();
                parts.path_and_query = Some(PathAndQuery::try_from(path).ok()?);
                Uri::from_parts(parts).ok()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::Kind;

    #[track_caller]
    fn check(kind: Kind, base: &str, chat: &str, health: &str) {
        let targets = Targets::of(&UpstreamConfig::new("a", kind, base).unwrap()).unwrap();
        let found = (targets.chat.to_string(), targets.health.to_string());
        assert_eq!(found, (chat.to_owned(), health.to_owned()));
    }

    #[test]
    fn calls_go_below_the_base_and_health_to_the_root() {
        check(Kind::Vllm, "http://h:8000/v1", "http://h:8000/v1/chat/completions", "http://h:8000/health");
        check(Kind::Vllm, "http://h:8000", "http://h:8000/v1/chat/completions", "http://h:8000/health");
        check(Kind::Sglang, "http://h/v1/", "http://h/v1/chat/completions", "http://h/ready");
        check(Kind::Ollama, "http://h/v1", "http://h/v1/chat/completions", "http://h/");
        check(Kind::LlamaCpp, "http://h/gpu/v1", "http://h/gpu/v1/chat/completions", "http://h/gpu/health");
        check(
            Kind::OpenAi,
            "https://h/openai/v1",
            "https://h/openai/v1/chat/completions",
            "https://h/openai/v1/models",
        );
    }

    #[test]
    fn every_transport_can_be_built() {
        for base in ["http://h", "https://h", "unix:/tmp/s"] {
            assert!(Transport::new(&UpstreamConfig::new("a", Kind::OpenAi, base).unwrap()).is_ok(), "{base}");
        }
    }
}
