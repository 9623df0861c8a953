//! What a store's failure means, in one line that shows neither its address, nor its query, nor its whole answer.

use super::connect;
use crate::{Error, ErrorKind};
use object_store::client::{HttpError, HttpErrorKind};
use std::error::Error as StdError;

/// Longest text of a store that is passed on, in characters.
const LONGEST: usize = 200;

/// What object_store says of a status that is not a success.
const STATUS: &str = "Server returned non-2xx status code: ";

/// Translates a failure of the store.
pub(super) fn translate(error: &object_store::Error) -> Error {
    use object_store::Error as Store;
    if let Some(stopped) = connect::stopped(error) {
        return Error::new(ErrorKind::PermissionDenied, stopped.to_string());
    }
    match error {
        Store::NotFound { .. } => Error::new(ErrorKind::NotFound, "no such object"),
        Store::PermissionDenied { .. } | Store::Unauthenticated { .. } => refused(error),
        Store::Precondition { .. } => Error::new(ErrorKind::Changed, "the object changed"),
        Store::NotSupported { .. } => ignores_ranges(),
        Store::UnknownConfigurationKey { key, store } => {
            Error::invalid(format!("'{}' is not a setting of {store}", line(key)))
        }
        _ => other(error),
    }
}

/// Whether a body ended because nothing came for too long.
pub(super) fn is_timeout(error: &object_store::Error) -> bool {
    http_error(error).is_some_and(|error| error.kind() == HttpErrorKind::Timeout)
}

/// The status of the answer that `error` reports, if there was one.
pub(super) fn status(error: &object_store::Error) -> Option<u16> {
    status_text(error)?.get(..3)?.parse().ok()
}

/// Whether the answer did not say how long the object is.
pub(super) fn has_no_length(error: &object_store::Error) -> bool {
    chain(error).any(|error| error.to_string().starts_with("Content-Length Header missing"))
}

/// The innermost cause, such as `Connection refused (os error 111)`.
pub(super) fn cause(error: &object_store::Error) -> String {
    chain(error).last().map_or_else(String::new, |last| line(&last.to_string()))
}

fn refused(error: &object_store::Error) -> Error {
    Error::new(ErrorKind::PermissionDenied, format!("the store refused access{}", answer(error)))
}

fn ignores_ranges() -> Error {
    Error::new(
        ErrorKind::Unsupported,
        "the server ignores Range requests: it answered 200 with the whole object instead of 206 with a part",
    )
}

fn other(error: &object_store::Error) -> Error {
    if let Some(code) = status(error) {
        let kind = match code {
            300..=400 => ErrorKind::InvalidArgument,
            401 | 403 => return refused(error),
            404 => return Error::new(ErrorKind::NotFound, format!("not found{}", answer(error))),
            416 => ErrorKind::Changed,
            408 | 429 | 500.. => ErrorKind::Unavailable,
            _ => ErrorKind::Unsupported,
        };
        return Error::new(kind, format!("the store failed{}{}", answer(error), retries(error)));
    }
    let texts: Vec<String> = chain(error).map(ToString::to_string).collect();
    let says = |part: &str| texts.iter().any(|text| text.contains(part));
    if says("Received redirect without LOCATION") {
        return Error::invalid("the store answered with a redirect to nowhere: is the region right?");
    }
    if says("URL scheme is not allowed") {
        return Error::invalid("the endpoint is plain http: set AWS_ALLOW_HTTP=true if that is meant");
    }
    if says("Received non-partial response") {
        return ignores_ranges();
    }
    if let Some(text) = texts.iter().find(|text| text.starts_with("Requested ") && text.contains(", got ")) {
        return Error::malformed(format!(
            "the answer's Content-Range is wrong: {}",
            line(text).replacen('R', "r", 1)
        ));
    }
    if says("Content-Range header not present") || says("CONTENT_RANGE") {
        return Error::malformed("the answer's Content-Range is missing or not a range");
    }
    if has_no_length(error) {
        return Error::new(ErrorKind::Unsupported, "the server does not say how long its answer is");
    }
    let Some(http) = http_error(error) else {
        return Error::new(ErrorKind::Unavailable, format!("the store failed: {}", cause(error)));
    };
    let what = match http.kind() {
        HttpErrorKind::Connect => format!("cannot connect: {}", cause(error)),
        HttpErrorKind::Timeout => "no answer in time".to_owned(),
        _ => format!("the connection broke: {}", cause(error)),
    };
    Error::new(ErrorKind::Unavailable, what + &retries(error))
}

fn chain(error: &object_store::Error) -> impl Iterator<Item = &(dyn StdError + 'static)> {
    let first: &(dyn StdError + 'static) = error;
    std::iter::successors(Some(first), |error: &&(dyn StdError + 'static)| (*error).source())
}

fn http_error(error: &object_store::Error) -> Option<&HttpError> {
    chain(error).find_map(|error| error.downcast_ref::<HttpError>())
}

/// `503 Service Unavailable: BODY`. object_store does not export the type that holds the status.
fn status_text(error: &object_store::Error) -> Option<String> {
    chain(error).find_map(|error| error.to_string().strip_prefix(STATUS).map(str::to_owned))
}

/// ` (403 Forbidden: SignatureDoesNotMatch: The request signature …)`, or nothing. Of the body only the code and
/// message of the S3 error format are shown: the rest may repeat what we sent.
fn answer(error: &object_store::Error) -> String {
    let Some(text) = status_text(error) else { return String::new() };
    let (status, body) = text.split_once(": ").unwrap_or((&text, ""));
    let parts = ["Code", "Message"].into_iter().filter_map(|tag| xml(body, tag)).map(line);
    let parts: Vec<String> = std::iter::once(line(status)).chain(parts).collect();
    format!(" ({})", shorten(&parts.join(": ")))
}

fn xml<'a>(body: &'a str, tag: &str) -> Option<&'a str> {
    let (_, rest) = body.split_once(&format!("<{tag}>"))?;
    rest.split_once(&format!("</{tag}>")).map(|(text, _)| text)
}

/// ` after 3 retries`, or nothing.
fn retries(error: &object_store::Error) -> String {
    let count = chain(error).find_map(|error| {
        let text = error.to_string();
        let (_, rest) = text.split_once(", after ")?;
        rest.split_once(" retries, max_retries").and_then(|(count, _)| count.parse::<u32>().ok())
    });
    match count {
        None => String::new(),
        Some(1) => " after 1 retry".to_owned(),
        Some(count) => format!(" after {count} retries"),
    }
}

/// The first line without any address or query, at most [`LONGEST`] characters.
fn line(text: &str) -> String {
    let first = text.lines().next().unwrap_or_default();
    let words = first.split_whitespace().map(|word| {
        let word = if word.contains("://") { "URL" } else { word };
        word.split('?').next().unwrap_or_default()
    });
    shorten(&words.collect::<Vec<_>>().join(" "))
}

fn shorten(text: &str) -> String {
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generic(text: &str) -> object_store::Error {
        object_store::Error::Generic { store: "S3", source: text.to_owned().into() }
    }

    #[test]
    fn a_status_decides_the_kind() {
        for (status, kind) in [
            ("301 Moved Permanently", ErrorKind::InvalidArgument),
            ("400 Bad Request", ErrorKind::InvalidArgument),
            ("416 Range Not Satisfiable", ErrorKind::Changed),
            ("429 Too Many Requests", ErrorKind::Unavailable),
            ("503 Service Unavailable", ErrorKind::Unavailable),
            ("418 I'm a teapot", ErrorKind::Unsupported),
        ] {
            let error = translate(&generic(&format!("{STATUS}{status}: ")));
            assert_eq!(error.kind(), kind, "{status}");
            assert_eq!(error.message(), format!("the store failed ({status})"));
        }
    }

    #[test]
    fn of_a_body_only_code_and_message_are_shown() {
        let body = "<?xml version=\"1.0\"?>\n<Error><Code>ExpiredToken</Code><Message>The token\nis old</Message>\
                    <Token>hunter2</Token></Error>";
        let error = translate(&generic(&format!("{STATUS}400 Bad Request: {body}")));
        assert_eq!(error.message(), "the store failed (400 Bad Request: ExpiredToken: The token)");
    }

    #[test]
    fn addresses_queries_and_long_texts_are_cut() {
        let text = format!("cannot read https://u:p@h/x?sig=hunter2 or /y?sig=hunter2 {}", "z".repeat(300));
        let error = translate(&generic(&text));
        assert!(!error.message().contains("hunter2") && !error.message().contains("u:p"), "{error}");
        assert!(error.message().starts_with("the store failed: cannot read URL or /y zzz"), "{error}");
        assert!(error.message().chars().count() < 250, "{error}");
    }
}
