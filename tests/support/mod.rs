//! What several subjects use: servers that run in the test process, and models.

pub(crate) mod coordinator;
pub(crate) mod hostile;
pub(crate) mod models;
pub(crate) mod s3;
