//! Who calls, and whether he may.

use super::listen::PeerInfo;
use super::required::{Required, required};
use super::role::{Role, Roles};
use super::tokens::Tokens;
use crate::config::Coordinator;
use crate::{Error, Result};
use http::HeaderMap;
use http::header::AUTHORIZATION;
use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

/// The domain of our `google.rpc.ErrorInfo`.
pub const DOMAIN: &str = "spectrald";

/// Who calls: found in the extensions of each request that was let in with credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The token's name, the certificate's fingerprint, or `loopback`.
    pub name: String,
    /// What he may do.
    pub roles: Roles,
    /// How we know.
    pub how: How,
}

/// How a caller is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum How {
    /// By calling from this machine where no authentication is configured.
    Loopback,
    /// By the token of this name.
    Token(String),
    /// By a certificate that a configured authority vouches for; its SHA-256 in hexadecimal.
    Certificate(String),
}

/// Why a call was refused. It holds no secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The gRPC code.
    pub code: Code,
    /// The reason word of the answer's `ErrorInfo`: `NO_CREDENTIALS`, `BAD_TOKEN`, `ROLE_MISSING`, `METHOD_UNKNOWN`.
    pub reason: &'static str,
    /// One line for people.
    pub message: String,
    /// Who called, where that is known.
    pub caller: Option<String>,
}

impl Refusal {
    fn unauthenticated(reason: &'static str, message: &str) -> Self {
        Self { code: Code::Unauthenticated, reason, message: message.to_owned(), caller: None }
    }

    /// The status of the answer, with a `google.rpc.ErrorInfo`.
    pub fn into_status(self) -> Status {
        let details = ErrorDetails::with_error_info(self.reason, DOMAIN, HashMap::new());
        Status::with_error_details(self.code, self.message, details)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.reason, self.message)
    }
}

/// The rules of one listener.
#[derive(Debug)]
pub struct Policy {
    tokens: Option<Tokens>,
    /// Certificates of clients are verified.
    client_ca: bool,
}

impl Policy {
    /// Rules for `listener`: with neither tokens nor certificates of clients everybody may do everything, which is
    /// for loopback alone.
    ///
    /// # Errors
    /// `InvalidArgument` if there is no authentication and `listener` is not loopback.
    pub fn new(tokens: Option<Tokens>, client_ca: bool, listener: SocketAddr) -> Result<Self> {
        if tokens.is_none() && !client_ca && !listener.ip().to_canonical().is_loopback() {
            return Err(Error::invalid(format!(
                "{listener} is not loopback, and there is no authentication: set a token file or client_ca"
            )));
        }
        Ok(Self { tokens, client_ca })
    }

    /// The rules that the configuration asks for.
    ///
    /// # Errors
    /// Those of [`Policy::new`] and of [`Tokens::load`].
    pub fn from_config(coordinator: &Coordinator) -> Result<Self> {
        let tokens = coordinator.tokens_file.as_deref().map(Tokens::load).transpose()?;
        let client_ca = coordinator.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some());
        Self::new(tokens, client_ca, coordinator.listen)
    }

    /// Whether everybody may do everything.
    pub fn is_open(&self) -> bool {
        self.tokens.is_none() && !self.client_ca
    }

    /// Who sent a request with these headers over the connection of `peer`. A token counts before a certificate.
    ///
    /// # Errors
    /// [`Refusal`] with `NO_CREDENTIALS` or `BAD_TOKEN`.
    pub fn authenticate(
        &self,
        headers: &HeaderMap,
        peer: Option<&PeerInfo>,
    ) -> std::result::Result<Caller, Refusal> {
        if self.is_open() {
            return Ok(Caller { name: "loopback".to_owned(), roles: Roles::ALL, how: How::Loopback });
        }
        let mut given = headers.get_all(AUTHORIZATION).iter();
        if let Some(value) = given.next() {
            let bad = || Refusal::unauthenticated("BAD_TOKEN", "the bearer token is not known");
            if given.next().is_some() {
                return Err(Refusal::unauthenticated("BAD_TOKEN", "more than one authorization header"));
            }
            let token = bearer(value.as_bytes()).ok_or_else(|| {
                Refusal::unauthenticated("BAD_TOKEN", "the authorization header must read 'Bearer TOKEN'")
            })?;
            let (name, roles) = self.tokens.as_ref().and_then(|tokens| tokens.find(token)).ok_or_else(bad)?;
            return Ok(Caller { name: name.clone(), roles, how: How::Token(name) });
        }
        if let Some(fingerprint) = peer.and_then(PeerInfo::fingerprint).filter(|_| self.client_ca) {
            let roles = Roles::NONE.with(Role::Worker);
            return Ok(Caller {
                name: fingerprint.to_owned(),
                roles,
                how: How::Certificate(fingerprint.to_owned()),
            });
        }
        let message = if self.client_ca {
            "no credentials: send 'authorization: Bearer TOKEN', or, as a worker, a client certificate"
        } else {
            "no credentials: send 'authorization: Bearer TOKEN'"
        };
        Err(Refusal::unauthenticated("NO_CREDENTIALS", message))
    }

    /// Whether the call of `path` may go on, and who calls (`None` where the method is anybody's and nobody is known).
    ///
    /// # Errors
    /// Those of [`Policy::authenticate`]; `ROLE_MISSING` (PERMISSION_DENIED) if the caller lacks the method's role;
    /// `METHOD_UNKNOWN` (UNIMPLEMENTED) if the method is not listed.
    pub fn authorize(
        &self,
        path: &str,
        headers: &HeaderMap,
        peer: Option<&PeerInfo>,
    ) -> std::result::Result<Option<Caller>, Refusal> {
        let needed = required(path);
        let caller = self.authenticate(headers, peer);
        match needed {
            Required::Anyone => Ok(caller.ok()),
            Required::Role(role) => {
                let caller = caller?;
                if caller.roles.allows(role) {
                    return Ok(Some(caller));
                }
                let message = format!("this method needs the role '{role}', and you have '{}'", caller.roles);
                Err(Refusal {
                    code: Code::PermissionDenied,
                    reason: "ROLE_MISSING",
                    message,
                    caller: Some(caller.name),
                })
            }
            Required::Unknown => Err(Refusal {
                code: Code::Unimplemented,
                reason: "METHOD_UNKNOWN",
                message: "there is no such method".to_owned(),
                caller: Some(caller?.name),
            }),
        }
    }
}

/// The token of `Bearer TOKEN`; the scheme's case does not matter (RFC 9110, section 11.1).
fn bearer(value: &[u8]) -> Option<&str> {
    let (scheme, token) = std::str::from_utf8(value).ok()?.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}
