//! Uploads: what is refused, and a model that comes in pieces.

use super::{Cluster, assert_refused};
use crate::support::models::{analyze, fixture};
use prost::Message as _;
use spectrald::analysis::Options;
use spectrald::rpc::proto::v1;
use spectrald::rpc::proto::v1::upload_service_client::UploadServiceClient;
use spectrald::rpc::proto::v1::*;
use tempfile::TempDir;
use tonic::transport::Channel;
use tonic::{Code, Response, Status};

const PIECE: usize = 64 << 10;

struct Uploading<'a> {
    cluster: &'a Cluster,
    client: UploadServiceClient<Channel>,
}

impl<'a> Uploading<'a> {
    fn new(cluster: &'a Cluster) -> Self {
        Self { cluster, client: UploadServiceClient::new(cluster.channel()) }
    }

    fn begin(&mut self, files: &[(&str, u64)]) -> Result<String, Status> {
        let file = |(name, size): &(&str, u64)| UploadFile { name: (*name).to_owned(), size: *size };
        let request = BeginUploadRequest { files: files.iter().map(file).collect() };
        self.cluster.wait(self.client.begin_upload(request)).map(|begun| begun.into_inner().id)
    }

    fn piece(&mut self, id: &str, name: &str, offset: u64, data: &[u8]) -> Result<u64, Status> {
        let (id, name, data) = (id.to_owned(), name.to_owned(), data.to_vec());
        let request = UploadChunkRequest { id, name, offset, data };
        self.cluster.wait(self.client.upload_chunk(request)).map(|sent| sent.into_inner().received)
    }

    fn finish(&mut self, id: &str, digests: &[&[u8]]) -> Result<String, Status> {
        let digests = digests.iter().map(|digest| digest.to_vec()).collect();
        let request = FinishUploadRequest { id: id.to_owned(), digests };
        self.cluster.wait(self.client.finish_upload(request)).map(|done| done.into_inner().model)
    }

    fn abort(&mut self, id: &str) -> Result<(), Status> {
        let request = AbortUploadRequest { id: id.to_owned() };
        self.cluster.wait(self.client.abort_upload(request)).map(Response::into_inner).map(|_| ())
    }
}

#[test]
fn what_is_announced_must_be_plain_files_of_a_size() {
    let cluster = Cluster::start(TempDir::new().unwrap(), "[limits]\nmax_upload_bytes = \"1MiB\"\n");
    let mut uploading = Uploading::new(&cluster);
    for name in ["../x", "a/b", "a\\b", ".hidden", "..", ".", "", "a b", "a\0b", "ü", &"x".repeat(256)] {
        let answer = uploading.begin(&[("model.safetensors", 1), (name, 1)]);
        assert_refused(name, answer, Code::InvalidArgument, "INVALID_ARGUMENT", "files[1].name");
    }
    let twice = uploading.begin(&[("a", 1), ("b", 1), ("a", 1)]);
    assert_refused("twice", twice, Code::InvalidArgument, "INVALID_ARGUMENT", "files[2].name");
    assert_refused("none", uploading.begin(&[]), Code::InvalidArgument, "INVALID_ARGUMENT", "files");
    for size in [(1 << 20) + 1, u64::MAX] {
        let answer = uploading.begin(&[("a", size), ("b", size)]);
        assert_refused("too large", answer, Code::FailedPrecondition, "TOO_LARGE", "files");
    }
    let uploads = cluster.folder.path().join("data/uploads");
    assert!(!uploads.exists() || std::fs::read_dir(uploads).unwrap().next().is_none(), "nothing was begun");
}

#[test]
fn pieces_must_follow_one_another() {
    let cluster = Cluster::start(TempDir::new().unwrap(), "");
    let mut uploading = Uploading::new(&cluster);
    let id = uploading.begin(&[("a", 8)]).unwrap();
    let (wrong, invalid) = (Code::InvalidArgument, "INVALID_ARGUMENT");
    assert_refused("a gap", uploading.piece(&id, "a", 1, b"bc"), wrong, invalid, "offset");
    assert_eq!(uploading.piece(&id, "a", 0, b"abcd").unwrap(), 4);
    assert_eq!(uploading.piece(&id, "a", 0, b"ab").unwrap(), 4, "again");
    assert_eq!(uploading.piece(&id, "a", 2, b"cdef").unwrap(), 6, "half of it again");
    assert_refused("differs", uploading.piece(&id, "a", 0, b"x"), wrong, invalid, "data");
    assert_refused("past the end", uploading.piece(&id, "a", 6, b"ghi"), wrong, invalid, "offset");
    assert_refused("far", uploading.piece(&id, "a", u64::MAX, b"g"), wrong, invalid, "offset");
    assert_refused("not announced", uploading.piece(&id, "../a", 0, b"a"), wrong, invalid, "name");
    let long = vec![0; (3 << 20) + 1];
    let answer = uploading.piece(&id, "a", 0, &long);
    assert_refused("too long", answer, Code::FailedPrecondition, "TOO_LARGE", "data");
    let digest = *blake3::hash(b"abcdefgh").as_bytes();
    let early = uploading.finish(&id, &[&digest]).unwrap_err();
    assert_eq!((early.code(), early.message()), (wrong, "a: 6 of 8 bytes have come"));
    assert_eq!(uploading.piece(&id, "a", 6, b"gh").unwrap(), 8);
    assert_refused("digests", uploading.finish(&id, &[]), wrong, invalid, "digests");
    let other = uploading.finish(&id, &[&[0; 32]]);
    assert_refused("digest", other, Code::FailedPrecondition, "MODEL_MALFORMED", "");
    let model = uploading.finish(&id, &[&digest]).unwrap();
    assert_eq!(model, format!("upload://{id}"));
    let late = uploading.piece(&id, "a", 0, b"a");
    assert_refused("late", late, Code::FailedPrecondition, "FAILED_PRECONDITION", "id");
    assert_eq!(uploading.finish(&id, &[&digest]).unwrap(), model, "an answer that was lost is given again");
    let shouted = uploading.finish(&id.to_uppercase(), &[&digest]).unwrap();
    assert_eq!(shouted, model, "however the id is spelt");
    uploading.abort(&id).unwrap();
    for id in [id.as_str(), "", "..", "01890000-0000-7000-8000-000000000000"] {
        let gone = (Code::NotFound, "NOT_FOUND", "id");
        assert_refused(id, uploading.piece(id, "a", 0, b"a"), gone.0, gone.1, gone.2);
        assert_refused(id, uploading.finish(id, &[&digest]), gone.0, gone.1, gone.2);
        assert_refused(id, uploading.abort(id), gone.0, gone.1, gone.2);
    }
}

#[test]
fn a_model_in_pieces_gives_the_rows_of_analyze() {
    let cluster = Cluster::working();
    let mut uploading = Uploading::new(&cluster);
    let path = fixture("models/fracast/model.safetensors");
    let bytes = std::fs::read(&path).unwrap();
    let id = uploading.begin(&[("model.safetensors", bytes.len() as u64)]).unwrap();
    let pieces: Vec<&[u8]> = bytes.chunks(PIECE).collect();
    for (index, piece) in pieces.iter().enumerate() {
        let offset = (index * PIECE) as u64;
        let received = uploading.piece(&id, "model.safetensors", offset, piece).unwrap();
        assert_eq!(received, offset + piece.len() as u64);
        if index == pieces.len() / 2 {
            assert_eq!(uploading.piece(&id, "model.safetensors", offset, piece).unwrap(), received);
        }
    }
    let digest = *blake3::hash(&bytes).as_bytes();
    let model = uploading.finish(&id, &[&digest]).unwrap();
    let ended = cluster.analysed(CreateAnalysisRequest { model, ..CreateAnalysisRequest::default() });
    assert_eq!(ended.state(), AnalysisState::Succeeded, "{ended:?}");
    let expected: Vec<v1::LayerResult> =
        analyze(&path, &Options::default()).layers.iter().map(v1::LayerResult::from).collect();
    let mut expected: Vec<_> =
        expected.into_iter().filter(|row| row.status() != LayerStatus::Skipped).collect();
    let mut rows = cluster.rows(&ended.id);
    assert!(!rows.is_empty());
    for rows in [&mut rows, &mut expected] {
        rows.sort_by(|a, b| a.name.cmp(&b.name));
    }
    assert_eq!(rows.len(), expected.len());
    for (row, expected) in rows.iter().zip(&expected) {
        assert_eq!(row.encode_to_vec(), expected.encode_to_vec(), "{row:?}\n{expected:?}");
    }
}
