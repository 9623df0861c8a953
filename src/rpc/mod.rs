//! gRPC: generated code, and what stands between it and the rest: conversions, errors, clients.

pub mod client;
pub mod convert;
pub mod proto;
pub mod status;
