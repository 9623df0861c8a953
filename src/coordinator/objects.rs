//! Models read for workers that cannot reach them, on this machine or under a root that they do not have: ranges of
//! pinned objects.

use super::analyses::Stream;
use super::core::Core;
use super::planned::Planned;
use crate::rpc::proto::v1;
use crate::rpc::proto::worker::v1::{
    ListObjectsRequest, ListObjectsResponse, ReadObjectRequest, ReadObjectResponse,
};
use crate::rpc::status::status;
use crate::source::ReadAt;
use crate::{Error, ErrorKind, Result};
use futures_util::{StreamExt, stream};
use std::sync::Arc;

/// Bytes in one message.
const PIECE: u64 = 1 << 20;
/// Names in one message.
const NAMES: usize = 10_000;

/// The model of an analysis that runs.
fn model(core: &Core, analysis: &str) -> Result<Arc<Planned>> {
    // Not NotFound, which would blame the model: after a start, analyses are taken up while workers already ask.
    let gone = || Error::new(ErrorKind::Unavailable, "the analysis does not run (yet)").in_field("analysis");
    core.planned(analysis).map(|(_, planned)| planned).ok_or_else(gone)
}

/// Names of the objects.
pub(super) fn list(core: &Core, request: &ListObjectsRequest) -> Result<Stream<ListObjectsResponse>> {
    let planned = model(core, &request.analysis)?;
    let is_single_file = planned.source.is_single_file();
    let chunks: Vec<Vec<String>> = planned.source.names().chunks(NAMES).map(<[String]>::to_vec).collect();
    let messages = chunks.into_iter().map(move |names| Ok(ListObjectsResponse { names, is_single_file }));
    Ok(stream::iter(messages).boxed())
}

/// A range of an object, some a message; the identity in the first.
pub(super) async fn read(core: Arc<Core>, request: ReadObjectRequest) -> Result<Stream<ReadObjectResponse>> {
    let planned = model(&core, &request.analysis)?;
    let name = request.name.clone();
    let opened = tokio::task::spawn_blocking(move || open(&planned, &name)).await;
    let file = opened.unwrap_or_else(|e| Err(Error::new(ErrorKind::Internal, e.to_string())))?;
    if request.begin > request.end || request.end > file.len() {
        let message = format!(
            "bytes {}..{} are asked for, but the file has {}",
            request.begin,
            request.end,
            file.len()
        );
        return Err(Error::invalid(message).in_file(&request.name).in_field("end"));
    }
    let identity = v1::ObjectIdentity::from(file.identity());
    let head = ReadObjectResponse { identity: Some(identity), data: Vec::new() };
    let end = request.end;
    let pieces = stream::unfold((file, request.begin), move |(file, begin)| async move {
        if begin >= end {
            return None;
        }
        let until = (begin + PIECE).min(end);
        let reader = Arc::clone(&file);
        let read = tokio::task::spawn_blocking(move || reader.read_at(begin..until)).await;
        let read = read.unwrap_or_else(|e| Err(Error::new(ErrorKind::Internal, e.to_string())));
        let next = if read.is_ok() { until } else { end };
        let message = read.map(|data| ReadObjectResponse { identity: None, data: data.to_vec() });
        Some((message.map_err(|error| status(&error)), (file, next)))
    });
    Ok(stream::iter([Ok(head)]).chain(pieces).boxed())
}

/// The catalog's own opened object where it has one, so that every read is pinned to what was planned.
fn open(planned: &Planned, name: &str) -> Result<Arc<dyn ReadAt>> {
    let files = &planned.model.catalog.files;
    match files.iter().find(|file| file.name() == name) {
        Some(file) => Ok(Arc::clone(file)),
        None => planned.source.open(name),
    }
}
