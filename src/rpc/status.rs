//! One table between the crate's errors and gRPC's: the code, and google.rpc details for programs.
//!
//! A status carries `ErrorInfo` (the reason, in the domain `spectrald`, with file, tensor and field as metadata),
//! `BadRequest` where a field is to blame, `ResourceInfo` where something is not found, and `RetryInfo` where trying
//! again may help. Its message is the error's one line. All of it travels in HTTP/2 headers, of which clients accept
//! 8 KB, so that long names are cut.

use crate::{Error, ErrorKind};
use std::collections::HashMap;
use std::time::Duration;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

/// The domain of our reasons.
pub const DOMAIN: &str = "spectrald";

/// Most bytes of a status's message. Outside ASCII, one byte takes three in its header.
const LONGEST_MESSAGE: usize = 800;

/// Most bytes of a name in the details.
const LONGEST_NAME: usize = 300;

/// The table: code and reason of each kind.
fn code_and_reason(kind: ErrorKind) -> (Code, &'static str) {
    match kind {
        ErrorKind::InvalidArgument => (Code::InvalidArgument, "INVALID_ARGUMENT"),
        ErrorKind::NotFound => (Code::NotFound, "NOT_FOUND"),
        ErrorKind::PermissionDenied => (Code::PermissionDenied, "PERMISSION_DENIED"),
        ErrorKind::Malformed => (Code::FailedPrecondition, "MODEL_MALFORMED"),
        ErrorKind::Unsupported => (Code::FailedPrecondition, "MODEL_UNSUPPORTED"),
        ErrorKind::NonFinite => (Code::FailedPrecondition, "NON_FINITE"),
        ErrorKind::Changed => (Code::Aborted, "MODEL_CHANGED"),
        ErrorKind::Unavailable => (Code::Unavailable, "UNAVAILABLE"),
        ErrorKind::TooLarge => (Code::FailedPrecondition, "TOO_LARGE"),
        ErrorKind::Exhausted => (Code::ResourceExhausted, "EXHAUSTED"),
        ErrorKind::Conflict => (Code::AlreadyExists, "CONFLICT"),
        ErrorKind::FailedPrecondition => (Code::FailedPrecondition, "FAILED_PRECONDITION"),
        ErrorKind::Unauthenticated => (Code::Unauthenticated, "UNAUTHENTICATED"),
        ErrorKind::DeadlineExceeded => (Code::DeadlineExceeded, "DEADLINE_EXCEEDED"),
        ErrorKind::NothingAnalysable => (Code::FailedPrecondition, "NOTHING_ANALYSABLE"),
        ErrorKind::Interrupted => (Code::Cancelled, "CANCELLED"),
        ErrorKind::Internal => (Code::Internal, "INTERNAL"),
    }
}

/// When to try again, where that may help.
fn retry_delay(kind: ErrorKind) -> Option<Duration> {
    match kind {
        ErrorKind::Unavailable => Some(Duration::from_secs(1)),
        ErrorKind::Exhausted => Some(Duration::from_secs(5)),
        _ => None,
    }
}

/// The word for machines of a kind, such as `MODEL_CHANGED`: of `ErrorInfo`, and of `Failure`.
pub fn reason(kind: ErrorKind) -> &'static str {
    code_and_reason(kind).1
}

/// The kind whose [`reason`] this is.
pub fn kind_of_reason(word: &str) -> Option<ErrorKind> {
    ErrorKind::ALL.into_iter().find(|kind| reason(*kind) == word)
}

/// An error as gRPC tells it.
pub fn status(error: &Error) -> Status {
    let (code, reason) = code_and_reason(error.kind());
    let places = [("file", error.file()), ("tensor", error.tensor()), ("field", error.field())];
    let metadata: HashMap<String, String> = places
        .into_iter()
        .filter_map(|(key, name)| Some((key.to_owned(), cut(name?, LONGEST_NAME))))
        .collect();
    let mut details = ErrorDetails::with_error_info(reason, DOMAIN, metadata);
    if let Some(field) = error.field().filter(|_| code == Code::InvalidArgument) {
        details.add_bad_request_violation(cut(field, LONGEST_NAME), cut(error.message(), LONGEST_NAME));
    }
    if code == Code::NotFound {
        let (kind, name) = resource(error);
        details.set_resource_info(kind, cut(name, LONGEST_NAME), "", cut(error.message(), LONGEST_NAME));
    }
    if let Some(delay) = retry_delay(error.kind()) {
        details.set_retry_info(Some(delay));
    }
    Status::with_error_details(code, cut(&error.to_string(), LONGEST_MESSAGE), details)
}

/// What is not found: its type and its name.
fn resource(error: &Error) -> (&'static str, &str) {
    match (error.tensor(), error.file(), error.field()) {
        (Some(tensor), _, _) => ("tensor", tensor),
        (None, Some(file), _) => ("file", file),
        (None, None, Some(field)) => (field_type(field), ""),
        (None, None, None) => ("", ""),
    }
}

/// What a request's field names.
fn field_type(field: &str) -> &'static str {
    match field {
        "id" => "id",
        "layer" => "layer",
        _ => "",
    }
}

/// The first `most` bytes, at the end of a character.
fn cut(text: &str, most: usize) -> String {
    if text.len() <= most {
        return text.to_owned();
    }
    let mark = '…';
    let mut end = most - mark.len_utf8();
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default().to_owned() + "…"
}

/// A status as the crate's error: for ours the very error, unless its names were so long that they were cut; for one
/// of another's making, or of none (the connection broke), what its code says.
pub fn error(status: &Status) -> Error {
    let info = status.get_details_error_info().filter(|info| info.domain == DOMAIN);
    let ours = info.and_then(|info| Some((kind_of_reason(&info.reason)?, info.metadata)));
    let Some((kind, metadata)) = ours else {
        return Error::new(kind_of_status(status), foreign_message(status));
    };
    let placed = |message: &str| {
        let error = Error::new(kind, message);
        let error = metadata.get("file").map_or(error.clone(), |file| error.in_file(file));
        let error = metadata.get("tensor").map_or(error.clone(), |tensor| error.in_tensor(tensor));
        metadata.get("field").map_or(error.clone(), |field| error.in_field(field))
    };
    match status.message().strip_prefix(&placed("").to_string()) {
        Some(message) => placed(message),
        None => Error::new(kind, status.message()),
    }
}

/// When the sender of a status says to try again.
pub fn retry_after(status: &Status) -> Option<Duration> {
    status.get_details_retry_info().and_then(|info| info.retry_delay)
}

/// Whether a status was made on this side, because the connection broke or was never made.
pub(super) fn is_of_transport(status: &Status) -> bool {
    std::error::Error::source(status).is_some()
}

fn foreign_message(status: &Status) -> String {
    let mut text = if status.message().is_empty() {
        status.code().description().to_owned()
    } else {
        status.message().to_owned()
    };
    // "transport error" and the like say nothing; what caused them does
    let mut source = std::error::Error::source(status);
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

/// What the code alone says.
fn kind_of_status(status: &Status) -> ErrorKind {
    match status.code() {
        Code::InvalidArgument | Code::OutOfRange => ErrorKind::InvalidArgument,
        Code::NotFound => ErrorKind::NotFound,
        Code::PermissionDenied => ErrorKind::PermissionDenied,
        Code::Unauthenticated => ErrorKind::Unauthenticated,
        Code::AlreadyExists | Code::Aborted => ErrorKind::Conflict,
        Code::FailedPrecondition => ErrorKind::FailedPrecondition,
        Code::ResourceExhausted => ErrorKind::Exhausted,
        Code::Unimplemented => ErrorKind::Unsupported,
        Code::DeadlineExceeded => ErrorKind::DeadlineExceeded,
        // what tonic says of a deadline that has passed on this side
        Code::Cancelled if status.message() == "Timeout expired" => ErrorKind::DeadlineExceeded,
        Code::Unavailable => ErrorKind::Unavailable,
        _ if is_of_transport(status) => ErrorKind::Unavailable,
        Code::Cancelled => ErrorKind::Interrupted,
        Code::Ok | Code::Unknown | Code::Internal | Code::DataLoss => ErrorKind::Internal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_goes_there_and_back_with_its_place() {
        let mut reasons = Vec::new();
        for kind in ErrorKind::ALL {
            let plain = Error::new(kind, "what is wrong: 3 of 4");
            let placed =
                plain.clone().in_file("s3://b/m: x").in_tensor("a\u{1b}[31m.weight").in_field("data_offsets");
            for sent in [plain, placed] {
                let status = status(&sent);
                assert_eq!(status.message(), sent.to_string());
                let back = error(&status);
                assert_eq!((back.kind(), back.to_string()), (kind, sent.to_string()));
                assert_eq!(
                    (back.file(), back.tensor(), back.field(), back.message()),
                    (sent.file(), sent.tensor(), sent.field(), sent.message())
                );
                let info = status.get_details_error_info().unwrap();
                assert!(
                    info.reason.len() <= 63
                        && info.reason.chars().all(|c| c.is_ascii_uppercase() || c == '_')
                );
                assert_eq!(info.domain, "spectrald");
                reasons.push(info.reason);
            }
        }
        reasons.sort_unstable();
        reasons.dedup();
        assert_eq!(reasons.len(), ErrorKind::ALL.len(), "each kind has a reason of its own");
    }

    #[test]
    fn details_are_those_that_apply() {
        let details = |error: Error| status(&error).get_error_details();
        let bad = details(Error::invalid("is below 3").in_field("options.max_evals"));
        let violations = &bad.bad_request().unwrap().field_violations;
        assert_eq!(
            (violations[0].field.as_str(), violations[0].description.as_str()),
            ("options.max_evals", "is below 3")
        );
        assert!(bad.retry_info().is_none() && bad.resource_info().is_none());
        let gone = details(Error::new(ErrorKind::NotFound, "no analysis 'x'").in_field("id"));
        let resource = gone.resource_info().unwrap();
        assert_eq!(
            (resource.resource_type.as_str(), resource.description.as_str()),
            ("id", "no analysis 'x'")
        );
        let full = status(&Error::new(ErrorKind::Exhausted, "the queue is full"));
        assert_eq!(retry_after(&full), Some(Duration::from_secs(5)));
        assert_eq!(full.code(), Code::ResourceExhausted);
        assert_eq!(
            retry_after(&status(&Error::new(ErrorKind::Unavailable, "x"))),
            Some(Duration::from_secs(1))
        );
        assert!(details(Error::new(ErrorKind::TooLarge, "x")).retry_info().is_none());
    }

    /// Clients of other languages accept 8 KB of headers.
    #[test]
    fn the_longest_names_fit_the_headers() {
        for name in ["x".repeat(1 << 20), "\u{1f600}".repeat(1 << 18), "\u{7f}".repeat(1 << 18)] {
            for kind in ErrorKind::ALL {
                let error = Error::new(kind, &name).in_file(&name).in_tensor(&name).in_field(&name);
                let headers = status(&error).into_http::<String>().into_parts().0.headers;
                let size: usize =
                    headers.iter().map(|(key, value)| key.as_str().len() + value.len() + 32).sum();
                assert!(size < 8 << 10, "{kind:?}: {size} bytes of headers");
                assert_eq!(super::error(&status(&error)).kind(), kind);
            }
        }
        assert_eq!(cut("äöü", 5), "ä…");
    }

    #[test]
    fn a_status_of_another_maker_is_told_by_its_code() {
        for (code, kind) in [
            (Code::Unimplemented, ErrorKind::Unsupported),
            (Code::OutOfRange, ErrorKind::InvalidArgument),
            (Code::ResourceExhausted, ErrorKind::Exhausted),
            (Code::Unknown, ErrorKind::Internal),
            (Code::Unavailable, ErrorKind::Unavailable),
        ] {
            let error = error(&Status::new(code, "why"));
            assert_eq!((error.kind(), error.message()), (kind, "why"));
        }
        assert_eq!(error(&Status::cancelled("Timeout expired")).kind(), ErrorKind::DeadlineExceeded);
        let broken = Status::from_error("connection reset".into());
        assert_eq!(
            (error(&broken).kind(), error(&broken).message()),
            (ErrorKind::Unavailable, "connection reset")
        );
        // another program's reason is not ours, even if it is spelled the same
        let details = ErrorDetails::with_error_info("NOT_FOUND", "elsewhere", HashMap::new());
        let theirs = Status::with_error_details(Code::Internal, "why", details);
        assert_eq!(error(&theirs).kind(), ErrorKind::Internal);
    }
}
