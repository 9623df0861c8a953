//! What was read.

use super::words;
use crate::analysis::ModelIdentity;
use crate::rpc::proto::v1;
use crate::source::ObjectIdentity;
use crate::{Error, Result, format};

impl From<&ObjectIdentity> for v1::ObjectIdentity {
    fn from(object: &ObjectIdentity) -> Self {
        Self { uri: object.uri.clone(), size: object.size, pin: object.pin.clone() }
    }
}

impl From<v1::ObjectIdentity> for ObjectIdentity {
    fn from(object: v1::ObjectIdentity) -> Self {
        Self { uri: object.uri, size: object.size, pin: object.pin }
    }
}

impl From<&ModelIdentity> for v1::ModelIdentity {
    fn from(model: &ModelIdentity) -> Self {
        Self {
            uri: model.uri.clone(),
            format: model.format.to_owned(),
            files: model.files.iter().map(Into::into).collect(),
            metadata: model.metadata.clone().into_iter().collect(),
            notes: model.notes.clone(),
        }
    }
}

impl TryFrom<v1::ModelIdentity> for ModelIdentity {
    type Error = Error;

    /// # Errors
    /// `InvalidArgument`: a format that this version does not know.
    fn try_from(model: v1::ModelIdentity) -> Result<Self> {
        let formats: Vec<&str> = format::names().collect();
        let format = words::known(&formats, &model.format, "identity.format");
        Ok(Self {
            format: format.map_err(|e| e.in_file(&model.uri))?,
            uri: model.uri,
            files: model.files.into_iter().map(Into::into).collect(),
            metadata: model.metadata.into_iter().collect(),
            notes: model.notes,
        })
    }
}
