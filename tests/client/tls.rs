//! TLS: authorities, mutual TLS, names.

use super::{patience, report, target, with_client};
use crate::support::coordinator::{Coordinator, ID, Script};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use spectrald::ErrorKind;
use spectrald::config::Secret;
use spectrald::rpc::client::Target;
use tonic::transport::{Certificate, Identity, ServerTlsConfig};

/// An authority that signs certificates.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn pem(&self) -> String {
        self.0.pem()
    }

    /// Certificate and key for a name.
    fn signed(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        (params.signed_by(&key, &self.0).unwrap().pem(), key.serialize_pem())
    }
}

fn outcome(target: &Target) -> Result<String, (ErrorKind, String)> {
    with_client(target, patience(), async |client| {
        client.get(ID).await.map(|analysis| analysis.id).map_err(|e| (e.kind(), e.to_string()))
    })
}

#[test]
fn a_coordinator_is_known_by_its_certificate() {
    let authority = Authority::new();
    let (cert, key) = authority.signed("coordinator.test");
    let tls = ServerTlsConfig::new().identity(Identity::from_pem(cert, key));
    let coordinator = Coordinator::start_with_tls(&Script::of(report()), tls);
    let bare = target(&coordinator);
    let trusting = Target {
        ca: Some(authority.pem().into_bytes()),
        server_name: Some("coordinator.test".to_owned()),
        ..bare.clone()
    };
    assert_eq!(outcome(&trusting).as_deref(), Ok(ID));
    for wrong in [
        Target { ca: Some(Authority::new().pem().into_bytes()), ..trusting.clone() },
        Target { server_name: Some("elsewhere.test".to_owned()), ..trusting.clone() },
        Target { ca: None, ..trusting },
        bare,
    ] {
        let (kind, text) = outcome(&wrong).unwrap_err();
        assert_eq!(kind, ErrorKind::Unavailable, "{text}");
        assert!(text.contains("cannot reach a coordinator: "), "{text}");
    }
}

#[test]
fn a_client_is_known_by_its_certificate() {
    let (authority, clients) = (Authority::new(), Authority::new());
    let (cert, key) = authority.signed("localhost");
    let tls = ServerTlsConfig::new()
        .identity(Identity::from_pem(cert, key))
        .client_ca_root(Certificate::from_pem(clients.pem()));
    let coordinator = Coordinator::start_with_tls(&Script::of(report()), tls);
    let unknown = Target {
        addr: format!("https://localhost:{}", coordinator.address().port()),
        ca: Some(authority.pem().into_bytes()),
        ..Target::default()
    };
    let with = |signer: &Authority| {
        let (cert, key) = signer.signed("client");
        Target { cert: Some(cert.into_bytes()), key: Some(Secret::new(key)), ..unknown.clone() }
    };
    assert_eq!(outcome(&with(&clients)).as_deref(), Ok(ID));
    assert_eq!(outcome(&with(&authority)).unwrap_err().0, ErrorKind::Unavailable);
    assert_eq!(outcome(&unknown).unwrap_err().0, ErrorKind::Unavailable);
}
