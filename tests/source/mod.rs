//! Sources: local files here, a real S3 server and misbehaving servers in their own files.

mod hostile;
mod s3;

use spectrald::source::{ModelSource, SourceOptions, open};
use spectrald::{Error, ErrorKind};
use std::fs;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

/// Bytes in which a wrong offset shows.
fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i % 251) as u8 ^ (i / 251 % 256) as u8).collect()
}

/// Few and quick retries, but time enough for a busy machine.
fn quick() -> SourceOptions {
    SourceOptions { retries: 2, backoff: Duration::from_millis(1), ..SourceOptions::default() }
}

/// Little patience, for servers that fall silent.
fn impatient() -> SourceOptions {
    SourceOptions { read_timeout: Duration::from_millis(200), min_throughput: 1000, ..quick() }
}

fn open_local(path: &std::path::Path) -> Result<Arc<dyn ModelSource>, Error> {
    open(path.to_str().unwrap(), &SourceOptions::default())
}

/// The error of a result whose success cannot be printed.
fn failed<T>(result: Result<T, Error>) -> (ErrorKind, String) {
    match result {
        Ok(_) => panic!("no error"),
        Err(error) => (error.kind(), error.to_string()),
    }
}

#[test]
fn a_file_and_its_siblings_open_by_name() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("odd name%2e:#1.safetensors");
    fs::write(&file, pattern(1000)).unwrap();
    fs::write(folder.path().join("config.json"), b"{}").unwrap();
    let source = open_local(&file).unwrap();
    assert!(source.is_single_file());
    assert_eq!(source.names(), ["odd name%2e:#1.safetensors"]);
    let object = source.open(&source.names()[0]).unwrap();
    assert_eq!((object.len(), object.name()), (1000, "odd name%2e:#1.safetensors"));
    assert_eq!(object.read_at(10..990).unwrap(), pattern(1000)[10..990]);
    assert!(object.read_at(1000..1000).unwrap().is_empty());
    assert_eq!(source.open("config.json").unwrap().read_at(0..2).unwrap(), "{}");
    let uri = format!("file://{}", folder.path().join("config.json").display());
    assert_eq!(open(&uri, &SourceOptions::default()).unwrap().uri(), uri);
}

#[test]
fn a_directory_lists_its_own_files() {
    let folder = TempDir::new().unwrap();
    for name in ["b.safetensors", "a.json", "deep/c.safetensors"] {
        fs::create_dir_all(folder.path().join(name).parent().unwrap()).unwrap();
        fs::write(folder.path().join(name), name).unwrap();
    }
    let source = open_local(folder.path()).unwrap();
    assert!(!source.is_single_file());
    assert_eq!(source.names(), ["a.json", "b.safetensors"]);
    assert_eq!(source.open("deep/c.safetensors").unwrap().read_at(0..4).unwrap(), "deep");
    assert_eq!(
        failed(source.open("../x")),
        (ErrorKind::Malformed, "the file name '../x' could lead out of the model's directory".into())
    );
    assert_eq!(
        failed(source.open("missing.json")),
        (ErrorKind::NotFound, "missing.json: no such file or directory".into())
    );
    assert_eq!(failed(source.open("deep")), (ErrorKind::Unsupported, "deep: a directory, not a file".into()));
}

#[test]
fn a_range_beyond_the_end_is_malformed() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("m");
    fs::write(&file, b"12345678").unwrap();
    let object = open_local(&file).unwrap().open("m").unwrap();
    assert_eq!(
        failed(object.read_at(4..9)),
        (ErrorKind::Malformed, "m: bytes 4..9 are asked for, but the file has 8".into())
    );
    #[expect(clippy::reversed_empty_ranges, reason = "what is tested")]
    let backwards = 5..4;
    assert_eq!(failed(object.read_at(backwards)).0, ErrorKind::Malformed);
}

#[test]
fn a_file_that_changes_is_noticed() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("m");
    type Change = fn(&std::path::Path);
    let changes: [(&str, Change); 4] = [
        ("grown", |file| fs::write(file, pattern(101)).unwrap()),
        ("shrunk", |file| fs::write(file, b"x").unwrap()),
        ("touched", |file| {
            let later = fs::metadata(file).unwrap().modified().unwrap() + Duration::from_secs(1);
            fs::File::options().write(true).open(file).unwrap().set_modified(later).unwrap();
        }),
        ("replaced", |file| {
            let time = fs::metadata(file).unwrap().modified().unwrap();
            let other = file.with_extension("new");
            fs::write(&other, pattern(100)).unwrap();
            fs::File::options().write(true).open(&other).unwrap().set_modified(time).unwrap();
            fs::rename(other, file).unwrap();
        }),
    ];
    for (what, change) in changes {
        fs::write(&file, pattern(100)).unwrap();
        let object = open_local(&file).unwrap().open("m").unwrap();
        object.read_at(0..100).unwrap();
        let before = object.identity().pin.clone().unwrap();
        change(&file);
        let (kind, message) = failed(object.read_at(0..100));
        assert_eq!(kind, ErrorKind::Changed, "{what}");
        let now = open_local(&file).unwrap().open("m").unwrap().identity().pin.clone().unwrap();
        let expected = "m: the file changed while it was read: inode-time-size was";
        assert_eq!(message, format!("{expected} {before} when it was opened and is {now} now"), "{what}");
    }
    let object = open_local(&file).unwrap().open("m").unwrap();
    fs::remove_file(&file).unwrap();
    assert_eq!(
        failed(object.read_at(0..1)),
        (ErrorKind::NotFound, "m: the file was there when it was opened and is gone now".into())
    );
}

#[test]
fn what_is_no_file_is_refused() {
    assert_eq!(
        failed(open("/no/such/model", &SourceOptions::default())),
        (ErrorKind::NotFound, "/no/such/model: no such file or directory".into())
    );
    assert_eq!(
        failed(open("hf://org/model", &SourceOptions::default())),
        (
            ErrorKind::InvalidArgument,
            "hf://org/model: unknown scheme 'hf': we know file, s3, s3a, gs, az, abfs, abfss, http, https, and paths"
                .into()
        )
    );
    #[cfg(unix)]
    {
        let folder = TempDir::new().unwrap();
        let socket = folder.path().join("socket");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let message = "neither a file nor a directory";
        assert_eq!(
            failed(open_local(&socket)),
            (ErrorKind::Unsupported, format!("{}: {message}", socket.display()))
        );
        let device = open("/dev/null", &SourceOptions::default());
        assert_eq!(failed(device), (ErrorKind::Unsupported, format!("/dev/null: {message}")));
        assert_eq!(
            failed(open_local(folder.path()).unwrap().open("socket")),
            (ErrorKind::Unsupported, format!("socket: {message}"))
        );
    }
}

/// Reads many ranges of `object` from many threads and compares each with `bytes`.
fn read_from_many_threads(object: &dyn spectrald::source::ReadAt, bytes: &[u8]) {
    std::thread::scope(|scope| {
        for thread in 0..16_usize {
            scope.spawn(move || {
                for turn in 0..8_usize {
                    let start = (thread * 7919 + turn * 104_729) % (bytes.len() - 1);
                    let end = (start + 1 + thread * 5003 + turn * 31).min(bytes.len());
                    let read = object.read_at(start as u64..end as u64).unwrap();
                    assert!(read == bytes[start..end], "bytes {start}..{end} differ");
                }
            });
        }
    });
}

#[test]
fn many_threads_read_one_file() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("m");
    let bytes = pattern(300_000);
    fs::write(&file, &bytes).unwrap();
    let object = open_local(&file).unwrap().open("m").unwrap();
    read_from_many_threads(object.as_ref(), &bytes);
}
