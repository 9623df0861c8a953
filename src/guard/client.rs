//! What a worker or client needs to be let in: TLS and a token.

use super::tls::{certificates, private_key, read};
use crate::config::{Secret, WorkerTls};
use crate::{Error, Result};
use std::path::Path;
use tonic::transport::{Certificate, ClientTlsConfig, Identity};

/// TLS towards a coordinator whose URL begins with `https://`.
///
/// # Errors
/// `InvalidArgument` that names a file which cannot be read or is not what it should be.
pub fn client_tls(tls: &WorkerTls) -> Result<ClientTlsConfig> {
    let mut config = match &tls.ca {
        None => ClientTlsConfig::new().with_native_roots(),
        Some(path) => {
            certificates(path)?;
            ClientTlsConfig::new().ca_certificate(Certificate::from_pem(read(path)?))
        }
    };
    if let (Some(cert), Some(key)) = (&tls.cert, &tls.key) {
        certificates(cert)?;
        private_key(key)?;
        config = config.identity(Identity::from_pem(read(cert)?, read(key)?));
    }
    if let Some(name) = &tls.server_name {
        config = config.domain_name(name);
    }
    Ok(config)
}

/// The token in a file: its only line.
///
/// # Errors
/// `InvalidArgument` if the file cannot be read, or holds none or something that no header can carry.
pub fn read_token(path: &Path) -> Result<Secret> {
    let text = String::from_utf8(read(path)?).unwrap_or_default();
    let token = text.trim();
    if token.is_empty() || !token.bytes().all(|c| c.is_ascii_graphic()) {
        let what = format!("{}: must hold one line with a token", path.display());
        return Err(Error::invalid(what));
    }
    Ok(Secret::new(token))
}
