//! Who is to blame for a unit that could not be computed: that decides whether it is tried again.

use crate::error::printable;
use crate::rpc::proto::worker::v1::UnitFailure;
use crate::rpc::proto::worker::v1::unit_failure::Blame;
use crate::{Error, ErrorKind};

/// What had been reached when the failure came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// The model was being opened.
    Opening,
    /// A unit was under way.
    Computing,
}

/// The failure as it is reported.
pub(super) fn failure(error: &Error, stage: Stage) -> UnitFailure {
    let (blame, reason) = blame(error.kind(), stage);
    UnitFailure { blame: blame.into(), reason: reason.to_owned(), message: printable(&error.to_string()) }
}

fn blame(kind: ErrorKind, stage: Stage) -> (Blame, &'static str) {
    let own = if stage == Stage::Opening { Blame::Model } else { Blame::Unit };
    match kind {
        // A store that does not answer, credentials that have expired, a worker that is too small.
        ErrorKind::Unavailable => (Blame::World, "UNAVAILABLE"),
        ErrorKind::PermissionDenied => (Blame::World, "PERMISSION_DENIED"),
        ErrorKind::TooLarge => (Blame::World, "NEEDS_MEMORY"),
        ErrorKind::Interrupted => (Blame::World, "INTERRUPTED"),
        ErrorKind::Unauthenticated => (Blame::World, "UNAUTHENTICATED"),
        // Of the coordinator, through which the model is read.
        ErrorKind::Exhausted
        | ErrorKind::Conflict
        | ErrorKind::FailedPrecondition
        | ErrorKind::DeadlineExceeded => (Blame::World, "COORDINATOR"),
        ErrorKind::Changed => (Blame::Model, "MODEL_CHANGED"),
        ErrorKind::NotFound => (Blame::Model, "MODEL_GONE"),
        // The coordinator has opened the model: what this worker's settings cannot, another's may.
        ErrorKind::InvalidArgument if stage == Stage::Opening => (Blame::World, "INVALID_ARGUMENT"),
        ErrorKind::InvalidArgument => (Blame::Unit, "INVALID_ARGUMENT"),
        ErrorKind::Malformed => (own, "MALFORMED"),
        ErrorKind::Unsupported => (own, "UNSUPPORTED"),
        ErrorKind::NonFinite => (Blame::Unit, "NON_FINITE"),
        ErrorKind::NothingAnalysable => (Blame::Model, "NOTHING_ANALYSABLE"),
        ErrorKind::Internal => (Blame::Unit, "INTERNAL"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_its_culprit() {
        use ErrorKind as K;
        for (kind, stage, expected) in [
            (K::Unavailable, Stage::Computing, (Blame::World, "UNAVAILABLE")),
            (K::Unavailable, Stage::Opening, (Blame::World, "UNAVAILABLE")),
            (K::PermissionDenied, Stage::Computing, (Blame::World, "PERMISSION_DENIED")),
            (K::TooLarge, Stage::Computing, (Blame::World, "NEEDS_MEMORY")),
            (K::Changed, Stage::Computing, (Blame::Model, "MODEL_CHANGED")),
            (K::NotFound, Stage::Opening, (Blame::Model, "MODEL_GONE")),
            (K::Malformed, Stage::Computing, (Blame::Unit, "MALFORMED")),
            (K::Malformed, Stage::Opening, (Blame::Model, "MALFORMED")),
            (K::Unsupported, Stage::Computing, (Blame::Unit, "UNSUPPORTED")),
            (K::InvalidArgument, Stage::Opening, (Blame::World, "INVALID_ARGUMENT")),
            (K::Internal, Stage::Computing, (Blame::Unit, "INTERNAL")),
        ] {
            assert_eq!(blame(kind, stage), expected, "{kind:?} {stage:?}");
        }
    }

    #[test]
    fn the_message_names_file_and_tensor_in_one_line() {
        let error = Error::malformed("short").in_tensor("a\nb").in_file("m.safetensors");
        let failure = failure(&error, Stage::Computing);
        assert_eq!(failure.message, "m.safetensors: tensor 'a\\nb': short");
    }
}
