//! Ctrl-C while the store is silent.
#![cfg(unix)]

use super::Place;
use crate::support::hostile::{Honest, HostileServer, Step};
use crate::support::models::fixture;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

/// Serves fracast's header and falls silent when weights are asked for, which it tells the receiver.
fn silent_after_the_header() -> (HostileServer, Receiver<()>) {
    let body = std::fs::read(fixture("models/fracast/model.safetensors")).unwrap();
    let header = 8 + u64::from_le_bytes(body[..8].try_into().unwrap()) as usize;
    let model = Honest { body, etag: Some("\"a\"") };
    let (asked, is_asked) = channel();
    let asked = Mutex::new(asked);
    let server = HostileServer::start(move |request, _| match request.range() {
        Some(range) if range.end > header => {
            // the receiver is gone once it has heard what it waits for
            let _ = asked.lock().unwrap().send(());
            vec![Step::Stall]
        }
        _ if !request.target.ends_with("/model.safetensors") => {
            crate::support::hostile::answer("404 Not Found", "Content-Length: 0\r\n", b"")
        }
        _ => model.answer(request),
    });
    (server, is_asked)
}

fn started(place: &Place, args: &[&str]) -> Child {
    let mut command = place.command(args);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

pub(super) fn signal(child: &Child, name: &str) {
    // the shell's own kill: no program need be installed
    let sent = Command::new("sh").args(["-c", &format!("kill -{name} {}", child.id())]).status().unwrap();
    assert!(sent.success());
}

/// What the child gave, which must end by itself.
pub(super) fn ended(child: Child) -> Output {
    let (send, receive) = channel();
    let id = child.id();
    std::thread::spawn(move || send.send(child.wait_with_output()));
    receive.recv_timeout(Duration::from_secs(60)).unwrap_or_else(|_| panic!("{id} still runs")).unwrap()
}

#[test]
fn leaves_no_file_and_exits_130() {
    for name in ["INT", "TERM"] {
        let (server, is_asked) = silent_after_the_header();
        let place = Place::new();
        let out = "report.json";
        let uri = server.uri("/model.safetensors");
        let child = started(&place, &["analyze", &uri, "--format", "json", "-o", out]);
        is_asked.recv_timeout(Duration::from_secs(60)).unwrap();
        signal(&child, name);
        let output = ended(child);
        assert_eq!(output.status.code(), Some(130), "SIG{name}: {output:?}");
        assert!(output.stdout.is_empty());
        assert_eq!(place.names(), ["config.json", "model.safetensors"]);
    }
}

#[test]
fn keeps_the_file_that_was_there() {
    let (server, is_asked) = silent_after_the_header();
    let place = Place::new();
    place.write("report.json", "of yesterday");
    let child = started(&place, &["analyze", &server.uri("/model.safetensors"), "-o", "report.json"]);
    is_asked.recv_timeout(Duration::from_secs(60)).unwrap();
    signal(&child, "INT");
    // a second one, for the impatient, does no harm
    signal(&child, "INT");
    assert_eq!(ended(child).status.code(), Some(130));
    assert_eq!(std::fs::read(place.file("report.json")).unwrap(), b"of yesterday");
    assert_eq!(place.names(), ["config.json", "model.safetensors", "report.json"]);
}

#[test]
fn esd_too() {
    let (server, is_asked) = silent_after_the_header();
    let place = Place::new();
    let child = started(&place, &["esd", &server.uri("/model.safetensors"), "head.queries"]);
    is_asked.recv_timeout(Duration::from_secs(60)).unwrap();
    signal(&child, "INT");
    assert_eq!(ended(child).status.code(), Some(130));
}
