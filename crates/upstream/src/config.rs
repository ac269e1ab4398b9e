//! Holds: the checked settings of upstreams.
//!
//! Once built, an address is a real one and every bound makes sense. A debug print shows the name and the kind only.

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use batchin_openai::LimitName;
use http::{HeaderValue, Uri, uri::Scheme};
use secrecy::{ExposeSecret, SecretString};

use crate::{adapters::Kind, workflow::Workflow};

/// What CosyVoice's second and third versions make of a second; its first makes 22,050 samples.
const USUAL_SAMPLE_RATE: u32 = 24_000;

/// Long enough for a machine on another continent; a server that is there answers in milliseconds.
const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A long answer that is not streamed shows its first byte at its end. OpenAI's clients wait as long.
const DEFAULT_FIRST_BYTE_TIMEOUT: Duration = Duration::from_secs(600);

/// Between two bytes. A model that thinks still streams; a stalled one is given up well before clients give up.
const DEFAULT_IDLE_TIMEOUT: Duration = Duration::from_secs(120);

/// Longest name, which is a metrics label.
pub const MAX_NAME_BYTES: usize = 64;

/// Where a server listens.
#[derive(Clone, PartialEq, Eq)]
pub enum Address {
    /// `http` or `https` with a host; the path is the prefix of all calls, usually `/v1`.
    Http(Uri),
    /// A Unix socket; calls are below `/v1`.
    Unix(PathBuf),
}

/// One upstream. Fields besides name, kind and address have defaults and may be set before use.
#[derive(Clone)]
pub struct UpstreamConfig {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    pub(crate) address: Address,
    /// Sent as a bearer token.
    pub api_key: Option<SecretString>,
    /// Calls at once that the server works on; `None` when it is to be learned.
    pub slots: Option<u32>,
    /// Inputs of embeddings that it takes in one call; `None` for any number.
    pub max_embedding_inputs: Option<u32>,
    /// Until a connection stands.
    pub connect_timeout: Duration,
    /// From sending to the first event of a stream or the head of a whole answer.
    pub first_byte_timeout: Duration,
    /// Between two bytes after that.
    pub idle_timeout: Duration,
    /// Whether the server was started with priority scheduling.
    pub priority_enabled: bool,
    /// The name by which its chat calls read the limit of an answer's tokens.
    pub limit_name: LimitName,
    /// Whether its streams are asked for their usage; `false` for servers that refuse `stream_options`.
    pub stream_options: bool,
    /// Samples a second of sound that a server sends without a head.
    pub sample_rate: u32,
    /// What a server runs that does nothing else.
    pub workflow: Option<Arc<Workflow>>,
}

/// A setting of an upstream is wrong. The texts are for the operator.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The name is empty, long, or has other characters than letters, digits, `.`, `_` and `-`.
    #[error("`name` must have 1 to {MAX_NAME_BYTES} letters, digits, dots, dashes or underscores")]
    Name,
    /// Not an address that can be called.
    #[error("`base_url` must be http://HOST[:PORT][/PATH], https://… or unix:/PATH, without user, query and fragment")]
    BaseUrl,
    /// The key has characters that no header can carry.
    #[error("`api_key` must have printable ASCII characters only")]
    ApiKey,
    /// A number that must be positive is zero.
    #[error("`{0}` must be more than 0")]
    Zero(&'static str),
    /// Its kind runs workflows, and it has none; or it has one that its kind does not run.
    #[error("a workflow goes with kinds that run one, which need it")]
    Workflow,
}

/// The upstreams as configured cannot be used. The texts are for the operator.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FleetError {
    /// Two upstreams have the same name.
    #[error("upstream `{upstream}` is configured more than once")]
    Duplicate {
        /// Its name.
        upstream: String,
    },
    /// A setting is wrong.
    #[error("upstream `{upstream}`: {fault}")]
    Config {
        /// Its name.
        upstream: String,
        /// What is wrong.
        fault: ConfigError,
    },
    /// The address and the path of a call do not fit together.
    #[error("upstream `{upstream}`: no calls can be made below its `base_url`")]
    Address {
        /// Its name.
        upstream: String,
    },
    /// TLS cannot be set up.
    #[error("upstream `{upstream}`: TLS cannot be set up")]
    Tls {
        /// Its name.
        upstream: String,
    },
}

/// Whether an upstream may have this name.
pub fn is_name(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    !name.is_empty() && name.len() <= MAX_NAME_BYTES && name.bytes().all(is_plain)
}

impl UpstreamConfig {
    /// An upstream with default bounds. The address is `http://…`, `https://…` or `unix:/path`; without a path, calls
    /// go below `/v1`.
    pub fn new(name: &str, kind: Kind, base_url: &str) -> Result<Self, ConfigError> {
        if !is_name(name) {
            return Err(ConfigError::Name);
        }
        Ok(Self {
            name: name.to_owned(),
            kind,
            address: Address::parse(base_url)?,
            api_key: None,
            slots: None,
            max_embedding_inputs: None,
            connect_timeout: DEFAULT_CONNECT_TIMEOUT,
            first_byte_timeout: DEFAULT_FIRST_BYTE_TIMEOUT,
            idle_timeout: DEFAULT_IDLE_TIMEOUT,
            priority_enabled: false,
            limit_name: LimitName::default(),
            stream_options: true,
            sample_rate: USUAL_SAMPLE_RATE,
            workflow: None,
        })
    }

    /// The configured name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The program behind it.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Checks the fields that can be set freely.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let timeouts = [
            ("connect_timeout", self.connect_timeout),
            ("first_byte_timeout", self.first_byte_timeout),
            ("idle_timeout", self.idle_timeout),
        ];
        if let Some((name, _)) = timeouts.into_iter().find(|(_, timeout)| timeout.is_zero()) {
            return Err(ConfigError::Zero(name));
        }
        let counts = [
            ("slots", self.slots),
            ("max_embedding_inputs", self.max_embedding_inputs),
            ("sample_rate", Some(self.sample_rate)),
        ];
        if let Some((name, _)) = counts.into_iter().find(|(_, count)| *count == Some(0)) {
            return Err(ConfigError::Zero(name));
        }
        if self.kind.needs_workflow != self.workflow.is_some() {
            return Err(ConfigError::Workflow);
        }
        self.authorization().map(drop)
    }

    /// The header that carries the key.
    pub(crate) fn authorization(&self) -> Result<Option<HeaderValue>, ConfigError> {
        let Some(key) = &self.api_key else { return Ok(None) };
        let value = HeaderValue::try_from(format!("Bearer {}", key.expose_secret()));
        let mut value = value.map_err(|_| ConfigError::ApiKey)?;
        value.set_sensitive(true);
        Ok(Some(value))
    }
}

impl PartialEq for UpstreamConfig {
    fn eq(&self, other: &Self) -> bool {
        let key = |config: &Self| config.api_key.as_ref().map(|key| key.expose_secret().to_owned());
        let bounds = |config: &Self| {
            let timeouts = (config.connect_timeout, config.first_byte_timeout, config.idle_timeout);
            let counts = (config.slots, config.max_embedding_inputs, config.sample_rate);
            (counts, timeouts, config.priority_enabled, config.limit_name, config.stream_options)
        };
        (&self.name, self.kind, &self.address) == (&other.name, other.kind, &other.address)
            && bounds(self) == bounds(other)
            && self.workflow == other.workflow
            && key(self) == key(other)
    }
}

impl fmt::Debug for UpstreamConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UpstreamConfig").field("name", &self.name).field("kind", &self.kind).finish_non_exhaustive()
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Address::Http(_) => "Http",
            Address::Unix(_) => "Unix",
        })
    }
}

impl Address {
    fn parse(text: &str) -> Result<Self, ConfigError> {
        if let Some(path) = text.strip_prefix("unix:") {
            let path = PathBuf::from(path.strip_prefix("//").unwrap_or(path));
            return if path.is_absolute() { Ok(Address::Unix(path)) } else { Err(ConfigError::BaseUrl) };
        }
        let uri: Uri = text.trim_end_matches('/').parse().map_err(|_| ConfigError::BaseUrl)?;
        let web = uri.scheme().is_some_and(|scheme| *scheme == Scheme::HTTP || *scheme == Scheme::HTTPS);
        let plain = uri.authority().is_some_and(|authority| !authority.as_str().contains('@'));
        // A `Uri` drops a fragment while parsing, so the text is asked.
        if !web || !plain || uri.query().is_some() || text.contains('#') {
            return Err(ConfigError::BaseUrl);
        }
        Ok(Address::Http(uri))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_checked() {
        for good in ["http://h", "https://h:1/v1/", "http://[::1]:8000/a/v1", "unix:/tmp/s", "unix:///tmp/s"] {
            assert!(UpstreamConfig::new("a", Kind::OPENAI, good).is_ok(), "{good}");
        }
        for bad in
            ["", "h", "h:80", "ftp://h", "http://", "http://u:p@h", "http://h?q=1", "http://h/#x", "unix:s", "unix:"]
        {
            assert_eq!(UpstreamConfig::new("a", Kind::OPENAI, bad).err(), Some(ConfigError::BaseUrl), "{bad}");
        }
        for bad in ["", "a b", "é", &"a".repeat(65)] {
            assert_eq!(UpstreamConfig::new(bad, Kind::OPENAI, "http://h").err(), Some(ConfigError::Name), "{bad}");
        }
    }

    #[test]
    fn bounds_are_checked() {
        let config = UpstreamConfig::new("a", Kind::OPENAI, "http://h").unwrap();
        assert_eq!(config.validate(), Ok(()));
        let zero = UpstreamConfig { slots: Some(0), ..config.clone() };
        assert_eq!(zero.validate(), Err(ConfigError::Zero("slots")));
        let zero = UpstreamConfig { idle_timeout: Duration::ZERO, ..config.clone() };
        assert_eq!(zero.validate(), Err(ConfigError::Zero("idle_timeout")));
        let broken = UpstreamConfig { api_key: Some("a\nb".into()), ..config };
        assert_eq!(broken.validate(), Err(ConfigError::ApiKey));
    }

    #[test]
    fn debug_shows_neither_key_nor_address() {
        let mut config = UpstreamConfig::new("gpu-1", Kind::VLLM, "http://10.1.2.3:8000/v1").unwrap();
        config.api_key = Some("sk-secret".into());
        let shown = format!("{config:?} {:?}", config.address);
        assert!(shown.contains("gpu-1") && !shown.contains("secret") && !shown.contains("10.1"), "{shown}");
    }
}
