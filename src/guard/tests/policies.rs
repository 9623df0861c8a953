//! Tokens, roles and refusals.

use crate::guard::testing::{Stub, finish, reason, request};
use crate::guard::*;
use http::{HeaderMap, HeaderValue};
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tonic::Code;
use tower::{Layer as _, ServiceExt as _};
use tracing_subscriber::fmt::MakeWriter;

const LOOPBACK: &str = "127.0.0.1:7600";
const ELSEWHERE: &str = "10.0.0.1:7600";

/// Tokens of every role, written to `file`; gives the secrets of read, submit, admin, worker, read + worker.
fn tokens(file: &Path) -> [String; 5] {
    let mut text = String::new();
    let secrets =
        ["\"read\"", "\"submit\"", "\"admin\"", "\"worker\"", "\"read\", \"worker\""].map(|roles| {
            let (secret, sha256) = new_token().unwrap();
            let name = roles.replace(['"', ' '], "").replace(',', "-");
            text.push_str(&format!(
                "[[token]]\nname = \"{name}\"\nsha256 = \"{sha256}\"\nroles = [{roles}]\n"
            ));
            secret.expose().to_owned()
        });
    fs::write(file, text).unwrap();
    secrets
}

fn headers(token: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert("authorization", HeaderValue::from_str(&format!("Bearer {token}")).unwrap());
    headers
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

#[test]
fn a_new_token_is_long_random_and_stored_hashed() {
    let (one, other) = (new_token().unwrap(), new_token().unwrap());
    let secret = one.0.expose();
    assert!(secret.starts_with("spd_") && secret.len() == 47 && secret != other.0.expose());
    assert!(secret.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'_' || c == b'-'));
    assert!(one.1.len() == 64 && !one.1.contains(secret));
    assert_eq!(format!("{:?}", one.0), "***");
}

#[test]
fn each_method_needs_its_role_and_nothing_else_helps() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tokens");
    let secrets = tokens(&file);
    let policy = Policy::new(Some(Tokens::load(&file).unwrap()), true, address(ELSEWHERE)).unwrap();
    let mut seen = 0;
    for (service, method, needs) in METHODS {
        let path = format!("/{service}/{}", if *method == "*" { "Anything" } else { method });
        let may = |headers: &HeaderMap| policy.authorize(&path, headers, None);
        let allowed = match needs {
            Required::Anyone => [true; 5],
            Required::Role(Role::Read) => [true, true, true, false, true],
            Required::Role(Role::Submit) => [false, true, true, false, false],
            Required::Role(Role::Admin) => [false, false, true, false, false],
            Required::Role(Role::Worker) => [false, false, false, true, true],
            Required::Unknown => panic!("{path}"),
        };
        for (secret, allowed) in secrets.iter().zip(allowed) {
            match may(&headers(secret)) {
                Ok(caller) => assert!(allowed && caller.is_some(), "{path}"),
                Err(refusal) => {
                    assert!(!allowed, "{path}: {refusal}");
                    assert_eq!((refusal.code, refusal.reason), (Code::PermissionDenied, "ROLE_MISSING"));
                    assert!(!refusal.to_string().contains(secret));
                }
            }
            seen += 1;
        }
        for (headers, word) in [(HeaderMap::new(), "NO_CREDENTIALS"), (headers("spd_wrong"), "BAD_TOKEN")] {
            match may(&headers) {
                Ok(caller) => assert!(*needs == Required::Anyone && caller.is_none(), "{path}"),
                Err(refusal) => {
                    assert_eq!((refusal.code, refusal.reason), (Code::Unauthenticated, word), "{path}")
                }
            }
        }
    }
    assert_eq!(seen, METHODS.len() * 5);
    let refusal =
        policy.authorize("/spectrald.v1.AnalysisService/Nothing", &headers(&secrets[2]), None).unwrap_err();
    assert_eq!((refusal.code, refusal.reason), (Code::Unimplemented, "METHOD_UNKNOWN"));
    let refusal =
        policy.authorize("/spectrald.v1.AnalysisService/Nothing", &HeaderMap::new(), None).unwrap_err();
    assert_eq!(refusal.reason, "NO_CREDENTIALS");
}

#[test]
fn only_loopback_may_be_open() {
    for text in ["0.0.0.0:1", "[::]:1", ELSEWHERE, "[::ffff:10.0.0.1]:1"] {
        let error = Policy::new(None, false, address(text)).unwrap_err();
        assert!(error.message().contains("is not loopback, and there is no authentication"), "{error}");
        assert!(!Policy::new(None, true, address(text)).unwrap().is_open());
    }
    let policy = Policy::new(None, false, address(LOOPBACK)).unwrap();
    let caller = policy
        .authorize("/spectrald.v1.WorkerService/DrainWorker", &HeaderMap::new(), None)
        .unwrap()
        .unwrap();
    assert_eq!((caller.how, caller.roles), (How::Loopback, Roles::ALL));
    // With tokens, loopback is not trusted.
    let folder = tempfile::tempdir().unwrap();
    tokens(&folder.path().join("t"));
    let policy =
        Policy::new(Some(Tokens::load(&folder.path().join("t")).unwrap()), false, address(LOOPBACK)).unwrap();
    assert_eq!(policy.authenticate(&HeaderMap::new(), None).unwrap_err().reason, "NO_CREDENTIALS");
}

#[test]
fn odd_authorization_headers_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tokens");
    let [read, submit, ..] = tokens(&file);
    let policy = Policy::new(Some(Tokens::load(&file).unwrap()), false, address(ELSEWHERE)).unwrap();
    let with = |value: &str| {
        let mut headers = HeaderMap::new();
        headers.insert("authorization", HeaderValue::from_bytes(value.as_bytes()).unwrap());
        policy.authenticate(&headers, None).map(|caller| caller.name).map_err(|refusal| refusal.reason)
    };
    assert_eq!(with(&format!("Bearer {read}")), Ok("read".to_owned()));
    assert_eq!(with(&format!("bearer {submit}")), Ok("submit".to_owned()));
    let bad = [
        "",
        "Bearer",
        "Bearer ",
        "Basic x",
        &read,
        &format!("Bearer{read}"),
        &format!("Bearer {}", &read[..46]),
    ];
    for value in bad {
        assert_eq!(with(value), Err("BAD_TOKEN"), "{value}");
    }
    assert_eq!(with(&format!("Bearer {read}x")), Err("BAD_TOKEN"));
    assert_eq!(with("Bearer ü"), Err("BAD_TOKEN"));
    let mut two = headers(&read);
    two.append("authorization", HeaderValue::from_static("Bearer x"));
    assert_eq!(policy.authenticate(&two, None).unwrap_err().reason, "BAD_TOKEN");
}

#[test]
fn all_mistakes_of_a_token_file_are_reported_and_no_value_is_repeated() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tokens");
    let hash = "ab".repeat(32);
    let text = format!(
        "x = 1\n[[token]]\nname = 'a b'\nsha256 = 'hunter2'\nroles = []\nsecret = 'hunter2'\n[[token]]\nname = 'a'\n\
         sha256 = '{hash}'\nroles = ['owner']\n[[token]]\nname = 'b'\nsha256 = '{hash}'\nroles = ['read']\n[[token]]\n\
         name = 'b'\nsha256 = '{hash}'\nroles = ['read']\n"
    );
    fs::write(&file, text).unwrap();
    let error = Tokens::load(&file).unwrap_err();
    let short: Vec<&str> =
        error.message().lines().map(|line| &line[line.find("tokens").unwrap()..]).collect();
    let expected = [
        "tokens: token.name: 'b' is there twice",
        "tokens: token.sha256: 'b' and 'b' are the same token",
        "tokens:1: x: unknown key: the file holds [[token]] tables",
        "tokens:2: token.secret: unknown key: a token has name, sha256 and roles",
        "tokens:2: token.name: is needed: 1 to 64 of A-Z a-z 0-9 . _ - @",
        "tokens:2: token.sha256: is needed: 64 hexadecimal digits",
        "tokens:2: token.roles: is needed: a list of read, submit, admin, worker",
        "tokens:7: token.roles: 'owner' is not one of read, submit, admin, worker",
    ];
    assert_eq!(short, expected, "{short:#?}");
    for (text, what) in [
        ("", "holds no [[token]]"),
        ("[token]\nname = 'a'", "write [[token]]"),
        ("token = hunter2", "not TOML"),
    ] {
        fs::write(&file, text).unwrap();
        let error = Tokens::load(&file).unwrap_err();
        assert!(error.message().contains(what) && !error.message().contains("hunter2"), "{error}");
    }
    assert!(Tokens::load(&folder.path().join("none")).unwrap_err().message().contains("cannot be read"));
    assert!(Tokens::load(folder.path()).unwrap_err().message().contains("not a regular file"));
}

#[test]
fn a_token_file_is_read_again_and_a_broken_one_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tokens");
    let [old, ..] = tokens(&file);
    let all = Tokens::load_every(&file, Duration::ZERO).unwrap();
    let (log, _guard) = capture();
    assert!(all.find(&old).is_some());
    fs::write(&file, "broken").unwrap();
    assert_eq!(all.find(&old).unwrap().0, "read");
    assert!(all.find(&old).is_some());
    let text = log.text();
    assert_eq!(text.matches("the old ones stay in force").count(), 1, "{text}");
    // A new file takes the old one's place.
    let [new, ..] = tokens(&folder.path().join("new"));
    fs::rename(folder.path().join("new"), &file).unwrap();
    assert!(all.find(&old).is_none() && all.find(&new).is_some());
    // Nobody looks before the time is over.
    let patient = Tokens::load_every(&file, Duration::from_secs(3600)).unwrap();
    fs::write(&file, "broken").unwrap();
    assert!(patient.find(&new).is_some());
}

#[cfg(unix)]
#[test]
fn a_token_file_that_others_may_write_is_a_warning() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tokens");
    tokens(&file);
    for (mode, warned) in [(0o600, false), (0o644, false), (0o660, true), (0o602, true)] {
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        let (log, _guard) = capture();
        Tokens::load(&file).unwrap();
        assert_eq!(log.text().contains("others than its owner may write the token file"), warned, "{mode:o}");
    }
}

#[tokio::test]
async fn refusals_are_logged_and_answered_without_the_token_and_before_the_handler() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tokens");
    let [read, ..] = tokens(&file);
    let policy =
        Arc::new(Policy::new(Some(Tokens::load(&file).unwrap()), false, address(ELSEWHERE)).unwrap());
    let stub = Stub::default();
    let service = GuardLayer::new(policy).layer(stub.clone());
    let (log, _guard) = capture();
    let peer = PeerInfo::new(address("10.9.8.7:6543"));
    let ask = |method: &str, header: &str| {
        let mut request = request(method, &[("authorization", header)]);
        request.extensions_mut().insert(peer.clone());
        service.clone().oneshot(request)
    };
    let (_, status) = finish(ask("CancelAnalysis", &format!("Bearer {read}")).await.unwrap()).await;
    assert_eq!((status.code(), reason(&status).as_str()), (Code::PermissionDenied, "ROLE_MISSING"));
    assert_eq!(status.message(), "this method needs the role 'submit', and you have 'read'");
    let (_, status) = finish(ask("GetAnalysis", "Bearer spd_canary").await.unwrap()).await;
    assert_eq!((status.code(), reason(&status).as_str()), (Code::Unauthenticated, "BAD_TOKEN"));
    assert!(stub.callers.lock().unwrap().is_empty());
    let text = log.text();
    for part in [
        "/spectrald.v1.AnalysisService/CancelAnalysis",
        "caller=\"read\"",
        "10.9.8.7:6543",
        "ROLE_MISSING",
        "BAD_TOKEN",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!text.contains("canary") && !text.contains(&read) && !format!("{status:?}").contains("canary"));
    let (length, status) = finish(ask("GetAnalysis", &format!("Bearer {read}")).await.unwrap()).await;
    assert_eq!((length, status.code()), (5, Code::Ok));
    let callers = stub.callers.lock().unwrap();
    assert_eq!(callers[0].as_ref().unwrap().how, How::Token("read".to_owned()));
}

/// Log lines of this thread.
#[derive(Clone, Default)]
pub(super) struct Captured(Arc<Mutex<Vec<u8>>>);

impl Captured {
    pub(super) fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl std::io::Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Captured {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

pub(super) fn capture() -> (Captured, tracing::subscriber::DefaultGuard) {
    let log = Captured::default();
    let subscriber = tracing_subscriber::fmt().with_writer(log.clone()).with_ansi(false).finish();
    (log, tracing::subscriber::set_default(subscriber))
}
