//! A model that only this machine has, sent piece by piece. Every piece may be sent twice: the coordinator compares.

use super::{Client, Transport};
use crate::Result;
use crate::rpc::proto::v1;
use crate::rpc::proto::v1::upload_service_client::UploadServiceClient;
use crate::source::{ModelSource, ReadAt};
use std::sync::Arc;

/// Bytes of one piece; a message has at most 4 MiB.
const PIECE: u64 = 2 << 20;
/// What belongs to a model: weights, the index of shards, the configuration.
const ENDINGS: [&str; 2] = [".safetensors", ".json"];
/// Read beside a single file, as `analyze` does.
const SIBLING: &str = "config.json";

impl Client {
    /// Sends the files of `source` and gives the URI under which the coordinator has them, for a day. `told` gets the
    /// bytes sent so far and all bytes.
    ///
    /// # Errors
    /// What reading gives; what the coordinator says, such as `TooLarge`.
    pub async fn upload(&self, source: &dyn ModelSource, told: &dyn Fn(u64, u64)) -> Result<String> {
        let files = files_of(source)?;
        let announced =
            files.iter().map(|(name, file)| v1::UploadFile { name: name.clone(), size: file.len() });
        let announced = v1::BeginUploadRequest { files: announced.collect() };
        let call = || {
            let (mut service, request) = (self.uploads(), self.request(announced.clone()));
            async move { service.begin_upload(request).await }
        };
        let id = self.unary(call).await?.id;
        let sent = self.send_all(&id, &files, told).await;
        match sent {
            Ok(digests) => self.finish_upload(id, digests).await,
            Err(error) => {
                let request = v1::AbortUploadRequest { id };
                // The coordinator removes it by itself in a day; the first error is the one to tell.
                let _ = self.uploads().abort_upload(self.request(request)).await;
                Err(error)
            }
        }
    }

    async fn send_all(
        &self,
        id: &str,
        files: &[(String, Arc<dyn ReadAt>)],
        told: &dyn Fn(u64, u64),
    ) -> Result<Vec<Vec<u8>>> {
        let all = files.iter().map(|(_, file)| file.len()).sum();
        let (mut digests, mut sent) = (Vec::new(), 0);
        for (name, file) in files {
            let mut hasher = blake3::Hasher::new();
            let mut offset = 0;
            loop {
                let end = (offset + PIECE).min(file.len());
                let data = file.read_at(offset..end)?;
                hasher.update(&data);
                sent += data.len() as u64;
                let piece = v1::UploadChunkRequest {
                    id: id.to_owned(),
                    name: name.clone(),
                    offset,
                    data: data.to_vec(),
                };
                let call = || {
                    let (mut service, request) = (self.uploads(), self.request(piece.clone()));
                    async move { service.upload_chunk(request).await }
                };
                self.unary(call).await?;
                told(sent, all);
                offset = end;
                if offset == file.len() {
                    break;
                }
            }
            digests.push(hasher.finalize().as_bytes().to_vec());
        }
        Ok(digests)
    }

    async fn finish_upload(&self, id: String, digests: Vec<Vec<u8>>) -> Result<String> {
        let request = v1::FinishUploadRequest { id, digests };
        let call = || {
            let (mut service, request) = (self.uploads(), self.request(request.clone()));
            async move { service.finish_upload(request).await }
        };
        Ok(self.unary(call).await?.model)
    }

    fn uploads(&self) -> UploadServiceClient<Transport> {
        UploadServiceClient::with_interceptor(self.channel.clone(), self.bearer.clone())
    }
}

/// The files that make the model, opened and pinned.
fn files_of(source: &dyn ModelSource) -> Result<Vec<(String, Arc<dyn ReadAt>)>> {
    let of_model = |name: &&String| source.is_single_file() || ENDINGS.iter().any(|end| name.ends_with(end));
    let mut files = Vec::new();
    for name in source.names().iter().filter(of_model) {
        files.push((name.clone(), source.open(name)?));
    }
    if source.is_single_file() {
        files.extend(source.open(SIBLING).ok().map(|file| (SIBLING.to_owned(), file)));
    }
    Ok(files)
}
