//! Against a real S3 server that checks signatures and ignores If-Match.

use super::{failed, pattern, quick, read_from_many_threads};
use crate::support::s3::S3Server;
use spectrald::ErrorKind;
use spectrald::source::{SourceOptions, open};

fn options(server: &S3Server) -> SourceOptions {
    SourceOptions { store_config: server.settings(), ..quick() }
}

#[test]
fn an_object_and_its_siblings() {
    let server = S3Server::start();
    server.put("m/model one.safetensors", &pattern(5000));
    server.put("m/config.json", b"{}");
    let source = open(&server.uri("m/model one.safetensors"), &options(&server)).unwrap();
    assert!(source.is_single_file());
    assert_eq!(source.names(), ["model one.safetensors"]);
    let object = source.open("model one.safetensors").unwrap();
    assert_eq!(object.read_at(17..4000).unwrap(), pattern(5000)[17..4000]);
    assert!(object.read_at(5000..5000).unwrap().is_empty());
    assert_eq!(failed(object.read_at(0..5001)).0, ErrorKind::Malformed);
    let identity = object.identity();
    assert_eq!((identity.uri.as_str(), identity.size), ("s3://models/m/model one.safetensors", 5000));
    assert!(identity.pin.as_ref().is_some_and(|pin| pin.len() == 34), "{identity:?}");
    let config = source.open("config.json").unwrap();
    assert_eq!(config.read_at(0..2).unwrap(), "{}");
    assert_eq!(config.identity().uri, "s3://models/m/config.json");
    assert_eq!(failed(source.open("other.json")), (ErrorKind::NotFound, "other.json: no such object".into()));
}

#[test]
fn a_prefix_with_and_without_slash() {
    let server = S3Server::start();
    for key in ["m/b.safetensors", "m/a.json", "m/deep/c.json", "m.v2/x.json"] {
        server.put(key, key.as_bytes());
    }
    for uri in [server.uri("m/"), server.uri("m")] {
        let source = open(&uri, &options(&server)).unwrap();
        assert!(!source.is_single_file());
        assert_eq!(
            (source.uri(), source.names()),
            (uri.as_str(), &["a.json".into(), "b.safetensors".into()][..])
        );
        let deep = source.open("deep/c.json").unwrap();
        assert_eq!((deep.name(), deep.identity().uri.as_str()), ("deep/c.json", "s3://models/m/deep/c.json"));
        assert_eq!(failed(source.open("../m.v2/x.json")).0, ErrorKind::Malformed);
    }
    server.put("plain", b"no extension");
    assert!(open(&server.uri("plain"), &options(&server)).unwrap().is_single_file());
    assert_eq!(open("s3://models", &options(&server)).unwrap().names(), ["plain"]);
}

#[test]
fn what_is_not_there_is_not_found() {
    let server = S3Server::start();
    let nothing = "no such object, and no objects under this prefix";
    assert_eq!(
        failed(open(&server.uri("none/"), &options(&server))),
        (ErrorKind::NotFound, format!("s3://models/none/: {nothing}"))
    );
    assert_eq!(
        failed(open(&server.uri("none.safetensors"), &options(&server))),
        (ErrorKind::NotFound, format!("s3://models/none.safetensors: {nothing}"))
    );
    assert_eq!(
        failed(open(&server.uri("none"), &options(&server))),
        (ErrorKind::NotFound, format!("s3://models/none: {nothing}"))
    );
    let (kind, message) = failed(open("s3://no-such-bucket/x.json", &options(&server)));
    assert_eq!(kind, ErrorKind::NotFound);
    let expected = "s3://no-such-bucket/x.json: not found (404 Not Found: NoSuchBucket";
    assert!(message.starts_with(expected), "{message}");
}

#[test]
fn a_replaced_object_is_noticed_although_if_match_is_ignored() {
    let server = S3Server::start();
    server.put("m.bin", &pattern(100));
    let object = open(&server.uri("m.bin"), &options(&server)).unwrap().open("m.bin").unwrap();
    object.read_at(0..100).unwrap();
    let before = object.identity().pin.clone().unwrap();
    server.put("m.bin", &[7; 100]);
    let now = open(&server.uri("m.bin"), &options(&server)).unwrap().open("m.bin").unwrap();
    let now = now.identity().pin.clone().unwrap();
    assert_eq!(
        failed(object.read_at(0..100)),
        (
            ErrorKind::Changed,
            format!("m.bin: the object changed while it was read: its ETag was {before} and is {now} now")
        )
    );
    std::fs::remove_file(server.file("m.bin")).unwrap();
    assert_eq!(
        failed(object.read_at(0..100)),
        (ErrorKind::NotFound, "m.bin: the object was there when it was opened and is gone now".into())
    );
}

#[test]
fn a_wrong_secret_is_refused_and_not_shown() {
    let server = S3Server::start();
    server.put("m/x.bin", b"x");
    let mut options = options(&server);
    options.store_config.push(("aws_secret_access_key".into(), "wrong-wrong-wrong".into()));
    assert_eq!(
        failed(open(&server.uri("m/x.bin"), &options)),
        (ErrorKind::PermissionDenied, "s3://models/m/x.bin: the store refused access (403 Forbidden)".into())
    );
    let (kind, message) = failed(open(&server.uri("m/"), &options));
    assert_eq!(kind, ErrorKind::PermissionDenied);
    assert!(
        message.starts_with("s3://models/m/: the store refused access (403 Forbidden: SignatureDoesNotMatch"),
        "{message}"
    );
    for secret in ["wrong-wrong", server.secret_key, server.access_key] {
        assert!(!message.contains(secret), "{message}");
    }
}

#[test]
fn many_threads_read_one_object_in_small_ranges() {
    let server = S3Server::start();
    let bytes = pattern(300_000);
    server.put("m.bin", &bytes);
    let options = SourceOptions { range_bytes: 9973, ..options(&server) };
    let object = open(&server.uri("m.bin"), &options).unwrap().open("m.bin").unwrap();
    assert!(object.read_at(0..300_000).unwrap() == bytes);
    read_from_many_threads(object.as_ref(), &bytes);
}

#[test]
fn a_read_inside_a_runtime_does_not_panic() {
    let server = S3Server::start();
    server.put("m.bin", b"12345678");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let read = runtime.block_on(async {
        let object = open(&server.uri("m.bin"), &options(&server)).unwrap().open("m.bin").unwrap();
        object.read_at(2..5).unwrap()
    });
    assert_eq!(read, "345");
}

#[test]
fn wrong_settings_are_said_without_their_values() {
    let server = S3Server::start();
    let mut plain = options(&server);
    plain.store_config.push(("AWS_ALLOW_HTTP".into(), "false".into()));
    assert_eq!(
        failed(open(&server.uri("m.bin"), &plain)),
        (
            ErrorKind::InvalidArgument,
            "s3://models/m.bin: the endpoint is plain http: set AWS_ALLOW_HTTP=true if that is meant".into()
        )
    );
    let unknown = SourceOptions { store_config: vec![("AWS_SECRT".into(), "hunter2".into())], ..quick() };
    assert_eq!(
        failed(open(&server.uri("m.bin"), &unknown)),
        (
            ErrorKind::InvalidArgument,
            "s3://models/m.bin: 'AWS_SECRT' is not a setting of this kind of store".into()
        )
    );
}

#[test]
fn an_anonymous_request_is_refused() {
    let server = S3Server::start();
    server.put("m.bin", b"x");
    let mut options = options(&server);
    options.store_config.push(("AWS_SKIP_SIGNATURE".into(), "true".into()));
    assert_eq!(
        failed(open(&server.uri("m.bin"), &options)),
        (ErrorKind::PermissionDenied, "s3://models/m.bin: the store refused access (403 Forbidden)".into())
    );
}
