//! Canaries: secrets of the configuration are looked for in everything that anybody is shown.

use super::commands::{free_port, program, run, text};
use super::write;
use crate::support::hostile::{HostileServer, answer};
use crate::support::models::fixture;
use spectrald::guard::new_token;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Stdio};
use tempfile::TempDir;

/// The secret key of the store, and a session token among its settings.
const KEY: &str = "canary-key-3f1b9c";
const SESSION: &str = "canary-session-77aa01";

/// A coordinator in a process of its own; killed when it is dropped.
struct Process {
    child: Child,
    address: String,
    http: SocketAddr,
}

impl Process {
    fn start(config: &str, folder: &Path) -> Self {
        let http = free_port();
        let data = folder.join("data").to_string_lossy().into_owned();
        let mut command = program(&["coordinator", "--config", config, "--listen", "127.0.0.1:0"]);
        command.args(["--data-dir", &data, "--http-listen", &http.to_string()]);
        command.env("SPECTRALD_LOG_FILTER", "trace");
        let log = std::fs::File::create(folder.join("log")).unwrap();
        let mut child = command.stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let log = || std::fs::read_to_string(folder.join("log")).unwrap();
        let address = line.trim().strip_prefix("listening on ").unwrap_or_else(|| panic!("{}", log()));
        Self { child, address: address.to_owned(), http }
    }

    fn page(&self, path: &str) -> String {
        let mut socket = TcpStream::connect(self.http).unwrap();
        write!(socket, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut page = String::new();
        socket.read_to_string(&mut page).unwrap();
        page
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A store that refuses everybody and repeats what it was sent, and what it may never have been sent.
fn indiscreet() -> HostileServer {
    HostileServer::start(|request, _| {
        let sent = request.header("authorization").unwrap_or_default();
        let body = format!(
            "<Error><Code>SignatureDoesNotMatch</Code><Message>No</Message><Token>{SESSION}</Token>\
             <Secret>{KEY}</Secret><Sent>{sent}</Sent></Error>"
        );
        answer("403 Forbidden", &format!("Content-Length: {}\r\n", body.len()), body.as_bytes())
    })
}

#[test]
fn no_secret_is_shown_anywhere() {
    let (folder, server) = (TempDir::new().unwrap(), indiscreet());
    let at = folder.path();
    let (token, sha256) = new_token().unwrap();
    let entry =
        format!("[[token]]\nname = \"all\"\nsha256 = \"{sha256}\"\nroles = [\"admin\", \"worker\"]\n");
    let (tokens, secret) = (write(at, "tokens.toml", entry), write(at, "secret", KEY));
    let models = fixture("models/fracast");
    let file = format!(
        "[coordinator]\ntokens_file = {tokens:?}\n\
         [[root]]\nname = \"disk\"\nuri = \"file://{}/\"\n\
         [[root]]\nname = \"s3\"\nuri = \"s3://b/\"\nendpoint = \"{}\"\nallow_http = true\n\
         access_key_id = \"AKIACANARY\"\nsecret_access_key_file = {secret:?}\n\
         [root.settings]\nAWS_SESSION_TOKEN = \"{SESSION}\"\n",
        models.display(),
        server.uri("")
    );
    let config = write(at, "spectrald.toml", file);
    let process = Process::start(&config, at);
    let mut shown = Vec::new();
    let mut try_it = |args: &[&str], token: Option<&str>, code: Option<i32>| {
        let mut command = program(args);
        command.env("SPECTRALD_ADDR", &process.address);
        if let Some(token) = token {
            command.env("SPECTRALD_TOKEN", token);
        }
        let ran = run(command);
        let output = format!("{args:?}\n{}{}", text(&ran.stdout), text(&ran.stderr));
        assert!(code.is_none_or(|code| ran.status.code() == Some(code)), "{:?}: {output}", ran.status);
        shown.push(output);
    };
    let good = format!("file://{}/model.safetensors", models.display());
    let token = token.expose();
    try_it(&["submit", &good], Some(token), Some(0));
    try_it(&["submit", "s3://b/model.safetensors"], Some(token), None);
    try_it(&["submit", &format!("s3://AKIA:{KEY}@b/model.safetensors")], Some(token), None);
    try_it(&["submit", &format!("s3://b/x?X-Amz-Security-Token={SESSION}")], Some(token), None);
    try_it(&["submit", &good], Some(&format!("{token}{KEY}")), None);
    try_it(&["jobs"], Some(token), Some(0));
    try_it(&["status"], Some(token), Some(0));
    try_it(&["workers"], Some(token), Some(0));
    try_it(&["config", "show", "--resolved", "--config", &config], None, Some(0));
    try_it(&["config", "check", "--role", "coordinator", "--config", &config], None, Some(0));
    for path in ["/metrics", "/healthz", "/readyz", &format!("/{KEY}")] {
        shown.push(process.page(path));
    }
    assert!(!server.requests().is_empty(), "the store was asked");
    let signed = server.requests().iter().any(|request| request.header("authorization").is_some());
    assert!(signed, "with its credentials");
    drop(process);
    let log = std::fs::read_to_string(at.join("log")).unwrap();
    assert!(log.contains("PermissionDenied") || log.contains("refused"), "the log tells of refusals: {log}");
    shown.push(log);
    for text in &shown {
        // What the caller himself typed may be repeated to nobody either.
        for canary in [KEY, SESSION, token] {
            let own = text.lines().next().unwrap_or_default();
            let rest = text.strip_prefix(own).unwrap_or(text);
            assert!(!rest.contains(canary), "{canary} is shown:\n{text}");
        }
    }
}

/// An address with a password is refused, and the refusal does not repeat it.
#[test]
fn a_password_in_an_endpoint_is_refused_in_silence() {
    let folder = TempDir::new().unwrap();
    for line in [
        format!("endpoint = \"https://user:{KEY}@s3.example\""),
        format!("endpoint = \"https://s3.example/?token={KEY}\""),
        format!("secret_access_key = \"{KEY}\""),
    ] {
        let file = format!("[[root]]\nname = \"s3\"\nuri = \"s3://b/\"\n{line}\n");
        let config = write(folder.path(), "bad.toml", file);
        for command in ["check", "show"] {
            let ran = run(program(&["config", command, "--config", &config]));
            assert_eq!(ran.status.code(), Some(2), "{command} {line}");
            let all = format!("{}{}", text(&ran.stdout), text(&ran.stderr));
            assert!(!all.contains(KEY), "{command}: {all}");
        }
    }
}
