//! gRPC: generated code, and what stands between it and the rest: conversions, errors, clients.

pub mod client;
pub mod convert;
pub mod proto;
pub mod status;

/// Version of the protocol between coordinator and workers (`spectrald.worker.v1`); both refuse another.
pub const WORKER_PROTOCOL: u32 = 1;
