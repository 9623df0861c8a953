//! Every method, called by everybody: the auth matrix, over TLS.

use super::{Cluster, call, told, write};
use prost::Message as _;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};
use spectrald::guard::{METHODS, new_token};
use spectrald::rpc::proto::DESCRIPTORS;
use std::path::Path;
use tempfile::TempDir;
use tonic::Code;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

/// A method of the public API and the least role that may call it.
const NEEDED: &[(&str, &str)] = &[
    ("/spectrald.v1.AnalysisService/CreateAnalysis", "submit"),
    ("/spectrald.v1.AnalysisService/GetAnalysis", "read"),
    ("/spectrald.v1.AnalysisService/ListAnalyses", "read"),
    ("/spectrald.v1.AnalysisService/WatchAnalysis", "read"),
    ("/spectrald.v1.AnalysisService/CancelAnalysis", "submit"),
    ("/spectrald.v1.AnalysisService/ListLayerResults", "read"),
    ("/spectrald.v1.AnalysisService/StreamLayerResults", "read"),
    ("/spectrald.v1.AnalysisService/StreamSpectrum", "read"),
    ("/spectrald.v1.AnalysisService/DescribeModel", "submit"),
    ("/spectrald.v1.UploadService/BeginUpload", "submit"),
    ("/spectrald.v1.UploadService/UploadChunk", "submit"),
    ("/spectrald.v1.UploadService/FinishUpload", "submit"),
    ("/spectrald.v1.UploadService/AbortUpload", "submit"),
    ("/spectrald.v1.WorkerService/ListWorkers", "read"),
    ("/spectrald.v1.WorkerService/DrainWorker", "admin"),
    ("/spectrald.v1.SystemService/GetStatus", "read"),
    ("/spectrald.worker.v1.TaskService/Report", "worker"),
    ("/spectrald.worker.v1.TaskService/Lookup", "worker"),
    ("/spectrald.worker.v1.TaskService/ListObjects", "worker"),
    ("/spectrald.worker.v1.TaskService/ReadObject", "worker"),
    ("/spectrald.worker.v1.TaskService/SendSpectrum", "worker"),
    ("/spectrald.worker.v1.TaskService/SendPartialGram", "worker"),
    ("/spectrald.worker.v1.TaskService/ReadGramSum", "worker"),
    ("/grpc.health.v1.Health/Check", "nobody"),
    ("/grpc.health.v1.Health/Watch", "nobody"),
    ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", "read"),
    ("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", "read"),
];

const ROLES: [&str; 4] = ["read", "submit", "admin", "worker"];

/// Whether a caller with `role` may call what needs `needed`.
fn may(role: &str, needed: &str) -> bool {
    let rank = |role: &str| ["read", "submit", "admin"].iter().position(|other| *other == role);
    match (rank(role), rank(needed)) {
        _ if needed == "nobody" => true,
        (Some(has), Some(needs)) => has >= needs,
        _ => role == needed,
    }
}

/// Paths of all methods of proto/.
fn described() -> Vec<String> {
    let set = prost_types::FileDescriptorSet::decode(DESCRIPTORS).unwrap();
    let mut paths = Vec::new();
    for file in &set.file {
        for service in &file.service {
            for method in &service.method {
                paths.push(format!("/{}.{}/{}", file.package(), service.name(), method.name()));
            }
        }
    }
    paths.sort();
    paths
}

#[test]
fn no_method_is_forgotten() {
    let paths = described();
    assert!(paths.len() >= 20, "{paths:?}");
    let mut listed: Vec<&str> =
        NEEDED.iter().map(|(path, _)| *path).filter(|path| path.starts_with("/spectrald.")).collect();
    listed.sort_unstable();
    assert_eq!(listed, paths, "the table of this test is that of proto/");
    for path in &paths {
        let (service, method) = path.trim_start_matches('/').split_once('/').unwrap();
        let ruled = |of: &str, name: &str| of == service && (name == method || name == "*");
        assert!(METHODS.iter().any(|(of, name, _)| ruled(of, name)), "the guard has no rule for {path}");
    }
    for (service, method, _) in METHODS.iter().filter(|(service, ..)| service.starts_with("spectrald.")) {
        let path = format!("/{service}/{}", method.trim_matches('*'));
        assert!(paths.iter().any(|other| other.starts_with(&path)), "{path} is ruled and does not exist");
    }
}

struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// Certificate and key for `localhost`, valid from 2000 to the first day of that year.
    fn issue(&self, until: i32) -> (String, String) {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.not_before = date_time_ymd(2000, 1, 1);
        params.not_after = date_time_ymd(until, 1, 1);
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.0).unwrap().pem(), key.serialize_pem())
    }
}

/// A coordinator with TLS, certificates of clients and a token for each role.
struct Guarded {
    cluster: Cluster,
    authority: Authority,
    /// Of each role.
    tokens: Vec<(&'static str, String)>,
}

fn token_file(folder: &Path) -> (String, Vec<(&'static str, String)>) {
    let (mut file, mut tokens) = (String::new(), Vec::new());
    for role in ROLES {
        let (secret, sha256) = new_token().unwrap();
        file.push_str(&format!(
            "[[token]]\nname = \"{role}\"\nsha256 = \"{sha256}\"\nroles = [\"{role}\"]\n"
        ));
        tokens.push((role, secret.expose().to_owned()));
    }
    (write(folder, "tokens.toml", file), tokens)
}

impl Guarded {
    fn start() -> Self {
        let (folder, authority) = (TempDir::new().unwrap(), Authority::new());
        let at = folder.path();
        let (certificate, key) = authority.issue(2999);
        let (tokens_file, tokens) = token_file(at);
        let (cert, key) = (write(at, "server.crt", certificate), write(at, "server.key", key));
        let ca = write(at, "ca.crt", authority.0.pem());
        let file = format!(
            "[coordinator]\ntokens_file = {tokens_file:?}\n\
             [coordinator.tls]\ncert = {cert:?}\nkey = {key:?}\nclient_ca = {ca:?}\n"
        );
        Self { cluster: Cluster::start(folder, &file), authority, tokens }
    }

    fn channel(&self, identity: Option<(String, String)>) -> Channel {
        let mut tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(self.authority.0.pem()))
            .domain_name("localhost");
        if let Some((certificate, key)) = identity {
            tls = tls.identity(Identity::from_pem(certificate, key));
        }
        let _inside = self.cluster.runtime.as_ref().unwrap().enter();
        let endpoint = Endpoint::from_shared(format!("https://{}", self.cluster.address)).unwrap();
        endpoint.tls_config(tls).unwrap().connect_lazy()
    }

    /// Code and reason of a refusal by the guard; `None`: the handler was reached.
    fn refusal(&self, channel: &Channel, path: &str, token: Option<&str>) -> Option<(Code, String)> {
        match self.cluster.wait(call(channel.clone(), path, token)) {
            Ok(()) => None,
            Err(status) => {
                let (code, reason, _) = match status.code() {
                    // What a handler says of an empty message is no matter of this test.
                    Code::InvalidArgument => (status.code(), String::new(), String::new()),
                    _ => told(&status),
                };
                let of_guard = ["NO_CREDENTIALS", "BAD_TOKEN", "ROLE_MISSING", "METHOD_UNKNOWN"];
                let broken = [Code::Unimplemented, Code::Unavailable, Code::Internal, Code::Unknown];
                // Nor is it that a handler says so of an analysis that it does not know; a broken connection has no reason.
                let said = code == Code::Unavailable && reason == "UNAVAILABLE";
                let counts = of_guard.contains(&reason.as_str()) || (broken.contains(&code) && !said);
                counts.then_some((code, reason))
            }
        }
    }
}

fn missing_role() -> Option<(Code, String)> {
    Some((Code::PermissionDenied, "ROLE_MISSING".to_owned()))
}

#[test]
fn each_method_is_for_its_roles_alone() {
    let guarded = Guarded::start();
    let plain = guarded.channel(None);
    let mut wrong = Vec::new();
    for (path, needed) in NEEDED {
        for (role, token) in &guarded.tokens {
            let expected = if may(role, needed) { None } else { missing_role() };
            let answer = guarded.refusal(&plain, path, Some(token));
            if answer != expected {
                wrong.push(format!("{path} as {role}: {answer:?}, not {expected:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn nobody_is_let_in_without_credentials_or_with_wrong_ones() {
    let guarded = Guarded::start();
    let plain = guarded.channel(None);
    let (other, _) = new_token().unwrap();
    let read = guarded.tokens[0].1.clone();
    let nearly = format!("{}x", read.get(..read.len() - 1).unwrap());
    let mut wrong = Vec::new();
    for (path, needed) in NEEDED {
        for (what, token, reason) in [
            ("without credentials", None, "NO_CREDENTIALS"),
            ("with another token", Some(other.expose()), "BAD_TOKEN"),
            ("with a token that is nearly right", Some(nearly.as_str()), "BAD_TOKEN"),
            ("with the name of a token", Some("admin"), "BAD_TOKEN"),
        ] {
            let expected = (*needed != "nobody").then(|| (Code::Unauthenticated, reason.to_owned()));
            let answer = guarded.refusal(&plain, path, token);
            if answer != expected {
                wrong.push(format!("{path} {what}: {answer:?}, not {expected:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_certificate_is_a_workers_and_must_be_valid() {
    let guarded = Guarded::start();
    let valid = guarded.channel(Some(guarded.authority.issue(2999)));
    let expired = guarded.channel(Some(guarded.authority.issue(2001)));
    let foreign = guarded.channel(Some(Authority::new().issue(2999)));
    for (path, needed) in NEEDED {
        let expected = if may("worker", needed) { None } else { missing_role() };
        assert_eq!(guarded.refusal(&valid, path, None), expected, "{path} with a certificate");
        // The connection is refused, even to those who show a right token besides.
        let token = &guarded.tokens[2].1;
        for (channel, what) in [(&expired, "expired"), (&foreign, "foreign")] {
            let status = guarded.cluster.wait(call(channel.clone(), path, Some(token))).unwrap_err();
            let of_transport = std::error::Error::source(&status).is_some();
            assert!(of_transport, "{path}, {what}: {status:?}");
            assert_eq!(told(&status).1, "", "no handler and no guard has seen the call");
        }
    }
}

#[test]
fn a_method_that_does_not_exist_is_told_to_the_known_alone() {
    let guarded = Guarded::start();
    let plain = guarded.channel(None);
    let admin = Some(guarded.tokens[2].1.as_str());
    for path in ["/spectrald.v1.AnalysisService/DeleteAll", "/spectrald.v2.AnalysisService/GetAnalysis"] {
        let unknown = Some((Code::Unimplemented, "METHOD_UNKNOWN".to_owned()));
        assert_eq!(guarded.refusal(&plain, path, admin), unknown, "{path}");
        let nobody = Some((Code::Unauthenticated, "NO_CREDENTIALS".to_owned()));
        assert_eq!(guarded.refusal(&plain, path, None), nobody, "{path}");
    }
}
