//! What build.rs makes of proto/: messages, servers and clients. Generated, so free of our lints.

/// The public API.
#[allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::pedantic,
    clippy::expect_used,
    clippy::unwrap_used
)]
pub mod v1 {
    tonic::include_proto!("spectrald.v1");
}

/// Coordinator and workers.
pub mod worker {
    /// Version 1.
    #[allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic)]
    pub mod v1 {
        tonic::include_proto!("spectrald.worker.v1");
    }
}

/// What is kept on disk.
pub mod store {
    /// Version 1.
    #[allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic)]
    pub mod v1 {
        tonic::include_proto!("spectrald.store.v1");
    }
}

/// Descriptors of every file in proto/, for reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
