//! A real S3 server (`s3s` over a directory) with signatures checked, on a port of its own.

use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder as Connections;
use s3s::auth::SimpleAuth;
use s3s::service::S3ServiceBuilder;
use s3s_fs::FileSystem;
use std::path::PathBuf;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

/// An S3 server with one bucket, whose objects are files in a directory that tests may change. Stops when dropped.
pub(crate) struct S3Server {
    pub(crate) endpoint: String,
    pub(crate) access_key: &'static str,
    pub(crate) secret_key: &'static str,
    root: TempDir,
    runtime: Option<Runtime>,
}

impl S3Server {
    pub(crate) const BUCKET: &str = "models";

    pub(crate) fn start() -> Self {
        let (access_key, secret_key) = ("AKIATESTTESTTEST", "hunter2/hunter2+hunter2");
        let root = TempDir::new().unwrap();
        std::fs::create_dir(root.path().join(Self::BUCKET)).unwrap();
        let mut builder = S3ServiceBuilder::new(FileSystem::new(root.path()).unwrap());
        builder.set_auth(SimpleAuth::from_single(access_key, secret_key));
        let service = builder.build();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        runtime.spawn(async move {
            let connections = Connections::new(TokioExecutor::new());
            while let Ok((socket, _)) = listener.accept().await {
                let served = connections.serve_connection(TokioIo::new(socket), service.clone()).into_owned();
                tokio::spawn(served);
            }
        });
        Self { endpoint, access_key, secret_key, root, runtime: Some(runtime) }
    }

    /// The file behind an object.
    pub(crate) fn file(&self, key: &str) -> PathBuf {
        self.root.path().join(Self::BUCKET).join(key)
    }

    /// Creates or replaces an object.
    pub(crate) fn put(&self, key: &str, bytes: &[u8]) {
        let file = self.file(key);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, bytes).unwrap();
    }

    /// `s3://models/KEY`.
    pub(crate) fn uri(&self, key: &str) -> String {
        format!("s3://{}/{key}", Self::BUCKET)
    }

    /// Settings with which a client reaches this server, named as environment variables.
    pub(crate) fn settings(&self) -> Vec<(String, String)> {
        [
            ("AWS_ENDPOINT_URL", self.endpoint.as_str()),
            ("AWS_ALLOW_HTTP", "true"),
            ("AWS_ACCESS_KEY_ID", self.access_key),
            ("AWS_SECRET_ACCESS_KEY", self.secret_key),
            ("AWS_REGION", "us-east-1"),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .to_vec()
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
