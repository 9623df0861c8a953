//! What jobs may name: the list of tricks, and roots in one another.

use super::policies::capture;
use crate::ErrorKind;
use crate::config::{Config, Overrides};
use crate::guard::Roots;
use std::path::Path;

/// Roots `NAME=URI`.
fn roots(list: &str) -> Roots {
    let mut overrides = Overrides::new();
    overrides.flag("root", list, "--root");
    Roots::from_config(&Config::load(None, &overrides).unwrap())
}

/// A folder with a root `in` and, beside it, `out`; both hold a file `f`.
fn folder() -> (tempfile::TempDir, Roots) {
    let folder = tempfile::tempdir().unwrap();
    for name in ["in", "out", "inner"] {
        std::fs::create_dir(folder.path().join(name)).unwrap();
        std::fs::write(folder.path().join(name).join("f"), name).unwrap();
    }
    let list = format!("disk=file://{}/in/", folder.path().display());
    let roots = roots(&list);
    (folder, roots)
}

const ROOTS: &str = "m=s3://models/public/,b=s3://open/,w=https://h.example:8443/m/,p=http://10.0.0.5:9000/m/,\
                     v6=http://[fd12::5]:9000/m/,a=abfss://c@acc.dfs.core.windows.net/m/,g=gs://gbucket/";

#[test]
fn what_lies_under_a_root_is_allowed_in_one_spelling() {
    let roots = roots(ROOTS);
    for (uri, name, normal) in [
        ("s3://models/public/a/", "m", "s3://models/public/a/"),
        ("s3://models/public/a/model.safetensors", "m", "s3://models/public/a/model.safetensors"),
        ("s3://models/public/", "m", "s3://models/public/"),
        ("s3://models/public", "m", "s3://models/public"),
        ("s3://models/%70ublic/a%20b", "m", "s3://models/public/a%20b"),
        ("s3://models/public/a..b/...", "m", "s3://models/public/a..b/..."),
        ("s3://open", "b", "s3://open/"),
        ("https://h.example:8443/m/x", "w", "https://h.example:8443/m/x"),
        ("http://10.0.0.5:9000/m/x", "p", "http://10.0.0.5:9000/m/x"),
        ("http://[fd12::5]:9000/m/x", "v6", "http://[fd12::5]:9000/m/x"),
        ("abfss://c@acc.dfs.core.windows.net/m/x", "a", "abfss://c@acc.dfs.core.windows.net/m/x"),
        ("gs://gbucket/x", "g", "gs://gbucket/x"),
    ] {
        let allowed = roots.resolve(uri).unwrap();
        assert_eq!((allowed.name.as_deref(), allowed.uri.as_str()), (Some(name), normal), "{uri}");
        assert_eq!(roots.root(allowed.root.unwrap()).unwrap().name, name);
    }
}

/// Traversal, other hosts, spellings of addresses, schemes, credentials: each must be refused.
const TRICKS: &[&str] = &[
    // Out of the root by the path.
    "s3://models/public/../private/x",
    "s3://models/public/..",
    "s3://models/public/a/../../private",
    "s3://models/public/./x",
    "s3://models/public/%2e%2e/private/x",
    "s3://models/public/%2E%2E/private/x",
    "s3://models/public/.%2e/private/x",
    "s3://models/public/%2e/x",
    "s3://models/public/%252e%252e/private/x",
    "s3://models/public/..%2fprivate/x",
    "s3://models/public/%2e%2e%2fprivate",
    "s3://models/public/..%5cprivate",
    "s3://models/public/..\\private\\x",
    "s3://models/public\\..\\private",
    "s3://models/public//x",
    "s3://models//public/x",
    "s3://models/public/a//",
    "s3://models/public/%c0%ae%c0%ae/private",
    "s3://models/public/%00x",
    "s3://models/public/x\0.safetensors",
    "s3://models/public/x\n",
    "s3://models/public/x\r\nHost: evil",
    "s3://models/public/%0d%0aHost:%20evil",
    "s3://models/public/\u{1b}[31m",
    "s3://models/public/\u{85}x",
    "s3://models/public/%",
    "s3://models/public/%zz",
    "s3://models/public/%2",
    " s3://models/public/x",
    "s3://models/public/x ",
    // Beside the root.
    "s3://models/publicity/x",
    "s3://models/publi",
    "s3://models/",
    "s3://models",
    "s3://models/Public/x",
    "s3://model/public/x",
    "s3://modelss/public/x",
    "s3://Models/public/x",
    "s3://models./public/x",
    "s3://models.evil/public/x",
    "s3://evil/models/public/x",
    "s3://../models/public/x",
    "s3:///models/public/x",
    "s3://%6dodels/public/x",
    "s3://models%2fpublic/x",
    "s3://evil@models/public/x",
    "s3://KEY:hunter2@models/public/x",
    "s3://models@evil/public/x",
    "s3://models:80/public/x",
    "s3://models/public/x?versionId=1",
    "s3://models/public/x?X-Amz-Signature=hunter2",
    "s3://models/public/x#f",
    "s3://models/public/?x",
    // Schemes.
    "S3://models/public/x",
    "s3a://models/public/x",
    "s3n://models/public/x",
    "s3 ://models/public/x",
    "s3:models/public/x",
    "s3:/models/public/x",
    "s3:////models/public/x",
    "//models/public/x",
    "gs://models/public/x",
    "az://c/m/x",
    "abfs://c@acc.dfs.core.windows.net/m/x",
    "abfss://d@acc.dfs.core.windows.net/m/x",
    "abfss://c@evil.example/m/x",
    "abfss://c:hunter2@acc.dfs.core.windows.net/m/x",
    "memory:///x",
    "data://x",
    "gopher://h.example:8443/m/x",
    "ftp://h.example/m/x",
    "dict://127.0.0.1:11211/",
    "jar:https://h.example:8443/m/!/x",
    "url:https://h.example:8443/m/x",
    "javascript://h.example:8443/m/%0aalert(1)",
    "://models/public/x",
    "",
    // Hosts and ports.
    "https://h.example/m/x",
    "https://h.example:443/m/x",
    "https://h.example:8444/m/x",
    "https://h.example:08443/m/x",
    "https://h.example:/m/x",
    "https://h.example:99999/m/x",
    "https://h.example:8443x/m/x",
    "http://h.example:8443/m/x",
    "https://H.example:8443/m/x",
    "https://h.example.:8443/m/x",
    "https://h.example:8443@evil.example/m/x",
    "https://evil.example@h.example:8443/m/x",
    "https://u:hunter2@h.example:8443/m/x",
    "https://h.example:8443\\@evil.example/m/x",
    "https://h.example:8443#@evil.example/m/x",
    "https://h.example:8443?@evil.example/m/x",
    "https://h.example%2f.evil.example:8443/m/x",
    "https://h.example.evil.example:8443/m/x",
    "https://ｈ.example:8443/m/x",
    "https://h。example:8443/m/x",
    "https://h.example:8443/n/x",
    "https://h.example:8443/m/../n/x",
    "https://h.example:8443/",
    "https:h.example:8443/m/x",
    "https:/h.example:8443/m/x",
    "https:///h.example:8443/m/x",
    // Addresses: of the root in other dress, and those that nobody may name.
    "http://167772165:9000/m/x",
    "http://0xa.0.0.5:9000/m/x",
    "http://0x0a000005:9000/m/x",
    "http://012.0.0.5:9000/m/x",
    "http://10.5:9000/m/x",
    "http://10.0.5:9000/m/x",
    "http://10.0.0.05:9000/m/x",
    "http://10.0.0.5.:9000/m/x",
    "http://１０.0.0.5:9000/m/x",
    "http://[::ffff:10.0.0.5]:9000/m/x",
    "http://[::ffff:a00:5]:9000/m/x",
    "http://[64:ff9b::a00:5]:9000/m/x",
    "http://[fd12:0::5]:9000/m/x",
    "http://[FD12::5]:9000/m/x",
    "http://[fd12::5%25eth0]:9000/m/x",
    "http://[fd12::5:9000/m/x",
    "http://[fd12::5]9000/m/x",
    "http://10.0.0.6:9000/m/x",
    "http://127.0.0.1:9000/m/x",
    "http://localhost:9000/m/x",
    "http://0.0.0.0:9000/m/x",
    "http://[::]:9000/m/x",
    "http://[::1]:9000/m/x",
    "http://169.254.169.254/latest/meta-data/",
    "http://2852039166/latest/meta-data/",
    "http://0xa9fea9fe/latest/meta-data/",
    "http://0251.0376.0251.0376/latest/meta-data/",
    "http://[::ffff:169.254.169.254]/latest/meta-data/",
    "http://[fd00:ec2::254]/latest/meta-data/",
    "http://[fe80::1]/",
    "http://100.100.100.200/latest/meta-data/",
    "http://168.63.129.16/",
    "http://metadata.google.internal/computeMetadata/v1/",
    "http://metadata/computeMetadata/v1/",
    // The disk.
    "file:///etc/passwd",
    "file://localhost/etc/passwd",
    "file://h.example/m/x",
    "FILE:///etc/passwd",
    "file:/etc/passwd",
    "file:etc/passwd",
    "/etc/passwd",
    "etc/passwd",
    "../etc/passwd",
    "~/x",
    "\\\\h.example\\share\\x",
    "C:\\x",
];

#[test]
fn every_trick_is_refused_in_words_that_hold_no_secret_and_logged() {
    let roots = roots(ROOTS);
    assert!(TRICKS.len() >= 140, "{}", TRICKS.len());
    for trick in TRICKS {
        let (log, _guard) = capture();
        let error = roots.resolve(trick).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{trick:?}: {error}");
        let said = format!("{}{}", error.message(), log.text());
        assert!(error.message().contains("is not under a configured root"), "{trick:?}: {error}");
        assert!(log.text().contains("URI refused"), "{trick:?}");
        assert!(!said.contains("hunter2"), "{said}");
        assert!(!error.message().chars().any(char::is_control), "{said:?}");
        assert_eq!(log.text().lines().count(), 1, "{said:?}");
    }
    let long = format!("s3://models/public/{}", "a".repeat(5000));
    assert!(roots.resolve(&long).unwrap_err().to_string().len() < 700);
}

#[test]
fn addresses_that_serve_secrets_cannot_even_be_roots() {
    for uri in [
        "http://169.254.169.254/",
        "http://[fe80::1]/",
        "http://[fd00:ec2::254]/",
        "http://metadata.google.internal/",
        "http://0.0.0.0/",
        "http://2852039166/",
    ] {
        let mut overrides = Overrides::new();
        overrides.flag("root", format!("x={uri}"), "--root");
        assert!(
            Config::load(None, &overrides).unwrap_err().message().contains("--root: root.uri: "),
            "{uri}"
        );
    }
}

#[test]
fn the_longest_root_counts() {
    let roots = roots("all=s3://b/,deep=s3://b/x/y/,mid=s3://b/x/");
    for (uri, name) in
        [("s3://b/x/y/z", "deep"), ("s3://b/x/y", "deep"), ("s3://b/x/yz", "mid"), ("s3://b/xy", "all")]
    {
        assert_eq!(roots.resolve(uri).unwrap().name.as_deref(), Some(name), "{uri}");
    }
}

#[cfg(unix)]
#[test]
fn no_symbolic_link_leads_out_of_a_folder() {
    use std::os::unix::fs::symlink;
    let (folder, roots) = folder();
    let (inside, outside) = (folder.path().join("in"), folder.path().join("out"));
    symlink(&outside, inside.join("dir")).unwrap();
    symlink(outside.join("f"), inside.join("file")).unwrap();
    symlink("../out/f", inside.join("relative")).unwrap();
    symlink("/nowhere/at/all", inside.join("dangling")).unwrap();
    symlink(inside.join("f"), inside.join("within")).unwrap();
    symlink(inside.join("loop"), inside.join("loop")).unwrap();
    let uri = |name: &str| format!("file://{}/in/{name}", folder.path().display());
    for name in ["dir", "dir/", "dir/f", "file", "relative", "dir/none", "dir/none/none"] {
        let error = roots.resolve(&uri(name)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{name}: {error}");
        assert!(error.message().contains("is not under a configured root"), "{name}: {error}");
    }
    for name in ["none", "none/none", "dangling", "f/x"] {
        let error = roots.resolve(&uri(name)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound, "{name}: {error}");
    }
    assert_eq!(roots.resolve(&uri("loop")).unwrap_err().kind(), ErrorKind::PermissionDenied);
    let real = inside.canonicalize().unwrap();
    for name in ["f", "within"] {
        assert_eq!(roots.resolve(&uri(name)).unwrap().path.unwrap(), real.join("f"), "{name}");
    }
    // `inner` begins as `in` does, and is another folder.
    let beside = format!("file://{}/inner/f", folder.path().display());
    assert_eq!(roots.resolve(&beside).unwrap_err().kind(), ErrorKind::PermissionDenied);
    // Files found in a folder pass the same rule.
    assert_eq!(roots.confine(0, &inside.join("file")).unwrap_err().kind(), ErrorKind::PermissionDenied);
    assert_eq!(roots.confine(0, Path::new("/etc/passwd")).unwrap_err().kind(), ErrorKind::PermissionDenied);
    assert_eq!(roots.confine(0, &inside.join("within")).unwrap(), real.join("f"));
    assert_eq!(roots.confine(7, &inside).unwrap_err().kind(), ErrorKind::PermissionDenied);
}

#[test]
fn paths_are_for_whoever_sits_at_the_machine() {
    let mut overrides = Overrides::new();
    overrides.command_default("coordinator.allow_local_files", "true", "serve");
    let roots = Roots::from_config(&Config::load(None, &overrides).unwrap());
    let allowed = roots.resolve("/srv/my models/x").unwrap();
    assert_eq!((allowed.root, allowed.uri.as_str()), (None, "/srv/my models/x"));
    assert_eq!(roots.resolve("file:///srv/a%20b").unwrap().path.unwrap(), Path::new("/srv/a b"));
    for uri in [
        "srv/x",
        "../x",
        "",
        "/a\nb",
        "s3:/x",
        "file:/x",
        "file://h/x",
        "file:///a/../b",
        "s3://b/x",
        "http://h/x",
    ] {
        assert_eq!(roots.resolve(uri).unwrap_err().kind(), ErrorKind::PermissionDenied, "{uri}");
    }
}
