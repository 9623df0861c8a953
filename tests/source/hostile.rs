//! Servers that fail, lie, stall and change the object under the reader. Each fault has its exact message.

use super::{failed, impatient, pattern, quick};
use crate::support::hostile::{Honest, HostileServer, Request, Step, answer};
use spectrald::source::{ReadAt, SourceOptions, open};
use spectrald::{ErrorKind, Result};
use std::sync::Arc;
use std::time::Duration;

const PARTIAL: &str = "206 Partial Content";

fn honest() -> Honest {
    Honest { body: pattern(64), etag: Some("\"a\"") }
}

/// Serves `honest()`, but answers each GET by `script`, which gets how many GETs came before.
fn serve_gets(script: impl Fn(&Request, usize) -> Vec<Step> + Send + Sync + 'static) -> HostileServer {
    HostileServer::start(move |request, nth| match request.method.as_str() {
        "HEAD" => honest().answer(request),
        _ => script(request, nth),
    })
}

fn opened(server: &HostileServer, options: &SourceOptions) -> Arc<dyn ReadAt> {
    open(&server.uri("/m.bin"), options).unwrap().open("m.bin").unwrap()
}

/// Opens `m.bin` and reads all of it.
fn read(server: &HostileServer) -> Result<bytes::Bytes> {
    read_with(server, &quick())
}

fn read_with(server: &HostileServer, options: &SourceOptions) -> Result<bytes::Bytes> {
    let object = opened(server, options);
    object.read_at(0..object.len())
}

fn assert_fails(server: &HostileServer, kind: ErrorKind, message: &str) {
    assert_eq!(failed(read(server)), (kind, format!("m.bin: {message}")));
}

#[test]
fn an_honest_server_is_read_and_sent_the_pin() {
    let server = serve_gets(|request, _| honest().answer(request));
    assert_eq!(read(&server).unwrap(), pattern(64));
    let requests = server.requests();
    assert_eq!(requests.iter().map(|r| r.method.as_str()).collect::<Vec<_>>(), ["HEAD", "GET"]);
    assert_eq!(
        (requests[1].header("range"), requests[1].header("if-match")),
        (Some("bytes=0-63"), Some("\"a\""))
    );
}

#[test]
fn a_truncated_object() {
    let server = serve_gets(|_, _| {
        answer(PARTIAL, "ETag: \"a\"\r\nContent-Length: 32\r\nContent-Range: bytes 0-31/32\r\n", &pattern(32))
    });
    let message = "the object changed while it was read: its size was 64 bytes and is 32 now";
    assert_fails(&server, ErrorKind::Changed, message);
}

#[test]
fn an_etag_that_changes_between_reads() {
    let server = serve_gets(|request, nth| {
        Honest { body: vec![9; 64], etag: Some(if nth == 0 { "\"a\"" } else { "\"b\"" }) }.answer(request)
    });
    let object = opened(&server, &quick());
    object.read_at(0..8).unwrap();
    let message = "m.bin: the object changed while it was read: its ETag was \"a\" and is \"b\" now";
    assert_eq!(failed(object.read_at(8..16)), (ErrorKind::Changed, message.into()));
}

#[test]
fn an_etag_that_changes_in_the_middle_of_a_body() {
    let server = serve_gets(|request, nth| match nth {
        0 => answer(PARTIAL, &honest().headers(request), &pattern(32)),
        _ => Honest { body: vec![9; 64], etag: Some("\"b\"") }.answer(request),
    });
    let message = "the object changed while it was read: its ETag was \"a\" and is \"b\" now";
    assert_fails(&server, ErrorKind::Changed, message);
}

#[test]
fn a_server_that_honours_if_match() {
    let server = HostileServer::start(|request, nth| match (request.method.as_str(), nth) {
        ("HEAD", 0) => honest().answer(request),
        ("HEAD", _) => Honest { body: pattern(64), etag: Some("\"b\"") }.answer(request),
        _ => answer("412 Precondition Failed", "Content-Length: 0\r\n", b""),
    });
    let message = "the object changed while it was read: its ETag was \"a\" and is \"b\" now";
    assert_fails(&server, ErrorKind::Changed, message);
}

#[test]
fn a_range_that_is_no_longer_there() {
    let server = serve_gets(|_, _| answer("416 Range Not Satisfiable", "Content-Length: 0\r\n", b""));
    let message = "the object changed while it was read: the store no longer has bytes 0..64 of the object with ETag \"a\"";
    assert_fails(&server, ErrorKind::Changed, message);
}

#[test]
fn an_etag_that_disappears() {
    let server = serve_gets(|request, _| Honest { etag: None, ..honest() }.answer(request));
    let message = "the object changed while it was read: its ETag was \"a\" and is none now";
    assert_fails(&server, ErrorKind::Changed, message);
}

#[test]
fn an_object_deleted_while_it_is_read() {
    let server = serve_gets(|request, nth| match nth {
        0 => honest().answer(request),
        _ => answer("404 Not Found", "Content-Length: 0\r\n", b""),
    });
    let object = opened(&server, &quick());
    object.read_at(0..8).unwrap();
    let message = "m.bin: the object was there when it was opened and is gone now";
    assert_eq!(failed(object.read_at(8..16)), (ErrorKind::NotFound, message.into()));
}

#[test]
fn a_server_that_ignores_range() {
    let server = serve_gets(|_, _| answer("200 OK", "ETag: \"a\"\r\nContent-Length: 64\r\n", &pattern(64)));
    let message =
        "the server ignores Range requests: it answered 200 with the whole object instead of 206 with a part";
    assert_fails(&server, ErrorKind::Unsupported, message);
}

#[test]
fn a_content_range_that_lies() {
    for (range, message) in [
        ("bytes 8-71/72", "the answer's Content-Range is wrong: requested 0..64, got 8..72"),
        ("bytes 0-31/64", "the answer's Content-Range is wrong: requested 0..64, got 0..32"),
        ("bytes 0-63/*", "the answer's Content-Range is missing or not a range"),
        ("hunter2", "the answer's Content-Range is missing or not a range"),
    ] {
        let headers = format!("ETag: \"a\"\r\nContent-Length: 64\r\nContent-Range: {range}\r\n");
        let server = serve_gets(move |_, _| answer(PARTIAL, &headers, &pattern(64)));
        assert_fails(&server, ErrorKind::Malformed, message);
    }
}

#[test]
fn a_declared_size_is_not_believed() {
    let server = HostileServer::start(|request, _| {
        let size = u64::MAX / 2;
        let range =
            request.range().map_or(String::new(), |_| format!("Content-Range: bytes 0-63/{size}\r\n"));
        let length = if request.method == "HEAD" { size } else { 64 };
        answer(
            if range.is_empty() { "200 OK" } else { PARTIAL },
            &format!("ETag: \"a\"\r\nContent-Length: {length}\r\n{range}"),
            if range.is_empty() { &[] } else { &[7; 64] },
        )
    });
    let object = opened(&server, &quick());
    assert_eq!(object.len(), u64::MAX / 2);
    assert_eq!(object.read_at(0..64).unwrap(), [7; 64].as_slice());
    let (kind, message) = failed(object.read_at(0..object.len()));
    assert_eq!(kind, ErrorKind::TooLarge);
    assert_eq!(message, "m.bin: a read of 9223372036854775807 bytes does not fit in memory");
}

#[test]
fn a_short_body_with_the_right_headers() {
    // With a length the connection breaks off; object_store repeats the rest, then we the whole.
    let server = serve_gets(|request, _| {
        let etag = Honest { etag: None, ..honest() };
        answer(PARTIAL, &format!("ETag: \"a\"\r\n{}", etag.headers(request)), b"")
    });
    let (kind, message) = failed(read(&server));
    assert_eq!(kind, ErrorKind::Unavailable);
    assert!(message.starts_with("m.bin: the body broke off after 0 of 64 bytes came: "), "{message}");
    assert!(message.ends_with(" (after 2 retries)"), "{message}");
    // In chunks the body ends as if it were whole.
    let headers =
        "ETag: \"a\"\r\nContent-Range: bytes 0-63/64\r\nContent-Length: 64\r\nTransfer-Encoding: chunked\r\n";
    let server = serve_gets(move |_, _| answer(PARTIAL, headers, b"3\r\nabc\r\n0\r\n\r\n"));
    assert_fails(
        &server,
        ErrorKind::Unavailable,
        "the body ended after 3 of 64 bytes came (after 2 retries)",
    );
}

#[test]
fn an_answer_without_length() {
    let headers = "ETag: \"a\"\r\nContent-Range: bytes 0-63/64\r\nTransfer-Encoding: chunked\r\n";
    let server = serve_gets(move |_, _| answer(PARTIAL, headers, b"0\r\n\r\n"));
    assert_fails(&server, ErrorKind::Unsupported, "the server does not say how long its answer is");
}

#[test]
fn a_body_that_breaks_off_once_is_completed() {
    let server = serve_gets(|request, nth| match nth {
        0 => answer(PARTIAL, &honest().headers(request), &pattern(20)),
        _ => honest().answer(request),
    });
    assert_eq!(read(&server).unwrap(), pattern(64));
    assert_eq!(server.requests().last().unwrap().header("range"), Some("bytes=20-63"));
}

#[test]
fn a_body_that_breaks_off_once_without_etag_is_read_again() {
    let bare = Honest { etag: None, ..honest() };
    let server = HostileServer::start(move |request, nth| match (request.method.as_str(), nth) {
        ("GET", 0) => answer(PARTIAL, &bare.headers(request), &pattern(20)),
        _ => bare.answer(request),
    });
    assert_eq!(read(&server).unwrap(), pattern(64));
    assert_eq!(server.requests().last().unwrap().header("range"), Some("bytes=0-63"));
}

#[test]
fn more_than_was_asked_for() {
    let headers = "ETag: \"a\"\r\nContent-Range: bytes 0-63/64\r\nContent-Length: 65\r\n";
    let server = serve_gets(move |_, _| answer(PARTIAL, headers, &pattern(65)));
    assert_fails(
        &server,
        ErrorKind::Malformed,
        "the server sends more than the 64 bytes that were asked for",
    );
}

#[test]
fn a_body_without_end() {
    let headers = "ETag: \"a\"\r\nContent-Range: bytes 0-63/64\r\nContent-Length: 999999999999\r\n";
    let server = serve_gets(move |_, _| answer(PARTIAL, headers, &vec![1; 1 << 20]));
    assert_fails(
        &server,
        ErrorKind::Malformed,
        "the server sends more than the 64 bytes that were asked for",
    );
}

#[test]
fn zero_bytes() {
    let server = serve_gets(|_, _| Vec::new());
    let (kind, message) = failed(read(&server));
    assert_eq!(kind, ErrorKind::Unavailable);
    assert_eq!(
        message,
        "m.bin: the connection broke: connection closed before message completed after 2 retries"
    );
}

#[test]
fn an_empty_object() {
    let server = HostileServer::start(|request, _| Honest { body: Vec::new(), etag: None }.answer(request));
    assert!(read(&server).unwrap().is_empty());
    assert_eq!(server.count("GET"), 0);
}

#[test]
fn a_body_that_stalls() {
    for (etag, begun) in [(Some("\"a\""), 0), (None, 0), (Some("\"a\""), 5), (None, 5)] {
        let object = Honest { body: pattern(64), etag };
        let server = HostileServer::start(move |request, _| match request.method.as_str() {
            "HEAD" => object.answer(request),
            _ => {
                let mut steps = answer(PARTIAL, &object.headers(request), &pattern(begun));
                steps.push(Step::Stall);
                steps
            }
        });
        let (kind, message) = failed(read_with(&server, &impatient()));
        assert_eq!(kind, ErrorKind::Unavailable);
        assert!(message.ends_with(" (after 2 retries)"), "{message}");
        if begun == 0 {
            let expected = "m.bin: the body stalled for 200ms after 0 of 64 bytes came (after 2 retries)";
            assert_eq!(message, expected, "{etag:?}");
        }
    }
}

#[test]
fn a_server_that_never_answers() {
    let server = serve_gets(|_, _| vec![Step::Stall]);
    let message = "m.bin: no answer in time after 2 retries";
    assert_eq!(failed(read_with(&server, &impatient())), (ErrorKind::Unavailable, message.into()));
}

#[test]
fn a_body_that_drips() {
    let server = serve_gets(|request, _| {
        let mut steps = answer(PARTIAL, &honest().headers(request), b"");
        steps.push(Step::Drip(pattern(64), Duration::from_millis(25)));
        steps
    });
    let options = SourceOptions { read_timeout: Duration::from_millis(400), ..impatient() };
    let message = "m.bin: the body is too slow: under 1000 bytes/s for 400ms (after 2 retries)";
    assert_eq!(failed(read_with(&server, &options)), (ErrorKind::Unavailable, message.into()));
}

#[test]
fn a_range_that_takes_too_long_altogether() {
    let server = serve_gets(|request, _| {
        let mut steps = answer(PARTIAL, &honest().headers(request), b"");
        steps.push(Step::Drip(pattern(64), Duration::from_millis(50)));
        steps
    });
    let patient = SourceOptions {
        read_timeout: Duration::from_secs(10),
        min_throughput: 1,
        range_timeout: Duration::from_secs(1),
        ..quick()
    };
    let object = opened(&server, &patient);
    assert_eq!(
        failed(object.read_at(0..64)),
        (ErrorKind::Unavailable, "m.bin: 64 bytes did not come within 1s".into())
    );
}

#[test]
fn without_etag_reads_are_unpinned_but_size_and_time_still_count() {
    let bare = Honest { etag: None, ..honest() };
    let server = HostileServer::start(move |request, _| bare.answer(request));
    let object = opened(&server, &quick());
    assert_eq!(object.identity().pin, None);
    assert_eq!(object.read_at(0..64).unwrap(), pattern(64));
    assert_eq!(server.requests().last().unwrap().header("if-match"), None);

    let server = HostileServer::start(|request, _| {
        let hour = if request.method == "HEAD" { 1 } else { 2 };
        let time = format!("Last-Modified: Thu, 01 Jan 2026 0{hour}:00:00 GMT\r\n");
        let bare = Honest { etag: None, ..honest() };
        let body = if request.method == "HEAD" { Vec::new() } else { pattern(64) };
        let status = if request.method == "HEAD" { "200 OK" } else { PARTIAL };
        answer(status, &(time + &bare.headers(request)), &body)
    });
    let message = "the object changed while it was read: it was last modified at 2026-01-01 01:00:00 UTC and is now \
                   at 2026-01-01 02:00:00 UTC";
    assert_fails(&server, ErrorKind::Changed, message);
}

#[test]
fn a_weak_etag_is_compared_but_not_sent() {
    let weak = |tag| Honest { body: pattern(64), etag: Some(tag) };
    let server = HostileServer::start(move |request, _| weak("W/\"a\"").answer(request));
    assert_eq!(read(&server).unwrap(), pattern(64));
    assert_eq!(server.requests().last().unwrap().header("if-match"), None);
    let server = HostileServer::start(move |request, _| {
        weak(if request.method == "HEAD" { "W/\"a\"" } else { "W/\"b\"" }).answer(request)
    });
    let message = "the object changed while it was read: its ETag was W/\"a\" and is W/\"b\" now";
    assert_fails(&server, ErrorKind::Changed, message);
}

#[test]
fn a_storm_of_503_that_ends() {
    let storm = || answer("503 Slow Down", "Content-Length: 0\r\n", b"");
    let server =
        HostileServer::start(move |request, nth| if nth < 2 { storm() } else { honest().answer(request) });
    assert_eq!(read(&server).unwrap(), pattern(64));
    assert_eq!((server.count("HEAD"), server.count("GET")), (3, 3));
}

#[test]
fn a_storm_of_503_without_end() {
    let server = serve_gets(|_, _| answer("503 Slow Down", "Content-Length: 4\r\n", b"busy"));
    let message = "the store failed (503 Service Unavailable) after 2 retries";
    assert_fails(&server, ErrorKind::Unavailable, message);
    assert_eq!(server.count("GET"), 3);
}

#[test]
fn nobody_listens() {
    let uri = HostileServer::start(|_, _| Vec::new()).uri("/m.bin");
    let (kind, message) = failed(open(&uri, &quick()));
    assert_eq!(kind, ErrorKind::Unavailable);
    assert!(message.contains(": cannot connect: ") && message.ends_with(" after 2 retries"), "{message}");
}

#[test]
fn http_directories_open_by_name() {
    let server = HostileServer::start(|request, _| match request.target.as_str() {
        "/a%2Fb/m%20x.bin?sig=hunter2" | "/a%2Fb/deep/c.json?sig=hunter2" => honest().answer(request),
        _ => answer("404 Not Found", "Content-Length: 0\r\n", b""),
    });
    let uri = server.uri("/a%2Fb/?sig=hunter2");
    let source = open(&uri, &quick()).unwrap();
    assert!(!source.is_single_file() && source.names().is_empty());
    assert_eq!(source.uri(), server.uri("/a%2Fb/"));
    for name in ["m x.bin", "deep/c.json"] {
        let object = source.open(name).unwrap();
        assert_eq!(object.read_at(3..9).unwrap(), pattern(64)[3..9]);
        assert_eq!(object.identity().uri, server.uri(&format!("/a%2Fb/{name}")));
    }
    assert_eq!(failed(source.open("none")), (ErrorKind::NotFound, "none: no such object".into()));
    let file = open(&server.uri("/a%2Fb/m%20x.bin?sig=hunter2"), &quick()).unwrap();
    assert_eq!(file.names(), ["m x.bin"]);
    assert_eq!(file.open("deep/c.json").unwrap().identity().uri, server.uri("/a%2Fb/deep/c.json"));
}

#[test]
fn a_server_without_head() {
    for status in ["403 Forbidden", "405 Method Not Allowed"] {
        let server = HostileServer::start(move |request, _| match request.method.as_str() {
            "HEAD" => answer(status, "Content-Length: 0\r\n", b""),
            _ => honest().answer(request),
        });
        assert_eq!(read(&server).unwrap(), pattern(64), "{status}");
    }
}

/// A scripted server as an S3 endpoint, unsigned.
fn as_s3(server: &HostileServer) -> SourceOptions {
    let settings = [("AWS_ENDPOINT_URL", server.uri("")), ("AWS_ALLOW_HTTP", "true".into())];
    let anonymous = ("AWS_SKIP_SIGNATURE", "true".into());
    let store_config =
        settings.into_iter().chain([anonymous]).map(|(key, value)| (key.to_owned(), value)).collect();
    SourceOptions { store_config, ..quick() }
}

#[test]
fn versions_are_read_where_that_is_allowed() {
    for allowed in [true, false] {
        let server = HostileServer::start(move |request, _| {
            if request.target.contains("versionId") && !allowed {
                return answer("403 Forbidden", "Content-Length: 0\r\n", b"");
            }
            let Some(Step::Send(bytes)) = honest().answer(request).pop() else { unreachable!() };
            let text =
                String::from_utf8_lossy(&bytes[..20]).replacen("\r\n", "\r\nx-amz-version-id: v1\r\n", 1);
            let mut all = text.into_bytes();
            all.extend_from_slice(&bytes[20..]);
            vec![Step::Send(all)]
        });
        let source = open("s3://bucket/deep/m.bin", &as_s3(&server)).unwrap();
        let object = source.open("m.bin").unwrap();
        assert_eq!(object.identity().pin.as_deref(), Some("\"a\" version v1"));
        for _ in 0..2 {
            assert_eq!(object.read_at(0..64).unwrap(), pattern(64));
        }
        let targets: Vec<String> = server.requests().into_iter().map(|request| request.target).collect();
        let (plain, versioned) = ("/bucket/deep/m.bin", "/bucket/deep/m.bin?versionId=v1");
        let expected: &[&str] =
            if allowed { &[plain, versioned, versioned] } else { &[plain, versioned, plain, plain] };
        assert_eq!(targets, expected);
    }
}

#[test]
fn a_redirect_to_nowhere_hints_at_the_region() {
    let server = HostileServer::start(|_, _| answer("301 Moved Permanently", "Content-Length: 0\r\n", b""));
    let message = "s3://bucket/m.bin: the store answered with a redirect to nowhere: is the region right?";
    assert_eq!(
        failed(open("s3://bucket/m.bin", &as_s3(&server))),
        (ErrorKind::InvalidArgument, message.into())
    );
}

#[test]
fn secrets_appear_in_no_error() {
    let echo = "<Error><Code>Bad?sig=hunter2</Code><Message>no\nhunter2</Message>hunter2</Error>";
    let length = format!("Content-Length: {}\r\n", echo.len());
    for status in [
        "400 Bad Request",
        "401 Unauthorized",
        "403 Forbidden",
        "404 Not Found",
        "418 hunter2",
        "503 hunter2",
    ] {
        let length = length.clone();
        let server = HostileServer::start(move |request, _| {
            answer(status, &length, if request.method == "HEAD" { b"" } else { echo.as_bytes() })
        });
        let (_, message) = failed(open(&server.uri("/m.bin?X-Amz-Signature=hunter2"), &quick()));
        assert!(!message.contains("hunter2"), "{message}");

        let server = serve_gets(move |_, _| {
            answer(status, &format!("Content-Length: {}\r\n", echo.len()), echo.as_bytes())
        });
        let uri = server.uri("/m.bin?X-Amz-Signature=hunter2");
        let object = open(&uri, &quick()).unwrap().open("m.bin").unwrap();
        let (_, message) = failed(object.read_at(0..64));
        assert!(!message.contains("hunter2") && !message.contains('\n'), "{message}");
        assert!(!object.identity().uri.contains("hunter2"), "{:?}", object.identity());
    }
    for uri in [
        "https://user:hunter2@host/x",
        "s3://KEY:hunter2@bucket/x",
        "s3://KEY:hun/ter2@bucket/x",
        "ftp://u:hunter2@h",
    ] {
        let (_, message) = failed(open(uri, &quick()));
        assert!(!message.contains("hunter2") && !message.contains("ter2"), "{message}");
    }
}

/// A server that sends every request to `elsewhere`.
fn redirecting(elsewhere: &HostileServer, status: &'static str) -> HostileServer {
    let location = elsewhere.uri("/m.bin");
    HostileServer::start(move |_, _| {
        answer(status, &format!("Location: {location}\r\nContent-Length: 0\r\n"), b"")
    })
}

fn confined() -> SourceOptions {
    SourceOptions { follow_redirects: false, ..quick() }
}

#[test]
fn a_redirect_is_followed_only_where_that_is_wanted() {
    for status in ["301 Moved Permanently", "302 Found", "303 See Other", "307 Temporary Redirect"] {
        let elsewhere = HostileServer::start(|request, _| honest().answer(request));
        let server = redirecting(&elsewhere, status);
        let uri = server.uri("/m.bin");
        let message =
            format!("{uri}: the store answers with a redirect ({status}), and redirects are not followed");
        assert_eq!(failed(open(&uri, &confined())), (ErrorKind::PermissionDenied, message));
        assert_eq!(server.requests().len(), 1, "a redirect is not tried again");
        assert_eq!(elsewhere.requests().len(), 0, "nobody was led there");
        assert_eq!(read_with(&server, &quick()).unwrap(), pattern(64), "{status}");
        assert!(elsewhere.count("HEAD") > 0, "now it was followed");
    }
}

/// The object is there, and only its bytes are elsewhere.
#[test]
fn a_redirect_of_a_read_names_the_object() {
    let elsewhere = HostileServer::start(|request, _| honest().answer(request));
    let location = elsewhere.uri("/m.bin");
    let server = serve_gets(move |_, _| {
        answer("302 Found", &format!("Location: {location}\r\nContent-Length: 0\r\n"), b"")
    });
    let message = "m.bin: the store answers with a redirect (302 Found), and redirects are not followed";
    assert_eq!(failed(read_with(&server, &confined())), (ErrorKind::PermissionDenied, message.into()));
    assert_eq!(elsewhere.requests().len(), 0);
}

#[test]
fn a_redirect_of_an_s3_server_is_not_followed() {
    let elsewhere = HostileServer::start(|request, _| honest().answer(request));
    let server = redirecting(&elsewhere, "307 Temporary Redirect");
    let settings = [
        ("AWS_ENDPOINT_URL", server.uri("")),
        ("AWS_ALLOW_HTTP", "true".to_owned()),
        ("AWS_ACCESS_KEY_ID", "AKIA".to_owned()),
        ("AWS_SECRET_ACCESS_KEY", "hunter2".to_owned()),
    ];
    let store_config = settings.map(|(key, value)| (key.to_owned(), value)).to_vec();
    let error = failed(open("s3://models/m.safetensors", &SourceOptions { store_config, ..confined() }));
    let message = "s3://models/m.safetensors: the store answers with a redirect (307 Temporary Redirect), and \
                   redirects are not followed";
    assert_eq!(error, (ErrorKind::PermissionDenied, message.into()));
    assert_eq!(elsewhere.requests().len(), 0);
}

#[test]
fn without_redirects_reads_are_the_same_and_patience_too() {
    let server = serve_gets(|request, _| honest().answer(request));
    assert_eq!(read_with(&server, &confined()).unwrap(), pattern(64));
    let stalls = serve_gets(|_, _| vec![Step::Stall]);
    let options = SourceOptions { follow_redirects: false, ..impatient() };
    let (kind, message) = failed(read_with(&stalls, &options));
    assert_eq!(kind, ErrorKind::Unavailable, "{message}");
}

#[test]
fn a_setting_that_cannot_be_honoured_without_redirects_is_refused() {
    let server = serve_gets(|request, _| honest().answer(request));
    let with = |key: &str, value: &str| {
        let store_config = vec![(key.to_owned(), value.to_owned())];
        failed(open(&server.uri("/m.bin"), &SourceOptions { store_config, ..confined() }))
    };
    let (kind, message) = with("http2_only", "true");
    assert_eq!(kind, ErrorKind::InvalidArgument);
    assert!(message.ends_with("'http2_only' cannot be set where redirects are not followed"), "{message}");
    assert_eq!(server.requests().len(), 0);
}
