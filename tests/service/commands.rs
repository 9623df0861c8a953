//! `spectrald config check`, the refusal to start in the open, and `spectrald token`, as they are typed.

use super::{Cluster, call, write};
use std::net::{SocketAddr, TcpListener};
use std::process::{Command, Output};
use tempfile::TempDir;

/// The program with nothing of ours in its environment.
pub(super) fn program(args: &[&str]) -> Command {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("spectrald"));
    command.args(args).env("NO_COLOR", "1");
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("SPECTRALD_") {
            command.env_remove(name);
        }
    }
    command
}

pub(super) fn run(command: Command) -> Output {
    let limit = std::time::Duration::from_secs(60);
    assert_cmd::Command::from_std(command).timeout(limit).output().unwrap()
}

pub(super) fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn ten_mistakes_are_ten_lines() {
    let folder = TempDir::new().unwrap();
    let file = write(
        folder.path(),
        "bad.toml",
        r#"[coordinator]
listen = "nowhere"
data_dir = 7
allow_local_files = "perhaps"
colour = "red"
[limits]
max_tensors = 0
max_tensor_bytes = "much"
max_rpc_time = "-1s"
[log]
format = "xml"
[[root]]
name = "a"
uri = "gopher://x/"
[leases]
lease_timeout = "soon"
"#,
    );
    let ran = run(program(&["config", "check", "--config", &file]));
    let stderr = text(&ran.stderr);
    assert_eq!(ran.status.code(), Some(2), "{stderr}");
    assert!(ran.stdout.is_empty());
    for line in [2, 3, 4, 5, 7, 8, 9, 11, 14, 16] {
        let place = format!("bad.toml:{line}: ");
        assert_eq!(stderr.matches(&place).count(), 1, "line {line} in\n{stderr}");
    }
    assert_eq!(stderr.lines().count(), 10, "{stderr}");
}

#[test]
fn in_the_open_nobody_is_served_without_authentication() {
    let folder = TempDir::new().unwrap();
    let data = folder.path().join("data").to_string_lossy().into_owned();
    // A port that another one holds: binding it would be another error.
    let held = TcpListener::bind("0.0.0.0:0").unwrap();
    let listen = held.local_addr().unwrap().to_string();
    for command in ["coordinator", "serve"] {
        let ran = run(program(&[command, "--listen", &listen, "--data-dir", &data, "--http-listen", "off"]));
        let stderr = text(&ran.stderr);
        assert_eq!(ran.status.code(), Some(2), "{command}: {stderr}");
        let message = format!("{listen} is not loopback, and there is no authentication");
        assert!(stderr.contains(&message), "{command}: {stderr}");
        assert!(!folder.path().join("data").exists(), "{command} has touched the data folder");
    }
}

#[test]
fn a_token_that_was_printed_is_accepted() {
    let ran = run(program(&["token", "ci@host-1", "--role", "read", "--role", "worker"]));
    assert_eq!(ran.status.code(), Some(0), "{}", text(&ran.stderr));
    let secret = text(&ran.stdout).trim_end();
    let stderr = text(&ran.stderr);
    assert!(!stderr.contains(secret), "the token is on stdout alone");
    let (_, entry) = stderr.split_at(stderr.find("[[token]]").unwrap());
    let folder = TempDir::new().unwrap();
    let tokens = write(folder.path(), "tokens.toml", entry);
    let cluster = Cluster::start(folder, &format!("[coordinator]\ntokens_file = {tokens:?}\n"));
    let status = "/spectrald.v1.SystemService/GetStatus";
    cluster.wait(call(cluster.channel(), status, Some(secret))).unwrap();
    assert!(cluster.wait(call(cluster.channel(), status, None)).is_err());
    assert!(cluster.wait(call(cluster.channel(), status, Some("spd_other"))).is_err());
}

/// Whatever `token` takes, the file takes.
#[test]
fn a_name_that_the_file_would_refuse_is_refused() {
    for name in ["", "a b", "é", "a\"b", "a\nb", &"x".repeat(65)] {
        let ran = run(program(&["token", name, "--role", "read"]));
        assert_eq!(ran.status.code(), Some(2), "{name:?}");
        assert!(ran.stdout.is_empty(), "{name:?}");
    }
}

/// A port that was free a moment ago.
pub(super) fn free_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}
