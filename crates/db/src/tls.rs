//! Holds: what a URL of PostgreSQL says about its connections, and TLS by the modes of libpq.
//!
//! `sslmode` is `disable`, `prefer` (the default: TLS where the server has it), `require`, `verify-ca` or `verify-full`; only
//! the last two look at the certificate. `sslrootcert`, `sslcert` and `sslkey` name PEM files. PostgreSQL, "SSL Support" in
//! the manual of libpq.

use std::{path::PathBuf, str::FromStr as _, sync::Arc};

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject as _},
};
use tokio_postgres::{Config, config::SslMode};
use tokio_postgres_rustls::MakeRustlsConnect;

/// What is wrong with a URL of PostgreSQL.
#[derive(Debug, thiserror::Error)]
pub enum UrlError {
    /// A part that is not known, or not like this.
    #[error("it is no URL of PostgreSQL")]
    Part(#[source] tokio_postgres::Error),
    /// No mode of TLS.
    #[error("sslmode must be disable, prefer, require, verify-ca or verify-full")]
    Mode,
    /// A file that is not there, or holds nothing of the kind.
    #[error("{parameter}: {} holds no PEM that can be used", .path.display())]
    Pem {
        /// Which parameter names it.
        parameter: &'static str,
        /// The file.
        path: PathBuf,
    },
    /// A certificate without its key, or with another's.
    #[error("sslcert and sslkey belong together")]
    Identity,
    /// No certificate can be looked at.
    #[error("there are no root certificates; name a file with sslrootcert")]
    NoRoots,
}

/// How connections speak TLS.
pub(crate) struct Tls(ClientConfig);

impl Tls {
    pub(crate) fn connector(self) -> MakeRustlsConnect {
        MakeRustlsConnect::new(self.0)
    }
}

/// How much of a server's certificate is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Checked {
    Nothing,
    Chain,
    ChainAndName,
}

/// The parameters that are ours to understand.
#[derive(Default)]
struct Parameters {
    mode: Option<String>,
    root: Option<PathBuf>,
    cert: Option<PathBuf>,
    key: Option<PathBuf>,
}

/// What a URL says.
pub(crate) fn config_of(url: &str) -> Result<(Config, Tls), UrlError> {
    let (plain, ours) = split(url);
    let mut config = Config::from_str(&plain).map_err(UrlError::Part)?;
    let (mode, checked) = match ours.mode.as_deref() {
        None | Some("prefer") => (SslMode::Prefer, Checked::Nothing),
        Some("disable" | "allow") => (SslMode::Disable, Checked::Nothing),
        Some("require") => (SslMode::Require, Checked::Nothing),
        Some("verify-ca") => (SslMode::Require, Checked::Chain),
        Some("verify-full") => (SslMode::Require, Checked::ChainAndName),
        Some(_) => return Err(UrlError::Mode),
    };
    config.ssl_mode(mode);
    Ok((config, Tls(client(checked, ours)?)))
}

/// Takes our parameters out of a URL.
fn split(url: &str) -> (String, Parameters) {
    let mut ours = Parameters::default();
    let Some((base, query)) = url.split_once('?') else { return (url.to_owned(), ours) };
    let mut theirs = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let decoded = form_urlencoded::parse(pair.as_bytes()).next().unwrap_or_default();
        let value = decoded.1.into_owned();
        match &*decoded.0 {
            "sslmode" | "ssl-mode" => ours.mode = Some(value),
            "sslrootcert" | "ssl-root-cert" | "ssl-ca" => ours.root = Some(value.into()),
            "sslcert" | "ssl-cert" => ours.cert = Some(value.into()),
            "sslkey" | "ssl-key" => ours.key = Some(value.into()),
            _ => theirs.push(pair),
        }
    }
    let plain = if theirs.is_empty() { base.to_owned() } else { format!("{base}?{}", theirs.join("&")) };
    (plain, ours)
}

fn client(checked: Checked, ours: Parameters) -> Result<ClientConfig, UrlError> {
    let provider = Arc::new(ring::default_provider());
    let versions = ClientConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions();
    // ring has all that the default versions need.
    let builder = versions.map_err(|_| UrlError::NoRoots)?;
    let builder = if checked == Checked::ChainAndName {
        builder.with_root_certificates(roots(ours.root)?)
    } else {
        let chain = match checked {
            Checked::Nothing => None,
            _ => {
                let verifier =
                    WebPkiServerVerifier::builder_with_provider(roots(ours.root)?.into(), Arc::clone(&provider));
                Some(verifier.build().map_err(|_| UrlError::NoRoots)?)
            }
        };
        builder.dangerous().with_custom_certificate_verifier(Arc::new(Lenient { chain, provider }))
    };
    match (ours.cert, ours.key) {
        (None, None) => Ok(builder.with_no_client_auth()),
        (Some(cert), Some(key)) => {
            let chain = certificates("sslcert", cert)?;
            let fault = |_| UrlError::Pem { parameter: "sslkey", path: key.clone() };
            let key = PrivateKeyDer::from_pem_file(&key).map_err(fault)?;
            builder.with_client_auth_cert(chain, key).map_err(|_| UrlError::Identity)
        }
        _ => Err(UrlError::Identity),
    }
}

fn roots(named: Option<PathBuf>) -> Result<RootCertStore, UrlError> {
    let mut roots = RootCertStore::empty();
    let found = match named {
        Some(file) => certificates("sslrootcert", file)?,
        None => rustls_native_certs::load_native_certs().certs,
    };
    roots.add_parsable_certificates(found);
    if roots.is_empty() { Err(UrlError::NoRoots) } else { Ok(roots) }
}

fn certificates(parameter: &'static str, path: PathBuf) -> Result<Vec<CertificateDer<'static>>, UrlError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_file_iter(&path).and_then(|certificates| certificates.collect());
    found.ok().filter(|found| !found.is_empty()).ok_or(UrlError::Pem { parameter, path })
}

/// Looks at a certificate's chain, or at nothing; never at the name. That its server has the key is always seen.
#[derive(Debug)]
struct Lenient {
    chain: Option<Arc<WebPkiServerVerifier>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Lenient {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Some(chain) = &self.chain else { return Ok(ServerCertVerified::assertion()) };
        match chain.verify_server_cert(end_entity, intermediates, name, ocsp, now) {
            // The chain is looked at before the name.
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            looked => looked,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;

    fn fault(url: &str) -> String {
        config_of(url).err().expect("it is refused").to_string()
    }

    #[test]
    fn libpqs_modes_are_known_and_its_own_parameters_stay() {
        let (config, _) = config_of("postgres://u:p%40@h:1/d?sslmode=require&application_name=a").unwrap();
        assert_eq!((config.get_ssl_mode(), config.get_password()), (SslMode::Require, Some(&b"p@"[..])));
        assert_eq!(config.get_application_name(), Some("a"));
        let (config, _) = config_of("postgres://u@h/d").unwrap();
        assert_eq!(config.get_ssl_mode(), SslMode::Prefer);
        let (config, _) = config_of("postgres://u@a:1,b:2/d?target_session_attrs=read-write&sslmode=disable").unwrap();
        assert_eq!((config.get_hosts().len(), config.get_ssl_mode()), (2, SslMode::Disable));
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        assert!(fault("postgres://h/d?sslmode=yes").contains("verify-full"));
        let missing = fault("postgres://h/d?sslmode=verify-full&sslrootcert=/no/such.pem");
        assert_eq!(missing, "sslrootcert: /no/such.pem holds no PEM that can be used");
        assert_eq!(fault("postgres://h/d?sslcert=/no/such.pem"), "sslcert and sslkey belong together");
        let Err(UrlError::Part(cause)) = config_of("postgres://h/d?nonsense=1") else { panic!("it is refused") };
        assert_eq!(cause.source().unwrap().to_string(), "unknown option `nonsense`");
    }
}
