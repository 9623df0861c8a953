//! What workers send in pieces: eigenvalues and partial Gram matrices; and the sums that they fetch.

use super::analyses::Stream;
use super::core::Core;
use super::planned::Work;
use super::tasks::{finished, in_force};
use super::{keys, rows, sums};
use crate::job::Finished;
use crate::rpc::proto::worker::v1::*;
use crate::rpc::status::status;
use crate::store::{Batch, Space};
use crate::{Error, ErrorKind, Result};
use futures_util::{StreamExt, stream};
use std::fs::File;
use std::io::{Read, Write};
use std::sync::Arc;
use tonic::{Status, Streaming};

/// Bytes in one message.
const PIECE: usize = 1 << 20;
/// The most eigenvalues of one layer that are kept: 64 MiB, the longest value of the store.
const MOST_VALUES: u64 = 8 << 20;

/// Takes the eigenvalues of a layer and makes them durable under the key of its result.
pub(super) async fn spectrum(
    core: &Arc<Core>,
    mut messages: Streaming<SendSpectrumRequest>,
) -> std::result::Result<(), Status> {
    let mut bytes = Vec::new();
    let mut target: Option<(keys::Key, u64)> = None;
    while let Some(message) = messages.message().await? {
        if target.is_none() {
            let what = finished(message.worker, message.unit).map_err(|error| status(&error))?;
            let key = result_key(core, &what, &message.digest).map_err(|error| status(&error))?;
            target = Some((key, message.total));
        }
        let (_, total) = target.unwrap_or_default();
        let have = bytes.len() as u64 / 8 + message.values.len() as u64;
        if total > MOST_VALUES || have > total {
            let error = Error::new(ErrorKind::TooLarge, format!("{have} of {total} eigenvalues"));
            return Err(status(&error.in_field("values")));
        }
        bytes.extend(message.values.iter().flat_map(|value| value.to_le_bytes()));
    }
    let Some((key, total)) = target else { return Ok(()) };
    if bytes.len() as u64 != 8 * total {
        let message = format!("{} eigenvalues came, {total} were announced", bytes.len() / 8);
        return Err(status(&Error::invalid(message).in_field("total")));
    }
    let mut batch = Batch::new();
    batch.put(Space::Result, rows::spectrum_key(&key), bytes);
    core.commit(batch).await.map_err(|error| status(&error))
}

/// Not NotFound, which would blame the model: after a start, leases come into force again as workers report.
fn not_in_force() -> Error {
    Error::new(ErrorKind::FailedPrecondition, "the lease is not in force").in_field("unit")
}

fn result_key(core: &Core, what: &Finished, digest: &str) -> Result<keys::Key> {
    let gone = not_in_force;
    let (_, planned) = core.planned(&what.job.0).filter(|_| in_force(core, what)).ok_or_else(gone)?;
    let unit = planned.units.get(what.unit as usize).ok_or_else(gone)?;
    let layer = planned.layer(unit).ok_or_else(gone)?;
    Ok(keys::result_key(digest, layer, &planned.options))
}

/// Takes a partial Gram matrix into a file. One of a lease that is not in force is read and dropped.
pub(super) async fn partial_gram(
    core: &Arc<Core>,
    mut messages: Streaming<SendPartialGramRequest>,
) -> std::result::Result<(), Status> {
    let Some(first) = messages.message().await? else { return Ok(()) };
    let what = finished(first.worker.clone(), first.unit.clone()).map_err(|error| status(&error))?;
    let Some((key, shard, length)) = expected(core, &what) else { return Ok(()) };
    if first.length != length {
        let error = Error::invalid(format!("is {}, not {length}", first.length)).in_field("length");
        return Err(status(&error));
    }
    if let Some(why) = core.not_accepting() {
        return Err(status(&Error::new(ErrorKind::Exhausted, why)));
    }
    let (path, file) = core.sums.arriving().map_err(|error| status(&error))?;
    let arrived = receive(file, &first, &mut messages).await;
    if let Err(error) = arrived {
        // The folder is emptied at the next start in any case.
        let _ = std::fs::remove_file(&path);
        return Err(error);
    }
    core.sums.put(&key, shard, &path).map_err(|error| status(&error))
}

/// The layer, the number of the row block and the length in bytes of what is to come.
fn expected(core: &Core, what: &Finished) -> Option<(keys::Key, u32, u64)> {
    let (_, planned) = core.planned(&what.job.0).filter(|_| in_force(core, what))?;
    let unit = planned.units.get(what.unit as usize)?;
    let Work::Shard { index, .. } = unit.work else { return None };
    let m = planned.layer(unit)?.m;
    let key = planned.keys.get(unit.layer)?;
    // The lease may be one of the process before this one, which alone knew that the part is wanted.
    core.sums.want(key, &what.job.0);
    Some((*key, index, sums::part_bytes(m)))
}

async fn receive(
    mut file: File,
    first: &SendPartialGramRequest,
    messages: &mut Streaming<SendPartialGramRequest>,
) -> std::result::Result<(), Status> {
    let mut hasher = blake3::Hasher::new();
    let mut left = first.length;
    let mut piece = first.data.clone();
    loop {
        left = left
            .checked_sub(piece.len() as u64)
            .ok_or_else(|| status(&Error::invalid("more bytes came than were announced").in_field("data")))?;
        hasher.update(&piece);
        // A piece goes to the page cache: too short to be worth another thread.
        file.write_all(&piece).map_err(|error| {
            let kind = match error.kind() {
                std::io::ErrorKind::StorageFull => ErrorKind::Exhausted,
                _ => ErrorKind::Internal,
            };
            status(&Error::new(kind, format!("a partial Gram matrix cannot be kept: {error}")))
        })?;
        match messages.message().await? {
            Some(message) => piece = message.data,
            None => break,
        }
    }
    if left > 0 || hasher.finalize().as_bytes().as_slice() != first.digest {
        let error =
            Error::malformed("is not what came: the partial Gram matrix was cut or changed on its way");
        return Err(status(&error.in_field("digest")));
    }
    Ok(())
}

/// The sum of a layer's partial Gram matrices as a stream.
pub(super) fn gram_sum(core: &Core, what: &Finished) -> Result<Stream<ReadGramSumResponse>> {
    let gone = not_in_force;
    let (_, planned) = core.planned(&what.job.0).filter(|_| in_force(core, what)).ok_or_else(gone)?;
    let unit = planned.units.get(what.unit as usize).ok_or_else(gone)?;
    let layer = planned.layer(unit).ok_or_else(gone)?;
    let Work::Finish { shards } = unit.work else {
        return Err(Error::invalid("does not end a layer that was cut").in_field("unit"));
    };
    let key = planned.keys.get(unit.layer).ok_or_else(gone)?;
    let file = core.sums.sum(key, layer.m, shards)?;
    let length = file.metadata().map(|found| found.len()).unwrap_or_default();
    let pieces = stream::unfold((Some(file), length), |(file, length)| async move {
        let mut file = file?;
        let read = tokio::task::spawn_blocking(move || {
            let mut data = vec![0; PIECE];
            let mut filled = 0;
            while let Some(rest) = data.get_mut(filled..).filter(|rest| !rest.is_empty()) {
                match file.read(rest)? {
                    0 => break,
                    count => filled += count,
                }
            }
            data.truncate(filled);
            Ok::<_, std::io::Error>((data, file))
        });
        match read.await {
            Ok(Ok((data, _))) if data.is_empty() => None,
            Ok(Ok((data, file))) => Some((Ok(ReadGramSumResponse { length, data }), (Some(file), 0))),
            Ok(Err(error)) => Some((Err(unreadable(&error.to_string())), (None, 0))),
            Err(error) => Some((Err(unreadable(&error.to_string())), (None, 0))),
        }
    });
    Ok(pieces.boxed())
}

fn unreadable(why: &str) -> Status {
    status(&Error::new(ErrorKind::Internal, format!("the sum of Gram matrices cannot be read: {why}")))
}
