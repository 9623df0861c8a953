//! One error for the whole crate: what kind of failure it is, where it happened, and why.
//!
//! The *kind* decides the exit code and the gRPC status; *file*, *tensor* and *field* tell the
//! reader where to look. `Display` gives one line: `FILE: tensor 'T': field 'F': what is wrong`.

use std::fmt;

/// Result of anything in this crate that can fail.
pub type Result<T> = std::result::Result<T, Error>;

/// What a caller can do about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The request itself is wrong: an option, a URI scheme, a layer name.
    InvalidArgument,
    /// The named file, object or layer does not exist.
    NotFound,
    /// The store refused us.
    PermissionDenied,
    /// The bytes are not what their format promises.
    Malformed,
    /// The bytes are well formed, but of a kind that we do not read.
    Unsupported,
    /// NaN or infinity in weights: a finding on that layer.
    NonFinite,
    /// The object changed while it was being read.
    Changed,
    /// The store or the coordinator did not answer, or not in time; trying again may help.
    Unavailable,
    /// More memory, tensors or bytes than the limit in force.
    TooLarge,
    /// A queue or a disk is full; trying again later may help.
    Exhausted,
    /// What is there stands against it: another request has the same name, another process holds the directory.
    Conflict,
    /// It cannot be done as things stand: what it needs has not ended, or has ended.
    FailedPrecondition,
    /// We do not know who asks: no token, or a wrong one.
    Unauthenticated,
    /// It took longer than whoever asked would wait.
    DeadlineExceeded,
    /// Nothing in the model can be analysed.
    NothingAnalysable,
    /// Ctrl-C, or cancelled by whoever asked.
    Interrupted,
    /// A fault of ours or of the machine: a failed write, a solver that did not converge.
    Internal,
}

impl ErrorKind {
    /// Every kind.
    pub const ALL: [Self; 17] = [
        Self::InvalidArgument,
        Self::NotFound,
        Self::PermissionDenied,
        Self::Malformed,
        Self::Unsupported,
        Self::NonFinite,
        Self::Changed,
        Self::Unavailable,
        Self::TooLarge,
        Self::Exhausted,
        Self::Conflict,
        Self::FailedPrecondition,
        Self::Unauthenticated,
        Self::DeadlineExceeded,
        Self::NothingAnalysable,
        Self::Interrupted,
        Self::Internal,
    ];
}

/// An error with its place. Build it with [`Error::new`] and add the place with the `with_` and `in_` methods.
#[derive(Debug, Clone, thiserror::Error)]
pub struct Error(Box<Place>);

#[derive(Debug, Clone)]
struct Place {
    kind: ErrorKind,
    file: Option<String>,
    tensor: Option<String>,
    field: Option<String>,
    message: String,
}

impl Error {
    /// An error of this kind; `message` says what is wrong, without the place.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Box::new(Place { kind, file: None, tensor: None, field: None, message: message.into() }))
    }

    /// [`ErrorKind::Malformed`].
    pub fn malformed(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Malformed, message)
    }

    /// [`ErrorKind::InvalidArgument`].
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidArgument, message)
    }

    /// Names the file or object, unless an inner call already did.
    #[must_use]
    pub fn in_file(mut self, file: impl Into<String>) -> Self {
        self.0.file.get_or_insert_with(|| file.into());
        self
    }

    /// Names the model whose file is to blame: `MODEL: FILE: …`, or `MODEL: …` where the file is the model.
    #[must_use]
    pub fn in_model(mut self, uri: &str) -> Self {
        let file = self.0.file.take();
        let inner = file.filter(|file| file != uri && !uri.ends_with(&format!("/{file}")));
        self.0.file = Some(match inner {
            None => uri.to_owned(),
            Some(file) => format!("{uri}: {file}"),
        });
        self
    }

    /// Names the tensor, unless an inner call already did.
    #[must_use]
    pub fn in_tensor(mut self, tensor: impl Into<String>) -> Self {
        self.0.tensor.get_or_insert_with(|| tensor.into());
        self
    }

    /// Names the field of a header, configuration or request, unless an inner call already did.
    #[must_use]
    pub fn in_field(mut self, field: impl Into<String>) -> Self {
        self.0.field.get_or_insert_with(|| field.into());
        self
    }

    /// What a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// What is wrong, without the place.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The file or object, if one is to blame.
    pub fn file(&self) -> Option<&str> {
        self.0.file.as_deref()
    }

    /// The field of a header, configuration or request, if one is to blame.
    pub fn field(&self) -> Option<&str> {
        self.0.field.as_deref()
    }

    /// The tensor, if one is to blame.
    pub fn tensor(&self) -> Option<&str> {
        self.0.tensor.as_deref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = &self.0;
        if let Some(file) = &place.file {
            write!(f, "{}: ", printable(file))?;
        }
        if let Some(tensor) = &place.tensor {
            write!(f, "tensor '{}': ", printable(tensor))?;
        }
        if let Some(field) = &place.field {
            write!(f, "field '{}': ", printable(field))?;
        }
        f.write_str(&printable(&place.message))
    }
}

/// A name or message for people's eyes. Names come from untrusted files: control characters would reach a terminal or
/// split a line, and a name may be as long as its file.
pub(crate) fn printable(text: &str) -> String {
    const LONGEST: usize = 400;
    let mut out: String = text.chars().take(LONGEST).flat_map(escape_control).collect();
    if text.chars().nth(LONGEST).is_some() {
        out.push('…');
    }
    out
}

fn escape_control(c: char) -> impl Iterator<Item = char> {
    let escaped = c.is_control().then(|| c.escape_default());
    let plain = escaped.is_none().then_some(c);
    escaped.into_iter().flatten().chain(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_file_tensor_and_field_in_one_line() {
        let error =
            Error::malformed("begin 8 > end 4").in_field("data_offsets").in_tensor("a.weight").in_file("m");
        assert_eq!(error.to_string(), "m: tensor 'a.weight': field 'data_offsets': begin 8 > end 4");
    }

    #[test]
    fn the_innermost_place_wins() {
        let error = Error::malformed("x").in_tensor("inner").in_tensor("outer");
        assert_eq!(error.tensor(), Some("inner"));
    }

    #[test]
    fn a_file_is_shown_with_its_model() {
        let shown = |file: Option<&str>, uri: &str| {
            let error = Error::malformed("x");
            file.map_or(error.clone(), |file| error.in_file(file)).in_model(uri).to_string()
        };
        assert_eq!(shown(None, "a/m"), "a/m: x");
        assert_eq!(shown(Some("a/m"), "a/m"), "a/m: x");
        assert_eq!(shown(Some("m.bin"), "s3://b/m.bin"), "s3://b/m.bin: x");
        assert_eq!(shown(Some("shard.bin"), "s3://b/m/"), "s3://b/m/: shard.bin: x");
        assert_eq!(shown(Some("config.json"), "a/xconfig.json"), "a/xconfig.json: config.json: x");
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        let error = Error::malformed("x").in_tensor("a\u{1b}[31m\nb");
        assert_eq!(error.to_string(), "tensor 'a\\u{1b}[31m\\nb': x");
    }
}
