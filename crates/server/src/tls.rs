//! Holds: the server's own certificate.
//!
//! Speaks no HTTP and accepts no connection. A reload that fails leaves the old certificate in force.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use batchin_config::TlsFiles;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem};
use rustls::{DigitallySignedStruct, ServerConfig, SignatureScheme};

/// What is offered to clients, the preferred first.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// Why certificate and key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Not PEM, or not of the right kind.
    #[error("{} holds no {wanted} in PEM", path.display())]
    NotPem {
        /// Which file.
        path: PathBuf,
        /// What it should hold.
        wanted: &'static str,
    },
    /// Readable, and unusable: a key that is not the certificate's, or of an unknown kind.
    #[error("certificate {} and its key cannot be used together", certificate.display())]
    Unusable {
        /// Which certificate.
        certificate: PathBuf,
        /// Why.
        #[source]
        source: rustls::Error,
    },
}

/// The certificate in force, exchanged by [`Certificate::reload`].
#[derive(Debug)]
pub struct Certificate {
    files: TlsFiles,
    current: ArcSwap<ServerConfig>,
}

impl Certificate {
    /// Reads the files.
    pub fn new(files: TlsFiles) -> Result<Self, TlsError> {
        let current = ArcSwap::new(load(&files)?);
        Ok(Self { files, current })
    }

    /// What a new connection is accepted with; connections already open keep theirs.
    pub fn current(&self) -> Arc<ServerConfig> {
        self.current.load_full()
    }

    /// Reads the files again. On an error the old certificate stays in force.
    pub fn reload(&self) -> Result<(), TlsError> {
        self.current.store(load(&self.files)?);
        Ok(())
    }
}

/// Makes ring the cryptography of the whole process. A second call changes nothing.
pub fn install_crypto_provider() {
    if CryptoProvider::get_default().is_none() {
        // Fails only when another thread was quicker, and then there is one.
        let _ = ring::default_provider().install_default();
    }
}

/// Reads certificate and key, for HTTP/2 and HTTP/1.1.
pub fn load(files: &TlsFiles) -> Result<Arc<ServerConfig>, TlsError> {
    let chain = chain(&files.certificate)?;
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|error| unreadable(error, &files.key, "private key"))?;
    let unusable = |source| TlsError::Unusable { certificate: files.certificate.clone(), source };
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(unusable)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(unusable)?;
    config.alpn_protocols = PROTOCOLS.iter().map(|protocol| protocol.to_vec()).collect();
    Ok(Arc::new(config))
}

/// A client that believes any certificate: only for asking whether somebody is there.
pub(crate) fn blind_client(address: std::net::IpAddr) -> Result<rustls::ClientConnection, rustls::Error> {
    let provider = Arc::new(ring::default_provider());
    let verifier = Arc::new(Blind(provider.signature_verification_algorithms.supported_schemes()));
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    rustls::ClientConnection::new(Arc::new(config), ServerName::IpAddress(address.into()))
}

#[derive(Debug)]
struct Blind(Vec<SignatureScheme>);

impl ServerCertVerifier for Blind {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.clone()
    }
}

fn chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    const WANTED: &str = "certificate";
    let chain = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| unreadable(error, path, WANTED))?;
    if chain.is_empty() { Err(TlsError::NotPem { path: path.to_owned(), wanted: WANTED }) } else { Ok(chain) }
}

fn unreadable(error: pem::Error, path: &Path, wanted: &'static str) -> TlsError {
    match error {
        pem::Error::Io(source) => TlsError::Unreadable { path: path.to_owned(), source },
        _ => TlsError::NotPem { path: path.to_owned(), wanted },
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn write_certificate(files: &TlsFiles) {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        fs::write(&files.certificate, made.cert.pem()).unwrap();
        fs::write(&files.key, made.signing_key.serialize_pem()).unwrap();
    }

    fn files(folder: &tempfile::TempDir) -> TlsFiles {
        TlsFiles { certificate: folder.path().join("cert.pem"), key: folder.path().join("key.pem") }
    }

    #[test]
    fn a_certificate_is_loaded_and_exchanged() {
        let folder = tempfile::tempdir().unwrap();
        let files = files(&folder);
        write_certificate(&files);
        let certificate = Certificate::new(files.clone()).unwrap();
        let first = certificate.current();
        assert_eq!(first.alpn_protocols, [b"h2".to_vec(), b"http/1.1".to_vec()]);
        write_certificate(&files);
        certificate.reload().unwrap();
        let second = certificate.current();
        assert!(!Arc::ptr_eq(&first, &second));
        fs::write(&files.key, "nonsense").unwrap();
        assert!(matches!(certificate.reload(), Err(TlsError::NotPem { wanted: "private key", .. })));
        assert!(Arc::ptr_eq(&second, &certificate.current()), "a failed reload changes nothing");
    }

    #[test]
    fn each_fault_has_its_own_error() {
        let folder = tempfile::tempdir().unwrap();
        let files = files(&folder);
        assert!(matches!(load(&files), Err(TlsError::Unreadable { .. })));
        write_certificate(&files);
        fs::write(&files.certificate, "").unwrap();
        assert!(matches!(load(&files), Err(TlsError::NotPem { wanted: "certificate", .. })));
        write_certificate(&files);
        let other = tempfile::tempdir().unwrap();
        let foreign = TlsFiles { certificate: files.certificate, key: other.path().join("key.pem") };
        write_certificate(&TlsFiles { certificate: other.path().join("cert.pem"), key: foreign.key.clone() });
        assert!(matches!(load(&foreign), Err(TlsError::Unusable { .. })));
    }
}
