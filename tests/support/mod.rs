//! Servers that run in the test process.

pub(crate) mod hostile;
pub(crate) mod s3;
