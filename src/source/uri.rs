//! What a model's URI means, and what of it may be shown.

use crate::{Error, Result};
use object_store::path::Path as Key;
use std::path::PathBuf;
use url::Url;

const SCHEMES: &str = "file, s3, s3a, gs, az, abfs, abfss, http, https";
/// Object keys are at most 1024 bytes long in every store that we know.
const LONGEST_NAME: usize = 1024;

/// Where a model is.
#[derive(Debug)]
pub(super) enum Location {
    Local(PathBuf),
    Remote(Place),
}

/// Which kind of store answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    S3,
    Gcs,
    Azure,
    Http,
}

/// A place in a store.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) kind: Kind,
    /// Names the store: the bucket, or for HTTP the directory as it was typed, query included.
    pub(super) store: Url,
    /// The object or prefix in that store.
    pub(super) key: Key,
    /// The URI ends in `/`, or names a whole bucket.
    pub(super) is_directory: bool,
    /// The URI without credentials and query.
    pub(super) shown: String,
}

/// Tells paths from URIs and URIs from each other.
pub(super) fn parse(uri: &str) -> Result<Location> {
    if uri.is_empty() {
        return Err(Error::invalid("the model's path is empty"));
    }
    let Some(scheme) = scheme_of(uri) else { return Ok(Location::Local(PathBuf::from(uri))) };
    let kind = match scheme.to_ascii_lowercase().as_str() {
        "file" => return local(uri),
        "s3" | "s3a" => Kind::S3,
        "gs" => Kind::Gcs,
        "az" | "abfs" | "abfss" => Kind::Azure,
        "http" | "https" => Kind::Http,
        _ => return Err(Error::invalid(format!("unknown scheme '{scheme}': we know {SCHEMES}, and paths"))),
    };
    let url = Url::parse(uri).map_err(|error| Error::invalid(format!("not a URI: {error}")))?;
    refuse_credentials(kind, &url)?;
    if url.host_str().is_none_or(str::is_empty) {
        return Err(Error::invalid(if kind == Kind::Http {
            "the URI names no host"
        } else {
            "the URI names no bucket"
        }));
    }
    place(kind, url, uri).map(Location::Remote)
}

fn local(uri: &str) -> Result<Location> {
    let path = Url::parse(uri).ok().and_then(|url| url.to_file_path().ok());
    path.map(Location::Local).ok_or_else(|| Error::invalid("a file URI must read file:///absolute/path"))
}

fn refuse_credentials(kind: Kind, url: &Url) -> Result<()> {
    // abfss://container@account.dfs.core.windows.net/ has a user part that is no secret.
    let user_is_secret = kind != Kind::Azure && !url.username().is_empty();
    if user_is_secret || url.password().is_some() {
        return Err(Error::invalid(
            "credentials in a URI are not supported: use the store's environment variables",
        ));
    }
    if kind != Kind::Http && (url.query().is_some() || url.fragment().is_some()) {
        return Err(Error::invalid("a URI of this scheme has no '?' or '#' part"));
    }
    Ok(())
}

fn place(kind: Kind, url: Url, uri: &str) -> Result<Place> {
    let path = url.path().to_owned();
    let is_directory = path.is_empty() || path.ends_with('/');
    let mut store = url;
    store.set_fragment(None);
    let in_store = if kind == Kind::Http {
        // The directory stays as typed: decoding and encoding it again need not give the same bytes.
        let (directory, file) = path.rsplit_once('/').unwrap_or(("", &path));
        store.set_path(directory);
        file
    } else {
        store.set_path("");
        &path
    };
    let key = Key::from_url_path(in_store).map_err(|_| {
        Error::invalid(
            "the URI's path is not one that a store can hold (empty, '.' or '..' parts, control characters)",
        )
    })?;
    Ok(Place { kind, store, key, is_directory, shown: redact(uri) })
}

/// The scheme of `scheme://…`; a path has none.
fn scheme_of(uri: &str) -> Option<&str> {
    let (scheme, _) = uri.split_once("://")?;
    let mut letters = scheme.chars();
    let first = letters.next()?.is_ascii_alphabetic();
    (first && letters.all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'))).then_some(scheme)
}

/// The URI without user, password, query and fragment. Paths are shown as they are.
pub(super) fn redact(uri: &str) -> String {
    let Some(scheme) = scheme_of(uri) else { return uri.to_owned() };
    if scheme.eq_ignore_ascii_case("file") {
        return uri.to_owned();
    }
    let rest = uri.get(scheme.len() + 3..).unwrap_or_default();
    let rest = rest.split(['?', '#']).next().unwrap_or_default();
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let (user, host) = authority.rsplit_once('@').unwrap_or(("", authority));
    let port = host.split_once(':').filter(|_| !host.starts_with('[')).map(|(_, port)| port);
    if port.is_some_and(|port| {
        path.contains('@') || port.is_empty() || !port.bytes().all(|c| c.is_ascii_digit())
    }) {
        // `KEY:SE/CRET@bucket`: a secret with a slash looks like a host with a port.
        return format!("{scheme}://…");
    }
    let container =
        scheme.to_ascii_lowercase().starts_with("abfs") && !user.is_empty() && !user.contains(':');
    if container { format!("{scheme}://{user}@{host}{path}") } else { format!("{scheme}://{host}{path}") }
}

/// Refuses a name that could lead out of the model's directory. Names come from untrusted index files.
pub(super) fn check_name(name: &str) -> Result<()> {
    let lower = name.to_ascii_lowercase();
    let encoded = ["%2e", "%2f", "%5c", "%00"].iter().any(|code| lower.contains(code));
    // A colon also stands in `scheme:` and, on Windows, in drives and streams.
    let odd = name.contains(['\\', ':']) || name.chars().any(char::is_control);
    let parts = name.split('/').any(|part| matches!(part, "" | "." | ".."));
    if encoded || odd || parts {
        return Err(Error::malformed(format!(
            "the file name '{name}' could lead out of the model's directory"
        )));
    }
    if name.len() > LONGEST_NAME {
        return Err(Error::malformed(format!(
            "a file name of {} bytes is longer than {LONGEST_NAME}",
            name.len()
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;
    use proptest::prelude::*;

    fn remote(uri: &str) -> Place {
        match parse(uri) {
            Ok(Location::Remote(place)) => place,
            other => panic!("{uri}: {other:?}"),
        }
    }

    #[test]
    fn paths_are_paths() {
        for path in ["model.safetensors", "/a/b", "./c:d", "C:\\models", "a?b", "://x"] {
            assert!(matches!(parse(path), Ok(Location::Local(p)) if p.as_os_str() == path), "{path}");
        }
        assert!(matches!(parse("file:///a%20b/c"), Ok(Location::Local(p)) if p.ends_with("a b/c")));
    }

    #[test]
    fn uris_name_store_and_key() {
        for (uri, kind, store, key, is_directory) in [
            ("s3://bucket/a/b.safetensors", Kind::S3, "s3://bucket", "a/b.safetensors", false),
            ("s3a://Buc_ket/a%20b/", Kind::S3, "s3a://Buc_ket", "a b", true),
            ("gs://bucket", Kind::Gcs, "gs://bucket", "", true),
            ("az://container/x", Kind::Azure, "az://container", "x", false),
            (
                "abfss://c@acc.dfs.core.windows.net/x/",
                Kind::Azure,
                "abfss://c@acc.dfs.core.windows.net",
                "x",
                true,
            ),
            (
                "https://h:8080/a%2Fb/c.json?sig=1#f",
                Kind::Http,
                "https://h:8080/a%2Fb?sig=1",
                "c.json",
                false,
            ),
            ("http://h/a/", Kind::Http, "http://h/a", "", true),
            ("http://h", Kind::Http, "http://h/", "", true),
        ] {
            let place = remote(uri);
            assert_eq!((place.kind, place.store.as_str(), place.key.as_ref()), (kind, store, key), "{uri}");
            assert_eq!(place.is_directory, is_directory, "{uri}");
        }
    }

    #[test]
    fn what_we_do_not_understand_is_said() {
        for (uri, message) in [
            ("", "the model's path is empty"),
            (
                "ftp://h/x",
                "unknown scheme 'ftp': we know file, s3, s3a, gs, az, abfs, abfss, http, https, and paths",
            ),
            ("s3:///x", "the URI names no bucket"),
            (
                "s3://b/a//b",
                "the URI's path is not one that a store can hold (empty, '.' or '..' parts, control characters)",
            ),
            ("s3://b/k?versionId=1", "a URI of this scheme has no '?' or '#' part"),
            (
                "https://user:secret@h/x",
                "credentials in a URI are not supported: use the store's environment variables",
            ),
            ("file://host/x", "a file URI must read file:///absolute/path"),
        ] {
            let error = parse(uri).unwrap_err();
            assert_eq!((error.kind(), error.message()), (ErrorKind::InvalidArgument, message), "{uri}");
        }
    }

    #[test]
    fn credentials_are_not_shown() {
        for (uri, shown) in [
            ("/a/b?c", "/a/b?c"),
            ("s3://bucket/a@b", "s3://bucket/a@b"),
            ("s3://KEY:SECRET@bucket/a", "s3://bucket/a"),
            ("s3://KEY:SEC/RET@bucket/a", "s3://…"),
            ("s3://KEY:1/RET@bucket/a", "s3://…"),
            ("s3://KEY:SEC:/RET@bucket/a", "s3://…"),
            ("https://u:p@h:80/a/b?sig=x#y", "https://h:80/a/b"),
            ("http://[::1]:9000/a", "http://[::1]:9000/a"),
            ("abfss://c@account/x", "abfss://c@account/x"),
            ("abfss://c:key@account/x", "abfss://account/x"),
            ("HTTPS://h?sig=x", "HTTPS://h"),
        ] {
            assert_eq!(redact(uri), shown, "{uri}");
        }
    }

    #[test]
    fn names_stay_inside() {
        for name in ["model.safetensors", "text_encoder/model.safetensors", "a..b", "ü"] {
            check_name(name).unwrap();
        }
        for name in [
            "",
            "..",
            "../x",
            "a/../x",
            "/x",
            "a//b",
            "./x",
            "a/",
            "a\\b",
            "a\0b",
            "a\nb",
            "%2e%2e/x",
            "a%2Fb",
            "%5Cx",
            "s3://other/x",
            "C:x",
            "file:x",
        ] {
            let error = check_name(name).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Malformed, "{name:?}");
            let message = format!("the file name '{name}' could lead out of the model's directory");
            assert_eq!(error.message(), message);
        }
        assert_eq!(
            check_name(&"x".repeat(1025)).unwrap_err().message(),
            "a file name of 1025 bytes is longer than 1024"
        );
    }

    proptest! {
        #[test]
        fn no_password_and_no_signature_survives(
            scheme in "(s3|https|http|gs|abfss)", key in "[A-Z0-9]{4,8}", secret in "S3CRET[a-zA-Z0-9/+=@:]{0,12}",
        ) {
            let shown = redact(&format!("{scheme}://{key}:{secret}@host/a?X-Amz-Signature={secret}"));
            prop_assert!(!shown.contains("S3CRET"), "{}", shown);
        }

        #[test]
        fn parsing_never_panics(uri in ".{0,60}") {
            let _ = parse(&uri);
            let _ = redact(&uri);
            let _ = check_name(&uri);
        }
    }
}
