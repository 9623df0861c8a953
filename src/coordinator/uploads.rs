//! `UploadService`: models that only the client has, kept for a day.
//!
//! An upload is a folder: `announced` (its files and their sizes), `files/`, and `done` once sizes and digests have been
//! checked. Pieces of a file come in order; one that is sent again is compared with what is there.

use super::analyses::blocking;
use super::clock;
use super::core::Core;
use super::sources::{UPLOAD, uploads};
use crate::rpc::proto::v1::upload_service_server::UploadService;
use crate::rpc::proto::v1::*;
use crate::{Error, ErrorKind, Result};
use prost::Message;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tonic::{Request, Response, Status};

/// The longest piece.
const PIECE: usize = 3 << 20;
/// The most files of an upload.
const FILES: usize = 1000;
/// How long an upload is kept.
pub(super) const KEPT: Duration = Duration::from_secs(24 * 3600);

/// The service.
pub(super) struct Uploads(pub(super) Arc<Core>);

#[tonic::async_trait]
impl UploadService for Uploads {
    async fn begin_upload(
        &self,
        request: Request<BeginUploadRequest>,
    ) -> std::result::Result<Response<BeginUploadResponse>, Status> {
        let core = Arc::clone(&self.0);
        blocking(move || begin(&core, &request.into_inner())).await.map(Response::new)
    }

    async fn upload_chunk(
        &self,
        request: Request<UploadChunkRequest>,
    ) -> std::result::Result<Response<UploadChunkResponse>, Status> {
        let core = Arc::clone(&self.0);
        blocking(move || chunk(&core, &request.into_inner())).await.map(Response::new)
    }

    async fn finish_upload(
        &self,
        request: Request<FinishUploadRequest>,
    ) -> std::result::Result<Response<FinishUploadResponse>, Status> {
        let core = Arc::clone(&self.0);
        blocking(move || finish(&core, &request.into_inner())).await.map(Response::new)
    }

    async fn abort_upload(
        &self,
        request: Request<AbortUploadRequest>,
    ) -> std::result::Result<Response<AbortUploadResponse>, Status> {
        let core = Arc::clone(&self.0);
        blocking(move || {
            let folder = folder(&core, &request.into_inner().id)?;
            fs::remove_dir_all(&folder).map_err(|error| disk(&error))?;
            Ok(AbortUploadResponse {})
        })
        .await
        .map(Response::new)
    }
}

fn begin(core: &Core, request: &BeginUploadRequest) -> Result<BeginUploadResponse> {
    if let Some(why) = core.not_accepting() {
        return Err(Error::new(ErrorKind::Exhausted, why));
    }
    check_files(&request.files)?;
    let bytes = request.files.iter().fold(0, |sum: u64, file| sum.saturating_add(file.size));
    let most = core.settings.max_upload_bytes;
    if bytes > most {
        let (bytes, most) = (bytesize::ByteSize(bytes), bytesize::ByteSize(most));
        let message = format!("are {bytes} together, more than limits.max_upload_bytes = {most}");
        return Err(Error::new(ErrorKind::TooLarge, message).in_field("files"));
    }
    let free = core.records.health().free_bytes;
    if free > 0 && bytes > free / 2 {
        let message = format!("{} do not fit the coordinator's disk", bytesize::ByteSize(bytes));
        return Err(Error::new(ErrorKind::Exhausted, message).in_field("files"));
    }
    let all = uploads(&core.settings.data_dir);
    fs::create_dir_all(&all).map_err(|error| disk(&error))?;
    let under_way = fs::read_dir(&all).map_err(|error| disk(&error))?.count();
    if under_way >= core.settings.max_uploads {
        let message =
            format!("{under_way} uploads are there already, the limit in force (limits.max_uploads)");
        return Err(Error::new(ErrorKind::Exhausted, message));
    }
    let id = uuid::Uuid::new_v4().to_string();
    let folder = all.join(&id);
    fs::create_dir_all(folder.join("files")).map_err(|error| disk(&error))?;
    fs::write(folder.join("announced"), request.encode_to_vec()).map_err(|error| disk(&error))?;
    let mut expire_time = clock::wall();
    expire_time.seconds += i64::try_from(KEPT.as_secs()).unwrap_or_default();
    Ok(BeginUploadResponse { id, expire_time: Some(expire_time) })
}

fn check_files(files: &[UploadFile]) -> Result<()> {
    if files.is_empty() || files.len() > FILES {
        return Err(Error::invalid(format!("are to be 1 to {FILES}")).in_field("files"));
    }
    for (index, file) in files.iter().enumerate() {
        let field = format!("files[{index}].name");
        let letters = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        let plain = !file.name.starts_with('.') && !file.name.is_empty() && file.name.len() <= 255;
        if !plain || !file.name.chars().all(letters) {
            let message = "is to be a file name of letters, digits, '.', '-' and '_'";
            return Err(Error::invalid(message).in_field(field));
        }
        if files.iter().take(index).any(|other| other.name == file.name) {
            return Err(Error::invalid("is there twice").in_field(field));
        }
    }
    Ok(())
}

/// The folder of an upload that is there.
fn folder(core: &Core, id: &str) -> Result<PathBuf> {
    let gone = || Error::new(ErrorKind::NotFound, format!("there is no upload '{id}'")).in_field("id");
    let id = uuid::Uuid::parse_str(id).map_err(|_| gone())?.to_string();
    let folder = uploads(&core.settings.data_dir).join(id);
    folder.join("announced").is_file().then_some(folder).ok_or_else(gone)
}

fn announced(folder: &Path) -> Result<Vec<UploadFile>> {
    let bytes = fs::read(folder.join("announced")).map_err(|error| disk(&error))?;
    let request = BeginUploadRequest::decode(bytes.as_slice());
    Ok(request.map_err(|error| Error::malformed(format!("the upload's own record: {error}")))?.files)
}

fn chunk(core: &Core, request: &UploadChunkRequest) -> Result<UploadChunkResponse> {
    let folder = folder(core, &request.id)?;
    if folder.join("done").exists() {
        return Err(Error::new(ErrorKind::FailedPrecondition, "the upload is finished").in_field("id"));
    }
    if request.data.len() > PIECE {
        let message = format!("has {} bytes; {PIECE} are allowed", request.data.len());
        return Err(Error::new(ErrorKind::TooLarge, message).in_field("data"));
    }
    let files = announced(&folder)?;
    let file = files.iter().find(|file| file.name == request.name);
    let file = file.ok_or_else(|| Error::invalid("was not announced").in_field("name"))?;
    let path = folder.join("files").join(&file.name);
    let opened = OpenOptions::new().read(true).append(true).create(true).open(&path);
    let mut there = opened.map_err(|error| disk(&error))?;
    // Two pieces of one file at the same time would each see the length before the other.
    there.lock().map_err(|error| disk(&error))?;
    let have = there.metadata().map_err(|error| disk(&error))?.len();
    let end = request.offset.saturating_add(request.data.len() as u64);
    if request.offset > have || end > file.size {
        let message =
            format!("{} bytes are there of {}; the piece is {}..{end}", have, file.size, request.offset);
        return Err(Error::invalid(message).in_file(&file.name).in_field("offset"));
    }
    let old = usize::try_from(have - request.offset).unwrap_or(usize::MAX).min(request.data.len());
    let (again, new) = request.data.split_at_checked(old).unwrap_or_default();
    compare(&mut there, request.offset, again).map_err(|error| error.in_file(&file.name))?;
    there.write_all(new).map_err(|error| disk(&error))?;
    Ok(UploadChunkResponse { received: have + new.len() as u64 })
}

fn compare(file: &mut File, offset: u64, again: &[u8]) -> Result<()> {
    let mut there = vec![0; again.len()];
    let read = file.seek(SeekFrom::Start(offset)).and_then(|_| file.read_exact(&mut there));
    read.map_err(|error| disk(&error))?;
    if there != again {
        return Err(Error::invalid("differs from what was sent before").in_field("data"));
    }
    Ok(())
}

fn finish(core: &Core, request: &FinishUploadRequest) -> Result<FinishUploadResponse> {
    let folder = folder(core, &request.id)?;
    let files = announced(&folder)?;
    if request.digests.len() != files.len() {
        let message = format!("are {}, and {} files were announced", request.digests.len(), files.len());
        return Err(Error::invalid(message).in_field("digests"));
    }
    for (file, digest) in files.iter().zip(&request.digests) {
        let path = folder.join("files").join(&file.name);
        let opened = File::open(&path).map_err(|_| Error::invalid("has not come").in_file(&file.name))?;
        let have = opened.metadata().map_err(|error| disk(&error))?.len();
        if have != file.size {
            let message = format!("{have} of {} bytes have come", file.size);
            return Err(Error::invalid(message).in_file(&file.name));
        }
        let mut hasher = blake3::Hasher::new();
        hasher.update_reader(&opened).map_err(|error| disk(&error))?;
        if hasher.finalize().as_bytes().as_slice() != digest.as_slice() {
            return Err(Error::malformed("is not what was sent: the digests differ").in_file(&file.name));
        }
        opened.sync_all().map_err(|error| disk(&error))?;
    }
    fs::write(folder.join("done"), b"").map_err(|error| disk(&error))?;
    // The folder's name is the id in its only spelling.
    let id = folder.file_name().unwrap_or_default().to_string_lossy();
    Ok(FinishUploadResponse { model: format!("{UPLOAD}{id}") })
}

/// Removes uploads that are older than [`KEPT`] and that no analysis under way reads.
pub(super) fn clean(core: &Core) {
    let Ok(entries) = fs::read_dir(uploads(&core.settings.data_dir)) else { return };
    for entry in entries.flatten() {
        let age = entry.metadata().and_then(|found| found.modified()).ok().and_then(|at| at.elapsed().ok());
        let uri = format!("{UPLOAD}{}", entry.file_name().to_string_lossy());
        if age.is_some_and(|age| age > KEPT) && !core.reads(&uri) {
            match fs::remove_dir_all(entry.path()) {
                Ok(()) => tracing::info!(upload = uri, "an upload was removed, a day old"),
                Err(error) => tracing::warn!(%error, upload = uri, "an old upload cannot be removed"),
            }
        }
    }
}

fn disk(error: &std::io::Error) -> Error {
    let kind = match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => ErrorKind::Exhausted,
        _ => ErrorKind::Internal,
    };
    Error::new(kind, format!("the upload cannot be kept: {error}"))
}
