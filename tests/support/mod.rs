//! What several subjects use: servers that run in the test process, and models.

#[cfg(unix)]
pub(crate) mod cluster;
pub(crate) mod coordinator;
pub(crate) mod hostile;
pub(crate) mod models;
pub(crate) mod s3;
