//! TLS of the listener: certificates, key and authorities from files that are read again when they change.

use super::watched::Watched;
use crate::config::CoordinatorTls;
use crate::{Error, Result};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

/// Largest PEM file, in bytes.
const LONGEST_FILE: u64 = 4 << 20;

/// Makes acceptors from the newest files.
pub(super) struct Tls {
    watched: Watched<TlsAcceptor>,
}

impl Tls {
    /// Reads the files, which are looked at for changes no more often than `every`.
    pub(super) fn new(files: &CoordinatorTls, every: Duration) -> Result<Self> {
        let files = files.clone();
        let mut paths: Vec<PathBuf> = vec![files.cert.clone(), files.key.clone()];
        paths.extend(files.client_ca.clone());
        Ok(Self { watched: Watched::new("tls", paths, every, move || acceptor(&files))? })
    }

    /// The acceptor for a new connection.
    pub(super) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::clone(&self.watched.get())
    }
}

fn acceptor(files: &CoordinatorTls) -> Result<TlsAcceptor> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let wrong =
        |error: &dyn std::fmt::Display, file: &Path| Error::invalid(format!("{}: {error}", file.display()));
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| wrong(&error, &files.cert))?;
    let builder = match &files.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(path)? {
                roots.add(certificate).map_err(|error| wrong(&error, path))?;
            }
            // Users come with tokens and without a certificate; one that is shown must be right.
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            let verifier = verifier.allow_unauthenticated().build().map_err(|error| wrong(&error, path))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let chain = certificates(&files.cert)?;
    let key = private_key(&files.key)?;
    let mut config = builder.with_single_cert(chain, key).map_err(|error| wrong(&error, &files.key))?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    // A resumed session is not verified again: it could outlive a certificate or an authority.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// The bytes of a PEM file.
pub(super) fn read(path: &Path) -> Result<Vec<u8>> {
    let wrong = |what: String| Error::invalid(format!("{}: {what}", path.display()));
    let data = std::fs::metadata(path).map_err(|error| wrong(format!("cannot be read: {error}")))?;
    if !data.is_file() || data.len() > LONGEST_FILE {
        return Err(wrong(format!("not a regular file of at most {LONGEST_FILE} bytes")));
    }
    std::fs::read(path).map_err(|error| wrong(format!("cannot be read: {error}")))
}

/// All certificates of a PEM file, at least one.
pub(super) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let bytes = read(path)?;
    let found: std::result::Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err(Error::invalid(format!("{}: holds no certificate in PEM form", path.display()))),
        Err(error) => Err(Error::invalid(format!("{}: not PEM: {error}", path.display()))),
    }
}

/// The private key of a PEM file. What is wrong with it is not said in detail.
pub(super) fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>> {
    let bytes = read(path)?;
    PrivateKeyDer::from_pem_slice(&bytes)
        .map_err(|_| Error::invalid(format!("{}: holds no private key in PEM form", path.display())))
}
